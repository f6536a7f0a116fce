//! From the answer of a command to its row on the replica, at a quarter of full load with everything running.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use service_kit::postgres::Database;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use crate::client::{Connection, made};
use crate::clock::percentile_ms;
use crate::http::{CONNECTIONS, Prospects};
use crate::results::Results;
use crate::stack::BenchStack;

/// Between two looks at the replica; what is found later for that reason counts as later.
const LOOK: Duration = Duration::from_millis(1);
/// Answers that wait to be looked for.
const QUEUE: usize = 10_000;
/// How long the last rows may take before they count as lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// One round at a quarter of this round's `append.http`.
///
/// # Errors
/// If anything is refused, or a row does not come.
pub async fn round(stack: &BenchStack, length: Duration, results: &mut Results) -> anyhow::Result<()> {
    let full = results.last("append.http").context("`visible` needs the figure of `http` in the same run")?;
    let prospects = Prospects::new(stack).await?;
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let every = Duration::from_secs_f64(CONNECTIONS as f64 / (full / 4.0));
    let (answered, answers) = mpsc::channel(QUEUE);
    let watching = tokio::spawn(watch(stack.replica.clone(), answers));
    let until = Instant::now() + length;
    let mut clients = tokio::task::JoinSet::new();
    for (number, mut connection) in (0_u32..).zip(Connection::open_many(&stack.command, &stack.key, CONNECTIONS).await?)
    {
        let (prospects, answered) = (Arc::clone(&prospects), answered.clone());
        let first = Instant::now() + every * number / u32::try_from(CONNECTIONS)?;
        clients.spawn(async move {
            let mut ticks = tokio::time::interval_at(first.into(), every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while Instant::now() < until {
                ticks.tick().await;
                let answer = connection.post("/v1/prospects", prospects.body()).await?;
                answered.send((made(&answer)?.0, Instant::now())).await.context("nobody watches the replica")?;
            }
            anyhow::Ok(())
        });
    }
    drop(answered);
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let took = watching.await??;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    results.add("visible.load", "commands/s", took.len() as f64 / length.as_secs_f64());
    results.add("visible.p50", "ms", percentile_ms(took.clone(), 50));
    results.add("visible.p99", "ms", percentile_ms(took, 99));
    Ok(())
}

/// Looks for the rows of what was answered until all have come; gives how long each took.
async fn watch(replica: String, mut answers: mpsc::Receiver<(Uuid, Instant)>) -> anyhow::Result<Vec<Duration>> {
    let client = Database::parse(&replica, "bench")?.client().await?;
    let look = client
        .prepare("SELECT prospect_id FROM read.company_prospect WHERE tenant_id = $1 AND row_id = ANY($2)")
        .await?;
    let tenant: Uuid = client.query_one("SELECT tenant_id FROM access.tenants WHERE name = 'demo'", &[]).await?.get(0);
    let mut waiting: HashMap<Uuid, Instant> = HashMap::new();
    let mut took = Vec::new();
    let mut last = Instant::now();
    loop {
        if waiting.is_empty() {
            let Some((id, at)) = answers.recv().await else { return Ok(took) };
            waiting.insert(id, at);
        }
        while let Ok((id, at)) = answers.try_recv() {
            waiting.insert(id, at);
        }
        let ids: Vec<&Uuid> = waiting.keys().collect();
        let rows = client.query(&look, &[&tenant, &ids]).await?;
        let now = Instant::now();
        for row in rows {
            took.extend(waiting.remove(&row.get(0)).map(|at| now - at));
            last = now;
        }
        anyhow::ensure!(now - last < PATIENCE, "{} rows did not come to the replica", waiting.len());
        tokio::time::sleep(LOOK).await;
    }
}
