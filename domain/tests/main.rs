//! What the domain promises, from outside: value types, the two aggregates, and properties of random sequences.

mod company;
mod contract;
mod erasing;
mod imports;
mod merge;
mod projection;
mod properties;
mod prospect;
mod reviews;
mod value;

use domain::{Context, FieldErrors};
use serde_json::Value;
use time::macros::datetime;
use uuid::Uuid;

/// The context of every decision in these tests.
fn context() -> Context {
    Context {
        now: datetime!(2026-01-02 03:04:05 UTC),
        seed: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000),
    }
}

/// `pointer code` of each error, in order.
fn codes(errors: &FieldErrors) -> Vec<String> {
    errors.0.iter().map(|error| format!("{} {}", error.pointer, error.code)).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}
