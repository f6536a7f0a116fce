//! How many events a second the log takes, beside bare inserts and beside postgres-es.

use std::time::Duration;

use domain::{Company, CompanyCommand, Context, Record as _, RecordEvent as _};
use event_store::Store;
use event_store::json_text::JsonText;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::clock::{median_ms, rate};
use crate::peer;
use crate::results::Results;
use crate::sample::{self, TENANT};
use crate::stack::BenchStack;

/// Commands at the same time, as many clients of a service would send them.
pub const WRITERS: usize = 256;
/// Connections of the limit, and of postgres-es.
pub const CONNECTIONS: usize = 32;

/// A table like the log's, with the log's indexes and checks, whose positions come from a sequence.
const BARE_TABLE: &str = "
    CREATE SCHEMA bare;
    CREATE TABLE bare.events (LIKE log.events INCLUDING ALL);
    CREATE SEQUENCE bare.positions OWNED BY bare.events.position CACHE 1;
    ALTER TABLE bare.events ALTER COLUMN position SET DEFAULT nextval('bare.positions')";

/// The bare insert of one event.
pub const BARE_INSERT: &str = "
    INSERT INTO bare.events (tenant_id, aggregate_type, aggregate_id, sequence, event_id, event_type, event_version, payload,
                             metadata, recorded_at)
    VALUES ($1, 'company', $2, $3, $4, 'CompanyRegistered', 1, $5, $6, clock_timestamp())";

/// The stored text of a company's first event, and of the metadata beside it.
///
/// # Errors
/// None for the sample, which is valid.
pub fn texts() -> anyhow::Result<(String, String)> {
    let command = CompanyCommand::Register(sample::register(1)?);
    let context = Context { now: time::OffsetDateTime::now_utc(), seed: Uuid::now_v7() };
    let events = Company::default().decide(command, &context)?;
    let payload = events.iter().map(domain::CompanyEvent::payload).collect::<String>();
    Ok((payload, serde_json::to_string(&sample::metadata())?))
}

/// Makes the table of the bare inserts.
///
/// # Errors
/// If the server refuses.
pub async fn make_bare(client: &Client) -> anyhow::Result<()> {
    Ok(client.batch_execute(BARE_TABLE).await?)
}

/// `limit.insert`: one event per transaction, prepared, on 32 connections.
///
/// # Errors
/// If the server refuses.
async fn limit(stack: &BenchStack, database: &str, length: Duration) -> anyhow::Result<f64> {
    let (payload, metadata) = texts()?;
    rate(stack.superusers(database, CONNECTIONS).await?, length, |client, mut turns| {
        let (payload, metadata) = (payload.clone(), metadata.clone());
        async move {
            let insert = client.prepare(BARE_INSERT).await?;
            while turns.next() {
                bare_insert(&client, &insert, &payload, &metadata).await?;
            }
            Ok(turns)
        }
    })
    .await
}

async fn bare_insert(
    client: &Client,
    insert: &tokio_postgres::Statement,
    payload: &str,
    metadata: &str,
) -> anyhow::Result<()> {
    let (payload, metadata) = (JsonText(payload), JsonText(metadata));
    client.execute(insert, &[&TENANT, &Uuid::now_v7(), &1_i64, &Uuid::now_v7(), &payload, &metadata]).await?;
    Ok(())
}

/// Rest before each insert of `limit.insert_rested_p50`: about what passes between two flushes of one client's commands.
const REST: Duration = Duration::from_millis(1);

/// The same on one connection, one at a time, with a rest before each; the median in milliseconds. `limit.insert_p50` has none,
/// `limit.insert_rested_p50` shows what the rest costs by itself.
///
/// # Errors
/// If the server refuses.
async fn limit_p50(stack: &BenchStack, database: &str, length: Duration, rest: Duration) -> anyhow::Result<f64> {
    let (payload, metadata) = texts()?;
    let client = stack.superuser(database).await?;
    let insert = client.prepare(BARE_INSERT).await?;
    median_ms(length, rest, async || bare_insert(&client, &insert, &payload, &metadata).await).await
}

/// Appends through the event store, one event to a new stream each time.
///
/// # Errors
/// If an append is refused.
pub async fn library(store: &Store, length: Duration, claim: bool) -> anyhow::Result<f64> {
    let (payload, metadata) = texts()?;
    rate(vec![(); WRITERS], length, |(), mut turns| {
        let (store, payload, metadata) = (store.clone(), payload.clone(), metadata.clone());
        async move {
            while turns.next() {
                store.appender().append(sample::append(&payload, &metadata, claim)).await?;
            }
            Ok(turns)
        }
    })
    .await
}

/// `limit.import_insert`: the same as `limit.insert`, right before the imports.
///
/// # Errors
/// If the server refuses.
pub async fn limit_of_imports(stack: &BenchStack, length: Duration, results: &mut Results) -> anyhow::Result<()> {
    let database = stack.fresh("limit").await?;
    make_bare(&stack.superuser(&database).await?).await?;
    results.add("limit.import_insert", "events/s", limit(stack, &database, length).await?);
    stack.remove(&database).await
}

/// One round of the limits alone.
///
/// # Errors
/// If the server refuses.
pub async fn limits(stack: &BenchStack, length: Duration, results: &mut Results) -> anyhow::Result<()> {
    let database = stack.fresh("limit").await?;
    make_bare(&stack.superuser(&database).await?).await?;
    results.add("limit.insert", "events/s", limit(stack, &database, length).await?);
    results.add("limit.insert_p50", "ms", limit_p50(stack, &database, length, Duration::ZERO).await?);
    results.add("limit.insert_rested_p50", "ms", limit_p50(stack, &database, length, REST).await?);
    stack.remove(&database).await
}

/// One round: ours without and with a claim, and postgres-es.
///
/// # Errors
/// If anything is refused.
pub async fn round(stack: &BenchStack, length: Duration, results: &mut Results) -> anyhow::Result<()> {
    let database = stack.fresh("append").await?;
    let (store, task) = Store::open(&stack.appender(&database)?, stack.keyring.clone());
    results.add("append.library", "events/s", library(&store, length, false).await?);
    results.add("append.library_claims", "events/s", library(&store, length, true).await?);
    task.finish().await;
    stack.remove(&database).await?;
    let database = stack.fresh("peer").await?;
    results.add("append.postgres_es", "events/s", peer::postgres_es(stack, &database, length).await?);
    stack.remove(&database).await
}
