//! The directory of backups: what is in it, and whether it may be changed.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// What is known of a backup without its key: `backup.json` beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Its name and that of its directory: when it was begun.
    pub label: String,
    /// `full`.
    pub kind: String,
    /// When it was begun, by the primary's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it was done or had failed.
    #[serde(with = "time::serde::rfc3339")]
    pub finished_at: OffsetDateTime,
    /// Whether it can be restored.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The log's head when it was begun: it has all events up to there.
    pub position: i64,
    /// The major version of PostgreSQL that can read it.
    pub postgres: u32,
    /// The file of the write-ahead log that was written when it was begun: none before is needed.
    pub first_wal: String,
    /// How many files of the write-ahead log have the same middle part of their names.
    #[serde(default = "usual_files_per_log")]
    pub files_per_log: u32,
    /// How large it is, compressed and encrypted.
    pub bytes: u64,
}

/// With files of 16 MiB, which every server has that was not told otherwise when it was made.
fn usual_files_per_log() -> u32 {
    256
}

/// The directory of the backups.
#[derive(Debug)]
pub struct Backups {
    root: PathBuf,
}

impl Backups {
    /// Opens the directory.
    ///
    /// # Errors
    /// If it is not there.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        let root = fs::canonicalize(root).with_context(|| format!("the directory of backups {}", root.display()))?;
        anyhow::ensure!(root.is_dir(), "{} is no directory", root.display());
        Ok(Self { root })
    }

    /// Where the archived write-ahead log is.
    pub fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    /// Where a backup is.
    pub fn base(&self, label: &str) -> PathBuf {
        self.root.join("base").join(label)
    }

    /// The encrypted files of a backup.
    pub fn archive(&self, label: &str) -> PathBuf {
        self.base(label).join("base.tar.gz.age")
    }

    /// Keeps others from making or removing backups as long as the file is open.
    ///
    /// # Errors
    /// If somebody else does.
    pub fn lock(&self) -> anyhow::Result<File> {
        let file = File::create(self.root.join("lock")).context("the lock file of the backups")?;
        anyhow::ensure!(file.try_lock().is_ok(), "another `prospectus backup` works in {}", self.root.display());
        Ok(file)
    }

    /// All backups, the oldest first. One that was cut off has no record and is not among them.
    ///
    /// # Errors
    /// If the directory or a record cannot be read, or a record is damaged.
    pub fn records(&self) -> anyhow::Result<Vec<Record>> {
        let mut records = Vec::new();
        for label in self.labels()? {
            let path = self.base(&label).join("backup.json");
            let text = match fs::read_to_string(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                read => read.with_context(|| path.display().to_string())?,
            };
            let record: Record = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
            // What else is in the archive is removed, or refused, by these.
            anyhow::ensure!(
                record.label == label && is_segment(&record.first_wal) && record.files_per_log > 0,
                "{} is damaged: its label, or its first file of the write-ahead log, is none",
                path.display()
            );
            records.push(record);
        }
        records.sort_by_key(|record| record.started_at);
        Ok(records)
    }

    /// The names of all directories of backups, those that were cut off too.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn labels(&self) -> anyhow::Result<Vec<String>> {
        let base = self.root.join("base");
        if !base.exists() {
            return Ok(Vec::new());
        }
        let mut labels = Vec::new();
        for entry in fs::read_dir(&base).with_context(|| base.display().to_string())? {
            labels.extend(entry?.file_name().to_str().map(ToOwned::to_owned));
        }
        Ok(labels)
    }

    /// Writes the record of a backup, which makes it one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, record: &Record) -> anyhow::Result<()> {
        let directory = self.base(&record.label);
        let (beside, path) = (directory.join("backup.new"), directory.join("backup.json"));
        let mut file = File::create(&beside).with_context(|| beside.display().to_string())?;
        writeln!(file, "{}", serde_json::to_string_pretty(record)?)?;
        file.sync_all()?;
        fs::rename(&beside, &path).with_context(|| path.display().to_string())?;
        File::open(&directory)?.sync_all()?;
        Ok(())
    }

    /// Room that is left where the backups are, in bytes.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn free_bytes(&self) -> anyhow::Result<u64> {
        let free = rustix::fs::statvfs(&self.root).with_context(|| self.root.display().to_string())?;
        Ok(free.f_bavail.saturating_mul(free.f_frsize))
    }

    /// The archived files: name without digest, path.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn archived(&self) -> anyhow::Result<Vec<(String, PathBuf)>> {
        let directory = self.wal();
        let mut files = Vec::new();
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some((name, _)) = name.strip_suffix(".age").and_then(|name| name.rsplit_once('-')) {
                files.push((name.to_owned(), path));
            }
        }
        files.sort();
        Ok(files)
    }
}

/// Whether a file of the archive is a whole segment of the write-ahead log, by its name.
pub fn is_segment(name: &str) -> bool {
    name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The number of a segment in its timeline, by its name.
///
/// # Errors
/// If it is none.
pub fn segment_number(name: &str, files_per_log: u32) -> anyhow::Result<u64> {
    anyhow::ensure!(is_segment(name), "{name} is no file of the write-ahead log");
    let part = |from: usize| u64::from_str_radix(&name[from..from + 8], 16);
    Ok(part(8)? * u64::from(files_per_log) + part(16)?)
}

/// A size for people.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{:.1} kiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
