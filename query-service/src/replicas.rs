//! The servers that are read: a pool for each, how each of them is, and which one is read next. Which of them are replicas is looked at
//! all the time, because a promotion changes it: one that takes writes is read only while no replica works, or never.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use deadpool_postgres::Pool;
use futures_util::future::{join_all, select_all};
use service_kit::auth::Authenticator;
use service_kit::health::report_pool;
use service_kit::postgres::{Database, DatabaseError};
use service_kit::shutdown::Shutdown;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::{Client, Statement};

use crate::connection::Connection;

/// How often each replica is looked at.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// How often while somebody waits for a position: one look for all who wait.
const PROBE_EVERY_WHILE_AWAITED: Duration = Duration::from_millis(3);
/// A replica that takes longer to answer a look is not read.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection may take to be made for a look.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a request waits for a free connection.
const POOL_WAIT: Duration = Duration::from_secs(2);
/// Connections to each server that only keys and the health check use, so that neither waits behind slow lists.
const ACCESS_CONNECTIONS: usize = 2;
/// A replica that is further than this behind the freshest is not read while that one works.
const LAG_EVENTS_MAX: i64 = 10_000;
/// How long a waiter whose change is still being carried to prospects' rows lets pass between two looks.
pub(crate) const FANOUT_LOOK_EVERY: Duration = Duration::from_millis(10);

/// What a position that is waited for is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What the live generation has applied.
    ReadTables,
    /// The log itself.
    Log,
}

/// One server that is read.
#[derive(Debug)]
pub(crate) struct Replica {
    name: String,
    pub(crate) database: Database,
    /// Connections for requests.
    pub(crate) pool: Pool,
    /// Connections for looking up keys and for the health check.
    access: Pool,
    healthy: watch::Sender<bool>,
    /// Whether it took writes at the last look: it is the primary, and no replica.
    takes_writes: AtomicBool,
    /// Whether its lag was ever told, as a replica's is.
    lag_told: AtomicBool,
    applied: AtomicI64,
    head: AtomicI64,
    /// How far its write-ahead log is replayed, in bytes: how old its keys are, which no event tells.
    replayed: AtomicI64,
    generation: AtomicI32,
    waiting: AtomicUsize,
    hurry: Notify,
}

/// All servers that are read.
#[derive(Debug)]
pub struct Replicas {
    ordinary: Vec<Arc<Replica>>,
    fallback: Option<Arc<Replica>>,
    /// Whether one of `ordinary` that takes writes is never read.
    never_primary: bool,
    turn: AtomicUsize,
    moved: watch::Sender<()>,
}

