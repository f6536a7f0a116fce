//! The list of erased persons: read in the order of their events, by those who must forget what they keep and those who keep the list
//! outside the database.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

/// Most erasures that are read at a time.
pub const PAGE: i64 = 1_000;
/// How long it is told again of an erasure: longer than any command that may have loaded the person before it takes
/// to keep what it loaded.
const TOLD_AGAIN: Duration = Duration::from_secs(150);

/// An erased person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// Whose person.
    pub tenant_id: Uuid,
    /// The record.
    pub person_id: Uuid,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub erased_at: OffsetDateTime,
    /// The event that says so.
    pub position: i64,
}

impl Erasure {
    fn from_row(row: &Row) -> Self {
        Self { tenant_id: row.get(0), person_id: row.get(1), erased_at: row.get(2), position: row.get(3) }
    }
}

/// The erasures after a position, in order, at most [`PAGE`].
///
/// # Errors
/// What the database said.
pub async fn after(client: &Client, position: i64) -> Result<Vec<Erasure>, tokio_postgres::Error> {
    const SQL: &str = "-- event_store::erasures::after
        SELECT tenant_id, person_id, erased_at, position FROM log.erasures WHERE position > $1 ORDER BY position LIMIT $2";
    Ok(client.query(SQL, &[&position, &PAGE]).await?.iter().map(Erasure::from_row).collect())
}

/// An erasure as it is kept outside the database: one line of JSON, and nothing personal in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptErasure {
    /// Who, when, and which event.
    #[serde(flatten)]
    pub erasure: Erasure,
    /// Number of the log's epoch when it was written down.
    pub epoch: i64,
}

/// How far somebody has read the list, and in which life of the log: another life may have used the same positions again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The last erasure that was read; 0 for none.
    pub position: i64,
    /// Number of the newest epoch then; 0 where it is not known.
    pub epoch: i64,
}

impl Place {
    /// The end of the list.
    ///
    /// # Errors
    /// What the database said.
    pub async fn end(client: &Client) -> Result<Self, tokio_postgres::Error> {
        const SQL: &str = "-- event_store::erasures::end
            SELECT coalesce((SELECT position FROM log.erasures ORDER BY position DESC LIMIT 1), 0),
                   coalesce((SELECT number FROM log.epochs ORDER BY number DESC LIMIT 1), 0)";
        let row = client.query_one(SQL, &[]).await?;
        Ok(Self { position: row.get(0), epoch: row.get(1) })
    }

    /// What comes next, at most [`PAGE`], and the place after it. Where the log has begun another life since, it goes back to where that one
    /// parted; where the list is shorter than it was, a backup was brought back, and it begins again.
    ///
    /// # Errors
    /// What the database said.
    pub async fn next(mut self, client: &Client) -> Result<(Vec<Erasure>, Self), tokio_postgres::Error> {
        const LIVES: &str = "-- event_store::erasures::next
            SELECT max(number), min(first_position),
                   coalesce((SELECT position FROM log.erasures ORDER BY position DESC LIMIT 1), 0)
            FROM log.epochs WHERE number > $1";
        let row = client.query_one(LIVES, &[&self.epoch]).await?;
        if let (Some(epoch), Some(first)) = (row.get::<_, Option<i64>>(0), row.get::<_, Option<i64>>(1)) {
            self = Self { position: self.position.min(first - 1), epoch };
        }
        if row.get::<_, i64>(2) < self.position {
            self.position = 0;
        }
        let found = after(client, self.position).await?;
        self.position = found.last().map_or(self.position, |last| last.position);
        Ok((found, self))
    }
}

/// Follows the list: what is in it when following begins is known, whatever comes is told, and told again for a while, because a command that
/// was under way may still keep what it loaded before.
#[derive(Debug)]
pub struct Follower {
    place: Place,
    recent: VecDeque<(Instant, Uuid, Uuid)>,
}

impl Follower {
    /// Begins at the end of the list.
    ///
    /// # Errors
    /// What the database said.
    pub async fn begin(client: &Client) -> Result<Self, tokio_postgres::Error> {
        Ok(Self { place: Place::end(client).await?, recent: VecDeque::new() })
    }

    /// Whom to forget: (tenant, person).
    ///
    /// # Errors
    /// What the database said; nothing is lost by it.
    pub async fn look(&mut self, client: &Client) -> Result<HashSet<(Uuid, Uuid)>, tokio_postgres::Error> {
        let now = Instant::now();
        while self.recent.front().is_some_and(|(told, ..)| now.duration_since(*told) > TOLD_AGAIN) {
            self.recent.pop_front();
        }
        loop {
            let (found, place) = self.place.next(client).await?;
            self.place = place;
            if found.is_empty() {
                return Ok(self.recent.iter().map(|(_, tenant, person)| (*tenant, *person)).collect());
            }
            self.recent.extend(found.iter().map(|erasure| (now, erasure.tenant_id, erasure.person_id)));
        }
    }
}
