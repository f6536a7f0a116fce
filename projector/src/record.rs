//! The fold: a record's state and its times, from its events and nothing else.

use std::collections::{BTreeMap, HashMap};

use domain::{Company, CompanyEvent, Prospect, ProspectEvent, Record, Status};
use event_store::StoredEvent;
use event_store::seal::{PersonKeys, ReadEventError};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::skips::Skips;

/// A tenant and a record of it.
pub type Place = (Uuid, Uuid);

/// Records by their places. Each in a box, so that a table of them that grows moves pointers.
pub type Records<R> = HashMap<Place, Box<Folded<R>>>;

/// What a record takes beside its state: its place, its times, and the room that a table of records keeps free.
const RECORD_BYTES: usize = 300;
/// What the time of one social media entry takes.
const ADDED_BYTES: usize = 48;

/// A record as of one of its events.
#[derive(Debug, Clone, PartialEq)]
pub struct Folded<R> {
    /// Its state.
    pub state: R,
    /// Sequence of the event.
    pub version: i64,
    /// Position of the event.
    pub position: i64,
    /// Time of its first event.
    pub created_at: OffsetDateTime,
    /// Time of the event.
    pub updated_at: OffsetDateTime,
    /// Since when it is deleted, if it is.
    pub deleted_at: Option<OffsetDateTime>,
    /// When the person was erased, if that happened: a record's last event.
    pub erased_at: Option<OffsetDateTime>,
    /// Since when it is in review by what it says itself, if it is.
    pub review_since: Option<OffsetDateTime>,
    /// When each social media entry was added.
    pub added_at: BTreeMap<Uuid, OffsetDateTime>,
}

/// Why an event cannot be applied. The projection stops at it.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadEventError),
    /// Its record's event before it is missing.
    #[error("event at position {position} has sequence {sequence}, but its record is at version {version}")]
    Sequence {
        /// Which event.
        position: i64,
        /// Its sequence.
        sequence: i64,
        /// Where the record is.
        version: i64,
    },
    /// It belongs to a sort of record that this projection does not know.
    #[error("event at position {position} is of an unknown sort of record, {aggregate_type}")]
    Sort {
        /// Which event.
        position: i64,
        /// Its sort.
        aggregate_type: String,
    },
}

impl ApplyError {
    /// A stable name for why, without anything of the event.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Read(ReadEventError::Stored { .. }) => "event_unreadable",
            Self::Read(ReadEventError::Key { .. }) => "key_missing",
            Self::Read(ReadEventError::Member { .. }) => "member_unreadable",
            Self::Sequence { .. } => "sequence_gap",
            Self::Sort { .. } => "record_unknown",
        }
    }

    /// The event that cannot be applied.
    pub fn position(&self) -> i64 {
        match self {
            Self::Read(error) => error.position(),
            Self::Sequence { position, .. } | Self::Sort { position, .. } => *position,
        }
    }
}

/// What a sort of record adds to its state when it is shown.
pub trait Shown: Record {
    /// Whether it is there.
    fn status(&self) -> Status;
    /// Whether someone should look at it, whatever other records say.
    fn in_review(&self) -> bool;
    /// The social media entries that an event adds, those that come with a merged company included: they are this record's since then.
    fn added(event: &Self::Event) -> Vec<Uuid>;
}

impl Shown for Company {
    fn status(&self) -> Status {
        self.status
    }

    fn in_review(&self) -> bool {
        self.open_review().is_some()
    }

    fn added(event: &CompanyEvent) -> Vec<Uuid> {
        match event {
            CompanyEvent::CompanyRegistered(registered) => {
                registered.social_media.iter().map(|entry| entry.social_media_id).collect()
            }
            CompanyEvent::CompanySocialMediaAdded(entry) => vec![entry.social_media_id],
            CompanyEvent::CompanyAbsorbed(absorbed) => {
                absorbed.social_media.iter().map(|entry| entry.social_media_id).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Shown for Prospect {
    fn status(&self) -> Status {
        self.status
    }

    fn in_review(&self) -> bool {
        self.open_review().is_some()
    }

    fn added(_: &ProspectEvent) -> Vec<Uuid> {
        Vec::new()
    }
}

/// Applies a stored event to the records of its sort. One that is left out only counts: its record is at its version, and says what it said
/// before. A record whose first event is left out was never registered: all its events only count, and it has no row
/// ([`Folded::is_registered`]).
///
/// # Errors
/// If it cannot be read, or the record is not at the version before it.
pub fn apply<R: Shown>(
    records: &mut Records<R>,
    event: &StoredEvent,
    keys: &PersonKeys,
    skips: &Skips,
) -> Result<(), ApplyError> {
    let place = (event.tenant_id, event.aggregate_id);
    if skips.contains(event.position) {
        records.entry(place).or_insert_with(|| Box::new(Folded::before(event))).pass_over(event);
        return Ok(());
    }
    let version = records.get(&place).map_or(0, |record| record.version);
    if event.sequence != version + 1 {
        return Err(ApplyError::Sequence { position: event.position, sequence: event.sequence, version });
    }
    if let Some(record) = records.get_mut(&place).filter(|record| !record.is_registered()) {
        record.pass_over(event);
        return Ok(());
    }
    let read: R::Event = keys.read(event)?;
    records.entry(place).or_insert_with(|| Box::new(Folded::before(event))).evolve(event, &read);
    Ok(())
}

impl<R> Folded<R> {
    /// Bytes that one takes of which nothing is known, roughly.
    #[expect(clippy::cast_possible_wrap, reason = "some hundreds")]
    pub(crate) const BYTES: i64 = (size_of::<R>() + RECORD_BYTES) as i64;
}

impl<R: Shown> Folded<R> {
    /// A record before its first event, which this is.
    pub fn before(first: &StoredEvent) -> Self {
        Self {
            state: R::default(),
            version: 0,
            position: 0,
            created_at: first.recorded_at,
            updated_at: first.recorded_at,
            deleted_at: None,
            erased_at: None,
            review_since: None,
            added_at: BTreeMap::new(),
        }
    }

    /// Whether it was registered: its first event was not left out.
    pub fn is_registered(&self) -> bool {
        self.state.status() != Status::Unregistered
    }

    /// Bytes that it takes in memory, roughly.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.state.weight_bytes() + self.added_at.len() * ADDED_BYTES + RECORD_BYTES
    }

    /// The record after an event that is left out.
    fn pass_over(&mut self, event: &StoredEvent) {
        self.version = event.sequence;
        self.position = event.position;
    }

    /// The record after its next event, given as it is stored and as it was read.
    pub fn evolve(&mut self, event: &StoredEvent, read: &R::Event) {
        self.state.evolve(read);
        self.version = event.sequence;
        self.position = event.position;
        self.updated_at = event.recorded_at;
        self.added_at.extend(R::added(read).into_iter().map(|id| (id, event.recorded_at)));
        self.review_since = self.state.in_review().then(|| self.review_since.unwrap_or(event.recorded_at));
        self.erased_at = self.state.is_erased().then(|| self.erased_at.unwrap_or(event.recorded_at));
        self.deleted_at = match self.state.status() {
            Status::Deleted => self.deleted_at.or(Some(event.recorded_at)),
            Status::Live | Status::Merged { .. } | Status::Unregistered => None,
        };
    }
}
