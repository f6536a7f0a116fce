//! `prospectus integrity`: the report that requirements 000 and 003 ask for after a migration, and that holds at any time.
//!
//! Everything is read in one snapshot of the primary, which holds log, claims and read tables: the log and the claims at the log's
//! head, the read tables at the position that the projection has reached. Records that changed in between are compared with their
//! claims and not with their rows. Memory is bounded by the largest record; big sorts are the server's.

mod findings;
mod links;
mod pages;
mod records;

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::Context;
use event_store::Keyring;
use migrations::COMPANY_PROSPECT;
use serde_json::{Value, json};
use service_kit::config::{KeyringArgs, KeyringArgsError};
use tokio_postgres::{Client, IsolationLevel, Transaction};
use uuid::Uuid;

use crate::output::{Output, table};
use crate::primary::{Primary, tenant_id};
use findings::Findings;
use links::Links;
use records::Counts;

/// How often the projection is looked at while it catches up.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Checks every link, domain and claim, and that nothing is missing, left over or there twice. Exit code 1 if anything is off.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  prospectus integrity\n  prospectus integrity --tenant acme --json | jq '.findings[] | select(.count > 0)'"
)]
pub struct Args {
    /// Only this tenant's records; all without it.
    #[arg(long)]
    tenant: Option<String>,
    /// How long to wait until the projection has caught up with the log, in seconds.
    #[arg(long, default_value_t = 10)]
    wait: u64,
    #[command(flatten)]
    keyring: KeyringArgs,
}

/// One moment of the whole database.
struct Snapshot<'a> {
    transaction: &'a Transaction<'a>,
    tenant: Option<Uuid>,
    generation: i32,
    /// Schema of the live generation.
    schema: String,
    epoch: Option<String>,
    /// The log's head.
    head: i64,
    /// Every event up to here is applied to the read tables.
    projected: i64,
    /// Companies whose change has not reached all rows.
    queued: i64,
}

impl Snapshot<'_> {
    /// The condition that keeps a statement to the tenant that is asked for.
    fn only(&self, alias: &str) -> String {
        links::only(self.tenant, alias)
    }
}

/// Runs the command.
///
/// # Errors
/// If the database fails, there is no such tenant, or the keys are not this log's.
pub async fn run(args: &Args, primary: &Primary) -> anyhow::Result<Output> {
    let mut client = primary.connect_migrated().await?;
    let tenant = match &args.tenant {
        Some(name) => Some(tenant_id(&client, name).await?),
        None => None,
    };
    let keyring = keyring(&args.keyring, &client).await?;
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    loop {
        let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let transaction = builder.start().await?;
        let snapshot = snapshot(&transaction, tenant).await?;
        if (snapshot.projected < snapshot.head || snapshot.queued > 0) && Instant::now() < deadline {
            transaction.rollback().await?;
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        let mut findings = Findings::default();
        let links = links::check(&snapshot, &mut findings).await?;
        let counts = records::compare(&snapshot, keyring.as_ref(), &mut findings).await?;
        return Ok(output(args, &snapshot, keyring.is_some(), &links, &counts, &findings));
    }
}

/// The keys, if there are any; without them, personal claims are counted and not compared.
async fn keyring(args: &KeyringArgs, client: &Client) -> anyhow::Result<Option<Keyring>> {
    let text = match args.text() {
        Ok(text) => text,
        Err(KeyringArgsError::Missing) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let keyring = Keyring::parse(text.expose())?;
    keyring.verify(client, false).await.context("the key file")?;
    Ok(Some(keyring))
}

async fn snapshot<'a>(transaction: &'a Transaction<'a>, tenant: Option<Uuid>) -> anyhow::Result<Snapshot<'a>> {
    const SQL: &str = "-- cli::integrity::snapshot
        SELECT l.generation, c.position, h.position, h.epoch,
               (SELECT count(*) FROM read.fanout AS f WHERE f.projection = l.projection AND f.generation = l.generation)
        FROM log.head AS h, read.live AS l JOIN read.checkpoints AS c USING (projection, generation)
        WHERE l.projection = $1 /* projection */";
    let row = transaction.query_one(SQL, &[&COMPANY_PROSPECT]).await.context("where log and projection are")?;
    let generation = row.get(0);
    Ok(Snapshot {
        transaction,
        tenant,
        generation,
        schema: migrations::schema_name(generation),
        projected: row.get(1),
        head: row.get(2),
        epoch: row.get(3),
        queued: row.get(4),
    })
}

fn output(
    args: &Args,
    snapshot: &Snapshot<'_>,
    opened: bool,
    links: &Links,
    counts: &Counts,
    findings: &Findings,
) -> Output {
    let found = findings.to_json();
    let json = json!({
        "well": findings.is_empty(), "tenant": args.tenant, "position": snapshot.head, "epoch": snapshot.epoch,
        "projected_position": snapshot.projected, "queued_companies": snapshot.queued, "personal_claims_opened": opened,
        "counts": counts.to_json(), "links": links, "findings": found,
    });
    let mut text = format!(
        "log at position {}, read tables at {}: {}\n\n",
        snapshot.head,
        snapshot.projected,
        args.tenant.as_ref().map_or_else(|| "all tenants".to_owned(), |tenant| format!("tenant {tenant}")),
    );
    text.push_str(&table(&["what", "log", "read tables", "claims"], &counts.to_rows()));
    text.push('\n');
    let of = |kind: &str| links.get(kind).copied().unwrap_or(0);
    let rows: Vec<Vec<Value>> = [
        ("live", "a live company"),
        ("merged", "a live company, through a merged one"),
        ("deleted", "a deleted company: in review"),
        ("none", "no company: in review"),
        ("missing", "a company that does not exist"),
    ]
    .into_iter()
    .map(|(kind, said)| vec![said.into(), of(kind).into()])
    .collect();
    text.push_str(&table(&["prospects that lead to", "count"], &rows));
    text.push('\n');
    let rows: Vec<Vec<Value>> = found.iter().map(|one| vec![one["what"].clone(), one["count"].clone()]).collect();
    text.push_str(&table(&["looked for", "found"], &rows));
    if !opened {
        text.push_str("\nclaims of prospects were counted, not compared: PROSPECTUS_KEYRING_FILE is not set\n");
    }
    for one in found.iter().filter(|one| one["count"] != 0) {
        let (code, what) = (one["code"].as_str().unwrap_or_default(), one["what"].as_str().unwrap_or_default());
        let _ = writeln!(text, "\nOFF: {code}, {}: {what}", one["count"]);
        for about in one["first"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let _ = writeln!(text, "  {about}");
        }
        let _ = writeln!(text, "  → {}", one["todo"].as_str().unwrap_or_default());
    }
    if findings.is_empty() {
        text.push_str("\neverything is as it should be\n");
    }
    Output { json, text, well: findings.is_empty() }
}
