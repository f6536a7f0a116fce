//! Projections of the log into read tables.
//!
//! Owns decisions 11 and 12: rows and checkpoint commit together, and a change's fan-out is bounded; and the verifier that shows
//! that the read tables are the fold of the log (I5). NATS only says that there is news: the events are read from the log, which is
//! polled anyway.
//!
//! The way of an event: [`event_store::Feed`] → [`memory`] has its record → [`record::apply`] folds it → [`rows`] says what a row
//! shows → [`projection`] writes it. [`rebuild`] does the same for the whole log at once, in a generation of its own. How to add a column:
//! its line in [`rows`] and in the generation's SQL under `migrations/`, and a higher `migrations::CODE_VERSION`. What is counted of the
//! read tables is kept up to date beside that, by [`refresh`].

pub mod columns;
pub mod config;
mod connection;
mod elsewhere;
pub mod errors;
mod fanout;
mod lag;
pub mod live;
pub mod memory;
mod parallel;
mod pointers;
pub mod projection;
pub mod rebuild;
pub mod record;
pub mod refresh;
pub mod rows;
mod server;
mod shard;
pub mod skips;
mod statements;
pub mod states;
pub mod verify;

use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use axum::Router;
use event_store::Keyring;
use futures_util::join;
use service_kit::health::Health;
use service_kit::http::{Limits, observe, serve};
use service_kit::postgres::Database;
use service_kit::watchdog::Watchdog;
use service_kit::{shutdown, telemetry};
use tokio::net::TcpListener;

use config::Config;

/// Runs the projector until it is told to end.
///
/// # Errors
/// What keeps it from starting: the database, its schema, the keys, the address. And an end of the projection that nobody asked for:
/// whoever supervises the process can start it again, while one that only serves its health helps nobody.
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
    let (live, state) = live::Live::new(database.clone(), Arc::clone(&keyring), news, live::Patience::default());
    let rebuilds = rebuild::Rebuilds::new(database.clone(), keyring).run(shutdown.clone());
    let (watchdog, going_on) = Watchdog::new("projection", config.common.stuck_after(), Instant::now());
    let lag = lag::report(database.clone(), state.clone(), watchdog, shutdown.clone());
    let server = server::report(database.clone(), shutdown.clone());
    let counting = refresh::run(database, config.refresh.schedule(), shutdown.clone());
    let work = live.run(shutdown.clone());
    let mut working = tokio::spawn(async { join!(work, lag, server, counting, rebuilds) });
    let health = Health::new()
        .check("projection", move || ready(state.check()))
        .check("progress", move || ready(going_on.check()));
    let listener = TcpListener::bind(config.common.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.common.listen))?;
    tracing::info!(address = %listener.local_addr()?, "the projector serves its health and figures");
    let router: Router = health.router(metrics, shutdown.clone());
    let mut serving = pin!(serve(observe(router, "projector"), listener, Limits::default(), shutdown.clone()));
    tokio::select! {
        served = &mut serving => {
            served?;
            working.await.context("the projection broke")?;
        }
        ended = &mut working => {
            ended.context("the projection broke")?;
            anyhow::ensure!(shutdown.is_requested(), "the projection ended although nobody asked it to");
            serving.await?;
        }
    }
    Ok(())
}
