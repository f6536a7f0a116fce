//! Where the server's time and room go: slow statements, tables with their bloat, and indexes.

use std::fmt::Write;

use anyhow::Context;
use serde_json::{Value, json};
use tokio_postgres::{Client, Row};

use crate::output::table;

/// Statements that are shown, those that took most time first.
const STATEMENTS_MAX: i64 = 20;
/// Tables that are shown, the largest first.
const TABLES_MAX: i64 = 50;

/// Where time and room go.
pub(super) struct Performance {
    /// None where the extension that counts is not there, and why.
    statements: Result<Vec<Vec<Value>>, String>,
    tables: Vec<Vec<Value>>,
}

const STATEMENT_COLUMNS: &[&str] =
    &["statement", "calls", "total_ms", "mean_ms", "max_ms", "rows", "cache_hit_percent"];
const TABLE_COLUMNS: &[&str] = &[
    "table",
    "rows",
    "table_bytes",
    "index_bytes",
    "bloat_estimate_bytes",
    "dead_rows",
    "scans_whole",
    "scans_by_index",
    "vacuumed",
];

/// Looks at them.
pub(super) async fn look(client: &Client) -> anyhow::Result<Performance> {
    Ok(Performance { statements: statements(client).await?, tables: tables(client).await? })
}

async fn statements(client: &Client) -> anyhow::Result<Result<Vec<Vec<Value>>, String>> {
    const THERE: &str = "-- cli::status::performance::statements, there
        SELECT EXISTS (SELECT FROM pg_extension AS e WHERE e.extname = 'pg_stat_statements')";
    // Our statements say in their first line where they stand; of others the beginning tells enough.
    const SQL: &str = "-- cli::status::performance::statements
        SELECT left(CASE WHEN s.query LIKE '-- %' THEN substr(split_part(s.query, E'\\n', 1), 4)
                         ELSE regexp_replace(s.query, '\\s+', ' ', 'g') END, 90),
               s.calls, s.total_exec_time, s.mean_exec_time, s.max_exec_time, s.rows,
               (100.0 * s.shared_blks_hit / nullif(s.shared_blks_hit + s.shared_blks_read, 0))::float8
        FROM pg_stat_statements AS s
        WHERE s.dbid = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
        ORDER BY s.total_exec_time DESC LIMIT $1";
    if !client.query_one(THERE, &[]).await.context("the extensions")?.get::<_, bool>(0) {
        return Ok(Err("the extension pg_stat_statements is not there: add it to shared_preload_libraries, start the server again, and \
                       CREATE EXTENSION pg_stat_statements"
            .to_owned()));
    }
    match client.query(SQL, &[&STATEMENTS_MAX]).await {
        Ok(rows) => Ok(Ok(rows.iter().map(statement).collect())),
        // It is there and not loaded.
        Err(error) => Ok(Err(format!("pg_stat_statements: {}", service_kit::postgres::describe(&error)))),
    }
}

fn statement(row: &Row) -> Vec<Value> {
    let milliseconds = |index: usize| Value::from((row.get::<_, f64>(index) * 1_000.0).round() / 1_000.0);
    vec![
        row.get::<_, &str>(0).into(),
        row.get::<_, i64>(1).into(),
        milliseconds(2),
        milliseconds(3),
        milliseconds(4),
        row.get::<_, i64>(5).into(),
        row.get::<_, Option<f64>>(6).map(f64::round).into(),
    ]
}

/// Bloat is an estimate: what the table takes beyond its rows at the widths that ANALYZE found, by the planner's statistics.
async fn tables(client: &Client) -> anyhow::Result<Vec<Vec<Value>>> {
    const SQL: &str = "-- cli::status::performance::tables
        SELECT format('%I.%I', n.nspname, c.relname), greatest(c.reltuples, 0)::bigint, pg_table_size(c.oid), pg_indexes_size(c.oid),
               CASE WHEN c.reltuples > 0 THEN greatest(
                   pg_relation_size(c.oid)
                   - ceil(c.reltuples * (24 + 4 + coalesce(w.width, 0)) / (current_setting('block_size')::numeric - 24))
                     * current_setting('block_size')::numeric, 0)::bigint END,
               coalesce(s.n_dead_tup, 0), coalesce(s.seq_scan, 0), coalesce(s.idx_scan, 0),
               to_char(greatest(s.last_vacuum, s.last_autovacuum) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
        FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        LEFT JOIN pg_stat_user_tables AS s ON s.relid = c.oid
        LEFT JOIN LATERAL (
            SELECT sum((1 - p.null_frac) * p.avg_width)::numeric AS width FROM pg_stats AS p
            WHERE p.schemaname = n.nspname AND p.tablename = c.relname
        ) AS w ON true
        WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
        ORDER BY pg_total_relation_size(c.oid) DESC NULLS LAST LIMIT $1";
    let rows = client.query(SQL, &[&TABLES_MAX]).await.context("the tables")?;
    let row = |row: &Row| {
        let mut cells = vec![Value::from(row.get::<_, &str>(0))];
        cells.extend((1..=7).map(|index| Value::from(row.get::<_, Option<i64>>(index))));
        cells.push(row.get::<_, Option<&str>>(8).into());
        cells
    };
    Ok(rows.iter().map(row).collect())
}

fn objects(columns: &[&str], rows: &[Vec<Value>]) -> Value {
    let object = |row: &Vec<Value>| -> Value {
        columns
            .iter()
            .map(|column| (*column).to_owned())
            .zip(row.iter().cloned())
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    rows.iter().map(object).collect()
}

impl Performance {
    pub(super) fn to_json(&self) -> Value {
        let (statements, note) = match &self.statements {
            Ok(statements) => (objects(STATEMENT_COLUMNS, statements), None),
            Err(note) => (Value::Null, Some(note)),
        };
        json!({"statements": statements, "statements_note": note, "tables": objects(TABLE_COLUMNS, &self.tables)})
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = String::from("\n");
        match &self.statements {
            Ok(statements) => text.push_str(&table(STATEMENT_COLUMNS, statements)),
            Err(note) => {
                let _ = writeln!(text, "slow statements: {note}");
            }
        }
        text.push('\n');
        text.push_str(&table(TABLE_COLUMNS, &self.tables));
        text.push_str(
            "bloat is an estimate from the planner's statistics; indexes one by one: prospectus schema indexes\n",
        );
        text
    }
}
