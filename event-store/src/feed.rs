//! The log in order, from any position, on the primary or a replica. Positions are dense and in commit order, so the whole
//! protocol is: next = last + 1.

use service_kit::postgres::Database;
use tokio_postgres::{Client, Statement};

use crate::epoch::Epoch;
use crate::event::StoredEvent;

/// Reads the log over a connection of its own. The role must be one that sees all tenants.
pub struct Feed {
    client: Client,
    page: Statement,
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
        Ok(Self { client, page })
    }

    /// The events after a position, in order, at most `events_max` and none beyond a hole; none if there are none yet.
    ///
    /// # Errors
    /// If the database is away, or the log has a hole right after the position.
    pub async fn after(&self, position: i64, events_max: i64) -> Result<Vec<StoredEvent>, FeedError> {
        let rows = self.client.query(&self.page, &[&position, &events_max]).await?;
        let mut events = Vec::with_capacity(rows.len());
        for (row, expected) in rows.iter().zip(position + 1..) {
            let event = StoredEvent::from_row(row)?;
            if event.position != expected {
                // What is before the hole is as good as ever; who asks for more hears of the hole.
                if events.is_empty() {
                    return Err(FeedError::Hole(expected));
                }
                break;
            }
            events.push(event);
        }
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
