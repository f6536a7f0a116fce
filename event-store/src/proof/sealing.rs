//! What a sealer does, step by step: go on from the stored hashes, add events, sign, store. The loop around it, the lock and the
//! publishing are the command service's.
//!
//! A sealer never signs what contradicts a head that was signed before. What it checks when it begins is what it builds on: the newest
//! head's signature, that the stored hashes lead to its root, and that the last events are those under the last leaves. Whether all
//! others are is what `prospectus audit verify` reads the whole log for.

use std::time::Duration;

use time::OffsetDateTime;
use tokio_postgres::Client;
use uuid::Uuid;

use super::frontier::Frontier;
use super::hash::Hash;
use super::head::{Head, SignedHead};
use super::heads::{self, HeadsError, Life, StoredHead};
use super::key::SealKeys;
use super::row::leaf_of;
use super::stored::{self, EVERY_EPOCH, GROUP, Grown, StoredError};
use super::{to_bigint, to_count};
use crate::event::StoredEvent;
use crate::feed::{Feed, FeedError};

/// Events that one head covers more than the one before it, at most: what is kept in memory until it is stored is 32 bytes for each.
pub const HEAD_EVENTS_MAX: i64 = 65_536;
/// Events that are read at a time.
const PAGE_EVENTS_MAX: i64 = 1_000;

/// The tree of a log that is being sealed.
#[derive(Debug)]
pub struct Sealing {
    log_id: Uuid,
    tree: Frontier,
    newest: Option<StoredHead>,
    /// A head that was signed and that the database does not have (any more): the tree must come to it.
    expected: Option<SignedHead>,
    /// When the newest head was signed that was ever seen: heads are in the order of their times.
    newest_time: Option<OffsetDateTime>,
}

/// A tail of the log that was lost with its server, after it was sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostTail {
    /// The head over it.
    pub head: SignedHead,
    /// Positions from here on are others' now.
    pub from: u64,
    /// The name of the epoch that began there.
    pub epoch: String,
}

/// Why a sealer does not sign: what is stored contradicts what was signed, and no new epoch explains it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The newest head is not signed by a key that this log knows.
    #[error("the signature of head {0} is wrong: somebody has changed log.tree_heads or log.seal_keys")]
    Signature(i64),
    /// The newest head that was kept outside the database is not signed by a key that this log knows.
    #[error(
        "the newest head that was kept outside the database, over {0} events, is not signed by a key of this log or of this service: the \
         file of heads was changed or damaged; put its last line right from another copy, or name another file"
    )]
    KeptSignature(u64),
    /// An event cannot be one that a service has written.
    #[error("the event at position {0} breaks the checks of log.events: somebody has taken them away")]
    Form(i64),
    /// The stored hashes lead to another root.
    #[error(
        "the stored hashes lead to another root than the head over {0} events: somebody has changed log.tree_hashes"
    )]
    StoredRoot(u64),
    /// The event is not the one that was sealed.
    #[error("the event at position {0} is not the one that was sealed: somebody has changed log.events")]
    Changed(u64),
    /// The log ends before what was sealed.
    #[error("the log ends at {position}, but {size} events were sealed, and no new epoch explains it")]
    Short {
        /// Where it ends.
        position: u64,
        /// How many were sealed.
        size: u64,
    },
    /// The log leads to another root than a head that was signed before.
    #[error("the log leads to another root than the head over {0} events that was signed before")]
    OtherRoot(u64),
    /// A position is missing.
    #[error("the log has a hole at position {0}")]
    Hole(i64),
}

/// Why sealing stopped for now.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The database is away or says no.
    #[error("the database: {}", service_kit::postgres::describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// What is stored contradicts what was signed: nothing is signed until somebody has looked.
    #[error("REFUSES TO SIGN: {0}; run `prospectus audit verify`")]
    Refused(#[from] Refusal),
    /// A later epoch has begun at a position that is sealed: sealing begins again from what is stored.
    #[error("the log has begun another life at a sealed position")]
    AnotherLife,
    /// Something stored is not of its form.
    #[error("{0}")]
    Form(String),
}

impl From<FeedError> for SealError {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Database(error) => Self::Database(error),
            FeedError::Hole(position) => Refusal::Hole(position).into(),
        }
    }
}

