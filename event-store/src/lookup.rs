//! Finding records by what they hold or can be found by: many at a time, for those who link many rows to records (decision 5).

use std::collections::{HashMap, HashSet};

use tokio_postgres::Client;
use uuid::Uuid;

/// The most values that one question may name.
pub const VALUES_MAX: usize = 50_000;
/// The most records that are told of one value that is not unique.
pub const MATCHES_MAX: usize = 20;

/// A sort of value and the text that stands in the database for it ([`crate::Keyring::claim_key`]).
pub type Value = (&'static str, String);

/// Who holds which of these claims; values that nobody holds are missing.
///
/// # Errors
/// What the database said.
pub async fn holders(
    client: &Client,
    tenant: Uuid,
    values: &[Value],
) -> Result<HashMap<Value, Uuid>, tokio_postgres::Error> {
    const SQL: &str = "-- event_store::lookup::holders
        SELECT n.ordinality, c.aggregate_id
        FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS n (kind, key, ordinality)
        JOIN log.claims AS c ON c.tenant_id = $1 AND c.kind = n.kind AND c.key = n.key AND NOT c.released";
    let mut found = HashMap::new();
    for values in values.chunks(VALUES_MAX) {
        for (place, aggregate_id) in ask(client, SQL, tenant, values).await? {
            found.insert(values[place].clone(), aggregate_id);
        }
    }
    Ok(found)
}

/// Which records can be found by these values, at most [`MATCHES_MAX`] of one, the oldest first.
///
/// # Errors
/// What the database said.
pub async fn matches(
    client: &Client,
    tenant: Uuid,
    values: &[Value],
) -> Result<HashMap<Value, Vec<Uuid>>, tokio_postgres::Error> {
    const SQL: &str = "-- event_store::lookup::matches
        SELECT n.ordinality, m.aggregate_id
        FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS n (kind, key, ordinality)
        CROSS JOIN LATERAL (
            SELECT aggregate_id FROM log.matches AS m
            WHERE m.tenant_id = $1 AND m.kind = n.kind AND m.key = n.key ORDER BY aggregate_id LIMIT 20
        ) AS m";
    let mut found: HashMap<Value, Vec<Uuid>> = HashMap::new();
    for values in values.chunks(VALUES_MAX) {
        for (place, aggregate_id) in ask(client, SQL, tenant, values).await? {
            found.entry(values[place].clone()).or_default().push(aggregate_id);
        }
    }
    for records in found.values_mut() {
        records.sort_unstable();
    }
    Ok(found)
}

/// Which of these values, by which records are found, name erased persons whom the tenant does not let in again.
///
/// # Errors
/// What the database said.
pub async fn erased(client: &Client, tenant: Uuid, values: &[Value]) -> Result<HashSet<Value>, tokio_postgres::Error> {
    const SQL: &str = "-- event_store::lookup::erased
        SELECT DISTINCT n.ordinality, e.tenant_id
        FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS n (kind, key, ordinality)
        JOIN log.erased_values AS e ON e.tenant_id = $1 AND e.kind = n.kind AND e.key = n.key
        WHERE access.refuses_erased_persons($1)";
    let mut found = HashSet::new();
    for values in values.chunks(VALUES_MAX) {
        found.extend(ask(client, SQL, tenant, values).await?.into_iter().map(|(place, _)| values[place].clone()));
    }
    Ok(found)
}

async fn ask(
    client: &Client,
    sql: &str,
    tenant: Uuid,
    values: &[Value],
) -> Result<Vec<(usize, Uuid)>, tokio_postgres::Error> {
    let kinds: Vec<&str> = values.iter().map(|(kind, _)| *kind).collect();
    let keys: Vec<&str> = values.iter().map(|(_, key)| key.as_str()).collect();
    let rows = client.query(sql, &[&tenant, &kinds, &keys]).await?;
    let place = |ordinality: i64| usize::try_from(ordinality).expect("ordinalities count from 1") - 1;
    Ok(rows.iter().map(|row| (place(row.get(0)), row.get(1))).collect())
}
