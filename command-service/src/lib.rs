//! HTTP in, commands to the executor, the relay to NATS, and the sealer of the log.
//!
//! The way of a command: a route ([`routes`]) or a line of a batch makes an [`operation::Operation`] of it, parsed once;
//! [`carry_out`] gives that to the executor of its sort of record and turns the outcome into an answer or a problem. Never reads a
//! read table.
//!
//! How to add an aggregate: its operations in [`operation`], its executor in [`carry_out::Executors`], its routes file, and its
//! lines in [`routes::router`].

pub mod carry_out;
pub mod config;
pub mod erasures;
pub mod import;
pub mod merge;
pub mod operation;
pub mod problems;
pub mod relay;
mod review;
pub mod routes;
pub mod sealer;
pub mod watch;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use event_store::receipt;
use event_store::{Keyring, Store};
use service_kit::auth::Authenticator;
use service_kit::health::Health;
use service_kit::http::{Limits, serve};
use service_kit::postgres::Database;
use service_kit::shutdown::{self, Shutdown};
use service_kit::telemetry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use carry_out::Executors;
use config::Config;
use erasures::ErasureList;
use import::{Imports, Staging};

/// Connections for keys of clients and for removing old receipts.
const POOL_CONNECTIONS: usize = 4;
/// Connections for the bytes of imports and for finding whose their rows are.
const IMPORT_CONNECTIONS: usize = 6;
const POOL_WAIT: Duration = Duration::from_secs(3);
/// How often old receipts are removed, at most a thousand at a time.
const RECEIPTS_INTERVAL: Duration = Duration::from_secs(60);

/// Runs the service until it is told to end.
///
/// # Errors
/// What keeps it from starting: the database, its schema, the keys, the address. And the end of a task that nobody asked for:
/// whoever supervises the process can start it again, while one that refuses everything helps nobody.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let metrics = telemetry::init(&config.common.log, config.common.log_format)?;
    let shutdown = shutdown::on_signal()?;
    let database = Database::parse(config.database_url.expose(), "prospectus command-service")?.read_write();
    let keyring = Arc::new(Keyring::parse(config.keyring.text()?.expose())?);
    let client = database.client().await.with_context(|| format!("no connection to {}", database.name()))?;
    migrations::check(&client).await?;
    keyring.verify(&client, true).await?;
    drop(client);

    let (store, mut store_task) = Store::open(&database, keyring);
    let pool = database.pool(POOL_CONNECTIONS, POOL_WAIT)?;
    let executors = Arc::new(Executors::new(store.clone(), config.cache_mib << 20));
    let staging = Staging::new(database.pool(IMPORT_CONNECTIONS, POOL_WAIT)?, Arc::clone(store.keyring()));
    let text_bytes_max = config.import_gib_max << 30;
    let imports = Arc::new(Imports::new(Arc::clone(&executors), staging, database.clone(), text_bytes_max));
    let deadline = Duration::from_secs(config.command_deadline_seconds);
    let erasures = Arc::new(ErasureList::open(config.erasures_file.as_deref(), pool.clone())?);
    erasures.apply_again(&executors).await?;
    let forgetting = erasures::forget(Arc::clone(&erasures), Arc::clone(&executors), pool.clone(), shutdown.clone());
    let listed = Arc::clone(&erasures);
    let state = Arc::new(carry_out::Service {
        executors,
        imports: Arc::clone(&imports),
        erasures,
        deadline,
        shutdown: shutdown.clone(),
    });
    let appending = store.appender().state();
    let health = Health::new().check_pool("database", pool.clone()).check("log", move || {
        let available = appending.borrow().available;
        async move { if available { Ok(()) } else { Err("the log cannot be appended to".to_owned()) } }
    });
    let health = health.check("erasures", move || {
        let applied = listed.is_applied();
        let why = "the log has begun another life, and persons of the list of erasures are not all erased in it yet";
        async move { if applied { Ok(()) } else { Err(why.to_owned()) } }
    });
    let router =
        routes::router(state, Authenticator::new(vec![pool.clone()]), health.router(metrics, shutdown.clone()))?;
    let listener = TcpListener::bind(config.common.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.common.listen))?;
    tracing::info!(address = %listener.local_addr()?, "the command service serves");

    let mut tasks = JoinSet::new();
    tasks.spawn(remove_old_receipts(pool, shutdown.clone()));
    tasks.spawn(import::work(imports, shutdown.clone()));
    tasks.spawn(forgetting);
    if let Some(relay) = relay::work(&config, store.appender().state(), shutdown.clone())? {
        tasks.spawn(relay);
    }
    if let Some(sealer) = sealer::work(&config, shutdown.clone())? {
        tasks.spawn(sealer);
    }
    if let Some(watch) = watch::relay(&config, shutdown.clone())? {
        tasks.spawn(watch);
    }
    if let Some(watch) = watch::sealer(&config, shutdown.clone())? {
        tasks.spawn(watch);
    }
    let mut serving = pin!(serve(router, listener, Limits::default(), shutdown.clone()));
    loop {
        tokio::select! {
            served = &mut serving => break served?,
            () = store_task.broken() => anyhow::bail!("appending or loading broke"),
            Some(ended) = tasks.join_next() => {
                ended.context("a task broke")?;
                anyhow::ensure!(shutdown.is_requested(), "a task ended although nobody asked it to");
            }
        }
    }
    store_task.finish().await;
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task broke")?;
    }
    Ok(())
}

async fn remove_old_receipts(pool: deadpool_postgres::Pool, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(RECEIPTS_INTERVAL) => {}
        }
        match pool.get().await {
            Ok(client) => match receipt::remove_expired(&client).await {
                Ok(removed) => metrics::counter!("prospectus_receipts_removed_total").increment(removed),
                Err(error) => tracing::warn!(%error, "old receipts could not be removed"),
            },
            Err(error) => tracing::warn!(%error, "old receipts could not be removed"),
        }
    }
}
