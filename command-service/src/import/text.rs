//! From unpacked bytes to chunks of whole records.

use encoding_rs::Decoder;
use memchr::memchr;

use super::charset;
use super::form::{Charset, Compression, Declared, Form, Format};
use super::header;
use super::intake::{CHUNK_BYTES_MAX, CHUNK_ROWS_MAX, Chunk, RECORD_BYTES_MAX};
use super::refusal::Refusal;
use super::sniff;
use super::split::{self, Record, Splitter};

/// Decodes bytes, cuts the text into records and these into chunks.
pub(super) struct Text {
    declared: Declared,
    compression: Compression,
    /// The first bytes: looked at when there are enough of them.
    head: Vec<u8>,
    decoding: Option<(Decoder, Charset)>,
    /// Text from the first record of the chunk that is not full yet.
    decoded: String,
    /// How records are found, once the format is known.
    splitter: Option<Splitter>,
    form: Option<Form>,
    chunk: Begun,
    /// The line and the row of the record that is not whole yet.
    line: u64,
    row: u64,
    /// Bytes of text so far.
    bytes: u64,
}

/// The chunk that is not full yet.
#[derive(Clone, Copy)]
struct Begun {
    start: usize,
    end: usize,
    first_row: u64,
    first_line: u64,
    rows: u32,
}

impl Text {
    pub(super) fn new(declared: Declared) -> Self {
        Self {
            declared,
            compression: Compression::Plain,
            head: Vec::new(),
            decoding: None,
            decoded: String::new(),
            splitter: None,
            form: None,
            chunk: Begun { start: 0, end: 0, first_row: 1, first_line: 1, rows: 0 },
            line: 1,
            row: 1,
            bytes: 0,
        }
    }

    pub(super) fn form(&self) -> Option<&Form> {
        self.form.as_ref()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn held_bytes(&self) -> usize {
        let columns = self.form.iter().flat_map(|form| &form.columns);
        self.head.capacity() + self.decoded.capacity() + columns.map(|name| name.capacity() + 24).sum::<usize>()
    }

    /// Takes bytes that were packed in this way.
    pub(super) fn push(&mut self, bytes: &[u8], compression: Compression, out: &mut Vec<Chunk>) -> Result<(), Refusal> {
        if self.decoding.is_some() {
            return self.decode(bytes, false, out);
        }
        self.compression = compression;
        let (first, rest) = bytes.split_at(bytes.len().min(sniff::HEAD_BYTES - self.head.len()));
        self.head.extend_from_slice(first);
        if self.head.len() < sniff::HEAD_BYTES {
            return Ok(());
        }
        self.look_at_head(out)?;
        self.decode(rest, false, out)
    }

    /// The end of the bytes: how many records there were, and what they are.
    pub(super) fn finish(&mut self, out: &mut Vec<Chunk>) -> Result<(u64, Form), Refusal> {
        if self.decoding.is_none() {
            self.look_at_head(out)?;
        }
        self.decode(&[], true, out)?;
        self.flush(out);
        let rows = self.row - 1;
        match &self.form {
            None => Err(Refusal::Empty),
            Some(_) if rows == 0 => Err(Refusal::NoRows),
            Some(form) => Ok((rows, form.clone())),
        }
    }

    fn look_at_head(&mut self, out: &mut Vec<Chunk>) -> Result<(), Refusal> {
        if let Some((what, instead)) = sniff::what_it_is(&self.head) {
            return Err(Refusal::NotAList { what, instead });
        }
        // A byte order mark is stronger than what is declared, as in the Encoding Standard.
        let (charset, mark_bytes) =
            charset::byte_order_mark(&self.head).unwrap_or((self.declared.charset.unwrap_or(Charset::Utf8), 0));
        self.decoding = Some((charset::decoder(charset), charset));
        let head = self.head.split_off(mark_bytes);
        self.decode(&head, false, out)?;
        self.head = head;
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8], last: bool, out: &mut Vec<Chunk>) -> Result<(), Refusal> {
        let Some((decoder, charset)) = &mut self.decoding else { return Ok(()) };
        let before = self.decoded.len();
        charset::decode(decoder, bytes, last, &mut self.decoded);
        self.bytes += (self.decoded.len() - before) as u64;
        if let Some(nul) = memchr(0, &self.decoded.as_bytes()[before..]) {
            let start = self.splitter.as_ref().map_or(0, Splitter::start);
            let line = self.line + split::line_breaks(&self.decoded.as_bytes()[start..before + nul]);
            let utf_16 = *charset == Charset::Utf8
                && charset::looks_like_utf_16(if self.head.is_empty() { bytes } else { &self.head });
            return Err(Refusal::NulByte { line, utf_16 });
        }
        if self.splitter.is_none() && !self.choose_format()? {
            return Ok(());
        }
        self.cut(last, out)?;
        // What is left is the chunk that is not full yet and a record that is not whole.
        let gone = self.chunk.start;
        self.decoded.drain(..gone);
        self.chunk.start = 0;
        self.chunk.end -= gone;
        if let Some(splitter) = &mut self.splitter {
            splitter.shift(gone);
        }
        Ok(())
    }

