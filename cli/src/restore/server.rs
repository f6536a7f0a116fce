//! The server that recovers a restored directory: on no port, for nobody but us, and stopped when the checks are done.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use local_stack::{Account, Postgres};
use rustix::process::{Pid, Signal, kill_process};
use service_kit::config::Secret;
use service_kit::postgres::Database;
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::process::{Child, Command};

use super::unpack::Unpacked;

/// PostgreSQL's `restore_command`.
const RESTORE_WAL: &str = include_str!("../../../deploy/postgres/restore-wal.sh");
/// Between two looks at how far the server is.
const LOOK: Duration = Duration::from_millis(50);
/// How long recovery may take.
const RECOVERY: Duration = Duration::from_secs(24 * 3600);
/// How long the server may take to end.
const STOP: Duration = Duration::from_secs(300);
/// Lines of its log that are shown where it fails.
const SHOWN_LINES_MAX: usize = 15;

/// What is recovered.
pub struct Target {
    /// The last moment that is kept; none: everything.
    pub to: Option<OffsetDateTime>,
    /// Where the write-ahead log is archived.
    pub wal: PathBuf,
    /// What reads it.
    pub identity: PathBuf,
    /// The database that is asked.
    pub database: String,
}

/// The running server. Dropped, it is killed.
pub struct Server {
    process: Child,
    /// Socket, log, script, and, for a server that runs as another user, a copy of the identity.
    scratch: Scratch,
    database: String,
}

impl Server {
    /// Starts a server on the directory, has it recover, and returns once it takes writes.
    ///
    /// # Errors
    /// If it does not get there; with the end of its log.
    pub async fn start(unpacked: &Unpacked, major: u32, target: &Target) -> anyhow::Result<Self> {
        let scratch = Scratch::new(unpacked.account(), &target.identity)?;
        let postgres = Postgres::find(Some(major)).await?;
        let signal = unpacked.directory().join("recovery.signal");
        fs::write(&signal, "").context("recovery.signal")?;
        if let Some(account) = unpacked.account() {
            account.own(&signal)?;
        }
        let mut command = Command::new(postgres.program("postgres"));
        command.arg("-D").arg(unpacked.directory()).args(["-p", "5432"]);
        for setting in settings(&scratch, target)? {
            command.arg("-c").arg(setting);
        }
        let log = fs::File::create(scratch.path("log")).context("the server's log")?;
        command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        if let Some(account) = unpacked.account() {
            account.run(&mut command);
        }
        let process = command.spawn().context("postgres cannot be run")?;
        let mut server = Self { process, scratch, database: target.database.clone() };
        server.recovered(target.to.is_some()).await?;
        Ok(server)
    }

    /// The superuser's address of it.
    pub fn url(&self) -> Secret {
        let socket = self.scratch.directory.display().to_string().replace('/', "%2F");
        Secret::new(format!("postgres://postgres@{socket}:5432/{}?sslmode=disable", self.database))
    }

