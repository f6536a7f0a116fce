//! The database server: who is connected, who holds its write-ahead log, what has been open for long, and the last backup.

use std::fmt::Write;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio_postgres::{Client, Row};

use crate::output::table;

/// Transactions that are shown at most, the oldest first.
const TRANSACTIONS_MAX: i64 = 10;

/// What the server does.
pub(super) struct Server {
    connections: Vec<Vec<Value>>,
    connections_max: i64,
    slots: Vec<Value>,
    transactions: Vec<Value>,
    backup: Value,
}

/// Looks at it; transactions that have been open for longer than `long` are shown.
pub(super) async fn look(client: &Client, long: Duration) -> anyhow::Result<Server> {
    const MAX: &str = "-- cli::status::server::look
        SELECT current_setting('max_connections')::bigint";
    Ok(Server {
        connections: connections(client).await?,
        connections_max: client.query_one(MAX, &[]).await.context("max_connections")?.get(0),
        slots: slots(client).await?,
        transactions: transactions(client, long).await?,
        backup: backup(client).await?,
    })
}

async fn connections(client: &Client) -> anyhow::Result<Vec<Vec<Value>>> {
    const SQL: &str = "-- cli::status::server::connections
        SELECT coalesce(a.usename, '-')::text, count(*), count(*) FILTER (WHERE a.state = 'active'),
               count(*) FILTER (WHERE a.state LIKE 'idle in transaction%'), count(*) FILTER (WHERE a.wait_event_type = 'Lock'),
               coalesce(max(extract(epoch FROM clock_timestamp() - a.xact_start)), 0)::float8
        FROM pg_stat_activity AS a
        WHERE a.backend_type = 'client backend' AND a.datname = current_database() AND a.pid <> pg_backend_pid()
        GROUP BY 1 ORDER BY 1";
    let rows = client.query(SQL, &[]).await.context("the connections")?;
    let row = |row: &Row| {
        vec![
            row.get::<_, &str>(0).into(),
            row.get::<_, i64>(1).into(),
            row.get::<_, i64>(2).into(),
            row.get::<_, i64>(3).into(),
            row.get::<_, i64>(4).into(),
            format!("{:.1}", row.get::<_, f64>(5)).into(),
        ]
    };
    Ok(rows.iter().map(row).collect())
}

async fn slots(client: &Client) -> anyhow::Result<Vec<Value>> {
    const SQL: &str = "-- cli::status::server::slots
        SELECT s.slot_name::text, s.slot_type, s.active, s.wal_status,
               pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint, s.safe_wal_size
        FROM pg_replication_slots AS s ORDER BY 1";
    let rows = client.query(SQL, &[]).await.context("the replication slots")?;
    let slot = |row: &Row| {
        json!({
            "name": row.get::<_, &str>(0), "type": row.get::<_, &str>(1), "active": row.get::<_, bool>(2),
            "wal_status": row.get::<_, Option<&str>>(3), "held_bytes": row.get::<_, Option<i64>>(4),
            "bytes_until_lost": row.get::<_, Option<i64>>(5),
        })
    };
    Ok(rows.iter().map(slot).collect())
}

/// Without their statements, which may hold values.
async fn transactions(client: &Client, long: Duration) -> anyhow::Result<Vec<Value>> {
    const SQL: &str = "-- cli::status::server::transactions
        SELECT t.pid, t.role, t.application, t.state, t.seconds FROM (
            SELECT a.pid::bigint, a.usename::text, a.application_name, a.state,
                   extract(epoch FROM clock_timestamp() - a.xact_start)::float8
            FROM pg_stat_activity AS a WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
            UNION ALL
            SELECT NULL, p.owner::text, p.gid, 'prepared', extract(epoch FROM clock_timestamp() - p.prepared)::float8
            FROM pg_prepared_xacts AS p
        ) AS t (pid, role, application, state, seconds)
        WHERE t.seconds >= $1 /* long */ ORDER BY t.seconds DESC LIMIT $2";
    let rows = client.query(SQL, &[&long.as_secs_f64(), &TRANSACTIONS_MAX]).await.context("the open transactions")?;
    let transaction = |row: &Row| {
        json!({
            "pid": row.get::<_, Option<i64>>(0), "role": row.get::<_, Option<&str>>(1),
            "application": row.get::<_, Option<&str>>(2), "state": row.get::<_, Option<&str>>(3), "seconds": row.get::<_, f64>(4),
        })
    };
    Ok(rows.iter().map(transaction).collect())
}

/// The last one that can be restored from; null where there is none.
async fn backup(client: &Client) -> anyhow::Result<Value> {
    const SQL: &str = "-- cli::status::server::backup
        SELECT b.label, b.kind, b.position, to_char(b.finished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
               extract(epoch FROM clock_timestamp() - b.finished_at)::float8
        FROM ops.backups AS b WHERE b.ok ORDER BY b.finished_at DESC LIMIT 1";
    let row = client.query_opt(SQL, &[]).await.context("the last backup")?;
    Ok(row.map_or(Value::Null, |row| {
        json!({
            "label": row.get::<_, &str>(0), "kind": row.get::<_, &str>(1), "position": row.get::<_, Option<i64>>(2),
            "finished_at": row.get::<_, &str>(3), "age_seconds": row.get::<_, f64>(4),
        })
    }))
}

impl Server {
    /// Slots whose write-ahead log is gone: who follows by them must be made anew.
    pub(super) fn lost(&self) -> Vec<String> {
        let lost = self.slots.iter().filter(|slot| slot["wal_status"] == "lost");
        lost.map(|slot| format!("replication slot {}", slot["name"].as_str().unwrap_or_default())).collect()
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "connections": self.connections.iter().map(|row| json!({
                "role": row[0], "total": row[1], "active": row[2], "idle_in_transaction": row[3], "waiting_for_a_lock": row[4],
                "oldest_transaction_seconds": row[5],
            })).collect::<Vec<_>>(),
            "connections_max": self.connections_max,
            "slots": self.slots,
            "long_transactions": self.transactions,
            "backup": self.backup,
        })
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for slot in &self.slots {
            let _ = writeln!(
                text,
                "slot {}: {}, holds {} bytes of the write-ahead log ({})",
                slot["name"].as_str().unwrap_or_default(),
                if slot["active"] == true { "active" } else { "NOT ACTIVE" },
                slot["held_bytes"],
                slot["wal_status"].as_str().unwrap_or("unknown"),
            );
        }
        for transaction in &self.transactions {
            let _ = writeln!(
                text,
                "a transaction of {} ({}) has been open for {:.0} s, pid {}: {}",
                transaction["role"].as_str().unwrap_or("-"),
                transaction["application"].as_str().unwrap_or_default(),
                transaction["seconds"].as_f64().unwrap_or(0.0),
                transaction["pid"],
                transaction["state"].as_str().unwrap_or_default(),
            );
        }
        match self.backup["age_seconds"].as_f64() {
            Some(age) => {
                let label = self.backup["label"].as_str().unwrap_or_default();
                let _ = writeln!(text, "last backup: {label}, {:.1} hours old", age / 3_600.0);
            }
            None => text.push_str("last backup: none was ever made (`prospectus backup`)\n"),
        }
        let _ = writeln!(text, "\nof {} connections at most:", self.connections_max);
        text.push_str(&table(
            &["connections of", "total", "active", "idle in transaction", "waiting for a lock", "oldest transaction s"],
            &self.connections,
        ));
        text
    }
}
