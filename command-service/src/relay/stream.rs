//! The stream in NATS: what it should hold, what it does hold, and publishing into it.
//!
//! It should hold the newest events up to where the relay is, in order: as many as a refill would put there, or from the log's
//! first one on. Where messages are missing of that, what is left goes too and all of it is published again, because order cannot
//! be kept otherwise. No message ids are sent: what JetStream remembers of them would make it drop events that are published again.

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, State, StorageType, Stream};
use event_store::StoredEvent;
use event_store::feed::Feed;
use futures_util::future::try_join_all;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::RelayError;

/// The stream's name.
pub const STREAM: &str = "PROSPECTUS_EVENTS";
/// Every event's subject begins with it.
pub const SUBJECTS: &str = "prospectus.events";
/// Header with the event's position.
pub const POSITION_HEADER: &str = "Prospectus-Position";
/// Header with the name of the log's epoch that the event is of.
pub const EPOCH_HEADER: &str = "Prospectus-Epoch";
/// Header with the event's id.
pub const EVENT_ID_HEADER: &str = "Prospectus-Event-Id";

/// Most messages that the stream keeps; the oldest go first. Whoever needs older events reads the log.
const STREAM_MESSAGES_MAX: i64 = 10_000_000;

/// Where publishing is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Position of the last published event.
    pub(super) position: i64,
    /// The stream's last sequence.
    sequence: u64,
}

/// The stream, over one connection to NATS.
pub(super) struct EventStream {
    jetstream: Context,
    stream: Stream,
    refill_events: i64,
}

impl EventStream {
    /// Opens the stream, making it where it is not there. It is kept filled with at least the newest `refill_events`.
    pub(super) async fn open(jetstream: Context, refill_events: i64) -> Result<Self, RelayError> {
        let wanted = Config {
            name: STREAM.to_owned(),
            subjects: vec![format!("{SUBJECTS}.>")],
            storage: StorageType::File,
            discard: DiscardPolicy::Old,
            max_messages: STREAM_MESSAGES_MAX,
            ..Config::default()
        };
        let stream = jetstream.get_or_create_stream(wanted).await.map_err(|error| nats(&error))?;
        Ok(Self { jetstream, stream, refill_events: refill_events.min(STREAM_MESSAGES_MAX) })
    }

    /// Where publishing goes on: after the newest message whose event is in the log, or, where there is none or where messages are
    /// missing, before the log's newest events, with an empty stream.
    pub(super) async fn find_place(&self, feed: &Feed) -> Result<Place, RelayError> {
        let info = self.info().await?;
        let state = &info.state;
        if state.messages > 0 && missing_within(&info).is_none() {
            let common = self.newest_common(feed, state).await?;
            if let Some((sequence, position)) = common
                && self.missing_before(&info, position).await?.is_none()
            {
                if sequence < state.last_sequence {
                    tracing::warn!(
                        position,
                        "the stream's last messages are not of this log: publishing goes on before them"
                    );
                }
                return Ok(Place { position, sequence: state.last_sequence });
            }
        }
        let position = (feed.head().await?.position - self.refill_events).max(0);
        tracing::info!(position, "the stream is filled again from the log");
        if state.messages > 0 {
            // Not what another relay has published since the look.
            self.stream.purge().sequence(state.last_sequence + 1).await.map_err(|error| nats(&error))?;
        }
        Ok(Place { position, sequence: state.last_sequence })
    }

    /// Looks whether the stream still ends where this relay left it and holds what it should.
    ///
    /// # Errors
    /// [`RelayError::Fenced`] or [`RelayError::Incomplete`] if not; [`RelayError::Nats`] if NATS or the stream is away.
    pub(super) async fn check(&self, place: Place) -> Result<(), RelayError> {
        let info = self.info().await?;
        let last = info.state.last_sequence;
        if last != place.sequence {
            return Err(RelayError::Fenced(format!("it ends at {last}, not at {}", place.sequence)));
        }
        let missing = match missing_within(&info) {
            None => self.missing_before(&info, place.position).await?,
            found => found,
        };
        missing.map_or(Ok(()), |missing| Err(RelayError::Incomplete(missing)))
    }

    /// Publishes events in order; gives the place after them once all are acknowledged.
    pub(super) async fn publish(&self, feed: &Feed, place: Place, events: &[StoredEvent]) -> Result<Place, RelayError> {
        // Read after the events: an epoch is committed with its first event.
        let epochs = Epochs::read(feed).await?;
        let mut acknowledgements = Vec::with_capacity(events.len());
        for (event, expected) in events.iter().zip(place.sequence..) {
            let mut headers = HeaderMap::new();
            headers.insert(POSITION_HEADER, event.position.to_string());
            headers.insert(EPOCH_HEADER, epochs.at(event.position));
            headers.insert(EVENT_ID_HEADER, event.event_id.to_string());
            let subject = format!("{SUBJECTS}.{}.{}.{}", event.tenant_id, event.aggregate_type, event.event_type);
            let message =
                PublishMessage::build().payload(body(event).into()).headers(headers).expected_last_sequence(expected);
            let sent = self.jetstream.send_publish(subject, message).await.map_err(|error| nats(&error))?;
            acknowledgements.push(async move { sent.await.map_err(|error| RelayError::Fenced(error.to_string())) });
        }
        let acknowledged = try_join_all(acknowledgements).await?;
        Ok(match (events.last(), acknowledged.last()) {
            (Some(event), Some(last)) => Place { position: event.position, sequence: last.sequence },
            _ => place,
        })
    }

