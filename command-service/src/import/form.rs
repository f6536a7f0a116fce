//! What a list is: compression, charset, format, columns.

use serde::{Deserialize, Serialize};

/// What the sender declared. What is not declared is recognised from the bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Declared {
    /// CSV or NDJSON.
    pub format: Option<Format>,
    /// How bytes stand for characters.
    pub charset: Option<Charset>,
    /// What stands between two cells of CSV.
    pub delimiter: Option<u8>,
    /// How the bytes are packed.
    pub compression: Option<Compression>,
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A header, then a record a line, with quotes where a cell needs them (RFC 4180).
    Csv,
    /// A JSON object a line.
    NdJson,
}

/// How bytes stand for characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Charset {
    /// UTF-8.
    #[serde(rename = "utf-8")]
    Utf8,
    /// Windows-1252, and ISO-8859-1 with it: the Encoding Standard takes that name for this charset, because what is declared as
    /// Latin-1 has the euro sign and typographic quotes of Windows where Latin-1 has control characters.
    #[serde(rename = "windows-1252")]
    Windows1252,
    /// UTF-16, the lower byte first.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// UTF-16, the higher byte first.
    #[serde(rename = "utf-16be")]
    Utf16Be,
}

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip, of one or more members.
    Gzip,
    /// Zstandard, of one or more frames.
    Zstd,
}

/// What the records of a list are; with it a chunk can be read without those before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Form {
    /// CSV or NDJSON.
    pub format: Format,
    /// How its bytes stood for characters.
    pub charset: Charset,
    /// How they were packed.
    pub compression: Compression,
    /// What stands between two cells of CSV.
    pub delimiter: u8,
    /// The names of the columns, in order, without white space around them; those without a name are `column 7`. Empty for NDJSON,
    /// whose records name their own.
    pub columns: Vec<String>,
}

impl Format {
    /// Reads a name as senders write it: `csv`, `tsv`, `ndjson`, `jsonl`, and the media types.
    pub fn parse(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "csv" | "tsv" | "text/csv" | "text/tab-separated-values" => Some(Self::Csv),
            "ndjson" | "jsonl" | "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
                Some(Self::NdJson)
            }
            _ => None,
        }
    }
}

impl Charset {
    /// What [`Charset::parse`] takes.
    pub const KNOWN: &'static str = "utf-8, iso-8859-1, windows-1252, utf-16le, utf-16be";

    /// Reads a name as senders write it, by the labels of the Encoding Standard; none for other charsets.
    pub fn parse(name: &str) -> Option<Self> {
        let encoding = encoding_rs::Encoding::for_label(name.trim().as_bytes())?;
        [Self::Utf8, Self::Windows1252, Self::Utf16Le, Self::Utf16Be]
            .into_iter()
            .find(|charset| charset.encoding() == encoding)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Windows1252 => "windows-1252",
            Self::Utf16Le => "utf-16le",
            Self::Utf16Be => "utf-16be",
        }
    }

    pub(super) fn encoding(self) -> &'static encoding_rs::Encoding {
        match self {
            Self::Utf8 => encoding_rs::UTF_8,
            Self::Windows1252 => encoding_rs::WINDOWS_1252,
            Self::Utf16Le => encoding_rs::UTF_16LE,
            Self::Utf16Be => encoding_rs::UTF_16BE,
        }
    }
}

impl Compression {
    /// Reads a name as `Content-Encoding` has it.
    pub fn parse(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "identity" | "plain" | "none" => Some(Self::Plain),
            "gzip" | "x-gzip" | "gz" => Some(Self::Gzip),
            "zstd" | "zst" => Some(Self::Zstd),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_senders_write_them() {
        assert_eq!(Charset::parse("Latin1"), Some(Charset::Windows1252));
        assert_eq!(Charset::parse("ISO-8859-1"), Some(Charset::Windows1252));
        assert_eq!(Charset::parse(" UTF8 "), Some(Charset::Utf8));
        assert_eq!(Charset::parse("utf-16"), Some(Charset::Utf16Le));
        assert_eq!(Charset::parse("utf-16be"), Some(Charset::Utf16Be));
        assert_eq!(Charset::parse("shift_jis"), None);
        assert_eq!(Format::parse("text/CSV"), Some(Format::Csv));
        assert_eq!(Format::parse("jsonl"), Some(Format::NdJson));
        assert_eq!(Format::parse("xml"), None);
        assert_eq!(Compression::parse("GZip"), Some(Compression::Gzip));
        assert_eq!(Compression::parse("br"), None);
    }

    #[test]
    fn a_form_that_was_stored_is_read_again() {
        let form = Form {
            format: Format::Csv,
            charset: Charset::Utf16Be,
            compression: Compression::Zstd,
            delimiter: b';',
            columns: vec!["Name".to_owned(), "column 2".to_owned()],
        };
        let json = serde_json::to_string(&form).expect("JSON");
        assert_eq!(serde_json::from_str::<Form>(&json).expect("a form"), form);
    }
}
