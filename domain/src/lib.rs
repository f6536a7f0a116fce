//! Companies and prospects: commands, events, state, and the rules that decide.
//!
//! This crate owns the aggregates and the value types that cannot hold a bad value. It does no I/O, reads no clock and draws
//! no random number (invariant I9, enforced by `clippy.toml` beside this crate): time and new ids come in through [`Context`].
//!
//! How to add an aggregate: one file like [`company`] that implements [`Record`] for the state and [`RecordEvent`] for the
//! event enum (the macros `profile!` and `events!` do most of both), and its line below.

mod events;
mod profile;

pub mod claim;
pub mod company;
pub mod field;
pub mod field_error;
pub mod import;
pub mod personal;
pub mod projection;
pub mod prospect;
pub mod provenance;
pub mod record;
pub mod review;
pub mod status;
pub mod undo;
pub mod value;
mod weight;

pub use claim::{Claim, ClaimKey, Match};
pub use company::{Company, CompanyCommand, CompanyError, CompanyEvent};
pub use field::{Field, FieldValue, JsonType, Schema};
pub use field_error::{FieldError, FieldErrors, Invalid};
pub use import::{Import, ImportCommand, ImportError, ImportEvent};
pub use personal::{Personal, PersonalMember, Sealed};
pub use projection::Projection;
pub use prospect::{Prospect, ProspectCommand, ProspectError, ProspectEvent};
pub use provenance::{Conflict, ConflictRule, Said};
pub use record::{Context, Record, RecordEvent, StoredEventError};
pub use status::Status;
pub use undo::{Traced, Undo};
