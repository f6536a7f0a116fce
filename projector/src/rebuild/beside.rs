//! What a generation shows otherwise than the live one, as far as both are: perhaps that is why one rebuilds, so it is told and stops nothing.

use migrations::COMPANY_PROSPECT;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};

use crate::verify::DIFFERENCES_MAX;

/// What differs.
pub(crate) struct Beside {
    /// The generation that is live.
    pub(crate) live: i32,
    /// Rows that one of them has and the other has not, or has otherwise.
    pub(crate) count: i64,
    /// The first of them: table, row and columns, without values, which may be personal.
    pub(crate) first: Vec<String>,
}

/// A table of a generation: its name, the second column of its key (the first is the tenant), and which of its rows come and go with other
/// records, so that they are compared only where both generations are at the same position.
const TABLES: [(&str, &str, &str); 3] = [
    ("companies", "company_id", "false"),
    ("merged_companies", "company_id", "true"),
    ("company_prospect", "row_id", "coalesce(n.prospect_id, l.prospect_id) IS NULL"),
];

/// Compares the generation with the live one in one snapshot, without what only one of them has taken in; nothing if it is live itself.
///
/// # Errors
/// If the database is away or refuses.
pub(crate) async fn compare(client: &Client, generation: i32) -> Result<Option<Beside>, Error> {
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL work_mem = '64MB'").await?;
    let compared = compare_in_snapshot(client, generation).await;
    client.batch_execute("ROLLBACK").await?;
    compared
}

async fn compare_in_snapshot(client: &Client, generation: i32) -> Result<Option<Beside>, Error> {
    const PLACES: &str = "-- projector::rebuild::beside::compare, places
        SELECT l.generation, least(own.complete_position, live.complete_position), own.complete_position = live.complete_position
        FROM read.live AS l
        JOIN read.projection_states() AS own ON own.projection = l.projection AND own.generation = $2
        JOIN read.projection_states() AS live ON live.projection = l.projection AND live.generation = l.generation
        WHERE l.projection = $1 AND l.generation <> $2";
    let Some(row) = client.query_opt(PLACES, &[&COMPANY_PROSPECT, &generation]).await? else { return Ok(None) };
    let (live, position, is_same): (i32, i64, bool) = (row.get(0), row.get(1), row.get(2));
    let mut beside = Beside { live, count: 0, first: Vec::new() };
    for (table, key, passing) in TABLES {
        let columns = common_columns(client, table, generation, live).await?;
        let has_position = columns.iter().any(|column| column == "position");
        let sql = sql(&columns, [generation, live], table, key, passing, has_position);
        let parameters: [&(dyn ToSql + Sync); 2] = [&position, &is_same];
        let rows = client.query(&sql, &parameters).await?;
        beside.count += rows.first().map_or(0, |row| row.get::<_, i64>(0));
        let room = DIFFERENCES_MAX.saturating_sub(beside.first.len());
        beside.first.extend(rows.iter().take(room).map(|row| told(table, row)));
    }
    Ok(Some(beside))
}

/// The columns that both generations' table has: another version of the code may have made one of them.
async fn common_columns(client: &Client, table: &str, generation: i32, live: i32) -> Result<Vec<String>, Error> {
    const SQL: &str = "-- projector::rebuild::beside::common_columns
        SELECT a.attname::text FROM pg_attribute AS a
        JOIN pg_attribute AS b ON b.attrelid = to_regclass($2) AND b.attname = a.attname AND b.atttypid = a.atttypid AND NOT b.attisdropped
        WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    let names = [generation, live].map(|generation| format!("{}.{table}", migrations::schema_name(generation)));
    let rows = client.query(SQL, &[&names[0], &names[1]]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// $1 the position that both have taken in, $2 whether they are at the same one. Gives the number of rows that differ, the id, whether the
/// row is missing here or there, and the columns.
fn sql(
    columns: &[String],
    [generation, live]: [i32; 2],
    table: &str,
    key: &str,
    passing: &str,
    has_position: bool,
) -> String {
    let of = |alias: &str| columns.iter().map(|column| format!("{alias}.{column}")).collect::<Vec<_>>().join(", ");
    let names =
        columns.iter().map(|column| format!("CASE WHEN n.{column} IS DISTINCT FROM l.{column} THEN '{column}' END"));
    let names = names.collect::<Vec<_>>().join(", ");
    let taken_in = if has_position {
        "coalesce(n.position, 0) <= $1 AND coalesce(l.position, 0) <= $1"
    } else {
        "$1::bigint IS NOT NULL"
    };
    format!(
        "-- projector::rebuild::beside::sql
        SELECT count(*) OVER (), coalesce(n.{key}, l.{key}), n.{key} IS NULL, l.{key} IS NULL, array_remove(ARRAY[{names}]::text[], NULL)
        FROM {new}.{table} AS n FULL JOIN {old}.{table} AS l ON l.tenant_id = n.tenant_id AND l.{key} = n.{key}
        WHERE {taken_in} AND ($2 OR NOT ({passing}))
          AND (n.{key} IS NULL OR l.{key} IS NULL OR ROW({own}) IS DISTINCT FROM ROW({other}))
        LIMIT {DIFFERENCES_MAX}",
        new = migrations::schema_name(generation),
        old = migrations::schema_name(live),
        own = of("n"),
        other = of("l"),
    )
}

fn told(table: &str, row: &Row) -> String {
    let (id, is_gone, is_new): (uuid::Uuid, bool, bool) = (row.get(1), row.get(2), row.get(3));
    match (is_gone, is_new) {
        (true, _) => format!("{table} {id}: only in the live one"),
        (_, true) => format!("{table} {id}: only in the new one"),
        _ => format!("{table} {id}: {}", row.get::<_, Vec<String>>(4).join(", ")),
    }
}
