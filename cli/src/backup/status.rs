//! How the backups are: how old the newest good one is, whether the write-ahead log comes, whether there is room.

use std::fmt::Write as _;

use serde_json::json;
use time::OffsetDateTime;

use super::DirectoryArgs;
use super::kept::{Record, size};
use crate::output::Output;
use crate::primary::Primary;

/// Files of the write-ahead log that may wait to be archived: a GiB.
const WAITING_MAX: i64 = 64;

/// Says how the backups are. Exit code 1 if the newest good one is too old, the write-ahead log is not archived, or the next backup will not fit.
///
/// The archive is looked at only with `PROSPECTUS_PRIMARY_URL`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  prospectus backup status --max-age 26")]
pub struct Args {
    #[command(flatten)]
    directory: DirectoryArgs,
    /// How old the newest good backup may be, in hours.
    #[arg(long, value_name = "HOURS", default_value_t = 26)]
    max_age: u32,
}

/// What the primary says of its archiving.
struct Archive {
    waiting: i64,
    fails: Option<String>,
    wal_bytes: i64,
}

/// Runs the command.
///
/// # Errors
/// If the directory cannot be read; everything else is part of the answer.
pub async fn run(args: &Args, primary: Option<&Primary>) -> anyhow::Result<Output> {
    let backups = args.directory.open()?;
    let records = backups.records()?;
    let newest = records.iter().rev().find(|record| record.ok);
    let free = backups.free_bytes()?;
    let mut wrong = Vec::new();
    let age_hours = newest.map(|newest| (OffsetDateTime::now_utc() - newest.finished_at).whole_seconds() / 3600);
    match (newest, age_hours) {
        (Some(newest), Some(age)) => {
            let age_limit = time::Duration::hours(i64::from(args.max_age));
            if OffsetDateTime::now_utc() - newest.finished_at > age_limit {
                wrong.push(format!("the newest good backup is {age} h old, and {} are allowed", args.max_age));
            }
            if free < newest.bytes {
                wrong.push(format!("only {} are free: the next backup will not fit", size(free)));
            }
        }
        _ => wrong.push("there is no good backup".to_owned()),
    }
    if let Some(last) = records.last().filter(|last| !last.ok) {
        wrong.push(format!("the last backup failed: {}", last.error.as_deref().unwrap_or("it does not say why")));
    }
    let archive = match primary {
        None => None,
        Some(primary) => match ask(primary).await {
            Ok(archive) => Some(archive),
            Err(error) => {
                wrong.push(format!("the archive cannot be asked about: {error:#}"));
                None
            }
        },
    };
    if let Some(archive) = &archive {
        wrong.extend(archive.fails.clone());
        if archive.waiting > WAITING_MAX {
            let bytes = size(archive.wal_bytes.unsigned_abs());
            wrong.push(format!(
                "{} files wait to be archived; the primary keeps {bytes} of write-ahead log",
                archive.waiting
            ));
        }
    }
    let mut text = String::new();
    for record in &records {
        let _ = writeln!(text, "{}", line(record));
    }
    let _ = writeln!(text, "{} are free", size(free));
    match &archive {
        Some(archive) => {
            let _ = writeln!(text, "{} files of the write-ahead log wait to be archived", archive.waiting);
        }
        None if primary.is_none() => {
            text.push_str("the archive was not asked about (PROSPECTUS_PRIMARY_URL is not set)\n");
        }
        None => {}
    }
    for what in &wrong {
        let _ = writeln!(text, "WRONG: {what}");
    }
    let json = json!({
        "backups": records, "newest_good": newest.map(|newest| &newest.label), "age_hours": age_hours, "free_bytes": free,
        "archive": archive.as_ref().map(|archive| json!({"waiting": archive.waiting, "wal_bytes": archive.wal_bytes, "error": archive.fails})),
        "wrong": wrong,
    });
    Ok(Output { json, text, well: wrong.is_empty() })
}

fn line(record: &Record) -> String {
    let Record { label, position, bytes, .. } = record;
    if record.ok {
        return format!("{label}  {}  up to position {position}", size(*bytes));
    }
    format!("{label}  FAILED")
}

async fn ask(primary: &Primary) -> anyhow::Result<Archive> {
    // Counted by name: pg_stat_archiver tells of the last file, not of how many wait.
    const SQL: &str = "-- cli::backup::status::ask
        SELECT current_setting('archive_mode') <> 'off',
               (SELECT count(*) FROM pg_ls_archive_statusdir() AS f WHERE f.name LIKE '%.ready'),
               (SELECT sum(f.size) FROM pg_ls_waldir() AS f)::bigint,
               coalesce(a.last_failed_time > coalesce(a.last_archived_time, '-infinity'), false), coalesce(a.last_failed_wal, '')
        FROM pg_stat_archiver AS a";
    let row = primary.connect().await?.query_one(SQL, &[]).await?;
    let fails = if !row.get::<_, bool>(0) {
        Some("the primary does not archive its write-ahead log".to_owned())
    } else if row.get(3) {
        Some(format!("the primary fails to archive {}; its log says why", row.get::<_, &str>(4)))
    } else {
        None
    };
    Ok(Archive { waiting: row.get(1), wal_bytes: row.get(2), fails })
}
