//! The sealer, by the newest head that it has signed.

use anyhow::Context;
use serde_json::json;
use tokio_postgres::Client;

use super::follower::Follower;

/// How far the log is sealed; nothing where it never was, and nobody is connected to do it.
pub(super) async fn look(primary: &Client) -> anyhow::Result<Option<Follower>> {
    const SQL: &str = "-- cli::status::sealer::look
        SELECT h.tree_size, h.number, extract(epoch FROM clock_timestamp() - h.signed_at)::float8,
               (SELECT count(*) FROM pg_stat_activity AS a
                WHERE a.usename = 'prospectus_sealer' AND a.datname = current_database())
        FROM (VALUES (1)) AS one
        LEFT JOIN LATERAL (SELECT * FROM log.tree_heads AS t ORDER BY t.number DESC LIMIT 1) AS h ON true";
    let row = primary.query_one(SQL, &[]).await.context("the newest head")?;
    let (size, connections): (Option<i64>, i64) = (row.get(0), row.get(3));
    if size.is_none() && connections == 0 {
        return Ok(None);
    }
    let more = json!({"heads": row.get::<_, Option<i64>>(1).unwrap_or(0), "sealer_connections": connections});
    Follower::at(primary, "sealer".to_owned(), size.unwrap_or(0), row.get(2), more).await.map(Some)
}
