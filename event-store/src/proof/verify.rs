//! The whole log against every signed head, in one pass over the events in position order.
//!
//! Three trees are compared at the size of each head: what the head says, what the events lead to, and what the stored leaf hashes lead
//! to. Where the events lead to the head's root, they are what was signed, whatever is stored beside them. Where only the stored hashes
//! do, each event that differs from its stored leaf is named. Where neither does, both were rewritten, and it happened between the last
//! head that both lead to and this one.
//!
//! Memory does not grow with the log: events come through one after the other; hashes, heads and findings are held for
//! [`STEP_EVENTS`] positions, or within bounds of their own ([`differences`]).

mod differences;
mod findings;

use std::pin::pin;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tokio_postgres::{Client, CopyOutStream};
use uuid::Uuid;

use super::frontier::{Complete, Frontier, STORED_BITS};
use super::hash::Hash;
use super::head::SignedHead;
use super::heads::{self, BySize, HeadsError, Life, StoredHead};
use super::key::PublicKey;
use super::row::{NoRow, Row, Rows};
use super::stored::{self, GROUP};
use super::{to_bigint, to_count};
use differences::Differences;

pub use findings::{Finding, LostTails, Report, Since, Verdict, What};

/// Positions whose stored hashes and heads are held at a time; whole groups of the first two levels.
const STEP_EVENTS: u64 = GROUP * GROUP;

/// What the log is compared with beside its own heads.
#[derive(Debug, Clone, Default)]
pub struct Anchors {
    /// Heads that were kept outside the database.
    pub heads: Vec<SignedHead>,
    /// Only heads that one of these keys has signed count; with none given, every key that the log itself names is believed.
    pub keys: Vec<PublicKey>,
    /// Names of epochs that are known to have begun with the loss of a tail.
    pub known_losses: Vec<String>,
}

/// Why the log could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// What the server or the network said.
    #[error("the log cannot be read: {}", service_kit::postgres::describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// A head is not of its form.
    #[error(transparent)]
    Heads(#[from] HeadsError),
    /// What was read is no row of the log.
    #[error(transparent)]
    Row(#[from] NoRow),
}

/// Verifies the log. `client` is in a transaction of the caller's with one snapshot (REPEATABLE READ), whose role sees all tenants;
/// `progress` is told how many events of how many are read.
///
/// # Errors
/// See [`VerifyError`]; what is wrong with the log is in the report.
pub async fn verify(
    client: &Client,
    anchors: &Anchors,
    mut progress: impl FnMut(u64, u64),
) -> Result<Report, VerifyError> {
    // The order of the log is that of its index.
    client.batch_execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off").await?;
    let mut run = Run::begin(client, anchors).await?;
    let end = run.end(client).await?;
    // Far past the last event there is nothing to be compared, whatever a head says.
    let to_read = end.min(last_position(client, end).await? + STEP_EVENTS);
    progress(0, to_read);
    let mut from = 0;
    while from < to_read {
        let to = (from + STEP_EVENTS).min(to_read);
        let found = run.step(client, from, to, |done| progress(done, to_read)).await?;
        from = to;
        if !found {
            // Neither events nor stored hashes in a whole step: what lies behind such a hole cannot be told apart any more.
            break;
        }
    }
    run.finish(client, from, end).await
}

/// The last position up to one that has an event.
async fn last_position(client: &Client, to: u64) -> Result<u64, VerifyError> {
    const SQL: &str = "-- event_store::proof::verify::last_position
        SELECT e.position FROM log.events AS e WHERE e.position <= $1 ORDER BY e.position DESC LIMIT 1";
    Ok(client.query_opt(SQL, &[&to_bigint(to)]).await?.map_or(0, |row| to_count(row.get(0))))
}

/// A head as it is compared.
#[derive(Debug, Clone)]
struct Checked {
    size: u64,
    root: Hash,
    since: Since,
}

struct Run<'a> {
    anchors: &'a Anchors,
    log_id: Uuid,
    keys: Vec<PublicKey>,
    lives: Vec<Life>,
    /// Heads from outside that count, the smallest first.
    outside: Vec<Checked>,
    /// What the events lead to.
    events: Frontier,
    /// What the stored leaves lead to, from where they first differ from the events.
    leaves: Option<Frontier>,
    /// Events up to here are what was signed.
    good: u64,
    /// Whether there was a head that neither the events nor the stored hashes lead to.
    rewritten: bool,
    /// The last position whose hash must be stored: the database's own heads end there.
    stored_end: u64,
    differences: Differences,
    report: Report,
}

