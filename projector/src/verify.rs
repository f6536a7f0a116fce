//! I5, as a function: the read tables are the fold of the log up to their complete position, on the primary or any replica. The log
//! is folded in memory and the sides are joined here, independently of the projection's SQL.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use domain::{Company, Prospect, Record as _, Status};
use event_store::keyring::Keyring;
use futures_util::TryStreamExt as _;
use migrations::COMPANY_PROSPECT;
use service_kit::postgres::Database;
use tokio::task::JoinSet;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use crate::columns::{Cell, Kind, names};
use crate::connection::connect;
use crate::parallel::{self, Pieces};
use crate::projection::StepError;
use crate::record::{Folded, Place, Records, Shown};
use crate::rows::{self, COMPANIES, DENORMALISED, MERGED_COMPANIES, PERSONAL, PROSPECTS};
use crate::shard::{self, Extent, Shard, Source};
use crate::skips::{Skips, SkipsError};

/// Differences that are told one by one; all are counted.
pub const DIFFERENCES_MAX: usize = 20;

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The log cannot be read or folded.
    #[error(transparent)]
    Log(#[from] StepError),
    /// A database is away or refuses.
    #[error("the database: {}", service_kit::postgres::describe(.0))]
    Database(#[from] Error),
    /// It is not known what is left out.
    #[error(transparent)]
    Skips(#[from] SkipsError),
    /// Changes of companies are still on their way to rows.
    #[error("{0} companies' changes still had not reached all of their rows after {1} s")]
    Queued(i64, u64),
    /// The log changed while it was read, which no log of ours does.
    #[error("of {events} events {folded} were folded: somebody has changed the log meanwhile")]
    Unread {
        /// Events up to the position.
        events: i64,
        /// Events that parts of the log gave.
        folded: i64,
    },
}

/// What was compared, and what differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The position at which both sides were compared.
    pub position: i64,
    /// Rows that should be there.
    pub rows: usize,
    /// How many differences there are.
    pub differences: usize,
    /// The first of them, one a line: table, row, column, both values. They may be personal.
    pub first: Vec<String>,
}

impl Report {
    fn differs(&mut self, what: impl FnOnce() -> String) {
        self.differences += 1;
        if self.first.len() < DIFFERENCES_MAX {
            self.first.push(what());
        }
    }

    /// Adds what somebody else has compared at the same position.
    fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.differences += other.differences;
        let room = DIFFERENCES_MAX - self.first.len();
        self.first.extend(other.first.into_iter().take(room));
    }
}

/// Records that are folded at a time, in bytes, where nobody says otherwise.
pub const MEMORY_BYTES: usize = 1 << 30;

/// Folds the log and compares every row that `read`, the primary or a replica, shows of the live generation. Both sides' roles see all
/// tenants. Waits up to `wait` until nothing is queued.
///
/// # Errors
/// If a side cannot be read.
pub async fn verify(
    log: &Database,
    read: &Database,
    keyring: &Arc<Keyring>,
    wait: Duration,
) -> Result<Report, VerifyError> {
    verify_within(log, read, keyring, wait, MEMORY_BYTES).await
}

/// [`verify`], holding all companies and so many prospects at a time as go into `memory_bytes`: the log is read once for each time.
///
/// # Errors
/// If a side cannot be read.
pub async fn verify_within(
    log: &Database,
    read: &Database,
    keyring: &Arc<Keyring>,
    wait: Duration,
    memory_bytes: usize,
) -> Result<Report, VerifyError> {
    let snapshot = Snapshot::open(read, None, wait).await?;
    Box::pin(compare(log, keyring, snapshot, memory_bytes, &Arc::default())).await
}

/// [`verify_within`] of a generation that is not live, and that nobody takes steps of meanwhile. `done` is told of events as they are folded,
/// and again when the rows of their records are compared.
pub(crate) async fn verify_generation(
    database: &Database,
    keyring: &Arc<Keyring>,
    generation: i32,
    memory_bytes: usize,
    done: &Arc<AtomicI64>,
) -> Result<Report, VerifyError> {
    let snapshot = Snapshot::open(database, Some(generation), Duration::ZERO).await?;
    Box::pin(compare(database, keyring, snapshot, memory_bytes, done)).await
}

