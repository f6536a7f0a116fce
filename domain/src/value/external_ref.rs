//! Ids that a record has elsewhere.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Line;
use crate::field::FieldValue;
use crate::field_error::{FieldErrors, Invalid, pointer_to};

/// A record's id in another system; unique among a tenant's live records of the same kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExternalRef {
    /// The other system.
    pub source: Line<100>,
    /// The id there.
    pub id: Line<255>,
}

impl ExternalRef {
    /// The most that one record has.
    pub const MANY_MAX: usize = 100;

    /// What it is claimed by: source and id with a character between them (U+001F) that neither can hold.
    pub fn key(&self) -> String {
        format!("{}\u{1f}{}", self.source, self.id)
    }

    /// Bytes that it holds outside itself, roughly.
    pub fn heap_bytes(&self) -> usize {
        self.source.heap_bytes() + self.id.heap_bytes()
    }

    /// Reads a list of `{source, id}`; what is wrong goes to `errors`, below `pointer`.
    pub(crate) fn many_from_json(value: Value, pointer: &str, errors: &mut FieldErrors) -> BTreeSet<Self> {
        let Value::Array(entries) = value else {
            errors.push(pointer, Invalid::wrong_type("a list of {source, id}"));
            return BTreeSet::new();
        };
        if entries.len() > Self::MANY_MAX {
            errors.push(pointer, Invalid::too_many(Self::MANY_MAX));
            return BTreeSet::new();
        }
        let read = |(index, entry)| Self::from_json(entry, &pointer_to(pointer, &usize::to_string(&index)), errors);
        entries.into_iter().enumerate().filter_map(read).collect()
    }

    fn from_json(value: Value, pointer: &str, errors: &mut FieldErrors) -> Option<Self> {
        let Value::Object(members) = value else {
            errors.push(pointer, Invalid::wrong_type("an object {source, id}"));
            return None;
        };
        let (mut source, mut id) = (None, None);
        let errors_before = errors.0.len();
        for (name, value) in members {
            let at = pointer_to(pointer, &name);
            match name.as_str() {
                "source" => match Line::from_json(value) {
                    Ok(line) => source = Some(line),
                    Err(invalid) => errors.push(at, invalid),
                },
                "id" => match Line::from_json(value) {
                    Ok(line) => id = Some(line),
                    Err(invalid) => errors.push(at, invalid),
                },
                _ => errors.push(at, Invalid::unknown_field()),
            }
        }
        if let (Some(source), Some(id)) = (source, id) {
            return Some(Self { source, id });
        }
        if errors.0.len() == errors_before {
            errors.push(pointer, Invalid::required("must have both a source and an id"));
        }
        None
    }
}
