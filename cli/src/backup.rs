//! `prospectus backup`: PostgreSQL's own base backups, encrypted with age before they touch a disk, beside the archived write-ahead log.
//!
//! The directory has `base/<label>/base.tar.gz.age` with `backup.json` beside each, and `wal/`, where the servers' `archive_command`
//! (`deploy/postgres/archive-wal.sh`) puts the write-ahead log. Backing up needs only the recipients' public keys; the identity, with
//! which a backup is read, is needed to restore and belongs elsewhere. Why so: docs/decisions/0014.

mod expire;
pub mod kept;
mod make;
mod status;

pub(crate) use make::well;

use std::path::PathBuf;

use crate::output::Output;
use crate::primary::Primary;

/// Backs up the primary, or says how the backups are, or removes expired ones.
///
/// Without a subcommand it makes a full backup of the primary, from its running server, and ends well only if the write-ahead log that the
/// backup needs is archived beside it.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:\n  prospectus backup --directory /backups --recipients /etc/prospectus/backup_recipients\n  prospectus backup status --max-age 26\n  prospectus backup expire --keep-days 30"
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    make: make::Args,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Status(status::Args),
    Expire(expire::Args),
}

/// Where the backups are.
#[derive(Debug, clap::Args)]
pub struct DirectoryArgs {
    /// The directory of the backups.
    #[arg(long = "directory", env = "PROSPECTUS_BACKUP_DIR")]
    directory: Option<PathBuf>,
}

impl DirectoryArgs {
    /// The directory.
    ///
    /// # Errors
    /// If none is given, or it is none.
    pub fn open(&self) -> anyhow::Result<kept::Backups> {
        let given = self.directory.as_ref();
        let given = given
            .ok_or_else(|| anyhow::anyhow!("give --directory or set PROSPECTUS_BACKUP_DIR: where the backups are"))?;
        kept::Backups::open(given)
    }
}

/// Runs the command. `primary` is asked for only where a database is needed.
///
/// # Errors
/// If the directory or the primary cannot be used, or the backup fails.
pub async fn run(args: &Args, primary: impl FnOnce() -> anyhow::Result<Primary>) -> anyhow::Result<Output> {
    match &args.command {
        None => make::run(&args.make, &primary()?).await,
        // Without an address of the primary it says how the backups are, and that nobody was asked about the archive.
        Some(Command::Status(args)) => status::run(args, primary().ok().as_ref()).await,
        Some(Command::Expire(args)) => expire::run(args),
    }
}
