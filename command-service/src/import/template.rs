//! Ids made of columns.
//!
//! `{Contact ID|Lead ID}` is the first of these columns that is not blank.

use super::header::fold;
use super::mapping::MappingError;

/// Beyond any id, in bytes.
const ID_BYTES_MAX: usize = 4 << 10;

/// A text with columns in braces, such as `{Customer ID}/{n}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    text: String,
    pub(super) pieces: Vec<Piece<String>>,
}

/// A piece of a template, with its columns by name or where they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece<C> {
    Text(String),
    Column(Vec<C>),
    /// Which prospect of the row it is, from 1.
    Number,
}

impl Template {
    /// Reads one; `with_column` says that it must name a column.
    pub(super) fn parse(text: &str, with_column: bool) -> Result<Self, MappingError> {
        let wrong = || MappingError::Id(text.to_owned());
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(wrong)?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(if name == "n" { Piece::Number } else { Piece::Column(name.split('|').map(fold).collect()) });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        if pieces.is_empty() || (with_column && !pieces.iter().any(|piece| matches!(piece, Piece::Column(_)))) {
            return Err(wrong());
        }
        Ok(Self { text: text.to_owned(), pieces })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

/// The text with values in the places of columns; none where one of them is blank.
pub(super) fn filled<C, V: AsRef<str>>(
    pieces: &[Piece<C>],
    number: usize,
    value: impl Fn(&C) -> Option<V>,
) -> Option<String> {
    let mut text = String::new();
    for piece in pieces {
        // No id is so long: its field refuses it, and nothing is gained by the rest.
        if text.len() > ID_BYTES_MAX {
            break;
        }
        match piece {
            Piece::Text(piece) => text.push_str(piece),
            Piece::Number => text.push_str(&number.to_string()),
            Piece::Column(columns) => text.push_str(columns.iter().find_map(&value)?.as_ref().trim()),
        }
    }
    Some(text)
}
