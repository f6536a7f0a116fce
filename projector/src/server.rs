//! Figures of the database server that no service of ours has of itself: standbys, slots, sizes, the last backup.

use std::time::Duration;

use service_kit::postgres::Database;
use service_kit::shutdown::Shutdown;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_postgres::{Client, Error};

use crate::connection::connect;

/// How often they are looked at.
const EVERY: Duration = Duration::from_secs(5);
/// How long the database may take to connect and answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What `ops.server_figures` tells, as metrics, with the label that names each thing.
const FIGURES: &[(&str, &str, Option<&str>)] = &[
    ("standby_replay_lag_bytes", "prospectus_standby_replay_lag_bytes", Some("standby")),
    ("standby_replay_lag_seconds", "prospectus_standby_replay_lag_seconds", Some("standby")),
    ("standbys", "prospectus_standbys", None),
    ("replication_slot_held_bytes", "prospectus_replication_slot_held_bytes", Some("slot")),
    ("replication_slot_active", "prospectus_replication_slot_active", Some("slot")),
    ("replication_slot_lost", "prospectus_replication_slot_lost", Some("slot")),
    ("oldest_transaction_seconds", "prospectus_oldest_transaction_seconds", None),
    ("connections", "prospectus_server_connections", None),
    ("connections_max", "prospectus_server_connections_max", None),
    ("table_bytes", "prospectus_table_bytes", Some("table")),
    ("index_bytes", "prospectus_index_bytes", Some("table")),
    ("rebuild_under_way", "prospectus_rebuild_under_way", Some("projection")),
    ("rebuild_failed", "prospectus_rebuild_failed", Some("projection")),
    ("backup_last_success_timestamp_seconds", "prospectus_backup_last_success_timestamp_seconds", None),
];

/// Sets the figures until the end is requested. Where the server cannot be asked they stay as they were: the lag's figures tell of that.
pub async fn report(database: Database, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut driven = JoinSet::new();
    let mut client = None;
    let mut shown: Vec<Gauge> = Vec::new();
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            _ = ticks.tick() => {}
        }
        if let Ok(Ok(figures)) = tokio::time::timeout(ANSWER_MAX, figures(&database, &mut client, &mut driven)).await {
            // What is gone, a standby or a table, is not at its last figure for ever.
            let is_gone = |gauge: &&Gauge| !figures.iter().any(|(there, _)| there == *gauge);
            shown.iter().filter(is_gone).for_each(|gauge| set(gauge, f64::NAN));
            for (gauge, value) in &figures {
                set(gauge, *value);
            }
            shown = figures.into_iter().map(|(gauge, _)| gauge).collect();
        } else {
            (client, driven) = (None, JoinSet::new());
        }
    }
}

/// A metric and, where it is one of several, of what.
type Gauge = (&'static str, Option<(&'static str, String)>);

fn set((metric, label): &Gauge, value: f64) {
    match label {
        Some((label, name)) => metrics::gauge!(*metric, *label => name.clone()).set(value),
        None => metrics::gauge!(*metric).set(value),
    }
}

async fn figures(
    database: &Database,
    client: &mut Option<Client>,
    driven: &mut JoinSet<()>,
) -> Result<Vec<(Gauge, f64)>, Error> {
    const SQL: &str = "-- projector::server::figures
        SELECT f.figure, f.name, f.value FROM ops.server_figures() AS f LIMIT 1000";
    let client = match client {
        Some(client) => client,
        None => client.insert(connect(database, driven).await?),
    };
    let rows = client.query(SQL, &[]).await?;
    let known = |name: &str| FIGURES.iter().find(|(figure, ..)| *figure == name);
    Ok(rows
        .iter()
        .filter_map(|row| {
            let (_, metric, label) = known(row.get(0))?;
            Some(((*metric, label.map(|label| (label, row.get(1)))), row.get(2)))
        })
        .collect())
}
