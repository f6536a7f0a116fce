//! `prospectus status`: what lags and what is stuck, at a glance.
//!
//! Lag alone is not trouble: a projection that catches up lags. Stuck is what has something to do and did nothing between two looks
//! although it has been waiting for a while; what cannot be reached counts as stuck too.

mod log;
mod relay;
mod replicas;

use std::fmt::Write;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use service_kit::config::Secret;
use tokio_postgres::Client;

use crate::output::{Output, table};
use crate::primary::Primary;

/// What has waited less than this long cannot be stuck, in seconds.
const PATIENCE_SECONDS: f64 = 5.0;

/// Shows the log, the projections, the replicas, the relay and the connections. Exit code 1 if something is stuck.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  prospectus status\n  prospectus status --json | jq .stuck")]
pub struct Args {
    /// Replicas to ask, comma-separated; those that stream from the primary are shown anyway.
    #[arg(long, env = "PROSPECTUS_REPLICA_URLS", hide_env_values = true, value_delimiter = ',')]
    replica_urls: Vec<Secret>,
    /// NATS, where the relay publishes.
    #[arg(long, env = "PROSPECTUS_NATS_URL", hide_env_values = true)]
    nats_url: Option<Secret>,
    /// Time between the two looks, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    between_ms: u64,
}

/// One thing that follows the log: how far it is, and since when the next event waits for it.
#[derive(Debug, Clone, PartialEq)]
struct Follower {
    /// What it is called in the list of what is stuck.
    name: String,
    /// Every event up to here is done; nothing where it cannot be told, and why.
    position: Result<i64, String>,
    /// Events that it has not done.
    lag_events: i64,
    /// How long the oldest of them has been in the log.
    lag_seconds: f64,
    /// What else is to be shown.
    more: Value,
}

/// Everything at one moment.
struct Look {
    log: log::Head,
    projections: Vec<Follower>,
    replicas: Vec<Follower>,
    relay: Option<Follower>,
}

/// Runs the command.
///
/// # Errors
/// If the primary cannot be asked; everything else is part of the answer.
pub async fn run(args: &Args, primary: &Primary) -> anyhow::Result<Output> {
    let client = primary.connect_migrated().await?;
    let first = look(&client, args).await?;
    let waiting = first.followers().any(Follower::is_waiting);
    let (now, stuck) = if waiting {
        tokio::time::sleep(Duration::from_millis(args.between_ms)).await;
        let second = look(&client, args).await?;
        let stuck = stuck(&first, &second);
        (second, stuck)
    } else {
        let stuck = stuck(&first, &first);
        (first, stuck)
    };
    let connections = connections(&client).await?;
    let standbys = replicas::streaming(&client).await?;
    Ok(output(&now, &standbys, &connections, &stuck))
}

async fn look(client: &Client, args: &Args) -> anyhow::Result<Look> {
    // Followers before the head, so that a lag is never below zero by accident of the order.
    let relay = match &args.nats_url {
        Some(url) => Some(relay::look(client, url).await?),
        None => None,
    };
    let replicas = replicas::look(client, &args.replica_urls).await?;
    let projections = log::projections(client).await?;
    Ok(Look { log: log::head(client).await?, projections, replicas, relay })
}

impl Look {
    fn followers(&self) -> impl Iterator<Item = &Follower> {
        self.projections.iter().chain(&self.replicas).chain(&self.relay)
    }
}

impl Follower {
    /// A follower that is at `position`, in the log that `client` is connected to.
    async fn at(client: &Client, name: String, position: i64, more: Value) -> anyhow::Result<Self> {
        const SQL: &str = "-- cli::status::follower_at
            SELECT (SELECT h.position FROM log.head AS h) - $1 /* position */,
                   coalesce((SELECT extract(epoch FROM clock_timestamp() - e.recorded_at)
                             FROM log.events AS e WHERE e.position = $1 + 1), 0)::float8";
        let row = client.query_one(SQL, &[&position]).await.context("the lag of a follower")?;
        let lag_events = row.get::<_, i64>(0).max(0);
        Ok(Self { name, position: Ok(position), lag_events, lag_seconds: row.get::<_, f64>(1).max(0.0), more })
    }

    /// A follower that cannot be asked.
    fn unreachable(name: String, why: String) -> Self {
        Self { name, position: Err(why), lag_events: 0, lag_seconds: 0.0, more: json!({}) }
    }

    fn is_waiting(&self) -> bool {
        self.lag_events > 0 && self.lag_seconds >= PATIENCE_SECONDS
    }

