//! Signed heads and public keys in the database.

use time::OffsetDateTime;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use super::hash::Hash;
use super::head::{Head, SignedHead};
use super::key::{PublicKey, SealKeys};
use super::stored::Runs;
use super::{to_bigint, to_count};

/// Keys that are read: a deployment has a handful.
const KEYS_MAX: i64 = 1_000;

/// A head as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredHead {
    /// 1, 2, 3, … in the order in which they were signed.
    pub number: i64,
    /// The head.
    pub signed: SignedHead,
}

/// A key that heads were signed with, or will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// The key.
    pub key: PublicKey,
    /// When a sealer first had it.
    pub created_at: OffsetDateTime,
}

/// An epoch of the log, as heads are compared with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// Its number.
    pub number: i64,
    /// Its name.
    pub name: String,
    /// Positions from here on belong to it.
    pub first_position: u64,
}

/// Why heads cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HeadsError {
    /// What the server or the network said.
    #[error("the signed heads cannot be read: {}", service_kit::postgres::describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// A row is not of its form, which the table's checks exclude.
    #[error("the signed head {0} is not of its form")]
    Form(i64),
}

impl StoredHead {
    /// Reads a row of `number, log_id, epoch, tree_size, root_hash, signed_at, key_id, signature`.
    ///
    /// # Errors
    /// If it is not of its form.
    pub fn from_row(row: &Row) -> Result<Self, HeadsError> {
        let number = row.try_get(0)?;
        let root_hash = Hash::from_slice(row.try_get(4)?).ok_or(HeadsError::Form(number))?;
        let signature = row.try_get::<_, &[u8]>(7)?.try_into().map_err(|_| HeadsError::Form(number))?;
        let head = Head {
            log_id: row.try_get(1)?,
            epoch: row.try_get(2)?,
            tree_size: to_count(row.try_get(3)?),
            root_hash,
            time: row.try_get(5)?,
        };
        Ok(Self { number, signed: SignedHead { head, key_id: row.try_get(6)?, signature } })
    }
}

/// The newest head; none before the first.
///
/// # Errors
/// See [`HeadsError`].
pub async fn newest(client: &impl GenericClient) -> Result<Option<StoredHead>, HeadsError> {
    const SQL: &str = "-- event_store::proof::heads::newest
        SELECT h.number, h.log_id, h.epoch, h.tree_size, h.root_hash, h.signed_at, h.key_id, h.signature
        FROM log.tree_heads AS h ORDER BY h.number DESC LIMIT 1";
    client.query_opt(SQL, &[]).await?.map(|row| StoredHead::from_row(&row)).transpose()
}

/// The newest head of exactly this size.
///
/// # Errors
/// See [`HeadsError`].
pub async fn of_size(client: &impl GenericClient, size: u64) -> Result<Option<StoredHead>, HeadsError> {
    const SQL: &str = "-- event_store::proof::heads::of_size
        SELECT h.number, h.log_id, h.epoch, h.tree_size, h.root_hash, h.signed_at, h.key_id, h.signature
        FROM log.tree_heads AS h WHERE h.tree_size = $1 ORDER BY h.number DESC LIMIT 1";
    client.query_opt(SQL, &[&to_bigint(size)]).await?.map(|row| StoredHead::from_row(&row)).transpose()
}

/// Heads after a number, in order.
///
/// # Errors
/// See [`HeadsError`].
pub async fn after(client: &impl GenericClient, number: i64, limit: i64) -> Result<Vec<StoredHead>, HeadsError> {
    const SQL: &str = "-- event_store::proof::heads::after
        SELECT h.number, h.log_id, h.epoch, h.tree_size, h.root_hash, h.signed_at, h.key_id, h.signature
        FROM log.tree_heads AS h WHERE h.number > $1 ORDER BY h.number LIMIT $2";
    client.query(SQL, &[&number, &limit]).await?.iter().map(StoredHead::from_row).collect()
}

