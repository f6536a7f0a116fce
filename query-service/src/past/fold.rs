//! Records folded from the log, event by event as they come from the replica: a history of any length takes the memory of its
//! records' states.

use std::collections::HashMap;
use std::pin::pin;

use deadpool_postgres::Transaction;
use event_store::StoredEvent;
use event_store::keyring::Keyring;
use event_store::seal::PersonKeys;
use futures_util::TryStreamExt as _;
use projector::record::{ApplyError, Folded};
use time::OffsetDateTime;
use time::macros::datetime;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Past;
use crate::problems::ReadError;

/// Up to where events count: all three hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Until {
    pub(crate) position: i64,
    pub(crate) version: i64,
    pub(crate) time: OffsetDateTime,
}

impl Until {
    /// Everything that is there.
    pub(crate) const NOW: Self =
        Self { position: i64::MAX, version: i64::MAX, time: datetime!(9999-12-31 00:00:00 UTC) };

    /// Everything up to a position.
    pub(crate) fn position(position: i64) -> Self {
        Self { position, ..Self::NOW }
    }
}

/// Reads the keys that the events of a record need.
pub(crate) async fn keys_of<R: Past>(
    transaction: &Transaction<'_>,
    keyring: &Keyring,
    tenant: Uuid,
    id: Uuid,
) -> Result<PersonKeys, ReadError> {
    let person = R::PERSONAL.then_some((tenant, id));
    Ok(PersonKeys::fetch(&**transaction, keyring, person).await?)
}

/// Folds the events of some records of a tenant in the order of the log. `step` is given each event, as it is stored and as it was read,
/// and its record before it, which it carries over the event ([`Folded::evolve`]). Gives the records as they are at the end.
pub(crate) async fn fold<R: Past>(
    transaction: &Transaction<'_>,
    keys: &PersonKeys,
    tenant: Uuid,
    ids: &[Uuid],
    until: Until,
    mut step: impl FnMut(StoredEvent, &mut R::Event, &mut Folded<R>) + Send,
) -> Result<HashMap<Uuid, Folded<R>>, ReadError> {
    // One record's events come along the index of sequences, whatever the planner thinks of the positions.
    const SQL: &str = "-- query_service::past::fold
        SELECT e.position, e.tenant_id, e.aggregate_type, e.aggregate_id, e.sequence, e.event_id, e.event_type,
               e.event_version, e.payload, e.metadata, e.recorded_at
        FROM unnest($2::uuid[] /* records */) AS n (aggregate_id)
        CROSS JOIN LATERAL (
            SELECT * FROM log.events AS e
            WHERE e.tenant_id = $1 /* tenant */ AND e.aggregate_id = n.aggregate_id AND e.sequence <= $4 /* version */
            ORDER BY e.sequence
        ) AS e
        WHERE e.aggregate_type = $3 AND e.position <= $5 AND e.recorded_at <= $6 /* time */
        ORDER BY e.position";
    let statement = transaction.prepare_cached(SQL).await?;
    let values: [&(dyn ToSql + Sync); 6] = [&tenant, &ids, &R::TYPE, &until.version, &until.position, &until.time];
    let rows = transaction.query_raw(&statement, values).await?;
    let mut rows = pin!(rows);
    let mut records: HashMap<Uuid, Folded<R>> = HashMap::with_capacity(ids.len());
    while let Some(row) = rows.try_next().await? {
        let event = StoredEvent::from_row(&row)?;
        let mut read: R::Event = keys.read(&event).map_err(ApplyError::from)?;
        let record = records.entry(event.aggregate_id).or_insert_with(|| Folded::before(&event));
        if event.sequence != record.version + 1 {
            let (position, sequence, version) = (event.position, event.sequence, record.version);
            return Err(ApplyError::Sequence { position, sequence, version }.into());
        }
        step(event, &mut read, record);
    }
    Ok(records)
}
