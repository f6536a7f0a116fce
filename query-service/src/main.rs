//! The query service's process.

use clap::Parser;
use query_service::config::Config;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    query_service::run(Config::parse()).await
}
