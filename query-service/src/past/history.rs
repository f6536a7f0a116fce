//! The history of a record: its events with who, when, from where and why, and what each of them changed.
//!
//! While companies are merged, the history of the one that stands for them has the events of all of them, each with its
//! `aggregate_id`, in the order of the log: what the merged ones were before is part of what the primary is now. Once unmerged, each has
//! its own again, and the merge itself stays in both. The history of a merged company is its own; where it went is in the change of
//! `merged_into`.

use std::collections::HashMap;

use deadpool_postgres::{Object, Transaction};
use domain::Traced;
use event_store::StoredEvent;
use event_store::json_text::JsonText;
use event_store::keyring::Keyring;
use event_store::seal::{PersonKeyState, PersonKeys};
use projector::columns::Cell;
use projector::record::Folded;
use serde::{Deserialize, Serialize};
use tokio_postgres::IsolationLevel;
use uuid::Uuid;

use super::Past;
use super::changes::{self, Change};
use super::fold::{Until, fold, keys_of};
use crate::problems::ReadError;
use crate::read::{BIND_TENANT, Question, Snapshot, State, tenant_text};
use crate::record::{instant_text, write_json};
use crate::replicas::Scope;
use crate::routes::PAGE_BYTES_MAX;

/// A page of a record's history.
pub(crate) struct HistoryOf<'a, R> {
    pub(crate) keyring: &'a Keyring,
    pub(crate) tenant: Uuid,
    pub(crate) id: Uuid,
    /// Only events after this position.
    pub(crate) after: i64,
    /// So many of them at most.
    pub(crate) limit: usize,
    pub(crate) sort: std::marker::PhantomData<fn() -> R>,
}

/// What a page shows.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// As JSON, with commas between them.
    pub(crate) items: Vec<u8>,
    /// Where the next page goes on, if there is one.
    pub(crate) next: Option<i64>,
    /// The records that it speaks of.
    pub(crate) shown: Vec<Uuid>,
}

/// What stands beside an event. Everything may be missing: what is stored is shown, whoever wrote it.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
struct Beside {
    actor: Option<String>,
    actor_role: Option<String>,
    correlation_id: Option<String>,
    causation_id: Option<String>,
    request_id: Option<String>,
    client_address: Option<String>,
    source: Option<String>,
}

#[derive(Serialize)]
struct Item<'a> {
    position: i64,
    sequence: i64,
    aggregate_id: Uuid,
    event_id: Uuid,
    r#type: &'a str,
    recorded_at: String,
    #[serde(flatten)]
    beside: &'a Beside,
    key: Option<&'a str>,
    import_id: Option<Uuid>,
    row: Option<u64>,
    /// Why, where the event says so: of an erasure.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    changes: &'a [Change],
}

/// An event on its way to the page.
struct Found {
    event: StoredEvent,
    traced_to: Option<Traced>,
    reason: Option<String>,
    changes: Vec<Change>,
}

impl<R: Past> Question for HistoryOf<'_, R> {
    /// None where there is no such record.
    type Data = Option<Page>;
    const SCOPE: Scope = Scope::Log;

    async fn ask(&self, client: &mut Object, _: i32) -> Result<Snapshot<Option<Page>>, ReadError> {
        let transaction =
            client.build_transaction().read_only(true).isolation_level(IsolationLevel::RepeatableRead).start().await?;
        let bind = transaction.prepare_cached(BIND_TENANT).await?;
        transaction.query(&bind, &[&tenant_text(self.tenant)]).await?;
        let state = State::of_log(&transaction).await?;
        let keys = keys_of::<R>(&transaction, self.keyring, self.tenant, self.id).await?;
        let (mut page, records) = self.collect(&transaction, &keys, &[self.id]).await?;
        let Some(record) = records.get(&self.id) else {
            transaction.commit().await?;
            return Ok(Snapshot { state, data: None });
        };
        let others = record.state.others();
        if !others.is_empty() {
            let all: Vec<Uuid> = std::iter::once(self.id).chain(others).collect();
            page = self.collect(&transaction, &keys, &all).await?.0;
        }
        let page = self.shown(&transaction, page).await?;
        transaction.commit().await?;
        Ok(Snapshot { state, data: Some(page) })
    }

    async fn ask_state(&self, client: &mut Object, _: i32) -> Result<State, ReadError> {
        let transaction = client.build_transaction().read_only(true).start().await?;
        let state = State::of_log(&transaction).await?;
        transaction.commit().await?;
        Ok(state)
    }
}

/// The events of a page, and whether there are more.
#[derive(Default)]
struct Collected {
    found: Vec<Found>,
    bytes: usize,
    more: bool,
}

