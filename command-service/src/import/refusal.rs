//! Why a list is refused as a whole.

use super::form::Charset;
use super::intake::{COLUMNS_MAX, RECORD_BYTES_MAX};

/// Why the whole import is refused. Says what to do, and never what stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing but blank lines, or nothing at all.
    #[error("the file is empty: send a header and at least one row")]
    Empty,
    /// A header and nothing after it.
    #[error("the file has a header and no rows")]
    NoRows,
    /// It is no list.
    #[error("the file seems to be {what}: {instead}")]
    NotAList {
        /// What it seems to be.
        what: &'static str,
        /// What to send.
        instead: &'static str,
    },
    /// A NUL byte, which no text has.
    #[error("line {line} holds a NUL byte: the file is damaged or no text{}", if *.utf_16 { "; it looks like UTF-16, which must be declared where the file does not begin with a byte order mark" } else { "" })]
    NulByte {
        /// Where.
        line: u64,
        /// Whether every other byte is one.
        utf_16: bool,
    },
    /// A record that does not end.
    #[error(
        "the record that begins in line {line} is longer than {RECORD_BYTES_MAX} bytes: a record has at most that many"
    )]
    RecordTooLong {
        /// Where it begins.
        line: u64,
    },
    /// A quote that does not end.
    #[error("the quote that opens in line {line} is never closed: close it, or double it if it belongs to the text")]
    OpenQuote {
        /// Where it opens.
        line: u64,
    },
    /// A header of too many columns.
    #[error("the header has more than {COLUMNS_MAX} columns: leave out those that are not needed")]
    TooManyColumns,
    /// Two columns of one name.
    #[error("the header has the column {name:?} twice (columns {first} and {second}): rename one of them")]
    DuplicateColumn {
        /// The name.
        name: String,
        /// The first of them, from 1.
        first: usize,
        /// The second.
        second: usize,
    },
    /// The header cannot be read in the charset.
    #[error("the header holds bytes that are not {}: declare the file's charset, one of {}", .charset.name(), Charset::KNOWN)]
    HeaderCharset {
        /// In which charset it was read.
        charset: Charset,
    },
    /// A delimiter that cannot be one.
    #[error("the delimiter must be one ASCII character and neither a quote nor a line break")]
    Delimiter,
    /// The bytes are not packed as declared, or are damaged.
    #[error("the {format} stream cannot be read: it is damaged or something else{}", if *.after_end { " follows after its end" } else { "" })]
    Damaged {
        /// gzip or zstd.
        format: &'static str,
        /// Whether what came before it was whole.
        after_end: bool,
    },
    /// The bytes end before the stream does.
    #[error("the {format} stream is cut off: send the whole file")]
    CutOff {
        /// gzip or zstd.
        format: &'static str,
    },
    /// The stream needs too much memory.
    #[error("the zstd stream needs a window of more than 8 MiB: recompress it without --long or --ultra")]
    Window,
    /// The stream expands to much more than any list does.
    #[error("the compressed file expands to more than 300 times its size: send it uncompressed")]
    Bomb,
    /// An intake that has refused before.
    #[error("the import was refused already")]
    Refused,
}

impl Refusal {
    /// Its stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty_file",
            Self::NoRows => "no_rows",
            Self::NotAList { .. } => "not_a_list",
            Self::NulByte { .. } => "nul_byte",
            Self::RecordTooLong { .. } => "record_too_long",
            Self::OpenQuote { .. } => "open_quote",
            Self::TooManyColumns => "too_many_columns",
            Self::DuplicateColumn { .. } => "duplicate_column",
            Self::HeaderCharset { .. } => "header_not_of_charset",
            Self::Delimiter => "invalid_delimiter",
            Self::Damaged { .. } => "damaged_stream",
            Self::CutOff { .. } => "cut_off_stream",
            Self::Window => "window_too_large",
            Self::Bomb => "compression_bomb",
            Self::Refused => "refused",
        }
    }
}
