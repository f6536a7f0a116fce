//! Reads over HTTP, from PostgreSQL replicas. Writes nothing but, for tenants that ask for it, who read what ([`reads`]).
//!
//! The way of a read: a route ([`routes`]) parses its request once, into a question; [`replicas`] chooses a server; the question is
//! asked in one transaction that is bound to the tenant (row-level security holds there too), and the same snapshot says which
//! generation is live and how far it is. Where another generation is live, or the answer does not include the position that
//! the client wants, it is asked again, within bounds ([`read`]).
//!
//! How to add a list: its columns in [`record`], its filters and sorts in [`list::resource`] with an index for each, its route. A
//! test reads the plans of all of them.

mod analytics;
pub mod config;
mod connection;
mod duplicates;
mod freshness;
mod list;
mod parameters;
mod past;
mod problems;
mod read;
pub mod reads;
mod record;
pub mod replicas;
mod reviews;
pub mod routes;
pub mod streams;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use event_store::Keyring;
use service_kit::auth::Authenticator;
use service_kit::health::Health;
use service_kit::http::{Limits, serve};
use service_kit::postgres::Database;
use service_kit::shutdown::{self, Shutdown};
use service_kit::telemetry;
use tokio::net::TcpListener;

use config::Config;
use reads::ReadLog;
use replicas::Replicas;
use streams::Streams;

/// What every handler has.
#[derive(Debug)]
pub struct Service {
    /// What is read.
    pub replicas: Arc<Replicas>,
    /// What personal members of events are opened with.
    pub keyring: Keyring,
    /// Whose keys count.
    pub authenticator: Authenticator,
    /// Where it is noted who reads what.
    pub reads: ReadLog,
    /// The feeds that are open.
    pub streams: Streams,
    /// What has done nothing for so long although something waits is stuck.
    pub stuck_after: Duration,
    /// When feeds end.
    pub shutdown: Shutdown,
}

/// Runs the service until it is told to end.
///
/// # Errors
/// What keeps it from starting: every database away, their schema, the keys, the address.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let metrics = telemetry::init(&config.common.log, config.common.log_format)?;
    let shutdown = shutdown::on_signal()?;
    let keyring = Keyring::parse(config.keyring.text()?.expose())?;
    let urls: Vec<&str> = config.replica_database_urls.iter().map(service_kit::config::Secret::expose).collect();
    let fallback = config.fallback_database_url.as_ref().map(service_kit::config::Secret::expose);
    check_first(&urls, fallback, &keyring).await?;
    let connections = config.replica_connections.into();
    let replicas = Replicas::open(&urls, fallback, config.replicas_only, connections, &shutdown).await?;
    let health = health(&replicas).router(metrics, shutdown.clone());
    let reads = ReadLog::open(config.reads_database_url.as_ref().map(service_kit::config::Secret::expose))?;
    let authenticator = replicas.authenticator();
    let streams = Streams::default();
    let stuck_after = config.common.stuck_after();
    let service = Service { replicas, keyring, authenticator, reads, streams, stuck_after, shutdown: shutdown.clone() };
    let router = routes::router(Arc::new(service), health)?;
    let listener = TcpListener::bind(config.common.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.common.listen))?;
    tracing::info!(address = %listener.local_addr()?, "the query service serves");
    serve(router, listener, Limits::default(), shutdown).await?;
    Ok(())
}

/// Checks schema and keys on the first server that answers.
async fn check_first(urls: &[&str], fallback: Option<&str>, keyring: &Keyring) -> anyhow::Result<()> {
    let mut last = None;
    for url in urls.iter().copied().chain(fallback) {
        let database = Database::parse(url, "prospectus query-service")?;
        match database.client().await {
            Ok(client) => {
                migrations::check(&client).await?;
                keyring.verify(&client, false).await?;
                return Ok(());
            }
            Err(error) => {
                let name = database.name();
                last = Some(anyhow::Error::new(error).context(format!("no connection to {name}")));
            }
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("set PROSPECTUS_REPLICA_DATABASE_URLS")))
}

/// Ready means that some server can be read and its schema is the code's.
fn health(replicas: &Arc<Replicas>) -> Health {
    let (answers, schema) = (Arc::clone(replicas), Arc::clone(replicas));
    Health::new()
        .check("replicas", move || {
            let healthy = answers.any_healthy();
            async move { if healthy { Ok(()) } else { Err("no replica answers".to_owned()) } }
        })
        .check("schema", move || {
            let replicas = Arc::clone(&schema);
            async move { replicas.check_schema().await }
        })
}
