//! Projections of the log into read tables.
//!
//! Owns decisions 11 and 12: rows and checkpoint commit together, and a change's fan-out is bounded; and the verifier that shows
//! that the read tables are the fold of the log (I5). NATS only says that there is news: the events are read from the log, which is
//! polled anyway.
//!
//! The way of an event: [`event_store::Feed`] → [`record::apply`] folds it → [`rows`] says what a row shows → [`projection`] writes
//! it. How to add a column: its line in [`rows`] and in the generation's SQL under `migrations/`.

pub mod columns;
pub mod config;
mod fanout;
pub mod live;
pub mod projection;
pub mod record;
pub mod rows;
mod statements;
pub mod verify;

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use event_store::Keyring;
use service_kit::health::Health;
use service_kit::http::{Limits, observe, serve};
use service_kit::postgres::Database;
use service_kit::{shutdown, telemetry};
use tokio::net::TcpListener;

use config::Config;

/// Runs the projector until it is told to end.
///
/// # Errors
/// What keeps it from starting: the database, its schema, the keys, the address.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let metrics = telemetry::init(&config.common.log, config.common.log_format)?;
    let shutdown = shutdown::on_signal()?;
    let database = Database::parse(config.database_url.expose(), "prospectus projector")?.read_write();
    let keyring = Arc::new(Keyring::parse(config.keyring.text()?.expose())?);
    let client = database.client().await.with_context(|| format!("no connection to {}", database.name()))?;
    migrations::check(&client).await?;
    keyring.verify(&client, false).await?;
    drop(client);

    let news = live::listen(config.nats_url.as_ref().map(|url| url.expose().to_owned()), shutdown.clone());
    let (live, state) = live::Live::new(database, keyring, news);
    let working = tokio::spawn(live.run(shutdown.clone()));
    let health = Health::new().check("projection", move || {
        let trouble = state.borrow().clone();
        async move { trouble.map_or(Ok(()), Err) }
    });
    let listener = TcpListener::bind(config.common.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.common.listen))?;
    tracing::info!(address = %listener.local_addr()?, "the projector serves its health and figures");
    let router: Router = health.router(metrics, shutdown.clone());
    serve(observe(router, "projector"), listener, Limits::default(), shutdown).await?;
    working.await.context("the projection broke")
}
