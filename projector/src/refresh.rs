//! Keeping what is counted up to date (decision 0012): a task and a connection of its own, so that no step of a projection ever waits for it.
//!
//! The views of the live generation are refreshed when enough has changed since, when the oldest change that they do not show is too
//! old, and right after somebody was erased. One refresh at a time over all projectors: `refresh_stats` takes a lock that ends with its
//! transaction, or does nothing. It gives up rather than wait long for anybody's lock, and rests nine times as long as it took, unless
//! somebody is erased.

use std::time::{Duration, Instant};

use migrations::COMPANY_PROSPECT;
use service_kit::postgres::{Database, describe};
use service_kit::shutdown::Shutdown;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use crate::connection::connect;

/// How often it is looked whether a refresh is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a look may take.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// How long after its own time-outs the server is believed to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A refresh is followed by a rest of so many times its length: it takes a tenth of one of the primary's cores at most.
const REST: u32 = 9;

/// When what is counted is refreshed.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// After so many events.
    pub events: i64,
    /// When the oldest event that is not counted is so old.
    pub age: Duration,
    /// How long a refresh waits for a lock before it gives up. Longer than the server's `deadlock_timeout`, after which an autovacuum
    /// that is in the way steps back.
    pub lock_wait: Duration,
    /// How long a refresh may take before it is cancelled.
    pub length: Duration,
}

/// Why nothing was refreshed.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The server refuses, cancelled it, or is away.
    #[error("the database: {}", describe(.0))]
    Database(#[from] Error),
    /// It does not answer, beyond its own time-outs.
    #[error("the database has not answered for {} s", .0.as_secs())]
    NoAnswer(Duration),
}

/// What was looked at: how far the views of a generation are, and how far the generation is.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Due {
    generation: i32,
    /// Events that are applied and not counted; or the other way round, where a checkpoint was set back.
    events: i64,
    /// Age of the oldest of them; zero where there is none.
    age: Duration,
    /// Whether one of them erased somebody.
    erased: bool,
}

impl Due {
    fn by(&self, schedule: &Schedule) -> bool {
        self.events > 0 && (self.events >= schedule.events || self.age >= schedule.age || self.erased)
    }
}

