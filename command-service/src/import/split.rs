//! Where records end.

use memchr::{memchr, memchr_iter, memchr3};

/// Finds the ends of records in text that grows. Takes quotes as csv-core does, which takes the records apart: a quote opens
/// only at the beginning of a cell, a doubled one belongs to the text, and after the closing one all is text up to the delimiter.
#[derive(Debug, Clone)]
pub(super) struct Splitter {
    /// What may stand before a quote that opens; none for NDJSON.
    delimiters: Option<&'static [u8]>,
    /// Where the record begins.
    start: usize,
    /// Up to here the text was looked at.
    at: usize,
    /// Where the quote that is open was opened.
    quote: Option<usize>,
    /// Whether the record has quoted cells, which may hold line breaks.
    quoted: bool,
}

/// A record in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub start: usize,
    /// Where its line end begins.
    pub content_end: usize,
    /// Where the next one begins.
    pub end: usize,
    /// How many lines it takes.
    pub lines: u64,
}

/// The delimiters that are recognised, in the order of preference.
pub(super) const CANDIDATES: &[u8] = b",;\t|";

impl Splitter {
    /// For CSV whose cells are kept apart by one of `delimiters`.
    pub(super) fn csv(delimiters: &'static [u8]) -> Self {
        Self { delimiters: Some(delimiters), start: 0, at: 0, quote: None, quoted: false }
    }

    pub(super) fn ndjson() -> Self {
        Self { delimiters: None, start: 0, at: 0, quote: None, quoted: false }
    }

    /// Says which delimiter it is, once the header has told.
    pub(super) fn use_delimiter(&mut self, only: &'static [u8]) {
        self.delimiters = Some(only);
    }

    /// Where the record begins that is not whole yet.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Where the quote opens that is open.
    pub(super) fn open_quote(&self) -> Option<usize> {
        self.quote
    }

    /// Says that so many bytes were taken off the front of the text, none of them of the record that is not whole yet.
    pub(super) fn shift(&mut self, bytes: usize) {
        self.start -= bytes;
        self.at -= bytes;
        self.quote = self.quote.map(|quote| quote - bytes);
    }

    /// The next record; none if the text does not hold the whole of it, or nothing more. `last` says that the text is at its end;
    /// a quote that is still open then stays so.
    pub(super) fn next(&mut self, text: &[u8], last: bool) -> Option<Record> {
        loop {
            if self.quote.is_some() {
                self.at += memchr(b'"', &text[self.at..]).or_else(|| {
                    self.at = text.len();
                    None
                })?;
                match text.get(self.at + 1) {
                    Some(b'"') => self.at += 2,
                    // The next byte decides.
                    None if !last => return None,
                    _ => {
                        self.at += 1;
                        self.quote = None;
                    }
                }
                continue;
            }
            let rest = &text[self.at..];
            let found = match self.delimiters {
                None => memchr(b'\n', rest),
                Some(_) => memchr3(b'\n', b'\r', b'"', rest),
            };
            let Some(found) = found else {
                self.at = text.len();
                return (last && self.start < text.len()).then(|| self.record(text, text.len(), text.len()));
            };
            let here = self.at + found;
            match text[here] {
                b'"' => {
                    let opens = here == self.start
                        || self.delimiters.is_some_and(|delimiters| delimiters.contains(&text[here - 1]));
                    if opens {
                        self.quote = Some(here);
                        self.quoted = true;
                    }
                    self.at = here + 1;
                }
                b'\n' => {
                    let carriage = self.delimiters.is_none() && here > self.start && text[here - 1] == b'\r';
                    return Some(self.record(text, here - usize::from(carriage), here + 1));
                }
                _ => match text.get(here + 1) {
                    Some(b'\n') => return Some(self.record(text, here, here + 2)),
                    // The next byte decides.
                    None if !last => {
                        self.at = here;
                        return None;
                    }
                    _ => return Some(self.record(text, here, here + 1)),
                },
            }
        }
    }

    fn record(&mut self, text: &[u8], content_end: usize, end: usize) -> Record {
        let start = self.start;
        let lines = if self.quoted { 1 + line_breaks(&text[start..content_end]) } else { 1 };
        self.start = end;
        self.at = end;
        self.quoted = false;
        Record { start, content_end, end, lines }
    }
}

/// The line breaks in a text, each LF, CRLF or CR.
pub(super) fn line_breaks(text: &[u8]) -> u64 {
    let alone = memchr_iter(b'\r', text).filter(|at| text.get(at + 1) != Some(&b'\n')).count();
    (memchr_iter(b'\n', text).count() + alone) as u64
}

/// Whether nothing but white space stands there: such a line is no record.
pub(super) fn is_blank(record: &[u8], delimiter: u8) -> bool {
    record.iter().all(|byte| matches!(byte, b' ' | b'\t' | 0x0b | 0x0c) && *byte != delimiter)
}

/// A delimiter as a list of one, or none where it cannot be one.
pub(super) fn only(delimiter: u8) -> Option<&'static [u8]> {
    const ASCII: &[u8; 128] = &{
        let mut all = [0; 128];
        let mut byte = 0;
        while byte < 128 {
            all[byte as usize] = byte;
            byte += 1;
        }
        all
    };
    let possible = delimiter.is_ascii() && !matches!(delimiter, 0 | b'"' | b'\n' | b'\r' | b' ');
    possible.then(|| &ASCII[usize::from(delimiter)..=usize::from(delimiter)])
}
