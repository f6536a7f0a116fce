//! What is configured in the same way in every process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Flags and variables of every service; flatten it into the service's own `clap` struct. A service gives `listen` its default
/// with `#[command(mut_arg("listen", |arg| arg.default_value("127.0.0.1:8080")))]`.
#[derive(Debug, Clone, clap::Args)]
pub struct CommonArgs {
    /// Address to serve on.
    #[arg(long, env = "PROSPECTUS_LISTEN")]
    pub listen: SocketAddr,
    /// Which log lines to write: `info`, `debug`, `service_kit=debug,info`, …
    #[arg(long, env = "PROSPECTUS_LOG", default_value = "info")]
    pub log: String,
    /// How to write them.
    #[arg(long, env = "PROSPECTUS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Pretty)]
    pub log_format: LogFormat,
    /// What has done nothing for so many seconds although something waits is stuck: a projection, the relay, the sealer.
    #[arg(long, env = "PROSPECTUS_STUCK_AFTER_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub stuck_after_seconds: u64,
}

impl CommonArgs {
    /// How long what is stuck has done nothing.
    pub fn stuck_after(&self) -> Duration {
        Duration::from_secs(self.stuck_after_seconds)
    }
}

/// Where the key file is, or its text; flatten it into the service's own `clap` struct.
#[derive(Debug, Clone, clap::Args)]
pub struct KeyringArgs {
    /// The key file; see ARCHITECTURE.md for its form.
    #[arg(long, env = "PROSPECTUS_KEYRING_FILE")]
    keyring_file: Option<PathBuf>,
    /// The text of the key file, instead of a file.
    #[arg(long, env = "PROSPECTUS_KEYRING", hide_env_values = true)]
    keyring: Option<Secret>,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyringArgsError {
    /// Neither file nor text is given.
    #[error("set PROSPECTUS_KEYRING_FILE or PROSPECTUS_KEYRING: personal data is sealed and opened with its keys")]
    Missing,
    /// The file cannot be read.
    #[error("the key file {path} cannot be read: {source}")]
    File {
        /// Which file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl KeyringArgs {
    /// The text of the key file.
    ///
    /// # Errors
    /// If neither is given, or the file cannot be read.
    pub fn text(&self) -> Result<Secret, KeyringArgsError> {
        match (&self.keyring_file, &self.keyring) {
            (Some(path), _) => std::fs::read_to_string(path)
                .map(Secret::new)
                .map_err(|source| KeyringArgsError::File { path: path.display().to_string(), source }),
            (None, Some(text)) => Ok(text.clone()),
            (None, None) => Err(KeyringArgsError::Missing),
        }
    }
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people, one line each.
    Pretty,
    /// For machines, one JSON object a line.
    Json,
}

/// Text that must not be seen: a URL with a password, a key. Give its argument `hide_env_values = true` too.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    // Parsing never fails, because clap would repeat a value that it cannot parse.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("[secret]")
    }
}

impl std::fmt::Display for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("[secret]")
    }
}
