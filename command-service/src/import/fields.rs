//! A record of CSV taken apart.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

/// Takes records apart, one after another.
pub(super) struct Fields {
    reader: Box<Reader>,
    /// How many ends there is place for.
    expected: usize,
}

/// The cells of a record, without their quotes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Record {
    text: String,
    /// Where each cell ends.
    ends: Vec<usize>,
}

impl Fields {
    pub(super) fn new(delimiter: u8) -> Self {
        Self { reader: Box::new(ReaderBuilder::new().delimiter(delimiter).build()), expected: 8 }
    }

    /// The cells of a record that stands without its line end.
    pub(super) fn read(&mut self, record: &str) -> Record {
        self.reader.reset();
        let mut input = record.as_bytes();
        // Quotes go, nothing is added.
        let mut text = vec![0; input.len()];
        let mut ends = vec![0; self.expected];
        let (mut text_len, mut ends_len) = (0, 0);
        loop {
            // Empty input says that the record ends.
            let (result, read, written, ended) =
                self.reader.read_record(input, &mut text[text_len..], &mut ends[ends_len..]);
            input = &input[read..];
            text_len += written;
            ends_len += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => text.resize(text.len() + 16, 0),
                ReadRecordResult::OutputEndsFull => ends.resize(ends.len() * 2, 0),
                ReadRecordResult::Record | ReadRecordResult::End => break,
            }
        }
        text.truncate(text_len);
        ends.truncate(ends_len);
        self.expected = self.expected.max(ends_len + 1);
        // Only ASCII was taken away from text, so text remains.
        let text = String::from_utf8(text).unwrap_or_default();
        Record { text, ends }
    }
}

impl Record {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        self.text.get(start..end)
    }
}