impl<'a> Run<'a> {
    async fn begin(client: &Client, anchors: &'a Anchors) -> Result<Self, VerifyError> {
        let log_id = heads::log_id(client).await?;
        let known = heads::keys(client).await?.into_iter().map(|known| known.key);
        let keys = if anchors.keys.is_empty() { known.collect() } else { anchors.keys.clone() };
        let mut run = Self {
            anchors,
            log_id,
            keys,
            lives: heads::lives(client).await?,
            outside: Vec::new(),
            events: Frontier::default(),
            leaves: None,
            good: 0,
            rewritten: false,
            stored_end: 0,
            differences: Differences::default(),
            report: Report::new(log_id, !anchors.keys.is_empty()),
        };
        for head in &anchors.heads {
            let checked = run.check_head(head, None);
            run.outside.extend(checked);
        }
        run.outside.sort_by_key(|head| head.size);
        Ok(run)
    }

    /// How many events the pass is over: all that any head covers.
    async fn end(&mut self, client: &Client) -> Result<u64, VerifyError> {
        const NUMBERS: &str = "-- event_store::proof::verify::end, numbers
            SELECT count(*), coalesce(max(h.number), 0) FROM log.tree_heads AS h WHERE h.number >= 1";
        const BELOW: &str = "-- event_store::proof::verify::end, below
            SELECT e.position FROM log.events AS e WHERE e.position < 1 ORDER BY e.position LIMIT 100";
        let row = client.query_one(NUMBERS, &[]).await?;
        let (count, newest): (i64, i64) = (row.get(0), row.get(1));
        if count != newest {
            self.report.find(What::HeadsMissing, to_count(newest - count), to_count(newest), None);
        }
        for row in client.query(BELOW, &[]).await? {
            self.report.find_position_below(row.get(0));
        }
        const EXTENT: &str = "-- event_store::proof::verify::end, extent
            SELECT h.first + octet_length(h.hashes) / 32 FROM log.tree_hashes AS h
            WHERE h.level = 0 ORDER BY h.first DESC LIMIT 1";
        // A head that is not signed shows where a signed one was, as far as hashes are stored; farther it says nothing.
        let is_ours = |head: &SignedHead| heads::successor(&self.lives, &head.head).is_none();
        let size = |head: Option<StoredHead>| head.map_or(0, |head| head.signed.head.tree_size);
        let signed = size(heads::largest(client, |head| self.counts(head)).await?);
        let said = size(heads::largest(client, is_ours).await?);
        let extent = client.query_opt(EXTENT, &[]).await?.map_or(0, |row| to_count(row.get(0)));
        self.stored_end = signed.max(said.min(extent));
        Ok(self.outside.iter().map(|head| head.size).max().unwrap_or(0).max(self.stored_end))
    }

    /// Takes the positions after `from` up to `to`: their heads, their stored hashes, their events. Gives whether there was anything of
    /// a whole step.
    async fn step(
        &mut self,
        client: &Client,
        from: u64,
        to: u64,
        mut progress: impl FnMut(u64),
    ) -> Result<bool, VerifyError> {
        let heads = self.heads(client, from, to).await?;
        let leaves = stored::range(client, 0, from, to).await?;
        let mut upper = Vec::new();
        for level in 1..=7 {
            let bits = STORED_BITS * level;
            let (first, end) = (from >> bits, to >> bits);
            upper.push((
                level,
                first,
                if first < end { stored::range(client, level, first, end).await? } else { Vec::new() },
            ));
        }
        let mut rows = EventRows::open(client, from, to).await?;
        let mut heads = heads.into_iter().peekable();
        let mut next = rows.next().await?;
        let found = to - from < STEP_EVENTS || next.is_some() || leaves.iter().any(Option::is_some);
        for position in from + 1..=to {
            while let Some(row) = next.take_if(|row| to_count(row.position) < position) {
                // Only without the table's primary key.
                self.report.find(What::Inserted, to_count(row.position), to_count(row.position), None);
                next = rows.next().await?;
            }
            let place = usize::try_from(position - from - 1).expect("a step's events fit in memory");
            let row = next.take_if(|row| to_count(row.position) == position);
            if row.is_some() {
                next = rows.next().await?;
            }
            let leaf = row.as_ref().map(|row| row.leaf);
            let stored = if position > self.stored_end { leaf } else { leaves.get(place).copied().flatten() };
            if leaf != stored || leaf.is_none() {
                self.leaves.get_or_insert_with(|| self.events.clone());
                let beside = |shift: i64| {
                    let at = i64::try_from(place).ok()?.checked_add(shift)?;
                    leaves.get(usize::try_from(at).ok()?).copied().flatten()
                };
                self.differences.add(position, stored, row.as_ref(), beside);
            }
            self.grow(row.as_ref(), stored, &upper);
            while let Some(head) = heads.next_if(|head| head.size == position) {
                self.compare(&head);
            }
            if position % 1024 == 0 || position == to {
                progress(position);
            }
        }
        // What is left is beyond the step, or a second row of its last position.
        while let Some(row) = next {
            self.report.find(What::Inserted, to_count(row.position), to_count(row.position), None);
            next = rows.next().await?;
        }
        Ok(found)
    }

