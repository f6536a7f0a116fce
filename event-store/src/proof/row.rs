//! From a row of the log, as `COPY … (FORMAT binary)` sends it, to its leaf, without copying a field: the form of almost every field
//! in the canonical bytes is the server's own.

use bytes::Bytes;

use super::hash::Hash;
use crate::canonical;
use crate::event::StoredEvent;

/// What a binary COPY begins with, its flags and the length of its extension, both zero.
const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Columns of the log's rows.
const COLUMNS: usize = 11;
/// Microseconds from 1970, which the canonical bytes count from, to 2000, which the server counts from.
const MICROS_1970_TO_2000: i64 = 946_684_800_000_000;

/// A row of the log.
#[derive(Debug, Clone)]
pub struct Row {
    /// The row without its count of columns: for each its length as `u32` and its bytes.
    fields: Bytes,
    /// The event's position.
    pub position: i64,
    /// The hash of its canonical bytes.
    pub leaf: Hash,
}

/// The server sent something else than rows of the log.
#[derive(Debug, thiserror::Error)]
#[error("the server sent something else than rows of the log")]
pub struct NoRow;

/// The rows of one COPY.
#[derive(Debug, Default)]
pub struct Rows {
    begun: bool,
}

impl Rows {
    /// The next row from what the server sent as one message; none at the end.
    ///
    /// # Errors
    /// If it is no row of the log.
    pub fn read(&mut self, message: Bytes) -> Result<Option<Row>, NoRow> {
        let mut rest = message;
        if !self.begun {
            if rest.len() < HEADER.len() || &rest[..HEADER.len()] != HEADER {
                return Err(NoRow);
            }
            rest = rest.slice(HEADER.len()..);
            self.begun = true;
        }
        match rest.first_chunk::<2>().map(|count| i16::from_be_bytes(*count)) {
            Some(-1) if rest.len() == 2 => Ok(None),
            Some(count) if usize::try_from(count) == Ok(COLUMNS) => Row::read(rest.slice(2..)).ok_or(NoRow).map(Some),
            _ => Err(NoRow),
        }
    }
}

impl Row {
    fn read(fields: Bytes) -> Option<Self> {
        let parts = split(&fields)?;
        let position = i64::from_be_bytes(parts[0][4..].try_into().ok()?);
        let leaf = leaf(&parts, position)?;
        Some(Self { fields, position, leaf })
    }

    /// The leaf that the event would have at another position.
    pub fn leaf_at(&self, position: i64) -> Option<Hash> {
        leaf(&split(&self.fields)?, position)
    }

    /// The same row in memory of its own, which keeps nothing else of what the server sent alive.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { fields: Bytes::copy_from_slice(&self.fields), ..*self }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.fields.len()
    }
}

/// The columns, each with its length in front.
fn split(fields: &[u8]) -> Option<[&[u8]; COLUMNS]> {
    let mut parts: [&[u8]; COLUMNS] = [&[]; COLUMNS];
    let mut rest = fields;
    for part in &mut parts {
        // A negative length is a null, which no row of ours has; to a leaf it is something else than any value.
        let length = usize::try_from(i32::from_be_bytes(*rest.first_chunk()?)).unwrap_or(0);
        (*part, rest) = rest.split_at_checked(4 + length)?;
    }
    rest.is_empty().then_some(parts)
}

/// The hash of the canonical bytes of a row whose columns are these, at a position.
fn leaf(parts: &[&[u8]; COLUMNS], position: i64) -> Option<Hash> {
    let micros = i64::from_be_bytes(parts[10][4..].try_into().ok()?).wrapping_add(MICROS_1970_TO_2000);
    // Texts and JSON go in with their lengths, which the encoding has too; what has a fixed length goes in without it.
    Some(Hash::leaf(&[
        &[canonical::VERSION],
        &position.to_be_bytes(),
        &parts[1][4..],
        parts[2],
        &parts[3][4..],
        &parts[4][4..],
        &parts[5][4..],
        parts[6],
        &parts[7][4..],
        parts[8],
        parts[9],
        &micros.to_be_bytes(),
    ]))
}

/// The leaf of an event.
pub fn leaf_of(event: &StoredEvent) -> Hash {
    Hash::leaf(&[&canonical::bytes(event)])
}
