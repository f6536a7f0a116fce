//! One thing that follows the log: how far it is, and whether it goes on.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio_postgres::Client;

/// An event that waits no longer than this is no lag worth a word, in seconds.
const LIVE_LAG_SECONDS: f64 = 5.0;

/// One thing that follows the log: how far it is, and since when the next event waits for it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Follower {
    /// What it is called in the list of what is stuck.
    pub(super) name: String,
    /// Every event up to here is done; nothing where it cannot be told, and why.
    pub(super) position: Result<i64, String>,
    /// Events that it has not done; below zero where it has done more than there are.
    pub(super) lag_events: i64,
    /// How long the oldest of them has been in the log.
    pub(super) lag_seconds: f64,
    /// How long ago it did something, by what it has left; none where it leaves nothing, and two looks must tell.
    pub(super) idle_seconds: Option<f64>,
    /// Its state, where it says so itself.
    pub(super) state: Option<&'static str>,
    /// Events a second that it did lately, where that can be told.
    pub(super) events_per_second: Option<f64>,
    /// What else is to be shown.
    pub(super) more: Value,
}

impl Follower {
    /// A follower that is at `position`, in the log that `client` is connected to.
    pub(super) async fn at(
        client: &Client,
        name: String,
        position: i64,
        idle_seconds: Option<f64>,
        more: Value,
    ) -> anyhow::Result<Self> {
        const SQL: &str = "-- cli::status::follower_at
            SELECT (SELECT h.position FROM log.head AS h) - $1 /* position */,
                   coalesce((SELECT extract(epoch FROM clock_timestamp() - e.recorded_at)
                             FROM log.events AS e WHERE e.position = $1 + 1), 0)::float8";
        let row = client.query_one(SQL, &[&position]).await.context("the lag of a follower")?;
        Ok(Self {
            name,
            position: Ok(position),
            lag_events: row.get(0),
            lag_seconds: row.get::<_, f64>(1).max(0.0),
            idle_seconds,
            state: None,
            events_per_second: None,
            more,
        })
    }

    /// A follower that cannot be asked.
    pub(super) fn unreachable(name: String, why: String) -> Self {
        Self {
            name,
            position: Err(why),
            lag_events: 0,
            lag_seconds: 0.0,
            idle_seconds: None,
            state: None,
            events_per_second: None,
            more: json!({}),
        }
    }

    /// Whether events have waited for so long, and it may have done nothing meanwhile.
    pub(super) fn may_be_stuck(&self, stuck_after: Duration) -> bool {
        let stuck_after = stuck_after.as_secs_f64();
        self.lag_events > 0
            && self.lag_seconds >= stuck_after
            && self.idle_seconds.is_none_or(|seconds| seconds >= stuck_after)
    }

    /// Whether it is stuck: it says so, cannot be asked, or has done nothing while events waited. `before` is what it was a moment ago.
    pub(super) fn is_stuck(&self, before: Option<&Self>, stuck_after: Duration) -> bool {
        let stands = || before.is_some_and(|before| before.position == self.position);
        match (&self.position, self.state) {
            (Err(_), _) => true,
            (Ok(_), Some(state)) => state == "stuck",
            (Ok(_), None) => self.may_be_stuck(stuck_after) && (self.idle_seconds.is_some() || stands()),
        }
    }

    /// Whether it has done events that the log does not hold.
    pub(super) fn is_ahead(&self) -> bool {
        self.lag_events < 0
    }

    fn state(&self, stuck: &[String]) -> &'static str {
        match (&self.position, self.state) {
            (Err(_), _) => "unreachable",
            (Ok(_), _) if stuck.contains(&self.name) => "stuck",
            (Ok(_), Some(state)) => state,
            (Ok(_), None) if self.lag_events > 0 && self.lag_seconds >= LIVE_LAG_SECONDS => "catching_up",
            (Ok(_), None) => "live",
        }
    }

    pub(super) fn to_json(&self, stuck: &[String]) -> Value {
        let mut json = json!({
            "name": self.name, "state": self.state(stuck), "position": self.position.as_ref().ok(),
            "lag_events": self.lag_events.max(0), "lag_seconds": self.lag_seconds,
            "events_per_second": self.events_per_second, "error": self.position.as_ref().err(),
        });
        if let (Some(json), Some(more)) = (json.as_object_mut(), self.more.as_object()) {
            json.extend(more.clone());
        }
        json
    }

    pub(super) fn to_row(&self, stuck: &[String]) -> Vec<Value> {
        let state = match &self.position {
            Ok(_) => self.state(stuck).to_owned(),
            Err(why) => format!("unreachable: {why}"),
        };
        vec![
            self.name.clone().into(),
            self.position.as_ref().ok().copied().into(),
            self.lag_events.max(0).into(),
            format!("{:.1}", self.lag_seconds).into(),
            self.events_per_second.map(|rate| format!("{rate:.0}")).into(),
            state.into(),
        ]
    }
}
