//! The log and what is projected from it, as the primary sees them.

use anyhow::Context;
use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use super::Follower;

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

/// Every generation of every projection, by its complete position: nothing is queued at or below it.
pub(super) async fn projections(client: &Client) -> anyhow::Result<Vec<Follower>> {
    const SQL: &str = "-- cli::status::log::projections
        SELECT c.projection, c.generation, c.position, c.epoch, l.generation IS NOT NULL,
               least(c.position, coalesce(min(f.position) - 1, c.position)), count(f.company_id)
        FROM read.checkpoints AS c
        LEFT JOIN read.live AS l ON l.projection = c.projection AND l.generation = c.generation
        LEFT JOIN read.fanout AS f ON f.projection = c.projection AND f.generation = c.generation
        GROUP BY 1, 2, 3, 4, 5
        ORDER BY 1, 2";
    let mut followers = Vec::new();
    for row in client.query(SQL, &[]).await.context("the projections")? {
        let (projection, generation): (&str, i32) = (row.get(0), row.get(1));
        let live: bool = row.get(4);
        // A previous generation stays where it was, for a roll-back: that is no trouble.
        let name = format!("projection {projection} ({}generation {generation})", if live { "" } else { "not live, " });
        let more = json!({
            "projection": projection, "generation": generation, "live": live, "applied_position": row.get::<_, i64>(2),
            "epoch": row.get::<_, &str>(3), "queued_companies": row.get::<_, i64>(6),
        });
        let mut follower = Follower::at(client, name, row.get(5), more).await?;
        if !live {
            follower.lag_seconds = 0.0;
        }
        followers.push(follower);
    }
    Ok(followers)
}
