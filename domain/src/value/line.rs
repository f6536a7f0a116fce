//! Text on one line.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::text::{Breaks, clean_bounded};
use super::text_of;
use crate::field::{FieldValue, Schema};
use crate::field_error::Invalid;

/// One line of 1 to `MAX` characters, trimmed, in NFC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Line<const MAX: usize>(String);

impl<const MAX: usize> Line<MAX> {
    /// Cleans the text: a tab or line break becomes one space.
    ///
    /// # Errors
    /// `empty`, `too_long` or `control_character`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        clean_bounded(Cow::Borrowed(text), Breaks::Space, MAX).map(Self)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Display for Line<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> FieldValue for Line<MAX> {
    const SCHEMA: Schema = Schema::text(MAX);

    fn from_json(value: Value) -> Result<Self, Invalid> {
        clean_bounded(Cow::Owned(text_of(value)?), Breaks::Space, MAX).map(Self)
    }

    fn heap_bytes(&self) -> usize {
        self.0.capacity()
    }
}
