//! Making a backup: `pg_basebackup` into `age`, nothing in the clear on a disk in between.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output as Ended, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use local_stack::Postgres;
use serde_json::json;
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::process::Command;
use tokio_postgres::Client;

use super::DirectoryArgs;
use super::kept::{Backups, Record, is_segment, segment_number, size};
use crate::output::Output;
use crate::primary::Primary;

/// How long the primary may fail to archive before a backup that waits for it is given up.
const ARCHIVE_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the archiver.
const LOOK: Duration = Duration::from_secs(1);
/// The end of what a program complained of.
const COMPLAINT_BYTES_MAX: usize = 2_000;

/// How a backup is made.
#[derive(Debug, clap::Args)]
#[group(skip)] // the one that it is part of is called so too
pub struct Args {
    #[command(flatten)]
    directory: DirectoryArgs,
    /// The file with the public keys (age recipients, one a line) that backups are encrypted to. Each one of them can read them.
    #[arg(long, env = "PROSPECTUS_BACKUP_RECIPIENTS_FILE")]
    recipients: Option<PathBuf>,
}

/// What the primary says before it is backed up.
struct Before {
    started_at: OffsetDateTime,
    position: i64,
    first_wal: String,
    /// How many files of the write-ahead log have the same middle part of their names.
    files_per_log: u32,
    major: u32,
    database_bytes: u64,
}

/// Runs the command.
///
/// # Errors
/// If the primary does not archive, there is no room, or a program fails. A backup that failed is recorded as that.
pub async fn run(args: &Args, primary: &Primary) -> anyhow::Result<Output> {
    let backups = args.directory.open()?;
    let recipients = args.recipients.as_deref().context(
        "give --recipients or set PROSPECTUS_BACKUP_RECIPIENTS_FILE: backups are encrypted; `age-keygen` makes a key, and its public \
         half goes into that file",
    )?;
    ensure!(recipients.is_file(), "the recipients' file {} is not there", recipients.display());
    let _lock = backups.lock()?;
    let client = primary.connect_migrated().await?;
    let before = before(&client).await?;
    let records = backups.records()?;
    room(&backups, &records, &before)?;
    remove_cut_off(&backups, &records)?;
    let postgres = Postgres::find(Some(before.major)).await?;
    let label = before
        .started_at
        .format(format_description!("[year][month][day]T[hour][minute][second].[subsecond digits:3]Z"))?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(backups.base(&label))
        .context("making the backup's directory")?;

    let taken = take(&backups, &label, recipients, primary, &client, &postgres, &before).await;
    let bytes = *taken.as_ref().unwrap_or(&0);
    let record = Record {
        label: label.clone(),
        kind: "full".to_owned(),
        started_at: before.started_at,
        finished_at: now(&client).await.unwrap_or_else(|_| OffsetDateTime::now_utc()),
        ok: taken.is_ok(),
        error: taken.as_ref().err().map(|error| format!("{error:#}")),
        position: before.position,
        postgres: before.major,
        first_wal: before.first_wal.clone(),
        files_per_log: before.files_per_log,
        bytes,
    };
    if !record.ok {
        // What there is of it is of no use, and may be large.
        let _ = fs::remove_file(backups.archive(&label));
    }
    backups.write(&record)?;
    let noted = note(&client, &record).await;
    taken?;
    let mut text =
        format!("backup {label} is made: {}, with every event up to position {}\n", size(bytes), before.position);
    if let Err(error) = &noted {
        text.push_str(&format!("it could not be noted in ops.backups, so an alarm may come: {error}\n"));
    }
    Ok(Output::new(json!({"backup": record, "noted": noted.is_ok()}), text))
}

async fn now(client: &Client) -> Result<OffsetDateTime, tokio_postgres::Error> {
    Ok(client.query_one("SELECT clock_timestamp()", &[]).await?.get(0))
}

