//! Companies.

pub(super) mod duplicates;
pub(super) mod get;
pub(super) mod list;
