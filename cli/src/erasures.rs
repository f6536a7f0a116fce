//! `prospectus erasures`: who was erased, and erasing again whom a restored backup brings back.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use domain::Prospect;
use domain::prospect::EraseProspect;
use event_store::erasures::KeptErasure;
use event_store::{Executor, Forgotten, Keyring, Metadata, Request, Store};
use serde_json::{Value, json};
use service_kit::config::KeyringArgs;
use service_kit::postgres::Database;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::output::Output;
use crate::primary::{self, Primary, tenant_id};

/// How long one erasure may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Persons who were erased.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  prospectus erasures list --tenant acme")]
pub enum Command {
    /// Lists the erased persons, the first erased first.
    #[command(after_help = "Example:\n  prospectus erasures list --tenant acme")]
    List {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Erases again whom a restored backup has brought back: to be run after restoring one, before services start.
    ///
    /// Who is erased stands in the files outside the database (`PROSPECTUS_ERASURES_FILE` of the command services; one that survived is
    /// enough) and in the log itself. A person whom the restored log does not hold is only counted.
    #[command(
        after_help = "Example:\n  prospectus erasures reapply --since 2026-01-31T00:00:00Z --file /var/lib/prospectus/erasures.ndjson"
    )]
    Reapply {
        /// The time that the backup was made, or one before it: RFC 3339, or a date.
        #[arg(long, value_parser = parse_time)]
        since: OffsetDateTime,
        /// A list of erasures outside the database; more than one may be given.
        #[arg(long, env = "PROSPECTUS_ERASURES_FILE", required_unless_present = "log_only")]
        file: Vec<PathBuf>,
        /// There is no such list: only what the restored log itself says. It knows of no erasure that came after the backup.
        #[arg(long)]
        log_only: bool,
        #[command(flatten)]
        keyring: KeyringArgs,
    },
}

/// Runs the command.
///
/// # Errors
/// If a file cannot be read, the keys are another log's, or the database fails.
pub async fn run(command: &Command, primary: &Primary) -> anyhow::Result<Output> {
    match command {
        Command::List { tenant } => list(tenant.as_deref(), primary).await,
        Command::Reapply { since, file, keyring, log_only: _ } => {
            let client = primary.connect_migrated().await?;
            let keyring = Arc::new(primary::keyring(keyring, &client).await?);
            reapply(Some(*since), file, keyring, &client, primary.database()).await
        }
    }
}

