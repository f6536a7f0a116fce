//! Every generation of every projection.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use projector::states::Generation;
use serde_json::json;
use tokio_postgres::Client;

use super::follower::Follower;

/// Every generation, by its complete position: nothing is queued at or below it.
pub(super) async fn look(client: &Client, stuck_after: Duration) -> anyhow::Result<Vec<Follower>> {
    const ERRORS: &str = "-- cli::status::projections::look, errors
        SELECT x.projection, x.generation, x.error FROM read.projection_errors AS x";
    let errors = client.query(ERRORS, &[]).await.context("the projections' errors")?;
    let errors: HashMap<(String, i32), String> =
        errors.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect();
    let mut followers = Vec::new();
    for row in client.query(Generation::SQL, &[]).await.context("the projections")? {
        let one = Generation::from_row(&row, stuck_after)?;
        let live = one.live == Some(one.generation);
        let mut more = json!({
            "projection": one.projection, "generation": one.generation, "live": live, "applied_position": one.applied_position,
            "epoch": one.epoch, "queued_companies": one.queued_companies, "last_error": one.last_error,
        });
        if let (Some(_), Some(error)) = (&one.last_error, errors.get(&(one.projection.clone(), one.generation))) {
            more["last_error"]["error"] = error.as_str().into();
        }
        followers.push(Follower {
            name: format!(
                "projection {} ({}generation {})",
                one.projection,
                if live { "" } else { "not live, " },
                one.generation
            ),
            position: Ok(one.position),
            lag_events: if one.applied_position > one.head { one.head - one.applied_position } else { one.lag_events },
            // A previous generation stays where it was: that is no trouble.
            lag_seconds: if live { one.lag_seconds } else { 0.0 },
            idle_seconds: None,
            state: Some(one.state.name()),
            events_per_second: Some(one.events_per_second),
            more,
        });
    }
    Ok(followers)
}
