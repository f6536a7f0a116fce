//! postgres-es as its users run it: cqrs-es's framework over its repository and its table.

use std::sync::Arc;
use std::time::Duration;

use domain::{Company, CompanyCommand, Context};
use postgres_es::{PostgresCqrs, postgres_cqrs};
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::append::CONNECTIONS;
use crate::clock::rate;
use crate::sample;
use crate::stack::BenchStack;

/// A table as postgres-es's documentation asks for.
const TABLE: &str = "
    CREATE TABLE events (
        aggregate_type text NOT NULL,
        aggregate_id text NOT NULL,
        sequence bigint NOT NULL CHECK (sequence >= 0),
        event_type text NOT NULL,
        event_version text NOT NULL,
        payload json NOT NULL,
        metadata json NOT NULL,
        PRIMARY KEY (aggregate_type, aggregate_id, sequence)
    )";

/// `CqrsFramework::execute` of a registration on a new stream each time, 32 tasks on 32 connections.
///
/// # Errors
/// If the server or the framework refuses.
pub async fn postgres_es(stack: &BenchStack, database: &str, length: Duration) -> anyhow::Result<f64> {
    stack.superuser(database).await?.batch_execute(TABLE).await?;
    let connections = u32::try_from(CONNECTIONS)?;
    let pool = PgPoolOptions::new()
        .min_connections(connections)
        .max_connections(connections)
        .connect(&stack.url(database))
        .await?;
    let context = Context { now: time::OffsetDateTime::now_utc(), seed: Uuid::now_v7() };
    let framework: Arc<PostgresCqrs<Company>> = Arc::new(postgres_cqrs(pool, vec![], context));
    let register = sample::register(1)?;
    rate(vec![(); CONNECTIONS], length, |(), mut turns| {
        let (framework, register) = (Arc::clone(&framework), register.clone());
        async move {
            while turns.next() {
                let command = CompanyCommand::Register(register.clone());
                framework.execute(&Uuid::now_v7().to_string(), command).await?;
            }
            Ok(turns)
        }
    })
    .await
}