/// Heads before a number, newest first.
///
/// # Errors
/// See [`HeadsError`].
pub async fn before(client: &impl GenericClient, number: i64, limit: i64) -> Result<Vec<StoredHead>, HeadsError> {
    const SQL: &str = "-- event_store::proof::heads::before
        SELECT h.number, h.log_id, h.epoch, h.tree_size, h.root_hash, h.signed_at, h.key_id, h.signature
        FROM log.tree_heads AS h WHERE h.number < $1 ORDER BY h.number DESC LIMIT $2";
    client.query(SQL, &[&number, &limit]).await?.iter().map(StoredHead::from_row).collect()
}

/// Heads that are read at first where any number may have to be looked at, and then at a time.
const FIRST_HEADS: i64 = 16;
const PAGE_HEADS: i64 = 10_000;

/// Heads in the order of their sizes, page by page: however many there are, a bounded number is held.
#[derive(Debug)]
pub struct BySize {
    after: (i64, i64),
    to: i64,
    limit: i64,
    done: bool,
}

impl BySize {
    /// Heads whose size is greater than the first and at most the second.
    pub fn between(above: u64, to: u64) -> Self {
        Self { after: (to_bigint(above), i64::MAX), to: to_bigint(to), limit: FIRST_HEADS, done: false }
    }

    /// The next page, the smallest first; an empty one is the end.
    ///
    /// # Errors
    /// See [`HeadsError`].
    pub async fn next(&mut self, client: &impl GenericClient) -> Result<Vec<StoredHead>, HeadsError> {
        const SQL: &str = "-- event_store::proof::heads::by_size
            SELECT h.number, h.log_id, h.epoch, h.tree_size, h.root_hash, h.signed_at, h.key_id, h.signature
            FROM log.tree_heads AS h WHERE (h.tree_size, h.number) > ($1, $2) AND h.tree_size <= $3
            ORDER BY h.tree_size, h.number LIMIT $4";
        if self.done {
            return Ok(Vec::new());
        }
        let rows = client.query(SQL, &[&self.after.0, &self.after.1, &self.to, &self.limit]).await?;
        let heads: Vec<StoredHead> = rows.iter().map(StoredHead::from_row).collect::<Result<_, _>>()?;
        self.limit = PAGE_HEADS;
        match heads.last() {
            Some(last) => self.after = (to_bigint(last.signed.head.tree_size), last.number),
            None => self.done = true,
        }
        Ok(heads)
    }
}

/// The largest head that `counts`; the forged ones above it are passed over.
///
/// # Errors
/// See [`HeadsError`].
pub async fn largest(
    client: &impl GenericClient,
    counts: impl Fn(&SignedHead) -> bool,
) -> Result<Option<StoredHead>, HeadsError> {
    const SQL: &str = "-- event_store::proof::heads::largest
        SELECT h.number, h.log_id, h.epoch, h.tree_size, h.root_hash, h.signed_at, h.key_id, h.signature
        FROM log.tree_heads AS h WHERE (h.tree_size, h.number) < ($1, $2)
        ORDER BY h.tree_size DESC, h.number DESC LIMIT $3";
    let (mut before, mut limit) = ((i64::MAX, i64::MAX), FIRST_HEADS);
    loop {
        let rows = client.query(SQL, &[&before.0, &before.1, &limit]).await?;
        let heads: Vec<StoredHead> = rows.iter().map(StoredHead::from_row).collect::<Result<_, _>>()?;
        let Some(last) = heads.last() else { return Ok(None) };
        before = (to_bigint(last.signed.head.tree_size), last.number);
        limit = PAGE_HEADS;
        if let Some(found) = heads.into_iter().find(|head| counts(&head.signed)) {
            return Ok(Some(found));
        }
    }
}

/// Every public key, the oldest first.
///
/// # Errors
/// What the database said.
pub async fn keys(client: &impl GenericClient) -> Result<Vec<KnownKey>, tokio_postgres::Error> {
    const SQL: &str = "-- event_store::proof::heads::keys
        SELECT k.public_key, k.created_at FROM log.seal_keys AS k ORDER BY k.created_at, k.key_id LIMIT $1";
    let rows = client.query(SQL, &[&KEYS_MAX]).await?;
    let known = |row: &Row| Some(KnownKey { key: PublicKey::from_slice(row.get(0))?, created_at: row.get(1) });
    Ok(rows.iter().filter_map(known).collect())
}

