//! A chunk's records, taken apart.

use std::borrow::Cow;
use std::marker::PhantomData;

use super::form::Form;
use super::intake::Chunk;

/// One record.
pub struct Row<'a> {
    /// Its number; 1 is the first after the header.
    pub number: u64,
    /// The line of the file that it begins in, from 1.
    pub line: u64,
    /// Its text as it stood, without its line end.
    pub text: &'a str,
    /// Its cells, or why it has none.
    pub cells: Result<Cells<'a>, BadRow>,
}

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// A stable name.
    pub code: &'static str,
    /// What is wrong and what to do.
    pub detail: String,
}

/// The cells of a record.
pub struct Cells<'a>(PhantomData<&'a Form>);

impl Cells<'_> {
    /// The text of a column's cell; none if it is blank or the record has no such column.
    pub fn get(&self, _column: &str) -> Option<Cow<'_, str>> {
        todo!()
    }
}

/// The records of a chunk, in order.
pub fn rows<'a>(_form: &'a Form, _chunk: &'a Chunk) -> impl Iterator<Item = Row<'a>> + use<'a> {
    std::iter::empty()
}
