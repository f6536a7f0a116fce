//! Keeping a projection up to date: woken by NATS, polling anyway, and starting over when something fails.

use std::sync::Arc;
use std::time::Duration;

use event_store::Keyring;
use futures_util::StreamExt as _;
use service_kit::postgres::Database;
use service_kit::shutdown::Shutdown;
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};

use crate::projection::{Projection, STEP_EVENTS_MAX, StepError, Stepped};

/// How often the log is looked at when nobody says that there is news.
const POLL: Duration = Duration::from_millis(100);
/// Wait after anything failed.
const RETRY_WAIT: Duration = Duration::from_millis(500);
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

/// A projection at work.
pub struct Live {
    database: Database,
    keyring: Arc<Keyring>,
    news: Arc<Notify>,
    trouble: watch::Sender<Option<String>>,
}

impl Live {
    /// What keeps the projection of `database` up to date, and where it says what keeps it from that.
    pub fn new(
        database: Database,
        keyring: Arc<Keyring>,
        news: Arc<Notify>,
    ) -> (Self, watch::Receiver<Option<String>>) {
        let (trouble, state) = watch::channel(Some("the projection has not started yet".to_owned()));
        (Self { database, keyring, news, trouble }, state)
    }

    /// Runs until the end is requested; the step that is under way is finished.
    pub async fn run(self, shutdown: Shutdown) {
        while !shutdown.is_requested() {
            match self.work(&shutdown).await {
                Ok(()) => return,
                Err(error) => {
                    metrics::gauge!("prospectus_projection_stuck").set(1.0);
                    let said = error.to_string();
                    // Once per reason: what cannot be applied now cannot be applied half a second later.
                    if self.trouble.borrow().as_ref() != Some(&said) {
                        tracing::error!(error = said, "the projection has stopped and tries again");
                        self.trouble.send_replace(Some(said));
                    }
                    tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(RETRY_WAIT) => {} }
                }
            }
        }
    }

    async fn work(&self, shutdown: &Shutdown) -> Result<(), StepError> {
        let mut projection = Projection::open(&self.database, Arc::clone(&self.keyring)).await?;
        tracing::info!(position = projection.position(), "projecting");
        while !shutdown.is_requested() {
            let started = std::time::Instant::now();
            let stepped = match projection.step(STEP_EVENTS_MAX).await {
                Ok(stepped) => stepped,
                Err(StepError::Fenced) => {
                    tracing::info!(position = projection.position(), "another projector has taken a step");
                    tokio::time::sleep(POLL).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if self.trouble.borrow().is_some() {
                self.trouble.send_replace(None);
                metrics::gauge!("prospectus_projection_stuck").set(0.0);
            }
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
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn figures(stepped: &Stepped, started: std::time::Instant) {
    metrics::gauge!("prospectus_projection_position").set(stepped.position as f64);
    metrics::gauge!("prospectus_projection_lag_events").set((stepped.head - stepped.position) as f64);
    metrics::gauge!("prospectus_projection_fanout_queued").set(stepped.queued as f64);
    let lag = stepped.recorded_at.map_or(0.0, |recorded_at| (OffsetDateTime::now_utc() - recorded_at).as_seconds_f64());
    metrics::gauge!("prospectus_projection_lag_seconds").set(lag.max(0.0));
    if !stepped.idle() {
        metrics::counter!("prospectus_projection_events_total").increment(stepped.events as u64);
        metrics::counter!("prospectus_projection_fanout_rows_total").increment(stepped.fanout_rows as u64);
        metrics::histogram!("prospectus_projection_step_events").record(stepped.events as f64);
        metrics::histogram!("prospectus_projection_step_seconds").record(started.elapsed().as_secs_f64());
    }
}
