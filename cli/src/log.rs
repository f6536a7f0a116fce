//! `prospectus log`.

use serde_json::json;

use crate::output::Output;
use crate::primary::Primary;

/// The lock that every append takes; see `event_store::append`.
const APPEND_LOCK: i64 = 5_787_213_827_046_133_840;

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
    const LOCK: &str = "-- cli::log::new_epoch
        SELECT pg_advisory_xact_lock($1 /* lock */)";
    const BEGIN: &str = "-- cli::log::new_epoch
        INSERT INTO log.epochs (number, epoch_id, first_position, system_identifier, timeline)
        SELECT coalesce((SELECT max(e.number) FROM log.epochs AS e), 0) + 1, gen_random_uuid(),
               coalesce((SELECT e.position FROM log.events AS e ORDER BY e.position DESC LIMIT 1), 0) + 1,
               s.system_identifier,
               ('x' || lpad(left(pg_walfile_name(pg_current_wal_lsn()), 8), 16, '0'))::bit(64)::bigint
        FROM pg_control_system() AS s
        RETURNING number, name, first_position";
    let mut client = primary.connect_migrated().await?;
    let transaction = client.transaction().await?;
    transaction.execute(WAIT, &[&APPEND_LOCK_TIMEOUT]).await?;
    // Under the log's lock, and in a later statement, so that no append slips in between the position read and the row.
    transaction.execute(LOCK, &[&APPEND_LOCK]).await?;
    let row = transaction.query_one(BEGIN, &[]).await?;
    transaction.commit().await?;
    let (number, name, first_position): (i64, &str, i64) = (row.get(0), row.get(1), row.get(2));
    Ok(Output::new(
        json!({"number": number, "epoch": name, "first_position": first_position}),
        format!("epoch {name} begins at position {first_position}\n"),
    ))
}