    fn state(&self, stuck: &[String]) -> &'static str {
        match &self.position {
            Err(_) => "unreachable",
            Ok(_) if stuck.contains(&self.name) => "stuck",
            Ok(_) if self.is_waiting() => "catching up",
            Ok(_) => "live",
        }
    }

    fn to_json(&self, stuck: &[String]) -> Value {
        let mut json = json!({
            "name": self.name, "state": self.state(stuck), "position": self.position.as_ref().ok(),
            "lag_events": self.lag_events, "lag_seconds": self.lag_seconds, "error": self.position.as_ref().err(),
        });
        if let (Some(json), Some(more)) = (json.as_object_mut(), self.more.as_object()) {
            json.extend(more.clone());
        }
        json
    }

    fn to_row(&self, stuck: &[String]) -> Vec<Value> {
        let state = match &self.position {
            Ok(_) => self.state(stuck).to_owned(),
            Err(why) => format!("unreachable: {why}"),
        };
        vec![
            self.name.clone().into(),
            self.position.as_ref().ok().copied().into(),
            self.lag_events.into(),
            format!("{:.1}", self.lag_seconds).into(),
            state.into(),
        ]
    }
}

/// What did nothing between two looks although something waited for it.
fn stuck(first: &Look, second: &Look) -> Vec<String> {
    let still = |now: &&Follower| match &now.position {
        Err(_) => true,
        Ok(_) => {
            now.is_waiting() && first.followers().any(|then| then.name == now.name && then.position == now.position)
        }
    };
    second.followers().filter(still).map(|follower| follower.name.clone()).collect()
}

async fn connections(client: &Client) -> anyhow::Result<Vec<Vec<Value>>> {
    const SQL: &str = "-- cli::status::connections
        SELECT coalesce(a.usename, '-')::text, count(*), count(*) FILTER (WHERE a.state = 'active'),
               count(*) FILTER (WHERE a.state LIKE 'idle in transaction%'),
               coalesce(max(extract(epoch FROM clock_timestamp() - a.xact_start)), 0)::float8
        FROM pg_stat_activity AS a
        WHERE a.backend_type = 'client backend' AND a.datname = current_database() AND a.pid <> pg_backend_pid()
        GROUP BY 1 ORDER BY 1";
    let rows = client.query(SQL, &[]).await.context("the connections")?;
    let row = |row: &tokio_postgres::Row| {
        vec![
            row.get::<_, &str>(0).into(),
            row.get::<_, i64>(1).into(),
            row.get::<_, i64>(2).into(),
            row.get::<_, i64>(3).into(),
            format!("{:.1}", row.get::<_, f64>(4)).into(),
        ]
    };
    Ok(rows.iter().map(row).collect())
}

fn output(now: &Look, standbys: &[Value], connections: &[Vec<Value>], stuck: &[String]) -> Output {
    let followers = |followers: &[Follower]| followers.iter().map(|one| one.to_json(stuck)).collect::<Vec<_>>();
    let json = json!({
        "log": now.log.to_json(),
        "projections": followers(&now.projections),
        "replicas": followers(&now.replicas),
        "standbys": standbys,
        "relay": now.relay.as_ref().map(|relay| relay.to_json(stuck)),
        "connections": connections.iter().map(|row| json!({
            "role": row[0], "total": row[1], "active": row[2], "idle_in_transaction": row[3], "oldest_transaction_seconds": row[4],
        })).collect::<Vec<_>>(),
        "stuck": stuck,
    });
    let mut text = format!("{}\n\n", now.log.to_text());
    let rows: Vec<Vec<Value>> = now.followers().map(|follower| follower.to_row(stuck)).collect();
    text.push_str(&table(&["what", "position", "lag events", "lag s", "state"], &rows));
    if now.relay.is_none() {
        text.push_str("relay: not asked (PROSPECTUS_NATS_URL is not set)\n");
    }
    for standby in standbys {
        let _ = writeln!(
            text,
            "standby {}: {}, {} bytes behind",
            standby["name"].as_str().unwrap_or_default(),
            standby["state"].as_str().unwrap_or_default(),
            standby["replay_lag_bytes"]
        );
    }
    text.push('\n');
    text.push_str(&table(
        &["connections of", "total", "active", "idle in transaction", "oldest transaction s"],
        connections,
    ));
    if stuck.is_empty() {
        text.push_str("\nnothing is stuck\n");
    } else {
        let _ = writeln!(text, "\nSTUCK: {}. Its own log and /readyz say why.", stuck.join(", "));
    }
    let well = stuck.is_empty();
    Output { json, text, well }
}
