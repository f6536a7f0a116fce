//! The log, as the primary sees it.

use anyhow::Context;
use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

/// Where the log is.
pub(super) struct Head {
    log_id: Uuid,
    epoch: Option<String>,
    position: i64,
}

impl Head {
    pub(super) fn to_json(&self) -> Value {
        json!({"log_id": self.log_id, "epoch": self.epoch, "position": self.position})
    }

    pub(super) fn to_text(&self) -> String {
        let epoch = self.epoch.as_deref().unwrap_or("none yet");
        format!("log {}: position {}, epoch {epoch}", self.log_id, self.position)
    }
}

/// The log's head.
pub(super) async fn head(client: &Client) -> anyhow::Result<Head> {
    const SQL: &str = "-- cli::status::log::head
        SELECT h.log_id, h.epoch, h.position FROM log.head AS h";
    let row = client.query_one(SQL, &[]).await.context("the log's head")?;
    Ok(Head { log_id: row.get(0), epoch: row.get(1), position: row.get(2) })
}
