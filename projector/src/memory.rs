//! What a step's events lead to: the records that they touch, from those used lately or folded from the log, within bounds in bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;

use cqrs_es::Aggregate as _;
use domain::{Company, Import, Prospect, Status};
use event_store::StoredEvent;
use event_store::keyring::{KeyError, Keyring};
use event_store::seal::PersonKeys;
use futures_util::TryStreamExt as _;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};
use uuid::Uuid;

use crate::projection::StepError;
use crate::record::{ApplyError, Folded, Place, Records, Shown, apply};
use crate::skips::Skips;

/// Bytes of records after which a step takes in no others.
pub const STEP_RECORDS_BYTES_MAX: usize = 16 << 20;
/// Bytes of events before the step after which it takes in no other records: so it ends in time however long their histories are.
const STEP_HISTORIES_BYTES_MAX: usize = 64 << 20;
/// Records whose histories are read at a time, so many may be beyond these bounds.
pub const HISTORIES_MAX: usize = 64;
/// Companies that a step's changes reach, after which it takes in no other event: a company's change reaches those that it stands for.
const STEP_REACHED_MAX: usize = 20_000;
/// Memory for records used lately, of each sort.
const CACHE_BYTES: u64 = 24 << 20;

/// The records used lately, and the way to all others.
pub(crate) struct Memory {
    keyring: Arc<Keyring>,
    skips: Skips,
    history: Statement,
    companies: Kept<Company>,
    prospects: Kept<Prospect>,
}

type Kept<R> = Cache<Place, Arc<Folded<R>>, Weight>;

#[derive(Clone)]
struct Weight;

impl<R: Shown> Weighter<Place, Arc<Folded<R>>> for Weight {
    fn weight(&self, _: &Place, kept: &Arc<Folded<R>>) -> u64 {
        kept.weight_bytes() as u64
    }
}

/// $1 tenants, $2 records, $3 the last position
const HISTORY: &str = "-- projector::memory::history
    SELECT e.position, e.tenant_id, e.aggregate_type, e.aggregate_id, e.sequence, e.event_id, e.event_type,
           e.event_version, e.payload, e.metadata, e.recorded_at
    FROM unnest($1::uuid[], $2::uuid[]) AS n (tenant_id, aggregate_id)
    CROSS JOIN LATERAL (
        SELECT * FROM log.events AS e
        WHERE e.tenant_id = n.tenant_id AND e.aggregate_id = n.aggregate_id AND e.position <= $3
        ORDER BY e.sequence
    ) AS e";

impl Memory {
    /// One that remembers nothing; `log` is the connection that it will be used with, `skips` are the events that count and say nothing.
    pub(crate) async fn new(log: &Client, keyring: Arc<Keyring>, skips: Skips) -> Result<Self, Error> {
        Ok(Self {
            keyring,
            skips,
            history: log.prepare(HISTORY).await?,
            companies: Cache::with_weighter(16_000, CACHE_BYTES, Weight),
            prospects: Cache::with_weighter(16_000, CACHE_BYTES, Weight),
        })
    }

    /// Remembers the records of a step that was taken.
    pub(crate) fn keep(&self, change: Change) {
        change.companies.into_iter().for_each(|(place, record)| self.companies.insert(place, Arc::from(record)));
        change.prospects.into_iter().for_each(|(place, record)| self.prospects.insert(place, Arc::from(record)));
    }

    /// Forgets all records: others have taken steps meanwhile, and erased some, perhaps.
    pub(crate) fn forget(&self) {
        self.companies.clear();
        self.prospects.clear();
    }

    /// Leaves out these events from now on; what was folded otherwise is forgotten.
    pub(crate) fn leave_out(&mut self, skips: Skips) {
        if self.skips != skips {
            self.skips = skips;
            self.forget();
        }
    }

    /// How many records it remembers.
    pub(crate) fn len(&self) -> usize {
        self.companies.len() + self.prospects.len()
    }

