//! What the projector is configured with.

use service_kit::config::{CommonArgs, KeyringArgs, Secret};

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
    /// The keys that seal personal data.
    #[command(flatten)]
    pub keyring: KeyringArgs,
}