async fn before(client: &Client) -> anyhow::Result<Before> {
    const SQL: &str = "-- cli::backup::make::before
        SELECT clock_timestamp(), (SELECT h.position FROM log.head AS h), pg_walfile_name(pg_current_wal_lsn()),
               current_setting('server_version_num')::int / 10000,
               (SELECT sum(pg_database_size(d.oid)) FROM pg_database AS d)::bigint,
               current_setting('archive_mode') <> 'off'
                   AND (current_setting('archive_command') NOT IN ('', '(disabled)') OR current_setting('archive_library') <> ''),
               (SELECT 4294967296 / s.setting::bigint FROM pg_settings AS s WHERE s.name = 'wal_segment_size')";
    let row = client.query_one(SQL, &[]).await?;
    ensure!(
        row.get::<_, bool>(5),
        "the primary does not archive its write-ahead log, without which no backup can be restored: set archive_mode = on and \
         archive_command (see docs/backup-and-failover.md; the local stack does with `local-stack up --archive`)"
    );
    Ok(Before {
        started_at: row.get(0),
        position: row.get(1),
        first_wal: row.get(2),
        files_per_log: u32::try_from(row.get::<_, i64>(6))?,
        major: u32::try_from(row.get::<_, i32>(3))?,
        database_bytes: u64::try_from(row.get::<_, i64>(4))?,
    })
}

/// Refuses where a backup may not fit: one half larger than the last one, or, for the first, as large as the databases.
fn room(backups: &Backups, records: &[Record], before: &Before) -> anyhow::Result<()> {
    let last = records.iter().rev().find(|record| record.ok);
    let wanted = last.map_or(before.database_bytes, |last| last.bytes + last.bytes / 2);
    let free = backups.free_bytes()?;
    ensure!(
        free > wanted,
        "{} are free where the backups are, and one may need {}: make room (`prospectus backup expire`), or give them a larger disk",
        size(free),
        size(wanted)
    );
    Ok(())
}

/// Removes what a backup that was killed has left; nobody else works here as long as the lock is held.
fn remove_cut_off(backups: &Backups, records: &[Record]) -> anyhow::Result<()> {
    let known: BTreeSet<&str> = records.iter().map(|record| record.label.as_str()).collect();
    for label in backups.labels()? {
        if !known.contains(label.as_str()) {
            fs::remove_dir_all(backups.base(&label)).context("removing a backup that was cut off")?;
        }
    }
    Ok(())
}

/// Takes the backup; gives its size.
async fn take(
    backups: &Backups,
    label: &str,
    recipients: &Path,
    primary: &Primary,
    client: &Client,
    postgres: &Postgres,
    before: &Before,
) -> anyhow::Result<u64> {
    let path = backups.archive(label);
    tokio::select! {
        piped = pipe(postgres, primary, label, recipients, &path) => piped?,
        why = archiving_fails(client) => bail!("given up: {why}"),
    }
    let file = File::open(&path)?;
    file.sync_all()?;
    has_its_wal(backups, before)?;
    Ok(file.metadata()?.len())
}

async fn pipe(
    postgres: &Postgres,
    primary: &Primary,
    label: &str,
    recipients: &Path,
    path: &Path,
) -> anyhow::Result<()> {
    let (address, password) = primary.database().libpq();
    let mut command = Command::new(postgres.program("pg_basebackup"));
    // The server's manifest comes in the stream, so that the files can be checked when they are restored. The write-ahead log does not: it is
    // archived, and the server ends the backup only when it is.
    command.args([
        "-D",
        "-",
        "-F",
        "tar",
        "-X",
        "none",
        "-c",
        "fast",
        "--compress=client-gzip:1",
        "--manifest-checksums=SHA256",
    ]);
    command.arg("--label").arg(label).arg("-d").arg(&address).env("PGPASSWORD", password).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut reading =
        command.spawn().with_context(|| format!("{} cannot be run", postgres.program("pg_basebackup").display()))?;
    let stream: Stdio = reading.stdout.take().context("pg_basebackup has no output")?.try_into()?;
    let mut age = Command::new("age");
    age.arg("-R").arg(recipients).arg("-o").arg(path).stdin(stream).stdout(Stdio::null()).stderr(Stdio::piped());
    let writing =
        age.kill_on_drop(true).spawn().context("age cannot be run: `make setup`, or `apt-get install age`")?;
    let (read, written) = tokio::try_join!(reading.wait_with_output(), writing.wait_with_output())?;
    // Where age has failed, pg_basebackup only says that nobody reads.
    well("age", &written)?;
    well("pg_basebackup", &read)
}

