//! Whether relay and sealer go on, judged apart from their loops and by what everybody can see of them: the stream's last message, the
//! newest signed head. So every process that could do the work judges the same, whichever of them does it.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use service_kit::postgres::Database;
use service_kit::shutdown::Shutdown;
use service_kit::watchdog::Watchdog;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use crate::config::Config;
use crate::relay::{POSITION_HEADER, STREAM};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);
/// How long a look may take.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// What one look saw.
struct Seen {
    /// Changes with every event that is done.
    progress: i64,
    /// Events that are not done.
    lag_events: i64,
    /// Age of the oldest of them.
    lag_seconds: f64,
}

/// Watches the relay, if this process has one.
///
/// # Errors
/// If the address of the database is none.
pub fn relay(config: &Config, shutdown: Shutdown) -> anyhow::Result<Option<impl Future<Output = ()> + Send + use<>>> {
    let (Some(database), Some(nats)) = (&config.relay_database_url, &config.nats_url) else { return Ok(None) };
    let mut published = Published {
        database: Database::parse(database.expose(), "prospectus relay watch")?.read_write(),
        nats_url: nats.expose().to_owned(),
        client: None,
        stream: None,
        known: 0,
    };
    let mut watched = Watched::new("relay", config);
    Ok(Some(async move {
        let mut ticks = ticks();
        while goes_on(&mut ticks, &shutdown).await {
            watched.take(published.look().await);
        }
    }))
}

/// Watches the sealer, if this process has one.
///
/// # Errors
/// If the address of the database is none.
pub fn sealer(config: &Config, shutdown: Shutdown) -> anyhow::Result<Option<impl Future<Output = ()> + Send + use<>>> {
    let Some(database) = &config.sealer_database_url else { return Ok(None) };
    let database = Database::parse(database.expose(), "prospectus sealer watch")?.read_write();
    let mut sealed = Sealed { database, client: None };
    let mut watched = Watched::new("sealer", config);
    Ok(Some(async move {
        let mut ticks = ticks();
        while goes_on(&mut ticks, &shutdown).await {
            watched.take(sealed.look().await);
        }
    }))
}

fn ticks() -> Interval {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Waits for the next look; whether there is one.
async fn goes_on(ticks: &mut Interval, shutdown: &Shutdown) -> bool {
    tokio::select! {
        () = shutdown.requested() => false,
        _ = ticks.tick() => true,
    }
}

/// A watchdog and the names of its figures.
struct Watched {
    watchdog: Watchdog,
    stuck: &'static str,
    lag_events: &'static str,
    lag_seconds: &'static str,
    /// The last known lag in seconds, and when it was seen.
    known: (f64, Instant),
}

impl Watched {
    fn new(what: &'static str, config: &Config) -> Self {
        // Nobody is less ready because of it: commands are taken all the same.
        let (watchdog, _) = Watchdog::new(what, config.common.stuck_after(), Instant::now());
        let [stuck, lag_events, lag_seconds] = match what {
            "relay" => ["prospectus_relay_stuck", "prospectus_relay_lag_events", "prospectus_relay_lag_seconds"],
            _ => ["prospectus_sealer_stuck", "prospectus_sealer_lag_events", "prospectus_sealer_lag_seconds"],
        };
        Self { watchdog, stuck, lag_events, lag_seconds, known: (0.0, Instant::now()) }
    }

    #[expect(clippy::cast_precision_loss, reason = "figures")]
    fn take(&mut self, seen: Option<Seen>) {
        // Where nothing can be seen the number is not known, and what waited then waits longer by now.
        if let Some(seen) = &seen {
            self.known = (seen.lag_seconds, Instant::now());
        }
        let seconds = if seen.is_some() { self.known.0 } else { self.known.0 + self.known.1.elapsed().as_secs_f64() };
        metrics::gauge!(self.lag_events).set(seen.as_ref().map_or(f64::NAN, |seen| seen.lag_events as f64));
        metrics::gauge!(self.lag_seconds).set(seconds);
        let stuck = self.watchdog.look(Instant::now(), seen.map(|seen| (seen.progress, seen.lag_events > 0)));
        metrics::gauge!(self.stuck).set(if stuck { 1.0 } else { 0.0 });
    }
}

/// What the relay has published, by the stream's last message: without NATS nothing is, whatever the relay says.
struct Published {
    database: Database,
    nats_url: String,
    client: Option<Client>,
    stream: Option<jetstream::Context>,
    /// The last position that was seen.
    known: i64,
}

impl Published {
    async fn look(&mut self) -> Option<Seen> {
        const SQL: &str = "-- command_service::watch::Published::look
            SELECT coalesce((SELECT e.position FROM log.events AS e ORDER BY e.position DESC LIMIT 1), 0),
                   coalesce((SELECT extract(epoch FROM clock_timestamp() - e.recorded_at)
                             FROM log.events AS e WHERE e.position > $1 ORDER BY e.position LIMIT 1), 0)::float8";
        match timeout(LOOK_MAX, self.last_position()).await {
            Ok(Some(position)) => self.known = position,
            // Where it cannot be seen it has got no further than it was.
            _ => self.stream = None,
        }
        let row = ask(&self.database, &mut self.client, SQL, &[&self.known]).await?;
        let lag_events = (row.get::<_, i64>(0) - self.known).max(0);
        Some(Seen { progress: self.known, lag_events, lag_seconds: row.get::<_, f64>(1).max(0.0) })
    }

    async fn last_position(&mut self) -> Option<i64> {
        let context = if let Some(context) = &self.stream {
            context
        } else {
            let options = async_nats::ConnectOptions::new().connection_timeout(LOOK_MAX);
            self.stream.insert(jetstream::new(options.connect(&self.nats_url).await.ok()?))
        };
        let found = context.get_stream(STREAM).await.ok()?;
        let state = &found.cached_info().state;
        if state.messages == 0 {
            return Some(0);
        }
        let message = found.get_raw_message(state.last_sequence).await.ok()?;
        message.headers.get(POSITION_HEADER)?.as_str().parse().ok()
    }
}

/// What the sealer has signed, by its newest head.
struct Sealed {
    database: Database,
    client: Option<Client>,
}

impl Sealed {
    async fn look(&mut self) -> Option<Seen> {
        const SQL: &str = "-- command_service::watch::Sealed::look
            SELECT coalesce(h.number, 0), greatest(l.position - coalesce(h.tree_size, 0), 0),
                   coalesce((SELECT extract(epoch FROM clock_timestamp() - n.recorded_at) FROM log.events AS n
                             WHERE n.position > coalesce(h.tree_size, 0) ORDER BY n.position LIMIT 1), 0)::float8
            FROM log.head AS l
            LEFT JOIN LATERAL (SELECT t.number, t.tree_size FROM log.tree_heads AS t ORDER BY t.number DESC LIMIT 1) AS h ON true";
        let row = ask(&self.database, &mut self.client, SQL, &[]).await?;
        Some(Seen { progress: row.get(0), lag_events: row.get(1), lag_seconds: row.get::<_, f64>(2).max(0.0) })
    }
}

/// One row, over a connection that is kept while it is good; none where the server does not answer in time.
async fn ask(
    database: &Database,
    kept: &mut Option<Client>,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Option<Row> {
    let asked = timeout(LOOK_MAX, async {
        let client = match kept.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => database.client().await.ok()?,
        };
        let row = client.query_one(sql, parameters).await.ok()?;
        *kept = Some(client);
        Some(row)
    });
    asked.await.ok().flatten()
}
