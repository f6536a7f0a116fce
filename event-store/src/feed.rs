//! The log in order, from any position, on the primary or a replica. Positions are dense and in commit order, so the whole
//! protocol is: next = last + 1.

use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::TryStreamExt as _;
use service_kit::postgres::Database;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use crate::epoch::Epoch;
use crate::event::StoredEvent;

/// Bytes of payloads and metadata that a page holds at most, if it has more than one event.
pub const PAGE_BYTES_MAX: usize = 8 << 20;

/// Reads the log over a connection of its own. The role must be one that sees all tenants.
pub struct Feed {
    client: Client,
    page: Statement,
    /// Rows that are asked for at most: what a page has no room for is sent all the same.
    rows_max: AtomicI64,
}

/// Why the feed cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The database said no, or is away.
    #[error("the log cannot be read: {}", service_kit::postgres::describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// A position is missing: this is not a log of ours, or somebody has taken events out.
    #[error("the log has a hole: position {0} is missing")]
    Hole(i64),
}

/// Where the log stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Highest position; 0 where the log is empty.
    pub position: i64,
    /// Newest epoch; none before the first append.
    pub epoch: Option<Epoch>,
}

impl Feed {
    /// Connects.
    ///
    /// # Errors
    /// What the server or the network said.
    pub async fn open(database: &Database) -> Result<Self, FeedError> {
        Self::over(database.client().await?).await
    }

    /// Reads over a connection that is there already.
    ///
    /// # Errors
    /// What the server or the network said.
    pub async fn over(client: Client) -> Result<Self, FeedError> {
        const PAGE: &str = "-- event_store::feed::page
            SELECT e.position, e.tenant_id, e.aggregate_type, e.aggregate_id, e.sequence, e.event_id, e.event_type,
                   e.event_version, e.payload, e.metadata, e.recorded_at
            FROM log.events AS e WHERE e.position > $1 ORDER BY e.position LIMIT $2";
        // Prepared on an empty table the plan could be a scan; the index is always right.
        client.batch_execute("SET enable_seqscan = off; SET enable_sort = off").await?;
        let page = client.prepare(PAGE).await?;
        Ok(Self { client, page, rows_max: AtomicI64::new(i64::MAX) })
    }

    /// The events after a position, in order, at most `events_max` and, but for the first, [`PAGE_BYTES_MAX`]; none beyond a hole. Only
    /// a page without any says that there are none yet.
    ///
    /// # Errors
    /// If the database is away, or the log has a hole right after the position.
    pub async fn after(&self, position: i64, events_max: i64) -> Result<Vec<StoredEvent>, FeedError> {
        let rows_max = self.rows_max.load(Ordering::Relaxed);
        let parameters: [&(dyn ToSql + Sync); 2] = [&position, &rows_max.min(events_max)];
        let mut rows = pin!(self.client.query_raw(&self.page, parameters).await?);
        let mut events: Vec<StoredEvent> = Vec::new();
        let mut bytes = 0;
        for expected in position + 1.. {
            let Some(row) = rows.try_next().await? else { break };
            let event = StoredEvent::from_row(&row)?;
            if event.position != expected {
                // What is before the hole is as good as ever; who asks for more hears of the hole.
                if events.is_empty() {
                    return Err(FeedError::Hole(expected));
                }
                break;
            }
            bytes += event.payload.len() + event.metadata.len();
            if bytes > PAGE_BYTES_MAX && !events.is_empty() {
                self.rows_max.store(expected - position - 1, Ordering::Relaxed);
                return Ok(events);
            }
            events.push(event);
        }
        self.rows_max.store(rows_max.saturating_mul(2), Ordering::Relaxed);
        Ok(events)
    }

    /// Where the log stands.
    ///
    /// # Errors
    /// What the database said.
    pub async fn head(&self) -> Result<Head, FeedError> {
        const SQL: &str = "-- event_store::feed::head
            SELECT coalesce((SELECT position FROM log.events ORDER BY position DESC LIMIT 1), 0)";
        let position = self.client.query_one(SQL, &[]).await?.get(0);
        Ok(Head { position, epoch: Epoch::newest(&self.client).await? })
    }

    /// The connection, for what is read beside the log (keys).
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}