/// Fails with the end of what a program complained of, if it did not end well.
///
/// # Errors
/// As said.
pub(crate) fn well(program: &str, ended: &Ended) -> anyhow::Result<()> {
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let said = said.trim();
    let from = said.char_indices().map(|(at, _)| at).find(|at| said.len() - at <= COMPLAINT_BYTES_MAX).unwrap_or(0);
    bail!("{program} failed ({}): {}", ended.status, &said[from..])
}

/// Returns why, once the primary could not archive for a while: the backup would wait for ever.
async fn archiving_fails(client: &Client) -> String {
    const SQL: &str = "-- cli::backup::make::archiving_fails
        SELECT coalesce(a.last_failed_time > coalesce(a.last_archived_time, '-infinity'), false), coalesce(a.last_failed_wal, ''),
               (SELECT count(*) FROM pg_ls_archive_statusdir() AS f WHERE f.name LIKE '%.ready'), a.last_archived_time
        FROM pg_stat_archiver AS a";
    let mut since: Option<Instant> = None;
    // An archive_command that hangs fails nothing.
    let mut stands: Option<(Option<OffsetDateTime>, Instant)> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let answer = client.query_one(SQL, &[]).await;
        if let Ok(row) = &answer {
            let (fails, waiting, archived_at): (bool, i64, Option<OffsetDateTime>) =
                (row.get(0), row.get(2), row.get(3));
            stands = match stands {
                _ if fails || waiting == 0 => None,
                Some((before, from)) if before == archived_at => Some((before, from)),
                _ => Some((archived_at, Instant::now())),
            };
            if stands.is_some_and(|(_, from)| from.elapsed() > ARCHIVE_PATIENCE) {
                return format!(
                    "{waiting} files wait to be archived, and none was for {} s: does its archive_command hang?",
                    ARCHIVE_PATIENCE.as_secs()
                );
            }
        }
        match answer {
            Ok(row) if row.get(0) => {
                if since.get_or_insert_with(Instant::now).elapsed() > ARCHIVE_PATIENCE {
                    let name: String = row.get(1);
                    return format!(
                        "the primary has failed to archive {name} for {} s; its log says why",
                        ARCHIVE_PATIENCE.as_secs()
                    );
                }
            }
            Ok(_) => since = None,
            Err(error) => return format!("the primary is lost: {error}"),
        }
    }
}

/// Fails unless the write-ahead log that the backup needs is here, from the first file on and without a hole.
fn has_its_wal(backups: &Backups, before: &Before) -> anyhow::Result<()> {
    let (archived, first_wal) = (backups.archived()?, before.first_wal.as_str());
    let timeline = &first_wal[..8];
    // The server archives a note of the backup after the last file that it needs.
    let noted = archived
        .iter()
        .any(|(name, _)| name.ends_with(".backup") && name.as_str() >= first_wal && name.starts_with(timeline));
    let segments: Vec<&str> = archived
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| is_segment(name) && name.starts_with(timeline) && *name >= first_wal)
        .collect();
    let last = segment_number(segments.last().unwrap_or(&first_wal), before.files_per_log)?;
    let dense = u64::try_from(segments.len())? == last - segment_number(first_wal, before.files_per_log)? + 1;
    ensure!(
        noted && dense && segments.first() == Some(&first_wal),
        "the write-ahead log from {first_wal} on is not, or not wholly, in {}: does the primary's archive_command put it elsewhere?",
        backups.wal().display()
    );
    Ok(())
}

/// Notes the backup where the alarm looks.
async fn note(client: &Client, record: &Record) -> anyhow::Result<()> {
    const NOTE: &str = "-- cli::backup::make::note
        INSERT INTO ops.backups (started_at, finished_at, kind, label, position, ok) VALUES ($1, $2, $3, $4, $5, $6)";
    let Record { started_at, finished_at, kind, label, position, ok, .. } = record;
    client.execute(NOTE, &[started_at, finished_at, kind, label, position, ok]).await?;
    Ok(())
}
