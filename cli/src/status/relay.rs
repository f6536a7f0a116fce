//! The relay, seen from both its ends: its connection to the log, and the last message in NATS.

use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use service_kit::config::Secret;
use time::OffsetDateTime;
use tokio_postgres::Client;

use super::follower::Follower;

/// How long NATS may take.
const NATS_TIMEOUT: Duration = Duration::from_secs(3);

const STREAM: &str = "PROSPECTUS_EVENTS";
const POSITION: &str = "Prospectus-Position";

/// How far the relay has published.
pub(super) async fn look(primary: &Client, nats_url: &Secret) -> anyhow::Result<Follower> {
    const SQL: &str = "-- cli::status::relay::look
        SELECT count(*) FROM pg_stat_activity AS a
        WHERE a.usename = 'prospectus_relay' AND a.datname = current_database()";
    let connections: i64 = primary.query_one(SQL, &[]).await.context("the relay's connections")?.get(0);
    let name = "relay".to_owned();
    match tokio::time::timeout(NATS_TIMEOUT, last_position(nats_url)).await {
        Ok(Ok(Published { position, messages, at })) => {
            let more = json!({"messages": messages, "relay_connections": connections});
            let idle_seconds = at.map(|at| (OffsetDateTime::now_utc() - at).as_seconds_f64());
            Follower::at(primary, name, position, idle_seconds, more).await
        }
        Ok(Err(error)) => Ok(Follower::unreachable(name, crate::output::describe(&error))),
        Err(_) => Ok(Follower::unreachable(name, format!("NATS did not answer within {} s", NATS_TIMEOUT.as_secs()))),
    }
}

/// What the stream holds.
struct Published {
    /// Position of its last message; 0 in an empty stream.
    position: i64,
    messages: u64,
    /// When that was published.
    at: Option<OffsetDateTime>,
}

async fn last_position(url: &Secret) -> anyhow::Result<Published> {
    let client = async_nats::ConnectOptions::new()
        .connection_timeout(NATS_TIMEOUT)
        .connect(url.expose())
        .await
        .context("cannot connect to NATS")?;
    let stream = async_nats::jetstream::new(client)
        .get_stream(STREAM)
        .await
        .with_context(|| format!("the stream {STREAM}, which the relay makes when it starts"))?;
    let state = stream.cached_info().state.clone();
    if state.messages == 0 {
        return Ok(Published { position: 0, messages: 0, at: None });
    }
    let message = stream.get_raw_message(state.last_sequence).await.context("the stream's last message")?;
    let position =
        message.headers.get(POSITION).with_context(|| format!("the last message has no header {POSITION}"))?;
    let position = position.as_str().parse().context("the last message's position")?;
    Ok(Published { position, messages: state.messages, at: Some(message.time) })
}
