//! A company with 100,000 prospects changes its name: how long others' changes take meanwhile, from the answer of the command to the
//! row on the replica.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use service_kit::postgres::Database;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::client::{Connection, made};
use crate::clock::percentile_ms;
use crate::http::CONNECTIONS;
use crate::results::Results;
use crate::sample;
use crate::stack::BenchStack;

/// Prospects of the big company.
const PROSPECTS: u64 = 100_000;
/// Other companies, each with one prospect.
const OTHERS: u64 = 50;
/// Who changes them at the same time.
const CLIENTS: usize = 10;
/// Between two looks at the replica; what is found later for that reason counts as later.
const LOOK: Duration = Duration::from_millis(1);
/// How long a change may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// Numbers the names of all rounds, so that each is another one.
static NAME: AtomicU64 = AtomicU64::new(0);

/// Registers the companies, and measures so many rounds.
///
/// # Errors
/// If anything is refused, or does not come to the replica.
pub async fn run(stack: &BenchStack, rounds: u32, results: &mut Results) -> anyhow::Result<()> {
    eprintln!("beside a change of {PROSPECTS} rows");
    let companies = Companies::new(stack).await?;
    for _ in 0..rounds {
        companies.round(stack, results).await?;
    }
    Ok(())
}

/// The big company, and the others with the prospect of each.
struct Companies {
    big: Uuid,
    others: Vec<(Uuid, Uuid)>,
}

impl Companies {
    /// Registers them all, and waits until they are projected.
    async fn new(stack: &BenchStack) -> anyhow::Result<Self> {
        let mut connection = Connection::open(&stack.command, &stack.key).await?;
        let (big, _) = made(&connection.post("/v1/companies", sample::company(0).to_string()).await?)?;
        let mut others = Vec::new();
        for number in 0..OTHERS {
            let (company, _) = made(&connection.post("/v1/companies", sample::company(number).to_string()).await?)?;
            let prospect = json!({ "last_name": "Other", "company_id": company }).to_string();
            others.push((company, made(&connection.post("/v1/prospects", prospect).await?)?.0));
        }
        let body = json!({ "last_name": "One of many", "company_id": big }).to_string();
        let mut clients = JoinSet::new();
        for mut connection in Connection::open_many(&stack.command, &stack.key, CONNECTIONS).await? {
            let body = body.clone();
            clients.spawn(async move {
                for _ in 0..PROSPECTS.div_ceil(CONNECTIONS as u64) {
                    connection.post("/v1/prospects", body.clone()).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(client) = clients.join_next().await {
            client??;
        }
        let (_, position) = made(&connection.post("/v1/prospects", body).await?)?;
        Connection::open(&stack.query, &stack.key).await?.wait_for(position).await?;
        Ok(Self { big, others })
    }

    /// One change of the big company, and changes of others at the same time, until it has reached all of its rows.
    async fn round(&self, stack: &BenchStack, results: &mut Results) -> anyhow::Result<()> {
        const DONE: &str = "
            SELECT EXISTS (SELECT FROM read.checkpoints WHERE position >= $1)
                AND NOT EXISTS (SELECT FROM read.fanout WHERE company_id = $2)";
        let mut connection = Connection::open(&stack.command, &stack.key).await?;
        let replica = Database::parse(&stack.replica, "bench")?.client().await?;
        let tenant: Uuid =
            replica.query_one("SELECT tenant_id FROM access.tenants WHERE name = 'demo'", &[]).await?.get(0);
        let done = replica.prepare(DONE).await?;
        let (end, ended) = watch::channel(false);
        let started = Instant::now();
        let changed = rename(&mut connection, self.big).await?;
        let mut clients = JoinSet::new();
        for others in self.others.chunks(self.others.len().div_ceil(CLIENTS)) {
            let connection = Connection::open(&stack.command, &stack.key).await?;
            let replica = Database::parse(&stack.replica, "bench")?.client().await?;
            clients.spawn(change(connection, replica, tenant, others.to_vec(), ended.clone()));
        }
        while !replica.query_one(&done, &[&changed, &self.big]).await?.get::<_, bool>(0) {
            ensure!(started.elapsed() < PATIENCE, "the fan-out does not end");
            tokio::time::sleep(LOOK).await;
        }
        results.add("visible.fanout_all", "s", started.elapsed().as_secs_f64());
        end.send_replace(true);
        let mut took = Vec::new();
        while let Some(client) = clients.join_next().await {
            took.extend(client??);
        }
        results.add("visible.fanout_p99", "ms", percentile_ms(took, 99));
        Ok(())
    }
}

/// Changes companies, each after the one before is on the replica, until `ended`; gives how long each took. `others` holds companies
/// and the prospect of each.
async fn change(
    mut connection: Connection,
    replica: Client,
    tenant: Uuid,
    others: Vec<(Uuid, Uuid)>,
    ended: watch::Receiver<bool>,
) -> anyhow::Result<Vec<Duration>> {
    const SHOWN: &str = "SELECT position FROM read.company_prospect WHERE tenant_id = $1 AND row_id = $2";
    let shown = replica.prepare(SHOWN).await?;
    let mut took = Vec::new();
    for (company, row) in others.iter().cycle() {
        if *ended.borrow() {
            break;
        }
        let changed = rename(&mut connection, *company).await?;
        let answered = Instant::now();
        while replica.query_one(&shown, &[&tenant, row]).await?.get::<_, i64>(0) < changed {
            ensure!(answered.elapsed() < PATIENCE, "a change did not come to the replica");
            tokio::time::sleep(LOOK).await;
        }
        took.push(answered.elapsed());
    }
    Ok(took)
}

/// Gives a company another name; gives the change's position.
async fn rename(connection: &mut Connection, company: Uuid) -> anyhow::Result<i64> {
    let name = format!("Renamed {}", NAME.fetch_add(1, Ordering::Relaxed));
    let answer = connection.patch(&format!("/v1/companies/{company}"), json!({ "name": name }).to_string()).await?;
    Ok(made(&answer)?.1)
}
