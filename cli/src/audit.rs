//! `prospectus audit`: what auditors ask of a record and of the log.

mod check;
mod history;
mod kept;
mod prove;
mod terminal;
mod verify;

pub(crate) use kept::heads;

use crate::output::Output;
use crate::primary::Primary;

/// What happened to a record, and proof of the log and what is in it.
#[derive(Debug, clap::Subcommand)]
#[command(
    after_help = "Example:\n  prospectus audit history 0198c0de-0000-7000-8000-000000000001\n  prospectus audit verify --head heads.ndjson\n  prospectus audit prove 4711 --head head.json > proof.json\n  prospectus audit check proof.json --head head.json"
)]
pub enum Command {
    History(history::Args),
    Verify(verify::Args),
    Prove(prove::Args),
    Check(check::Args),
}

/// Runs the command. `primary` is asked for only where a database is needed.
///
/// # Errors
/// What keeps it from an answer; that something is wrong with the log or a proof is an answer.
pub async fn run(
    command: &Command,
    as_json: bool,
    primary: impl FnOnce() -> anyhow::Result<Primary>,
) -> anyhow::Result<Output> {
    match command {
        Command::History(args) => history::run(args, as_json).await,
        Command::Verify(args) => verify::run(args, &primary()?).await,
        Command::Prove(args) => prove::run(args, &primary()?).await,
        Command::Check(args) => check::run(args),
    }
}
