//! Heads and proofs in files.

use std::collections::VecDeque;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::Context;
use event_store::proof::SignedHead;
use serde::Deserialize;
use serde_json::{Deserializer, Value};

/// The largest proof that is read.
const PROOF_BYTES_MAX: u64 = 256 << 20;
/// Heads of a file that count at a time. A head covers all that earlier ones cover, so what the newest do not show, no older one does.
const HEADS_MAX: usize = 100_000;

/// Gives each head in a file: one as JSON, lines of them as the sealer writes them, a page of `GET /v1/log/heads`, or a proof with its
/// head. A last line that was not written to its end is passed over, and said on standard error. The file is read as it comes.
///
/// # Errors
/// If the file cannot be read, or has something else or nothing in it.
fn each_head(path: &Path, mut take: impl FnMut(SignedHead)) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut found = 0_usize;
    for value in Deserializer::from_reader(BufReader::new(file)).into_iter::<Value>() {
        let value = match value {
            Ok(value) => value,
            Err(error) if error.is_eof() && found > 0 => {
                eprintln!("{}: its last line was not written to its end, and is passed over", path.display());
                break;
            }
            Err(error) => return Err(error).with_context(|| format!("{} is not JSON", path.display())),
        };
        let heads: Vec<&Value> = match (value.get("items"), value.get("head")) {
            (Some(Value::Array(items)), _) => items.iter().collect(),
            (_, Some(head)) if head.is_object() => vec![head],
            _ => vec![&value],
        };
        for head in heads {
            let head = SignedHead::deserialize(head);
            take(head.with_context(|| format!("{} has something else than signed heads in it", path.display()))?);
            found += 1;
        }
    }
    anyhow::ensure!(found > 0, "{} has no signed head in it", path.display());
    Ok(())
}

/// The newest heads in a file, a hundred thousand at most; those of a page come newest first, those of the sealer's lines newest last.
///
/// # Errors
/// See [`each_head`].
pub(crate) fn heads(path: &Path) -> anyhow::Result<Vec<SignedHead>> {
    let mut kept: VecDeque<SignedHead> = VecDeque::new();
    each_head(path, |head| {
        kept.push_back(head);
        if kept.len() > HEADS_MAX {
            kept.pop_front();
        }
    })?;
    Ok(kept.into())
}

/// The head in a file that ranks highest; none if none has a rank.
///
/// # Errors
/// See [`each_head`].
pub(super) fn best<R: Ord>(path: &Path, rank: impl Fn(&SignedHead) -> Option<R>) -> anyhow::Result<Option<SignedHead>> {
    let mut best: Option<(R, SignedHead)> = None;
    each_head(path, |head| {
        if let Some(rank) = rank(&head)
            && best.as_ref().is_none_or(|(other, _)| *other <= rank)
        {
            best = Some((rank, head));
        }
    })?;
    Ok(best.map(|(_, head)| head))
}

/// The text of a proof.
///
/// # Errors
/// If it cannot be read, or is too large.
pub(super) fn text(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::metadata(path).with_context(|| format!("{} cannot be read", path.display()))?.len();
    anyhow::ensure!(bytes <= PROOF_BYTES_MAX, "{} is larger than {} MiB", path.display(), PROOF_BYTES_MAX >> 20);
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const HEAD: &str = r#"{"log_id":"00000000-0000-0000-0000-000000000001","epoch":"1.0a0b0c0d","tree_size":7,"root_hash":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","time":"2026-01-01T00:00:00.000000Z","key_id":"0123456789abcdef","signature":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="}"#;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        file
    }

    #[test]
    fn a_line_that_was_cut_off_is_passed_over_and_what_is_no_head_is_not() {
        let lines = file(&format!("{HEAD}\n{HEAD}\n{}", &HEAD[..90]));
        assert_eq!(heads(lines.path()).expect("heads").len(), 2);
        let page = file(&format!("{{\"items\": [{HEAD}], \"keys\": []}}"));
        assert_eq!(heads(page.path()).expect("heads").len(), 1);
        for wrong in ["", "{}", "[1]", &HEAD[..90], &format!("{HEAD}\n{{\"tree_size\": 8}}\n")] {
            assert!(heads(file(wrong).path()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn of_several_heads_the_one_that_ranks_highest_is_given_and_the_later_of_equals() {
        let lines = file(&format!("{HEAD}\n{}\n{HEAD}\n", HEAD.replace(":7,", ":9,")));
        let best_of = |least: u64| {
            let rank = |head: &SignedHead| (head.head.tree_size >= least).then_some(head.head.tree_size);
            best(lines.path(), rank).expect("heads").map(|head| head.head.tree_size)
        };
        assert_eq!((best_of(1), best_of(8), best_of(10)), (Some(9), Some(9), None));
    }
}
