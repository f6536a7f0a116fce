//! Loading a record of 20 events and appending to it, beside connections that select the rows and insert one.

use std::sync::Arc;
use std::time::Duration;

use domain::{Company, CompanyCommand, Context, Record as _, RecordEvent as _};
use event_store::append::StreamAppend;
use event_store::json_text::JsonText;
use event_store::{Executor, Store};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Map;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::append::{BARE_INSERT, CONNECTIONS, WRITERS, make_bare};
use crate::clock::rate;
use crate::results::Results;
use crate::sample::{self, TENANT};
use crate::stack::BenchStack;

/// Records, and events of each.
const STREAMS: usize = 20_000;
const EVENTS: u64 = 20;
/// Room for all of them.
const CACHE_BYTES: u64 = 256 << 20;

const BARE_SELECT: &str = "
    SELECT sequence, position, event_id, event_type, event_version, payload FROM bare.events
    WHERE tenant_id = $1 AND aggregate_id = $2 ORDER BY sequence";

/// One round: the limit, then ours with a cache that keeps nothing and with one that keeps all.
///
/// # Errors
/// If anything is refused.
pub async fn round(stack: &BenchStack, length: Duration, results: &mut Results) -> anyhow::Result<()> {
    let database = stack.fresh("load").await?;
    let (store, task) = Store::open(&stack.appender(&database)?, stack.keyring.clone());
    let streams = Arc::new(seed(&store).await?);
    let client = stack.superuser(&database).await?;
    make_bare(&client).await?;
    client
        .batch_execute(
            "INSERT INTO bare.events SELECT * FROM log.events;
             SELECT setval('bare.positions', (SELECT max(position) FROM bare.events))",
        )
        .await?;
    for settle in ["VACUUM ANALYZE bare.events", "VACUUM ANALYZE log.events", "CHECKPOINT"] {
        client.batch_execute(settle).await?;
    }
    results.add("limit.load_insert", "commands/s", limit(stack, &database, &streams, length).await?);
    let cold = Arc::new(Executor::<Company>::new(store.clone(), 0));
    client.batch_execute("CHECKPOINT").await?;
    results.add("load_append.cold", "commands/s", ours(&cold, &streams, length).await?);
    let warm = Arc::new(Executor::<Company>::new(store, CACHE_BYTES));
    let fill = (0_u64..).zip(streams.iter()).map(|(number, id)| update(&warm, *id, number));
    stream::iter(fill).buffer_unordered(WRITERS).try_collect::<Vec<()>>().await?;
    client.batch_execute("CHECKPOINT").await?;
    results.add("load_append.warm", "commands/s", ours(&warm, &streams, length).await?);
    drop((cold, warm));
    task.finish().await;
    stack.remove(&database).await
}

/// Writes the records: registered, then changed again and again.
async fn seed(store: &Store) -> anyhow::Result<Vec<Uuid>> {
    let context = Context { now: time::OffsetDateTime::now_utc(), seed: Uuid::now_v7() };
    let mut company = Company::default();
    let mut payloads = Vec::new();
    for number in 1..=EVENTS {
        let command = match number {
            1 => CompanyCommand::Register(sample::register(number)?),
            _ => CompanyCommand::Update(sample::update(number)?),
        };
        for event in company.decide(command, &context)? {
            company.evolve(&event);
            payloads.push((event.name(), event.payload()));
        }
    }
    let metadata = serde_json::to_string(&sample::metadata())?;
    let appends = std::iter::repeat_with(|| {
        let mut append = sample::append("", &metadata, false);
        let id = append.answer.id;
        let events = payloads.iter().map(|(name, payload)| sample::event(name, payload)).collect();
        append.streams = vec![StreamAppend {
            aggregate_type: "company",
            aggregate_id: id,
            expected_version: 0,
            events,
            new_key: None,
        }];
        async move { store.appender().append(append).await.map(|answer| answer.id) }
    });
    Ok(stream::iter(appends.take(STREAMS)).buffer_unordered(WRITERS).try_collect().await?)
}

async fn limit(stack: &BenchStack, database: &str, streams: &Arc<Vec<Uuid>>, length: Duration) -> anyhow::Result<f64> {
    let metadata = serde_json::to_string(&sample::metadata())?;
    let payload = serde_json::json!({ "short_description": sample::description(0) }).to_string();
    rate(stack.superusers(database, CONNECTIONS).await?, length, |client, mut turns| {
        let (streams, payload, metadata) = (Arc::clone(streams), payload.clone(), metadata.clone());
        async move {
            let select = client.prepare(BARE_SELECT).await?;
            let insert = client.prepare(BARE_INSERT).await?;
            while turns.next() {
                let id = any(&streams);
                loop {
                    let rows = client.query(&select, &[&TENANT, &id]).await?;
                    let version: i64 = rows.last().map_or(0, |row| row.get(0));
                    let (payload, metadata) = (JsonText(&payload), JsonText(&metadata));
                    let inserted = client
                        .execute(&insert, &[&TENANT, &id, &(version + 1), &Uuid::now_v7(), &payload, &metadata])
                        .await;
                    match inserted {
                        Ok(_) => break,
                        // Another connection was at the same record.
                        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            Ok(turns)
        }
    })
    .await
}

async fn ours(executor: &Arc<Executor<Company>>, streams: &Arc<Vec<Uuid>>, length: Duration) -> anyhow::Result<f64> {
    rate(vec![(); WRITERS], length, |(), mut turns| {
        let (executor, streams) = (Arc::clone(executor), Arc::clone(streams));
        async move {
            while turns.next() {
                let draw = u64::from_ne_bytes(Uuid::new_v4().as_bytes()[8..].try_into()?);
                update(&executor, any(&streams), draw).await?;
            }
            Ok(turns)
        }
    })
    .await
}

/// A command that changes something.
async fn update(executor: &Executor<Company>, id: Uuid, number: u64) -> anyhow::Result<()> {
    let command = CompanyCommand::Update(sample::update(number)?);
    executor.execute(id, command, &sample::request(), |_| Map::new()).await?;
    Ok(())
}

fn any(streams: &[Uuid]) -> Uuid {
    let draw = usize::try_from(Uuid::new_v4().as_u128() % streams.len() as u128).expect("less than the streams");
    streams[draw]
}