    async fn info(&self) -> Result<Info, RelayError> {
        self.stream.get_info().await.map_err(|error| nats(&error))
    }

    /// Sequence and position of the newest message whose event is in the log; everything before that event was published before it.
    /// Steps back from the last one in strides that double and then narrows down, because a lost tail may be long.
    async fn newest_common(&self, feed: &Feed, state: &State) -> Result<Option<(u64, i64)>, RelayError> {
        let mut foreign = state.last_sequence + 1;
        let mut stride = 1;
        let (mut common, mut position) = loop {
            if foreign <= state.first_sequence {
                return Ok(None);
            }
            let sequence = foreign.saturating_sub(stride).max(state.first_sequence);
            if let Some(position) = self.position_in_log(feed, sequence).await? {
                break (sequence, position);
            }
            (foreign, stride) = (sequence, stride * 2);
        };
        while foreign - common > 1 {
            let middle = common + (foreign - common) / 2;
            match self.position_in_log(feed, middle).await? {
                Some(found) => (common, position) = (middle, found),
                None => foreign = middle,
            }
        }
        Ok(Some((common, position)))
    }

    /// The position of a message, if the log has its event there.
    async fn position_in_log(&self, feed: &Feed, sequence: u64) -> Result<Option<i64>, RelayError> {
        const SQL: &str = "-- command_service::relay::stream::position_in_log
            SELECT event_id FROM log.events WHERE position = $1";
        let (position, event_id) = self.named(sequence).await?;
        let (Some(position), Some(event_id)) = (position, event_id) else { return Ok(None) };
        let there = feed.client().query_opt(SQL, &[&position]).await?.map(|row| row.get::<_, Uuid>(0));
        Ok((there == Some(event_id)).then_some(position))
    }

    /// What a message's headers say of position and event id.
    async fn named(&self, sequence: u64) -> Result<(Option<i64>, Option<Uuid>), RelayError> {
        let message = self.stream.get_raw_message(sequence).await.map_err(|error| nats(&error))?;
        let header = |name: &str| message.headers.get(name).map(|value| value.as_str().to_owned());
        let position = header(POSITION_HEADER).and_then(|text| text.parse().ok());
        Ok((position, header(EVENT_ID_HEADER).and_then(|text| text.parse().ok())))
    }

    /// What is missing at the stream's beginning, where it should hold everything up to `position`.
    async fn missing_before(&self, info: &Info, position: i64) -> Result<Option<String>, RelayError> {
        if forgets(&info.config) || position == 0 {
            return Ok(None);
        }
        if info.state.messages == 0 {
            return Ok(Some("it is empty".to_owned()));
        }
        // An operator may have made it smaller than we would.
        let kept = if info.config.max_messages > 0 { info.config.max_messages } else { STREAM_MESSAGES_MAX };
        let wanted = (position - self.refill_events.min(kept) + 1).max(1);
        let (first, _) = self.named(info.state.first_sequence).await?;
        Ok(match first {
            Some(first) if first <= wanted => None,
            Some(first) => Some(format!("it begins at position {first}, not at {wanted}")),
            None => Some("its first message is no event".to_owned()),
        })
    }
}

/// What is missing between the stream's first and last message.
fn missing_within(info: &Info) -> Option<String> {
    let state = &info.state;
    let there = (state.last_sequence + 1).saturating_sub(state.first_sequence);
    let missing = there.saturating_sub(state.messages);
    (state.messages > 0 && missing > 0 && !forgets(&info.config)).then(|| format!("{missing} messages were taken out"))
}

/// Whether an operator has set the stream up to forget in ways that say nothing of what is missing.
fn forgets(config: &Config) -> bool {
    config.max_bytes > 0
        || !config.max_age.is_zero()
        || config.max_messages_per_subject > 0
        || config.retention != RetentionPolicy::Limits
}

/// The log's epochs, newest first: first position and name.
struct Epochs(Vec<(i64, String)>);

impl Epochs {
    async fn read(feed: &Feed) -> Result<Self, RelayError> {
        const SQL: &str = "-- command_service::relay::stream::epochs
            SELECT first_position, name FROM log.epochs ORDER BY number DESC";
        let rows = feed.client().query(SQL, &[]).await?;
        Ok(Self(rows.iter().map(|row| (row.get(0), row.get(1))).collect()))
    }

    /// The name of the epoch that the log's event at a position is of.
    fn at(&self, position: i64) -> &str {
        let found = self.0.iter().find(|(first_position, _)| *first_position <= position);
        found.map_or("", |(_, name)| name)
    }
}

fn nats(error: &dyn std::fmt::Display) -> RelayError {
    RelayError::Nats(error.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_of_the_newest_epoch_that_had_begun_at_its_position() {
        let epochs = [(440, "3.c"), (451, "2.b"), (1, "1.a")].map(|(first, name)| (first, name.to_owned()));
        let epochs = Epochs(epochs.into());
        let found = [439, 440, 450, 451, 460].map(|position| epochs.at(position));
        assert_eq!(found, ["1.a", "3.c", "3.c", "3.c", "3.c"]);
        assert_eq!(Epochs(Vec::new()).at(1), "");
    }
}
