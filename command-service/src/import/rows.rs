//! A chunk's records, taken apart.

use std::borrow::Cow;

use memchr::memmem;
use serde_json::{Map, Value};

use super::fields::{self, Fields};
use super::form::{Charset, Form, Format};
use super::header::fold;
use super::intake::{COLUMNS_MAX, Chunk};
use super::split::{self, Splitter};

/// The longest name of a member, in bytes.
const NAME_BYTES_MAX: usize = 1_000;

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

/// Why a record cannot be read. Never holds what stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// A stable name.
    pub code: &'static str,
    /// What is wrong and what to do.
    pub detail: String,
}

/// The cells of a record.
pub struct Cells<'a> {
    form: &'a Form,
    kind: Kind,
}

enum Kind {
    Csv(fields::Record),
    /// Names and plain values or lists of these, in the order of the object.
    Json(Vec<(String, Value)>),
}

/// Where a column stands in its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Column {
    /// In CSV: its index.
    At(usize),
    /// In NDJSON: its name.
    Named(String),
}

/// What stands in a record under a column.
pub(super) enum Cell<'a> {
    Text(&'a str),
    Json(&'a Value),
}

impl Cells<'_> {
    /// The text of a column's cell, whatever the case of its name; none if it is blank or there is no such column. A list is its
    /// JSON.
    pub fn get(&self, column: &str) -> Option<Cow<'_, str>> {
        let column = match &self.kind {
            Kind::Csv(_) => {
                let folded = fold(column);
                Column::At(self.form.columns.iter().position(|name| fold(name) == folded)?)
            }
            Kind::Json(_) => Column::Named(column.to_owned()),
        };
        match self.cell(&column)? {
            Cell::Text(text) => Some(Cow::Borrowed(text)),
            Cell::Json(value) => Some(text_of(value)),
        }
    }

    /// The names of the columns that are not blank, in order, each with its text.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        let csv = match &self.kind {
            Kind::Csv(record) => Some(record),
            Kind::Json(_) => None,
        };
        let json = match &self.kind {
            Kind::Csv(_) => &[][..],
            Kind::Json(members) => members,
        };
        let csv = csv.into_iter().flat_map(|record| {
            let named = self.form.columns.iter().enumerate();
            named.filter_map(|(index, name)| Some((name.as_str(), Cow::Borrowed(not_blank(record.get(index)?)?))))
        });
        csv.chain(json.iter().map(|(name, value)| (name.as_str(), text_of(value))))
    }

    /// What stands under a column, unless it is blank.
    pub(super) fn cell(&self, column: &Column) -> Option<Cell<'_>> {
        match (&self.kind, column) {
            (Kind::Csv(record), Column::At(index)) => not_blank(record.get(*index)?).map(Cell::Text),
            (Kind::Json(members), Column::Named(name)) => {
                let value = &members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?.1;
                match value {
                    Value::String(text) => Some(Cell::Text(text)),
                    value => Some(Cell::Json(value)),
                }
            }
            _ => None,
        }
    }

    /// The members of an NDJSON record with their names.
    pub(super) fn members(&self) -> &[(String, Value)] {
        match &self.kind {
            Kind::Csv(_) => &[],
            Kind::Json(members) => members,
        }
    }
}

/// The records of a chunk, in order. Blank lines are none.
///
/// A record of CSV with fewer cells than the header has columns lacks the last ones, as spreadsheets leave out what is blank at the end
/// of a line; one with more is bad, unless what is too much is blank.
pub fn rows<'a>(form: &'a Form, chunk: &'a Chunk) -> impl Iterator<Item = Row<'a>> + use<'a> {
    let mut splitter = match form.format {
        Format::Csv => Splitter::csv(split::only(form.delimiter).unwrap_or(split::CANDIDATES)),
        Format::NdJson => Splitter::ndjson(),
    };
    let mut fields = Fields::new(form.delimiter);
    let (mut number, mut line) = (chunk.first_row, chunk.first_line);
    std::iter::from_fn(move || {
        loop {
            let record = splitter.next(chunk.text.as_bytes(), true)?;
            let text = &chunk.text[record.start..record.content_end];
            let at = line;
            line += record.lines;
            if split::is_blank(text.as_bytes(), form.delimiter) {
                continue;
            }
            let row = Row { number, line: at, text, cells: cells(form, &mut fields, text) };
            number += 1;
            return Some(row);
        }
    })
}