    /// The records that the events touch, after them, and how many of the events these are: not all, where their records are more
    /// than a step takes in.
    ///
    /// # Errors
    /// If the log cannot be read, or an event cannot be applied.
    pub(crate) async fn fold(
        &self,
        log: &Client,
        position: i64,
        events: &[StoredEvent],
    ) -> Result<(Change, usize), StepError> {
        let keys = self.keys(log, events).await?;
        let mut change = Change::default();
        let mut first: HashMap<Place, i64> = HashMap::new();
        let mut missing = Vec::new();
        let mut held = Held::default();
        let mut taken = events.len();
        for (index, event) in events.iter().enumerate() {
            let place = (event.tenant_id, event.aggregate_id);
            if is_without_rows(&event.aggregate_type) || first.contains_key(&place) {
                continue;
            }
            if held.is_full() {
                taken = index;
                break;
            }
            first.insert(place, event.sequence);
            let before = event.sequence - 1;
            let found = match event.aggregate_type.as_str() {
                Company::TYPE if before > 0 => take(&self.companies, &place, before, &mut change.companies),
                Prospect::TYPE if before > 0 => take(&self.prospects, &place, before, &mut change.prospects),
                _ => Some(0),
            };
            match found {
                Some(bytes) => held.records_bytes += bytes,
                None => missing.push((place, event.position)),
            }
            if missing.len() == HISTORIES_MAX {
                self.read(log, position, &missing, &keys, &mut change, &mut held).await?;
                missing.clear();
            }
        }
        self.read(log, position, &missing, &keys, &mut change, &mut held).await?;
        // Where prospects were before this step: that company may need a row of its own now.
        let before: Vec<Place> =
            change.prospects.iter().filter_map(|(place, record)| Some((place.0, record.state.company_id?))).collect();
        change.touched.extend(before);
        for (index, event) in events[..taken].iter().enumerate() {
            let place = (event.tenant_id, event.aggregate_id);
            if event.aggregate_type == Company::TYPE {
                // A company that is new in this step has no rows yet that it could reach.
                let has_rows = first.get(&place).is_some_and(|sequence| *sequence > 1);
                change.apply_to_company(event, &keys, &self.skips, has_rows)?;
            } else {
                change.apply(event, &keys, &self.skips)?;
                if let Some(company) = change.prospects.get(&place).and_then(|record| record.state.company_id) {
                    change.touched.insert((event.tenant_id, company));
                }
            }
            if change.changed.len() + change.merged.len() > STEP_REACHED_MAX {
                taken = index + 1;
                break;
            }
        }
        Ok((change, taken))
    }

    /// The keys of the persons whose events these are.
    async fn keys(&self, log: &Client, events: &[StoredEvent]) -> Result<PersonKeys, StepError> {
        let fetch = async |events: &[StoredEvent]| {
            let persons = events.iter().filter(|event| event.aggregate_type == Prospect::TYPE);
            let persons = persons.filter(|event| !self.skips.contains(event.position));
            let persons: HashSet<Place> = persons.map(|event| (event.tenant_id, event.aggregate_id)).collect();
            PersonKeys::fetch(log, &self.keyring, persons).await
        };
        let mut source = match fetch(events).await {
            Ok(keys) => return Ok(keys),
            Err(KeyError::Database(error)) => return Err(error.into()),
            Err(error) => error,
        };
        // Which person's it is shows in how many events' keys can be had.
        let (mut good, mut bad) = (0, events.len());
        while bad - good > 1 {
            let middle = good.midpoint(bad);
            match fetch(&events[..middle]).await {
                Ok(_) => good = middle,
                Err(KeyError::Database(error)) => return Err(error.into()),
                Err(error) => (bad, source) = (middle, error),
            }
        }
        Err(StepError::Key { position: events[good].position, source })
    }

    /// Folds the events of these records up to the checkpoint; with each record stands the position of its first event of the step.
    async fn read(
        &self,
        log: &Client,
        position: i64,
        records: &[(Place, i64)],
        keys: &PersonKeys,
        change: &mut Change,
        held: &mut Held,
    ) -> Result<(), StepError> {
        if records.is_empty() {
            return Ok(());
        }
        let (tenants, ids): (Vec<Uuid>, Vec<Uuid>) = records.iter().map(|(place, _)| *place).unzip();
        let parameters: [&(dyn ToSql + Sync); 3] = [&tenants, &ids, &position];
        let mut rows = pin!(log.query_raw(&self.history, parameters).await?);
        // One after the other, so that only states are held.
        while let Some(row) = rows.try_next().await? {
            let event = StoredEvent::from_row(&row)?;
            held.histories_bytes += event.payload.len() + event.metadata.len();
            change.apply(&event, keys, &self.skips).map_err(|source| {
                let place = (event.tenant_id, event.aggregate_id);
                let first = records.iter().find(|(record, _)| *record == place).map(|(_, position)| *position);
                StepError::History { position: first.unwrap_or(event.position), source }
            })?;
        }
        held.records_bytes += records.iter().map(|(place, _)| change.weight_bytes(place)).sum::<usize>();
        Ok(())
    }
}

