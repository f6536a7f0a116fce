//! What projectors are asked to build or to roll back: rows of `read.rebuilds`. One projector at a time is at it, by an advisory lock
//! that ends with its connection; one that stands still for the lease loses the lock, and every change asks whether it still has the row.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use migrations::COMPANY_PROSPECT;
use service_kit::postgres::Database;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use crate::connection::connect;
use crate::rebuild::RebuildError;
use crate::rebuild::beside::Beside;
use crate::verify::Report;

/// The first half of the advisory lock's key; any number that nobody else uses does.
const LOCK: i32 = 0x7265_6275;
/// How often whoever is at it says so.
const BEAT: Duration = Duration::from_millis(500);

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) id: i64,
    pub(crate) rollback: bool,
    pub(crate) memory_bytes: usize,
    /// Bytes that the new generation may take, and who says so.
    pub(crate) room_bytes: Option<i64>,
    /// What an earlier attempt built, or half of it.
    pub(crate) generation: Option<i32>,
    /// Which attempt this is.
    pub(crate) attempts: i32,
}

/// How far an attempt is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Parts of the phase that are done.
    pub(crate) done: Arc<AtomicI64>,
    /// How far the generation is; 0 before it is anywhere.
    pub(crate) position: AtomicI64,
}

impl Progress {
    /// So many more parts are done.
    pub(crate) fn add(&self, parts: i64) {
        self.done.fetch_add(parts, Ordering::Relaxed);
    }
}

/// Where requests are taken and told of, over a connection of its own.
pub(crate) struct Desk {
    client: Client,
    _driven: JoinSet<()>,
    worker: Uuid,
    code_version: i32,
    lease: Duration,
}

impl Desk {
    /// Connects.
    pub(crate) async fn open(database: &Database, code_version: i32, lease: Duration) -> Result<Self, Error> {
        let mut driven = JoinSet::new();
        let client = connect(database, &mut driven).await?;
        Ok(Self { client, _driven: driven, worker: Uuid::now_v7(), code_version, lease })
    }

    /// The connection, for what is short.
    pub(crate) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Asks for a rebuild if the live generation is of an older version than this program; whether it did. Not again where this version's
    /// last attempt failed or was cancelled, or somebody has rolled back since, but at a program's start (`anyway`).
    pub(crate) async fn ask_for_own_version(&self, memory_bytes: usize, anyway: bool) -> Result<bool, Error> {
        const SQL: &str = "-- projector::rebuild::request::ask_for_own_version
            INSERT INTO read.rebuilds (projection, kind, code_version, memory_bytes, room_from)
            SELECT l.projection, 'rebuild', $2::integer, $3::bigint, 'nobody: a projector of a newer version asked for it'
            FROM read.live AS l JOIN read.generations AS g USING (projection, generation)
            WHERE l.projection = $1 AND g.code_version < $2 AND ($4 /* anyway */ OR NOT EXISTS (
                SELECT FROM read.rebuilds AS r
                WHERE r.rebuild_id = (SELECT max(n.rebuild_id) FROM read.rebuilds AS n WHERE n.projection = l.projection)
                  AND ((r.code_version = $2 AND r.outcome <> 'live') OR (r.kind = 'rollback' AND r.outcome = 'live'))))
            ON CONFLICT (projection) WHERE finished_at IS NULL DO NOTHING";
        let memory_bytes = i64::try_from(memory_bytes).unwrap_or(i64::MAX);
        Ok(self.client.execute(SQL, &[&COMPANY_PROSPECT, &self.code_version, &memory_bytes, &anyway]).await? > 0)
    }

