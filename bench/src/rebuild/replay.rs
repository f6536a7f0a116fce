//! postgres-es's replay as its users run it: `QueryReplay` over its repository, into a view of its own that a generic query keeps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use cqrs_es::persist::{GenericQuery, QueryReplay};
use cqrs_es::{EventEnvelope, View};
use domain::{Company, Record as _};
use postgres_es::{PostgresEventRepository, PostgresViewRepository};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;

use crate::stack::BenchStack;

/// Events that are replayed: the rate does not depend on how many there are.
const EVENTS: i64 = 20_000;
const CONNECTIONS: u32 = 4;

/// A company's row, as a view of its documentation's kind: the state as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Row {
    state: Company,
}

impl View<Company> for Row {
    fn update(&mut self, event: &EventEnvelope<Company>) {
        self.state.evolve(&event.payload);
    }
}

/// Replays the first companies' events; rows a second.
///
/// # Errors
/// If the server or the framework refuses.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
pub async fn postgres_es(stack: &BenchStack, database: &str) -> anyhow::Result<f64> {
    let client = stack.superuser(database).await?;
    client
        .batch_execute(&format!(
            "CREATE TABLE public.replayed (view_id text PRIMARY KEY, version bigint NOT NULL, payload json NOT NULL);
             CREATE TABLE public.first_events (
                 aggregate_type text NOT NULL, aggregate_id text NOT NULL, sequence bigint NOT NULL, event_type text NOT NULL,
                 event_version text NOT NULL, payload json NOT NULL, metadata json NOT NULL,
                 PRIMARY KEY (aggregate_type, aggregate_id, sequence));
             INSERT INTO public.first_events
             SELECT aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata
             FROM log.cqrs_events WHERE aggregate_type = 'company' LIMIT {EVENTS}"
        ))
        .await?;
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(&stack.url(database)).await?;
    let repository = PostgresEventRepository::new(pool.clone()).with_tables("public.first_events", "none");
    let views = Arc::new(PostgresViewRepository::<Row, Company>::new("public.replayed", pool));
    let replay = QueryReplay::new(repository, GenericQuery::<_, Row, Company>::new(views));
    let began = Instant::now();
    replay.replay_all().await.map_err(|error| anyhow::anyhow!("{error}"))?;
    let took: Duration = began.elapsed();
    let rows: i64 = client.query_one("SELECT count(*) FROM public.replayed", &[]).await?.get(0);
    ensure!(rows > 0, "nothing was replayed");
    Ok(rows as f64 / took.as_secs_f64())
}
