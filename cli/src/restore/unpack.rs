//! A backup's files into a directory: decrypted, unpacked, and compared with the server's manifest.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use local_stack::{Account, Postgres};
use tokio::process::Command;

use crate::backup::kept::{Backups, Record};
use crate::backup::well;

/// A directory that a backup was unpacked into, and as whom a server runs on it.
#[derive(Debug)]
pub struct Unpacked {
    directory: PathBuf,
    account: Option<Account>,
}

impl Unpacked {
    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// As whom a server runs on it; none: as who we are.
    pub fn account(&self) -> Option<Account> {
        self.account
    }
}

/// Unpacks a backup into a directory that it makes, and checks every file.
///
/// # Errors
/// If the directory is there already, the key is not the backup's, or a file is not what the server sent.
pub async fn unpack(backups: &Backups, record: &Record, identity: &Path, into: &Path) -> anyhow::Result<Unpacked> {
    let account = Account::unprivileged()?;
    let postgres = Postgres::find(Some(record.postgres)).await?;
    fs::DirBuilder::new().mode(0o700).create(into).with_context(|| format!("making {}", into.display()))?;
    let directory = fs::canonicalize(into)?;
    if let Some(account) = account {
        account.own(&directory)?;
        ensure!(
            account.reaches(&directory).await,
            "PostgreSQL runs as an unprivileged user, which cannot reach {}: restore into a directory whose parents others may enter",
            directory.display()
        );
    }
    let mut age = Command::new("age");
    age.arg("-d").arg("-i").arg(identity).arg(backups.archive(&record.label));
    age.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut age = age.spawn().context("age cannot be run: `make setup`, or `apt-get install age`")?;
    let stream: Stdio = age.stdout.take().context("age has no output")?.try_into()?;
    let mut tar = Command::new("tar");
    tar.arg("-xz")
        .arg("-C")
        .arg(&directory)
        .stdin(stream)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(account) = account {
        account.run(&mut tar);
    }
    let tar = tar.current_dir("/").spawn().context("tar cannot be run")?;
    let (decrypted, unpacked) = tokio::try_join!(age.wait_with_output(), tar.wait_with_output())?;
    well("age", &decrypted).context("the backup cannot be decrypted; is this its identity?")?;
    well("tar", &unpacked)?;
    // The write-ahead log is not in the backup but in the archive, so it is not looked for here.
    let mut verify = Command::new(postgres.program("pg_verifybackup"));
    verify.arg("-n").arg(&directory).env("LC_ALL", "C").current_dir("/").kill_on_drop(true);
    if let Some(account) = account {
        account.run(&mut verify);
    }
    well("pg_verifybackup", &verify.output().await.context("pg_verifybackup cannot be run")?)?;
    Ok(Unpacked { directory, account })
}