/// Refreshes by the schedule until the end is requested; what runs then is cancelled.
pub async fn run(database: Database, schedule: Schedule, shutdown: Shutdown) {
    let mut refresher = Refresher::new(database, schedule);
    let mut trouble = None;
    let mut rested = Instant::now();
    while !shutdown.is_requested() {
        let began = Instant::now();
        let turn = tokio::select! {
            turn = refresher.turn_after(rested) => turn,
            () = shutdown.requested() => break,
        };
        match turn {
            Ok(None) => {}
            Ok(Some(took)) => {
                trouble = None;
                rested = Instant::now() + took * REST;
            }
            Err(error) => {
                // What is cancelled after long has cost as much as what went well.
                rested = Instant::now() + began.elapsed() * REST;
                refresher.forget().await;
                metrics::counter!("prospectus_refresh_failures_total").increment(1);
                let said = error.to_string();
                // Once per reason: it is tried again and again.
                if trouble.as_ref() != Some(&said) {
                    tracing::warn!(error = said, "what is counted could not be refreshed; it is tried again");
                    trouble = Some(said);
                }
            }
        }
        tokio::select! {
            () = shutdown.requested() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    refresher.forget().await;
}

/// Whoever refreshes, on one connection that is made where it is missing.
pub struct Refresher {
    database: Database,
    schedule: Schedule,
    client: Option<Client>,
    driven: JoinSet<()>,
}

impl Refresher {
    /// A refresher of this database, whose role is the projector's.
    pub fn new(database: Database, schedule: Schedule) -> Self {
        let milliseconds = |length: Duration| format!("{}ms", length.as_millis());
        let database = database
            .with_option("lock_timeout", &milliseconds(schedule.lock_wait))
            .with_option("statement_timeout", &milliseconds(schedule.length))
            // Whoever gave up leaves nothing running that would keep others from refreshing.
            .with_option("client_connection_check_interval", "2s");
        Self { database, schedule, client: None, driven: JoinSet::new() }
    }

    /// Looks whether a refresh is due, and if so refreshes; gives how long that took, or nothing where nothing was refreshed, because
    /// nothing was due or another projector was at it.
    ///
    /// # Errors
    /// Why it could not; the connection is to be given up then ([`Refresher::forget`]).
    pub async fn turn(&mut self) -> Result<Option<Duration>, RefreshError> {
        self.turn_after(Instant::now()).await
    }

    /// The same for one that rests until then, unless somebody was erased.
    async fn turn_after(&mut self, rested: Instant) -> Result<Option<Duration>, RefreshError> {
        let due = timeout(LOOK_MAX, self.look()).await.unwrap_or(Err(RefreshError::NoAnswer(LOOK_MAX)))?;
        let Some(due) = due else { return Ok(None) };
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        metrics::gauge!("prospectus_refresh_lag_events").set(due.events as f64);
        metrics::gauge!("prospectus_refresh_lag_seconds").set(due.age.as_secs_f64());
        if !due.by(&self.schedule) || (Instant::now() < rested && !due.erased) {
            return Ok(None);
        }
        let began = Instant::now();
        let refreshed = self.refresh(due.generation).await?;
        let took = began.elapsed();
        if refreshed {
            metrics::counter!("prospectus_refreshes_total").increment(1);
            metrics::histogram!("prospectus_refresh_seconds").record(took.as_secs_f64());
            tracing::debug!(events = due.events, took_ms = took.as_millis(), "counted anew");
        }
        Ok(refreshed.then_some(took))
    }

    /// Refreshes what is counted of a generation if that does not include `position`: a rebuild does so before its generation goes live.
    /// Gives false where another refresh is under way.
    ///
    /// # Errors
    /// As [`Refresher::turn`].
    pub async fn refresh_up_to(&mut self, generation: i32, position: i64) -> Result<bool, RefreshError> {
        let sql = format!(
            "-- projector::refresh::refresh_up_to
            SELECT coalesce(max(position), 0) FROM {}.stats_as_of",
            migrations::schema_name(generation)
        );
        let look = async { Ok::<i64, Error>(self.connected().await?.query_one(&sql, &[]).await?.get(0)) };
        let counted = timeout(LOOK_MAX, look).await.map_err(|_| RefreshError::NoAnswer(LOOK_MAX))??;
        if counted >= position { Ok(true) } else { self.refresh(generation).await }
    }

    /// Refreshes what is counted of a generation now, live or not. Gives false where another refresh is under way.
    ///
    /// # Errors
    /// As [`Refresher::turn`].
    pub async fn refresh(&mut self, generation: i32) -> Result<bool, RefreshError> {
        // One message, so that a projector that is paused meanwhile leaves no transaction open and no lock held. The snapshot is taken by
        // the second statement and is that of all four views.
        let sql = format!(
            "-- projector::refresh
            BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT {}.refresh_stats(); COMMIT",
            migrations::schema_name(generation)
        );
        let answer_max = self.schedule.length + ANSWER_MAX;
        let asked = async {
            let client = self.connected().await?;
            let messages = match client.simple_query(&sql).await {
                Ok(messages) => messages,
                // Another refresh ended between this one's snapshot and its lock: what it would write is old already.
                Err(error) if error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) => {
                    client.batch_execute("ROLLBACK").await?;
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            };
            let first = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            });
            Ok(first == Some("t"))
        };
        timeout(answer_max, asked).await.unwrap_or(Err(RefreshError::NoAnswer(answer_max)))
    }

    /// Cancels what runs and gives the connection up.
    pub async fn forget(&mut self) {
        if let Some(client) = self.client.take() {
            // Whether it worked is the server's affair: its own time-outs end what is left.
            let _ = timeout(ANSWER_MAX, self.database.cancel(&client.cancel_token())).await;
        }
        self.driven = JoinSet::new();
    }

    async fn look(&mut self) -> Result<Option<Due>, RefreshError> {
        const LIVE: &str = "-- projector::refresh::look, live
            SELECT l.generation FROM read.live AS l WHERE l.projection = $1";
        let client = self.connected().await?;
        let Some(live) = client.query_opt(LIVE, &[&COMPANY_PROSPECT]).await? else { return Ok(None) };
        let generation: i32 = live.get(0);
        let sql = format!(
            "-- projector::refresh::look
            SELECT abs(c.position - s.position),
                   greatest(extract(epoch FROM clock_timestamp() - (
                       SELECT e.recorded_at FROM log.events AS e WHERE e.position = s.position + 1 AND e.position <= c.position
                   )), 0)::float8,
                   EXISTS (SELECT FROM log.erasures AS x WHERE x.position > s.position AND x.position <= c.position)
            FROM (
                SELECT p.position FROM read.checkpoint_steps AS p
                WHERE p.projection = $1 AND p.generation = $2 ORDER BY p.step DESC LIMIT 1
            ) AS c
            CROSS JOIN (SELECT coalesce(max(v.position), 0) AS position FROM {}.stats_as_of AS v) AS s",
            migrations::schema_name(generation)
        );
        let row = client.query_opt(&sql, &[&COMPANY_PROSPECT, &generation]).await?;
        Ok(row.map(|row| Due {
            generation,
            events: row.get(0),
            age: Duration::from_secs_f64(row.get(1)),
            erased: row.get(2),
        }))
    }

    async fn connected(&mut self) -> Result<&Client, Error> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            self.client = Some(connect(&self.database, &mut self.driven).await?);
        }
        Ok(self.client.as_ref().expect("it was made just now where it was missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due() {
        let (events, age) = (10, Duration::from_secs(30));
        let schedule = Schedule { events, age, lock_wait: age, length: age };
        let due = |events, seconds, erased| {
            Due { generation: 1, events, age: Duration::from_secs(seconds), erased }.by(&schedule)
        };
        assert!(!due(0, 0, false));
        assert!(!due(9, 29, false));
        assert!(due(10, 0, false), "enough has changed");
        assert!(due(1, 30, false), "the oldest change is too old");
        assert!(due(1, 0, true), "somebody was erased");
    }
}
