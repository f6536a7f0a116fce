//! What the store and the services need of an aggregate beside cqrs-es's own traits.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::claim::{Claim, Match};
use crate::personal::PersonalMember;

/// What a decision may use of the world: the time and new ids.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The clock when the command was taken up.
    pub now: OffsetDateTime,
    /// A fresh UUID v7 that the ids of one decision are derived from.
    pub seed: Uuid,
}

impl Context {
    /// The `n`th new id of this decision; the same `n` gives the same id.
    pub fn id(&self, n: u16) -> Uuid {
        let mut bytes = *self.seed.as_bytes();
        let low = u16::from_be_bytes([bytes[14], bytes[15]]) ^ n;
        bytes[14..].copy_from_slice(&low.to_be_bytes());
        Uuid::from_bytes(bytes)
    }
}

/// An aggregate as the store keeps it.
pub trait Record: cqrs_es::Aggregate<Event: RecordEvent, Command: Clone + Send + Sync> + Clone + 'static {
    /// Whether its events have personal members, so that each record needs a key of its own.
    const PERSONAL: bool = false;

    /// The events that carry the command out; none if it changes nothing. Pure.
    ///
    /// # Errors
    /// The rule that forbids it.
    fn decide(&self, command: Self::Command, context: &Context) -> Result<Vec<Self::Event>, Self::Error>;

    /// The state after one more event. Cannot fail.
    fn evolve(&mut self, event: &Self::Event);

    /// What record `id` holds in this state, sorted, each once. The store takes and releases the difference to the state before.
    fn claims(&self, id: Uuid) -> Vec<Claim>;

    /// What record `id` is found by in this state, sorted, each once.
    fn matches(&self, id: Uuid) -> Vec<Match>;

    /// Whether the person that this record is was erased by one of its events. With the event that makes it so the store empties the
    /// record's key and forgets what it could be found by, for good.
    fn is_erased(&self) -> bool {
        false
    }

    /// Roughly how much memory this state takes, in bytes: the cache is bounded by it.
    fn weight_bytes(&self) -> usize;
}

/// An event as the log keeps it.
pub trait RecordEvent: cqrs_es::DomainEvent + 'static {
    /// The event's name, past tense: what `event_type` holds, and the variant's name in serde.
    fn name(&self) -> &'static str;

    /// The version of the payload's form that [`RecordEvent::payload`] writes.
    fn form(&self) -> i16;

    /// The payload as JSON text: the fields of the event, without its name.
    fn payload(&self) -> String;

    /// Reads an event back, of this form or of any earlier one.
    ///
    /// # Errors
    /// If the name is unknown, the form is newer than this code, or the payload is not of that form.
    fn from_stored(name: &str, form: i16, payload: &str) -> Result<Self, StoredEventError>;

    /// A claim of another record that must be held when this event is appended (assigning needs the company's `live`).
    fn requires(&self) -> Option<Claim>;

    /// The personal member, where the event has one.
    fn personal_mut(&mut self) -> Option<&mut dyn PersonalMember>;
}

/// A stored event that this code cannot read.
#[derive(Debug, thiserror::Error)]
pub enum StoredEventError {
    /// No event of this name and form is known here.
    #[error("event {name} in form {form} is not known to this version of the code")]
    Unknown {
        /// `event_type`
        name: String,
        /// `event_version`
        form: i16,
    },
    /// The payload is not of its form.
    #[error("payload of event {name}: {source}")]
    Payload {
        /// `event_type`
        name: String,
        /// What the parser said; serde names fields and places, not values of personal members, which are sealed.
        source: serde_json::Error,
    },
}
