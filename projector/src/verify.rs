//! I5, as a function: the read tables are the fold of the log up to their complete position, on the primary or any replica. The log
//! is folded in memory and the sides are joined here, independently of the projection's SQL.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::pin::pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use cqrs_es::Aggregate as _;
use domain::{Company, Prospect, Record as _, Status};
use event_store::StoredEvent;
use event_store::feed::{Feed, FeedError};
use event_store::keyring::{KeyError, Keyring};
use event_store::seal::PersonKeys;
use futures_util::TryStreamExt as _;
use migrations::COMPANY_PROSPECT;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use crate::columns::{Cell, Kind, names};
use crate::memory::is_without_rows;
use crate::rebuild::shard::{Shard, weight_bytes};
use crate::record::{ApplyError, Folded, Place, Records, Shown, apply};
use crate::rows::{self, COMPANIES, DENORMALISED, MERGED_COMPANIES, PERSONAL, PROSPECTS};
use crate::skips::{Skips, SkipsError};

/// Differences that are told one by one; all are counted.
pub const DIFFERENCES_MAX: usize = 20;
/// Events folded at a time.
const PAGE: i64 = 5_000;

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The log cannot be read, or has a hole.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// A database is away or refuses.
    #[error("the database: {0}")]
    Database(#[from] Error),
    /// A person's key cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An event cannot be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// It is not known what is left out.
    #[error(transparent)]
    Skips(#[from] SkipsError),
    /// Changes of companies are still on their way to rows.
    #[error("{0} companies' changes still had not reached all of their rows after {1} s")]
    Queued(i64, u64),
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
}

/// Records that are folded at a time, in bytes, where nobody says otherwise.
pub const MEMORY_BYTES: usize = 1 << 30;

/// Folds the log read through `log` and compares every row that `read`, on the primary or a replica, shows of the live generation. Both see
/// all tenants. Waits up to `wait` until nothing is queued.
///
/// # Errors
/// If a side cannot be read.
pub async fn verify(log: &Feed, read: &Client, keyring: &Keyring, wait: Duration) -> Result<Report, VerifyError> {
    verify_within(log, read, keyring, wait, MEMORY_BYTES).await
}

/// [`verify`], holding all companies and so many prospects at a time as go into `memory_bytes`: the log is read once for each time.
///
/// # Errors
/// If a side cannot be read.
pub async fn verify_within(
    log: &Feed,
    read: &Client,
    keyring: &Keyring,
    wait: Duration,
    memory_bytes: usize,
) -> Result<Report, VerifyError> {
    let (generation, position) = settled(read, None, wait).await?;
    let skips = Skips::read(log.client(), COMPANY_PROSPECT).await?;
    let result =
        Comparison { log, read, keyring, skips, position, memory_bytes, read_events: None }.compare(generation).await;
    read.batch_execute("COMMIT").await?;
    result
}

/// [`verify_within`] of a generation that is not live, and that nobody takes steps of meanwhile. `read_events` is told of the log's events as
/// they are read, at least twice.
pub(crate) async fn verify_generation(
    log: &Feed,
    read: &Client,
    keyring: &Keyring,
    generation: i32,
    memory_bytes: usize,
    read_events: &AtomicI64,
) -> Result<Report, VerifyError> {
    let (generation, position) = settled(read, Some(generation), Duration::ZERO).await?;
    let skips = Skips::read(log.client(), COMPANY_PROSPECT).await?;
    let result = Comparison { log, read, keyring, skips, position, memory_bytes, read_events: Some(read_events) }
        .compare(generation)
        .await;
    read.batch_execute("COMMIT").await?;
    result
}

/// Opens a snapshot of the read side with nothing queued; gives the wanted generation, or the live one, and its checkpoint.
async fn settled(read: &Client, generation: Option<i32>, wait: Duration) -> Result<(i32, i64), VerifyError> {
    const SQL: &str = "-- projector::verify::settled
        SELECT c.generation, c.position, (SELECT count(*) FROM read.fanout AS f
                                          WHERE f.projection = l.projection AND f.generation = c.generation)
        FROM read.live AS l JOIN read.checkpoints AS c USING (projection)
        WHERE l.projection = $1 AND c.generation = coalesce($2, l.generation)";
    let started = Instant::now();
    loop {
        read.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let row = read.query_one(SQL, &[&COMPANY_PROSPECT, &generation]).await?;
        let queued: i64 = row.get(2);
        if queued == 0 {
            return Ok((row.get(0), row.get(1)));
        }
        read.batch_execute("COMMIT").await?;
        if started.elapsed() > wait {
            return Err(VerifyError::Queued(queued, wait.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The log up to a position beside what a snapshot of the read side shows.
struct Comparison<'a> {
    log: &'a Feed,
    read: &'a Client,
    keyring: &'a Keyring,
    skips: Skips,
    position: i64,
    memory_bytes: usize,
    /// Told of every event that is read, each time.
    read_events: Option<&'a AtomicI64>,
}

impl Comparison<'_> {
    async fn compare(&self, generation: i32) -> Result<Report, VerifyError> {
        let schema = migrations::schema_name(generation);
        let mut report = Report { position: self.position, ..Report::default() };
        let Part { records: companies, .. } = self.fold::<Company>(Shard::ALL, usize::MAX).await?;
        let of = |name: &str, columns: &[(&'static str, Kind)], others: &str, which: &str| Table {
            sql: format!(
                "-- projector::verify::compare\nSELECT {}, {others} FROM {schema}.{name} WHERE {which}",
                names(columns)
            ),
            name: name.to_owned(),
            columns: columns.to_vec(),
        };

        let expected = |place: Place| companies.get(&place).map(|record| rows::company(place, record));
        let table = of("companies", COMPANIES, "false", "true");
        self.table(&table, companies.keys().copied(), expected, &NOBODY, &mut report).await?;

        let end = |place: &Place| Some(end_of_merges(&companies, *place)).filter(|end| end != place);
        let merged: Vec<Place> = companies.keys().copied().filter(|place| end(place).is_some()).collect();
        let expected = |place: Place| end(&place).map(|end| rows::merged_company(place, end.1));
        let table = of("merged_companies", MERGED_COMPANIES, "false", "true");
        self.table(&table, merged.into_iter(), expected, &NOBODY, &mut report).await?;

        let columns: Vec<(&str, Kind)> =
            PROSPECTS.iter().copied().chain(DENORMALISED.iter().map(|(name, _, kind)| (*name, *kind))).collect();
        let held: usize = companies.values().map(weight_bytes).sum();
        let bytes_max = self.memory_bytes.saturating_sub(held).max(self.memory_bytes / 4);
        let (mut shards, mut with_prospect) = (vec![Shard::ALL], HashSet::new());
        while let Some(shard) = shards.pop() {
            let part = self.fold::<Prospect>(shard, bytes_max).await?;
            shards.extend(part.left);
            let prospects = part.records;
            let assigned = prospects
                .iter()
                .filter(|(_, record)| record.deleted_at.is_none())
                .filter_map(|(place, record)| Some(end_of_merges(&companies, (place.0, record.state.company_id?))));
            with_prospect.extend(assigned);
            let expected = |place: Place| prospects.get(&place).map(|record| joined(&companies, place, record));
            let table = of("company_prospect", &columns, OWN_ROW, &part.shard.condition("row_id"));
            let places = prospects.keys().copied();
            self.table_of(part.shard, &table, places, expected, &part.erased_since, &mut report).await?;
        }

        let shown = |place: &Place| companies[place].state.status == Status::Live && !with_prospect.contains(place);
        let own: Vec<Place> = companies.keys().copied().filter(shown).collect();
        let expected =
            |place: Place| companies.get(&place).filter(|_| shown(&place)).map(|company| own_row(place, company));
        let table = of("company_prospect", &columns, "false", OWN_ROW);
        self.table(&table, own.into_iter(), expected, &NOBODY, &mut report).await?;
        Ok(report)
    }

    /// Folds the records of a sort, as far as they go into `bytes_max`.
    async fn fold<R: Shown>(&self, shard: Shard, bytes_max: usize) -> Result<Part<R>, VerifyError> {
        let mut part = Part { shard, records: HashMap::new(), erased_since: HashSet::new(), left: Vec::new() };
        let (mut at, mut bytes) = (0, 0);
        while at < self.position {
            let mut events: Vec<StoredEvent> = self.log.after(at, PAGE.min(self.position - at)).await?;
            events.retain(|event| event.position <= self.position);
            let Some(last) = events.last() else { return Err(FeedError::Hole(at + 1).into()) };
            let read = last.position - at;
            at = last.position;
            if let Some(events) = self.read_events {
                events.fetch_add(read, Ordering::Relaxed);
            }
            let is_unknown = |event: &&StoredEvent| {
                let sort = event.aggregate_type.as_str();
                !([Company::TYPE, Prospect::TYPE].contains(&sort)
                    || is_without_rows(sort)
                    || self.skips.contains(event.position))
            };
            if let Some(event) = events.iter().find(is_unknown) {
                let (position, aggregate_type) = (event.position, event.aggregate_type.clone());
                return Err(ApplyError::Sort { position, aggregate_type }.into());
            }
            events.retain(|event| event.aggregate_type == R::TYPE && part.shard.has(event.aggregate_id));
            let persons = events.iter().filter(|event| event.aggregate_type == Prospect::TYPE);
            let persons = persons.filter(|event| !self.skips.contains(event.position));
            let persons = persons.map(|event| (event.tenant_id, event.aggregate_id));
            let keys = PersonKeys::fetch(self.log.client(), self.keyring, persons).await?;
            part.erased_since.extend(keys.erased_after(self.position));
            for event in &events {
                let place = (event.tenant_id, event.aggregate_id);
                let before = part.records.get(&place).map_or(0, weight_bytes);
                apply(&mut part.records, event, &keys, &self.skips)?;
                bytes = bytes + part.records.get(&place).map_or(0, weight_bytes) - before;
            }
            while bytes > bytes_max
                && part.records.len() > 1
                && let Some([kept, left]) = part.shard.halves()
            {
                part.records.retain(|place, _| kept.has(place.1));
                part.records.shrink_to_fit();
                bytes = part.records.values().map(weight_bytes).sum();
                part.shard = kept;
                part.left.push(left);
            }
        }
        // Whose registration is left out has no rows.
        part.records.retain(|_, record| record.is_registered());
        Ok(part)
    }

    async fn table(
        &self,
        table: &Table,
        places: impl Iterator<Item = Place>,
        expected: impl Fn(Place) -> Option<Vec<Cell>>,
        erased_since: &HashSet<Place>,
        report: &mut Report,
    ) -> Result<(), VerifyError> {
        self.table_of(Shard::ALL, table, places, expected, erased_since, report).await
    }

    /// Compares the rows of `shard` in a table with what it should hold; the key is in the first two columns.
    async fn table_of(
        &self,
        shard: Shard,
        table: &Table,
        places: impl Iterator<Item = Place>,
        expected: impl Fn(Place) -> Option<Vec<Cell>>,
        erased_since: &HashSet<Place>,
        report: &mut Report,
    ) -> Result<(), VerifyError> {
        let name = &table.name;
        let mut missing: BTreeSet<Place> = places.collect();
        report.rows += missing.len();
        let nothing: [&(dyn ToSql + Sync); 0] = [];
        let mut found = pin!(self.read.query_raw(&table.sql, nothing).await?);
        while let Some(row) = found.try_next().await? {
            let place: Place = (row.get(0), row.get(1));
            if !shard.has(place.1) {
                continue;
            }
            let Some(cells) = expected(place).filter(|_| missing.remove(&place)) else {
                if row.get(table.columns.len()) {
                    continue;
                }
                report.differs(|| format!("{name} {}: should not be there", place.1));
                continue;
            };
            for (index, ((column, kind), cell)) in table.columns.iter().zip(cells).enumerate() {
                let seen = kind.read(&row, index)?;
                let forgotten = erased_since.contains(&place)
                    && (*column == "prospect_erased_at" || PERSONAL.iter().any(|(personal, _)| personal == column));
                if seen != cell && !forgotten {
                    report.differs(|| format!("{name} {}, {column}: should be {cell:?}, is {seen:?}", place.1));
                }
            }
        }
        for place in missing {
            report.differs(|| format!("{name} {}: is missing", place.1));
        }
        Ok(())
    }
}

/// Which rows look like a company's own; nobody else's.
const OWN_ROW: &str = "(prospect_id IS NULL OR row_id IS NOT DISTINCT FROM assigned_company_id)";

/// A table, or some rows of it, as it is read.
struct Table {
    name: String,
    columns: Vec<(&'static str, Kind)>,
    /// Gives the columns, and whether a row that is not expected is for another look.
    sql: String,
}

/// What the log leads to, for some records.
struct Part<R> {
    shard: Shard,
    records: Records<R>,
    /// Persons who were erased after the position: the log does not say any more what their rows showed there.
    erased_since: HashSet<Place>,
    /// Whose records are for another time.
    left: Vec<Shard>,
}

static NOBODY: LazyLock<HashSet<Place>> = LazyLock::new(HashSet::new);

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
pub async fn verify_claims(log: &Feed, keyring: &Keyring) -> Result<Report, VerifyError> {
    const CLAIMS: &str = "-- projector::verify::verify_claims, claims
        SELECT tenant_id, kind, key, aggregate_id FROM log.claims WHERE NOT released";
    const MATCHES: &str = "-- projector::verify::verify_claims, matches
        SELECT tenant_id, kind, key, aggregate_id FROM log.matches";
    let position = log.head().await?.position;
    let fold = Comparison {
        log,
        read: log.client(),
        keyring,
        skips: Skips::default(),
        position,
        memory_bytes: usize::MAX,
        read_events: None,
    };
    let companies = fold.fold::<Company>(Shard::ALL, usize::MAX).await?.records;
    let prospects = fold.fold::<Prospect>(Shard::ALL, usize::MAX).await?.records;
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
        for row in log.client().query(sql, &[]).await? {
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