    async fn recovered(&mut self, to_a_time: bool) -> anyhow::Result<()> {
        let database = Database::parse(self.url().expose(), "prospectus restore")?;
        let started = Instant::now();
        while started.elapsed() < RECOVERY {
            if let Some(status) = self.process.try_wait()? {
                let log = self.log();
                if to_a_time && log.contains("recovery ended before configured recovery target was reached") {
                    bail!(
                        "the archive has no change from after that time, so it cannot be told whether it is complete up to there: give an \
                         earlier --to, or none to restore all that is archived"
                    );
                }
                bail!("PostgreSQL ended while it recovered ({status}):\n{log}");
            }
            if let Ok(client) = database.client().await
                && let Ok(row) = client.query_one("SELECT pg_is_in_recovery()", &[]).await
                && !row.get::<_, bool>(0)
            {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("PostgreSQL has not recovered after {} h:\n{}", RECOVERY.as_secs() / 3600, self.log())
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.scratch.path("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES_MAX)..].join("\n")
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// If it does not end in order.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.process.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let pid = pid.context("PostgreSQL has ended before it was told to")?;
        // PostgreSQL's fast shutdown.
        kill_process(pid, Signal::INT)?;
        let ended = tokio::time::timeout(STOP, self.process.wait()).await;
        let status = ended.with_context(|| format!("PostgreSQL does not end after {} s", STOP.as_secs()))??;
        ensure!(status.success(), "PostgreSQL did not end in order ({status}):\n{}", self.log());
        Ok(())
    }
}

/// All on the command line, so that nothing of the recovery stays in the directory and makes a standby of it stop at that time.
fn settings(scratch: &Scratch, target: &Target) -> anyhow::Result<Vec<String>> {
    let path = |path: &Path| -> anyhow::Result<String> {
        let text = path.to_str().context("a path that is not UTF-8")?;
        ensure!(
            !text.contains(['"', '\'', '%', '$', '`', '\\']),
            "{text}: a path with quotes or signs that a shell reads"
        );
        Ok(text.to_owned())
    };
    let restore = format!(
        "restore_command=\"{}\" \"%f\" \"%p\" \"{}\" \"{}\"",
        path(&scratch.path("restore-wal.sh"))?,
        path(&target.wal)?,
        path(&scratch.identity)?
    );
    let mut settings = vec![
        "listen_addresses=".to_owned(),
        format!("unix_socket_directories={}", path(&scratch.directory)?),
        format!("hba_file={}", path(&scratch.path("pg_hba.conf"))?),
        "hot_standby=off".to_owned(),
        // It must not add to the archive that it is made from, nor to a primary's standbys.
        "archive_mode=off".to_owned(),
        "synchronous_standby_names=".to_owned(),
        "primary_conninfo=".to_owned(),
        "primary_slot_name=".to_owned(),
        "shared_preload_libraries=".to_owned(),
        "logging_collector=off".to_owned(),
        "log_destination=stderr".to_owned(),
        "log_error_verbosity=terse".to_owned(),
        "log_min_error_statement=panic".to_owned(),
        "log_statement=none".to_owned(),
        "log_parameter_max_length=0".to_owned(),
        "log_parameter_max_length_on_error=0".to_owned(),
        "ssl=off".to_owned(),
        "recovery_target_timeline=latest".to_owned(),
        "recovery_target_action=promote".to_owned(),
        restore,
    ];
    if let Some(to) = target.to {
        let to = to.to_offset(time::UtcOffset::UTC);
        let form = format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]+00");
        settings.push(format!("recovery_target_time={}", to.format(form)?));
    }
    Ok(settings)
}

/// A directory of this run's, gone at the end.
struct Scratch {
    directory: PathBuf,
    /// The identity that the server's user may read: the one that was given, or a copy in the directory.
    identity: PathBuf,
}

impl Scratch {
    fn new(account: Option<Account>, identity: &Path) -> anyhow::Result<Self> {
        let identity = fs::canonicalize(identity).context("the identity")?;
        let directory = std::env::temp_dir().join(format!("prospectus-restore-{}", uuid::Uuid::new_v4().simple()));
        fs::DirBuilder::new().mode(0o700).create(&directory).context("a directory for the server's socket")?;
        let mut scratch = Self { directory, identity };
        fs::write(scratch.path("restore-wal.sh"), RESTORE_WAL)?;
        fs::write(scratch.path("pg_hba.conf"), "local all all trust\n")?;
        for (name, mode) in [("restore-wal.sh", 0o700), ("pg_hba.conf", 0o600)] {
            fs::set_permissions(scratch.path(name), fs::Permissions::from_mode(mode))?;
        }
        let Some(account) = account else { return Ok(scratch) };
        let given = fs::read(&scratch.identity).context("the identity")?;
        scratch.identity = scratch.path("identity");
        fs::write(&scratch.identity, "")?;
        fs::set_permissions(&scratch.identity, fs::Permissions::from_mode(0o600))?;
        fs::write(&scratch.identity, given)?;
        account.own(&scratch.directory)?;
        for name in ["restore-wal.sh", "pg_hba.conf", "identity"] {
            account.own(&scratch.path(name))?;
        }
        Ok(scratch)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            let holds =
                if self.identity.starts_with(&self.directory) { "holds a copy of the identity and " } else { "" };
            eprintln!("prospectus: {} {holds}could not be removed: {error}", self.directory.display());
        }
    }
}