async fn list(tenant: Option<&str>, primary: &Primary) -> anyhow::Result<Output> {
    const SQL: &str = "-- cli::erasures::list
        SELECT t.name, e.person_id, e.position, to_char(e.erased_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
        FROM log.erasures AS e LEFT JOIN access.tenants AS t USING (tenant_id)
        WHERE $1::uuid IS NULL /* tenant */ OR e.tenant_id = $1
        ORDER BY e.position";
    let client = primary.connect_migrated().await?;
    let wanted = match tenant {
        Some(name) => Some(tenant_id(&client, name).await?),
        None => None,
    };
    let rows = client.query(SQL, &[&wanted]).await?;
    let rows: Vec<Vec<Value>> = rows
        .iter()
        .map(|row| {
            vec![
                row.get::<_, Option<&str>>(0).into(),
                row.get::<_, Uuid>(1).to_string().into(),
                row.get::<_, i64>(2).into(),
                row.get::<_, &str>(3).into(),
            ]
        })
        .collect();
    Ok(Output::rows(&["tenant", "prospect_id", "position", "erased_at"], &rows))
}

/// How many persons of the lists are what.
#[derive(Debug, Default)]
struct Reapplied {
    /// Erased now, by an event of their own.
    erased: usize,
    /// Their event was there, and their keys too: emptied once more.
    emptied: usize,
    /// Erased already.
    already: usize,
    /// Not in this log.
    unknown: usize,
}

/// Erases again whom the lists, or the log itself, say to be erased since then; without a time, at any time: who is erased already is
/// left alone, and no clock is asked.
///
/// # Errors
/// If a list cannot be read, a person's key row is missing, or the database fails.
pub(crate) async fn reapply(
    since: Option<OffsetDateTime>,
    files: &[PathBuf],
    keyring: Arc<Keyring>,
    client: &Client,
    database: &Database,
) -> anyhow::Result<Output> {
    // In the order in which they were erased.
    let mut wanted: BTreeMap<(OffsetDateTime, Uuid), Uuid> = BTreeMap::new();
    for file in files {
        let kept = read(file)?.into_iter().map(|kept| kept.erasure);
        for erasure in kept.filter(|erasure| since.is_none_or(|since| erasure.erased_at >= since)) {
            wanted.insert((erasure.erased_at, erasure.person_id), erasure.tenant_id);
        }
    }
    let said = said_by_the_log(client, since).await?;
    wanted.extend(said.into_iter().map(|(at, tenant, person)| ((at, person), tenant)));

    let (store, task) = Store::open(database, keyring);
    let prospects = Executor::new(store, 0);
    let mut reapplied = Reapplied::default();
    let mut result = Ok(());
    let mut met = HashSet::new();
    for ((_, person), tenant) in wanted {
        // The list and the log may know of one person at different times.
        if !met.insert((tenant, person)) {
            continue;
        }
        result = one(client, &prospects, tenant, person, &mut reapplied).await;
        if result.is_err() {
            break;
        }
    }
    drop(prospects);
    task.finish().await;
    result?;
    let Reapplied { erased, emptied, already, unknown } = reapplied;
    Ok(Output::new(
        json!({"erased": erased, "emptied": emptied, "already": already, "unknown": unknown}),
        format!(
            "{erased} persons are erased again, {emptied} keys emptied again, {already} were erased already, {unknown} are not in this log\n"
        ),
    ))
}

async fn one(
    client: &Client,
    prospects: &Executor<Prospect>,
    tenant_id: Uuid,
    person: Uuid,
    reapplied: &mut Reapplied,
) -> anyhow::Result<()> {
    let request = Request {
        tenant_id,
        metadata: metadata(),
        receipt: None,
        if_match: None,
        deadline: Instant::now() + DEADLINE,
        patient: true,
    };
    let became = prospects.erase_again(client, person, EraseProspect::again(), &request).await;
    match became.with_context(|| format!("person {person}"))? {
        Forgotten::Erased => reapplied.erased += 1,
        Forgotten::Emptied => reapplied.emptied += 1,
        Forgotten::Already => reapplied.already += 1,
        Forgotten::Unknown => reapplied.unknown += 1,
    }
    Ok(())
}

/// Whom the log itself says to be erased since then.
async fn said_by_the_log(
    client: &Client,
    since: Option<OffsetDateTime>,
) -> anyhow::Result<Vec<(OffsetDateTime, Uuid, Uuid)>> {
    const SQL: &str = "-- cli::erasures::said_by_the_log
        SELECT e.recorded_at, e.tenant_id, e.aggregate_id FROM log.events AS e
        WHERE e.event_type = 'ProspectErased' AND ($1::timestamptz IS NULL /* since */ OR e.recorded_at >= $1)";
    let rows = client.query(SQL, &[&since]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

/// The lines of a list. What follows the last line break was never acknowledged.
fn read(path: &Path) -> anyhow::Result<Vec<KeptErasure>> {
    let what = || format!("the list of erasures {}", path.display());
    let mut lines = BufReader::new(std::fs::File::open(path).with_context(what)?);
    let mut kept = Vec::new();
    let mut line = String::new();
    while lines.read_line(&mut line).with_context(what)? > 0 && line.ends_with('\n') {
        let number = kept.len() + 1;
        kept.push(
            serde_json::from_str(&line)
                .with_context(|| format!("{}, line {number}: not a line of such a list", what()))?,
        );
        line.clear();
    }
    Ok(kept)
}

fn metadata() -> Metadata {
    let request_id = Uuid::now_v7().to_string();
    Metadata {
        actor: "operator".to_owned(),
        actor_role: "operator".to_owned(),
        correlation_id: request_id.clone(),
        causation_id: None,
        request_id,
        source: "erasures reapply".to_owned(),
        client_address: None,
    }
}

pub(crate) fn parse_time(text: &str) -> Result<OffsetDateTime, String> {
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    OffsetDateTime::parse(&whole, &Rfc3339)
        .map_err(|_| "give a time such as 2026-01-31T00:00:00Z, or a date such as 2026-01-31".to_owned())
}
