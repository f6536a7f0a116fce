//! `prospectus audit verify` of a whole sealed log, beside a COPY of the same events that only throws them away.

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::ensure;
use event_store::epoch;
use event_store::feed::Feed;
use event_store::proof::SealKeys;
use event_store::proof::sealing::Sealing;
use event_store::proof::verify::{Anchors, Verdict, verify};
use futures_util::TryStreamExt as _;
use service_kit::postgres::Database;
use time::OffsetDateTime;
use tokio_postgres::Client;

use crate::results::Results;
use crate::sample;
use crate::stack::{BenchStack, forget_own_peak, own_memory};

/// A key that signs nothing but what is measured here.
pub const SEAL_KEY: &str = "seal AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
/// Events of the log.
const EVENTS: i64 = 300_000;
/// Events that each head covers more than the one before it: what a log of 500 events a second has.
const HEAD_EVENTS: i64 = 300;

/// Fills and seals a log once, and measures on it.
///
/// # Errors
/// If anything is refused, or the log is not found intact.
pub async fn run(stack: &BenchStack, rounds: u32, results: &mut Results) -> anyhow::Result<()> {
    let database = stack.fresh("audit").await?;
    fill(stack, &database).await?;
    let client = stack.superuser(&database).await?;
    client.batch_execute("VACUUM ANALYZE log.events").await?;
    for _ in 0..rounds {
        results.add("limit.copy_log", "events/s", rate(copy(&client).await?));
        let resident = own_memory("VmRSS:")?;
        forget_own_peak()?;
        results.add("audit.verify", "events/s", rate(audit(&client).await?));
        results.add("audit.verify_memory", "MiB", (own_memory("VmHWM:")? - resident).max(0.0));
    }
    drop(client);
    stack.remove(&database).await
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn rate(took: Duration) -> f64 {
    EVENTS as f64 / took.as_secs_f64()
}

async fn fill(stack: &BenchStack, database: &str) -> anyhow::Result<()> {
    const EVENTS_SQL: &str = "-- bench::audit::fill
        INSERT INTO log.events
        SELECT n, $1, 'company', gen_random_uuid(), 1, gen_random_uuid(), 'CompanyUpdated', 1,
               json_build_object('short_description', $2::text, 'number', n), $3::text::json, now()
        FROM generate_series(1, $4::bigint) AS n";
    let mut client = stack.superuser(database).await?;
    let transaction = client.transaction().await?;
    epoch::begin(&transaction).await?;
    transaction.commit().await?;
    let metadata = serde_json::to_string(&sample::metadata())?;
    client.execute(EVENTS_SQL, &[&sample::TENANT, &sample::description(0), &metadata, &EVENTS]).await?;
    let keys = SealKeys::parse(SEAL_KEY)?;
    let feed = Feed::open(&Database::parse(&stack.url(database), "bench")?).await?;
    let (mut sealing, _) = Sealing::resume(&feed, &keys, None).await?;
    for position in (HEAD_EVENTS..=EVENTS).step_by(usize::try_from(HEAD_EVENTS)?) {
        sealing.seal(&feed, &keys, position, OffsetDateTime::now_utc()).await?;
    }
    Ok(())
}

/// How long the server takes to send all events in order, and we to throw them away.
async fn copy(client: &Client) -> anyhow::Result<Duration> {
    const SQL: &str = "-- bench::audit::copy
        COPY (SELECT e.position, e.tenant_id, e.aggregate_type, e.aggregate_id, e.sequence, e.event_id, e.event_type,
                     e.event_version, e.payload, e.metadata, e.recorded_at
              FROM log.events AS e ORDER BY e.position) TO STDOUT";
    let began = Instant::now();
    let mut rows = pin!(client.copy_out(SQL).await?);
    let mut count = 0;
    while rows.try_next().await?.is_some() {
        count += 1;
    }
    ensure!(count == EVENTS, "the server sent {count} rows");
    Ok(began.elapsed())
}

async fn audit(client: &Client) -> anyhow::Result<Duration> {
    let began = Instant::now();
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let report = verify(client, &Anchors::default(), |_, _| {}).await?;
    client.batch_execute("COMMIT").await?;
    ensure!(report.verdict() == Verdict::Intact && report.unsealed == 0, "{report:?}");
    Ok(began.elapsed())
}
