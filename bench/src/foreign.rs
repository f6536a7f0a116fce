//! I10 as a figure: a foreign transaction keeps its snapshot for minutes, and appending at the end is as fast as at the start.

use std::time::{Duration, Instant};

use event_store::Store;

use crate::append;
use crate::results::Results;
use crate::sample;
use crate::stack::BenchStack;

/// Appends a second between start and end: enough to make dead rows pile up where there are any, and to fit on a small disk.
const BETWEEN: u32 = 4_000;
/// Appends between two looks at the clock.
const BURST: u32 = 40;

/// Opens the snapshot, appends at full speed for `length`, at a steady rate until `total` is over, and at full speed again.
///
/// # Errors
/// If anything is refused.
pub async fn run(stack: &BenchStack, length: Duration, total: Duration, results: &mut Results) -> anyhow::Result<()> {
    let database = stack.fresh("foreign").await?;
    let foreign = stack.superuser(&database).await?;
    foreign.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM log.claims").await?;
    let opened = Instant::now();
    let (store, task) = Store::open(&stack.appender(&database)?, stack.keyring.clone());
    results.add("append.foreign_start", "events/s", append::library(&store, length, true).await?);
    let until = opened + total.saturating_sub(length);
    let (payload, metadata) = append::texts()?;
    let mut next = Instant::now();
    while next < until {
        let burst = (0..BURST).map(|_| store.appender().append(sample::append(&payload, &metadata, true)));
        futures_util::future::try_join_all(burst).await?;
        next += Duration::from_secs(1) * BURST / BETWEEN;
        tokio::time::sleep_until(next.into()).await;
    }
    results.add("append.foreign_end", "events/s", append::library(&store, length, true).await?);
    foreign.batch_execute("COMMIT").await?;
    task.finish().await;
    stack.remove(&database).await
}
