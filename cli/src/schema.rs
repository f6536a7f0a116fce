//! `prospectus schema`: whether the database is what the migrations say, and whether its indexes are worth their room.

mod indexes;

use anyhow::Context as _;
use serde_json::json;
use service_kit::config::Secret;
use service_kit::postgres::Database;

use crate::output::Output;
use crate::primary::Primary;

/// The database that is made for a comparison, and removed again.
const SCRATCH: &str = "prospectus_schema_scratch";
/// One comparison at a time on a server; any number that nobody else uses does.
const SCRATCH_LOCK: i64 = 0x7072_6f73_7363_6865;

/// The database's schema.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  prospectus schema validate")]
pub enum Command {
    /// Compares the database with what the migrations make: tables, columns, types, constraints, indexes, policies, grants, functions,
    /// triggers, views, roles' settings. Each difference is a line; exit code 1 if there is one.
    ///
    /// For the time of the comparison an empty database is made beside it on the same server (`prospectus_schema_scratch`), migrated, read, and
    /// removed: so both sides are put into words by the same server. Of the generations of read tables the live one is compared.
    #[command(
        after_help = "Example:\n  prospectus schema validate\n  prospectus schema validate --json | jq -r '.differences[]'"
    )]
    Validate,
    /// Looks at the indexes: which nobody has used, which others make superfluous, and where one may be missing.
    ///
    /// Reads are served by replicas, and each server counts for itself: name the replicas, or an index that only they use counts as unused.
    #[command(
        after_help = "Example:\n  prospectus schema indexes --replica-urls postgres://postgres:…@replica:5432/prospectus"
    )]
    Indexes {
        /// Replicas whose counts are added, comma-separated.
        #[arg(long, env = "PROSPECTUS_REPLICA_URLS", hide_env_values = true, value_delimiter = ',')]
        replica_urls: Vec<Secret>,
    },
}

/// Runs the command.
///
/// # Errors
/// If a server cannot be asked, or the database is of another version.
pub async fn run(command: &Command, primary: &Primary, url: Option<&Secret>) -> anyhow::Result<Output> {
    match command {
        Command::Validate => validate(primary, url).await,
        Command::Indexes { replica_urls } => indexes::run(primary, replica_urls).await,
    }
}

async fn validate(primary: &Primary, url: Option<&Secret>) -> anyhow::Result<Output> {
    // The files themselves come first: those that were applied are those of this program.
    let client = primary.connect_migrated().await?;
    let expected = expected(url).await?;
    let found = migrations::catalogue::facts(&client).await.context("the database's catalogue")?;
    let differences = migrations::catalogue::differences(&expected, &found);
    let text = if differences.is_empty() {
        format!("the database is what the migrations say: {} facts compared\n", expected.len())
    } else {
        format!("{}\n\n{} differences\n", differences.join("\n"), differences.len())
    };
    let well = differences.is_empty();
    let json = json!({"version": migrations::version(), "facts": expected.len(), "differences": differences});
    Ok(Output { json, text, well })
}

/// The facts of a database that was only just migrated, on the same server.
async fn expected(url: Option<&Secret>) -> anyhow::Result<migrations::catalogue::Facts> {
    const LOCK: &str = "-- cli::schema::expected, lock
        SELECT pg_advisory_lock($1)";
    // On a connection to another database, for locks are each database's own and this one is everybody's.
    let url = url.context("PROSPECTUS_PRIMARY_URL is not set")?;
    let beside = |name: &str| -> anyhow::Result<Database> {
        let mut beside: url::Url =
            url.expose().parse().map_err(|_| anyhow::anyhow!("PROSPECTUS_PRIMARY_URL is not a URL"))?;
        beside.set_path(name);
        Ok(Database::parse(beside.as_str(), "prospectus schema validate")?.read_write())
    };
    let server = beside("postgres")?.client().await.context("the database postgres of the primary")?;
    server.execute(LOCK, &[&SCRATCH_LOCK]).await?;
    let drop = format!("DROP DATABASE IF EXISTS {SCRATCH} WITH (FORCE)");
    // Left by one that was cut off.
    server.batch_execute(&drop).await.context("removing the scratch database")?;
    server
        .batch_execute(&format!("CREATE DATABASE {SCRATCH} TEMPLATE template0"))
        .await
        .context("the scratch database")?;
    let facts = async {
        let mut scratch = beside(SCRATCH)?.client().await?;
        migrations::migrate(&mut scratch).await?;
        anyhow::Ok(migrations::catalogue::facts(&scratch).await?)
    };
    let facts = facts.await;
    server.batch_execute(&drop).await.context("removing the scratch database")?;
    facts.context("the scratch database")
}
