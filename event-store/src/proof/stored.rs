//! Hashes of complete subtrees in `log.tree_hashes`: those of leaves (level 0), of 256 leaves (level 1), of 65,536 (level 2) and so on,
//! in runs that never leave their group of 256. Whatever a proof needs is joined from one group a level or two, so a proof at any size
//! takes a number of rows that grows with the logarithm of the log, and no event is read again.
//!
//! After the log lost a tail, positions are used again: the hashes of the newer epoch count from where its first run begins.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::GenericClient;

use super::frontier::{Complete, Frontier, STORED_BITS};
use super::hash::{HASH_BYTES, Hash};
use super::path::{Node, subtrees};
use super::{to_bigint, to_count};

/// Hashes of a group.
pub const GROUP: u64 = 1 << STORED_BITS;
/// An epoch later than any: all hashes count.
pub const EVERY_EPOCH: i64 = i64::MAX;

/// Why a hash cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// What the server or the network said.
    #[error("the stored hashes cannot be read: {}", service_kit::postgres::describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// A hash of a sealed part is not there.
    #[error("the stored hash {index} of level {level} is missing")]
    Missing {
        /// It covers 256 to this power events.
        level: u32,
        /// Its place in its level, counted from 0.
        index: u64,
    },
}

/// Groups of hashes, by level and the place of their first hash.
type Groups = HashMap<(u32, u64), Vec<Hash>>;

/// The roots that the paths' parts are joined to, one for each part.
///
/// # Errors
/// If the database is away, or a hash is missing.
pub async fn resolve(
    client: &impl GenericClient,
    path: &[Vec<Node>],
    epoch_max: i64,
) -> Result<Vec<Hash>, StoredError> {
    let mut wanted: Vec<(u32, u64)> = path.iter().flatten().map(|node| place(*node).0).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let groups = read(client, &wanted, epoch_max).await?;
    path.iter()
        .map(|nodes| {
            let roots = nodes.iter().map(|node| root(&groups, *node)).collect::<Result<Vec<_>, _>>()?;
            Ok(Hash::join(&roots))
        })
        .collect()
}

/// The tree of a size.
///
/// # Errors
/// If the database is away, or a hash is missing.
pub async fn frontier(client: &impl GenericClient, size: u64, epoch_max: i64) -> Result<Frontier, StoredError> {
    let nodes: Vec<Vec<Node>> = subtrees(0, size).into_iter().map(|node| vec![node]).collect();
    Ok(Frontier::from_peaks(size, resolve(client, &nodes, epoch_max).await?))
}

/// The hashes of a level from `first` up to, but without, `end`, as far as they are there; a place without one is none.
///
/// # Errors
/// What the database said.
///
/// # Panics
/// If the level is greater than any tree's.
pub async fn range(
    client: &impl GenericClient,
    level: u32,
    first: u64,
    end: u64,
) -> Result<Vec<Option<Hash>>, tokio_postgres::Error> {
    const SQL: &str = "-- event_store::proof::stored::range
        SELECT h.first, h.hashes FROM log.tree_hashes AS h
        WHERE h.level = $1 AND h.first >= $2 AND h.first < $3 ORDER BY h.epoch, h.first";
    let level = i16::try_from(level).expect("levels are few");
    let begin = first - first % GROUP;
    let mut hashes: Vec<Option<Hash>> = Vec::new();
    for row in client.query(SQL, &[&level, &to_bigint(begin), &to_bigint(end)]).await? {
        let at = usize::try_from(to_count(row.try_get(0)?).saturating_sub(begin)).unwrap_or(usize::MAX);
        // Bounded by what is asked for, whatever stands in the table.
        hashes.resize(at.min(usize::try_from(end - begin).unwrap_or(usize::MAX)), None);
        hashes.extend(row.try_get::<_, &[u8]>(1)?.chunks(HASH_BYTES).map(Hash::from_slice));
    }
    let wanted = usize::try_from(end.saturating_sub(begin)).unwrap_or(usize::MAX);
    hashes.resize(wanted, None);
    Ok(hashes.split_off(usize::try_from(first - begin).unwrap_or(usize::MAX)))
}