    /// Adds a position to both trees, and compares the stored hashes of what is complete now.
    fn grow(&mut self, row: Option<&Row>, stored: Option<Hash>, upper: &[(u32, u64, Vec<Option<Hash>>)]) {
        let (report, stored_end) = (&mut self.report, self.stored_end);
        let check = |complete: Complete| {
            if complete.level == 0 {
                return;
            }
            let Some((_, first, hashes)) = upper.iter().find(|(level, ..)| *level == complete.level) else { return };
            let place = complete.index.checked_sub(*first).and_then(|place| usize::try_from(place).ok());
            let bits = STORED_BITS * complete.level;
            let last = (complete.index + 1) << bits;
            if last <= stored_end && place.and_then(|place| hashes.get(place).copied().flatten()) != Some(complete.hash)
            {
                report.find(What::StoredHash, last - (1 << bits) + 1, last, None);
            }
        };
        // The empty root stands for what is not there: it is the hash of no leaf.
        let leaf = row.map_or_else(Hash::empty, |row| row.leaf);
        match &mut self.leaves {
            // As long as they are the same, one tree is both.
            None => self.events.append(leaf, check),
            Some(leaves) => {
                self.events.append(leaf, |_| {});
                leaves.append(stored.unwrap_or_else(Hash::empty), check);
            }
        }
        self.report.events += u64::from(row.is_some());
    }

    /// Compares a head with the trees of its size.
    fn compare(&mut self, head: &Checked) {
        let events = self.events.root() == head.root;
        let leaves = self.leaves.as_ref().map_or(events, |leaves| leaves.root() == head.root);
        if events {
            // The events are those that were signed; what differs from them is what was stored beside them.
            if let Some((first, last)) = self.differences.forget() {
                self.report.find(What::StoredHash, first, last, None);
            }
            self.leaves = None;
            self.good = head.size;
            self.report.proven = Some(head.since.clone());
        } else if !leaves && !self.rewritten {
            self.rewritten = true;
            self.report.find(What::Rewritten, self.good + 1, head.size, Some(head.since.clone()));
        }
    }

    /// The heads of a step that count, the smallest first.
    async fn heads(&mut self, client: &Client, from: u64, to: u64) -> Result<Vec<Checked>, VerifyError> {
        let mut heads = Vec::new();
        let mut stored = BySize::between(from, to);
        loop {
            let page = stored.next(client).await?;
            if page.is_empty() {
                break;
            }
            heads.extend(page.iter().filter_map(|head| self.check_head(&head.signed, Some(head.number))));
        }
        heads.extend(self.outside.iter().filter(|head| head.size > from && head.size <= to).cloned());
        heads.sort_by_key(|head| head.size);
        Ok(heads)
    }

    /// Whether a stored head is one of this life of this log, signed by a key that is believed.
    fn counts(&self, signed: &SignedHead) -> bool {
        signed.head.log_id == self.log_id
            && heads::successor(&self.lives, &signed.head).is_none()
            && self.keys.iter().any(|key| signed.is_signed_by(key))
    }

