//! Receipts (decision 8): the first answer to an idempotency key, kept for seven days.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_postgres::Client;
use uuid::Uuid;

/// The answer to a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The record.
    pub id: Uuid,
    /// Its version after the change.
    pub version: i64,
    /// Position of the command's last event.
    pub position: i64,
    /// Name of the log's epoch.
    pub epoch: String,
    /// What else the command tells, never personal data: the id of a new social media entry, ...; `deleted_holder` is the record
    /// that held a claim of a new one before it was deleted.
    #[serde(flatten)]
    pub details: Map<String, Value>,
}

/// An answer as a receipt keeps it: its position stands in a column of its own, because it is known only where it is written.
#[derive(Debug, Serialize)]
pub(crate) struct KeptAnswer<'a> {
    id: Uuid,
    version: i64,
    epoch: &'a str,
    #[serde(flatten)]
    details: &'a Map<String, Value>,
}

/// The same, read back.
#[derive(Debug, Deserialize)]
pub(crate) struct FoundAnswer {
    id: Uuid,
    version: i64,
    epoch: String,
    #[serde(flatten)]
    details: Map<String, Value>,
}

impl Answer {
    pub(crate) fn kept<'a>(&'a self, epoch: &'a str) -> KeptAnswer<'a> {
        KeptAnswer { id: self.id, version: self.version, epoch, details: &self.details }
    }
}

impl FoundAnswer {
    pub(crate) fn at(self, position: i64) -> Answer {
        Answer { id: self.id, version: self.version, position, epoch: self.epoch, details: self.details }
    }
}

/// A receipt to leave.
#[derive(Debug, Clone)]
pub struct NewReceipt {
    /// The idempotency key as the client sent it, at most 255 characters.
    pub key: String,
    /// HMAC of the request under the tenant's key.
    pub request_hmac: [u8; 32],
}

/// Removes receipts older than seven days, a bounded number at a time; gives how many. Run now and then.
///
/// # Errors
/// What the database said.
pub async fn remove_expired(client: &Client) -> Result<u64, tokio_postgres::Error> {
    const SQL: &str = "-- event_store::receipt::remove_expired
        DELETE FROM log.receipts AS r
        USING (
            SELECT tenant_id, idempotency_key FROM log.receipts
            WHERE created_at < now() - interval '7 days'
            ORDER BY created_at LIMIT 1000
        ) AS expired
        WHERE r.tenant_id = expired.tenant_id AND r.idempotency_key = expired.idempotency_key";
    client.execute(SQL, &[]).await
}
