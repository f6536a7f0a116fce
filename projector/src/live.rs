//! Keeping a projection up to date: woken by NATS, polling anyway, and starting over when something fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_store::Keyring;
use futures_util::StreamExt as _;
use migrations::CODE_VERSION;
use service_kit::postgres::Database;
use service_kit::shutdown::Shutdown;
use tokio::sync::{Notify, watch};

use crate::projection::{Projection, STEP_EVENTS_MAX, StepError, Stepped};

/// How often the log is looked at when nobody says that there is news.
const POLL: Duration = Duration::from_millis(100);
/// Wait after anything failed.
const RETRY_WAIT: Duration = Duration::from_millis(500);
/// How long writing an error down may take.
const NOTE_MAX: Duration = Duration::from_secs(5);
/// The subjects of every event.
const SUBJECTS: &str = "prospectus.events.>";

/// Listens to NATS in the background; what is given is notified of every message, and never waited for. Without an address nobody
/// notifies.
pub fn listen(nats_url: Option<String>, shutdown: Shutdown) -> Arc<Notify> {
    let news = Arc::new(Notify::new());
    if let Some(url) = nats_url {
        let notify = Arc::clone(&news);
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.requested() => {}
                () = hear(url, notify) => {}
            }
        });
    }
    news
}

async fn hear(url: String, news: Arc<Notify>) {
    loop {
        let heard = async {
            let client = async_nats::ConnectOptions::new().retry_on_initial_connect().connect(&url).await.ok()?;
            let mut messages = client.subscribe(SUBJECTS).await.ok()?;
            while messages.next().await.is_some() {
                news.notify_one();
            }
            Some(())
        };
        heard.await;
        tokio::time::sleep(RETRY_WAIT).await;
    }
}

/// How long a projection waits for what should not take long.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// After so long without the end of a look at the log the projection is not ready.
    pub look: Duration,
    /// After so long a step, or getting ready for the first, is given up and tried again on other connections. Only a server that
    /// does not answer any more takes so long: what it answers is bounded by the role's `statement_timeout` and `lock_timeout`.
    pub step: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { look: Duration::from_secs(10), step: Duration::from_secs(120) }
    }
}

/// What is known of a projection at work, for whoever wants to know whether it does its job.
#[derive(Debug, Clone)]
pub struct State {
    condition: watch::Receiver<Condition>,
    look_max: Duration,
}

#[derive(Debug, Clone)]
struct Condition {
    trouble: Option<String>,
    /// The event that it has stopped at.
    stopped_at: Option<i64>,
    looked_at: Instant,
}

impl State {
    /// The position of the event that the projection has stopped at: it cannot be applied, now or later.
    pub fn stopped_at(&self) -> Option<i64> {
        self.condition.borrow().stopped_at
    }

    /// Whether the projection does its job now.
    ///
    /// # Errors
    /// In a sentence, what keeps it from that: what a step failed with, or that none has ended for a while.
    pub fn check(&self) -> Result<(), String> {
        let condition = self.condition.borrow();
        if let Some(trouble) = &condition.trouble {
            return Err(trouble.clone());
        }
        let since = condition.looked_at.elapsed();
        if since > self.look_max {
            return Err(format!("no look at the log has ended for {} s", since.as_secs()));
        }
        Ok(())
    }
}

/// A projection at work.
pub struct Live {
    database: Database,
    keyring: Arc<Keyring>,
    news: Arc<Notify>,
    patience: Patience,
    code_version: i32,
    condition: watch::Sender<Condition>,
}

impl Live {
    /// What keeps the projection of `database` up to date, and what others know of it.
    pub fn new(database: Database, keyring: Arc<Keyring>, news: Arc<Notify>, patience: Patience) -> (Self, State) {
        let trouble = Some("the projection has not started yet".to_owned());
        let (sender, condition) = watch::channel(Condition { trouble, stopped_at: None, looked_at: Instant::now() });
        let state = State { condition, look_max: patience.look };
        (Self { database, keyring, news, patience, code_version: CODE_VERSION, condition: sender }, state)
    }

    /// The same for another version of the projection's code.
    #[must_use]
    pub fn with_version(self, code_version: i32) -> Self {
        Self { code_version, ..self }
    }

    /// Runs until the end is requested; the step that is under way is finished.
    pub async fn run(self, shutdown: Shutdown) {
        // What is written down for others, until a step has been taken again.
        let mut noted = None;
        while !shutdown.is_requested() {
            match self.work(&shutdown).await {
                Ok(()) => return,
                Err(StepError::Superseded) => tracing::info!("another generation of the projection has gone live"),
                Err(error) => {
                    let said = error.to_string();
                    // Once per reason: what cannot be applied now cannot be applied half a second later.
                    if self.condition.borrow().trouble.as_ref() != Some(&said) {
                        let (position, reason) = (error.position(), error.reason());
                        tracing::error!(error = said, position, reason, "the projection has stopped and tries again");
                        metrics::counter!("prospectus_projection_errors_total", "reason" => reason).increment(1);
                        self.condition.send_modify(|condition| {
                            condition.trouble = Some(said.clone());
                            condition.stopped_at = position;
                        });
                        noted = None;
                    }
                    if noted.as_ref() != Some(&said) && self.note(&error).await {
                        noted = Some(said);
                    }
                    tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(RETRY_WAIT) => {} }
                }
            }
        }
    }

    /// Whether the error is written down where everybody can see it; tried again where the database is away.
    async fn note(&self, error: &StepError) -> bool {
        match tokio::time::timeout(NOTE_MAX, crate::errors::note(&self.database, None, error)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the projection's error could not be written down");
                false
            }
            Err(_) => false,
        }
    }

    async fn work(&self, shutdown: &Shutdown) -> Result<(), StepError> {
        let opened = Projection::open_live(&self.database, Arc::clone(&self.keyring), self.code_version);
        let mut projection = self.within(Box::pin(opened)).await?;
        tracing::info!(position = projection.position(), "projecting");
        while !shutdown.is_requested() {
            let started = Instant::now();
            let stepped = self.within(Box::pin(projection.step(STEP_EVENTS_MAX))).await;
            if matches!(stepped, Ok(_) | Err(StepError::Fenced)) {
                self.condition.send_replace(Condition { trouble: None, stopped_at: None, looked_at: Instant::now() });
            }
            let stepped = match stepped {
                Ok(stepped) => stepped,
                Err(StepError::Fenced) => {
                    tracing::info!(position = projection.position(), "another projector has taken a step");
                    tokio::time::sleep(POLL).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            figures(&stepped, started);
            if stepped.idle() {
                tokio::select! {
                    () = self.news.notified() => {}
                    () = tokio::time::sleep(POLL) => {}
                    () = shutdown.requested() => {}
                }
            }
        }
        Ok(())
    }

    async fn within<T>(&self, step: impl Future<Output = Result<T, StepError>>) -> Result<T, StepError> {
        let step_max = self.patience.step;
        tokio::time::timeout(step_max, step).await.unwrap_or(Err(StepError::NoAnswer(step_max)))
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn figures(stepped: &Stepped, started: Instant) {
    metrics::gauge!("prospectus_projection_fanout_queued").set(stepped.queued as f64);
    if !stepped.idle() {
        metrics::counter!("prospectus_projection_events_total").increment(stepped.events as u64);
        metrics::counter!("prospectus_projection_fanout_rows_total").increment(stepped.fanout_rows as u64);
        metrics::histogram!("prospectus_projection_step_events").record(stepped.events as f64);
        metrics::histogram!("prospectus_projection_step_seconds").record(started.elapsed().as_secs_f64());
    }
}
