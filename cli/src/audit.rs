//! `prospectus audit`: what auditors ask.

mod history;
mod terminal;

use crate::output::Output;

/// What happened to a record, and proof of it.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  prospectus audit history 0198c0de-0000-7000-8000-000000000001")]
pub enum Command {
    History(history::Args),
}

/// Runs the command.
///
/// # Errors
/// If the service refuses or cannot be reached.
pub async fn run(command: &Command, as_json: bool) -> anyhow::Result<Output> {
    match command {
        Command::History(args) => history::run(args, as_json).await,
    }
}
