//! Takes the bytes of a list as they come and gives chunks of whole records, in bounded memory.

use std::fmt;

use super::decompress::{PIECE_BYTES, Unpack};
use super::form::{Compression, Declared, Form};
use super::refusal::Refusal;
use super::split;
use super::text::Text;

/// The most bytes of one record, in UTF-8.
pub const RECORD_BYTES_MAX: usize = 256 << 10;
/// The most columns of a list.
pub const COLUMNS_MAX: usize = 1_000;
/// The most records of one chunk.
pub const CHUNK_ROWS_MAX: u32 = 1_000;
/// The most bytes of text of one chunk.
pub const CHUNK_BYTES_MAX: usize = 768 << 10;
/// So many bytes a stream may expand to in any case, and so many times its size beyond. Lists pack 5 to 20 times.
const EXPANDED_BYTES_FREE: u64 = 64 << 20;
const EXPANSION_MAX: u64 = 300;
/// Packed bytes are taken in pieces of so many, so that the expansion is looked at before much has come of it.
const PACKED_PIECE_BYTES: usize = 4 << 10;
/// The longest magic number of a compression.
const MAGIC_BYTES: usize = 4;

/// Takes bytes, gives chunks. What it holds is bounded ([`Intake::held_bytes`]) whatever comes: a record, the chunk that is not full
/// yet, a piece of unpacked bytes and the window of the compression.
pub struct Intake {
    declared: Declared,
    /// The first bytes, until they tell the compression.
    magic: Vec<u8>,
    packing: Packing,
    piece: Vec<u8>,
    text: Text,
    /// Bytes as they were sent.
    bytes: u64,
    expansion: Expansion,
    /// Nothing more is taken.
    over: bool,
}

enum Packing {
    Unknown,
    Plain,
    Packed(Unpack, Compression),
}

/// How much came of how much.
#[derive(Clone, Copy, Default)]
struct Expansion {
    taken: u64,
    made: u64,
}

