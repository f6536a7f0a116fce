//! Records by id over HTTP, beside pgbench's prepared select of the same rows on the same replica.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use service_kit::postgres::Database;
use tokio::process::Command;
use uuid::Uuid;

use crate::client::{Connection, made};
use crate::clock::rate;
use crate::http::Prospects;
use crate::results::Results;
use crate::stack::BenchStack;

/// Connections of both.
const CONNECTIONS: usize = 32;
/// Records that are read, in turn; pgbench takes a script for each.
const RECORDS: usize = 64;

/// One round.
///
/// # Errors
/// If anything is refused.
pub async fn round(stack: &BenchStack, length: Duration, results: &mut Results) -> anyhow::Result<()> {
    let prospects = Prospects::new(stack).await?;
    let mut connection = Connection::open(&stack.command, &stack.key).await?;
    let mut ids = Vec::new();
    let mut newest = 0;
    for _ in 0..RECORDS {
        let (id, position) = made(&connection.post("/v1/prospects", prospects.body()).await?)?;
        ids.push(id);
        newest = position;
    }
    Connection::open(&stack.query, &stack.key).await?.wait_for(newest).await?;
    results.add("limit.select", "reads/s", pgbench(stack, &ids, length).await?);
    let ids = Arc::new(ids);
    let connections = Connection::open_many(&stack.query, &stack.key, CONNECTIONS).await?;
    let ours = rate(connections, length, |mut connection, mut turns| {
        let ids = Arc::clone(&ids);
        async move {
            let mut ids = ids.iter().cycle();
            while turns.next() {
                let id = ids.next().context("a cycle does not end")?;
                connection.get(&format!("/v1/prospects/{id}")).await?;
            }
            Ok(turns)
        }
    })
    .await?;
    results.add("read.http", "reads/s", ours);
    Ok(())
}

async fn pgbench(stack: &BenchStack, ids: &[Uuid], length: Duration) -> anyhow::Result<f64> {
    let client = Database::parse(&stack.replica, "bench")?.client().await?;
    let tenant: Uuid = client.query_one("SELECT tenant_id FROM access.tenants WHERE name = 'demo'", &[]).await?.get(0);
    // The view under the fixed name leads to the live generation; the query service names the table, and so does this.
    let schema: String = client
        .query_one("SELECT 'read_' || generation FROM read.live WHERE projection = 'company_prospect'", &[])
        .await?
        .get(0);
    let binaries: String = client.query_one("SELECT setting FROM pg_config WHERE name = 'BINDIR'", &[]).await?.get(0);
    let directory = scratch_directory()?;
    let mut command = Command::new(std::path::Path::new(&binaries).join("pgbench"));
    command.args(["--no-vacuum", "--protocol=prepared", "--jobs=2"]);
    // Its first part prepares the statements and does not count, as ours has a warm-up.
    let part = length.as_secs().div_ceil(5).max(1);
    command.arg(format!("--client={CONNECTIONS}")).arg(format!("--time={}", length.as_secs() + part));
    command.arg(format!("--progress={part}"));
    for (number, id) in (1..).zip(ids) {
        let script = directory.join(format!("{number}.sql"));
        let mut file = std::fs::File::create(&script)?;
        writeln!(file, "SELECT * FROM {schema}.company_prospect WHERE tenant_id = '{tenant}' AND row_id = '{id}';")?;
        command.arg("--file").arg(script);
    }
    let output = command.arg(&stack.replica).output().await.context("pgbench cannot be run")?;
    std::fs::remove_dir_all(&directory)?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pgbench: {text}");
    // progress: 2.0 s, 24513.4 tps, lat 1.304 ms stddev 0.5, 0 failed
    let rates = text.lines().filter_map(|line| line.strip_prefix("progress: ")?.split(' ').nth(2)?.parse().ok());
    let rates: Vec<f64> = rates.skip(1).collect();
    ensure!(!rates.is_empty(), "pgbench printed no rate: {text}");
    Ok(mean(&rates))
}

#[expect(clippy::cast_precision_loss, reason = "a handful of rates")]
fn mean(rates: &[f64]) -> f64 {
    rates.iter().sum::<f64>() / rates.len() as f64
}

fn scratch_directory() -> anyhow::Result<std::path::PathBuf> {
    let directory = std::env::temp_dir().join(format!("prospectus-bench-{}", Uuid::new_v4().simple()));
    std::fs::create_dir(&directory)?;
    Ok(directory)
}
