//! Whether indexes are worth their room: by what the servers have counted, and by what they are made of.

use std::collections::HashMap;
use std::fmt::Write;

use anyhow::Context as _;
use serde_json::{Value, json};
use service_kit::config::Secret;
use service_kit::postgres::Database;
use tokio_postgres::{Client, Row};

use crate::output::Output;
use crate::output::table;
use crate::primary::Primary;

/// An index that is looked at.
struct Index {
    name: String,
    table: String,
    bytes: i64,
    scans: i64,
    /// It keeps a promise, and so is used by every write.
    is_constraint: bool,
    /// What it is made of: columns in order, and everything else that makes it another one.
    columns: Vec<String>,
    rest: String,
}

const UNUSED: &[&str] = &["unused index", "of", "bytes"];
const SUPERFLUOUS: &[&str] = &["superfluous index", "bytes", "because of"];
const MISSING: &[&str] = &["maybe missing on", "columns", "why"];

/// Runs the command.
///
/// # Errors
/// If a server cannot be asked.
pub(super) async fn run(primary: &Primary, replica_urls: &[Secret]) -> anyhow::Result<Output> {
    let client = primary.connect_migrated().await?;
    let mut indexes = indexes(&client).await?;
    let mut since = vec![counted_since(&client, "primary").await?];
    for url in replica_urls {
        let database = Database::parse(url.expose(), "prospectus")?;
        let replica = database.client().await.with_context(|| format!("the replica {}", database.name()))?;
        let scans = scans(&replica).await?;
        for index in &mut indexes {
            index.scans += scans.get(&index.name).copied().unwrap_or(0);
        }
        since.push(counted_since(&replica, &database.name()).await?);
    }
    let unused = unused(&indexes);
    let superfluous = superfluous(&indexes);
    let missing = missing(&client).await?;
    let mut text = String::new();
    for (columns, rows) in [(UNUSED, &unused), (SUPERFLUOUS, &superfluous), (MISSING, &missing)] {
        if rows.is_empty() {
            let _ = writeln!(text, "{}: none", columns[0]);
        } else {
            text.push_str(&table(columns, rows));
        }
        text.push('\n');
    }
    for server in &since {
        let _ = writeln!(text, "{server}");
    }
    if replica_urls.is_empty() {
        text.push_str("no replica was asked: what only they use counts as unused (PROSPECTUS_REPLICA_URLS)\n");
    }
    let objects = |columns: &[&str], rows: &[Vec<Value>]| -> Value {
        let object = |row: &Vec<Value>| -> Value {
            let names = columns.iter().map(|column| column.replace(' ', "_"));
            names.zip(row.iter().cloned()).collect::<serde_json::Map<_, _>>().into()
        };
        rows.iter().map(object).collect()
    };
    let json = json!({
        "unused": objects(&["index", "table", "bytes"], &unused),
        "superfluous": objects(&["index", "bytes", "because_of"], &superfluous),
        "missing": objects(&["table", "columns", "why"], &missing),
        "counted_since": since,
    });
    Ok(Output::new(json, text))
}

async fn indexes(client: &Client) -> anyhow::Result<Vec<Index>> {
    const SQL: &str = "-- cli::schema::indexes
        SELECT format('%I.%I', n.nspname, x.relname), format('%I.%I', n.nspname, t.relname), coalesce(pg_relation_size(x.oid), 0),
               coalesce(s.idx_scan, 0),
               i.indisunique OR i.indisexclusion OR EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = x.oid AND k.contype = 'f'),
               ARRAY(SELECT pg_get_indexdef(x.oid, k::integer, true) || ' ' || c.opc || ' ' || o.way
                     FROM generate_series(1, i.indnkeyatts) AS k
                     CROSS JOIN LATERAL (SELECT (i.indclass::oid[])[k - 1]::text AS opc) AS c
                     CROSS JOIN LATERAL (SELECT coalesce((i.indoption::int2[])[k - 1], 0)::text AS way) AS o ORDER BY k),
               format('%s where %s include %s', m.amname, coalesce(pg_get_expr(i.indpred, i.indrelid), '-'), i.indnatts - i.indnkeyatts)
        FROM pg_index AS i
        JOIN pg_class AS x ON x.oid = i.indexrelid JOIN pg_class AS t ON t.oid = i.indrelid
        JOIN pg_namespace AS n ON n.oid = x.relnamespace JOIN pg_am AS m ON m.oid = x.relam
        LEFT JOIN pg_stat_user_indexes AS s ON s.indexrelid = x.oid
        WHERE n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
        ORDER BY 1";
    let rows = client.query(SQL, &[]).await.context("the indexes")?;
    let index = |row: &Row| Index {
        name: row.get(0),
        table: row.get(1),
        bytes: row.get(2),
        scans: row.get(3),
        is_constraint: row.get(4),
        columns: row.get(5),
        rest: row.get(6),
    };
    Ok(rows.iter().map(index).collect())
}

