//! Amounts of money in a year.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::count::integer_of;
use crate::field::{FieldValue, Schema};
use crate::field_error::Invalid;

/// Annual revenue in whole units of its currency; a loss of revenue is negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revenue(i64);

impl Revenue {
    /// Any 64-bit integer.
    pub fn new(amount: i64) -> Self {
        Self(amount)
    }

    /// The amount.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Revenue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FieldValue for Revenue {
    const SCHEMA: Schema = Schema::integer(i64::MIN, i64::MAX);

    fn from_json(value: Value) -> Result<Self, Invalid> {
        integer_of(&value).map(Self)
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}
