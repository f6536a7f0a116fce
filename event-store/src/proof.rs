//! The log can be proven (decision 18): an RFC 6962 Merkle tree over the events in position order, and signed heads of it.
//!
//! Pure: [`hash`], [`frontier`] (the tree in one streaming pass), [`path`] (inclusion and consistency), [`head`] and [`key`] (what is
//! signed, by whom), [`document`] (a proof that can be checked without a database). On the database: [`row`] (a stored row to its
//! leaf, without a copy), [`stored`] (hashes of complete subtrees, and paths from them), [`heads`] (heads and public keys),
//! [`sealing`] (what the sealer does, step by step) and [`verify`] (the whole log against the heads).
//!
//! `docs/log-proofs.md` has all of it to the byte. Leaf `i` of the tree, counted from 0, is the event at position `i + 1`.

pub mod document;
pub mod frontier;
pub mod hash;
pub mod head;
pub mod heads;
pub mod key;
pub mod path;
pub mod row;
pub mod sealing;
pub mod stored;
pub mod verify;

pub use document::Proof;
pub use frontier::Frontier;
pub use hash::Hash;
pub use head::{Head, SignedHead};
pub use key::{PublicKey, SealKeys};

/// A count of events as the database holds it.
fn to_bigint(count: u64) -> i64 {
    i64::try_from(count).expect("a log has fewer than 2^63 events")
}

/// A count of events as the tree counts; one below zero, which no check of the table lets in, is none.
fn to_count(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
