//! Record by record: what its events make of it, the claims that it holds, and its row. All three are read side by side in the order
//! of their ids, so that only one record is in memory at a time.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use cqrs_es::Aggregate as _;
use domain::prospect::KnownAs;
use domain::value::{Domain, DomainOfHost};
use domain::{Claim, Company, CompanyEvent, Prospect, ProspectEvent, Record, RecordEvent, Status};
use event_store::seal::PersonKeys;
use event_store::{Keyring, StoredEvent};
use serde_json::{Value, json};
use tokio_postgres::{Row, Transaction};

use super::Snapshot;
use super::findings::{Findings, Sort};
use super::pages::{Pages, Place};

/// Claims that stand in the log as HMACs.
const PERSONAL_CLAIMS: [&str; 2] = ["prospect_ref", KnownAs::CLAIM];

/// How many there are on each side.
#[derive(Debug, Default)]
pub(super) struct Counts {
    companies: Sides,
    prospects: Sides,
    claims: BTreeMap<String, u64>,
    /// Records that changed after the position that the read tables are at.
    changed_since: u64,
}

#[derive(Debug, Default)]
struct Sides {
    log: BTreeMap<&'static str, u64>,
    read: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// `{"companies": {"log": {…}, "read_tables": {…}}, "prospects": …, "claims": {…}}`
    pub(super) fn to_json(&self) -> Value {
        let sides = |sides: &Sides| json!({"log": sides.log, "read_tables": sides.read});
        json!({"companies": sides(&self.companies), "prospects": sides(&self.prospects), "claims": self.claims,
               "changed_since": self.changed_since})
    }

    /// Rows of a table for people: what, in the log, in the read tables, claims `live`.
    pub(super) fn to_rows(&self) -> Vec<Vec<Value>> {
        let mut rows = Vec::new();
        for (noun, sides, states) in [
            ("companies", &self.companies, &["live", "merged", "deleted"][..]),
            ("prospects", &self.prospects, &["live", "deleted"]),
        ] {
            for state in states {
                let of = |counts: &BTreeMap<&str, u64>| Value::from(counts.get(state).copied().unwrap_or(0));
                let claimed = (noun, *state) == ("companies", "live");
                let claims = claimed.then(|| self.claims.get(domain::claim::LIVE).copied().unwrap_or(0));
                rows.push(vec![format!("{noun} {state}").into(), of(&sides.log), of(&sides.read), claims.into()]);
            }
        }
        rows
    }
}

