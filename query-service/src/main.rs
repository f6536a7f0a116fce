//! The query service's process.

use clap::Parser;
use query_service::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    query_service::run(Config::parse()).await
}
