//! The projector's process.

use clap::Parser;
use projector::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    projector::run(Config::parse()).await
}