/// Compares all records of the snapshot.
///
/// # Errors
/// If the database fails, or an event cannot be read.
pub(super) async fn compare(
    snapshot: &Snapshot<'_>,
    keyring: Option<&Keyring>,
    findings: &mut Findings,
) -> anyhow::Result<Counts> {
    let (schema, transaction) = (&snapshot.schema, snapshot.transaction);
    let only = |alias: &str| snapshot.only(alias);
    let log = format!(
        "-- cli::integrity::records::compare, log
        SELECT {} FROM log.events AS e WHERE {} ORDER BY e.tenant_id, e.aggregate_id, e.sequence",
        StoredEvent::COLUMNS,
        only("e")
    );
    let claims = format!(
        "-- cli::integrity::records::compare, claims
        SELECT c.tenant_id, c.aggregate_id, c.kind, c.key FROM log.claims AS c WHERE NOT c.released AND {}
        ORDER BY c.tenant_id, c.aggregate_id",
        only("c")
    );
    let companies = format!(
        "-- cli::integrity::records::compare, companies
        SELECT c.tenant_id, c.company_id, c.version, c.deleted_at IS NOT NULL, c.merged_into, c.domain, c.additional_domains,
               c.external_refs
        FROM {schema}.companies AS c WHERE {} ORDER BY c.tenant_id, c.company_id",
        only("c")
    );
    let prospects = format!(
        "-- cli::integrity::records::compare, prospects
        SELECT p.tenant_id, p.row_id, p.prospect_version, p.prospect_deleted_at IS NOT NULL, p.assigned_company_id,
               p.prospect_external_refs
        FROM {schema}.company_prospect AS p WHERE p.prospect_id IS NOT NULL AND {} ORDER BY p.tenant_id, p.row_id",
        only("p")
    );
    let mut log = Pages::open(transaction, &log, (1, 3)).await?;
    let mut claims = Pages::open(transaction, &claims, (0, 1)).await?;
    let mut companies = Pages::open(transaction, &companies, (0, 1)).await?;
    let mut prospects = Pages::open(transaction, &prospects, (0, 1)).await?;

    let mut comparison = Comparison { keyring, projected: snapshot.projected, findings, counts: Counts::default() };
    let mut keys = PersonKeys::default();
    loop {
        if log.fill().await? {
            keys = keys_of(&log, transaction, keyring).await?;
        }
        claims.fill().await?;
        companies.fill().await?;
        prospects.fill().await?;
        let next = [log.place(), claims.place(), companies.place(), prospects.place()];
        let Some(place) = next.into_iter().flatten().min() else { break };
        let mut found = Found::default();
        // A record may go on over the end of a page.
        loop {
            while let Some(row) = log.take(place) {
                found.take_event(&StoredEvent::from_row(&row)?, &keys, keyring.is_some())?;
            }
            if !log.fill().await? {
                break;
            }
            keys = keys_of(&log, transaction, keyring).await?;
        }
        loop {
            while let Some(row) = claims.take(place) {
                found.claims.insert((row.get(2), row.get(3)));
            }
            if !claims.fill().await? {
                break;
            }
        }
        comparison.record(place, &found, companies.take(place).as_ref(), prospects.take(place).as_ref());
    }
    Ok(comparison.counts)
}

/// The keys of the persons on a page of the log.
async fn keys_of(
    log: &Pages<'_>,
    transaction: &Transaction<'_>,
    keyring: Option<&Keyring>,
) -> anyhow::Result<PersonKeys> {
    let Some(keyring) = keyring else { return Ok(PersonKeys::default()) };
    let persons = log.page().filter(|row| row.get::<_, &str>(2) == Prospect::TYPE).map(|row| (row.get(1), row.get(3)));
    Ok(PersonKeys::fetch(transaction, keyring, persons).await?)
}

/// What the log says of one place.
#[derive(Default)]
struct Found {
    state: State,
    version: i64,
    position: i64,
    broken: bool,
    claims: BTreeSet<(String, String)>,
}

#[derive(Default)]
enum State {
    #[default]
    None,
    Company(Box<Company>),
    Prospect(Box<Prospect>),
    /// A sort of record that has no row and holds nothing, such as an import.
    Other,
}

impl Found {
    fn take_event(&mut self, event: &StoredEvent, keys: &PersonKeys, opens: bool) -> anyhow::Result<()> {
        self.broken |= event.sequence != self.version + 1;
        (self.version, self.position) = (event.sequence, self.position.max(event.position));
        if matches!(self.state, State::None) {
            self.state = match event.aggregate_type.as_str() {
                Company::TYPE => State::Company(Box::default()),
                Prospect::TYPE => State::Prospect(Box::default()),
                _ => State::Other,
            };
        }
        match &mut self.state {
            State::Company(company) => company.evolve(&read::<CompanyEvent>(event, keys, true)?),
            State::Prospect(prospect) => prospect.evolve(&read::<ProspectEvent>(event, keys, opens)?),
            State::None | State::Other => {}
        }
        Ok(())
    }
}

/// Reads an event; without keys, its personal member stays sealed, and a state says nothing personal.
fn read<E: RecordEvent>(event: &StoredEvent, keys: &PersonKeys, opens: bool) -> anyhow::Result<E> {
    if opens {
        return Ok(keys.read(event)?);
    }
    E::from_stored(&event.event_type, event.event_version, &event.payload)
        .with_context(|| format!("event at position {}", event.position))
}