/// Records in the order of the file, their text in UTF-8 exactly as it stood, blank lines between them included.
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
    pub fn new(declared: Declared) -> Self {
        Self {
            declared,
            magic: Vec::new(),
            packing: Packing::Unknown,
            piece: Vec::new(),
            text: Text::new(declared),
            bytes: 0,
            expansion: Expansion::default(),
            over: false,
        }
    }

    /// Takes bytes as they come from the network; appends finished chunks to `out`. What these hold is bounded by the bytes' own
    /// number: 64 MiB or 300 times as much.
    ///
    /// # Errors
    /// Why the whole import is refused; then nothing more is taken.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<Chunk>) -> Result<(), Refusal> {
        let (taken_before, made_before) = (self.expansion.taken, self.expansion.made);
        while self.step(&mut bytes, out)? {
            // A stream may have earned itself a bomb by much that did not expand; one push has not.
            let Expansion { taken, made } = self.expansion;
            let pushed = Expansion { taken: taken - taken_before, made: made - made_before };
            if pushed.is_bomb() {
                self.over = true;
                return Err(Refusal::Bomb);
            }
        }
        Ok(())
    }

    /// Takes a small piece off the front of `bytes` and appends the few chunks that it fills: for a caller that stores these before
    /// more are made. Whether there is more to be done before further bytes are needed.
    ///
    /// # Errors
    /// As [`Intake::push`].
    pub fn step(&mut self, bytes: &mut &[u8], out: &mut Vec<Chunk>) -> Result<bool, Refusal> {
        if self.over {
            return Err(Refusal::Refused);
        }
        let more = self.try_step(bytes, out);
        self.over = more.is_err();
        more
    }

    /// The end of the bytes: appends the last chunks to `out`.
    ///
    /// # Errors
    /// Why the whole import is refused.
    pub fn finish(&mut self, out: &mut Vec<Chunk>) -> Result<Taken, Refusal> {
        if std::mem::replace(&mut self.over, true) {
            return Err(Refusal::Refused);
        }
        if matches!(self.packing, Packing::Unknown) {
            self.choose_packing(out)?;
        }
        if let Packing::Packed(unpack, _) = &self.packing {
            unpack.finish()?;
        }
        let (rows, form) = self.text.finish(out)?;
        Ok(Taken { rows, bytes: self.bytes, text_bytes: self.text.bytes(), form })
    }

    /// What the records are: known after the header, or at the first record of NDJSON.
    pub fn form(&self) -> Option<&Form> {
        self.text.form()
    }

    /// Bytes that it holds, roughly: below 16 MiB with Zstandard, below 4 MiB else.
    pub fn held_bytes(&self) -> usize {
        let unpack = match &self.packing {
            Packing::Packed(unpack, _) => unpack.held_bytes(),
            Packing::Unknown | Packing::Plain => 0,
        };
        unpack + self.magic.capacity() + self.piece.capacity() + self.text.held_bytes()
    }

    fn try_step(&mut self, bytes: &mut &[u8], out: &mut Vec<Chunk>) -> Result<bool, Refusal> {
        if matches!(self.packing, Packing::Unknown) {
            let first = take(bytes, MAGIC_BYTES - self.magic.len());
            self.bytes += first.len() as u64;
            self.magic.extend_from_slice(first);
            if self.magic.len() < MAGIC_BYTES {
                return Ok(false);
            }
            self.choose_packing(out)?;
            return Ok(!bytes.is_empty());
        }
        let piece_bytes = if matches!(self.packing, Packing::Plain) { PIECE_BYTES } else { PACKED_PIECE_BYTES };
        let piece = &bytes[..bytes.len().min(piece_bytes)];
        let mut rest = piece;
        let more = self.unpack(&mut rest, out)?;
        let taken = piece.len() - rest.len();
        self.bytes += taken as u64;
        *bytes = &bytes[taken..];
        Ok(more || !bytes.is_empty())
    }

    /// Takes from `bytes` what makes one piece at most; whether there is more before further bytes are needed.
    fn unpack(&mut self, bytes: &mut &[u8], out: &mut Vec<Chunk>) -> Result<bool, Refusal> {
        let Packing::Packed(unpack, compression) = &mut self.packing else {
            self.text.push(std::mem::take(bytes), Compression::Plain, out)?;
            return Ok(false);
        };
        self.piece.resize(PIECE_BYTES, 0);
        let before = bytes.len();
        let (made, more) = unpack.step(bytes, &mut self.piece)?;
        self.expansion.taken += (before - bytes.len()) as u64;
        self.expansion.made += made as u64;
        if self.expansion.is_bomb() {
            return Err(Refusal::Bomb);
        }
        self.text.push(&self.piece[..made], *compression, out)?;
        Ok(more)
    }

    /// Chooses the compression by what is declared or by the first bytes, and hands these on.
    fn choose_packing(&mut self, out: &mut Vec<Chunk>) -> Result<(), Refusal> {
        let magic = std::mem::take(&mut self.magic);
        if self.declared.delimiter.is_some_and(|delimiter| split::only(delimiter).is_none()) {
            return Err(Refusal::Delimiter);
        }
        let compression = self.declared.compression.unwrap_or(match magic[..] {
            [0x1f, 0x8b, 8, _] => Compression::Gzip,
            // A frame, or one to be skipped.
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Compression::Zstd,
            _ => Compression::Plain,
        });
        self.packing = match compression {
            Compression::Plain => Packing::Plain,
            Compression::Gzip => Packing::Packed(Unpack::gzip(), compression),
            Compression::Zstd => Packing::Packed(Unpack::zstd()?, compression),
        };
        let mut rest = &magic[..];
        while self.unpack(&mut rest, out)? || !rest.is_empty() {}
        Ok(())
    }
}

impl Expansion {
    fn is_bomb(self) -> bool {
        self.made > EXPANDED_BYTES_FREE && self.made / EXPANSION_MAX > self.taken
    }
}

/// Takes up to so many bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], bytes_max: usize) -> &'a [u8] {
    let (piece, rest) = bytes.split_at(bytes.len().min(bytes_max));
    *bytes = rest;
    piece
}

impl fmt::Debug for Chunk {
    /// Without the text: it is of persons.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first_row, first_line, rows, text } = self;
        f.debug_struct("Chunk")
            .field("first_row", first_row)
            .field("first_line", first_line)
            .field("rows", rows)
            .field("bytes", &text.len())
            .finish()
    }
}

#[cfg(test)]
mod tests;
