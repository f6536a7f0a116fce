//! What the command service is configured with.

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
    /// NATS with JetStream, for the relay.
    #[arg(long, env = "PROSPECTUS_NATS_URL", hide_env_values = true)]
    pub nats_url: Option<Secret>,
    /// The keys that seal personal data.
    #[command(flatten)]
    pub keyring: KeyringArgs,
    /// How long one command may take until it is given up, in seconds.
    #[arg(long, env = "PROSPECTUS_COMMAND_DEADLINE_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=120))]
    pub command_deadline_seconds: u64,
    /// Memory for records used lately, in MiB: two thirds for companies, one third for prospects.
    #[arg(long, env = "PROSPECTUS_CACHE_MIB", default_value_t = 48, value_parser = clap::value_parser!(u64).range(1..=65_536))]
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