    /// Chooses the format by what is declared or by the first character that is no white space; whether there is one.
    fn choose_format(&mut self) -> Result<bool, Refusal> {
        let text = self.decoded.trim_ascii_start();
        let Some(first) = text.bytes().next() else {
            // Blank lines at the beginning are not kept. A CR at the end may be half of a line break.
            let blank = self.decoded.strip_suffix('\r').unwrap_or(&self.decoded);
            let lines_end = blank.rfind(['\n', '\r']).map_or(0, |at| at + 1);
            self.line += split::line_breaks(&self.decoded.as_bytes()[..lines_end]);
            self.decoded.drain(..lines_end);
            if self.decoded.len() > RECORD_BYTES_MAX {
                return Err(Refusal::RecordTooLong { line: self.line });
            }
            return Ok(false);
        };
        let charset = self.decoding.as_ref().map_or(Charset::Utf8, |(_, charset)| *charset);
        let format = self.declared.format.unwrap_or(if first == b'{' { Format::NdJson } else { Format::Csv });
        let delimiter = self.declared.delimiter.and_then(split::only);
        self.splitter = Some(match format {
            Format::Csv => Splitter::csv(delimiter.unwrap_or(split::CANDIDATES)),
            Format::NdJson => Splitter::ndjson(),
        });
        if format == Format::NdJson {
            let (compression, delimiter, columns) = (self.compression, 0, Vec::new());
            self.form = Some(Form { format, charset, compression, delimiter, columns });
        }
        self.chunk.first_line = self.line;
        Ok(true)
    }

    /// Puts every whole record into the chunk.
    fn cut(&mut self, last: bool, out: &mut Vec<Chunk>) -> Result<(), Refusal> {
        while let Some(splitter) = &mut self.splitter {
            let Some(record) = splitter.next(self.decoded.as_bytes(), last) else {
                let (start, quote) = (splitter.start(), splitter.open_quote());
                let too_long = self.decoded.len() - start > RECORD_BYTES_MAX;
                return if too_long || (last && quote.is_some()) { Err(self.endless(start, quote)) } else { Ok(()) };
            };
            if record.content_end - record.start > RECORD_BYTES_MAX {
                return Err(self.endless(record.start, None));
            }
            if self.form.is_none() {
                self.header(record)?;
            } else {
                self.record(record, out);
            }
        }
        Ok(())
    }

    /// Why a record is refused that does not end.
    fn endless(&self, start: usize, quote: Option<usize>) -> Refusal {
        let text = self.decoded.as_bytes();
        if let Some(quote) = quote {
            return Refusal::OpenQuote { line: self.line + split::line_breaks(&text[start..quote]) };
        }
        if self.form.is_none() && header::has_too_many_columns(&text[start..]) {
            return Refusal::TooManyColumns;
        }
        Refusal::RecordTooLong { line: self.line }
    }

    /// Takes a record before the header is known: a blank line, a line for Excel, or the header.
    fn header(&mut self, record: Record) -> Result<(), Refusal> {
        let content = &self.decoded[record.start..record.content_end];
        let line = self.line;
        self.line += record.lines;
        self.chunk.start = record.end;
        self.chunk.end = record.end;
        self.chunk.first_line = self.line;
        if split::is_blank(content.as_bytes(), 0) {
            return Ok(());
        }
        if let Some(delimiter) = header::line_for_excel(content).filter(|_| line == 1)
            && self.declared.delimiter.is_none()
        {
            self.declared.delimiter = Some(delimiter);
            return Ok(());
        }
        let charset = self.decoding.as_ref().map_or(Charset::Utf8, |(_, charset)| *charset);
        let (delimiter, columns) = header::read(content, self.declared.delimiter, charset)?;
        if let (Some(splitter), Some(only)) = (&mut self.splitter, split::only(delimiter)) {
            splitter.use_delimiter(only);
        }
        self.form = Some(Form { format: Format::Csv, charset, compression: self.compression, delimiter, columns });
        Ok(())
    }

    fn record(&mut self, record: Record, out: &mut Vec<Chunk>) {
        let delimiter = self.form.as_ref().map_or(0, |form| form.delimiter);
        let blank = split::is_blank(&self.decoded.as_bytes()[record.start..record.content_end], delimiter);
        if record.end - self.chunk.start > CHUNK_BYTES_MAX {
            self.flush(out);
        }
        self.line += record.lines;
        self.chunk.end = record.end;
        if blank {
            // No chunk begins with blank lines, so that any number of them needs no memory.
            if self.chunk.rows == 0 {
                self.chunk.start = record.end;
                self.chunk.first_line = self.line;
            }
            return;
        }
        self.row += 1;
        self.chunk.rows += 1;
        if self.chunk.rows == CHUNK_ROWS_MAX {
            self.flush(out);
        }
    }

    /// Gives the chunk away and begins another after it.
    fn flush(&mut self, out: &mut Vec<Chunk>) {
        let Begun { start, end, first_row, first_line, rows } = self.chunk;
        if rows > 0 {
            out.push(Chunk { first_row, first_line, rows, text: self.decoded[start..end].to_owned() });
        }
        self.chunk = Begun { start: end, end, first_row: self.row, first_line: self.line, rows: 0 };
    }
}
