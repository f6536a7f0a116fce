//! Loading rows into the tables of a generation that nobody reads yet: by binary COPY, before there are indexes. What a row shows is
//! `rows`'s; which company a prospect's row shows is found here, and how the incremental path finds it is in `statements`.

use std::collections::{HashMap, HashSet};
use std::pin::pin;

use domain::{Company, Prospect, Status};
use service_kit::postgres::Database;
use tokio::task::JoinSet;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use crate::columns::{Cell, Kind, names};
use crate::connection::connect;
use crate::record::{Folded, Place, Records};
use crate::rows::{self, COMPANIES, DENORMALISED, MERGED_COMPANIES, PROSPECTS};

/// Rows of one COPY: a transaction of the server's that is over soon.
const ROWS_AT_A_TIME: usize = 5_000;
/// After so many rows others who share the processor have their turn.
const ROWS_BEFORE_YIELDING: usize = 64;

/// Companies that were merged, with the ones that they were merged into, step by step.
pub(crate) type Merged = HashMap<Place, Uuid>;

/// Writes to a generation over a connection of its own.
pub(crate) struct Loader {
    client: Client,
    _driven: JoinSet<()>,
    schema: String,
}

impl Loader {
    /// Connects. A commit is not waited for: what is lost with the server is loaded again.
    pub(crate) async fn open(database: &Database, generation: i32) -> Result<Self, Error> {
        let mut driven = JoinSet::new();
        let client = connect(database, &mut driven).await?;
        // Companies are found by their key, whatever the planner believes of tables that nobody has counted yet.
        client
            .batch_execute(
                "SET statement_timeout = 0; SET synchronous_commit = off;
                 SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off",
            )
            .await?;
        Ok(Self { client, _driven: driven, schema: migrations::schema_name(generation) })
    }

    /// Writes the rows of these companies; gives those that were merged. `loaded` is told of the events of what is written.
    pub(crate) async fn companies(&self, companies: Records<Company>, loaded: impl Fn(i64)) -> Result<Merged, Error> {
        let into = |record: &Folded<Company>| match record.state.status {
            Status::Merged { into } => Some(into),
            Status::Unregistered | Status::Live | Status::Deleted => None,
        };
        let merged = companies.iter().filter_map(|(place, record)| Some((*place, into(record)?))).collect();
        let mut companies = companies.into_iter();
        loop {
            let some: Vec<(Place, Box<Folded<Company>>)> = companies.by_ref().take(ROWS_AT_A_TIME).collect();
            if some.is_empty() {
                return Ok(merged);
            }
            let rows = some.iter().map(|(place, record)| rows::company(*place, record));
            self.copy("companies", COMPANIES, rows).await?;
            loaded(some.iter().map(|(_, record)| record.version).sum());
        }
    }

    /// Writes which company stands for each merged one.
    pub(crate) async fn merged(&self, merged: &Merged) -> Result<(), Error> {
        let places: Vec<Place> = merged.keys().copied().collect();
        for some in places.chunks(ROWS_AT_A_TIME) {
            let rows = some.iter().map(|place| rows::merged_company(*place, end_of_merges(merged, *place)));
            self.copy("merged_companies", MERGED_COMPANIES, rows).await?;
        }
        Ok(())
    }

    /// Writes the rows of these prospects. The companies must be there, with their key.
    pub(crate) async fn prospects(
        &self,
        mut prospects: Records<Prospect>,
        merged: &Merged,
        loaded: impl Fn(i64),
    ) -> Result<(), Error> {
        let columns: Vec<(&str, Kind)> =
            PROSPECTS.iter().copied().chain(DENORMALISED.iter().map(|(name, _, kind)| (*name, *kind))).collect();
        let shown_by = |place: Place, record: &Folded<Prospect>| {
            record.state.company_id.map(|company| (place.0, end_of_merges(merged, (place.0, company))))
        };
        // One company's prospects together, so that it is asked for once.
        let mut places: Vec<(Option<Place>, Place)> =
            prospects.iter().map(|(place, record)| (shown_by(*place, record), *place)).collect();
        places.sort_unstable();
        for some in places.chunks(ROWS_AT_A_TIME) {
            let companies = self.shown(some.iter().filter_map(|(company, _)| *company).collect()).await?;
            let mut events = 0;
            let rows = some.iter().filter_map(|(company, place)| {
                let record = prospects.remove(place)?;
                events += record.version;
                Some(row(*place, &record, company.and_then(|company| companies.get(&company))))
            });
            self.copy("company_prospect", &columns, rows).await?;
            loaded(events);
        }
        Ok(())
    }