/// Leaves word of the keys' public halves.
///
/// # Errors
/// What the database said.
pub async fn publish_keys(client: &impl GenericClient, keys: &SealKeys) -> Result<(), tokio_postgres::Error> {
    const SQL: &str = "-- event_store::proof::heads::publish_keys
        INSERT INTO log.seal_keys (key_id, public_key) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    for key in keys.public() {
        client.execute(SQL, &[&key.id(), &key.as_bytes().as_slice()]).await?;
    }
    Ok(())
}

/// Which log this is.
///
/// # Errors
/// What the database said.
pub async fn log_id(client: &impl GenericClient) -> Result<Uuid, tokio_postgres::Error> {
    const SQL: &str = "-- event_store::proof::heads::log_id
        SELECT i.log_id FROM log.identity AS i";
    Ok(client.query_one(SQL, &[]).await?.get(0))
}

/// The log's epochs, the oldest first.
///
/// # Errors
/// What the database said.
pub async fn lives(client: &impl GenericClient) -> Result<Vec<Life>, tokio_postgres::Error> {
    const SQL: &str = "-- event_store::proof::heads::lives
        SELECT e.number, e.name, e.first_position FROM log.epochs AS e ORDER BY e.number";
    let life = |row: &Row| Life { number: row.get(0), name: row.get(1), first_position: to_count(row.get(2)) };
    Ok(client.query(SQL, &[]).await?.iter().map(life).collect())
}

/// The epoch that the event at a position is of.
pub fn life_at(lives: &[Life], position: u64) -> Option<&Life> {
    lives.iter().rev().find(|life| life.first_position <= position)
}

/// The epoch that has used positions of a head again, if one has: part of what the head covers was lost with its server.
pub fn successor<'a>(lives: &'a [Life], head: &Head) -> Option<&'a Life> {
    let number = head.epoch_number()?;
    lives
        .iter()
        .filter(|life| life.number > number || (life.number == number && life.name != head.epoch))
        .filter(|life| life.first_position <= head.tree_size)
        .min_by_key(|life| life.first_position)
}

/// Of a head that was kept outside the database, the epoch that has used its positions again: as [`successor`], and for a head of an
/// epoch that this log never had the newest one at or below it, because a restored backup knows nothing of the lives after it.
pub fn successor_of_kept<'a>(lives: &'a [Life], head: &Head) -> Option<&'a Life> {
    let never_had = lives.iter().all(|life| life.name != head.epoch);
    let newest = || lives.iter().filter(|life| life.first_position <= head.tree_size).max_by_key(|life| life.number);
    successor(lives, head).or_else(|| if never_had { newest() } else { None })
}

/// Writes a head and the hashes that came with it, in one statement. Another sealer that was first collides.
pub(super) async fn write(
    client: &impl GenericClient,
    head: &StoredHead,
    epoch: i64,
    runs: &Runs,
) -> Result<(), tokio_postgres::Error> {
    const SQL: &str = "-- event_store::proof::heads::write
        WITH hashes AS (
            INSERT INTO log.tree_hashes (level, first, epoch, hashes)
            SELECT n.level, n.first, $1 /* epoch */, n.hashes
            FROM unnest($2 /* levels */ ::smallint[], $3 /* firsts */ ::bigint[], $4 /* hashes */ ::bytea[]) AS n (level, first, hashes)
        )
        INSERT INTO log.tree_heads (number, log_id, epoch, tree_size, root_hash, signed_at, key_id, signature)
        VALUES ($5 /* number */, $6 /* log */, $7 /* epoch */, $8 /* size */, $9 /* root */, $10 /* time */, $11 /* key */, $12)";
    let SignedHead { head: said, key_id, signature } = &head.signed;
    let root = said.root_hash.as_bytes().as_slice();
    let size = to_bigint(said.tree_size);
    client
        .execute(
            SQL,
            &[
                &epoch,
                &runs.levels,
                &runs.firsts,
                &runs.hashes,
                &head.number,
                &said.log_id,
                &said.epoch,
                &size,
                &root,
                &said.time,
                key_id,
                &signature.as_slice(),
            ],
        )
        .await?;
    Ok(())
}