impl Replicas {
    /// Makes the pools, looks at each server once, and goes on looking until `shutdown`. A server of `urls` that takes writes is read
    /// while none of them is a replica that works, or never with `never_primary`.
    ///
    /// # Errors
    /// If a URL cannot be parsed. A server that is away is no error: it may come.
    pub async fn open(
        urls: &[&str],
        fallback: Option<&str>,
        never_primary: bool,
        connections: usize,
        shutdown: &Shutdown,
    ) -> Result<Arc<Self>, DatabaseError> {
        let replicas =
            urls.iter().map(|url| Replica::new(url, connections).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        let fallback = fallback.map(|url| Replica::new(url, connections).map(Arc::new)).transpose()?;
        let opened = Arc::new(Self {
            ordinary: replicas,
            fallback,
            never_primary,
            turn: AtomicUsize::new(0),
            moved: watch::Sender::new(()),
        });
        metrics::describe_gauge!("prospectus_replica_up", "1 while the server answers");
        metrics::describe_gauge!("prospectus_replica_takes_writes", "1 while the server is the primary and no replica");
        metrics::describe_gauge!(
            "prospectus_replica_lag_events",
            "Events that the freshest server has and this one has not applied"
        );
        metrics::describe_gauge!("prospectus_pool_connections_in_use", "Connections that requests hold now");
        let first = opened.every().map(|replica| async {
            let mut probe = None;
            look(replica, &mut probe, &opened).await;
            (Arc::clone(replica), probe)
        });
        for (replica, probe) in join_all(first).await {
            let (all, shutdown) = (Arc::clone(&opened), shutdown.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = shutdown.requested() => {}
                    () = watch_over(&replica, probe, &all) => {}
                }
            });
        }
        Ok(opened)
    }

    fn every(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.ordinary.iter().chain(&self.fallback)
    }

    /// Those that are read, or would be if they worked.
    fn candidates(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.ordinary.iter().filter(|one| !(self.never_primary && one.takes_writes())).chain(&self.fallback)
    }

    /// Those of the list that may be read now: the replicas that work; while there is none, the primary.
    fn readable(&self) -> impl Iterator<Item = &Arc<Replica>> + Clone {
        let any_replica = self.ordinary.iter().any(|one| one.is_healthy() && !one.takes_writes());
        let primary_too = !any_replica && !self.never_primary;
        self.ordinary.iter().filter(move |one| one.is_healthy() && (primary_too || !one.takes_writes()))
    }

    /// The fallback, where there is one and it works.
    fn working_fallback(&self) -> Option<&Arc<Replica>> {
        self.fallback.as_ref().filter(|replica| replica.is_healthy())
    }

    /// What looks keys up on these servers: on one that works before one that does not, on the freshest first, so that a replica
    /// whose replay stands still does not go on answering for keys that were revoked; on the fallback last.
    pub fn authenticator(self: &Arc<Self>) -> Authenticator {
        let replicas = Arc::clone(self);
        Authenticator::in_order(move || replicas.freshest_first().map(|replica| replica.access.clone()).collect())
    }

    fn freshest_first(&self) -> impl Iterator<Item = &Arc<Replica>> {
        let mut ordinary: Vec<_> =
            self.ordinary.iter().filter(|replica| !(self.never_primary && replica.takes_writes())).collect();
        ordinary.sort_by_cached_key(|replica| {
            let replica_that_works = replica.is_healthy() && !replica.takes_writes();
            let replayed = replica.replayed.load(Ordering::Relaxed);
            std::cmp::Reverse((replica_that_works, replica.is_healthy(), replayed))
        });
        ordinary.into_iter().chain(&self.fallback)
    }

    /// Whether any server can be read now.
    pub fn any_healthy(&self) -> bool {
        self.readable().next().is_some() || self.working_fallback().is_some()
    }

    /// Checks the schema of the first server that works.
    ///
    /// # Errors
    /// In a sentence, for the health check.
    pub async fn check_schema(&self) -> Result<(), String> {
        let replica = self.readable().next().or(self.working_fallback()).ok_or("no replica answers")?;
        let mut connection =
            Connection::take(replica, &replica.access).await.map_err(|error| format!("no connection: {error}"))?;
        let checked = migrations::check(connection.client()).await.map_err(|error| error.to_string());
        connection.give_back();
        checked
    }

    /// The next replica in turn among those that work, lag little and were not tried; one that has the wanted position before one
    /// that has not; the fallback if there is none.
    pub(crate) fn choose(&self, tried: &[Arc<Replica>], scope: Scope, wanted: i64) -> Option<Arc<Replica>> {
        let untried = |replica: &&Arc<Replica>| !tried.iter().any(|one| Arc::ptr_eq(one, replica));
        let able = self.readable().filter(untried);
        let freshest = able.clone().map(|replica| replica.reached(scope)).max();
        let Some(freshest) = freshest else { return self.working_fallback().filter(untried).cloned() };
        let least = wanted.min(freshest).max(freshest.saturating_sub(LAG_EVENTS_MAX));
        let fresh = able.filter(|replica| replica.reached(scope) >= least);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = fresh.clone().count();
        fresh.cycle().nth(turn % count.max(1)).cloned()
    }

    /// Returns once a server that [`choose`](Self::choose) may give has the wanted position, or at the deadline. Where one has it
    /// already, and it is something else that is not at its end, a change's way to the prospects' rows or a count, returns `pause` later.
    pub(crate) async fn wait_for(&self, scope: Scope, wanted: i64, pause: Duration, deadline: Instant) {
        let mut moved = self.moved.subscribe();
        let has_it = || {
            let mut working = self.readable().peekable();
            let has = |replica: &Arc<Replica>| replica.reached(scope) >= wanted;
            if working.peek().is_some() {
                return working.any(has);
            }
            self.working_fallback().is_some_and(has)
        };
        if has_it() {
            tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
            return;
        }
        let _waiting: Vec<Waiting> = self.candidates().map(Waiting::new).collect();
        while !has_it() {
            match timeout_at(deadline, moved.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
}

impl Replicas {
    /// The highest position of the log that a server that [`choose`](Self::choose) may give has.
    pub(crate) fn reached_log(&self) -> i64 {
        let reached = |replica: &Arc<Replica>| replica.reached(Scope::Log);
        let ordinary = self.readable().map(reached).max();
        ordinary.or_else(|| self.working_fallback().map(reached)).unwrap_or(0)
    }

    /// Returns once the log is beyond a position on some server that works. Whoever waits here does not hurry the looks at the servers:
    /// streams wait all the time.
    pub(crate) async fn moved_past(&self, position: i64) {
        let mut moved = self.moved.subscribe();
        while self.reached_log() <= position {
            if moved.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns once some server answers, or at the deadline.
    pub(crate) async fn wait_for_any(&self, deadline: Instant) {
        let answers = self.candidates().map(|replica| {
            replica.hurry.notify_one();
            let mut healthy = replica.healthy.subscribe();
            // The sender lives as long as the replica, so this cannot fail.
            Box::pin(async move { _ = healthy.wait_for(|healthy| *healthy).await })
        });
        let answers: Vec<_> = answers.collect();
        if answers.is_empty() {
            // The only servers take writes, and may not be read.
            tokio::time::sleep_until(deadline).await;
            return;
        }
        // At the deadline the caller looks for itself.
        let _ = timeout_at(deadline, select_all(answers)).await;
    }
}

/// Somebody waits for a position, so looks are closer together.
struct Waiting(Arc<Replica>);

impl Waiting {
    fn new(replica: &Arc<Replica>) -> Self {
        replica.waiting.fetch_add(1, Ordering::Relaxed);
        replica.hurry.notify_one();
        Self(Arc::clone(replica))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Replica {
    fn new(url: &str, connections: usize) -> Result<Self, DatabaseError> {
        let database = Database::parse(url, "prospectus query-service")?
            // Every list starts from an index that begins with the tenant, also where one tenant has most of the rows and a
            // scan of everybody's looks cheaper; and the parts of a list come out in their order only without workers.
            .with_option("enable_seqscan", "off")
            .with_option("max_parallel_workers_per_gather", "0");
        Ok(Self {
            name: database.name(),
            pool: database.pool(connections, POOL_WAIT)?,
            access: database.pool(ACCESS_CONNECTIONS, POOL_WAIT)?,
            database,
            healthy: watch::Sender::new(false),
            takes_writes: AtomicBool::new(false),
            lag_told: AtomicBool::new(false),
            applied: AtomicI64::new(0),
            head: AtomicI64::new(0),
            replayed: AtomicI64::new(0),
            generation: AtomicI32::new(0),
            waiting: AtomicUsize::new(0),
            hurry: Notify::new(),
        })
    }

    fn is_healthy(&self) -> bool {
        *self.healthy.borrow()
    }

    fn takes_writes(&self) -> bool {
        self.takes_writes.load(Ordering::Relaxed)
    }

    fn reached(&self, scope: Scope) -> i64 {
        match scope {
            Scope::ReadTables => self.applied.load(Ordering::Relaxed),
            Scope::Log => self.head.load(Ordering::Relaxed),
        }
    }

    /// Notes what a look has found; whether anything is news.
    fn note(&self, head: i64, applied: i64) -> bool {
        let before = (self.head.swap(head, Ordering::Relaxed), self.applied.swap(applied, Ordering::Relaxed));
        before != (head, applied)
    }

    /// The generation that was live here at the last look.
    pub(crate) fn generation(&self) -> i32 {
        self.generation.load(Ordering::Relaxed)
    }

    /// A read saw that another generation is live.
    pub(crate) fn set_generation(&self, generation: i32) {
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// A connection failed: nobody reads here until a look succeeds.
    pub(crate) fn mark_bad(&self) {
        if self.healthy.send_replace(false) {
            tracing::warn!(replica = self.name, "a replica does not answer; others are read");
        }
    }

    /// Returns when the replica is given up.
    pub(crate) async fn lost(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.healthy.subscribe().wait_for(|healthy| !healthy).await;
    }
}

/// The connection that looks are made over.
struct Probe {
    client: Client,
    statement: Statement,
}

impl Probe {
    async fn open(database: &Database) -> Result<Self, tokio_postgres::Error> {
        const SQL: &str = "-- query_service::replicas::probe
            SELECT pg_is_in_recovery(), h.position, l.generation, c.position,
                   ((CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)
                       - '0/0'::pg_lsn)::bigint
            FROM log.head AS h
            LEFT JOIN read.live AS l ON l.projection = 'company_prospect'
            LEFT JOIN LATERAL (
                SELECT s.position FROM read.checkpoint_steps AS s
                WHERE s.projection = l.projection AND s.generation = l.generation ORDER BY s.step DESC LIMIT 1
            ) AS c ON true";
        let client = database.client().await?;
        let statement = client.prepare(SQL).await?;
        Ok(Self { client, statement })
    }
}

async fn watch_over(replica: &Arc<Replica>, mut probe: Option<Probe>, all: &Replicas) {
    loop {
        let awaited = replica.waiting.load(Ordering::Relaxed) > 0 && replica.is_healthy();
        let pause = if awaited { PROBE_EVERY_WHILE_AWAITED } else { PROBE_EVERY };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = replica.hurry.notified() => {}
        }
        look(replica, &mut probe, all).await;
    }
}

/// Looks once: whether the server answers, and how far it is.
async fn look(replica: &Replica, probe: &mut Option<Probe>, all: &Replicas) {
    let looked = async {
        let open = match probe.take() {
            Some(open) => open,
            None => timeout(CONNECT_TIMEOUT, Probe::open(&replica.database))
                .await
                .map_err(|_| "no connection in time".to_owned())?
                .map_err(|error| error.to_string())?,
        };
        let row = timeout(PROBE_TIMEOUT, open.client.query_one(&open.statement, &[])).await;
        let row = row.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
        *probe = Some(open);
        Ok::<_, String>(row)
    };
    match looked.await {
        Ok(row) => {
            let (recovering, head): (bool, i64) = (row.get(0), row.get(1));
            let applied = row.get::<_, Option<i64>>(3).unwrap_or(0);
            replica.set_generation(row.get::<_, Option<i32>>(2).unwrap_or(0));
            replica.replayed.store(row.get::<_, Option<i64>>(4).unwrap_or(0), Ordering::Relaxed);
            let moved = replica.note(head, applied);
            if replica.takes_writes.swap(!recovering, Ordering::Relaxed) == recovering {
                tracing::info!(
                    replica = replica.name,
                    recovering,
                    "a server has another job: in recovery it is a replica"
                );
            }
            if !replica.healthy.send_replace(true) {
                tracing::info!(replica = replica.name, recovering, applied, head, "a replica answers");
            }
            if moved || !recovering {
                all.moved.send_replace(());
            }
        }
        Err(error) => {
            tracing::debug!(replica = replica.name, error, "a look at a replica failed");
            replica.mark_bad();
        }
    }
    report(replica, all);
}

#[expect(clippy::cast_precision_loss, reason = "counts of events and connections are far below 2^52")]
fn report(replica: &Replica, all: &Replicas) {
    let head = all.every().map(|one| one.reached(Scope::Log)).max().unwrap_or(0);
    let name = replica.name.clone();
    metrics::gauge!("prospectus_replica_up", "replica" => name.clone()).set(f64::from(u8::from(replica.is_healthy())));
    let takes_writes = replica.takes_writes();
    metrics::gauge!("prospectus_replica_takes_writes", "replica" => name.clone())
        .set(f64::from(u8::from(takes_writes)));
    // The primary has no lag of its own to tell, but where it was a replica its last one must not stay.
    let unread = takes_writes && all.never_primary;
    if !unread || replica.lag_told.load(Ordering::Relaxed) {
        replica.lag_told.store(true, Ordering::Relaxed);
        let lag = if unread { 0 } else { head - replica.reached(Scope::ReadTables) };
        metrics::gauge!("prospectus_replica_lag_events", "replica" => name.clone()).set(lag as f64);
    }
    report_pool(name, &replica.pool);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_are_asked_of_the_freshest_that_works() {
        let server = |name: &str, healthy: bool, replayed: i64| {
            let url = format!("postgres://nobody@127.0.0.1:1/{name}");
            let replica = Replica::new(&url, 1).expect("a good address");
            replica.healthy.send_replace(healthy);
            replica.replayed.store(replayed, Ordering::Relaxed);
            Arc::new(replica)
        };
        let mut replicas = Replicas {
            ordinary: vec![server("hangs", false, 9), server("stands_still", true, 3), server("follows", true, 8)],
            fallback: Some(server("primary", true, 10)),
            never_primary: false,
            turn: AtomicUsize::new(0),
            moved: watch::Sender::new(()),
        };
        let order = |replicas: &Replicas| -> Vec<String> {
            replicas.freshest_first().filter_map(|replica| Some(replica.name.rsplit('/').next()?.to_owned())).collect()
        };
        assert_eq!(order(&replicas), ["follows", "stands_still", "hangs", "primary"]);
        // After a promotion the one that was freshest takes writes: it is read, and asked, only where no replica works.
        replicas.ordinary[2].takes_writes.store(true, Ordering::Relaxed);
        assert_eq!(order(&replicas), ["stands_still", "follows", "hangs", "primary"]);
        let chosen = |replicas: &Replicas| replicas.choose(&[], Scope::Log, 0).map(|one| one.name.clone());
        for _ in 0..4 {
            assert_eq!(chosen(&replicas).as_ref(), Some(&replicas.ordinary[1].name));
        }
        replicas.ordinary[1].healthy.send_replace(false);
        assert_eq!(chosen(&replicas).as_ref(), Some(&replicas.ordinary[2].name));
        replicas.never_primary = true;
        assert_eq!(order(&replicas), ["hangs", "stands_still", "primary"]);
        assert_eq!(chosen(&replicas), replicas.fallback.as_ref().map(|one| one.name.clone()));
        replicas.fallback = None;
        assert!(chosen(&replicas).is_none() && !replicas.any_healthy());
    }

    #[tokio::test]
    async fn a_look_notes_what_is_applied_also_where_the_log_has_moved() {
        let replica = Replica::new("postgres://nobody@127.0.0.1:1/none", 1).expect("a good address");
        assert!(replica.note(10, 7));
        assert_eq!((replica.reached(Scope::Log), replica.reached(Scope::ReadTables)), (10, 7));
        assert!(replica.note(12, 11));
        assert_eq!((replica.reached(Scope::Log), replica.reached(Scope::ReadTables)), (12, 11));
        assert!(!replica.note(12, 11));
    }
}