impl From<StoredError> for SealError {
    fn from(error: StoredError) -> Self {
        match error {
            StoredError::Database(error) => Self::Database(error),
            missing @ StoredError::Missing { .. } => Self::Form(missing.to_string()),
        }
    }
}

impl From<HeadsError> for SealError {
    fn from(error: HeadsError) -> Self {
        match error {
            HeadsError::Database(error) => Self::Database(error),
            form @ HeadsError::Form(_) => Self::Form(form.to_string()),
        }
    }
}

impl Sealing {
    /// Goes on after the newest stored head, with what was lost since. `known` is the newest head that was seen elsewhere, in this
    /// process's memory or outside the database: what is sealed must come to it too.
    ///
    /// # Errors
    /// See [`SealError`].
    pub async fn resume(
        feed: &Feed,
        keys: &SealKeys,
        known: Option<&SignedHead>,
    ) -> Result<(Self, Option<LostTail>), SealError> {
        let client = feed.client();
        heads::publish_keys(client, keys).await?;
        let log_id = heads::log_id(client).await?;
        let newest = heads::newest(client).await?;
        let lives = heads::lives(client).await?;
        let newest_time = newest.as_ref().map(|newest| newest.signed.head.time);
        let mut sealing = Self { log_id, tree: Frontier::default(), newest, expected: None, newest_time };
        let mut lost = None;
        if let Some(newest) = &sealing.newest {
            (sealing.tree, lost) = grown_to(client, newest, &lives).await?;
        }
        sealing.check_last_events(feed).await?;
        if let Some(known) = known.filter(|known| known.head.log_id == log_id) {
            let ours = heads::keys(client).await?;
            if !ours.iter().any(|ours| known.is_signed_by(&ours.key)) {
                return Err(Refusal::KeptSignature(known.head.tree_size).into());
            }
            sealing.newest_time = sealing.newest_time.max(Some(known.head.time));
            match heads::successor_of_kept(&lives, &known.head) {
                Some(life) => lost = Some(LostTail::of(known, life)),
                None => sealing.check_known(client, known).await?,
            }
        }
        Ok((sealing, lost))
    }

    /// How many events are sealed.
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The newest head.
    pub fn newest(&self) -> Option<&StoredHead> {
        self.newest.as_ref()
    }

    /// Seals the log up to a position, or as far as one head goes, and gives the head; none if that is sealed already.
    ///
    /// # Errors
    /// See [`SealError`]. Nothing is kept of a step that failed; whether its head was stored, [`Sealing::resume`] sees.
    pub async fn seal(
        &mut self,
        feed: &Feed,
        keys: &SealKeys,
        up_to: i64,
        now: OffsetDateTime,
    ) -> Result<Option<StoredHead>, SealError> {
        let begun = to_bigint(self.tree.size());
        let mut up_to = up_to.min(begun + HEAD_EVENTS_MAX);
        if let Some(expected) = &self.expected {
            let size = expected.head.tree_size;
            let position = to_count(feed.head().await?.position);
            if position < size {
                return Err(Refusal::Short { position, size }.into());
            }
            up_to = to_bigint(size).min(begun + HEAD_EVENTS_MAX);
        }
        if up_to <= begun {
            return Ok(None);
        }
        let (mut tree, mut grown) = (self.tree.clone(), Grown::default());
        while to_bigint(tree.size()) < up_to {
            let at = to_bigint(tree.size());
            let events = feed.after(at, (up_to - at).min(PAGE_EVENTS_MAX)).await?;
            if events.is_empty() {
                break;
            }
            for event in &events {
                tree.append(leaf(event)?, |complete| grown.add(complete));
            }
        }
        // Read after the events: an epoch is committed with its first event.
        let lives = heads::lives(feed.client()).await?;
        // After a lost tail the tree is shorter than the newest head, until the next one.
        let newest = self.newest.as_ref().map(|newest| &newest.signed.head);
        let newest = newest.filter(|head| head.tree_size == self.tree.size());
        if newest.is_some_and(|head| heads::successor(&lives, head).is_some()) {
            return Err(SealError::AnotherLife);
        }
        if tree.size() == self.tree.size() {
            return Ok(None);
        }
        let life =
            heads::life_at(&lives, tree.size()).ok_or_else(|| SealError::Form("the log has no epoch".to_owned()))?;
        let head = Head {
            log_id: self.log_id,
            epoch: life.name.clone(),
            tree_size: tree.size(),
            root_hash: tree.root(),
            // After the head before it, so that heads are in the order of their times whatever the clock does.
            time: self.newest_time.map_or(micros(now), |time| micros(now).max(time + Duration::from_micros(1))),
        };
        let signed = self.sign(head, keys)?;
        let number = self.newest.as_ref().map_or(1, |newest| newest.number + 1);
        let head = StoredHead { number, signed };
        heads::write(feed.client(), &head, life.number, &grown.into_runs()).await?;
        self.tree = tree;
        if self.expected.as_ref().is_some_and(|expected| expected.head.tree_size == self.tree.size()) {
            self.expected = None;
        }
        self.newest_time = self.newest_time.max(Some(head.signed.head.time));
        self.newest = Some(head.clone());
        Ok(Some(head))
    }

