//! The command service's process.

use clap::Parser;
use command_service::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    command_service::run(Config::parse()).await
}