    /// Takes what is asked for, if nobody is at it.
    pub(crate) async fn take(&self) -> Result<Option<Request>, Error> {
        const OPEN: &str = "-- projector::rebuild::request::take, open
            SELECT r.rebuild_id, coalesce(r.beat_at < clock_timestamp() - make_interval(secs => $3), false)
            FROM read.rebuilds AS r JOIN read.live AS l USING (projection) JOIN read.generations AS g
                ON g.projection = l.projection AND g.generation = l.generation
            WHERE r.projection = $1 AND r.finished_at IS NULL AND coalesce(r.code_version = $2, true)
              AND (g.code_version <= $2 OR r.kind = 'rollback')";
        const TRY: &str = "-- projector::rebuild::request::take, lock
            SELECT pg_try_advisory_lock($1, hashtext($2))";
        // Only the lock's holder stands still; nobody else is disturbed.
        const TERMINATE: &str = "-- projector::rebuild::request::take, terminate
            SELECT pg_terminate_backend(l.pid) FROM pg_locks AS l
            WHERE l.locktype = 'advisory' AND l.granted AND l.classid = $1::int::oid AND l.objid::bigint = hashtext($2)::bigint & 4294967295
              AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())";
        const TAKE: &str = "-- projector::rebuild::request::take
            UPDATE read.rebuilds SET worker = $2, beat_at = clock_timestamp(), attempts = attempts + 1
            WHERE rebuild_id = $1 AND finished_at IS NULL
            RETURNING rebuild_id, kind = 'rollback', memory_bytes, room_bytes, generation, attempts";
        let lease = self.lease.as_secs_f64();
        let open = self.client.query_opt(OPEN, &[&COMPANY_PROSPECT, &self.code_version, &lease]).await?;
        let Some(open) = open else { return Ok(None) };
        let (id, stale): (i64, bool) = (open.get(0), open.get(1));
        let locked: bool = self.client.query_one(TRY, &[&LOCK, &COMPANY_PROSPECT]).await?.get(0);
        if !locked {
            if stale {
                tracing::warn!(
                    rebuild_id = id,
                    "the projector that is at the rebuild stands still: it is taken from it"
                );
                self.client.query(TERMINATE, &[&LOCK, &COMPANY_PROSPECT]).await?;
            }
            return Ok(None);
        }
        let Some(row) = self.client.query_opt(TAKE, &[&id, &self.worker]).await? else {
            self.let_go().await?;
            return Ok(None);
        };
        Ok(Some(Request {
            id: row.get(0),
            rollback: row.get(1),
            memory_bytes: usize::try_from(row.get::<_, i64>(2)).unwrap_or(usize::MAX),
            room_bytes: row.get(3),
            generation: row.get(4),
            attempts: row.get(5),
        }))
    }

    /// Lets others take what is asked for.
    pub(crate) async fn let_go(&self) -> Result<(), Error> {
        const SQL: &str = "-- projector::rebuild::request::let_go
            SELECT pg_advisory_unlock($1, hashtext($2))";
        self.client.query(SQL, &[&LOCK, &COMPANY_PROSPECT]).await?;
        Ok(())
    }

    /// Begins a phase of `total` parts.
    pub(crate) async fn enter(
        &self,
        request: &Request,
        progress: &Progress,
        phase: &str,
        total: i64,
    ) -> Result<(), RebuildError> {
        const SQL: &str = "-- projector::rebuild::request::enter
            UPDATE read.rebuilds SET phase = $3, done = 0, total = $4, beat_at = clock_timestamp()
            WHERE rebuild_id = $1 AND worker = $2 AND finished_at IS NULL";
        progress.done.store(0, Ordering::Relaxed);
        tracing::info!(rebuild_id = request.id, phase, "rebuild");
        own(self.client.execute(SQL, &[&request.id, &self.worker, &phase, &total]).await?)
    }

    /// Names the generation that is being built or rolled back to.
    pub(crate) async fn set_generation(&self, request: &Request, generation: i32) -> Result<(), RebuildError> {
        const SQL: &str = "-- projector::rebuild::request::set_generation
            UPDATE read.rebuilds SET generation = $3 WHERE rebuild_id = $1 AND worker = $2 AND finished_at IS NULL";
        own(self.client.execute(SQL, &[&request.id, &self.worker, &generation]).await?)
    }

    /// Says what the check found.
    pub(crate) async fn set_report(&self, request: &Request, report: &Report) -> Result<(), RebuildError> {
        const SQL: &str = "-- projector::rebuild::request::set_report
            UPDATE read.rebuilds SET rows_checked = $3, differences = $4, first_differences = $5
            WHERE rebuild_id = $1 AND worker = $2 AND finished_at IS NULL";
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let first: Vec<&str> =
            report.first.iter().map(|line| line.split(": should be ").next().unwrap_or_default()).collect();
        let (rows, differences) = (count(report.rows), count(report.differences));
        own(self.client.execute(SQL, &[&request.id, &self.worker, &rows, &differences, &first]).await?)
    }

    /// Says what the comparison with the live generation found.
    pub(crate) async fn set_beside(&self, request: &Request, beside: &Beside) -> Result<(), RebuildError> {
        const SQL: &str = "-- projector::rebuild::request::set_beside
            UPDATE read.rebuilds SET live_differences = $3, first_live_differences = $4
            WHERE rebuild_id = $1 AND worker = $2 AND finished_at IS NULL";
        own(self.client.execute(SQL, &[&request.id, &self.worker, &beside.count, &beside.first]).await?)
    }

    /// Says again and again that somebody is at it; ends where that is no longer wanted.
    pub(crate) async fn beat(&self, request: &Request, progress: &Progress) -> RebuildError {
        const SQL: &str = "-- projector::rebuild::request::beat
            UPDATE read.rebuilds SET beat_at = clock_timestamp(), done = least($3, total), position = nullif($4::bigint, 0)
            WHERE rebuild_id = $1 AND worker = $2 AND finished_at IS NULL RETURNING cancel";
        loop {
            tokio::time::sleep(BEAT).await;
            let done = progress.done.load(Ordering::Relaxed);
            let position = progress.position.load(Ordering::Relaxed);
            match self.client.query_opt(SQL, &[&request.id, &self.worker, &done, &position]).await {
                Ok(Some(row)) if row.get(0) => return RebuildError::Cancelled,
                Ok(Some(_)) => {}
                Ok(None) => return RebuildError::Lost,
                Err(error) => return error.into(),
            }
        }
    }

    /// Notes an error after which it is tried again.
    pub(crate) async fn put_back(&self, request: &Request, error: &str) -> Result<(), Error> {
        const SQL: &str = "-- projector::rebuild::request::put_back
            UPDATE read.rebuilds SET phase = 'waiting', done = 0, total = 0, error = $3
            WHERE rebuild_id = $1 AND worker = $2 AND finished_at IS NULL";
        self.client.execute(SQL, &[&request.id, &self.worker, &error]).await?;
        Ok(())
    }

    /// Ends what was asked for without success.
    pub(crate) async fn finish(&self, request: &Request, outcome: &str, error: &str) -> Result<(), Error> {
        const SQL: &str = "-- projector::rebuild::request::finish
            UPDATE read.rebuilds SET outcome = $3, error = $4, finished_at = clock_timestamp()
            WHERE rebuild_id = $1 AND worker = $2 AND finished_at IS NULL";
        self.client.execute(SQL, &[&request.id, &self.worker, &outcome, &error]).await?;
        Ok(())
    }

    /// Whose mark a row has that this projector is at.
    pub(crate) fn worker(&self) -> Uuid {
        self.worker
    }
}

/// Whether the row was still this projector's.
fn own(rows: u64) -> Result<(), RebuildError> {
    if rows == 1 { Ok(()) } else { Err(RebuildError::Lost) }
}
