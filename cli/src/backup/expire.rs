//! Removing what has expired: backups, and the write-ahead log that no backup needs any more. Both hold what was erased since.

use std::fs;

use anyhow::Context as _;
use serde_json::json;
use time::{Duration, OffsetDateTime};

use super::DirectoryArgs;
use super::kept::{Backups, Record};
use crate::output::Output;

/// How far the clocks of the primary and of whoever has the directory may be apart.
const CLOCKS_APART: Duration = Duration::HOUR;

/// Removes backups that are older than so many days, and the write-ahead log from before the oldest one that is left.
///
/// The newest good backup stays, however old: exit code 1 then, because it holds what should be forgotten, and a new one is due.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  prospectus backup expire --keep-days 30")]
pub struct Args {
    #[command(flatten)]
    directory: DirectoryArgs,
    /// How long a backup is kept, in days. 30 is what docs/personal-data.md supposes.
    #[arg(long, default_value_t = 30)]
    keep_days: u16,
}

/// Runs the command.
///
/// # Errors
/// If the directory cannot be read or changed.
pub fn run(args: &Args) -> anyhow::Result<Output> {
    let backups = args.directory.open()?;
    let _lock = backups.lock()?;
    let limit = OffsetDateTime::now_utc() - Duration::days(args.keep_days.into());
    let records = backups.records()?;
    let newest = records.iter().rev().find(|record| record.ok).map(|record| record.label.clone());
    let (expired, kept): (Vec<Record>, Vec<Record>) =
        records.into_iter().partition(|record| record.started_at < limit && newest.as_ref() != Some(&record.label));
    for record in &expired {
        // The record first: what is cut off between the two is no backup any more, and the next one removes it.
        let directory = backups.base(&record.label);
        fs::remove_file(directory.join("backup.json"))
            .and_then(|()| fs::remove_dir_all(&directory))
            .with_context(|| format!("removing {}", record.label))?;
    }
    let files = match kept.iter().find(|record| record.ok) {
        Some(oldest) => remove_wal(&backups, oldest)?,
        // Without any backup nobody can use it, but then something is wrong and nothing is removed.
        None => 0,
    };
    let overdue = kept.iter().find(|record| record.ok && record.started_at < limit).map(|record| record.label.clone());
    let mut text =
        format!("{} backups and {files} files of the write-ahead log have expired and are removed\n", expired.len());
    if let Some(label) = &overdue {
        text.push_str(&format!(
            "{label} is older than {} days and stays, because it is the newest good one: make a backup, then run this again\n",
            args.keep_days
        ));
    }
    let labels: Vec<&str> = expired.iter().map(|record| record.label.as_str()).collect();
    let json = json!({"removed": labels, "removed_wal_files": files, "kept": kept, "overdue": overdue});
    Ok(Output { json, text, well: overdue.is_none() })
}

/// Removes what the oldest backup that is left does not need: files of the same timeline before its first one, and files of any timeline
/// that were archived before it was begun. Histories of timelines stay: they are small, hold nothing of anybody, and are always needed.
fn remove_wal(backups: &Backups, oldest: &Record) -> anyhow::Result<usize> {
    let mut removed = 0;
    for (name, path) in backups.archived()? {
        if name.ends_with(".history") {
            continue;
        }
        let before_it = name.get(..8) == oldest.first_wal.get(..8) && name < oldest.first_wal;
        let archived_at: OffsetDateTime = fs::metadata(&path)?.modified()?.into();
        if before_it || archived_at < oldest.started_at - CLOCKS_APART {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            removed += 1;
        }
    }
    Ok(removed)
}
