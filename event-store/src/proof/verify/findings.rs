//! What a verification found, for people and for programs.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::super::head::SignedHead;
use super::super::heads::Life;

/// Findings that are kept; all are counted.
const KEPT_MAX: usize = 1_000;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The event at the position is not the one that was sealed.
    Changed,
    /// The event that was sealed at the position is gone.
    Removed,
    /// The event was not there when the position was sealed.
    Inserted,
    /// The event was sealed at another position.
    Moved,
    /// Events and stored hashes were rewritten together, somewhere in these positions.
    Rewritten,
    /// The log ends before what a head covers.
    Truncated,
    /// Positions that no head covers yet have holes.
    Hole,
    /// The stored hash over these positions is not that of the events, which are what was signed.
    StoredHash,
    /// A head's signature is wrong: it, or the public keys, were changed.
    HeadInvalid,
    /// A head is not signed by a pinned key.
    HeadOfAnotherKey,
    /// A head is of another log.
    HeadOfAnotherLog,
    /// A head names an epoch that the log does not have.
    HeadOfAnotherEpoch,
    /// Heads were removed: their numbers have holes.
    HeadsMissing,
}

/// The head that was signed over what has changed since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Since {
    /// Its number; none for a head that was kept outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// How many events it covers.
    pub tree_size: u64,
    /// When it was signed.
    pub time: String,
    /// Its epoch.
    pub epoch: String,
    /// The key that signed it.
    pub key_id: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub what: What,
    /// The first position that it is about; for heads their sizes, for missing ones how many there are.
    pub first: i64,
    /// The last one.
    pub last: i64,
    /// For what moved: where the first of them was sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<i64>,
    /// The first signed head that covers it: it was changed after that one was signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Since>,
}

/// A tail that was lost with its server, after it was sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LostTails {
    /// The epoch that has used the positions again.
    pub epoch: String,
    /// The first position that was lost.
    pub first: u64,
    /// The last one that a head covers.
    pub last: u64,
    /// How many heads cover some of it.
    pub heads: u64,
    /// The head that covers the most of it.
    pub head: Since,
    /// Whether the loss was named as known.
    pub known: bool,
}

/// What it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that heads cover is what was signed.
    Intact,
    /// Nothing was tampered with, but a tail was lost with its server after it was sealed.
    TailLost,
    /// There are events, and no head over any of them.
    Unsealed,
    /// Somebody has changed what was signed.
    Tampered,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which log.
    pub log_id: Uuid,
    /// Events that were read.
    pub events: u64,
    /// Events after those that any head covers: they are proven once the next head is signed.
    pub unsealed: u64,
    /// Heads that were looked at.
    pub heads: u64,
    /// The largest head that counts.
    pub newest: Option<Since>,
    /// The largest head that the events lead to.
    pub proven: Option<Since>,
    /// Whether keys were pinned; without, the keys are believed that the log itself names.
    pub pinned: bool,
    /// How many things are wrong.
    pub found: u64,
    /// The first of them.
    pub findings: Vec<Finding>,
    /// Tails that were lost with their server.
    pub lost_tails: Vec<LostTails>,
}

impl Since {
    pub(super) fn of(signed: &SignedHead, number: Option<i64>) -> Self {
        let head = &signed.head;
        let time = head.time.to_offset(time::UtcOffset::UTC);
        Self {
            number,
            tree_size: head.tree_size,
            time: shown(time),
            epoch: head.epoch.clone(),
            key_id: signed.key_id.clone(),
        }
    }
}

fn shown(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

impl Report {
    pub(super) fn new(log_id: Uuid, pinned: bool) -> Self {
        Self {
            log_id,
            events: 0,
            unsealed: 0,
            heads: 0,
            newest: None,
            proven: None,
            pinned,
            found: 0,
            findings: Vec::new(),
            lost_tails: Vec::new(),
        }
    }

    /// What it comes to.
    pub fn verdict(&self) -> Verdict {
        if self.found > 0 {
            Verdict::Tampered
        } else if self.lost_tails.iter().any(|lost| !lost.known) {
            Verdict::TailLost
        } else if self.newest.is_none() && self.events > 0 {
            Verdict::Unsealed
        } else {
            Verdict::Intact
        }
    }

    pub(super) fn find(&mut self, what: What, first: u64, last: u64, since: Option<Since>) {
        let (first, last) = (super::to_bigint(first), super::to_bigint(last));
        self.push(Finding { what, first, last, from: None, since });
    }

    pub(super) fn find_position_below(&mut self, position: i64) {
        self.push(Finding { what: What::Inserted, first: position, last: position, from: None, since: None });
    }

    pub(super) fn find_moved(&mut self, what: What, first: u64, last: u64, from: Option<u64>, since: Option<Since>) {
        let (first, last, from) = (super::to_bigint(first), super::to_bigint(last), from.map(super::to_bigint));
        self.push(Finding { what, first, last, from, since });
    }

    fn push(&mut self, finding: Finding) {
        self.found += 1;
        if self.findings.len() < KEPT_MAX {
            self.findings.push(finding);
        }
    }

    /// A head over positions that a later epoch has used again.
    pub(super) fn lose(&mut self, life: &Life, size: u64, since: Since, known: &[String]) {
        if let Some(lost) = self.lost_tails.iter_mut().find(|lost| lost.epoch == life.name) {
            lost.heads += 1;
            if size > lost.last {
                (lost.last, lost.head) = (size, since);
            }
            return;
        }
        self.lost_tails.push(LostTails {
            epoch: life.name.clone(),
            first: life.first_position,
            last: size,
            heads: 1,
            head: since,
            known: known.contains(&life.name),
        });
    }
}
