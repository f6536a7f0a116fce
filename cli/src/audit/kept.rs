//! Heads and proofs in files.

use std::path::Path;

use anyhow::Context;
use event_store::proof::SignedHead;
use serde::Deserialize;
use serde_json::{Deserializer, Value};

/// The largest file that is read: some hundred thousand heads.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The heads in a file: one as JSON, lines of them as the sealer writes them, a page of `GET /v1/log/heads`, or a proof with its head.
///
/// # Errors
/// If the file cannot be read, or has something else or nothing in it.
pub(crate) fn heads(path: &Path) -> anyhow::Result<Vec<SignedHead>> {
    let text = text(path)?;
    let mut heads = Vec::new();
    for value in Deserializer::from_str(&text).into_iter::<Value>() {
        let value = value.with_context(|| format!("{} is not JSON", path.display()))?;
        let found: Vec<&Value> = match (&value["items"], &value["head"]) {
            (Value::Array(items), _) => items.iter().collect(),
            (_, head) if head.is_object() => vec![head],
            _ => vec![&value],
        };
        for head in found {
            let head = SignedHead::deserialize(head);
            heads.push(head.with_context(|| format!("{} has something else than signed heads in it", path.display()))?);
        }
    }
    anyhow::ensure!(!heads.is_empty(), "{} has no signed head in it", path.display());
    Ok(heads)
}

/// The text of a file.
///
/// # Errors
/// If it cannot be read, or is too large.
pub(super) fn text(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::metadata(path).with_context(|| format!("{} cannot be read", path.display()))?.len();
    anyhow::ensure!(bytes <= FILE_BYTES_MAX, "{} is larger than {} MiB", path.display(), FILE_BYTES_MAX >> 20);
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}
