//! `prospectus status`: what lags, what is stuck and what is lost, at a glance.
//!
//! Lag alone is not trouble: a projection that catches up lags. Stuck is what has something to do and has done nothing for a while, by
//! what it leaves behind: a checkpoint, a signed head, a message. A replica leaves nothing, so two looks tell. What cannot be reached
//! counts as stuck too. Lost is what speaks of events that the log does not hold, and a slot whose write-ahead log is gone.

mod follower;
mod log;
mod performance;
mod projections;
mod relay;
mod replicas;
mod sealer;
mod server;

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};
use service_kit::config::Secret;
use tokio_postgres::Client;

use crate::output::{Output, table};
use crate::primary::Primary;
use follower::Follower;
use performance::Performance;
use server::Server;

/// Shows the log and what follows it, the server and the last backup. Exit code 1 if something is stuck or lost.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  prospectus status\n  prospectus status --performance\n  prospectus status --json | jq .stuck"
)]
pub struct Args {
    /// Replicas to ask, comma-separated; those that stream from the primary are shown anyway.
    #[arg(long, env = "PROSPECTUS_REPLICA_URLS", hide_env_values = true, value_delimiter = ',')]
    replica_urls: Vec<Secret>,
    /// NATS, where the relay publishes.
    #[arg(long, env = "PROSPECTUS_NATS_URL", hide_env_values = true)]
    nats_url: Option<Secret>,
    /// What has done nothing for so many seconds although something waits is stuck.
    #[arg(long, env = "PROSPECTUS_STUCK_AFTER_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    stuck_after_seconds: u64,
    /// Time between two looks, where one does not tell, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    between_ms: u64,
    /// Shows slow statements, tables and indexes too.
    #[arg(long)]
    performance: bool,
}

/// Everything that follows the log, at one moment.
struct Look {
    log: log::Head,
    projections: Vec<Follower>,
    rebuilds: Vec<Value>,
    replicas: Vec<Follower>,
    relay: Option<Follower>,
    sealer: Option<Follower>,
}

/// Runs the command.
///
/// # Errors
/// If the primary cannot be asked; everything else is part of the answer.
pub async fn run(args: &Args, primary: &Primary) -> anyhow::Result<Output> {
    let client = primary.connect_migrated().await?;
    let stuck_after = Duration::from_secs(args.stuck_after_seconds);
    let first = look(&client, args, stuck_after).await?;
    let two_looks =
        first.followers().any(|one| one.state.is_none() && one.idle_seconds.is_none() && one.may_be_stuck(stuck_after));
    let (now, before) = if two_looks {
        tokio::time::sleep(Duration::from_millis(args.between_ms)).await;
        (look(&client, args, stuck_after).await?, Some(first))
    } else {
        (first, None)
    };
    let then = |name: &str| before.as_ref().and_then(|before| before.followers().find(|one| one.name == name));
    let stuck = now.followers().filter(|one| one.is_stuck(then(&one.name), stuck_after));
    let stuck: Vec<String> = stuck.map(|one| one.name.clone()).collect();
    let server = server::look(&client, stuck_after).await?;
    let mut lost: Vec<String> =
        now.followers().filter(|one| one.is_ahead()).map(|one| format!("events that {} has", one.name)).collect();
    lost.extend(server.lost());
    let standbys = replicas::streaming(&client).await?;
    let performance = if args.performance { Some(performance::look(&client).await?) } else { None };
    Ok(output(&now, &standbys, &server, performance.as_ref(), &stuck, &lost))
}

async fn look(client: &Client, args: &Args, stuck_after: Duration) -> anyhow::Result<Look> {
    // Followers before the head, so that a lag is never below zero by accident of the order.
    let relay = match &args.nats_url {
        Some(url) => Some(relay::look(client, url).await?),
        None => None,
    };
    let sealer = sealer::look(client).await?;
    let replicas = replicas::look(client, &args.replica_urls).await?;
    let projections = projections::look(client, stuck_after).await?;
    let rebuilds = projections::rebuilds(client).await?;
    Ok(Look { log: log::head(client).await?, projections, rebuilds, replicas, relay, sealer })
}

