//! When a company was founded, as exactly as it is known.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{Date, Month};

use super::text_of;
use crate::field::{FieldValue, Schema};
use crate::field_error::Invalid;

/// A year (`1998`), a month (`1998-09`) or a day (`1998-09-04`) of the calendar.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FoundingDate(String);

impl FoundingDate {
    /// Reads `YYYY`, `YYYY-MM` or `YYYY-MM-DD`.
    ///
    /// # Errors
    /// `empty` or `invalid_date`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Invalid::empty());
        }
        if is_date(text) { Ok(Self(text.to_owned())) } else { Err(invalid()) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for FoundingDate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl FieldValue for FoundingDate {
    const SCHEMA: Schema = Schema::formatted("partial-date", 10);

    /// A bare year may also come as a number.
    fn from_json(value: Value) -> Result<Self, Invalid> {
        match value {
            Value::Number(year) => year
                .as_u64()
                .filter(|year| (1000..=9999).contains(year))
                .map(|year| Self(year.to_string()))
                .ok_or_else(invalid),
            value => Self::parse(&text_of(value)?),
        }
    }

    fn heap_bytes(&self) -> usize {
        self.0.capacity()
    }
}

fn invalid() -> Invalid {
    Invalid::new("invalid_date", "must be a year, year-month or full date: 1998, 1998-09 or 1998-09-04")
}

fn is_date(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut part = |digits: usize| -> Option<Option<u16>> {
        match parts.next() {
            None => Some(None),
            Some(part) if part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit()) => {
                part.parse().ok().map(Some)
            }
            Some(_) => None,
        }
    };
    let (Some(Some(year)), Some(month), Some(day)) = (part(4), part(2), part(2)) else { return false };
    if parts.next().is_some() || year == 0 {
        return false;
    }
    let Ok(month) = Month::try_from(u8::try_from(month.unwrap_or(1)).unwrap_or(0)) else { return false };
    let day = u8::try_from(day.unwrap_or(1)).unwrap_or(0);
    Date::from_calendar_date(i32::from(year), month, day).is_ok()
}