    /// A head if it counts: signed by a key that is believed, and over this life of the log. What is wrong with it otherwise is found.
    fn check_head(&mut self, signed: &SignedHead, number: Option<i64>) -> Option<Checked> {
        let since = Since::of(signed, number);
        let size = signed.head.tree_size;
        self.report.heads += 1;
        if signed.head.log_id != self.log_id {
            self.report.find(What::HeadOfAnotherLog, size, size, Some(since));
            return None;
        }
        if !self.keys.iter().any(|key| signed.is_signed_by(key)) {
            let what = if self.anchors.keys.is_empty() { What::HeadInvalid } else { What::HeadOfAnotherKey };
            self.report.find(what, size, size, Some(since));
            return None;
        }
        if let Some(life) = self.lost_to(signed, number) {
            self.report.lose(&life, size, since, &self.anchors.known_losses);
            return None;
        }
        if !self.lives.iter().any(|life| life.name == signed.head.epoch) {
            self.report.find(What::HeadOfAnotherEpoch, size, size, Some(since.clone()));
        }
        if self.report.newest.as_ref().is_none_or(|newest| newest.tree_size <= size) {
            self.report.newest = Some(since.clone());
        }
        Some(Checked { size, root: signed.head.root_hash, since })
    }

    /// The epoch that has used a head's positions again, if one has.
    fn lost_to(&self, signed: &SignedHead, number: Option<i64>) -> Option<Life> {
        if number.is_some() {
            return heads::successor(&self.lives, &signed.head).cloned();
        }
        let life = heads::successor_of_kept(&self.lives, &signed.head)?;
        // A head of that epoch that was signed before this one: then it came before, and has used nothing again.
        let came_before = |kept: &SignedHead| kept.head.epoch == life.name && kept.head.time < signed.head.time;
        (!self.anchors.heads.iter().any(came_before)).then(|| life.clone())
    }

    /// `read` is up to where positions were read, `end` the last one that a head covers.
    async fn finish(mut self, client: &Client, read: u64, end: u64) -> Result<Report, VerifyError> {
        const REST: &str = "-- event_store::proof::verify::finish, rest
            SELECT count(*), coalesce(max(e.position), $1) FROM log.events AS e WHERE e.position > $1";
        let row = client.query_one(REST, &[&to_bigint(end)]).await?;
        let (count, last): (i64, i64) = (row.get(0), row.get(1));
        self.report.unsealed = to_count(count);
        self.report.events += to_count(count);
        if last - to_bigint(end) != count {
            self.report.find(What::Hole, end + 1, to_count(last), None);
        }
        if read < end {
            self.differences.add_missing(read + 1, end);
        }
        // Heads over what is not there, over another life of the log, or forged.
        let mut rest = BySize::between(read, u64::MAX >> 1);
        loop {
            let page = rest.next(client).await?;
            if page.is_empty() {
                break;
            }
            for head in &page {
                self.check_head(&head.signed, Some(head.number));
            }
        }
        for (what, first, last, from) in std::mem::take(&mut self.differences).classify(end) {
            let since = self.since(client, first).await?;
            self.report.find_moved(what, first, last, from, since);
        }
        Ok(self.report)
    }

    /// The first head that counts over a position.
    async fn since(&mut self, client: &Client, position: u64) -> Result<Option<Since>, VerifyError> {
        let mut stored = BySize::between(position.saturating_sub(1), u64::MAX >> 1);
        loop {
            let page = stored.next(client).await?;
            if page.is_empty() {
                break;
            }
            if let Some(head) = page.iter().find(|head| self.counts(&head.signed)) {
                return Ok(Some(Since::of(&head.signed, Some(head.number))));
            }
        }
        Ok(self.outside.iter().find(|head| head.size >= position).map(|head| head.since.clone()))
    }
}

/// The events of a step as they come.
struct EventRows {
    messages: std::pin::Pin<Box<CopyOutStream>>,
    rows: Rows,
}

impl EventRows {
    async fn open(client: &Client, from: u64, to: u64) -> Result<Self, VerifyError> {
        // COPY takes no parameters; both are numbers of ours.
        let sql = format!(
            "-- event_store::proof::verify::events
             COPY (SELECT e.position, e.tenant_id, e.aggregate_type, e.aggregate_id, e.sequence, e.event_id, e.event_type,
                          e.event_version, e.payload, e.metadata, e.recorded_at
                   FROM log.events AS e WHERE e.position > {from} AND e.position <= {to} ORDER BY e.position)
             TO STDOUT (FORMAT binary)"
        );
        Ok(Self { messages: Box::pin(client.copy_out(&sql).await?), rows: Rows::default() })
    }

    async fn next(&mut self) -> Result<Option<Row>, VerifyError> {
        let message: Option<Bytes> = pin!(&mut self.messages).try_next().await?;
        Ok(match message {
            Some(message) => self.rows.read(message)?,
            None => None,
        })
    }
}