impl<R: Past> HistoryOf<'_, R> {
    /// Folds these records to the end and keeps the events of the page.
    async fn collect(
        &self,
        transaction: &Transaction<'_>,
        keys: &PersonKeys,
        ids: &[Uuid],
    ) -> Result<(Collected, HashMap<Uuid, Folded<R>>), ReadError> {
        let erased = matches!(keys.get(self.tenant, self.id), Some(PersonKeyState::Erased(_)));
        let mut page = Collected::default();
        // What each record showed after its last event, where that was looked at.
        let mut cells: HashMap<Uuid, Vec<Cell>> = HashMap::with_capacity(ids.len());
        let records = fold::<R>(transaction, keys, self.tenant, ids, Until::NOW, |mut event, read, record| {
            if event.position <= self.after {
                return record.evolve(&event, read);
            }
            // A page of large events ends early; one alone is a page, however large.
            page.more |= page.found.len() >= self.limit || (page.bytes > PAGE_BYTES_MAX && !page.found.is_empty());
            if page.more {
                return record.evolve(&event, read);
            }
            let place = (self.tenant, event.aggregate_id);
            let mut shown = cells.remove(&event.aggregate_id).unwrap_or_else(|| R::cells(place, record));
            record.evolve(&event, read);
            let mut changes = match R::touches(read) {
                Some(columns) => {
                    let after = R::some_cells(place, record, &columns);
                    changes::of_columns::<R>(&mut shown, &columns, after)
                }
                None => changes::between::<R>(&mut shown, R::cells(place, record)),
            };
            if erased && R::is_personal(read) {
                changes.push(Change::of_erased());
            }
            // What a change holds is in the payload, or was in an earlier one: twice as much is a fair guess of what it takes.
            page.bytes += event.metadata.len() + 2 * event.payload.len() + 256;
            let (traced_to, reason) = (R::traced_to(read), R::reason(read).map(ToOwned::to_owned));
            cells.insert(event.aggregate_id, shown);
            // A page is told without payloads.
            event.payload = String::new();
            page.found.push(Found { event, traced_to, reason, changes });
        })
        .await?;
        Ok((page, records))
    }

    async fn shown(&self, transaction: &Transaction<'_>, page: Collected) -> Result<Page, ReadError> {
        let imports: Vec<Uuid> = page.found.iter().filter_map(|found| Some(found.traced_to?.import_id)).collect();
        let imports = askings(transaction, self.tenant, imports).await?;
        // Room for what was guessed, so that it is not moved while it grows.
        let mut shown = Page { next: None, items: Vec::with_capacity(page.bytes), shown: Vec::new() };
        for found in &page.found {
            let event = &found.event;
            let mut beside: Beside = serde_json::from_str(&event.metadata).unwrap_or_default();
            // Who sent a list or wanted it taken back, and from where, stands beside the import's own events.
            let by_import = beside.actor.as_deref().is_some_and(|actor| actor.starts_with("import:"));
            let asked = found.traced_to.filter(|_| by_import);
            let asked = asked.and_then(|traced| imports.get(&(traced.import_id, traced.undone)));
            if let Some(asked) = asked {
                beside.client_address = beside.client_address.or_else(|| asked.client_address.clone());
            }
            let sender = asked.unwrap_or(&beside).actor.as_deref();
            let item = Item {
                position: event.position,
                sequence: event.sequence,
                aggregate_id: event.aggregate_id,
                event_id: event.event_id,
                r#type: &event.event_type,
                recorded_at: instant_text(event.recorded_at),
                key: sender.and_then(|actor| actor.strip_prefix("key:")),
                beside: &beside,
                import_id: found.traced_to.map(|traced| traced.import_id),
                row: found.traced_to.and_then(|traced| traced.row),
                reason: found.reason.as_deref(),
                changes: &found.changes,
            };
            if !shown.items.is_empty() {
                shown.items.push(b',');
            }
            write_json(&mut shown.items, &item);
            shown.shown.push(event.aggregate_id);
        }
        shown.shown.sort_unstable();
        shown.shown.dedup();
        shown.next = page.found.last().filter(|_| page.more).map(|found| found.event.position);
        Ok(shown)
    }
}

/// What stands beside the events by which somebody sent these lists (false) or wanted them taken back (true).
async fn askings(
    transaction: &Transaction<'_>,
    tenant: Uuid,
    mut imports: Vec<Uuid>,
) -> Result<HashMap<(Uuid, bool), Beside>, ReadError> {
    const SQL: &str = "-- query_service::past::history::askings
        SELECT e.aggregate_id, e.event_type = 'ImportUndoRequested', e.metadata FROM log.events AS e
        WHERE e.tenant_id = $1 /* tenant */ AND e.aggregate_id = ANY($2 /* imports */) AND e.aggregate_type = 'import'
          AND (e.sequence = 1 OR e.event_type = 'ImportUndoRequested')
        ORDER BY e.position";
    imports.sort_unstable();
    imports.dedup();
    if imports.is_empty() {
        return Ok(HashMap::new());
    }
    let statement = transaction.prepare_cached(SQL).await?;
    let rows = transaction.query(&statement, &[&tenant, &imports]).await?;
    let mut askings = HashMap::with_capacity(rows.len());
    for row in rows {
        let JsonText(metadata) = row.try_get(2)?;
        askings.insert((row.try_get(0)?, row.try_get(1)?), serde_json::from_str(metadata).unwrap_or_default());
    }
    Ok(askings)
}
