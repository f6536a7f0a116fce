//! What a generation shows otherwise than the live one, as far as both are: perhaps that is why one rebuilds, so it is told and stops
//! nothing.

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

/// A table of a generation.
struct Table {
    name: &'static str,
    /// The second column of its key; the first is the tenant.
    key: &'static str,
    /// Which of its rows come and go with other records, so that they are compared only where both generations are at the same position.
    passing: &'static str,
}

const TABLES: [Table; 3] = [
    Table { name: "companies", key: "company_id", passing: "false" },
    Table { name: "merged_companies", key: "company_id", passing: "true" },
    Table { name: "company_prospect", key: "row_id", passing: "prospect_id IS NULL" },
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
    for table in TABLES {
        let columns = common_columns(client, table.name, generation, live).await?;
        let sql = table.sql(&columns, [generation, live]);
        let parameters: [&(dyn ToSql + Sync); 2] = [&position, &is_same];
        let rows = client.query(&sql, &parameters).await?;
        beside.count += rows.first().map_or(0, |row| row.get::<_, i64>(0));
        let room = DIFFERENCES_MAX.saturating_sub(beside.first.len());
        beside.first.extend(rows.iter().take(room).map(|row| told(table.name, row)));
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

impl Table {
    /// $1 the position that both have taken in, $2 whether they are at the same one. Gives the number of rows that differ, the id, whether
    /// the row is missing here or there, and the columns. Rows are told apart by hashes of 64 bits: two wide tables joined would go through
    /// the server's disk.
    fn sql(&self, columns: &[String], generations: [i32; 2]) -> String {
        let [new, live] =
            generations.map(|generation| format!("{}.{}", migrations::schema_name(generation), self.name));
        let Self { key, passing, .. } = self;
        let position =
            if columns.iter().any(|column| column == "position") { "position" } else { "NULL::bigint AS position" };
        let hashed = |table: &str| {
            format!(
                "(SELECT tenant_id, {key}, {position}, {passing} AS passing,
                         hash_record_extended(ROW({}), 0) AS hash
                  FROM {table} OFFSET 0 /* so that it is not hashed after the join */)",
                columns.join(", ")
            )
        };
        let names = columns
            .iter()
            .map(|column| format!("CASE WHEN n.{column} IS DISTINCT FROM l.{column} THEN '{column}' END"))
            .collect::<Vec<_>>()
            .join(", ");
        format!(
            "-- projector::rebuild::beside::sql
            WITH differing AS MATERIALIZED (
                SELECT count(*) OVER () AS count, coalesce(n.tenant_id, l.tenant_id) AS tenant_id, coalesce(n.{key}, l.{key}) AS {key},
                       n.{key} IS NULL AS is_gone, l.{key} IS NULL AS is_new
                FROM {hashed_new} AS n FULL JOIN {hashed_live} AS l ON l.tenant_id = n.tenant_id AND l.{key} = n.{key}
                WHERE coalesce(n.position, 0) <= $1 AND coalesce(l.position, 0) <= $1
                  AND ($2 OR NOT (coalesce(n.passing, true) AND coalesce(l.passing, true)))
                  AND n.hash IS DISTINCT FROM l.hash
                LIMIT {DIFFERENCES_MAX}
            )
            SELECT d.count, d.{key}, d.is_gone, d.is_new, array_remove(ARRAY[{names}]::text[], NULL)
            FROM differing AS d
            LEFT JOIN {new} AS n ON n.tenant_id = d.tenant_id AND n.{key} = d.{key}
            LEFT JOIN {live} AS l ON l.tenant_id = d.tenant_id AND l.{key} = d.{key}",
            hashed_new = hashed(&new),
            hashed_live = hashed(&live),
        )
    }
}

fn told(table: &str, row: &Row) -> String {
    let (id, is_gone, is_new): (uuid::Uuid, bool, bool) = (row.get(1), row.get(2), row.get(3));
    match (is_gone, is_new) {
        (true, _) => format!("{table} {id}: only in the live one"),
        (_, true) => format!("{table} {id}: only in the new one"),
        _ => format!("{table} {id}: {}", row.get::<_, Vec<String>>(4).join(", ")),
    }
}
