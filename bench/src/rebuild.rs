//! A rebuild of a large projection, beside what the server needs for the finished rows alone, the incremental path over the same log, and
//! a replay by postgres-es.

mod fill;
mod limits;
mod replay;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use projector::projection::{Projection, STEP_EVENTS_MAX};
use projector::rebuild::Rebuilds;
use service_kit::shutdown::Shutdown;
use tokio_postgres::Client;

use crate::results::Results;
use crate::stack::BenchStack;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(3 * 3600);

/// Fills a log once and measures on it, once: each takes minutes.
///
/// # Errors
/// If anything is refused, or a rebuild gives other rows.
pub async fn run(stack: &BenchStack, prospects: u64, results: &mut Results) -> anyhow::Result<()> {
    let database = stack.fresh("rebuild").await?;
    let mut client = stack.superuser(&database).await?;
    let filled = fill::fill(&mut client, &stack.keyring, prospects).await?;
    eprintln!("  {} events, {} companies", filled.events, filled.companies);
    results.add("limit.read", "events/s", rate(filled.events, limits::read(&client).await?));

    let rebuilt = rebuild(stack, &database, &client).await?;
    let rows = count(&client, rebuilt.generation).await?;
    results.add("rebuild", "rows/s", rate(rows, rebuilt.took));
    results.add("rebuild.loaded", "rows/s", rate(rows, rebuilt.loaded_after));
    results.add("rebuild.memory", "MiB", rebuilt.peak_mib);

    // The generation that was live before has every index and no rows: the incremental path's.
    let went = incremental(stack, &database, &client).await?;
    results.add("project.incremental", "rows/s", rate(rows, went));

    let copied = limits::copy_index(&mut client, &stack.superuser(&database).await?, rebuilt.generation).await?;
    results.add("limit.copy_index", "rows/s", rate(rows, copied));
    let inserted = limits::indexed_insert(&mut client, rebuilt.generation).await?;
    results.add("limit.indexed_insert", "rows/s", rate(rows, inserted));
    results.add("replay.postgres_es", "rows/s", replay::postgres_es(stack, &database).await?);
    drop(client);
    stack.remove(&database).await
}

struct Rebuilt {
    generation: i32,
    took: Duration,
    /// Until rows and indexes were there.
    loaded_after: Duration,
    peak_mib: f64,
}

/// Has a rebuild carried out in this process, with the default memory.
async fn rebuild(stack: &BenchStack, database: &str, client: &Client) -> anyhow::Result<Rebuilt> {
    const ASK: &str = "-- bench::rebuild::rebuild, ask
        INSERT INTO read.rebuilds (projection, kind, memory_bytes, room_from)
        VALUES ('company_prospect', 'rebuild', 1 << 30, 'bench') RETURNING rebuild_id";
    const LOOK: &str = "-- bench::rebuild::rebuild
        SELECT r.outcome, r.error, r.differences, r.generation,
               extract(epoch FROM r.finished_at - r.requested_at)::float8,
               extract(epoch FROM g.loaded_at - r.requested_at)::float8, r.phase
        FROM read.rebuilds AS r LEFT JOIN read.generations AS g USING (projection, generation) WHERE r.rebuild_id = $1";
    let id: i64 = client.query_one(ASK, &[]).await?.get(0);
    std::fs::write("/proc/self/clear_refs", "5").context("forgetting the peak of memory")?;
    let (_trigger, shutdown) = Shutdown::new();
    let rebuilds = Rebuilds::new(stack.role(database, "prospectus_projector")?, Arc::clone(&stack.keyring));
    let running = tokio::spawn(rebuilds.run(shutdown));
    let started = Instant::now();
    let mut told = String::new();
    let row = loop {
        let row = client.query_one(LOOK, &[&id]).await?;
        let phase: String = row.get(6);
        if phase != told {
            eprintln!("    {phase} after {:.1} s", started.elapsed().as_secs_f64());
            told = phase;
        }
        if row.get::<_, Option<&str>>(0).is_some() {
            break row;
        }
        ensure!(started.elapsed() < PATIENCE, "the rebuild does not end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    running.abort();
    let outcome: Option<&str> = row.get(0);
    ensure!(
        outcome == Some("live") && row.get::<_, Option<i64>>(2) == Some(0),
        "{outcome:?}: {:?}",
        row.get::<_, Option<&str>>(1)
    );
    let seconds = |index: usize| Duration::from_secs_f64(row.get::<_, f64>(index));
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    let peak_mib = peak.context("no VmHWM")? / 1024.0;
    Ok(Rebuilt { generation: row.get(3), took: seconds(4), loaded_after: seconds(5), peak_mib })
}

/// Has the first generation, which is empty and has every index, catch up step by step.
async fn incremental(stack: &BenchStack, database: &str, client: &Client) -> anyhow::Result<Duration> {
    client
        .batch_execute("UPDATE read.live SET generation = previous_generation, previous_generation = generation")
        .await?;
    let mut projection =
        Projection::open(&stack.role(database, "prospectus_projector")?, Arc::clone(&stack.keyring)).await?;
    let began = Instant::now();
    while !projection.step(STEP_EVENTS_MAX).await?.idle() {
        ensure!(began.elapsed() < PATIENCE, "the catching up does not end");
    }
    Ok(began.elapsed())
}

async fn count(client: &Client, generation: i32) -> anyhow::Result<i64> {
    let schema = format!("read_{generation}");
    let sql = format!(
        "-- bench::rebuild::count
        SELECT (SELECT count(*) FROM {schema}.companies) + (SELECT count(*) FROM {schema}.company_prospect)"
    );
    Ok(client.query_one(&sql, &[]).await?.get(0))
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn rate(count: i64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