fn state_of(status: Status) -> Option<&'static str> {
    match status {
        Status::Unregistered => None,
        Status::Live => Some("live"),
        Status::Deleted => Some("deleted"),
        Status::Merged { .. } => Some("merged"),
    }
}

struct Comparison<'a> {
    keyring: Option<&'a Keyring>,
    /// Every event up to here shows in the read tables.
    projected: i64,
    findings: &'a mut Findings,
    counts: Counts,
}

impl Comparison<'_> {
    fn record(&mut self, place: Place, found: &Found, company: Option<&Row>, prospect: Option<&Row>) {
        let id = place.1;
        if found.broken {
            self.findings.add(Sort::HistoryBroken, || id.to_string());
        }
        for (kind, _) in &found.claims {
            *self.counts.claims.entry(kind.clone()).or_default() += 1;
        }
        if let Some(row) = company {
            let state = match (row.get::<_, bool>(3), row.get::<_, Option<uuid::Uuid>>(4)) {
                (_, Some(_)) => "merged",
                (true, None) => "deleted",
                (false, None) => "live",
            };
            *self.counts.companies.read.entry(state).or_default() += 1;
            if state == "live" {
                self.domains(place, row);
            }
        }
        if let Some(row) = prospect {
            let state = if row.get::<_, bool>(3) { "deleted" } else { "live" };
            *self.counts.prospects.read.entry(state).or_default() += 1;
        }
        let is_shown = found.position <= self.projected;
        if !is_shown {
            self.counts.changed_since += 1;
        }
        match &found.state {
            State::Company(state) => {
                count(&mut self.counts.companies.log, state.status);
                self.claims(place, &state.claims(id), &found.claims, None);
                let said = |row: &Row| company_row_differs(row, state, found.version);
                self.row(place, is_shown, company.map(said), prospect);
            }
            State::Prospect(state) => {
                count(&mut self.counts.prospects.log, state.status);
                let refs = prospect.filter(|_| is_shown && state.status == Status::Live);
                let refs = refs.map_or(0, |row| row.get::<_, Value>(5).as_array().map_or(0, Vec::len));
                let is_counted = self.keyring.is_none() && state.status == Status::Live;
                let counted = is_counted.then_some((refs, is_shown && prospect.is_some()));
                self.claims(place, &state.claims(id), &found.claims, counted);
                let opened = self.keyring.is_some();
                let said = |row: &Row| prospect_row_differs(row, state, found.version, opened);
                self.row(place, is_shown, prospect.map(said), company);
            }
            State::None | State::Other => {
                self.claims(place, &[], &found.claims, None);
                for row in company.iter().chain(&prospect) {
                    let _: &Row = row;
                    self.findings.add(Sort::RowLeft, || id.to_string());
                }
            }
        }
    }

    /// The claims that the record's state holds, and those that stand in the log. `counted`: how many references a live prospect's row
    /// shows, and whether the row is up to date, where its sealed ones cannot be opened.
    fn claims(
        &mut self,
        (tenant, id): Place,
        held: &[Claim],
        stand: &BTreeSet<(String, String)>,
        counted: Option<(usize, bool)>,
    ) {
        let personal = |kind: &str| PERSONAL_CLAIMS.contains(&kind);
        let mut expected = BTreeSet::new();
        for claim in held {
            let key = match (&claim.key, self.keyring) {
                (domain::ClaimKey::Plain(key), _) => key.clone(),
                (key @ domain::ClaimKey::Personal(_), Some(keyring)) => keyring.claim_key(tenant, claim.kind, key),
                (domain::ClaimKey::Personal(_), None) => continue,
            };
            expected.insert((claim.kind.to_owned(), key));
        }
        let told = |kind: &str, key: &str| match kind {
            kind if personal(kind) => format!("{id}: {kind}"),
            _ => format!("{id}: {kind} {}", key.replace('\u{1f}', " ")),
        };
        for (kind, key) in expected.difference(stand) {
            self.findings.add(Sort::ClaimMissing, || told(kind, key));
        }
        for (kind, key) in stand.difference(&expected).filter(|(kind, _)| counted.is_none() || !personal(kind)) {
            self.findings.add(Sort::ClaimLeft, || told(kind, key));
        }
        if let Some((shown, true)) = counted {
            let standing = stand.iter().filter(|(kind, _)| kind == "prospect_ref").count();
            for _ in standing..shown {
                self.findings.add(Sort::ClaimMissing, || told("prospect_ref", ""));
            }
            for _ in shown..standing {
                self.findings.add(Sort::ClaimLeft, || told("prospect_ref", ""));
            }
        }
    }

    /// The record's row, if it must be up to date: what differs in it, and a row where another sort of record stands.
    fn row(&mut self, (_, id): Place, is_shown: bool, differs: Option<Vec<&'static str>>, other: Option<&Row>) {
        if other.is_some() {
            self.findings.add(Sort::RowLeft, || id.to_string());
        }
        match differs {
            _ if !is_shown => {}
            None => self.findings.add(Sort::RowMissing, || id.to_string()),
            Some(columns) if !columns.is_empty() => {
                self.findings.add(Sort::RowDiffers, || format!("{id}: {}", columns.join(", ")));
            }
            Some(_) => {}
        }
    }

    /// The domains of a live company: each as it would be written today, and a company's own.
    fn domains(&mut self, (_, id): Place, row: &Row) {
        let more: Value = row.get(6);
        let first: Option<&str> = row.get(5);
        for domain in first.into_iter().chain(more.as_array().into_iter().flatten().filter_map(Value::as_str)) {
            if Domain::parse(domain).map_or(true, |parsed| parsed.as_str() != domain) {
                self.findings.add(Sort::DomainWrong, || format!("{id}: {domain}"));
            } else if DomainOfHost::of_company(domain).is_err() {
                self.findings.add(Sort::DomainOfNoCompany, || format!("{id}: {domain}"));
            }
        }
    }
}

