//! The legacy table: requirement 003's `Customer`, or one like it, with the columns `id` and `updatedAt`. Only read, in short
//! read-only transactions, a page at a time.

use std::pin::pin;

use anyhow::Context;
use futures_util::TryStreamExt as _;
use service_kit::config::Secret;
use service_kit::postgres::Database;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

/// Rows of a page.
const PAGE: i64 = 1_000;

/// The table.
pub(super) struct Legacy {
    client: Client,
    name: String,
    table: String,
    /// Types of `id` and `updatedAt`, as the server writes them.
    id_type: String,
    time_type: String,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LegacyRow {
    /// Its `id`, as text.
    pub id: String,
    /// Its `updatedAt`, as text; none where it has none.
    pub updated_at: Option<String>,
    /// All of it, a line of JSON.
    pub json: String,
}

impl LegacyRow {
    fn from_row(row: &Row) -> Self {
        // A column of type json keeps its line breaks; inside of JSON they can only be white space.
        let json = row.get::<_, &str>(2).replace(['\n', '\r'], " ");
        Self { id: row.get(0), updated_at: row.get(1), json }
    }
}

/// A name as SQL takes it; with a dot, a schema's and a table's.
pub(super) fn quoted(name: &str) -> String {
    let parts = name.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\"")));
    parts.collect::<Vec<_>>().join(".")
}

impl Legacy {
    /// Connects and looks at the table.
    ///
    /// # Errors
    /// If the server cannot be reached, or there is no such table with the columns `id` and `updatedAt`.
    pub(super) async fn open(url: &Secret, table: &str) -> anyhow::Result<Self> {
        const SETTINGS: &str = "SET default_transaction_read_only = on; SET timezone = 'UTC'; SET datestyle = 'ISO';
            SET statement_timeout = '15min'; SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s'";
        const COLUMNS: &str = "-- cli::import::follow::legacy::open
            SELECT a.attname::text, format_type(a.atttypid, a.atttypmod)
            FROM pg_attribute AS a
            WHERE a.attrelid = to_regclass($1 /* table */) AND a.attname IN ('id', 'updatedAt') AND NOT a.attisdropped";
        anyhow::ensure!(!table.contains('\0'), "--table holds what no name has");
        let database = Database::parse(url.expose(), "prospectus import")?;
        let name = format!("{} {table}", database.name());
        let about = || format!("the legacy database {}", database.name());
        let client = database.client().await.with_context(about)?;
        client.batch_execute(SETTINGS).await.with_context(about)?;
        let table = quoted(table);
        let rows = client.query(COLUMNS, &[&table]).await.with_context(about)?;
        let column = |wanted: &str| {
            let found = rows.iter().find(|row| row.get::<_, &str>(0) == wanted);
            found.map(|row| row.get::<_, String>(1)).with_context(|| {
                format!("{} has no table {table} with the column {}: names are case-sensitive", about(), quoted(wanted))
            })
        };
        let (id_type, time_type) = (column("id")?, column("updatedAt")?);
        Ok(Self { client, name, table, id_type, time_type })
    }

    /// Server, database and table, without a password.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The newest `updatedAt` of the table, and never one that is still to come: a row from the future would hide all others.
    pub(super) async fn newest(&self) -> anyhow::Result<Option<String>> {
        let sql = format!(
            "-- cli::import::follow::legacy::newest
            SELECT least(max(t.\"updatedAt\"), now()::{})::text FROM {} AS t WHERE t.\"updatedAt\" IS NOT NULL
            HAVING count(*) > 0",
            self.time_type, self.table
        );
        Ok(self.client.query_opt(&sql, &[]).await.context("the newest updatedAt")?.map(|row| row.get(0)))
    }

    /// The earlier of a time and now.
    pub(super) async fn not_after_now(&self, time: &str) -> anyhow::Result<String> {
        let sql = format!(
            "-- cli::import::follow::legacy::not_after_now
            SELECT least(($1::text)::{0}, now()::{0})::text",
            self.time_type
        );
        Ok(self.client.query_one(&sql, &[&time]).await.context("the server's time")?.get(0))
    }

    /// Whether the connection is lost.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The rows after an id, in the order of their ids, at most a page of them.
    pub(super) async fn after_id(&self, id: Option<&str>) -> anyhow::Result<Vec<LegacyRow>> {
        let sql = format!(
            "-- cli::import::follow::legacy::after_id
            SELECT t.id::text, t.\"updatedAt\"::text, row_to_json(t)::text FROM {} AS t
            WHERE $1::text IS NULL OR t.id > ($1::text)::{} ORDER BY t.id LIMIT {PAGE}",
            self.table, self.id_type
        );
        self.rows(&sql, &[&id]).await
    }

    /// The rows whose `updatedAt` is at or after `from` less `overlap_seconds`, in its order, beyond a row that was had before; at most
    /// a page of them.
    pub(super) async fn changed(
        &self,
        from: Option<&str>,
        overlap_seconds: f64,
        beyond: Option<&LegacyRow>,
    ) -> anyhow::Result<Vec<LegacyRow>> {
        let (id_type, time_type) = (&self.id_type, &self.time_type);
        let sql = format!(
            "-- cli::import::follow::legacy::changed
            SELECT t.id::text, t.\"updatedAt\"::text, row_to_json(t)::text FROM {} AS t
            WHERE t.\"updatedAt\" IS NOT NULL
              AND ($1::text IS NULL OR t.\"updatedAt\" >= ($1::text)::{time_type} - $2::float8 * interval '1 second')
              AND ($3::text IS NULL OR (t.\"updatedAt\", t.id) > (($3::text)::{time_type}, ($4::text)::{id_type}))
            ORDER BY t.\"updatedAt\", t.id LIMIT {PAGE}",
            self.table
        );
        let at = beyond.and_then(|row| row.updated_at.as_deref());
        self.rows(&sql, &[&from, &overlap_seconds, &at, &beyond.map(|row| row.id.as_str())]).await
    }

    /// All ids, sorted by their bytes, one after the other.
    pub(super) async fn ids(&self, mut take: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let sql = format!(
            "-- cli::import::follow::legacy::ids
            SELECT t.id::text FROM {} AS t ORDER BY t.id::text COLLATE \"C\"",
            self.table
        );
        let nothing: [&(dyn ToSql + Sync); 0] = [];
        let mut rows = pin!(self.client.query_raw(&sql, nothing).await.context("the ids of the legacy table")?);
        while let Some(row) = rows.try_next().await.context("the ids of the legacy table")? {
            take(row.get(0))?;
        }
        Ok(())
    }

    async fn rows(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> anyhow::Result<Vec<LegacyRow>> {
        let rows = self.client.query(sql, parameters).await.context("a page of the legacy table")?;
        Ok(rows.iter().map(LegacyRow::from_row).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_name_stays_a_name() {
        assert_eq!(quoted("Customer"), "\"Customer\"");
        assert_eq!(quoted("crm.Customer"), "\"crm\".\"Customer\"");
        assert_eq!(quoted("a\"; DROP TABLE b; --"), "\"a\"\"; DROP TABLE b; --\"");
    }
}
