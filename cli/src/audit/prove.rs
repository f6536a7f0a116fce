//! `prospectus audit prove`: a proof that one event is in the log, for checking without the database.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use event_store::StoredEvent;
use event_store::proof::{Proof, SignedHead, heads};
use serde_json::json;
use tokio_postgres::Client;

use super::kept;
use crate::output::Output;
use crate::primary::Primary;

/// Between two looks for a head.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Proves that the event at a position is in the log. Prints the proof; `prospectus audit check` checks it, without the database.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  prospectus audit prove 4711 > proof.json\n  prospectus audit prove 4711 --head head.json > proof.json"
)]
pub struct Args {
    /// The event's position.
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    position: i64,
    /// A head that was kept, or a file of them: the proof leads to the newest of them that covers the position, else to the log's newest.
    #[arg(long)]
    head: Option<PathBuf>,
    /// How long to wait for a head that covers the position, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3600))]
    wait: u64,
}

/// Runs the command.
///
/// # Errors
/// If there is no such event, no head covers it in time, or the database fails.
pub async fn run(args: &Args, primary: &Primary) -> anyhow::Result<Output> {
    const SQL: &str = "-- cli::audit::prove
        SELECT e.position, e.tenant_id, e.aggregate_type, e.aggregate_id, e.sequence, e.event_id, e.event_type,
               e.event_version, e.payload, e.metadata, e.recorded_at
        FROM log.events AS e WHERE e.position = $1";
    let client = primary.connect_migrated().await?;
    let row = client.query_opt(SQL, &[&args.position]).await?;
    let row =
        row.with_context(|| format!("the log has no position {}: `prospectus status` shows its head", args.position))?;
    let event = StoredEvent::from_row(&row)?;
    let head = match &args.head {
        Some(file) => kept_head(&client, file, args.position).await?,
        None => wait_for_head(&client, args).await?,
    };
    let keys = heads::keys(&client).await?;
    let key = keys.iter().find(|known| known.key.id() == head.key_id);
    let key = key.with_context(|| format!("the log does not know the key {} that signed the head", head.key_id))?.key;
    let proof = Proof::make(&client, &event, head, key).await?.context("the head does not cover the position")?;
    // Whoever asks for a proof hears at once that the log does not have it.
    proof.check(None, None).context("the log cannot prove it: `prospectus audit verify` says what was changed")?;
    let json = json!(proof);
    let text = format!("{json:#}\n");
    Ok(Output::new(json, text))
}

/// The newest head in a file that covers the position and is over this life of the log.
async fn kept_head(client: &Client, file: &std::path::Path, position: i64) -> anyhow::Result<SignedHead> {
    let lives = heads::lives(client).await?;
    let covers = |head: &SignedHead| {
        let covers = i64::try_from(head.head.tree_size).is_ok_and(|size| size >= position);
        (covers && heads::successor_of_kept(&lives, &head.head).is_none()).then_some(head.head.time)
    };
    kept::best(file, covers)?
        .with_context(|| format!("no head in {} covers position {position} in this life of the log", file.display()))
}

async fn wait_for_head(client: &Client, args: &Args) -> anyhow::Result<SignedHead> {
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    loop {
        let newest = heads::newest(client).await?.map(|head| head.signed);
        // One over a tail that was lost covers others' events; the sealer signs the next one soon.
        let lives = heads::lives(client).await?;
        let newest = newest.filter(|head| heads::successor(&lives, &head.head).is_none());
        match newest {
            Some(head) if i64::try_from(head.head.tree_size).is_ok_and(|size| size >= args.position) => {
                return Ok(head);
            }
            newest if Instant::now() >= deadline => anyhow::bail!(
                "no signed head covers position {} yet ({} events are covered): is a sealer running?",
                args.position,
                newest.map_or(0, |head| head.head.tree_size)
            ),
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
