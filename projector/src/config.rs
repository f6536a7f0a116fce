//! What the projector is configured with.

use std::time::Duration;

use service_kit::config::{CommonArgs, KeyringArgs, Secret};

use crate::refresh::Schedule;

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
    /// When what is counted is refreshed.
    #[command(flatten)]
    pub refresh: RefreshArgs,
}

/// When the materialized views are refreshed.
#[derive(Debug, clap::Args)]
pub struct RefreshArgs {
    /// Refresh what is counted after so many events.
    #[arg(long, env = "PROSPECTUS_REFRESH_EVENTS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub refresh_events: u32,
    /// Refresh what is counted when the oldest event that does not show is so many seconds old.
    #[arg(long, env = "PROSPECTUS_REFRESH_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub refresh_seconds: u32,
    /// Cancel a refresh that takes longer than so many seconds.
    #[arg(long, env = "PROSPECTUS_REFRESH_MAX_SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub refresh_max_seconds: u32,
}

/// How long a refresh waits for a lock.
const LOCK_WAIT: Duration = Duration::from_secs(3);

impl RefreshArgs {
    /// What they say.
    pub fn schedule(&self) -> Schedule {
        Schedule {
            events: self.refresh_events.into(),
            age: Duration::from_secs(self.refresh_seconds.into()),
            lock_wait: LOCK_WAIT,
            length: Duration::from_secs(self.refresh_max_seconds.into()),
        }
    }
}