/// Rows of `log.tree_hashes` as arrays.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// Each run's level.
    pub(super) levels: Vec<i16>,
    /// Each run's first place.
    pub(super) firsts: Vec<i64>,
    /// Each run's hashes.
    pub(super) hashes: Vec<Vec<u8>>,
}

/// Hashes in the order in which they came to be, by level.
#[derive(Debug, Default)]
pub(super) struct Grown(BTreeMap<u32, Vec<(u64, Hash)>>);

impl Grown {
    /// Another one.
    pub(super) fn add(&mut self, complete: Complete) {
        self.0.entry(complete.level).or_default().push((complete.index, complete.hash));
    }

    /// As runs, each within its group.
    pub(super) fn into_runs(self) -> Runs {
        let mut runs = Runs::default();
        for (level, hashes) in self.0 {
            for run in hashes.chunk_by(|(_, _), (next, _)| next % GROUP != 0) {
                let Some((first, _)) = run.first() else { continue };
                runs.levels.push(i16::try_from(level).expect("levels are few"));
                runs.firsts.push(to_bigint(*first));
                runs.hashes.push(run.iter().flat_map(|(_, hash)| *hash.as_bytes()).collect());
            }
        }
        runs
    }
}

/// The group that a subtree's root is joined from, and which of its hashes.
fn place(node: Node) -> ((u32, u64), std::ops::Range<u64>) {
    let (level, bits) = (node.bits / STORED_BITS, node.bits % STORED_BITS);
    let first = node.index << bits;
    let group = first - first % GROUP;
    ((level, group), first - group..first - group + (1 << bits))
}

fn root(groups: &Groups, node: Node) -> Result<Hash, StoredError> {
    let ((level, group), within) = place(node);
    let hashes = groups.get(&(level, group)).map_or(&[][..], Vec::as_slice);
    let mut tree = Frontier::default();
    for at in within {
        let hash = usize::try_from(at).ok().and_then(|at| hashes.get(at));
        let hash = hash.ok_or(StoredError::Missing { level, index: group + at })?;
        tree.append(*hash, |_| {});
    }
    Ok(tree.root())
}

async fn read(client: &impl GenericClient, wanted: &[(u32, u64)], epoch_max: i64) -> Result<Groups, StoredError> {
    const SQL: &str = "-- event_store::proof::stored::read
        SELECT g.level, g.first, h.first, h.hashes
        FROM unnest($1 /* levels */ ::smallint[], $2 /* groups */ ::bigint[]) AS g (level, first)
        JOIN log.tree_hashes AS h ON h.level = g.level AND h.first >= g.first AND h.first < g.first + 256
        WHERE h.epoch <= $3 ORDER BY g.level, g.first, h.epoch, h.first";
    let levels: Vec<i16> = wanted.iter().map(|(level, _)| i16::try_from(*level).expect("levels are few")).collect();
    let firsts: Vec<i64> = wanted.iter().map(|(_, first)| to_bigint(*first)).collect();
    let mut groups = Groups::new();
    for row in client.query(SQL, &[&levels, &firsts, &epoch_max]).await? {
        let level = u32::try_from(row.try_get::<_, i16>(0)?).unwrap_or(0);
        let (group, first) = (to_count(row.try_get(1)?), to_count(row.try_get(2)?));
        let hashes = groups.entry((level, group)).or_default();
        let at = usize::try_from(first - group).expect("less than a group");
        // What a newer epoch begins anew replaces what was there; a run behind a gap is of no use.
        if at <= hashes.len() {
            hashes.truncate(at);
            hashes.extend(row.try_get::<_, &[u8]>(3)?.chunks(HASH_BYTES).map_while(Hash::from_slice));
        }
    }
    Ok(groups)
}
