//! `prospectus projection`: what an operator decides about a projection that cannot go on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use domain::Projection;
use domain::projection::{PositionSkipped, ProjectionCommand, SYSTEM_TENANT, record_id};
use domain::value::Line;
use event_store::{Executor, Metadata, Request, Store};
use serde_json::{Map, Value, json};
use service_kit::config::KeyringArgs;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::output::Output;
use crate::primary::{self, Primary};

/// How long the decision may take to be written.
const DEADLINE: Duration = Duration::from_secs(30);

/// Projections of the log.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  prospectus projection skipped")]
pub enum Command {
    /// Leaves out the event that a projection has stopped at, for good: in every generation, rebuild and verification.
    ///
    /// Only the event that the projection's last error names can be skipped (`prospectus status` shows it). First find out why it cannot be
    /// applied: a newer release, a key file or a restored key may be all that is missing. A record that loses an event says what it said before
    /// it; one that loses its first event is not shown at all. Erasures are never skipped.
    #[command(
        after_help = "Example:\n  prospectus projection skip --projection company_prospect --position 4711 --reason 'written by the release of May 3, see ticket 812'"
    )]
    Skip {
        /// Name of the projection.
        #[arg(long, default_value = migrations::COMPANY_PROSPECT)]
        projection: String,
        /// The event to leave out.
        #[arg(long)]
        position: i64,
        /// Why, for those who come later. It stands in the log for ever: nothing personal.
        #[arg(long, value_parser = parse_reason)]
        reason: Line<500>,
        #[command(flatten)]
        keyring: KeyringArgs,
    },
    /// Lists what was skipped, when and why.
    #[command(after_help = "Example:\n  prospectus projection skipped --json")]
    Skipped,
}

/// Runs the command.
///
/// # Errors
/// If the event is not the one that the projection has stopped at, or the database fails.
pub async fn run(command: &Command, primary: &Primary) -> anyhow::Result<Output> {
    match command {
        Command::Skip { projection, position, reason, keyring } => {
            skip(projection, *position, reason, keyring, primary).await
        }
        Command::Skipped => skipped(primary).await,
    }
}

async fn skip(
    projection: &str,
    position: i64,
    reason: &Line<500>,
    keyring: &KeyringArgs,
    primary: &Primary,
) -> anyhow::Result<Output> {
    ensure!(
        migrations::PROJECTIONS.contains(&projection),
        "there is no projection {projection:?}; there are: {}",
        migrations::PROJECTIONS.join(", ")
    );
    let client = primary.connect_migrated().await?;
    let keyring = Arc::new(primary::keyring(keyring, &client).await?);
    if !is_skipped(&client, projection, position).await? {
        may_be_skipped(&client, projection, position).await?;
    }
    let (store, task) = Store::open(primary.database(), keyring);
    let projections: Executor<Projection> = Executor::new(store, 0);
    let command = ProjectionCommand::Skip(PositionSkipped {
        projection: Line::parse(projection).map_err(|_| anyhow::anyhow!("the projection's name is too long"))?,
        position,
        reason: reason.clone(),
    });
    let done = projections.execute(record_id(projection), command, &request(), |_| Map::new()).await;
    drop(projections);
    task.finish().await;
    let recorded_at = done.context("the decision could not be recorded")?.position;
    Ok(Output::new(
        json!({"projection": projection, "position": position, "recorded_at_position": recorded_at}),
        format!(
            "{projection} leaves out the event at position {position} and goes on by itself; recorded in the log at position {recorded_at}\n"
        ),
    ))
}

async fn is_skipped(client: &Client, projection: &str, position: i64) -> anyhow::Result<bool> {
    let skips = projector::skips::Skips::read(client, projection).await.context("what is skipped already")?;
    Ok(skips.contains(position))
}

/// Refuses what the live generation does not stand at, and what must not be left out.
async fn may_be_skipped(client: &Client, projection: &str, position: i64) -> anyhow::Result<()> {
    const STATE: &str = "-- cli::projection::may_be_skipped, state
        SELECT s.applied_position, s.error_position, s.error_stands FROM read.projection_states() AS s
        WHERE s.projection = $1 AND s.generation = s.live_generation";
    const EVENT: &str = "-- cli::projection::may_be_skipped, event
        SELECT e.event_type, e.sequence FROM log.events AS e WHERE e.position = $1";
    let state = client.query_opt(STATE, &[&projection]).await?.context("the projection has no live generation")?;
    let (applied, stands_at): (i64, Option<i64>) = (state.get(0), state.get(1));
    match stands_at.filter(|_| state.get(2)) {
        Some(at) if at == position => {}
        Some(at) => {
            bail!("{projection} has stopped at position {at}, not at {position}: only that event can be skipped")
        }
        None => bail!(
            "{projection} has not stopped at an event: it has applied everything up to position {applied}, and nothing can be skipped"
        ),
    }
    let Some(event) = client.query_opt(EVENT, &[&position]).await? else {
        bail!("there is no event at position {position}: a hole in the log is not skipped, the event must be restored")
    };
    let (event_type, sequence): (&str, i64) = (event.get(0), event.get(1));
    ensure!(
        event_type != "ProspectErased",
        "the event at position {position} erases a person and is never skipped: see why it cannot be applied"
    );
    ensure!(
        position > applied || sequence > 1,
        "the event at position {position} was applied when it came, and without it its record would have none: see why it cannot be read \
         any more"
    );
    Ok(())
}

async fn skipped(primary: &Primary) -> anyhow::Result<Output> {
    const SQL: &str = "-- cli::projection::skipped
        SELECT e.payload->>'projection', (e.payload->>'position')::bigint, e.payload->>'reason', e.position,
               to_char(e.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
        FROM log.events AS e WHERE e.tenant_id = $1 /* system */ AND e.event_type = 'ProjectionPositionSkipped' ORDER BY e.position";
    let client = primary.connect_migrated().await?;
    let rows = client.query(SQL, &[&SYSTEM_TENANT]).await?;
    let rows: Vec<Vec<Value>> = rows
        .iter()
        .map(|row| {
            vec![
                row.get::<_, &str>(0).into(),
                row.get::<_, i64>(1).into(),
                row.get::<_, &str>(4).into(),
                row.get::<_, &str>(2).into(),
                row.get::<_, i64>(3).into(),
            ]
        })
        .collect();
    Ok(Output::rows(&["projection", "position", "skipped_at", "reason", "recorded_at_position"], &rows))
}

fn request() -> Request {
    let request_id = Uuid::now_v7().to_string();
    Request {
        tenant_id: SYSTEM_TENANT,
        metadata: Metadata {
            actor: "operator".to_owned(),
            actor_role: "operator".to_owned(),
            correlation_id: request_id.clone(),
            causation_id: None,
            request_id,
            source: "projection skip".to_owned(),
            client_address: None,
        },
        receipt: None,
        if_match: None,
        deadline: Instant::now() + DEADLINE,
        patient: true,
    }
}

fn parse_reason(text: &str) -> Result<Line<500>, String> {
    Line::parse(text).map_err(|_| "give a reason of 1 to 500 characters".to_owned())
}