impl Look {
    fn followers(&self) -> impl Iterator<Item = &Follower> {
        self.projections.iter().chain(&self.replicas).chain(&self.relay).chain(&self.sealer)
    }
}

fn output(
    now: &Look,
    standbys: &[Value],
    server: &Server,
    performance: Option<&Performance>,
    stuck: &[String],
    lost: &[String],
) -> Output {
    let followers = |followers: &[Follower]| followers.iter().map(|one| one.to_json(stuck)).collect::<Vec<_>>();
    let one = |follower: Option<&Follower>| follower.map(|one| one.to_json(stuck));
    let mut json = json!({
        "log": now.log.to_json(),
        "projections": followers(&now.projections),
        "rebuilds": now.rebuilds,
        "replicas": followers(&now.replicas),
        "standbys": standbys,
        "relay": one(now.relay.as_ref()),
        "sealer": one(now.sealer.as_ref()),
        "performance": performance.map(Performance::to_json),
        "stuck": stuck,
        "lost": lost,
    });
    if let (Some(json), Value::Object(server)) = (json.as_object_mut(), server.to_json()) {
        json.extend(server);
    }
    let mut text = format!("{}\n\n", now.log.to_text());
    let rows: Vec<Vec<Value>> = now.followers().map(|follower| follower.to_row(stuck)).collect();
    text.push_str(&table(&["what", "position", "lag events", "lag s", "events/s", "state"], &rows));
    text.push('\n');
    text.extend(now.rebuilds.iter().filter_map(projections::rebuild_line));
    if now.relay.is_none() {
        text.push_str("relay: not asked (PROSPECTUS_NATS_URL is not set)\n");
    }
    if now.sealer.is_none() {
        text.push_str("sealer: nothing was ever sealed, and no sealer is connected\n");
    }
    for standby in standbys {
        let _ = writeln!(
            text,
            "standby {}: {}, {} bytes and {:.1} s behind",
            standby["name"].as_str().unwrap_or_default(),
            standby["state"].as_str().unwrap_or_default(),
            standby["replay_lag_bytes"],
            standby["replay_lag_seconds"].as_f64().unwrap_or(0.0),
        );
    }
    text.push_str(&server.to_text());
    if let Some(performance) = performance {
        text.push_str(&performance.to_text());
    }
    text.push_str(&verdict(now, stuck, lost));
    Output { json, text, well: stuck.is_empty() && lost.is_empty() }
}

/// What is wrong, and what to do about it.
fn verdict(now: &Look, stuck: &[String], lost: &[String]) -> String {
    let mut text = String::new();
    for projection in &now.projections {
        let error = &projection.more["last_error"];
        if error["stands"] == true && projection.state == Some("stuck") {
            let _ = writeln!(
                text,
                "\n{} HAS STOPPED at the event at position {} since {}: {}\n  → mend what keeps it from being applied, or leave the event out: \
                 prospectus projection skip --projection {} --position {} --reason …",
                projection.name,
                error["position"],
                error["at"].as_str().unwrap_or_default(),
                error["error"].as_str().or(error["reason"].as_str()).unwrap_or_default(),
                projection.more["projection"].as_str().unwrap_or_default(),
                error["position"],
            );
        }
    }
    if !lost.is_empty() {
        let _ = writeln!(text, "\nLOST: {}. docs/operating.md says what to do.", lost.join(", "));
    }
    if !stuck.is_empty() {
        let _ = writeln!(text, "\nSTUCK: {}. Its own log and /readyz say why.", stuck.join(", "));
    } else if lost.is_empty() {
        text.push_str("\nnothing is stuck\n");
    }
    text
}
