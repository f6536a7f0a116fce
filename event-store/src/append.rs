//! Group commit (decisions 2 and 3): commands that arrive while one batch is being committed share the next one. No timer; when
//! idle a command is a batch of its own.
//!
//! A lane is a task with a connection of its own. There are two: while one lane's batch is being committed, the server already
//! reads the other's, which waits for the log's lock. A batch is one call of `log.append` in one round trip: the function takes the
//! lock, and in its next statement, with a new snapshot, reads the highest position and numbers on from there. PostgreSQL makes a
//! commit visible before it lets go of the lock, so positions are dense and in commit order.
//!
//! Most rules are constraints of the tables, so a batch takes its chance; if the server refuses it, it is looked through under the
//! lock, command by command, and only those that pass are written. If it is refused even then, it is halved, down to the one
//! command that is at fault.

mod batch;
mod session;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use service_kit::postgres::Database;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::epoch::Epoch;
use crate::keyring::WrappedKey;
use crate::receipt::{Answer, NewReceipt};
use batch::{Conflicts, Verdict};
use session::{Failure, Session};

/// Most commands in one batch.
const BATCH_COMMANDS_MAX: usize = 512;
/// Most events in one batch, unless one command alone has more.
const BATCH_EVENTS_MAX: usize = 2_000;
/// Most bytes of payload in one batch, unless one command alone has more.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Most events of one command.
pub const COMMAND_EVENTS_MAX: usize = 1_000;
/// Commands that may wait; one more is refused.
pub const QUEUE_COMMANDS_MAX: usize = 4_096;
/// Tasks that append, each on a connection of its own. Measured: one leaves the server waiting for us, three make smaller batches.
const LANES: usize = 2;
/// After a batch that was refused, so many batches are looked through before they are written.
const CAREFUL_BATCHES: u32 = 32;
/// Between two attempts to reach a database that is away, while no command waits.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// Wait before the next attempt when the database is away.
const RECONNECT_WAIT: Duration = Duration::from_millis(100);

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
}

/// Hands commands to the appending tasks.
#[derive(Clone)]
pub struct Appender {
    queue: mpsc::Sender<Job>,
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
    /// Starts the appending tasks. They end when `stop` turns true and what was accepted by then is finished.
    pub fn start(database: &Database, stop: &watch::Receiver<bool>) -> (Self, JoinSet<()>) {
        let (queue, jobs) = mpsc::channel(QUEUE_COMMANDS_MAX);
        let (publish, state) = watch::channel(LogState::default());
        let jobs = Arc::new(Mutex::new(jobs));
        let mut lanes = JoinSet::new();
        for _ in 0..LANES {
            let lane = Lane {
                database: database.clone().read_write(),
                jobs: Arc::clone(&jobs),
                waiting: VecDeque::new(),
                session: None,
                careful: 0,
                publish: publish.clone(),
            };
            lanes.spawn(lane.run(stop.clone()));
        }
        (Self { queue, state }, lanes)
    }

    /// Appends, or refuses at once if the queue is full.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn append(&self, append: Append) -> Outcome {
        let (job, answer) = Job::new(append, false);
        self.queue.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Refused::Stopping,
        })?;
        answer.await.unwrap_or(Err(Refused::OutcomeUnknown))
    }

    /// Appends; where the queue is full it waits for a place, within the append's deadline.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn append_patiently(&self, append: Append) -> Outcome {
        let deadline = append.deadline;
        let (job, answer) = Job::new(append, false);
        match tokio::time::timeout_at(deadline.into(), self.queue.send(job)).await {
            Ok(Ok(())) => answer.await.unwrap_or(Err(Refused::OutcomeUnknown)),
            Ok(Err(_)) => Err(Refused::Stopping),
            Err(_) => Err(Refused::Overloaded),
        }
    }

    /// The first answer to an idempotency key, made durable by a commit of its own; for a command that was refused before it was
    /// appended.
    ///
    /// # Errors
    /// [`Refused::NoReceipt`], [`Refused::KeyReused`], or what kept it from looking.
    pub async fn receipt(&self, append: Append) -> Outcome {
        let (job, answer) = Job::new(append, true);
        self.queue.try_send(job).map_err(|_| Refused::Overloaded)?;
        answer.await.unwrap_or(Err(Refused::OutcomeUnknown))
    }

    /// Commands that wait.
    pub fn queue_depth(&self) -> usize {
        QUEUE_COMMANDS_MAX - self.queue.capacity()
    }

    /// What the appender knows of the log; changes with every batch.
    pub fn state(&self) -> watch::Receiver<LogState> {
        self.state.clone()
    }
}

