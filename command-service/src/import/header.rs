//! The names of a list's columns.

use std::collections::HashMap;

use memchr::memchr_iter;

use super::fields::Fields;
use super::form::Charset;
use super::intake::COLUMNS_MAX;
use super::refusal::Refusal;
use super::split::{self, CANDIDATES};

/// The columns that the report of an import's rows puts before the list's own: sent again with it, they say nothing.
pub const OF_REPORT: [&str; 4] = ["import_row", "import_line", "import_outcome", "import_reasons"];

/// Reads the header: the delimiter, where none is given the one that makes most columns, and the names.
pub(super) fn read(record: &str, delimiter: Option<u8>, charset: Charset) -> Result<(u8, Vec<String>), Refusal> {
    if record.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Refusal::HeaderCharset { charset });
    }
    let delimiter = delimiter.unwrap_or_else(|| most_frequent(record.as_bytes()));
    let cells = Fields::new(delimiter).read(record);
    if cells.len() > COLUMNS_MAX {
        return Err(Refusal::TooManyColumns);
    }
    let mut columns = Vec::with_capacity(cells.len());
    let mut seen = HashMap::new();
    for index in 0..cells.len() {
        let name = cells.get(index).unwrap_or_default().trim();
        // A report of a report has its own columns twice.
        let name = match name {
            "" => format!("column {}", index + 1),
            name if is_of_report(name) && seen.contains_key(&fold(name)) => format!("{name} ({})", index + 1),
            name => name.to_owned(),
        };
        if let Some(first) = seen.insert(fold(&name), index + 1) {
            return Err(Refusal::DuplicateColumn { name, first, second: index + 1 });
        }
        columns.push(name);
    }
    Ok((delimiter, columns))
}

/// Whether a column is one that the report of an earlier import put before the list's own.
pub(super) fn is_of_report(name: &str) -> bool {
    let name = name.split_once(" (").map_or(name, |(name, _)| name);
    OF_REPORT.contains(&name.trim())
}

/// The delimiter that stands most often outside quotes.
fn most_frequent(record: &[u8]) -> u8 {
    let mut counts = [0_usize; CANDIDATES.len()];
    let (mut quoted, mut begins) = (false, true);
    for byte in record {
        let candidate = CANDIDATES.iter().position(|delimiter| delimiter == byte).filter(|_| !quoted);
        if let Some(candidate) = candidate {
            counts[candidate] += 1;
        }
        // A doubled quote closes and opens again.
        quoted ^= *byte == b'"' && (quoted || begins);
        begins = candidate.is_some() || *byte == b'"';
    }
    let best = (0..CANDIDATES.len()).rev().max_by_key(|candidate| counts[*candidate]).unwrap_or(0);
    CANDIDATES[best]
}

/// A column's name as it is compared: without white space around it, in lower case.
pub(super) fn fold(name: &str) -> String {
    name.trim().to_lowercase()
}

/// The delimiter that a first line `sep=;` tells Excel.
pub(super) fn line_for_excel(record: &str) -> Option<u8> {
    match record.as_bytes() {
        [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', delimiter] => split::only(*delimiter).map(|_| *delimiter),
        _ => None,
    }
}

/// Whether a header that does not end has too many columns already, whatever keeps them apart.
pub(super) fn has_too_many_columns(text: &[u8]) -> bool {
    CANDIDATES.iter().any(|delimiter| memchr_iter(*delimiter, text).count() >= COLUMNS_MAX)
}
