//! `prospectus log`.

use serde_json::json;

use crate::output::Output;
use crate::primary::Primary;

/// How long the command waits for an append that runs.
const APPEND_LOCK_TIMEOUT: &str = "30s";

/// The event log.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  prospectus log new-epoch")]
pub enum Command {
    /// Begins another life of the log, after a disk snapshot or file-system backup was brought back.
    ///
    /// A promotion or a point-in-time restore is noticed without this command; a server whose disk went back in time is not, because it
    /// is the same server on the same timeline. Run it before the command services start again: positions after the snapshot will be used
    /// a second time, and consumers learn it from the new epoch.
    #[command(after_help = "Example:\n  prospectus log new-epoch")]
    NewEpoch,
}

/// Runs the command.
///
/// # Errors
/// If the database fails.
pub async fn run(command: &Command, primary: &Primary) -> anyhow::Result<Output> {
    match command {
        Command::NewEpoch => new_epoch(primary).await,
    }
}

async fn new_epoch(primary: &Primary) -> anyhow::Result<Output> {
    const WAIT: &str = "-- cli::log::new_epoch
        SELECT set_config('lock_timeout', $1 /* wait */, true)";
    let mut client = primary.connect_migrated().await?;
    let transaction = client.transaction().await?;
    transaction.execute(WAIT, &[&APPEND_LOCK_TIMEOUT]).await?;
    let epoch = event_store::epoch::begin(&transaction).await?;
    transaction.commit().await?;
    let (name, first_position) = (&*epoch.name, epoch.first_position);
    Ok(Output::new(
        json!({"number": epoch.number, "epoch": name, "first_position": first_position}),
        format!("epoch {name} begins at position {first_position}\n"),
    ))
}
