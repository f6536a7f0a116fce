//! Where backups and the archived write-ahead log of the stack lie, and the keys that they are encrypted with.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tokio::process::Command;

use crate::account::Account;
use crate::data::Data;
use crate::error::StackError;
use crate::installed;

/// PostgreSQL's `archive_command`.
const ARCHIVE_WAL: &str = include_str!("../../postgres/archive-wal.sh");

/// Makes the directory and the keys where they are not there yet; gives the `archive_command`.
pub(crate) async fn make(data: &Data, account: Option<Account>) -> Result<String, StackError> {
    let keygen = installed::age()?;
    let (backups, script) = (data.path("backups"), data.path("archive-wal.sh"));
    let (identity, recipients) = (data.path("backup_identity"), data.path("backup_recipients"));
    let wal = backups.join("wal");
    for path in [&script, &wal, &recipients] {
        let text = path.to_str().unwrap_or("\"");
        // The server puts names in the place of %, and a shell reads the rest.
        if text.contains(['"', '\'', '%', '$', '`', '\\']) {
            return Err(StackError::DataDirectory(format!(
                "{}: nothing can be archived below a path with quotes or signs that a shell reads; set PROSPECTUS_DATA_DIR to another",
                path.display()
            )));
        }
    }
    fs::create_dir_all(&wal).map_err(StackError::io("making the directory of the backups"))?;
    set_mode(&wal, 0o700)?;
    if let Some(account) = account {
        account.own(&wal)?;
    }
    fs::write(&script, ARCHIVE_WAL).map_err(StackError::io("writing archive-wal.sh"))?;
    set_mode(&script, 0o755)?;
    if !identity.exists() {
        output(Command::new(&keygen).arg("-o").arg(&identity)).await?;
    }
    if !recipients.exists() {
        let public = output(Command::new(&keygen).arg("-y").arg(&identity)).await?;
        fs::write(&recipients, public).map_err(StackError::io("writing the backups' public key"))?;
        set_mode(&recipients, 0o644)?;
    }
    Ok(format!("\"{}\" \"%p\" \"%f\" \"{}\" \"{}\"", script.display(), wal.display(), recipients.display()))
}

/// What `prospectus backup` and `prospectus restore` read.
pub(crate) fn variables(data: &Data) -> Vec<(String, String)> {
    [
        ("PROSPECTUS_BACKUP_DIR", "backups"),
        ("PROSPECTUS_BACKUP_RECIPIENTS_FILE", "backup_recipients"),
        ("PROSPECTUS_BACKUP_IDENTITY_FILE", "backup_identity"),
    ]
    .map(|(name, file)| (name.to_owned(), data.path(file).display().to_string()))
    .into()
}

fn set_mode(path: &std::path::Path, mode: u32) -> Result<(), StackError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(StackError::io(format!("opening {}", path.display())))
}

async fn output(command: &mut Command) -> Result<Vec<u8>, StackError> {
    let output = command.kill_on_drop(true).output().await.map_err(StackError::io("running age-keygen"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(StackError::Program { program: "age-keygen".to_owned(), output: said })
}