/// What the read side shows at one moment, over as many connections as are wanted.
struct Snapshot {
    database: Database,
    client: Client,
    _driven: JoinSet<()>,
    name: String,
    generation: i32,
    /// The generation's checkpoint: what it shows is the fold of the log up to there.
    position: i64,
}

impl Snapshot {
    /// Opens one with nothing queued, of this generation or of the live one.
    async fn open(database: &Database, generation: Option<i32>, wait: Duration) -> Result<Self, VerifyError> {
        const SQL: &str = "-- projector::verify::Snapshot::open
            SELECT c.generation, c.position, pg_export_snapshot(),
                   (SELECT count(*) FROM read.fanout AS f
                    WHERE f.projection = l.projection AND f.generation = c.generation)
            FROM read.live AS l JOIN read.checkpoints AS c USING (projection)
            WHERE l.projection = $1 AND c.generation = coalesce($2, l.generation)";
        let mut driven = JoinSet::new();
        let client = connect(database, &mut driven).await?;
        let started = Instant::now();
        loop {
            client.batch_execute("SET statement_timeout = 0; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            let row = client.query_one(SQL, &[&COMPANY_PROSPECT, &generation]).await?;
            let queued: i64 = row.get(3);
            if queued == 0 {
                let (generation, position, name) = (row.get(0), row.get(1), row.get(2));
                return Ok(Self { database: database.clone(), client, _driven: driven, name, generation, position });
            }
            client.batch_execute("COMMIT").await?;
            if started.elapsed() > wait {
                return Err(VerifyError::Queued(queued, wait.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Another connection that sees the same.
    async fn again(&self, driven: &mut JoinSet<()>) -> Result<Client, Error> {
        let client = connect(&self.database, driven).await?;
        // Hexadecimal digits and hyphens, which the server gave.
        let begin = format!(
            "SET statement_timeout = 0; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{}'",
            self.name
        );
        client.batch_execute(&begin).await?;
        Ok(client)
    }
}

/// The log up to the snapshot's position beside what the snapshot shows.
async fn compare(
    log: &Database,
    keyring: &Arc<Keyring>,
    snapshot: Snapshot,
    memory_bytes: usize,
    done: &Arc<AtomicI64>,
) -> Result<Report, VerifyError> {
    let mut driven = JoinSet::new();
    let client = connect(log, &mut driven).await?;
    client.batch_execute("SET statement_timeout = 0").await?;
    let skips = Arc::new(Skips::read(&client, COMPANY_PROSPECT).await?);
    let extent = Extent::look(&client, &skips, snapshot.position).await?;
    let source = Source { database: log.clone(), keyring: Arc::clone(keyring), head: snapshot.position, skips };
    let schema = migrations::schema_name(snapshot.generation);
    let mut report = Report { position: snapshot.position, ..Report::default() };

    let All { records: companies, folded } = fold_all::<Company>(&source, done).await?;
    all_folded(extent.companies.events, folded)?;
    let companies = Arc::new(companies);

    let end = |place: &Place| Some(end_of_merges(&companies, *place)).filter(|end| end != place);
    let merged: Vec<Place> = companies.keys().copied().filter(|place| end(place).is_some()).collect();
    let expected = |place: Place| end(&place).map(|end| rows::merged_company(place, end.1));
    let table = Table::of(&schema, "merged_companies", MERGED_COMPANIES, "false", "true");
    table.compare(&snapshot.client, Shard::ALL, merged.into_iter(), expected, &HashSet::new(), &mut report).await?;

    let held: usize = companies.values().map(|record| record.weight_bytes()).sum();
    let workers = parallel::workers();
    let bytes_max = shard::records_bytes(memory_bytes).saturating_sub(held).max(memory_bytes / 4) / workers;
    let snapshot = Arc::new(snapshot);
    let of_companies = Arc::new(Pieces::new(Shard::parts(workers)));
    let shards = Arc::new(Pieces::new(Shard::rounds(workers, extent.prospects, bytes_max)));
    let folded = Arc::new(AtomicI64::new(0));
    let work = || {
        let (source, snapshot, companies) = (source.clone(), Arc::clone(&snapshot), Arc::clone(&companies));
        let (of_companies, shards) = (Arc::clone(&of_companies), Arc::clone(&shards));
        let (folded, done) = (Arc::clone(&folded), Arc::clone(done));
        let schema = schema.clone();
        async move {
            let mut driven = JoinSet::new();
            let read = snapshot.again(&mut driven).await?;
            let (mut report, mut with_prospect) = (Report::default(), HashSet::new());
            while let Some(shard) = of_companies.next() {
                let table = Table::of(&schema, "companies", COMPANIES, "false", &shard.condition("company_id"));
                let expected = |place: Place| companies.get(&place).map(|record| rows::company(place, record));
                let places = companies.keys().copied().filter(|place| shard.has(place.1));
                table.compare(&read, shard, places, expected, &HashSet::new(), &mut report).await?;
                let events = companies.iter().filter(|(place, _)| shard.has(place.1)).map(|(_, record)| record.version);
                done.fetch_add(events.sum(), Ordering::Relaxed);
            }
            while let Some(shard) = shards.next() {
                let part = shard::fold::<Prospect>(&source, shard, bytes_max, &done).await?;
                shards.add(part.left);
                let prospects = part.records;
                folded.fetch_add(part.folded, Ordering::Relaxed);
                let assigned = prospects
                    .iter()
                    .filter(|(_, record)| record.deleted_at.is_none())
                    .filter_map(|(place, record)| Some(end_of_merges(&companies, (place.0, record.state.company_id?))));
                with_prospect.extend(assigned);
                let expected = |place: Place| prospects.get(&place).map(|record| joined(&companies, place, record));
                let places = prospects.keys().copied();
                let table =
                    Table::of(&schema, "company_prospect", &shown_columns(), OWN_ROW, &part.shard.condition("row_id"));
                table.compare(&read, part.shard, places, expected, &part.erased_since, &mut report).await?;
                done.fetch_add(part.folded, Ordering::Relaxed);
            }
            Ok::<_, VerifyError>((report, with_prospect))
        }
    };
    let mut with_prospect = HashSet::new();
    for (of_part, assigned) in parallel::all((0..workers).map(|_| work())).await? {
        report.add(of_part);
        with_prospect.extend(assigned);
    }
    all_folded(extent.prospects.events, folded.load(Ordering::Relaxed))?;

    let shown = |place: &Place| companies[place].state.status == Status::Live && !with_prospect.contains(place);
    let own: Vec<Place> = companies.keys().copied().filter(shown).collect();
    let expected =
        |place: Place| companies.get(&place).filter(|_| shown(&place)).map(|company| own_row(place, company));
    let table = Table::of(&schema, "company_prospect", &shown_columns(), "false", OWN_ROW);
    table.compare(&snapshot.client, Shard::ALL, own.into_iter(), expected, &HashSet::new(), &mut report).await?;
    snapshot.client.batch_execute("COMMIT").await?;
    Ok(report)
}

/// Every record of a sort, and how many events they were folded from.
struct All<R> {
    records: Records<R>,
    folded: i64,
}

async fn fold_all<R: Shown>(source: &Source, done: &Arc<AtomicI64>) -> Result<All<R>, VerifyError> {
    let work = |shard: Shard| {
        let (source, done) = (source.clone(), Arc::clone(done));
        async move { shard::fold::<R>(&source, shard, usize::MAX, &done).await }
    };
    let mut all = All { records: Records::new(), folded: 0 };
    for part in parallel::all(Shard::parts(parallel::workers()).into_iter().map(work)).await? {
        all.folded += part.folded;
        all.records.extend(part.records);
    }
    Ok(all)
}

/// That parts of the log gave all of its events.
fn all_folded(events: i64, folded: i64) -> Result<(), VerifyError> {
    if folded == events { Ok(()) } else { Err(VerifyError::Unread { events, folded }) }
}

/// The columns of a prospect's row with what it shows of its company.
fn shown_columns() -> Vec<(&'static str, Kind)> {
    PROSPECTS.iter().copied().chain(DENORMALISED.iter().map(|(name, _, kind)| (*name, *kind))).collect()
}

/// Which rows look like a company's own; nobody else's.
const OWN_ROW: &str = "(prospect_id IS NULL OR row_id IS NOT DISTINCT FROM assigned_company_id)";

/// A table, or some rows of it, as it is read.
struct Table {
    name: &'static str,
    columns: Vec<(&'static str, Kind)>,
    /// Gives the columns, and whether a row that is not expected is for another look.
    sql: String,
}

impl Table {
    /// Some rows of a table: those for which `which` holds. `others` holds for those that may be there unexpected.
    fn of(schema: &str, name: &'static str, columns: &[(&'static str, Kind)], others: &str, which: &str) -> Self {
        let sql = format!(
            "-- projector::verify::Table\nSELECT {}, {others} FROM {schema}.{name} WHERE {which}",
            names(columns)
        );
        Self { name, columns: columns.to_vec(), sql }
    }

    /// Compares the rows of `shard` with what they should be; the key is in the first two columns.
    async fn compare(
        &self,
        read: &Client,
        shard: Shard,
        places: impl Iterator<Item = Place>,
        expected: impl Fn(Place) -> Option<Vec<Cell>>,
        erased_since: &HashSet<Place>,
        report: &mut Report,
    ) -> Result<(), VerifyError> {
        let name = self.name;
        let mut missing: HashSet<Place> = places.collect();
        report.rows += missing.len();
        let nothing: [&(dyn ToSql + Sync); 0] = [];
        let mut found = pin!(read.query_raw(&self.sql, nothing).await?);
        while let Some(row) = found.try_next().await? {
            let place: Place = (row.get(0), row.get(1));
            if !shard.has(place.1) {
                continue;
            }
            let Some(cells) = expected(place).filter(|_| missing.remove(&place)) else {
                if row.get(self.columns.len()) {
                    continue;
                }
                report.differs(|| format!("{name} {}: should not be there", place.1));
                continue;
            };
            for (index, ((column, kind), cell)) in self.columns.iter().zip(cells).enumerate() {
                if cell.is_in(&row, index)? {
                    continue;
                }
                let forgotten = erased_since.contains(&place)
                    && (*column == "prospect_erased_at" || PERSONAL.iter().any(|(personal, _)| personal == column));
                if !forgotten {
                    let seen = kind.read(&row, index)?;
                    report.differs(|| format!("{name} {}, {column}: should be {cell:?}, is {seen:?}", place.1));
                }
            }
        }
        let mut missing: Vec<Place> = missing.into_iter().collect();
        missing.sort_unstable();
        for place in missing {
            report.differs(|| format!("{name} {}: is missing", place.1));
        }
        Ok(())
    }
}

/// The company that stands for this one: followed step by step, each company saying into which one it was merged.
fn end_of_merges(companies: &Records<Company>, place: Place) -> Place {
    let mut end = place;
    for _ in 0..companies.len() {
        match companies.get(&end).map(|company| company.state.status) {
            Some(Status::Merged { into }) => end = (place.0, into),
            _ => return end,
        }
    }
    // Longer than there are companies: merged in a circle, which no command allows, and no row of the tables agrees with.
    end
}

/// The row of a prospect in `company_prospect`, as it should be.
fn joined(companies: &Records<Company>, place: Place, prospect: &Folded<Prospect>) -> Vec<Cell> {
    let names = || PROSPECTS.iter().map(|(name, _)| *name);
    let (position, updated_at) = (index_of(names(), "position"), index_of(names(), "updated_at"));
    let mut row = rows::prospect(place, prospect);
    let assigned = prospect.state.company_id.map(|company| end_of_merges(companies, (place.0, company)));
    let company = assigned.and_then(|assigned| Some((assigned, companies.get(&assigned)?)));
    if let Some((_, company)) = company {
        row[position] = Cell::Number(Some(prospect.position.max(company.position)));
        row[updated_at] = Cell::Time(Some(prospect.updated_at.max(company.updated_at)));
    }
    match company.filter(|(_, company)| company.state.status == Status::Live) {
        Some((assigned, company)) => row.extend(shown(assigned, company)),
        None => row.extend(DENORMALISED.iter().map(|(_, _, kind)| kind.empty())),
    }
    row
}

/// The row of a live company without a prospect in `company_prospect`, as it should be.
fn own_row(place: Place, company: &Folded<Company>) -> Vec<Cell> {
    let own = PROSPECTS.iter().map(|(name, kind)| match *name {
        "tenant_id" => Cell::Uuid(Some(place.0)),
        "row_id" | "assigned_company_id" => Cell::Uuid(Some(place.1)),
        "position" => Cell::Number(Some(company.position)),
        "created_at" => Cell::Time(Some(company.created_at)),
        "updated_at" => Cell::Time(Some(company.updated_at)),
        "prospect_external_refs" | "prospect_flags" => Cell::Json(serde_json::json!([])),
        "prospect_attributes" => Cell::Json(serde_json::json!({})),
        _ => kind.empty(),
    });
    own.chain(shown(place, company)).collect()
}

/// What rows show of a live company.
fn shown(place: Place, company: &Folded<Company>) -> Vec<Cell> {
    let row = rows::company(place, company);
    let cell = |column: &str| row[index_of(COMPANIES.iter().map(|(name, _)| *name), column)].clone();
    DENORMALISED.iter().map(|(_, column, _)| cell(column)).collect()
}

fn index_of<'a>(mut names: impl Iterator<Item = &'a str>, wanted: &str) -> usize {
    names.position(|name| name == wanted).expect("the lists of columns belong together")
}

/// Claims and matches of the log that do not belong to the records' states at its head, or are missing; the appender's part of I5. To
/// be called while nothing is appended. What projections leave out is not left out here: whoever appended it took its claims.
///
/// # Errors
/// If the log cannot be read.
pub async fn verify_claims(log: &Database, keyring: &Arc<Keyring>) -> Result<Report, VerifyError> {
    const HEAD: &str = "-- projector::verify::verify_claims, head
        SELECT position FROM log.head";
    const CLAIMS: &str = "-- projector::verify::verify_claims, claims
        SELECT tenant_id, kind, key, aggregate_id FROM log.claims WHERE NOT released";
    const MATCHES: &str = "-- projector::verify::verify_claims, matches
        SELECT tenant_id, kind, key, aggregate_id FROM log.matches";
    let mut driven = JoinSet::new();
    let client = connect(log, &mut driven).await?;
    client.batch_execute("SET statement_timeout = 0").await?;
    let position: i64 = client.query_one(HEAD, &[]).await?.get(0);
    let skips = Arc::new(Skips::default());
    Extent::look(&client, &skips, position).await?;
    let source = Source { database: log.clone(), keyring: Arc::clone(keyring), head: position, skips };
    let companies = fold_all::<Company>(&source, &Arc::default()).await?.records;
    let prospects = fold_all::<Prospect>(&source, &Arc::default()).await?.records;
    let mut report = Report { position, ..Report::default() };
    let mut claims: HashSet<(Uuid, String, String, Uuid)> = HashSet::new();
    let mut matches = HashSet::new();
    let mut add = |place: Place, held: Vec<domain::Claim>, found: Vec<domain::Match>| {
        claims.extend(
            held.iter().map(|c| (place.0, c.kind.to_owned(), keyring.claim_key(place.0, c.kind, &c.key), place.1)),
        );
        matches.extend(
            found.iter().map(|m| (place.0, m.kind.to_owned(), keyring.claim_key(place.0, m.kind, &m.key), place.1)),
        );
    };
    for (place, record) in &companies {
        add(*place, record.state.claims(place.1), record.state.matches(place.1));
    }
    for (place, record) in &prospects {
        add(*place, record.state.claims(place.1), record.state.matches(place.1));
    }
    for (name, sql, mut expected) in [("claim", CLAIMS, claims), ("match", MATCHES, matches)] {
        report.rows += expected.len();
        for row in client.query(sql, &[]).await? {
            let found = (row.get(0), row.get(1), row.get(2), row.get(3));
            if !expected.remove(&found) {
                report.differs(|| format!("{name} {} of {}: nobody's state has it", found.1, found.3));
            }
        }
        for (_, kind, _, holder) in expected {
            report.differs(|| format!("{name} {kind} of {holder}: is missing"));
        }
    }
    Ok(report)
}