    /// Signs a head; where one of this size was signed before, that one is taken, if it says the same.
    fn sign(&self, head: Head, keys: &SealKeys) -> Result<SignedHead, Refusal> {
        match &self.expected {
            Some(expected) if expected.head.tree_size == head.tree_size => {
                if expected.head.root_hash == head.root_hash {
                    Ok(expected.clone())
                } else {
                    Err(Refusal::OtherRoot(head.tree_size))
                }
            }
            _ => Ok(head.sign(keys)),
        }
    }

    /// The events of the last group are those under the stored leaves.
    async fn check_last_events(&self, feed: &Feed) -> Result<(), SealError> {
        let size = self.tree.size();
        let first = size.saturating_sub(GROUP);
        let count = to_bigint(size - first);
        if count == 0 {
            return Ok(());
        }
        let leaves = stored::range(feed.client(), 0, first, size).await?;
        let mut at = first;
        while at < size {
            let events = feed.after(to_bigint(at), to_bigint(size - at)).await?;
            if events.is_empty() {
                return Err(Refusal::Short { position: at, size }.into());
            }
            for event in &events {
                let leaf = usize::try_from(at - first).ok().and_then(|at| leaves.get(at).copied().flatten());
                at += 1;
                if leaf != Some(self::leaf(event)?) {
                    return Err(Refusal::Changed(at).into());
                }
            }
        }
        Ok(())
    }

    /// A head that was seen elsewhere is one of this tree, or the tree must come to it.
    async fn check_known(&mut self, client: &Client, known: &SignedHead) -> Result<(), SealError> {
        let size = known.head.tree_size;
        if size > self.tree.size() {
            self.expected = Some(known.clone());
        } else if stored::frontier(client, size, EVERY_EPOCH).await?.root() != known.head.root_hash {
            return Err(Refusal::OtherRoot(size).into());
        }
        Ok(())
    }
}

impl LostTail {
    fn of(head: &SignedHead, life: &Life) -> Self {
        Self { head: head.clone(), from: life.first_position, epoch: life.name.clone() }
    }
}

/// The tree that the newest head is over, or what is left of it, and what was lost.
async fn grown_to(
    client: &Client,
    newest: &StoredHead,
    lives: &[Life],
) -> Result<(Frontier, Option<LostTail>), SealError> {
    let (number, signed) = (newest.number, &newest.signed);
    let known = heads::keys(client).await?;
    if !known.iter().any(|known| signed.is_signed_by(&known.key)) {
        return Err(Refusal::Signature(number).into());
    }
    let epoch = signed.head.epoch_number().ok_or_else(|| SealError::Form(format!("head {number} names no epoch")))?;
    let tree = stored::frontier(client, signed.head.tree_size, epoch).await?;
    if tree.root() != signed.head.root_hash {
        return Err(Refusal::StoredRoot(tree.size()).into());
    }
    let Some(life) = heads::successor(lives, &signed.head) else { return Ok((tree, None)) };
    let kept = life.first_position.saturating_sub(1);
    Ok((stored::frontier(client, kept, epoch).await?, Some(LostTail::of(signed, life))))
}

/// The leaf of an event, which is one that the table's checks let in.
fn leaf(event: &StoredEvent) -> Result<Hash, Refusal> {
    if event.position < 1 || event.sequence < 1 || event.event_version < 1 {
        return Err(Refusal::Form(event.position));
    }
    Ok(leaf_of(event))
}

/// The database and the signature hold microseconds.
fn micros(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_microsecond(time.microsecond()).expect("its own microseconds")
}