impl Job {
    fn new(append: Append, lookup: bool) -> (Self, oneshot::Receiver<Outcome>) {
        let (reply, answer) = oneshot::channel();
        (Self { append, reply, uncertain: false, lookup }, answer)
    }

    fn answer(self, outcome: Outcome) {
        // A client that has gone away does not want the answer.
        let _ = self.reply.send(outcome);
    }
}

/// How thoroughly a batch is looked through before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// Only what constraints cannot tell: commands that may be there already, and receipts that are asked for.
    Needed,
    /// Every version and claim too.
    All,
}

struct Lane {
    database: Database,
    jobs: Arc<Mutex<mpsc::Receiver<Job>>>,
    /// Taken from the channel, not yet in a batch; in order. At most one channel's worth.
    waiting: VecDeque<Job>,
    session: Option<Session>,
    careful: u32,
    publish: watch::Sender<LogState>,
}

impl Lane {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        // The epoch is known, and readiness told, before the first command.
        self.ensure_session().await;
        while self.receive(&mut stop).await {
            self.refuse_the_late();
            let batch = self.assemble();
            if !batch.is_empty() {
                let care = if self.careful > 0 { Care::All } else { Care::Needed };
                self.careful = self.careful.saturating_sub(1);
                self.commit(batch, care).await;
            }
        }
    }

    /// Takes what has come; waits for it if nothing waits here already. False when nothing will come any more.
    async fn receive(&mut self, stop: &mut watch::Receiver<bool>) -> bool {
        let mut incoming = Vec::new();
        let queue = Arc::clone(&self.jobs);
        if self.waiting.is_empty() {
            let waited = async {
                let mut jobs = queue.lock().await;
                loop {
                    tokio::select! {
                        biased;
                        received = jobs.recv_many(&mut incoming, BATCH_COMMANDS_MAX) => break (received > 0, jobs.len()),
                        () = stopping(stop), if !jobs.is_closed() => jobs.close(),
                    }
                }
            };
            let (more, depth) = if self.session.is_some() {
                waited.await
            } else {
                // Without a connection nobody notices that the server is back but by trying.
                match tokio::time::timeout(RETRY_WAIT, waited).await {
                    Ok(received) => received,
                    Err(_) => {
                        self.ensure_session().await;
                        return true;
                    }
                }
            };
            metrics::gauge!("prospectus_append_queue_depth").set(gauge(depth + incoming.len()));
            if !more {
                return false;
            }
        } else if let Ok(mut jobs) = queue.try_lock() {
            let room = QUEUE_COMMANDS_MAX.saturating_sub(self.waiting.len());
            while incoming.len() < room.min(BATCH_COMMANDS_MAX) {
                let Ok(job) = jobs.try_recv() else { break };
                incoming.push(job);
            }
            metrics::gauge!("prospectus_append_queue_depth").set(gauge(jobs.len() + self.waiting.len()));
        }
        self.waiting.extend(incoming);
        true
    }

    /// Takes the commands for the next batch, in order. One that shares a record, a claim or an idempotency key with an earlier one
    /// of the queue waits for a later batch.
    fn assemble(&mut self) -> Vec<Job> {
        let mut batch: Vec<Job> = Vec::with_capacity(self.waiting.len().min(BATCH_COMMANDS_MAX));
        let mut later = VecDeque::new();
        let mut conflicts = Conflicts::default();
        let (mut events, mut bytes) = (0, 0);
        while let Some(job) = self.waiting.pop_front() {
            let (more_events, more_bytes) = job.append.size();
            let full = batch.len() >= BATCH_COMMANDS_MAX
                || (!batch.is_empty()
                    && (events + more_events > BATCH_EVENTS_MAX || bytes + more_bytes > BATCH_BYTES_MAX));
            if full {
                later.push_back(job);
                break;
            }
            // A command that waits keeps its keys, so that no later one overtakes it.
            if conflicts.admit(&job.append) {
                events += more_events;
                bytes += more_bytes;
                batch.push(job);
            } else {
                later.push_back(job);
            }
        }
        later.append(&mut self.waiting);
        self.waiting = later;
        batch
    }

    fn refuse_the_late(&mut self) {
        let now = Instant::now();
        if self.waiting.iter().any(|job| job.append.deadline <= now) {
            let (late, waiting): (VecDeque<Job>, VecDeque<Job>) =
                self.waiting.drain(..).partition(|job| job.append.deadline <= now);
            self.waiting = waiting;
            let available = self.publish.borrow().available;
            for job in late {
                let refused = match (job.uncertain, available) {
                    (true, _) => Refused::OutcomeUnknown,
                    (false, true) => Refused::Overloaded,
                    (false, false) => Refused::Unavailable,
                };
                job.answer(Err(refused));
            }
        }
    }

    async fn ensure_session(&mut self) -> bool {
        if self.session.as_ref().is_some_and(|session| !session.is_closed()) {
            return true;
        }
        let seen = self.publish.borrow().epoch.clone();
        match Session::open(&self.database, seen.as_ref()).await {
            Ok((session, head)) => {
                self.publish.send_modify(|state| {
                    state.note(&session.epoch, head);
                    state.available = true;
                });
                tracing::info!(epoch = %session.epoch.name, head, "appending");
                self.session = Some(session);
                true
            }
            Err(error) => {
                if self.publish.borrow().available || self.publish.borrow().epoch.is_none() {
                    tracing::error!(error = %error, "cannot append: the database is away or refuses");
                }
                self.publish.send_modify(|state| state.available = false);
                self.session = None;
                false
            }
        }
    }

    /// Puts commands back in front of the queue, in order: `batch`, then the parts from the top of the stack.
    fn put_back(&mut self, batch: Vec<Job>, parts: Vec<(Vec<Job>, Care)>) {
        let parts = parts.into_iter().map(|(part, _)| part).chain([batch]);
        for job in parts.flat_map(|part| part.into_iter().rev()) {
            self.waiting.push_front(job);
        }
    }

    /// Commits a batch, or as much of it as can be; halves stand on a stack of at most the logarithm of a batch.
    async fn commit(&mut self, batch: Vec<Job>, care: Care) {
        let mut parts = vec![(batch, care)];
        while let Some((mut batch, care)) = parts.pop() {
            if !self.ensure_session().await {
                self.put_back(batch, parts);
                tokio::time::sleep(RECONNECT_WAIT).await;
                return;
            }
            let session = self.session.as_mut().expect("ensure_session has just made one");
            let started = Instant::now();
            match session.write(&batch, care).await {
                Ok(written) => {
                    metrics::histogram!("prospectus_append_commit_seconds").record(started.elapsed().as_secs_f64());
                    metrics::histogram!("prospectus_append_batch_events").record(gauge(written.events));
                    metrics::counter!("prospectus_append_events_total").increment(written.events as u64);
                    self.publish.send_if_modified(|state| state.note(&session.epoch, written.head));
                    for (job, verdict) in batch.into_iter().zip(written.verdicts) {
                        let outcome = match verdict {
                            Verdict::Write(answer) | Verdict::There(answer) => Ok(answer),
                            Verdict::Refuse(refused) => Err(refused),
                        };
                        job.answer(outcome);
                    }
                }
                Err(Failure::Lost(error)) => {
                    tracing::warn!(%error, commands = batch.len(), "the answer to a batch was lost; it is tried again");
                    metrics::counter!("prospectus_append_lost_total").increment(1);
                    for job in &mut batch {
                        job.uncertain = true;
                    }
                    self.session = None;
                    self.put_back(batch, parts);
                    return;
                }
                Err(Failure::Passing(error)) => {
                    tracing::warn!(%error, commands = batch.len(), "a batch was rolled back; it is tried again");
                    self.session = None;
                    self.put_back(batch, parts);
                    tokio::time::sleep(RECONNECT_WAIT).await;
                    return;
                }
                Err(Failure::Rejected(error)) => {
                    metrics::counter!("prospectus_append_rejected_batches_total").increment(1);
                    if care == Care::Needed {
                        self.careful = CAREFUL_BATCHES;
                        parts.push((batch, Care::All));
                    } else if batch.len() > 1 {
                        let second = batch.split_off(batch.len() / 2);
                        parts.push((second, Care::All));
                        parts.push((batch, Care::All));
                    } else if let Some(job) = batch.pop() {
                        // The code and the constraint, not the detail, which may hold values.
                        tracing::error!(%error, "the database refuses a command");
                        job.answer(Err(Refused::Broken(error)));
                    }
                }
            }
        }
    }
}

impl Append {
    /// Events and bytes of payload.
    fn size(&self) -> (usize, usize) {
        let events = self.streams.iter().flat_map(|stream| &stream.events);
        events.fold((0, 0), |(count, bytes), event| (count + 1, bytes + event.payload.len()))
    }
}

/// Ends when `stop` turns true or nobody can turn it any more.
async fn stopping(stop: &mut watch::Receiver<bool>) {
    // An error says that the other end is gone, which is the second case.
    let _ = stop.wait_for(|stopping| *stopping).await;
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn gauge(count: usize) -> f64 {
    count as f64
}
