//! Why the stack cannot do what was asked. Each message is one line that a person can act on.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::part::Part;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A program is not installed.
    #[error("{program} is missing: {remedy}")]
    Missing {
        /// What was looked for.
        program: String,
        /// What to install or to set.
        remedy: String,
    },
    /// A file, directory or process could not be handled.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program that prepares something ended with an error.
    #[error("{program} failed: {output}")]
    Program {
        /// Which program.
        program: String,
        /// The end of what it wrote.
        output: String,
    },
    /// Another supervisor runs in the same data directory.
    #[error("another local-stack runs in {0}; stop it, or choose another directory with PROSPECTUS_DATA_DIR")]
    InUse(PathBuf),
    /// The data directory cannot be used.
    #[error("{0}")]
    DataDirectory(String),
    /// A port that people expect the service on is taken.
    #[error(
        "port {port} for the {part} is taken by another process: end that one, or run `local-stack up --free-ports`"
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// Whose it would be.
        part: Part,
    },
    /// A process did not become ready.
    #[error("the {part} is not ready after {} s: {reason}{tail}", .waited.as_secs())]
    NotReady {
        /// Which process.
        part: Part,
        /// For how long it was waited.
        waited: Duration,
        /// What the last attempt said.
        reason: String,
        /// The end of its log.
        tail: String,
    },
    /// The database refused something.
    #[error("{what}: {message}")]
    Database {
        /// What was being done.
        what: String,
        /// What the server or the runner said.
        message: String,
    },
    /// There is no process of this name, or it cannot do this.
    #[error("{0}")]
    Order(String),
    /// No replica was made the primary, or not all that follows from it was done.
    #[error("{0}")]
    Promotion(String),
    /// The supervisor has ended.
    #[error("the stack has been shut down")]
    Ended,
}

impl StackError {
    /// Says what was being done when the system refused.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Says what was being done when the database refused.
    pub(crate) fn database(what: &str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let what = what.to_owned();
        move |error| {
            // tokio-postgres keeps the server's words in the source of its error.
            let message = match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            Self::Database { what, message }
        }
    }
}
