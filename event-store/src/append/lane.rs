//! A lane: a connection, and what it does with one batch.

use std::time::{Duration, Instant};

use service_kit::postgres::Database;
use tokio::sync::watch;
use tokio::time::timeout;

use super::batch::Verdict;
use super::session::{Care, Failure, OpenError, Session, Written};
use super::{Job, LogState, Refused};

/// Wait before the next attempt when the database is away.
const RECONNECT_WAIT: Duration = Duration::from_millis(100);
/// How long the server may take over a batch. Longer than it waits for the log's lock (`lock_timeout` of the role).
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long making a connection ready may take.
const OPEN_WAIT: Duration = Duration::from_secs(5);

/// A connection that batches are written on, one at a time.
pub(super) struct Lane {
    number: usize,
    database: Database,
    session: Option<Session>,
    state: watch::Sender<LogState>,
}

/// How a batch is written.
pub(super) enum Manner {
    /// In one round trip: the constraints decide.
    AtOnce,
    /// Looked through under the lock before it is written.
    Looking(Care),
}

/// A lane that has nothing to do any more.
pub(super) struct Ended {
    pub(super) lane: Lane,
    /// Commands that are to be tried again, in order.
    pub(super) back: Vec<Job>,
    /// Something in the batch was refused: the next ones are to be looked through.
    pub(super) look_closer: bool,
}

impl Lane {
    pub(super) fn new(number: usize, database: Database, state: watch::Sender<LogState>) -> Self {
        Self { number, database, session: None, state }
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn is_connected(&self) -> bool {
        self.session.as_ref().is_some_and(|session| !session.is_closed())
    }

    /// Writes a batch and answers its commands; an empty one only makes sure of the connection.
    pub(super) async fn carry_out(mut self, batch: Vec<Job>, manner: Manner) -> Ended {
        if !self.ensure_session().await {
            if !batch.is_empty() {
                tokio::time::sleep(RECONNECT_WAIT).await;
            }
            return self.ended(batch, false);
        }
        if batch.is_empty() {
            return self.ended(batch, false);
        }
        let session = self.session.as_mut().expect("ensure_session has just made sure of it");
        let started = Instant::now();
        let written = match manner {
            Manner::AtOnce => in_time(session.write(&batch)).await,
            Manner::Looking(care) => return Box::pin(self.look_and_write(batch, care)).await,
        };
        match written {
            Ok(written) => {
                self.answer(batch, written, started);
                self.ended(Vec::new(), false)
            }
            Err(failure) => self.give_back(batch, failure).await,
        }
    }

    /// Writes as much of a batch as can be; halves stand on a stack of at most the logarithm of a batch.
    async fn look_and_write(mut self, batch: Vec<Job>, care: Care) -> Ended {
        let mut parts = vec![(batch, care)];
        while let Some((mut batch, care)) = parts.pop() {
            let session = self.session.as_mut().expect("whatever ends the session ends this loop");
            let started = Instant::now();
            match in_time(Box::pin(session.look_and_write(&batch, care))).await {
                Ok(written) => self.answer(batch, written, started),
                Err(Failure::Rejected(error)) => {
                    metrics::counter!("prospectus_append_rejected_batches_total").increment(1);
                    if care == Care::Needed {
                        parts.push((batch, Care::All));
                    } else if batch.len() > 1 {
                        let second = batch.split_off(batch.len() / 2);
                        parts.push((second, Care::All));
                        parts.push((batch, Care::All));
                    } else if let Some(job) = batch.pop() {
                        // Whoever waits for the answer logs it, with the request.
                        tracing::debug!(%error, "the database refuses a command");
                        job.answer(Err(Refused::Broken(error)));
                    }
                }
                Err(failure) => {
                    let mut ended = self.give_back(batch, failure).await;
                    ended.back.extend(parts.into_iter().rev().flat_map(|(part, _)| part));
                    return ended;
                }
            }
        }
        self.ended(Vec::new(), false)
    }

    /// What becomes of a batch that was not written, or is not known to be.
    async fn give_back(mut self, mut batch: Vec<Job>, failure: Failure) -> Ended {
        match failure {
            Failure::Lost(error) => {
                tracing::warn!(%error, commands = batch.len(), "the answer to a batch was lost; it is tried again");
                metrics::counter!("prospectus_append_lost_total").increment(1);
                for job in &mut batch {
                    job.uncertain = true;
                    job.setbacks += 1;
                }
                self.session = None;
                self.ended(batch, false)
            }
            Failure::Passing(error) => {
                tracing::warn!(%error, commands = batch.len(), "a batch was rolled back; it is tried again");
                for job in &mut batch {
                    job.setbacks += 1;
                }
                self.session = None;
                tokio::time::sleep(RECONNECT_WAIT).await;
                self.ended(batch, false)
            }
            Failure::Rejected(error) => {
                tracing::debug!(%error, commands = batch.len(), "a batch was refused; it is looked through");
                metrics::counter!("prospectus_append_rejected_batches_total").increment(1);
                self.ended(batch, true)
            }
        }
    }

    fn answer(&self, batch: Vec<Job>, written: Written, started: Instant) {
        metrics::histogram!("prospectus_append_commit_seconds").record(started.elapsed().as_secs_f64());
        metrics::histogram!("prospectus_append_batch_events").record(super::gauge(written.events));
        metrics::counter!("prospectus_append_events_total").increment(written.events as u64);
        if let Some(session) = &self.session {
            self.state.send_if_modified(|state| state.note(&session.epoch, written.head));
        }
        for (job, verdict) in batch.into_iter().zip(written.verdicts) {
            let outcome = match verdict {
                Verdict::Write(answer) | Verdict::There(answer) => Ok(answer),
                Verdict::Refuse(refused) => Err(refused),
            };
            job.answer(outcome);
        }
    }

    fn ended(self, back: Vec<Job>, look_closer: bool) -> Ended {
        Ended { lane: self, back, look_closer }
    }

    async fn ensure_session(&mut self) -> bool {
        if self.session.as_ref().is_some_and(|session| !session.is_closed()) {
            return true;
        }
        let seen = self.state.borrow().epoch.clone();
        let opened = timeout(OPEN_WAIT, Session::open(&self.database, seen.as_ref())).await;
        match opened.unwrap_or(Err(OpenError::TimedOut)) {
            Ok((session, head)) => {
                self.state.send_modify(|state| {
                    state.note(&session.epoch, head);
                    state.available = true;
                });
                tracing::info!(epoch = %session.epoch.name, head, "appending");
                self.session = Some(session);
                true
            }
            Err(error) => {
                if self.state.borrow().available || self.state.borrow().epoch.is_none() {
                    tracing::error!(error = %error, "cannot append: the database is away or refuses");
                }
                self.state.send_modify(|state| state.available = false);
                self.session = None;
                false
            }
        }
    }
}

/// A server that is frozen answers nothing and breaks no connection: after a while the batch counts as lost.
async fn in_time(write: impl Future<Output = Result<Written, Failure>>) -> Result<Written, Failure> {
    let lost = |_| Err(Failure::Lost("no answer in time".to_owned()));
    timeout(ANSWER_WAIT, write).await.unwrap_or_else(lost)
}
