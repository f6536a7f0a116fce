//! `prospectus restore`: a backup and the write-ahead log after it into a new directory, checked before anything serves from it.

mod checks;
mod server;
mod unpack;
mod wal;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use event_store::proof::PublicKey;
use serde_json::json;
use service_kit::config::KeyringArgs;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::backup::DirectoryArgs;
use crate::backup::kept::{Backups, Record};
use crate::erasures::parse_time;
use crate::output::Output;
use server::{Server, Target};

/// Restores into a new directory, to a time or to the end of the archive, and checks what came out: the log without holes, every signed head,
/// the read tables against the log. Begins a new life of the log and erases again whom the backup has brought back.
///
/// Exit code 0 means that the directory may be served from: start PostgreSQL on it, as the primary. The server that is started for the
/// checks listens on no port and is stopped at the end. Until then, and where anything is wrong, what is restored lies beside it, in a
/// directory with `.unchecked` after its name: for a look, not for use.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  prospectus restore --directory /backups --identity /media/key/backup_identity --to 2026-01-31T12:00:00Z \\\n    --erasures /var/lib/prospectus/erasures.ndjson --head /var/lib/prospectus/heads.ndjson /var/lib/postgresql/restored"
)]
pub struct Args {
    /// The directory that is made; it must not be there, or be empty. Its parent must be, with room.
    into: PathBuf,
    #[command(flatten)]
    backups: DirectoryArgs,
    /// The file with the private key (age identity) that reads the backups.
    #[arg(long, env = "PROSPECTUS_BACKUP_IDENTITY_FILE")]
    identity: PathBuf,
    /// The last moment that is kept, RFC 3339; without it everything that is archived.
    #[arg(long, value_parser = parse_time)]
    to: Option<OffsetDateTime>,
    /// Which backup; without it the newest good one from before that time.
    #[arg(long)]
    label: Option<String>,
    /// A list of erasures that was kept outside the database (`PROSPECTUS_ERASURES_FILE`); more than one may be given.
    #[arg(long, required_unless_present = "no_erasures_list")]
    erasures: Vec<PathBuf>,
    /// There is no such list: whoever was erased after that time comes back, unless the restored log itself says so.
    #[arg(long, conflicts_with = "erasures")]
    no_erasures_list: bool,
    /// A file of signed heads that was kept outside the database.
    #[arg(long)]
    head: Vec<PathBuf>,
    /// A public key in base64: only heads that it has signed count.
    #[arg(long = "key")]
    keys: Vec<PublicKey>,
    /// The name of an epoch that is known to have begun with the loss of a tail, before this restore.
    #[arg(long = "known-loss")]
    known_losses: Vec<String>,
    /// The database's name.
    #[arg(long, default_value = "prospectus")]
    database: String,
    #[command(flatten)]
    keyring: KeyringArgs,
}

/// Runs the command.
///
/// # Errors
/// If nothing can be restored; that a check fails is an answer.
pub async fn run(args: &Args) -> anyhow::Result<Output> {
    let backups = args.backups.open()?;
    ensure!(args.identity.is_file(), "the identity {} is not there", args.identity.display());
    let record = choose(&backups, args)?;
    // What would stop the end is looked at before the long part.
    let anchors = checks::anchors(&args.head, &args.keys, &args.known_losses)?;
    let keyring = args.keyring.text()?;
    for list in &args.erasures {
        ensure!(list.is_file(), "the list of erasures {} is not there", list.display());
    }
    let hole = wal::hole(&backups, &record, &args.identity).await?;
    if let (None, Some(missing)) = (args.to, &hole) {
        bail!(
            "the write-ahead log has a hole: {missing} is not in {}, and recovery would take that for the end. Look for it on the servers, or \
             give --to with a time from before it",
            backups.wal().display()
        );
    }
    let (into, unchecked) = places(&args.into)?;
    let directory = unpack::unpack(&backups, &record, &args.identity, &unchecked).await;
    let lies = || format!("do not serve from what is restored so far, {}", unchecked.display());
    let directory = directory.with_context(lies)?;
    let target =
        Target { to: args.to, wal: backups.wal(), identity: args.identity.clone(), database: args.database.clone() };
    let server = Server::start(&directory, record.postgres, &target).await;
    let server = match &hole {
        Some(missing) => server.with_context(|| format!("{missing} is not in the archive")),
        None => server,
    };
    let server = server.with_context(lies)?;
    let checked = checks::run(&server.url(), &args.erasures, &keyring, anchors, args.to.is_some()).await;
    let stopped = server.stop().await;
    let checked = checked.context("it could not be checked to the end").with_context(lies)?;
    stopped.with_context(lies)?;
    let well = checked.wrong.is_empty();
    if well {
        // Only a stopped server's, all checked, ever has the name that is served from.
        fs::rename(&unchecked, &into).with_context(|| format!("all is well, but not renamed to {}", into.display()))?;
        let parent = into.parent().context("a directory in no directory")?;
        File::open(parent)?.sync_all()?;
    }
    let lies = if well { &into } else { &unchecked };
    let mut text = format!("backup {} was restored into {}\n", record.label, lies.display());
    let _ = match args.to {
        Some(to) => writeln!(text, "up to {}", to.format(&Rfc3339)?),
        None => writeln!(text, "up to the end of the archive"),
    };
    if let Some(missing) = &hole {
        let _ = writeln!(text, "later than that, {missing} is missing in the archive");
    }
    text.push_str(&checked.text);
    text.push_str(if well {
        "\nAll is well: start PostgreSQL on it as the primary, make replicas anew, then start the services.\n"
    } else {
        "\nDO NOT SERVE FROM IT.\n"
    });
    let json = json!({
        "backup": record.label, "directory": lies.display().to_string(), "missing_wal": hole, "checks": checked.json,
        "wrong": checked.wrong,
    });
    Ok(Output { json, text, well })
}

/// Where it goes when all is well, and where it lies until then: beside it, so that it need only be renamed.
fn places(into: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let name = into.file_name().with_context(|| format!("{} has no name", into.display()))?;
    let parent = into.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = fs::canonicalize(parent).with_context(|| parent.display().to_string())?;
    let mut beside = name.to_owned();
    beside.push(".unchecked");
    let (into, unchecked) = (parent.join(name), parent.join(beside));
    ensure!(!unchecked.exists(), "{} is there from an earlier restore: remove it first", unchecked.display());
    // An empty one is removed now: that something is mounted on it would else be met only at the end.
    match fs::remove_dir(&into) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("restore into a new directory, not into {}", into.display()))
        }
        _ => Ok((into, unchecked)),
    }
}

/// The newest good backup that was done by the time, or the named one.
fn choose(backups: &Backups, args: &Args) -> anyhow::Result<Record> {
    let records = backups.records()?;
    let early = |record: &Record| args.to.is_none_or(|to| record.finished_at <= to);
    if let Some(label) = &args.label {
        let named = records.into_iter().find(|record| record.label == *label);
        let named =
            named.with_context(|| format!("there is no backup {label}: `prospectus backup status` lists them"))?;
        ensure!(named.ok, "backup {label} has failed and cannot be restored");
        ensure!(early(&named), "backup {label} was done after that time: it cannot be undone to before");
        return Ok(named);
    }
    match records.into_iter().rev().find(|record| record.ok && early(record)) {
        Some(record) => Ok(record),
        None => bail!("there is no good backup that was done by then: `prospectus backup status` lists them"),
    }
}
