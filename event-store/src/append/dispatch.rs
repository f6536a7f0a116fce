//! From the queue to batches, and from batches to lanes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use service_kit::postgres::Database;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::batch::Conflicts;
use super::lane::{Ended, Lane, Manner};
use super::session::Care;
use super::{Job, LogState, Refused};

/// Batches that may be under way: while one is being written, the server already reads the other, which waits for the log's lock.
/// Measured: with one the server waits for us, with three the batches are smaller than that is worth.
const LANES: usize = 2;
/// Most commands in one batch.
const BATCH_COMMANDS_MAX: usize = 512;
/// Most events in one batch, unless one command alone has more.
const BATCH_EVENTS_MAX: usize = 2_000;
/// Most bytes of payload in one batch, unless one command alone has more.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// After a batch that was refused, so many batches are looked through before they are written.
const CAREFUL_BATCHES: u32 = 32;
/// How often it is looked whether a waiting command is past its deadline, also while no lane comes back.
const LOOK_FOR_THE_LATE_EVERY: Duration = Duration::from_millis(100);
/// Between two attempts to reach a database that is away, while no command waits.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// The task between the queue and the lanes.
pub(super) struct Dispatch {
    jobs: mpsc::Receiver<Job>,
    /// Taken from the queue, not in a batch; in order. Bounded by the queue's places, which they keep.
    waiting: VecDeque<Job>,
    /// Those with nothing to do.
    free: Vec<Lane>,
    /// Those with a batch.
    busy: JoinSet<Ended>,
    /// What the batches under way hold, by the lane's number.
    held: [Conflicts; LANES],
    careful: u32,
    state: watch::Sender<LogState>,
}

impl Dispatch {
    pub(super) fn new(database: &Database, jobs: mpsc::Receiver<Job>, state: watch::Sender<LogState>) -> Self {
        let mut busy = JoinSet::new();
        // The epoch is known, and readiness told, before the first command.
        for number in 0..LANES {
            busy.spawn(Lane::new(number, database.clone(), state.clone()).carry_out(Vec::new(), Manner::AtOnce));
        }
        Self { jobs, waiting: VecDeque::new(), free: Vec::new(), busy, held: Default::default(), careful: 0, state }
    }

    /// Runs until `stop` turns true and what was accepted by then is finished.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut incoming = Vec::with_capacity(BATCH_COMMANDS_MAX);
        let mut open = true;
        let mut late = tokio::time::interval(LOOK_FOR_THE_LATE_EVERY);
        late.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while open || !self.waiting.is_empty() || !self.busy.is_empty() {
            let disconnected = self.free.iter().any(|lane| !lane.is_connected());
            tokio::select! {
                biased;
                // A lane that panics ends this task, and with it the service: nobody knows what became of its batch.
                Some(ended) = self.busy.join_next() => self.take_back(ended.expect("a lane does not panic")),
                // What no lane can take stays in the queue.
                received = self.jobs.recv_many(&mut incoming, BATCH_COMMANDS_MAX), if open && !self.free.is_empty() => {
                    open = received > 0;
                }
                () = stopping(&mut stop), if !self.jobs.is_closed() => self.jobs.close(),
                // Who waits in the queue may be late as well; all of them together have no more than the queue's places.
                _ = late.tick(), if !self.busy.is_empty() => while let Ok(job) = self.jobs.try_recv() {
                    incoming.push(job);
                },
                () = tokio::time::sleep(RETRY_WAIT), if disconnected && self.waiting.is_empty() => self.connect(),
            }
            self.waiting.extend(incoming.drain(..));
            metrics::gauge!("prospectus_append_queue_depth").set(super::gauge(self.jobs.len() + self.waiting.len()));
            self.refuse_the_late();
            self.hand_out();
        }
    }

    /// Gives batches to the lanes that have nothing to do.
    fn hand_out(&mut self) {
        while !self.waiting.is_empty() {
            let Some(lane) = self.free.pop() else { return };
            let mut held = Conflicts::default();
            let batch = self.assemble(&mut held);
            if batch.is_empty() {
                // All that wait share something with a batch under way.
                self.free.push(lane);
                return;
            }
            let manner = if self.careful > 0 {
                self.careful -= 1;
                Manner::Looking(Care::All)
            } else if batch.iter().all(Job::takes_its_chance) {
                Manner::AtOnce
            } else {
                Manner::Looking(Care::Needed)
            };
            self.held[lane.number()] = held;
            self.busy.spawn(lane.carry_out(batch, manner));
        }
    }

    fn take_back(&mut self, ended: Ended) {
        self.held[ended.lane.number()] = Conflicts::default();
        self.free.push(ended.lane);
        if ended.look_closer {
            self.careful = CAREFUL_BATCHES;
        }
        for job in ended.back.into_iter().rev() {
            self.waiting.push_front(job);
        }
    }

    /// Lets the lanes without a connection try to get one.
    fn connect(&mut self) {
        let (connected, away): (Vec<Lane>, Vec<Lane>) = self.free.drain(..).partition(Lane::is_connected);
        self.free = connected;
        for lane in away {
            self.busy.spawn(lane.carry_out(Vec::new(), Manner::AtOnce));
        }
    }

    /// Takes the commands for the next batch, in order. One that shares a record, a claim or an idempotency key with an earlier one
    /// of the queue or of a batch under way waits for a later batch. `held` gets what the batch holds. After each setback of the first
    /// command a batch has half as many, so that one command whose rows always make the server fail ends up alone.
    fn assemble(&mut self, held: &mut Conflicts) -> Vec<Job> {
        let setbacks = self.waiting.front().map_or(0, |job| job.setbacks);
        let commands_max = BATCH_COMMANDS_MAX.checked_shr(setbacks).unwrap_or(0).max(1);
        let mut batch: Vec<Job> = Vec::with_capacity(self.waiting.len().min(BATCH_COMMANDS_MAX));
        let mut later = VecDeque::new();
        let mut conflicts = Conflicts::default();
        self.held.iter().for_each(|under_way| conflicts.add(under_way));
        let (mut events, mut bytes) = (0, 0);
        while let Some(job) = self.waiting.pop_front() {
            let (more_events, more_bytes) = job.append.size();
            let full = batch.len() >= commands_max
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
                held.admit(&job.append);
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
            let available = self.state.borrow().available;
            for job in late {
                let refused = match (job.uncertain, available) {
                    (true, _) => Refused::OutcomeUnknown,
                    (false, true) if job.setbacks == 0 => Refused::Overloaded,
                    (false, _) => Refused::Unavailable,
                };
                job.answer(Err(refused));
            }
        }
    }
}

/// Ends when `stop` turns true or nobody can turn it any more.
async fn stopping(stop: &mut watch::Receiver<bool>) {
    // An error says that the other end is gone, which is the second case.
    let _ = stop.wait_for(|stopping| *stopping).await;
}