/// What a step's events lead to.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) companies: Records<Company>,
    pub(crate) prospects: Records<Prospect>,
    /// Companies that changed, or that prospects came to or left: each may need, or lose, a row of its own.
    pub(crate) touched: BTreeSet<Place>,
    /// Companies that have rows which a change must reach, their own or that of the company that stands for them, with the position of the
    /// first such change.
    pub(crate) changed: HashMap<Place, i64>,
    /// Companies for which another one stands from now on, with that one; none where they stand for themselves again.
    pub(crate) merged: BTreeMap<Place, Option<Uuid>>,
}

impl Change {
    fn apply(&mut self, event: &StoredEvent, keys: &PersonKeys, skips: &Skips) -> Result<(), ApplyError> {
        match event.aggregate_type.as_str() {
            Company::TYPE => apply(&mut self.companies, event, keys, skips),
            Prospect::TYPE => apply(&mut self.prospects, event, keys, skips),
            sort if is_without_rows(sort) || skips.contains(event.position) => Ok(()),
            other => Err(ApplyError::Sort { position: event.position, aggregate_type: other.to_owned() }),
        }
    }

    /// Applies a company's event, and notes whose rows show it. `has_rows` says whether the company was there before this step.
    fn apply_to_company(
        &mut self,
        event: &StoredEvent,
        keys: &PersonKeys,
        skips: &Skips,
        has_rows: bool,
    ) -> Result<(), ApplyError> {
        let (tenant, id) = (event.tenant_id, event.aggregate_id);
        let standing = |companies: &Records<Company>| match companies.get(&(tenant, id)) {
            Some(record) => (record.state.status, record.state.stands_for().collect::<Vec<Uuid>>()),
            None => (Status::Unregistered, Vec::new()),
        };
        let (status_before, stood_for) = standing(&self.companies);
        self.apply(event, keys, skips)?;
        let (status, stands_for) = standing(&self.companies);
        self.touched.insert((tenant, id));
        let reached = stood_for.iter().chain(&stands_for).copied().chain(has_rows.then_some(id));
        for company in reached {
            self.changed.entry((tenant, company)).or_insert(event.position);
        }
        match (status_before, status) {
            (Status::Merged { .. }, Status::Merged { .. }) => {}
            // Only a company that stands for itself is merged into, so it is the end of the chain.
            (_, Status::Merged { into }) => {
                self.touched.insert((tenant, into));
                self.merged.insert((tenant, id), Some(into));
                self.merged.extend(stands_for.into_iter().map(|company| ((tenant, company), Some(into))));
            }
            (Status::Merged { into }, _) => {
                self.touched.insert((tenant, into));
                self.merged.insert((tenant, id), None);
                self.merged.extend(stands_for.into_iter().map(|company| ((tenant, company), Some(id))));
            }
            _ => {}
        }
        Ok(())
    }

    fn weight_bytes(&self, place: &Place) -> usize {
        self.companies.get(place).map_or(0, |record| record.weight_bytes())
            + self.prospects.get(place).map_or(0, |record| record.weight_bytes())
    }
}

/// Whether records of this sort have no row: what an import did to companies and prospects stands in their own events, and what was
/// decided about a projection is read by [`Skips`].
pub(crate) fn is_without_rows(aggregate_type: &str) -> bool {
    WITHOUT_ROWS.contains(&aggregate_type)
}

/// The sorts of records that have no row.
pub(crate) const WITHOUT_ROWS: [&str; 2] = [Import::TYPE, domain::Projection::TYPE];

/// What a step has taken in before its events are applied.
#[derive(Default)]
struct Held {
    records_bytes: usize,
    histories_bytes: usize,
}

impl Held {
    fn is_full(&self) -> bool {
        self.records_bytes > STEP_RECORDS_BYTES_MAX || self.histories_bytes > STEP_HISTORIES_BYTES_MAX
    }
}

/// Takes a kept record into the step if it is at the wanted version; gives its bytes.
fn take<R: Shown>(kept: &Kept<R>, place: &Place, version: i64, into: &mut Records<R>) -> Option<usize> {
    let record = kept.get(place).filter(|record| record.version == version)?;
    into.insert(*place, Box::new(Folded::clone(&record)));
    Some(record.weight_bytes())
}
