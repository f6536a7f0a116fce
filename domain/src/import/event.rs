//! What happens to an import.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::claim::Claim;
use crate::events::events;
use crate::personal::PersonalMember;
use crate::provenance::ConflictRule;
use crate::value::Line;

events! {
    /// An event of an import.
    pub enum ImportEvent {
        /// Its bytes began to come in.
        ImportOpened(ImportOpened) = 1,
        /// All its bytes are stored.
        ImportReceived(ImportReceived) = 1,
        /// Chunks of its rows were done.
        ImportChunkFinished(ChunkFinished) = 1,
        /// All its rows were done.
        ImportFinished(ImportFinished) = 1,
        /// It was refused or given up as a whole.
        ImportFailed(ImportFailed) = 1,
        /// Somebody wants it taken back.
        ImportUndoRequested(ImportUndoRequested) = 1,
        /// It was taken back.
        ImportUndone(ImportUndone) = 1,
    }
}

/// Bytes begin to come in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportOpened {
    /// The name of the list's source.
    pub source: Line<100>,
    /// The mapping's name; none where it came with the list or is guessed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<String>,
    /// Whether nothing is to be written.
    pub dry_run: bool,
    /// Which of two values wins.
    pub rule: ConflictRule,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// All bytes are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReceived {
    /// Rows that they hold.
    pub rows: u64,
    /// Chunks that they are stored in, counted from 1.
    pub chunks: u32,
    /// Bytes as they were sent.
    pub bytes: u64,
}

/// Some chunks of rows were done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkFinished {
    /// The first one.
    pub first: u32,
    /// The last one.
    pub last: u32,
    /// What became of all rows up to here and of the records that they speak of.
    pub tally: Tally,
    /// Position of the last event that it led to, so far; 0 if there is none.
    pub position: i64,
}

/// All rows were done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportFinished {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// It failed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportFailed {
    /// A stable name for why.
    pub code: String,
    /// What to do about it; never with a value of a row.
    pub detail: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// It is to be taken back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportUndoRequested {}

/// It was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportUndone {
    /// Companies that are again what they were.
    pub companies: u64,
    /// Prospects that are again what they were.
    pub prospects: u64,
    /// Records that were changed since and are left as they are.
    pub left: u64,
    /// Position of the last event that this led to; 0 if there is none.
    pub position: i64,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// What became of rows, and of the companies and prospects that they speak of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Rows that were looked at: the sum of the five that follow.
    pub read: u64,
    /// Rows that made a record.
    pub created: u64,
    /// Rows that changed a record.
    pub updated: u64,
    /// Rows that said nothing new.
    pub unchanged: u64,
    /// Rows whose person, or company, a person should look at.
    pub in_review: u64,
    /// Rows that were left out for a reason.
    pub refused: u64,
    /// Companies that the import made, changed, or left as they were, each counted once.
    pub companies: [u64; 3],
    /// Prospects, likewise.
    pub prospects: [u64; 3],
}

impl ImportEvent {
    #[expect(
        clippy::unused_self,
        reason = "the events of every aggregate are asked; none of an import's requires a claim"
    )]
    fn required_claim(&self) -> Option<Claim> {
        None
    }

    #[expect(
        clippy::unused_self,
        reason = "the events of every aggregate are asked; an import's hold no values of rows"
    )]
    fn personal_member(&mut self) -> Option<&mut dyn PersonalMember> {
        None
    }
}
