//! What the projector is configured with.

use std::path::PathBuf;

use anyhow::Context as _;
use event_store::Keyring;
use service_kit::config::{CommonArgs, Secret};

/// Keeps the read tables up to date with the log.
#[derive(Debug, clap::Parser)]
#[command(version, mut_arg("listen", |arg| arg.default_value("127.0.0.1:8082")))]
pub struct Config {
    /// What every service has.
    #[command(flatten)]
    pub common: CommonArgs,
    /// The primary, as role `prospectus_projector`: postgres://role:password@host:port/database
    #[arg(long, env = "PROSPECTUS_DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,
    /// NATS, for hearing of new events at once; without it the log is polled.
    #[arg(long, env = "PROSPECTUS_NATS_URL", hide_env_values = true)]
    pub nats_url: Option<Secret>,
    /// The key file; see ARCHITECTURE.md for its form.
    #[arg(long, env = "PROSPECTUS_KEYRING_FILE")]
    pub keyring_file: Option<PathBuf>,
    /// The text of the key file, instead of a file.
    #[arg(long, env = "PROSPECTUS_KEYRING", hide_env_values = true)]
    pub keyring: Option<Secret>,
}

impl Config {
    /// The keys.
    ///
    /// # Errors
    /// If neither file nor text is given, or the keys are not of their form.
    pub fn keyring(&self) -> anyhow::Result<Keyring> {
        let text = match (&self.keyring_file, &self.keyring) {
            (Some(path), _) => std::fs::read_to_string(path)
                .with_context(|| format!("the key file {} cannot be read", path.display()))?,
            (None, Some(text)) => text.expose().to_owned(),
            (None, None) => anyhow::bail!(
                "set PROSPECTUS_KEYRING_FILE or PROSPECTUS_KEYRING: personal data is opened with its keys"
            ),
        };
        Ok(Keyring::parse(&text)?)
    }
}
