//! What the query service is configured with.

use service_kit::config::{CommonArgs, KeyringArgs, Secret};

/// Answers reads over HTTP from PostgreSQL replicas.
#[derive(Debug, clap::Parser)]
#[command(version, mut_arg("listen", |arg| arg.default_value("127.0.0.1:8081")))]
pub struct Config {
    /// What every service has.
    #[command(flatten)]
    pub common: CommonArgs,
    /// The servers, as role `prospectus_query`, comma-separated: postgres://role:password@host:port/database,… Which of them is the
    /// primary may change; it is not read while a replica works.
    #[arg(
        long,
        env = "PROSPECTUS_REPLICA_DATABASE_URLS",
        hide_env_values = true,
        value_delimiter = ',',
        required = true
    )]
    pub replica_database_urls: Vec<Secret>,
    /// Never read from a server of that list that takes writes. Without it, one that a promotion made the primary is read while no
    /// replica works.
    #[arg(long, env = "PROSPECTUS_REPLICAS_ONLY")]
    pub replicas_only: bool,
    /// The primary, as role `prospectus_query`: read from only while no replica works. Without it such reads are answered 503.
    #[arg(long, env = "PROSPECTUS_FALLBACK_DATABASE_URL", hide_env_values = true)]
    pub fallback_database_url: Option<Secret>,
    /// The primary, as role `prospectus_reads`: where it is noted who read what, for tenants that ask for it. Without it their reads are
    /// answered 503.
    #[arg(long, env = "PROSPECTUS_READS_DATABASE_URL", hide_env_values = true)]
    pub reads_database_url: Option<Secret>,
    /// The keys that seal personal data.
    #[command(flatten)]
    pub keyring: KeyringArgs,
    /// Connections to each replica.
    #[arg(long, env = "PROSPECTUS_REPLICA_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub replica_connections: u16,
}
