//! The relay: reads the log in order and publishes every event to JetStream (decision 10). NATS carries news, never truth.
//!
//! One relay at a time, by an advisory lock on a connection of its own. The fence is NATS's: every publish expects the stream's
//! last sequence, so a relay that was paused and wakes up is refused, and so is everything after a publish that failed. Where it
//! left off is in the stream's last message, whose event id is compared with the log. No message ids are sent: what JetStream
//! remembers of them would make it drop events that are published again after a purge.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{self, DiscardPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use event_store::StoredEvent;
use event_store::append::LogState;
use event_store::epoch::Epoch;
use event_store::feed::{Feed, FeedError};
use futures_util::future::try_join_all;
use service_kit::postgres::Database;
use service_kit::shutdown::Shutdown;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::config::Config;

/// The stream's name.
pub const STREAM: &str = "PROSPECTUS_EVENTS";
/// Every event's subject begins with it.
pub const SUBJECTS: &str = "prospectus.events";
/// Header with the event's position.
pub const POSITION_HEADER: &str = "Prospectus-Position";
/// Header with the name of the log's epoch.
pub const EPOCH_HEADER: &str = "Prospectus-Epoch";
/// Header with the event's id.
pub const EVENT_ID_HEADER: &str = "Prospectus-Event-Id";

/// Most events that are published before their acknowledgements are waited for.
const BATCH_EVENTS_MAX: i64 = 500;
/// Most messages that the stream keeps; the oldest go first. Whoever needs older events reads the log.
const STREAM_MESSAGES_MAX: i64 = 10_000_000;
/// How often the log is looked at when nobody says that there is news.
const POLL: Duration = Duration::from_millis(10);
/// Wait after anything failed, and between attempts to get the lock.
const RETRY_WAIT: Duration = Duration::from_millis(500);
/// How long an acknowledgement may take.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

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
}

/// Starts the relay if it is configured.
///
/// # Errors
/// If the address of the database is none.
pub fn spawn(
    config: &Config,
    news: watch::Receiver<LogState>,
    shutdown: Shutdown,
) -> anyhow::Result<Option<JoinHandle<()>>> {
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
    Ok(Some(tokio::spawn(async move {
        tokio::select! {
            () = shutdown.requested() => {}
            () = relay.run() => {}
        }
    })))
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
            .connection_timeout(ACK_TIMEOUT)
            .connect(&self.nats_url)
            .await
            .map_err(|error| RelayError::Nats(error.to_string()))?;
        let mut jetstream = jetstream::new(nats);
        jetstream.set_timeout(ACK_TIMEOUT);
        let mut place = self.find_place(&feed, &jetstream).await?;
        tracing::info!(position = place.position, "the relay publishes");
        metrics::gauge!("prospectus_relay_active").set(1.0);
        loop {
            let events = feed.after(place.position, BATCH_EVENTS_MAX).await?;
            if events.is_empty() {
                self.wait_for_news().await;
                continue;
            }
            let epoch = Epoch::newest(feed.client()).await?.map_or_else(|| "".into(), |epoch| epoch.name);
            send(&jetstream, &mut place, &events, &epoch).await?;
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

    /// Where publishing goes on: after the stream's last message if that is of this log, else where the log's present life began,
    /// or, for an empty stream, before its newest events.
    async fn find_place(&self, feed: &Feed, jetstream: &Context) -> Result<Place, RelayError> {
        let nats = |error: &dyn std::fmt::Display| RelayError::Nats(error.to_string());
        let wanted = stream::Config {
            name: STREAM.to_owned(),
            subjects: vec![format!("{SUBJECTS}.>")],
            storage: StorageType::File,
            discard: DiscardPolicy::Old,
            max_messages: STREAM_MESSAGES_MAX,
            ..stream::Config::default()
        };
        let mut stream = jetstream.get_or_create_stream(wanted).await.map_err(|error| nats(&error))?;
        let state = stream.info().await.map_err(|error| nats(&error))?.state.clone();
        let head = feed.head().await?;
        let newest_part = (head.position - self.refill_events).max(0);
        if state.messages == 0 {
            return Ok(Place { position: newest_part, sequence: state.last_sequence });
        }
        let last = stream.get_raw_message(state.last_sequence).await.map_err(|error| nats(&error))?;
        let header = |name: &str| last.headers.get(name).map(|value| value.as_str().to_owned());
        let position = header(POSITION_HEADER).and_then(|text| text.parse::<i64>().ok());
        let event_id = header(EVENT_ID_HEADER).and_then(|text| text.parse::<Uuid>().ok());
        if let (Some(position), Some(event_id)) = (position, event_id)
            && event_at(feed, position).await? == Some(event_id)
        {
            return Ok(Place { position, sequence: state.last_sequence });
        }
        let began = head.epoch.map_or(0, |epoch| epoch.first_position - 1);
        tracing::warn!(
            stream_position = position,
            began,
            "the stream's last message is not of this log: publishing again"
        );
        Ok(Place { position: began.max(newest_part), sequence: state.last_sequence })
    }
}

/// Where publishing is.
struct Place {
    /// Position of the last published event.
    position: i64,
    /// The stream's last sequence.
    sequence: u64,
}

async fn event_at(feed: &Feed, position: i64) -> Result<Option<Uuid>, RelayError> {
    const SQL: &str = "-- command_service::relay::event_at
        SELECT event_id FROM log.events WHERE position = $1";
    Ok(feed.client().query_opt(SQL, &[&position]).await?.map(|row| row.get(0)))
}

/// Publishes a batch; the place moves only when all of it is acknowledged.
async fn send(jetstream: &Context, place: &mut Place, events: &[StoredEvent], epoch: &str) -> Result<(), RelayError> {
    let mut acknowledgements = Vec::with_capacity(events.len());
    for (event, expected) in events.iter().zip(place.sequence..) {
        let mut headers = HeaderMap::new();
        headers.insert(POSITION_HEADER, event.position.to_string());
        headers.insert(EPOCH_HEADER, epoch);
        headers.insert(EVENT_ID_HEADER, event.event_id.to_string());
        let subject = format!("{SUBJECTS}.{}.{}.{}", event.tenant_id, event.aggregate_type, event.event_type);
        let message =
            PublishMessage::build().payload(body(event).into()).headers(headers).expected_last_sequence(expected);
        let sent =
            jetstream.send_publish(subject, message).await.map_err(|error| RelayError::Nats(error.to_string()))?;
        acknowledgements.push(async move { sent.await.map_err(|error| RelayError::Fenced(error.to_string())) });
    }
    let acknowledged = try_join_all(acknowledgements).await?;
    if let (Some(event), Some(acknowledgement)) = (events.last(), acknowledged.last()) {
        *place = Place { position: event.position, sequence: acknowledgement.sequence };
    }
    Ok(())
}

/// The message of an event. Payload and metadata are the stored bytes, personal members sealed.
fn body(event: &StoredEvent) -> String {
    let recorded_at = event.recorded_at.format(&Rfc3339).expect("a timestamp of the log is within RFC 3339's years");
    format!(
        "{{\"position\":{},\"tenant_id\":\"{}\",\"aggregate_type\":\"{}\",\"aggregate_id\":\"{}\",\"sequence\":{},\
         \"event_id\":\"{}\",\"event_type\":\"{}\",\"event_version\":{},\"payload\":{},\"metadata\":{},\"recorded_at\":\"{}\"}}",
        event.position,
        event.tenant_id,
        event.aggregate_type,
        event.aggregate_id,
        event.sequence,
        event.event_id,
        event.event_type,
        event.event_version,
        event.payload,
        event.metadata,
        recorded_at
    )
}
