//! The replicas: as the primary sees those that stream, and as those that were named see themselves.

use anyhow::Context;
use serde_json::{Value, json};
use service_kit::config::Secret;
use service_kit::postgres::Database;
use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;

use super::follower::Follower;

/// Those that stream from the primary now.
pub(super) async fn streaming(client: &Client) -> anyhow::Result<Vec<Value>> {
    const SQL: &str = "-- cli::status::replicas::streaming
        SELECT r.application_name, r.state, r.sync_state,
               coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), r.replay_lsn), 0)::bigint,
               coalesce(extract(epoch FROM r.replay_lag), 0)::float8
        FROM pg_stat_replication AS r ORDER BY 1";
    let rows = client.query(SQL, &[]).await.context("pg_stat_replication")?;
    let json = |row: &tokio_postgres::Row| {
        json!({
            "name": row.get::<_, &str>(0), "state": row.get::<_, Option<&str>>(1), "sync_state": row.get::<_, Option<&str>>(2),
            "replay_lag_bytes": row.get::<_, i64>(3), "replay_lag_seconds": row.get::<_, f64>(4),
        })
    };
    Ok(rows.iter().map(json).collect())
}

/// Asks each replica how far its log is; lag is measured against the primary's log.
pub(super) async fn look(primary: &Client, urls: &[Secret]) -> anyhow::Result<Vec<Follower>> {
    let mut followers = Vec::new();
    for url in urls {
        let database = Database::parse(url.expose(), "prospectus")?;
        let name = format!("replica {}", database.name());
        followers.push(match ask(&database).await {
            Ok(replayed) => {
                let more = json!({
                    "epoch": replayed.epoch, "in_recovery": replayed.wal.is_some(),
                    "replay_lag_bytes": behind_bytes(primary, replayed.wal).await?,
                    "last_replayed_seconds_ago": replayed.seconds_ago,
                });
                Follower::at(primary, name, replayed.position, None, more).await?
            }
            Err(error) => Follower::unreachable(name, crate::output::describe(&error)),
        });
    }
    Ok(followers)
}

/// How far a replica has replayed.
struct Replayed {
    position: i64,
    epoch: Option<String>,
    /// None where it is no replica.
    wal: Option<PgLsn>,
    /// How long ago the transaction that it replayed last was committed.
    seconds_ago: Option<f64>,
}

async fn ask(database: &Database) -> anyhow::Result<Replayed> {
    const SQL: &str = "-- cli::status::replicas::ask
        SELECT h.position, h.epoch, CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END,
               CASE WHEN pg_is_in_recovery() THEN extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END::float8
        FROM log.head AS h";
    let row = database.client().await?.query_one(SQL, &[]).await?;
    Ok(Replayed { position: row.get(0), epoch: row.get(1), wal: row.get(2), seconds_ago: row.get(3) })
}

/// How much of the primary's write-ahead log is not replayed at this place.
async fn behind_bytes(primary: &Client, replayed: Option<PgLsn>) -> anyhow::Result<Option<i64>> {
    const SQL: &str = "-- cli::status::replicas::behind_bytes
        SELECT greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), $1 /* replayed */), 0)::bigint";
    let Some(replayed) = replayed else { return Ok(None) };
    Ok(Some(primary.query_one(SQL, &[&replayed]).await.context("the primary's write-ahead log")?.get(0)))
}
