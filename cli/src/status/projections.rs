//! Every generation of every projection.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use projector::states::Generation;
use serde_json::{Value, json};
use tokio_postgres::{Client, Row};

use super::follower::Follower;

/// The newest rebuild or roll-back of each projection, as its row says.
pub(super) async fn rebuilds(client: &Client) -> anyhow::Result<Vec<Value>> {
    const SQL: &str = "-- cli::status::projections::rebuilds
        SELECT DISTINCT ON (r.projection) r.projection, r.kind, r.phase, r.done, r.total, r.attempts, r.outcome, r.error, r.generation,
               extract(epoch FROM clock_timestamp() - coalesce(r.finished_at, r.requested_at))::float8
        FROM read.rebuilds AS r ORDER BY r.projection, r.rebuild_id DESC";
    let rows = client.query(SQL, &[]).await.context("the rebuilds")?;
    let row = |row: &Row| {
        json!({
            "projection": row.get::<_, &str>(0), "kind": row.get::<_, &str>(1), "phase": row.get::<_, &str>(2),
            "done": row.get::<_, i64>(3), "total": row.get::<_, i64>(4), "attempts": row.get::<_, i32>(5),
            "outcome": row.get::<_, Option<&str>>(6), "error": row.get::<_, Option<&str>>(7),
            "generation": row.get::<_, Option<i32>>(8), "seconds_ago": row.get::<_, f64>(9),
        })
    };
    Ok(rows.iter().map(row).collect())
}

/// A line for one that is under way or has not ended well.
pub(super) fn rebuild_line(one: &Value) -> Option<String> {
    let of = |name: &str| one[name].as_str().unwrap_or_default();
    let (projection, kind) = (of("projection"), of("kind"));
    let ago = one["seconds_ago"].as_f64().unwrap_or(0.0);
    match one["outcome"].as_str() {
        Some("live") => None,
        Some(outcome) => Some(format!("{kind} of {projection}: {outcome} {ago:.0} s ago: {}\n", of("error"))),
        None => Some(format!(
            "{kind} of {projection}: {}, {} of {}, attempt {}, asked for {ago:.0} s ago\n",
            of("phase"),
            one["done"],
            one["total"],
            one["attempts"]
        )),
    }
}

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
