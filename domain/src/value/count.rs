//! Numbers of people.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::field::{FieldValue, Schema};
use crate::field_error::Invalid;

/// How many: a whole number from 0 to [`Count::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Count(i64);

impl Count {
    /// More than there are people: whatever is above is a mistake.
    pub const MAX: i64 = 10_000_000_000;

    /// Checks the range.
    ///
    /// # Errors
    /// `out_of_range`.
    pub fn parse(number: i64) -> Result<Self, Invalid> {
        if (0..=Self::MAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(Invalid::new("out_of_range", "must be from 0 to 10000000000"))
        }
    }

    /// The number.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FieldValue for Count {
    const SCHEMA: Schema = Schema::integer(0, Self::MAX);

    fn from_json(value: Value) -> Result<Self, Invalid> {
        Self::parse(integer_of(&value)?)
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

/// The 64-bit integer of a JSON number. A number with a fraction or an exponent is none, even if its value is whole: beyond
/// 2^53 it would silently be another one.
pub(super) fn integer_of(value: &Value) -> Result<i64, Invalid> {
    match value {
        Value::Number(number) => number.as_i64().ok_or_else(|| {
            if number.is_u64() || number.as_f64().is_some_and(|float| float.abs() >= 9.2e18) {
                Invalid::new("out_of_range", "must be a 64-bit integer")
            } else {
                Invalid::new("not_an_integer", "must be a whole number, written without fraction or exponent")
            }
        }),
        _ => Err(Invalid::wrong_type("a whole number")),
    }
}