fn count(counts: &mut BTreeMap<&'static str, u64>, status: Status) {
    if let Some(state) = state_of(status) {
        *counts.entry(state).or_default() += 1;
    }
}

fn company_row_differs(row: &Row, state: &Company, version: i64) -> Vec<&'static str> {
    let merged_into = match state.status {
        Status::Merged { into } => Some(into),
        Status::Unregistered | Status::Live | Status::Deleted => None,
    };
    let columns = [
        ("version", row.get::<_, i64>(2) == version),
        ("deleted_at", row.get::<_, bool>(3) == (state.status == Status::Deleted)),
        ("merged_into", row.get::<_, Option<uuid::Uuid>>(4) == merged_into),
        ("domain", row.get::<_, Option<&str>>(5) == state.domain.as_ref().map(Domain::as_str)),
        ("additional_domains", row.get::<_, Value>(6) == json!(state.additional_domains)),
        ("external_refs", row.get::<_, Value>(7) == json!(state.external_refs)),
    ];
    columns.into_iter().filter(|(_, same)| !same).map(|(column, _)| column).collect()
}

fn prospect_row_differs(row: &Row, state: &Prospect, version: i64, opened: bool) -> Vec<&'static str> {
    let columns = [
        ("prospect_version", row.get::<_, i64>(2) == version),
        ("prospect_deleted_at", row.get::<_, bool>(3) == (state.status == Status::Deleted)),
        ("assigned_company_id", row.get::<_, Option<uuid::Uuid>>(4) == state.company_id),
        ("prospect_external_refs", !opened || row.get::<_, Value>(5) == json!(state.personal.external_refs)),
    ];
    columns.into_iter().filter(|(_, same)| !same).map(|(column, _)| column).collect()
}