async fn scans(client: &Client) -> anyhow::Result<HashMap<String, i64>> {
    const SQL: &str = "-- cli::schema::indexes::scans
        SELECT format('%I.%I', s.schemaname, s.indexrelname), s.idx_scan FROM pg_stat_user_indexes AS s";
    let rows = client.query(SQL, &[]).await.context("the indexes of a replica")?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Since when a server counts: what was not used yet is not useless.
async fn counted_since(client: &Client, name: &str) -> anyhow::Result<String> {
    const SQL: &str = "-- cli::schema::indexes::counted_since
        SELECT to_char(greatest(coalesce(d.stats_reset, pg_postmaster_start_time()), '-infinity') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
               d.stats_reset IS NULL
        FROM pg_stat_database AS d WHERE d.datname = current_database()";
    let row = client.query_one(SQL, &[]).await.context("since when is counted")?;
    let at: &str = row.get(0);
    Ok(if row.get(1) {
        format!("{name}: counts were never reset; the server started at {at}")
    } else {
        format!("{name}: counted since {at}")
    })
}

fn unused(indexes: &[Index]) -> Vec<Vec<Value>> {
    let unused = indexes.iter().filter(|index| index.scans == 0 && !index.is_constraint);
    unused.map(|index| vec![index.name.clone().into(), index.table.clone().into(), index.bytes.into()]).collect()
}

/// Those that are the same as another, or the beginning of one; of two that are the same, the later by name that keeps no promise.
fn superfluous(indexes: &[Index]) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for index in indexes.iter().filter(|index| !index.is_constraint) {
        let because = indexes.iter().find(|other| {
            let same_kind = other.name != index.name && other.table == index.table && other.rest == index.rest;
            let same = other.columns == index.columns && (other.is_constraint || other.name < index.name);
            // Only of a B-tree is the beginning worth as much.
            let beginning = index.rest.starts_with("btree ")
                && other.columns.len() > index.columns.len()
                && other.columns.starts_with(&index.columns);
            same_kind && (same || beginning)
        });
        if let Some(because) = because {
            let why = if because.columns == index.columns { "is the same" } else { "begins like it" };
            rows.push(vec![index.name.clone().into(), index.bytes.into(), format!("{} {why}", because.name).into()]);
        }
    }
    rows
}

/// Foreign keys whose rows can only be found by reading the whole table, and large tables that are read whole again and again.
async fn missing(client: &Client) -> anyhow::Result<Vec<Vec<Value>>> {
    const FOREIGN: &str = "-- cli::schema::indexes::missing, foreign keys
        SELECT format('%I.%I', n.nspname, c.relname),
               (SELECT string_agg(a.attname, ', ' ORDER BY k.place)
                FROM unnest(f.conkey) WITH ORDINALITY AS k (number, place)
                JOIN pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = k.number),
               format('foreign key %s', f.conname)
        FROM pg_constraint AS f JOIN pg_class AS c ON c.oid = f.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE f.contype = 'f' AND NOT EXISTS (
            SELECT FROM pg_index AS i
            WHERE i.indrelid = f.conrelid AND i.indpred IS NULL
              AND (SELECT array_agg(k.number ORDER BY k.number) FROM unnest((i.indkey::int2[])[0:cardinality(f.conkey) - 1]) AS k (number))
                = (SELECT array_agg(k.number ORDER BY k.number) FROM unnest(f.conkey) AS k (number))
        )
        ORDER BY 1, 2";
    const SCANS: &str = "-- cli::schema::indexes::missing, scans
        SELECT format('%I.%I', s.schemaname, s.relname),
               format('read whole %s times, %s rows each time', s.seq_scan, s.seq_tup_read / s.seq_scan)
        FROM pg_stat_user_tables AS s
        WHERE s.seq_scan > 100 AND s.seq_tup_read / s.seq_scan > 10000
        ORDER BY s.seq_tup_read DESC LIMIT 50";
    let text = |row: &Row, index: usize| Value::from(row.get::<_, &str>(index));
    let foreign = client.query(FOREIGN, &[]).await.context("the foreign keys")?;
    let mut rows: Vec<Vec<Value>> = foreign.iter().map(|row| vec![text(row, 0), text(row, 1), text(row, 2)]).collect();
    let scans = client.query(SCANS, &[]).await.context("the scans")?;
    rows.extend(scans.iter().map(|row| vec![text(row, 0), "-".into(), text(row, 1)]));
    Ok(rows)
}
