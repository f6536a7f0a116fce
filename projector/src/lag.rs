//! How far the projection is behind, measured apart from its steps: a step that hangs tells nothing.

use std::time::{Duration, Instant};

use migrations::COMPANY_PROSPECT;
use service_kit::postgres::Database;
use service_kit::shutdown::Shutdown;
use service_kit::watchdog::Watchdog;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_postgres::{Client, Error};

use crate::connection::connect;
use crate::live::State;

/// How often it is measured.
const EVERY: Duration = Duration::from_secs(1);
/// How long the database may take to connect and answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The projection's checkpoint and what is after it, as figures.
struct Lag {
    position: f64,
    events: f64,
    /// Age of the oldest event after the checkpoint; 0 where there is none.
    seconds: f64,
    /// The last step: every one is progress, also one that only carries changes of companies on.
    step: i64,
    /// Whether there is something to do.
    waits: bool,
}

/// Sets the figures of the lag, and whether the projection is stuck, until the end is requested. Where nothing can be measured the
/// number of events is not known (NaN) and the age grows: what was recorded since may not be shown.
pub async fn report(database: Database, state: State, mut watchdog: Watchdog, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut driven = JoinSet::new();
    let mut client = None;
    let (mut known, mut measured_at) = (0.0, Instant::now());
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            _ = ticks.tick() => {}
        }
        let lag = tokio::time::timeout(ANSWER_MAX, measure(&database, &mut client, &mut driven)).await;
        let mut seen = None;
        if let Ok(Ok(lag)) = lag {
            seen = Some((lag.step, lag.waits));
            (known, measured_at) = (lag.seconds, Instant::now());
            metrics::gauge!("prospectus_projection_position").set(lag.position);
            metrics::gauge!("prospectus_projection_lag_events").set(lag.events);
            metrics::gauge!("prospectus_projection_lag_seconds").set(lag.seconds);
        } else {
            // The projection itself logs what the database says.
            (client, driven) = (None, JoinSet::new());
            metrics::gauge!("prospectus_projection_lag_events").set(f64::NAN);
            metrics::gauge!("prospectus_projection_lag_seconds").set(known + measured_at.elapsed().as_secs_f64());
        }
        let stuck = watchdog.look(Instant::now(), seen);
        let stopped = state.stopped_at();
        metrics::gauge!("prospectus_projection_stuck").set(if stuck || stopped.is_some() { 1.0 } else { 0.0 });
        #[expect(clippy::cast_precision_loss, reason = "a figure")]
        metrics::gauge!("prospectus_projection_stopped_at_position").set(stopped.unwrap_or(0) as f64);
    }
}

async fn measure(database: &Database, client: &mut Option<Client>, driven: &mut JoinSet<()>) -> Result<Lag, Error> {
    const SQL: &str = "-- projector::lag::measure
        SELECT c.position::float8,
               greatest(coalesce((
                   SELECT e.position FROM log.events AS e ORDER BY e.position DESC LIMIT 1
               ), 0) - c.position, 0)::float8,
               greatest(extract(epoch FROM clock_timestamp() - (
                   SELECT e.recorded_at FROM log.events AS e WHERE e.position > c.position ORDER BY e.position LIMIT 1
               )), 0)::float8,
               c.step,
               EXISTS (SELECT FROM log.events AS e WHERE e.position > c.position)
                   OR EXISTS (SELECT FROM read.fanout AS f WHERE f.projection = $1 AND f.generation = c.generation)
        FROM (
            SELECT s.position, s.step, s.generation FROM read.live AS l JOIN read.checkpoint_steps AS s USING (projection, generation)
            WHERE l.projection = $1 ORDER BY s.step DESC LIMIT 1
        ) AS c";
    let client = match client {
        Some(client) => client,
        None => client.insert(connect(database, driven).await?),
    };
    let row = client.query_one(SQL, &[&COMPANY_PROSPECT]).await?;
    Ok(Lag { position: row.get(0), events: row.get(1), seconds: row.get(2), step: row.get(3), waits: row.get(4) })
}
