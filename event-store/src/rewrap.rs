//! Rotation of the key-encryption key: every person's and import's key is wrapped anew by the first key of the key file, in batches,
//! while services run. Who is interrupted begins again and finds less to do.

use service_kit::postgres::describe;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, GenericClient, Row};
use uuid::Uuid;

use crate::keyring::{KeyError, Keyring, WrappedKey};

/// Most keys that are wrapped anew in one transaction.
pub const BATCH_KEYS_MAX: i64 = 5_000;

/// How many keys each key-encryption key wraps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// Name of the key-encryption key.
    pub wrapping_key_id: String,
    /// Keys of persons.
    pub persons: i64,
    /// Keys of imports whose bytes are kept.
    pub imports: i64,
    /// Whether nothing may be wrapped by it any more.
    pub retired: bool,
}

/// Why a key-encryption key is not retired.
#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    /// It is the one that new keys are wrapped by.
    #[error(
        "`{0}` is the first key of the key file, which wraps new keys: put a newer one before it and run `prospectus keys rewrap`"
    )]
    Current(String),
    /// The log does not know it.
    #[error("this log knows no key-encryption key `{0}`")]
    Unknown(String),
    /// It still wraps keys.
    #[error(
        "`{id}` still wraps {keys} keys: run `prospectus keys rewrap` with a key file whose first `wrap` line is another key"
    )]
    InUse {
        /// Its name.
        id: String,
        /// How many.
        keys: i64,
    },
    /// The database is away or refuses.
    #[error("the database: {}", describe(.0))]
    Database(#[from] tokio_postgres::Error),
}

/// The tables that hold wrapped keys, each with the column of the key's owner.
const TABLES: [(&str, &str); 2] = [("log.person_keys", "person_id"), ("log.import_files", "import_id")];

/// How many keys each key-encryption key of the log wraps.
///
/// # Errors
/// What the database said.
pub async fn wrapped(client: &impl GenericClient) -> Result<Vec<Wrapped>, tokio_postgres::Error> {
    const SQL: &str = "-- event_store::rewrap::wrapped
        SELECT w.wrapping_key_id,
               (SELECT count(*) FROM log.person_keys AS k WHERE k.wrapping_key_id = w.wrapping_key_id),
               (SELECT count(*) FROM log.import_files AS f WHERE f.wrapping_key_id = w.wrapping_key_id),
               w.retired_at IS NOT NULL
        FROM log.wrapping_keys AS w WHERE w.wrapping_key_id <> 'index' ORDER BY w.created_at, w.wrapping_key_id";
    let of = |row: &Row| Wrapped {
        wrapping_key_id: row.get(0),
        persons: row.get(1),
        imports: row.get(2),
        retired: row.get(3),
    };
    Ok(client.query(SQL, &[]).await?.iter().map(of).collect())
}

/// Wraps anew every key that another key-encryption key than the current one wraps; tells `progress` how many each batch did. Gives how many
/// in all. What a service writes meanwhile under another key is left for the next time: `wrapped` tells.
///
/// # Errors
/// If a key cannot be unwrapped, which stops it and changes nothing, or the database fails. What was wrapped anew before stays so.
pub async fn rewrap(client: &Client, keyring: &Keyring, mut progress: impl FnMut(u64)) -> Result<u64, KeyError> {
    let mut done = 0;
    for (table, owner) in TABLES {
        let mut after = (Uuid::nil(), Uuid::nil());
        while let Some((last, keys)) = batch(client, keyring, table, owner, after).await? {
            after = last;
            done += keys;
            progress(keys);
        }
    }
    Ok(done)
}

/// One batch; gives the place of its last key and how many it did, none where there are no more.
async fn batch(
    client: &Client,
    keyring: &Keyring,
    table: &str,
    owner: &str,
    after: (Uuid, Uuid),
) -> Result<Option<((Uuid, Uuid), u64)>, KeyError> {
    let find = format!(
        "-- event_store::rewrap::batch, find
        SELECT tenant_id, {owner}, wrapping_key_id, wrapped_key FROM {table}
        WHERE (tenant_id, {owner}) > ($1, $2) AND wrapping_key_id <> $3
        ORDER BY tenant_id, {owner} LIMIT $4"
    );
    let rows = client.query(&find, &[&after.0, &after.1, &keyring.current_id(), &BATCH_KEYS_MAX]).await?;
    let Some(last) = rows.last().map(|row| (row.get(0), row.get(1))) else { return Ok(None) };
    let (mut tenants, mut owners, mut before, mut wrapped) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        let (tenant, id): (Uuid, Uuid) = (row.get(0), row.get(1));
        let stands = WrappedKey { wrapping_key_id: row.get(2), wrapped: row.get(3) };
        let key = keyring.unwrap(tenant, id, &stands)?;
        tenants.push(tenant);
        owners.push(id);
        wrapped.push(keyring.wrap(tenant, id, &key)?.wrapped);
        before.push(stands.wrapped);
    }
    // Only where the key is still the one that was unwrapped: a person who was erased meanwhile stays so.
    let write = format!(
        "-- event_store::rewrap::batch, write
        UPDATE {table} AS k SET wrapping_key_id = $1, wrapped_key = n.wrapped
        FROM unnest($2::uuid[], $3::uuid[], $4::bytea[], $5::bytea[]) AS n (tenant_id, owner_id, before, wrapped)
        WHERE k.tenant_id = n.tenant_id AND k.{owner} = n.owner_id AND k.wrapped_key = n.before"
    );
    let current = keyring.current_id();
    let parameters: [&(dyn ToSql + Sync); 5] = [&current, &tenants, &owners, &before, &wrapped];
    Ok(Some((last, client.execute(&write, &parameters).await?)))
}

/// Retires a key-encryption key that wraps nothing any more: from now on nothing can be wrapped by it, and key files may do without it.
///
/// # Errors
/// If it is the current one or still wraps keys.
pub async fn retire(client: &mut Client, keyring: &Keyring, id: &str) -> Result<(), RetireError> {
    const RETIRE: &str = "-- event_store::rewrap::retire
        UPDATE log.wrapping_keys SET retired_at = coalesce(retired_at, clock_timestamp()) WHERE wrapping_key_id = $1";
    const TAKE_BACK: &str = "-- event_store::rewrap::retire, take back
        UPDATE log.wrapping_keys SET retired_at = NULL WHERE wrapping_key_id = $1";
    if id == keyring.current_id() {
        return Err(RetireError::Current(id.to_owned()));
    }
    still_used(client, id).await?;
    // Nobody may be about to commit a key wrapped by it: persons' keys are written under the log's lock, imports' wait for this one. Both are
    // held for this alone; counting takes long.
    let transaction = client.transaction().await?;
    transaction
        .batch_execute("SELECT log.take_lock(); LOCK TABLE log.import_files IN SHARE ROW EXCLUSIVE MODE")
        .await?;
    transaction.execute(RETIRE, &[&id]).await?;
    transaction.commit().await?;
    let used = still_used(client, id).await;
    if matches!(used, Err(RetireError::InUse { .. })) {
        client.execute(TAKE_BACK, &[&id]).await?;
    }
    used
}

/// Passes if a key-encryption key wraps nothing.
async fn still_used(client: &Client, id: &str) -> Result<(), RetireError> {
    let found = wrapped(client).await?.into_iter().find(|one| one.wrapping_key_id == id);
    let found = found.ok_or_else(|| RetireError::Unknown(id.to_owned()))?;
    match found.persons + found.imports {
        0 => Ok(()),
        keys => Err(RetireError::InUse { id: id.to_owned(), keys }),
    }
}
