//! Finding what is installed: PostgreSQL, nats-server, setpriv, and our own services beside this program.

use std::env;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::error::StackError;

/// The oldest PostgreSQL that the project runs on.
const POSTGRES_MAJOR_MIN: u32 = 15;

/// What of PostgreSQL is needed.
const POSTGRES_PROGRAMS: [&str; 5] = ["postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_verifybackup"];

/// One installation of PostgreSQL.
#[derive(Clone, Debug)]
pub struct Postgres {
    directory: PathBuf,
}

impl Postgres {
    /// The directory in `PROSPECTUS_POSTGRES_BIN`, else the first usable of `PATH`, `/usr/lib/postgresql/*/bin` from the newest
    /// on, and what `pg_config` says. Data that exists already binds it to the major version that made it.
    ///
    /// # Errors
    /// If there is none; the message says what to install.
    pub async fn find(data_major: Option<u32>) -> Result<Self, StackError> {
        let mut usable = Vec::new();
        for directory in postgres_directories().await {
            if POSTGRES_PROGRAMS.iter().all(|program| directory.join(program).is_file())
                && let Some(major) = postgres_major(&directory).await
                && major >= POSTGRES_MAJOR_MIN
            {
                usable.push((major, directory));
            }
        }
        let chosen = match data_major {
            None => usable.into_iter().next(),
            Some(wanted) => usable.into_iter().find(|(major, _)| *major == wanted),
        };
        chosen.map(|(_, directory)| Self { directory }).ok_or_else(|| match data_major {
            None => StackError::Missing {
                program: format!("PostgreSQL {POSTGRES_MAJOR_MIN} or later"),
                remedy:
                    "`make setup`, or `apt-get install postgresql`, or set PROSPECTUS_POSTGRES_BIN to the directory of \
                         its initdb"
                        .to_owned(),
            },
            Some(major) => StackError::Missing {
                program: format!("PostgreSQL {major}, which made the data in the data directory,"),
                remedy: format!(
                    "`apt-get install postgresql-{major}`, or set PROSPECTUS_POSTGRES_BIN, or remove the data directory"
                ),
            },
        })
    }

    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

async fn postgres_directories() -> Vec<PathBuf> {
    if let Some(given) = env::var_os("PROSPECTUS_POSTGRES_BIN") {
        return vec![PathBuf::from(given)];
    }
    let mut directories = path_directories();
    let mut packaged: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let major = entry.file_name().to_str()?.parse().ok()?;
            Some((major, entry.path().join("bin")))
        })
        .collect();
    packaged.sort();
    directories.extend(packaged.into_iter().rev().map(|(_, directory)| directory));
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output().await {
        directories.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    directories
}

async fn postgres_major(directory: &Path) -> Option<u32> {
    let output = Command::new(directory.join("postgres")).arg("--version").output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "postgres (PostgreSQL) 18beta1"
    let version = text.split_whitespace().nth(2)?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn path_directories() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

/// nats-server: `PROSPECTUS_NATS_SERVER`, else in `PATH` or where Debian puts it, which is not in every user's `PATH`.
///
/// # Errors
/// If there is none; the message says what to install.
pub(crate) fn nats_server() -> Result<PathBuf, StackError> {
    if let Some(given) = env::var_os("PROSPECTUS_NATS_SERVER") {
        let path = PathBuf::from(given);
        if path.is_file() {
            return Ok(path);
        }
    } else if let Some(path) = find_program("nats-server") {
        return Ok(path);
    }
    Err(StackError::Missing {
        program: "nats-server".to_owned(),
        remedy: "`make setup`, or `apt-get install nats-server`, or set PROSPECTUS_NATS_SERVER to its path".to_owned(),
    })
}

/// setpriv of util-linux, with which a child is ended when its parent is; without it that is left out.
pub(crate) fn setpriv() -> Option<PathBuf> {
    find_program("setpriv")
}

/// age, which encrypts what is archived and backed up, and the program that makes its keys.
///
/// # Errors
/// If one is missing; the message says what to install.
pub(crate) fn age() -> Result<PathBuf, StackError> {
    match (find_program("age"), find_program("age-keygen")) {
        (Some(_), Some(keygen)) => Ok(keygen),
        _ => Err(StackError::Missing {
            program: "age".to_owned(),
            remedy: "`make setup`, or `apt-get install age`, with which backups are encrypted".to_owned(),
        }),
    }
}

fn find_program(name: &str) -> Option<PathBuf> {
    path_directories()
        .into_iter()
        .chain(["/usr/sbin", "/usr/bin", "/usr/local/bin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// Where our binaries are: in `PROSPECTUS_BIN_DIR`, else beside this program (a test's program lies in `deps` below it).
///
/// # Errors
/// If it is not known where this program is.
pub fn bin_directory() -> Result<PathBuf, StackError> {
    env::var_os("PROSPECTUS_BIN_DIR").map_or_else(own_directory, |given| Ok(PathBuf::from(given)))
}

/// One of our binaries.
///
/// # Errors
/// If it is not there; the message says how to build it.
pub(crate) fn service(name: &str) -> Result<PathBuf, StackError> {
    let directory = bin_directory()?;
    let path = directory.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(StackError::Missing {
        program: format!("{name} in {}", directory.display()),
        remedy: "`cargo build --release --workspace --bins`, or set PROSPECTUS_BIN_DIR to where the services are"
            .to_owned(),
    })
}

fn own_directory() -> Result<PathBuf, StackError> {
    let program = env::current_exe().map_err(StackError::io("finding this program's own path"))?;
    let directory = program.parent().unwrap_or(Path::new("/"));
    match directory.parent() {
        Some(above) if directory.ends_with("deps") => Ok(above.to_owned()),
        _ => Ok(directory.to_owned()),
    }
}
