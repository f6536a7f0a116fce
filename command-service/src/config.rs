//! What the command service is configured with.

use std::path::PathBuf;

use anyhow::Context as _;
use service_kit::config::{CommonArgs, KeyringArgs, Secret};

/// Takes commands over HTTP and appends them to the log; publishes the log over NATS.
#[derive(Debug, clap::Parser)]
#[command(version, mut_arg("listen", |arg| arg.default_value("127.0.0.1:8080")))]
pub struct Config {
    /// What every service has.
    #[command(flatten)]
    pub common: CommonArgs,
    /// The primary, as role `prospectus_appender`: postgres://role:password@host:port/database
    #[arg(long, env = "PROSPECTUS_DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,
    /// The primary, as role `prospectus_relay`; without it this process publishes nothing.
    #[arg(long, env = "PROSPECTUS_RELAY_DATABASE_URL", hide_env_values = true)]
    pub relay_database_url: Option<Secret>,
    /// The primary, as role `prospectus_sealer`; without it this process signs no heads.
    #[arg(long, env = "PROSPECTUS_SEALER_DATABASE_URL", hide_env_values = true)]
    pub sealer_database_url: Option<Secret>,
    /// The key file that heads are signed with; see ARCHITECTURE.md for its form.
    #[arg(long, env = "PROSPECTUS_SEAL_KEY_FILE")]
    seal_key_file: Option<PathBuf>,
    /// The text of that file, instead of a file.
    #[arg(long, env = "PROSPECTUS_SEAL_KEY", hide_env_values = true)]
    seal_key: Option<Secret>,
    /// A file that heads are added to, a line of JSON each: put it where whoever can change the database cannot.
    #[arg(long, env = "PROSPECTUS_HEADS_FILE")]
    pub heads_file: Option<PathBuf>,
    /// NATS with JetStream, for the relay; the sealer publishes its heads there.
    #[arg(long, env = "PROSPECTUS_NATS_URL", hide_env_values = true)]
    pub nats_url: Option<Secret>,
    /// The keys that seal personal data.
    #[command(flatten)]
    pub keyring: KeyringArgs,
    /// How long one command may take until it is given up, in seconds.
    #[arg(long, env = "PROSPECTUS_COMMAND_DEADLINE_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=120))]
    pub command_deadline_seconds: u64,
    /// Memory for records used lately, in MiB: two thirds for companies, one third for prospects.
    #[arg(long, env = "PROSPECTUS_CACHE_MIB", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub cache_mib: u64,
    /// The most text of one imported list, in GiB, unpacked.
    #[arg(long, env = "PROSPECTUS_IMPORT_GIB_MAX", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub import_gib_max: u64,
    /// The list of erased persons outside the database and its backups, a line each, no personal data; a file of this process's own. From
    /// it `prospectus erasures reapply` forgets again whom a restored backup brings back. Without it erasures stand in the database alone.
    #[arg(long, env = "PROSPECTUS_ERASURES_FILE")]
    pub erasures_file: Option<std::path::PathBuf>,
    /// How many of the newest events the relay puts into an empty stream.
    #[arg(long, env = "PROSPECTUS_REFILL_EVENTS", default_value_t = 1_000_000, value_parser = clap::value_parser!(i64).range(1..))]
    pub refill_events: i64,
}

impl Config {
    /// The text of the key file of heads.
    ///
    /// # Errors
    /// If neither file nor text is given, or the file cannot be read.
    pub(crate) fn seal_key_text(&self) -> anyhow::Result<Secret> {
        match (&self.seal_key_file, &self.seal_key) {
            (Some(path), _) => std::fs::read_to_string(path)
                .map(Secret::new)
                .with_context(|| format!("the seal key file {} cannot be read", path.display())),
            (None, Some(text)) => Ok(text.clone()),
            (None, None) => anyhow::bail!(
                "PROSPECTUS_SEALER_DATABASE_URL is set, but neither PROSPECTUS_SEAL_KEY_FILE nor PROSPECTUS_SEAL_KEY: heads are signed \
                 with its key"
            ),
        }
    }
}
