//! I5, as a function: the read tables are the fold of the log up to their complete position, on the primary or any replica. The log
//! is folded in memory and the sides are joined here, independently of the projection's SQL.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::LazyLock;
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

use crate::columns::{Cell, Kind};
use crate::memory::is_without_rows;
use crate::record::{ApplyError, Folded, Place, apply};
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

/// Folds the log read through `log` and compares every row that `read`, on the primary or a replica, shows. Both see all tenants.
/// Waits up to `wait` until nothing is queued.
///
/// # Errors
/// If a side cannot be read.
pub async fn verify(log: &Feed, read: &Client, keyring: &Keyring, wait: Duration) -> Result<Report, VerifyError> {
    let (generation, position) = settled(read, wait).await?;
    let result = compare(log, read, keyring, generation, position).await;
    read.batch_execute("COMMIT").await?;
    result
}

/// Opens a snapshot of the read side with nothing queued; gives the live generation and its checkpoint.
async fn settled(read: &Client, wait: Duration) -> Result<(i32, i64), VerifyError> {
    const SQL: &str = "-- projector::verify::settled
        SELECT l.generation, c.position, (SELECT count(*) FROM read.fanout AS f
                                          WHERE f.projection = l.projection AND f.generation = l.generation)
        FROM read.live AS l JOIN read.checkpoints AS c USING (projection, generation) WHERE l.projection = $1";
    let started = Instant::now();
    loop {
        read.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let row = read.query_one(SQL, &[&COMPANY_PROSPECT]).await?;
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

async fn compare(
    log: &Feed,
    read: &Client,
    keyring: &Keyring,
    generation: i32,
    position: i64,
) -> Result<Report, VerifyError> {
    let skips = Skips::read(log.client(), COMPANY_PROSPECT).await?;
    let Fold { companies, prospects, erased_since } = fold(log, keyring, &skips, position).await?;
    let mut report = Report { position, ..Report::default() };
    let schema = migrations::schema_name(generation);

    let columns: Vec<(&str, Kind)> = COMPANIES.to_vec();
    let mut expected: HashMap<Place, Vec<Cell>> =
        companies.iter().map(|(place, record)| (*place, rows::company(*place, record))).collect();
    report.rows += expected.len();
    table(read, &schema, "companies", &columns, &mut expected, &NOBODY, &mut report).await?;

    let mut expected: HashMap<Place, Vec<Cell>> = companies
        .keys()
        .map(|place| (*place, end_of_merges(&companies, *place)))
        .filter(|(place, end)| place != end)
        .map(|(place, end)| (place, rows::merged_company(place, end.1)))
        .collect();
    report.rows += expected.len();
    table(read, &schema, "merged_companies", MERGED_COMPANIES, &mut expected, &NOBODY, &mut report).await?;

    let columns: Vec<(&str, Kind)> =
        PROSPECTS.iter().copied().chain(DENORMALISED.iter().map(|(name, _, kind)| (*name, *kind))).collect();
    let mut expected = joined(&companies, &prospects);
    report.rows += expected.len();
    table(read, &schema, "company_prospect", &columns, &mut expected, &erased_since, &mut report).await?;
    Ok(report)
}

/// What the log leads to.
struct Fold {
    companies: HashMap<Place, Folded<Company>>,
    prospects: HashMap<Place, Folded<Prospect>>,
    /// Persons who were erased after the position: the log does not say any more what their rows showed there.
    erased_since: HashSet<Place>,
}

static NOBODY: LazyLock<HashSet<Place>> = LazyLock::new(HashSet::new);

async fn fold(log: &Feed, keyring: &Keyring, skips: &Skips, position: i64) -> Result<Fold, VerifyError> {
    let (mut companies, mut prospects) = (HashMap::new(), HashMap::new());
    let mut erased_since = HashSet::new();
    let mut at = 0;
    while at < position {
        let mut events: Vec<StoredEvent> = log.after(at, PAGE.min(position - at)).await?;
        events.retain(|event| event.position <= position);
        let Some(last) = events.last() else { return Err(FeedError::Hole(at + 1).into()) };
        at = last.position;
        let persons = events.iter().filter(|event| event.aggregate_type == Prospect::TYPE);
        let persons = persons.filter(|event| !skips.contains(event.position));
        let persons = persons.map(|event| (event.tenant_id, event.aggregate_id));
        let keys = PersonKeys::fetch(log.client(), keyring, persons).await?;
        erased_since.extend(keys.erased_after(position));
        for event in &events {
            match event.aggregate_type.as_str() {
                Company::TYPE => apply(&mut companies, event, &keys, skips)?,
                Prospect::TYPE => apply(&mut prospects, event, &keys, skips)?,
                sort if is_without_rows(sort) || skips.contains(event.position) => {}
                other => {
                    let aggregate_type = other.to_owned();
                    return Err(ApplyError::Sort { position: event.position, aggregate_type }.into());
                }
            }
        }
    }
    // Whose registration is left out has no rows.
    companies.retain(|_, company| company.is_registered());
    prospects.retain(|_, prospect| prospect.is_registered());
    Ok(Fold { companies, prospects, erased_since })
}

/// The company that stands for this one: followed step by step, each company saying into which one it was merged.
fn end_of_merges(companies: &HashMap<Place, Folded<Company>>, place: Place) -> Place {
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

/// The rows of `company_prospect` as they should be.
fn joined(
    companies: &HashMap<Place, Folded<Company>>,
    prospects: &HashMap<Place, Folded<Prospect>>,
) -> HashMap<Place, Vec<Cell>> {
    let shown: HashMap<Place, Vec<Cell>> = companies
        .iter()
        .filter(|(_, company)| company.state.status == Status::Live)
        .map(|(place, company)| {
            let row = rows::company(*place, company);
            let cell = |column: &str| row[index_of(COMPANIES.iter().map(|(name, _)| *name), column)].clone();
            (*place, DENORMALISED.iter().map(|(_, column, _)| cell(column)).collect())
        })
        .collect();
    let nothing: Vec<Cell> = DENORMALISED.iter().map(|(_, _, kind)| empty(*kind)).collect();
    let names = || PROSPECTS.iter().map(|(name, _)| *name);
    let (position, updated_at) = (index_of(names(), "position"), index_of(names(), "updated_at"));
    let mut expected = HashMap::with_capacity(prospects.len() + companies.len());
    let mut with_prospect = HashSet::new();
    for (place, prospect) in prospects {
        let mut row = rows::prospect(*place, prospect);
        let assigned = prospect.state.company_id.map(|company| end_of_merges(companies, (place.0, company)));
        if let Some(company) = assigned.and_then(|assigned| companies.get(&assigned)) {
            row[position] = Cell::Number(Some(prospect.position.max(company.position)));
            row[updated_at] = Cell::Time(Some(prospect.updated_at.max(company.updated_at)));
        }
        if prospect.deleted_at.is_none() {
            with_prospect.extend(assigned);
        }
        row.extend(assigned.and_then(|assigned| shown.get(&assigned)).unwrap_or(&nothing).iter().cloned());
        expected.insert(*place, row);
    }
    for (place, shown) in shown.iter().filter(|(place, _)| !with_prospect.contains(*place)) {
        let company = &companies[place];
        let own = PROSPECTS.iter().map(|(name, kind)| match *name {
            "tenant_id" => Cell::Uuid(Some(place.0)),
            "row_id" | "assigned_company_id" => Cell::Uuid(Some(place.1)),
            "position" => Cell::Number(Some(company.position)),
            "created_at" => Cell::Time(Some(company.created_at)),
            "updated_at" => Cell::Time(Some(company.updated_at)),
            "prospect_external_refs" | "prospect_flags" => Cell::Json(serde_json::json!([])),
            "prospect_attributes" => Cell::Json(serde_json::json!({})),
            _ => empty(*kind),
        });
        expected.insert(*place, own.chain(shown.iter().cloned()).collect());
    }
    expected
}

fn index_of<'a>(mut names: impl Iterator<Item = &'a str>, wanted: &str) -> usize {
    names.position(|name| name == wanted).expect("the lists of columns belong together")
}

fn empty(kind: Kind) -> Cell {
    match kind {
        Kind::Uuid => Cell::Uuid(None),
        Kind::Text => Cell::Text(None),
        Kind::Number => Cell::Number(None),
        Kind::Time => Cell::Time(None),
        Kind::Json => Cell::Json(serde_json::Value::Null),
    }
}

/// Compares a table with what it should hold; the key is in the first two columns.
async fn table(
    read: &Client,
    schema: &str,
    name: &str,
    columns: &[(&str, Kind)],
    expected: &mut HashMap<Place, Vec<Cell>>,
    erased_since: &HashSet<Place>,
    report: &mut Report,
) -> Result<(), VerifyError> {
    let names: Vec<&str> = columns.iter().map(|(column, _)| *column).collect();
    let sql = format!("-- projector::verify::table\nSELECT {} FROM {schema}.{name}", names.join(", "));
    let nothing: [&(dyn ToSql + Sync); 0] = [];
    let mut found = pin!(read.query_raw(&sql, nothing).await?);
    while let Some(row) = found.try_next().await? {
        let place: Place = (row.get(0), row.get(1));
        let Some(cells) = expected.remove(&place) else {
            report.differs(|| format!("{name} {}: should not be there", place.1));
            continue;
        };
        for (index, ((column, kind), cell)) in columns.iter().zip(cells).enumerate() {
            let seen = kind.read(&row, index)?;
            let forgotten = erased_since.contains(&place)
                && (*column == "prospect_erased_at" || PERSONAL.iter().any(|(personal, _)| personal == column));
            if seen != cell && !forgotten {
                report.differs(|| format!("{name} {}, {column}: should be {cell:?}, is {seen:?}", place.1));
            }
        }
    }
    let missing: BTreeMap<&Place, &Vec<Cell>> = expected.iter().collect();
    for (place, _) in missing {
        report.differs(|| format!("{name} {}: is missing", place.1));
    }
    Ok(())
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
    let Fold { companies, prospects, .. } = fold(log, keyring, &Skips::default(), position).await?;
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
