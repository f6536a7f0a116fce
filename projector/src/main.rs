//! The projector's process.

use clap::Parser;
use projector::config::Config;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    projector::run(Config::parse()).await
}
