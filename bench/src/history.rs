//! A record's history at the server, and the whole feed as a stream.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::client::{Connection, made};
use crate::clock::median_ms;
use crate::results::Results;
use crate::sample;
use crate::stack::BenchStack;

/// Events of a company whose history is read.
const EVENTS: u64 = 1_000;
/// Events that the feed has at least.
const FEED_EVENTS: u64 = 100_000;
/// Commands of one request while the feed is filled.
const LINES: u64 = 2_000;
/// What is changed of a company, by the number of the change.
type Change = fn(u64) -> Value;
/// The route, as the service's figures call it.
const ROUTE: &str = "/v1/companies/{id}/history";

/// Measures the history of a company that changed as companies do, of one whose description alone was written anew each time, and the
/// feed.
///
/// # Errors
/// If anything is refused.
pub async fn run(stack: &BenchStack, length: Duration, results: &mut Results) -> anyhow::Result<()> {
    let mut reads = Connection::open(&stack.query, &stack.key).await?;
    let sorts: [(&str, Change); 2] = [
        ("history.1000_events", sample::change),
        ("history.1000_descriptions", |number| json!({ "short_description": sample::description(number) })),
    ];
    for (name, change) in sorts {
        // The services close connections that are idle for as long as a history is read.
        let mut commands = Connection::open(&stack.command, &stack.key).await?;
        let (id, mut position) = made(&commands.post("/v1/companies", sample::company(0).to_string()).await?)?;
        for number in 1..EVENTS {
            position = made(&commands.patch(&format!("/v1/companies/{id}"), change(number).to_string()).await?)?.1;
        }
        reads.wait_for(position).await?;
        let path = format!("/v1/companies/{id}/history?limit={EVENTS}");
        let page: Value = serde_json::from_slice(&reads.get(&path).await?)?;
        let items = page["items"].as_array().map_or(0, Vec::len);
        ensure!(u64::try_from(items)? == EVENTS, "the history has {items} events");
        let before = served(stack).await?;
        let at_client = median_ms(length, Duration::ZERO, async || reads.get(&path).await.map(drop)).await?;
        let after = served(stack).await?;
        ensure!(after.1 > before.1, "the service has counted no history");
        results.add(name, "ms", (after.0 - before.0) / (after.1 - before.1) * 1_000.0);
        if name == "history.1000_events" {
            results.add("history.1000_events_client", "ms", at_client);
        }
    }

    let mut commands = Connection::open(&stack.command, &stack.key).await?;
    let mut events = reads.count_lines("/v1/events").await?;
    let mut number = 0;
    while events < FEED_EVENTS {
        let lines = (0..LINES).map(|_| {
            number += 1;
            json!({"method": "POST", "path": "/v1/companies", "body": sample::company(number)}).to_string()
        });
        let lines = lines.collect::<Vec<_>>().join("\n");
        commands.batch(lines).await?;
        events += LINES;
    }
    let head = commands.post("/v1/companies", sample::company(0).to_string()).await?;
    let mut reads = Connection::open(&stack.query, &stack.key).await?;
    reads.wait_for(made(&head)?.1).await?;
    let resident = stack.resident_mib("query_service")?;
    stack.forget_peak("query_service")?;
    let started = Instant::now();
    let lines = reads.count_lines("/v1/events").await?;
    ensure!(lines >= FEED_EVENTS, "the feed has {lines} events");
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    results.add("history.feed", "events/s", lines as f64 / started.elapsed().as_secs_f64());
    results.add("history.feed_memory", "MiB", (stack.peak_mib("query_service")? - resident).max(0.0));
    Ok(())
}

/// Seconds that the service has spent on histories, and how many there were.
async fn served(stack: &BenchStack) -> anyhow::Result<(f64, f64)> {
    let figures = Connection::open(&stack.query, &stack.key).await?.get("/metrics").await?;
    let figures = String::from_utf8(figures.to_vec())?;
    let figure = |name: &str| -> anyhow::Result<f64> {
        let mut lines = figures.lines().filter(|line| line.starts_with(name) && line.contains(ROUTE));
        let line = lines.next().with_context(|| format!("no {name} of {ROUTE}"))?;
        Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
    };
    Ok((figure("http_request_duration_seconds_sum")?, figure("http_request_duration_seconds_count")?))
}
