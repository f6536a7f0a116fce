//! Companies and prospects: commands, events, state, and the rules that decide.
//!
//! This crate owns the aggregates and the value types that cannot hold a bad value. It does no I/O, reads no clock and draws
//! no random number (invariant I9, enforced by `clippy.toml` beside this crate): time and new ids come in through [`Context`].
//!
//! How to add an aggregate: one file like [`company`] that implements [`Record`] for the state and [`RecordEvent`] for the
//! event enum, and its line below.

pub mod claim;
pub mod personal;
pub mod record;

pub use claim::{Claim, ClaimKey, Match};
pub use personal::{Personal, PersonalMember, Sealed};
pub use record::{Context, Record, RecordEvent, StoredEventError};
