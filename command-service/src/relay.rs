//! The relay: reads the log in order and publishes every event to JetStream (decision 10). NATS carries news, never truth.
//!
//! One relay at a time, by an advisory lock on a connection of its own. The fence is NATS's: every publish expects the stream's
//! last sequence, so a relay that was paused and wakes up is refused, and so is everything after a publish that failed. What the
//! stream holds says where publishing goes on, and whether it must be filled again ([`stream`]); that is looked at once a second
//! too, for nothing else tells a relay with nothing to publish that somebody emptied the stream.

mod stream;

use std::time::{Duration, Instant};

use async_nats::jetstream;
use event_store::append::LogState;
use event_store::feed::{Feed, FeedError};
use service_kit::postgres::Database;
use service_kit::shutdown::Shutdown;
use tokio::sync::watch;

use crate::config::Config;
use stream::EventStream;

pub use stream::{EPOCH_HEADER, EVENT_ID_HEADER, POSITION_HEADER, STREAM, SUBJECTS};

/// Most events that are published before their acknowledgements are waited for.
const BATCH_EVENTS_MAX: i64 = 500;
/// How often the log is looked at when nobody says that there is news.
const POLL: Duration = Duration::from_millis(10);
/// How often it is looked whether the stream still holds what it should.
const LOOK: Duration = Duration::from_secs(1);
/// Wait after anything failed, and between attempts to get the lock.
const RETRY_WAIT: Duration = Duration::from_millis(500);
/// How long NATS may take for a connection, an acknowledgement or an answer.
const NATS_TIMEOUT: Duration = Duration::from_secs(5);

/// Why publishing stopped for now.
#[derive(Debug, thiserror::Error)]
enum RelayError {
    /// The log cannot be read.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// The database is away.
    #[error("the database: {}", service_kit::postgres::describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// NATS is away or refuses.
    #[error("NATS: {0}")]
    Nats(String),
    /// The stream is not where this relay left it: another one publishes, or it was wiped.
    #[error("the stream was changed by another hand: {0}")]
    Fenced(String),
    /// Messages are gone that the stream should hold.
    #[error("the stream does not hold what it should and is filled again: {0}")]
    Incomplete(String),
}

/// What the relay does until the end is asked for; none if it is not configured.
///
/// # Errors
/// If the address of the database is none.
pub fn work(
    config: &Config,
    news: watch::Receiver<LogState>,
    shutdown: Shutdown,
) -> anyhow::Result<Option<impl Future<Output = ()> + Send + use<>>> {
    let (Some(database), Some(nats)) = (&config.relay_database_url, &config.nats_url) else {
        tracing::info!(
            "no relay in this process: PROSPECTUS_RELAY_DATABASE_URL and PROSPECTUS_NATS_URL are not both set"
        );
        return Ok(None);
    };
    let relay = Relay {
        database: Database::parse(database.expose(), "prospectus relay")?.read_write(),
        nats_url: nats.expose().to_owned(),
        refill_events: config.refill_events,
        news,
    };
    Ok(Some(async move {
        tokio::select! {
            () = shutdown.requested() => {}
            () = relay.run() => {}
        }
    }))
}

struct Relay {
    database: Database,
    nats_url: String,
    refill_events: i64,
    news: watch::Receiver<LogState>,
}

impl Relay {
    async fn run(mut self) {
        let mut said = String::new();
        // A rule that asks for what has never been sees nothing.
        metrics::counter!("prospectus_relay_failures_total").increment(0);
        metrics::gauge!("prospectus_relay_active").set(0.0);
        loop {
            if let Err(error) = self.publish().await {
                metrics::counter!("prospectus_relay_failures_total").increment(1);
                metrics::gauge!("prospectus_relay_active").set(0.0);
                let error = error.to_string();
                // Once per reason, not twice a second for as long as NATS is away.
                if error == said {
                    tracing::debug!(error, "the relay tries again");
                } else {
                    tracing::warn!(error, "the relay stopped and tries again");
                    said = error;
                }
            }
            tokio::time::sleep(RETRY_WAIT).await;
        }
    }

    /// Publishes until something fails.
    async fn publish(&mut self) -> Result<(), RelayError> {
        const LOCK: &str = "-- command_service::relay::publish, lock
            SELECT pg_try_advisory_lock(5787213827046133841)";
        let feed = Feed::open(&self.database).await?;
        while !feed.client().query_one(LOCK, &[]).await?.get::<_, bool>(0) {
            tokio::time::sleep(RETRY_WAIT).await;
        }
        let nats = async_nats::ConnectOptions::new()
            .connection_timeout(NATS_TIMEOUT)
            .connect(&self.nats_url)
            .await
            .map_err(|error| RelayError::Nats(error.to_string()))?;
        let mut jetstream = jetstream::new(nats);
        jetstream.set_timeout(NATS_TIMEOUT);
        let stream = EventStream::open(jetstream, self.refill_events).await?;
        let mut place = stream.find_place(&feed).await?;
        tracing::info!(position = place.position, "the relay publishes");
        metrics::gauge!("prospectus_relay_active").set(1.0);
        let mut looked = Instant::now();
        loop {
            if looked.elapsed() >= LOOK {
                stream.check(place).await?;
                looked = Instant::now();
            }
            let events = feed.after(place.position, BATCH_EVENTS_MAX).await?;
            if events.is_empty() {
                self.wait_for_news().await;
                continue;
            }
            place = stream.publish(&feed, place, &events).await?;
            metrics::counter!("prospectus_relay_events_total").increment(events.len() as u64);
            #[expect(clippy::cast_precision_loss, reason = "a figure")]
            metrics::gauge!("prospectus_relay_position").set(place.position as f64);
        }
    }

    async fn wait_for_news(&mut self) {
        // A closed channel says that this process ends; polling goes on until then.
        let _ = tokio::time::timeout(POLL, self.news.changed()).await;
        if self.news.has_changed().is_err() {
            tokio::time::sleep(POLL).await;
        }
    }
}
