//! `prospectus audit`: what an auditor asks of the log.

mod check;
mod kept;
mod prove;
mod verify;

use crate::output::Output;
use crate::primary::Primary;

/// Proves the log and what is in it.
#[derive(Debug, clap::Subcommand)]
#[command(
    after_help = "Example:\n  prospectus audit verify --head heads.ndjson\n  prospectus audit prove 4711 --head head.json > proof.json\n  prospectus audit check proof.json --head head.json"
)]
pub enum Command {
    Verify(verify::Args),
    Prove(prove::Args),
    Check(check::Args),
}

/// Runs the command. `primary` is asked for only where a database is needed.
///
/// # Errors
/// What keeps it from an answer; that something is wrong with the log or a proof is an answer.
pub async fn run(command: &Command, primary: impl FnOnce() -> anyhow::Result<Primary>) -> anyhow::Result<Output> {
    match command {
        Command::Verify(args) => verify::run(args, &primary()?).await,
        Command::Prove(args) => prove::run(args, &primary()?).await,
        Command::Check(args) => check::run(args),
    }
}