    /// Writes the rows of live companies that no prospect has a row of: the same ones as a step adds, all at once.
    pub(crate) async fn own_rows(&self) -> Result<(), Error> {
        let denormalised: Vec<&str> = DENORMALISED.iter().map(|(name, _, _)| *name).collect();
        let shown: Vec<String> = DENORMALISED.iter().map(|(_, column, _)| format!("c.{column}")).collect();
        let sql = format!(
            "-- projector::rebuild::load::own_rows
            INSERT INTO {schema}.company_prospect
                (tenant_id, row_id, position, assigned_company_id, created_at, updated_at, {denormalised})
            SELECT c.tenant_id, c.company_id, c.position, c.company_id, c.created_at, c.updated_at, {shown}
            FROM {schema}.companies AS c
            LEFT JOIN (
                SELECT DISTINCT p.tenant_id, coalesce(m.primary_id, p.assigned_company_id) AS company_id
                FROM {schema}.company_prospect AS p
                LEFT JOIN {schema}.merged_companies AS m
                    ON m.tenant_id = p.tenant_id AND m.company_id = p.assigned_company_id
                WHERE p.prospect_id IS NOT NULL AND p.prospect_deleted_at IS NULL AND p.assigned_company_id IS NOT NULL
            ) AS has ON has.tenant_id = c.tenant_id AND has.company_id = c.company_id
            WHERE has.company_id IS NULL AND c.deleted_at IS NULL AND c.merged_into IS NULL",
            schema = self.schema,
            denormalised = denormalised.join(", "),
            shown = shown.join(", "),
        );
        // All of both tables, which nobody has counted yet: never one of them again for every row of the other.
        self.client
            .batch_execute(
                "RESET enable_seqscan; RESET enable_hashjoin; RESET enable_mergejoin;
                 SET enable_nestloop = off; SET work_mem = '64MB'",
            )
            .await?;
        self.client.execute(&sql, &[]).await?;
        Ok(())
    }

    /// What rows show of these companies, with the position and the time of their last change.
    async fn shown(&self, companies: HashSet<Place>) -> Result<HashMap<Place, Shown>, Error> {
        let columns: Vec<String> = DENORMALISED
            .iter()
            .map(|(_, column, _)| format!("CASE WHEN c.deleted_at IS NULL THEN c.{column} END"))
            .collect();
        let sql = format!(
            "-- projector::rebuild::load::shown
            SELECT c.tenant_id, c.company_id, c.position, c.updated_at, {}
            FROM unnest($1::uuid[], $2::uuid[]) AS n (tenant_id, company_id)
            JOIN {}.companies AS c ON c.tenant_id = n.tenant_id AND c.company_id = n.company_id",
            columns.join(", "),
            self.schema
        );
        let (tenants, ids): (Vec<Uuid>, Vec<Uuid>) = companies.into_iter().unzip();
        let mut shown = HashMap::with_capacity(ids.len());
        for row in self.client.query(&sql, &[&tenants, &ids]).await? {
            let cells = DENORMALISED.iter().zip(4..).map(|((_, _, kind), index)| kind.read(&row, index));
            let cells = cells.collect::<Result<Vec<Cell>, Error>>()?;
            shown.insert((row.get(0), row.get(1)), Shown { position: row.get(2), updated_at: row.get(3), cells });
        }
        Ok(shown)
    }

    async fn copy(
        &self,
        table: &str,
        columns: &[(&'static str, Kind)],
        rows: impl Iterator<Item = Vec<Cell>>,
    ) -> Result<(), Error> {
        let sql = format!("COPY {}.{table} ({}) FROM STDIN WITH (FORMAT binary)", self.schema, names(columns));
        let types: Vec<Type> = columns.iter().map(|(_, kind)| kind.copied()).collect();
        let mut writer = pin!(BinaryCopyInWriter::new(self.client.copy_in(&sql).await?, &types));
        for (number, row) in rows.enumerate() {
            let cells: Vec<&(dyn ToSql + Sync)> = row.iter().map(|cell| cell as &(dyn ToSql + Sync)).collect();
            writer.as_mut().write(&cells).await?;
            if number % ROWS_BEFORE_YIELDING == 0 {
                tokio::task::yield_now().await;
            }
        }
        writer.finish().await?;
        Ok(())
    }
}

/// What a row shows of a company.
struct Shown {
    position: i64,
    updated_at: time::OffsetDateTime,
    cells: Vec<Cell>,
}

/// The row of a prospect with what it shows of its company, if that is there.
fn row(place: Place, record: &Folded<Prospect>, company: Option<&Shown>) -> Vec<Cell> {
    let mut row = rows::prospect(place, record);
    for ((column, _), cell) in PROSPECTS.iter().zip(&mut row) {
        match (*column, company) {
            ("position", Some(company)) => *cell = Cell::Number(Some(record.position.max(company.position))),
            ("updated_at", Some(company)) => *cell = Cell::Time(Some(record.updated_at.max(company.updated_at))),
            _ => {}
        }
    }
    match company {
        Some(company) => row.extend(company.cells.iter().cloned()),
        None => row.extend(DENORMALISED.iter().map(|(_, _, kind)| kind.empty())),
    }
    row
}

/// The company that stands for this one.
fn end_of_merges(merged: &Merged, place: Place) -> Uuid {
    let mut end = place.1;
    // No longer than there are merged ones: no command merges in a circle, and what does is the verifier's to find.
    for _ in 0..merged.len() {
        match merged.get(&(place.0, end)) {
            Some(into) => end = *into,
            None => break,
        }
    }
    end
}
