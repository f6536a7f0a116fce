//! Events as the log holds them, and as they are handed to it.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::json_text::JsonText;

/// One row of `log.events`. `payload` and `metadata` are the stored bytes, untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Place in the log: dense, in commit order.
    pub position: i64,
    /// Whose record it is.
    pub tenant_id: Uuid,
    /// `company`, `prospect`, ...
    pub aggregate_type: String,
    /// Which record.
    pub aggregate_id: Uuid,
    /// The record's version after this event.
    pub sequence: i64,
    /// Made before the append.
    pub event_id: Uuid,
    /// Name of the event.
    pub event_type: String,
    /// Version of the payload's form.
    pub event_version: i16,
    /// JSON text.
    pub payload: String,
    /// JSON text, see [`Metadata`].
    pub metadata: String,
    /// When it was appended; never runs backwards along positions.
    pub recorded_at: OffsetDateTime,
}

impl StoredEvent {
    /// The columns that [`StoredEvent::from_row`] reads, in its order, for use in a query whose table has the alias `e`.
    pub const COLUMNS: &'static str = "e.position, e.tenant_id, e.aggregate_type, e.aggregate_id, e.sequence, e.event_id, \
         e.event_type, e.event_version, e.payload, e.metadata, e.recorded_at";

    /// Reads a row of [`StoredEvent::COLUMNS`].
    ///
    /// # Errors
    /// If the row has other columns.
    pub fn from_row(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            position: row.try_get(0)?,
            tenant_id: row.try_get(1)?,
            aggregate_type: row.try_get(2)?,
            aggregate_id: row.try_get(3)?,
            sequence: row.try_get(4)?,
            event_id: row.try_get(5)?,
            event_type: row.try_get(6)?,
            event_version: row.try_get(7)?,
            payload: row.try_get::<_, JsonText<'_>>(8)?.0.to_owned(),
            metadata: row.try_get::<_, JsonText<'_>>(9)?.0.to_owned(),
            recorded_at: row.try_get(10)?,
        })
    }
}

/// Who did it, why and from where: on every event, as a flat JSON object of strings (the form that cqrs-es reads too).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// `key:<prefix>`, `import:<id>`, `operator`, ...
    pub actor: String,
    /// Role that the actor acted in.
    pub actor_role: String,
    /// What belongs together across requests; the request's id where the client names nothing.
    pub correlation_id: String,
    /// What this was a consequence of, where the client names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// The request, as in `X-Request-Id` and the log lines.
    pub request_id: String,
    /// Which system the data came from.
    pub source: String,
    /// Address of the client's end of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_address: Option<String>,
}
