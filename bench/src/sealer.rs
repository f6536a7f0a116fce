//! What the sealer costs: appends and imports without it and with it, in turns, on the same stack.

use std::time::{Duration, Instant};

use event_store::Store;
use event_store::feed::Feed;
use event_store::proof::SealKeys;
use event_store::proof::sealing::Sealing;
use service_kit::postgres::Database;
use time::OffsetDateTime;

use crate::http::{self, Prospects};
use crate::import::{self, ListFile};
use crate::results::Results;
use crate::stack::BenchStack;
use crate::{append, audit};

/// How often the command service's sealer looks at the log.
const LOOK: Duration = Duration::from_millis(200);
/// How long the sealer may take for what has come while it was stopped.
const PATIENCE: Duration = Duration::from_secs(120);
/// Lines of each list: a million would take long and show no more.
const LINES_MAX: u64 = 100_000;

/// All of it, so often; every other round the other way round, because tables only grow.
///
/// # Errors
/// If anything is refused.
pub async fn run(
    stack: &BenchStack,
    length: Duration,
    rounds: u32,
    lines: u64,
    results: &mut Results,
) -> anyhow::Result<()> {
    for round in 1..=rounds {
        for sealed in [round % 2 == 0, round % 2 == 1] {
            library(stack, length, sealed, results).await?;
        }
    }
    stack.order("stop", "projector").await?;
    stack.order("stop", "relay").await?;
    let prospects = Prospects::new(stack).await?;
    for round in 1..=rounds {
        for sealed in [round % 2 == 0, round % 2 == 1] {
            stack.order(if sealed { "start" } else { "stop" }, "sealer").await?;
            if sealed {
                sealed_all(stack).await?;
            }
            let before = heads(stack).await?.0;
            let rate = http::full(stack, length, &prospects).await?;
            results.add(figure(sealed, "sealed.append_http", "unsealed.append_http"), "commands/s", rate);
            if sealed {
                let gap = greatest_gap(stack, before).await?;
                results.add("sealed.head_gap", "ms", gap);
            }
            // Another list each time, so that each makes as much.
            let seed = 100 + 2 * u64::from(round) + u64::from(sealed);
            let list = ListFile::write(seed, lines.min(LINES_MAX))?;
            let rate = import::import(stack, &list).await?.rate();
            results.add(figure(sealed, "sealed.import", "unsealed.import"), "rows/s", rate);
        }
    }
    stack.order("start", "sealer").await?;
    stack.order("start", "relay").await?;
    stack.order("start", "projector").await
}

fn figure(sealed: bool, with: &'static str, without: &'static str) -> &'static str {
    if sealed { with } else { without }
}

/// The number of the newest head, how many events it covers, and how many there are.
async fn heads(stack: &BenchStack) -> anyhow::Result<(i64, i64, i64)> {
    const SQL: &str = "-- bench::sealer::heads
        SELECT coalesce(max(h.number), 0), coalesce(max(h.tree_size), 0), (SELECT position FROM log.head)
        FROM log.tree_heads AS h";
    let row = stack.superuser("prospectus").await?.query_one(SQL, &[]).await?;
    Ok((row.get(0), row.get(1), row.get(2)))
}

/// Waits until the sealer has done what came while it was stopped: a head over as much as it may cover takes longer than one of every day.
async fn sealed_all(stack: &BenchStack) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let (_, sealed, all) = heads(stack).await?;
        if sealed == all {
            return Ok(());
        }
        anyhow::ensure!(started.elapsed() < PATIENCE, "the sealer has sealed {sealed} of {all} events");
        tokio::time::sleep(LOOK).await;
    }
}

/// The longest time from one head to the next of those after a number, in milliseconds, while events came all the time.
async fn greatest_gap(stack: &BenchStack, after: i64) -> anyhow::Result<f64> {
    const SQL: &str = "-- bench::sealer::greatest_gap
        SELECT count(*), extract(epoch FROM max(h.gap))::float8 * 1000 FROM (
            SELECT signed_at - lag(signed_at) OVER (ORDER BY number) AS gap FROM log.tree_heads WHERE number > $1
        ) AS h";
    let (_, sealed, all) = heads(stack).await?;
    // What came in the last second or two may still wait; a sealer that falls behind is far from it.
    anyhow::ensure!(all - sealed < all / 4 + 50_000, "the sealer has sealed {sealed} of {all} events");
    let row = stack.superuser("prospectus").await?.query_one(SQL, &[&after]).await?;
    anyhow::ensure!(row.get::<_, i64>(0) >= 3, "too few heads were signed meanwhile");
    Ok(row.get(1))
}

/// Appends through the event store to an empty log, sealed meanwhile or not.
async fn library(stack: &BenchStack, length: Duration, sealed: bool, results: &mut Results) -> anyhow::Result<()> {
    let database = stack.fresh("sealer").await?;
    let (store, task) = Store::open(&stack.appender(&database)?, stack.keyring.clone());
    let url = stack.url(&database);
    let beside = sealed.then(|| tokio::spawn(async move { seal(&url).await }));
    let rate = append::library(&store, length, false).await?;
    results.add(figure(sealed, "sealed.append_library", "unsealed.append_library"), "events/s", rate);
    if let Some(beside) = beside {
        beside.abort();
        // It has no end of its own: whatever it ended with is why.
        if let Ok(ended) = beside.await {
            ended?;
        }
    }
    task.finish().await;
    stack.remove(&database).await
}

/// What the command service's sealer does, but for the lock and the publishing; ends with an error only.
async fn seal(url: &str) -> anyhow::Result<()> {
    let keys = SealKeys::parse(audit::SEAL_KEY)?;
    let mut looks = tokio::time::interval(LOOK);
    let database = Database::parse(url, "bench")?;
    let feed = Feed::open(&database).await?;
    // A log has a name with its first event.
    while feed.head().await.map_or(0, |head| head.position) == 0 {
        looks.tick().await;
    }
    let (mut sealing, _) = Sealing::resume(&feed, &keys, None).await?;
    loop {
        looks.tick().await;
        let head = feed.head().await?.position;
        while sealing.seal(&feed, &keys, head, OffsetDateTime::now_utc()).await?.is_some() {}
    }
}
