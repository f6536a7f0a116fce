//! Where each generation of each projection is, and what that means: one judgement for everybody who shows it.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::{Error, Row};

/// An event that waits no longer than this is no lag worth a word, in seconds.
const LIVE_LAG_SECONDS: f64 = 5.0;

/// What a generation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// It serves reads and shows everything.
    Live,
    /// It serves reads, and events wait that it takes in one after the other.
    CatchingUp,
    /// It is being built beside the live one, or caught up to be live again.
    Rebuilding,
    /// It was live before and is kept for a roll-back, or nobody needs it any more.
    Paused,
    /// It has stopped at an event that cannot be applied, or done nothing for a while although something waits; or nobody goes on
    /// with building it.
    Stuck,
}

impl Doing {
    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::CatchingUp => "catching_up",
            Self::Rebuilding => "rebuilding",
            Self::Paused => "paused",
            Self::Stuck => "stuck",
        }
    }
}

/// The last error of a generation, as everybody may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// The event that could not be applied; none where the error was not an event's.
    pub position: Option<i64>,
    /// A stable name for why.
    pub reason: String,
    /// When it was met first.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Whether the generation still stands there.
    pub stands: bool,
}

/// How far one generation is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generation {
    /// Which projection.
    pub projection: String,
    /// Which generation of it.
    pub generation: i32,
    /// What it does.
    pub state: Doing,
    /// Every event up to here shows in all rows.
    pub position: i64,
    /// Every event up to here is taken in, but changes of companies may still be on their way to their prospects.
    pub applied_position: i64,
    /// The log's head.
    pub head: i64,
    /// Events that do not show everywhere.
    pub lag_events: i64,
    /// Age of the oldest of them.
    pub lag_seconds: f64,
    /// Events a second that it took in between the first and the last step of the last minute; 0 where there was none.
    pub events_per_second: f64,
    /// Companies whose change is on its way.
    pub queued_companies: i64,
    /// Its last error.
    pub last_error: Option<LastError>,
    /// The live generation.
    #[serde(skip)]
    pub live: Option<i32>,
    /// Epoch of its last step; empty before the first.
    #[serde(skip)]
    pub epoch: String,
}

impl Generation {
    /// All of them, on the primary or a replica; for a role that may execute `read.projection_states`.
    pub const SQL: &str = "-- projector::states
        SELECT s.projection, s.generation, s.live_generation, s.complete_position, s.applied_position, s.epoch, h.position,
               coalesce(greatest(extract(epoch FROM clock_timestamp() - s.waits_since), 0), 0)::float8,
               extract(epoch FROM clock_timestamp() - s.stepped_at)::float8,
               s.queued, s.events_per_second, s.error_position, s.error_reason, s.error_at, s.error_stands,
               extract(epoch FROM clock_timestamp() - s.rebuilding_at)::float8
        FROM read.projection_states() AS s CROSS JOIN log.head AS h
        ORDER BY s.projection, s.generation";

    /// Reads a row of [`Generation::SQL`]; what has done nothing for `stuck_after` although something waits is stuck.
    ///
    /// # Errors
    /// If it is a row of something else.
    pub fn from_row(row: &Row, stuck_after: Duration) -> Result<Self, Error> {
        let (generation, live): (i32, Option<i32>) = (row.try_get(1)?, row.try_get(2)?);
        let (position, applied_position, head): (i64, i64, i64) = (row.try_get(3)?, row.try_get(4)?, row.try_get(6)?);
        let (lag_seconds, since_step): (f64, f64) = (row.try_get(7)?, row.try_get(8)?);
        let stands: bool = row.try_get(14)?;
        let since_beat: Option<f64> = row.try_get(15)?;
        let last_error = match row.try_get::<_, Option<String>>(12)? {
            Some(reason) => Some(LastError { position: row.try_get(11)?, reason, at: row.try_get(13)?, stands }),
            None => None,
        };
        let stuck_after = stuck_after.as_secs_f64();
        let state = match live {
            _ if stands && (live == Some(generation) || since_beat.is_some()) => Doing::Stuck,
            Some(live) if generation == live => {
                let waits = position < head;
                if applied_position > head || (waits && lag_seconds >= stuck_after && since_step >= stuck_after) {
                    Doing::Stuck
                } else if waits && lag_seconds >= LIVE_LAG_SECONDS {
                    Doing::CatchingUp
                } else {
                    Doing::Live
                }
            }
            // How long a rebuild takes without a checkpoint is its own affair, as long as somebody is at it.
            _ => match since_beat {
                Some(seconds) if seconds >= stuck_after => Doing::Stuck,
                Some(_) => Doing::Rebuilding,
                None => Doing::Paused,
            },
        };
        Ok(Self {
            projection: row.try_get(0)?,
            generation,
            state,
            position,
            applied_position,
            head,
            lag_events: (head - position).max(0),
            lag_seconds,
            events_per_second: row.try_get(10)?,
            queued_companies: row.try_get(9)?,
            last_error,
            live,
            epoch: row.try_get(5)?,
        })
    }
}
