//! Takes the bytes of a list as they come and gives chunks of whole records, in bounded memory.

use super::form::{Declared, Form};
use super::refusal::Refusal;

/// The most bytes of one record, in UTF-8.
pub const RECORD_BYTES_MAX: usize = 256 << 10;
/// The most columns of a list.
pub const COLUMNS_MAX: usize = 1_000;
/// The most records of one chunk.
pub const CHUNK_ROWS_MAX: u32 = 1_000;
/// The most bytes of text of one chunk.
pub const CHUNK_BYTES_MAX: usize = 768 << 10;

/// Takes bytes, gives chunks.
pub struct Intake {}

/// Records in the order of the file, their text in UTF-8 exactly as it stood.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The number of the first record; 1 is the first after the header.
    pub first_row: u64,
    /// The line of the file that the text begins with, from 1.
    pub first_line: u64,
    /// How many records; blank lines are none.
    pub rows: u32,
    /// Their text.
    pub text: String,
}

/// What was taken in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Records.
    pub rows: u64,
    /// Bytes as they were sent.
    pub bytes: u64,
    /// Bytes of text: unpacked, in UTF-8, the header included.
    pub text_bytes: u64,
    /// What the records are.
    pub form: Form,
}

impl Intake {
    /// An intake of nothing yet.
    pub fn new(_declared: Declared) -> Self {
        todo!()
    }

    /// Takes bytes as they come from the network; appends finished chunks to `out`.
    ///
    /// # Errors
    /// Why the whole import is refused; then nothing more is taken.
    pub fn push(&mut self, _bytes: &[u8], _out: &mut Vec<Chunk>) -> Result<(), Refusal> {
        todo!()
    }

    /// Takes at most a small piece off the front of `bytes` and appends at most a few chunks: for a caller that wants to store chunks
    /// before more are made. Whether there is more to be done before the next bytes.
    ///
    /// # Errors
    /// As [`Intake::push`].
    pub fn step(&mut self, _bytes: &mut &[u8], _out: &mut Vec<Chunk>) -> Result<bool, Refusal> {
        todo!()
    }

    /// The end of the bytes.
    ///
    /// # Errors
    /// Why the whole import is refused.
    pub fn finish(&mut self, _out: &mut Vec<Chunk>) -> Result<Taken, Refusal> {
        todo!()
    }

    /// What the records are: known after the header, or after the first record of NDJSON.
    pub fn form(&self) -> Option<&Form> {
        todo!()
    }

    /// Bytes that it holds, roughly.
    pub fn held_bytes(&self) -> usize {
        todo!()
    }
}
