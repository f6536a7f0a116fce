//! The replicas: as the primary sees those that stream, and as those that were named see themselves.

use anyhow::Context;
use serde_json::{Value, json};
use service_kit::config::Secret;
use service_kit::postgres::Database;
use tokio_postgres::Client;

use super::Follower;

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
            Ok((position, more)) => Follower::at(primary, name, position, more).await?,
            Err(error) => Follower::unreachable(name, crate::output::describe(&error)),
        });
    }
    Ok(followers)
}

async fn ask(database: &Database) -> anyhow::Result<(i64, Value)> {
    const SQL: &str = "-- cli::status::replicas::ask
        SELECT h.position, h.epoch, pg_is_in_recovery() FROM log.head AS h";
    let row = database.client().await?.query_one(SQL, &[]).await?;
    Ok((row.get(0), json!({"epoch": row.get::<_, Option<&str>>(1), "in_recovery": row.get::<_, bool>(2)})))
}
