//! Text that keeps its line breaks: descriptions and addresses.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::text::{Breaks, clean_bounded};
use super::text_of;
use crate::field::{FieldValue, Schema};
use crate::field_error::Invalid;

/// 1 to `MAX` characters, trimmed, in NFC, with line feeds for line breaks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Paragraph<const MAX: usize>(String);

impl<const MAX: usize> Paragraph<MAX> {
    /// Cleans the text: every kind of line break becomes a line feed, a tab one space.
    ///
    /// # Errors
    /// `empty`, `too_long` or `control_character`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        clean_bounded(Cow::Borrowed(text), Breaks::Keep, MAX).map(Self)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Display for Paragraph<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> FieldValue for Paragraph<MAX> {
    const SCHEMA: Schema = Schema::text(MAX);

    fn from_json(value: Value) -> Result<Self, Invalid> {
        clean_bounded(Cow::Owned(text_of(value)?), Breaks::Keep, MAX).map(Self)
    }

    fn heap_bytes(&self) -> usize {
        self.0.capacity()
    }
}
