//! Group commit (decisions 2 and 3): commands that arrive while one batch is being committed share the next one. No timer; when
//! idle a command is a batch of its own.
//!
//! [`dispatch`] makes batches of the queue and hands them to two lanes; a [`lane`] has a connection of its own. A batch is one call of
//! `log.append`, in one round trip: the function takes the log's lock, and in its next statement, with a new snapshot, reads the
//! highest position and numbers on from there. PostgreSQL makes a commit visible before it lets go of the lock, so positions are
//! dense and in commit order. While one lane's batch is being written the server already reads the other's, which waits for the lock.
//!
//! Most rules are constraints of the tables, so a batch takes its chance; if the server refuses it, it is looked through under the
//! lock, command by command, and only those that pass are written. If it is refused even then, it is halved, down to the one
//! command that is at fault.

mod batch;
mod dispatch;
mod forget;
mod lane;
mod session;

use std::sync::Arc;
use std::time::{Duration, Instant};

use service_kit::postgres::Database;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::epoch::Epoch;
use crate::keyring::WrappedKey;
use crate::receipt::{Answer, NewReceipt};
use dispatch::Dispatch;
pub(crate) use forget::forget_again;

/// Places for commands that are accepted and not answered yet; where none is free, one more is refused.
pub const QUEUE_PLACES: usize = 4_096;
/// A command takes a place for each so many bytes of its payload, and at least one.
pub const PLACE_BYTES: usize = 8 << 10;
/// How long after its deadline a command's answer may still come from the task that has it.
const ANSWER_GRACE: Duration = Duration::from_millis(500);

/// An event to append.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// UUID v7; an append tried again with it is recognised.
    pub event_id: Uuid,
    /// Name of the event.
    pub event_type: &'static str,
    /// Version of the payload's form.
    pub event_version: i16,
    /// JSON text, personal members sealed.
    pub payload: String,
}

/// Events for one record.
#[derive(Debug, Clone)]
pub struct StreamAppend {
    /// `company`, `prospect`, ...
    pub aggregate_type: &'static str,
    /// Which record.
    pub aggregate_id: Uuid,
    /// Its version before; 0 for a new one.
    pub expected_version: i64,
    /// At least one.
    pub events: Vec<NewEvent>,
    /// The person's key, where the record is a new person.
    pub new_key: Option<WrappedKey>,
}

/// A claim or match of a record, with the text that stands in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedValue {
    /// What sort of value.
    pub kind: &'static str,
    /// The value or its HMAC.
    pub key: String,
    /// Whose it is; for a required claim, nobody asks.
    pub aggregate_id: Uuid,
}

/// A person who is erased by the last of a command's events: the key is emptied in the same transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forget {
    /// The record.
    pub person: Uuid,
    /// Sequence of the event that says so.
    pub sequence: i64,
    /// Every claim that it ever held: removed, released or not.
    pub claims: Vec<KeyedValue>,
    /// Everything that it was ever found by: removed, and kept apart as what an erased person is recognised by.
    pub matches: Vec<KeyedValue>,
}

/// What one command writes, all of it or nothing.
#[derive(Debug, Clone)]
pub struct Append {
    /// Whose records.
    pub tenant_id: Uuid,
    /// Metadata of every event, JSON text.
    pub metadata: String,
    /// One or more records; none where the command changes nothing and only leaves a receipt.
    pub streams: Vec<StreamAppend>,
    /// Claims to take.
    pub take: Vec<KeyedValue>,
    /// Claims to give up.
    pub release: Vec<KeyedValue>,
    /// Claims that somebody must hold.
    pub require: Vec<KeyedValue>,
    /// Matches to add.
    pub match_add: Vec<KeyedValue>,
    /// Matches to remove.
    pub match_remove: Vec<KeyedValue>,
    /// The person who is erased by it.
    pub forget: Option<Forget>,
    /// The idempotency key's receipt, if the client sent one.
    pub receipt: Option<NewReceipt>,
    /// Answer to the client; position and epoch are filled in if events are appended.
    pub answer: Answer,
    /// Epoch that the expected versions were read in; any for new records.
    pub epoch: Option<Arc<str>>,
    /// After this the command is given up.
    pub deadline: Instant,
}

/// Why nothing was written, or not known to be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refused {
    /// A record is not at the expected version any more.
    #[error("the record has changed meanwhile")]
    Conflict,
    /// A claim is held by another record.
    #[error("{kind} is claimed by {holder}")]
    ClaimTaken {
        /// What sort of value.
        kind: &'static str,
        /// Who has it.
        holder: Uuid,
    },
    /// A required claim is held by nobody.
    #[error("{kind} is not held by {aggregate_id}")]
    ClaimMissing {
        /// What sort of value.
        kind: &'static str,
        /// Who should hold it.
        aggregate_id: Uuid,
    },
    /// It names a person who was erased, and the tenant does not let such persons in again.
    #[error("it names an erased person")]
    ErasedPerson,
    /// The idempotency key was used with another request.
    #[error("the idempotency key was used with another request")]
    KeyReused,
    /// No receipt stands for the idempotency key (only from [`Appender::receipt`]).
    #[error("no receipt")]
    NoReceipt,
    /// The queue is full.
    #[error("too many commands are waiting")]
    Overloaded,
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
    /// The database is away; nothing was written.
    #[error("the database cannot be reached")]
    Unavailable,
    /// The answer to the commit was lost; the events may be in the log.
    #[error("it is not known whether the command was carried out")]
    OutcomeUnknown,
    /// The server refused this command's rows: an error of ours.
    #[error("the database refused the command: {0}")]
    Broken(String),
}

