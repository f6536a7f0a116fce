//! What the query service is configured with.

use std::path::PathBuf;

use anyhow::Context as _;
use event_store::Keyring;
use service_kit::config::{CommonArgs, Secret};

/// Answers reads over HTTP from PostgreSQL replicas.
#[derive(Debug, clap::Parser)]
#[command(version, mut_arg("listen", |arg| arg.default_value("127.0.0.1:8081")))]
pub struct Config {
    /// What every service has.
    #[command(flatten)]
    pub common: CommonArgs,
    /// The replicas, as role `prospectus_query`, comma-separated: postgres://role:password@host:port/database,…
    #[arg(
        long,
        env = "PROSPECTUS_REPLICA_DATABASE_URLS",
        hide_env_values = true,
        value_delimiter = ',',
        required = true
    )]
    pub replica_database_urls: Vec<Secret>,
    /// The primary, as role `prospectus_query`: read from only while no replica works. Without it such reads are answered 503.
    #[arg(long, env = "PROSPECTUS_FALLBACK_DATABASE_URL", hide_env_values = true)]
    pub fallback_database_url: Option<Secret>,
    /// The key file; see ARCHITECTURE.md for its form.
    #[arg(long, env = "PROSPECTUS_KEYRING_FILE")]
    pub keyring_file: Option<PathBuf>,
    /// The text of the key file, instead of a file.
    #[arg(long, env = "PROSPECTUS_KEYRING", hide_env_values = true)]
    pub keyring: Option<Secret>,
    /// Connections to each replica.
    #[arg(long, env = "PROSPECTUS_REPLICA_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub replica_connections: u16,
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
                "set PROSPECTUS_KEYRING_FILE or PROSPECTUS_KEYRING: personal data in events is opened with its keys"
            ),
        };
        Ok(Keyring::parse(&text)?)
    }
}