fn cells<'a>(form: &'a Form, fields: &mut Fields, text: &str) -> Result<Cells<'a>, BadRow> {
    if memmem::find(text.as_bytes(), "\u{fffd}".as_bytes()).is_some() {
        return Err(not_of_charset(form.charset));
    }
    let kind = match form.format {
        Format::Csv => {
            let record = fields.read(text);
            let columns = form.columns.len();
            if (columns..record.len()).any(|index| record.get(index).and_then(not_blank).is_some()) {
                let detail = format!(
                    "the row has {} cells and the header {columns} columns: a cell that holds the delimiter must stand in quotes",
                    record.len()
                );
                return Err(BadRow { code: "too_many_cells", detail });
            }
            Kind::Csv(record)
        }
        Format::NdJson => Kind::Json(members(text)?),
    };
    Ok(Cells { form, kind })
}

fn members(text: &str) -> Result<Vec<(String, Value)>, BadRow> {
    let bad = |code, detail: &str| BadRow { code, detail: detail.to_owned() };
    let object = match serde_json::from_str(text) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err(bad("not_an_object", "the line must be a JSON object")),
        Err(error) => {
            let detail = format!("the line is not JSON (at character {}): write one object a line", error.column());
            return Err(BadRow { code: "not_json", detail });
        }
    };
    let mut members = Vec::with_capacity(object.len());
    if !flatten("", object, &mut members) {
        return Err(bad("too_many_members", "the object has more than 1000 members, or names longer than 1000 bytes"));
    }
    Ok(members)
}

/// Puts the members of an object with those of the objects in it, as `a.b`; blank ones are left out. Whether these stay within bounds.
fn flatten(prefix: &str, object: Map<String, Value>, members: &mut Vec<(String, Value)>) -> bool {
    for (name, value) in object {
        let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        if members.len() >= COLUMNS_MAX || name.len() > NAME_BYTES_MAX {
            return false;
        }
        match value {
            Value::Object(object) => {
                if !flatten(&name, object, members) {
                    return false;
                }
            }
            Value::Null => {}
            Value::String(text) if text.trim().is_empty() => {}
            Value::Array(entries) => {
                // What is not plain is kept as its JSON.
                let plain = |entry: Value| match entry {
                    Value::Object(_) | Value::Array(_) => Value::String(entry.to_string()),
                    entry => entry,
                };
                let entries: Vec<Value> = entries.into_iter().filter(|entry| !entry.is_null()).map(plain).collect();
                if !entries.is_empty() {
                    members.push((name, Value::Array(entries)));
                }
            }
            value => members.push((name, value)),
        }
    }
    true
}

pub(super) fn text_of(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        value => Cow::Owned(value.to_string()),
    }
}

impl std::fmt::Debug for Cells<'_> {
    /// Without the texts: they are of persons.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cells").finish_non_exhaustive()
    }
}

fn not_blank(text: &str) -> Option<&str> {
    let text = text.trim();
    (!text.is_empty()).then_some(text)
}

fn not_of_charset(charset: Charset) -> BadRow {
    let instead = match charset {
        Charset::Utf8 => "declare it, for example as windows-1252, or correct the row",
        _ => "declare another one or correct the row",
    };
    let detail = format!("the row holds bytes that are not of the charset {}: {instead}", charset.name());
    BadRow { code: "not_of_charset", detail }
}