/// What became of one append: the answer to give, which is the first one where a receipt was found.
pub type Outcome = Result<Answer, Refused>;

struct Job {
    append: Append,
    reply: oneshot::Sender<Outcome>,
    /// A commit that held this command may have succeeded without our knowing.
    uncertain: bool,
    /// Only look for the receipt, write nothing.
    lookup: bool,
    /// How often a batch that held this command failed for a reason that looks like passing.
    setbacks: u32,
    /// Its places in the queue, given back with the answer.
    _places: OwnedSemaphorePermit,
}

/// Hands commands to the appending task.
#[derive(Clone)]
pub struct Appender {
    queue: mpsc::Sender<Job>,
    places: Arc<Semaphore>,
    state: watch::Receiver<LogState>,
}

/// What the appender knows of the log.
#[derive(Debug, Clone, Default)]
pub struct LogState {
    /// The log's epoch, once a connection was made.
    pub epoch: Option<Epoch>,
    /// Highest position that this appender has seen; others may have appended since.
    pub head: i64,
    /// Whether the last thing that it tried on the database worked.
    pub available: bool,
}

impl LogState {
    /// Notes a head of an epoch; whether that is news. The lanes' answers may come in another order than their commits.
    fn note(&mut self, epoch: &Epoch, head: i64) -> bool {
        let known = self.epoch.as_ref().map_or(0, |known| known.number);
        let news = epoch.number > known || (epoch.number == known && head > self.head);
        if news {
            self.epoch = Some(epoch.clone());
            self.head = head;
        }
        news
    }
}

impl Appender {
    /// Starts the appending task. It ends when `stop` turns true and what was accepted by then is finished.
    pub fn start(database: &Database, stop: watch::Receiver<bool>) -> (Self, JoinHandle<()>) {
        // Whoever has a place finds room in it.
        let (queue, jobs) = mpsc::channel(QUEUE_PLACES);
        let places = Arc::new(Semaphore::new(QUEUE_PLACES));
        let (publish, state) = watch::channel(LogState::default());
        let dispatch = Dispatch::new(&database.clone().read_write(), jobs, publish);
        (Self { queue, places, state }, tokio::spawn(dispatch.run(stop)))
    }

    /// Appends, or refuses at once if the queue is full. Answers soon after the append's deadline at the latest.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn append(&self, append: Append) -> Outcome {
        let places = Arc::clone(&self.places).try_acquire_many_owned(append.places());
        self.hand_in(append, false, places.map_err(|_| Refused::Overloaded)?).await
    }

    /// Appends; where the queue is full it waits for a place, within the append's deadline.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn append_patiently(&self, append: Append) -> Outcome {
        let places = self.wait_for_places(&append).await?;
        self.hand_in(append, false, places).await
    }

    /// The first answer to an idempotency key, made durable by a commit of its own; for a command that was refused before it was
    /// appended. Waits for a place within the append's deadline: what was carried out once is not refused because it is asked again.
    ///
    /// # Errors
    /// [`Refused::NoReceipt`], [`Refused::KeyReused`], or what kept it from looking.
    pub async fn receipt(&self, append: Append) -> Outcome {
        let places = self.wait_for_places(&append).await?;
        self.hand_in(append, true, places).await
    }

    async fn wait_for_places(&self, append: &Append) -> Result<OwnedSemaphorePermit, Refused> {
        let places = Arc::clone(&self.places).acquire_many_owned(append.places());
        match tokio::time::timeout_at(append.deadline.into(), places).await {
            Ok(places) => Ok(places.expect("the semaphore is never closed")),
            Err(_) => Err(Refused::Overloaded),
        }
    }

    async fn hand_in(&self, append: Append, lookup: bool, places: OwnedSemaphorePermit) -> Outcome {
        let give_up_at = append.deadline + ANSWER_GRACE;
        let (reply, answer) = oneshot::channel();
        let job = Job { append, reply, uncertain: false, lookup, setbacks: 0, _places: places };
        // Not full: there are as many rooms as places.
        self.queue.try_send(job).map_err(|_| Refused::Stopping)?;
        match tokio::time::timeout_at(give_up_at.into(), answer).await {
            Ok(Ok(outcome)) => outcome,
            // It is in a batch that the server does not answer, or the task that had it broke.
            Ok(Err(_)) | Err(_) => Err(Refused::OutcomeUnknown),
        }
    }

    /// What the appender knows of the log; changes with every batch.
    pub fn state(&self) -> watch::Receiver<LogState> {
        self.state.clone()
    }
}

impl Job {
    fn answer(self, outcome: Outcome) {
        // A client that has gone away does not want the answer.
        let _ = self.reply.send(outcome);
    }
}

impl Append {
    /// Places that it takes in the queue: at most all of them.
    fn places(&self) -> u32 {
        let places = 1 + self.size().1 / PLACE_BYTES;
        u32::try_from(places.min(QUEUE_PLACES)).expect("QUEUE_PLACES is far below u32::MAX")
    }

    /// Events and bytes of payload.
    fn size(&self) -> (usize, usize) {
        let events = self.streams.iter().flat_map(|stream| &stream.events);
        events.fold((0, 0), |(count, bytes), event| (count + 1, bytes + event.payload.len()))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn gauge(count: usize) -> f64 {
    count as f64
}
