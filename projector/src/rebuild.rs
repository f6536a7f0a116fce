//! Building the next generation of the projection beside the live one, and making it live; or the previous one live again
//! (decision 13, `docs/decisions/0011-a-rebuild-is-sharded-by-record.md`).
//!
//! The way of a rebuild: [`request`] takes what is asked for → [`shard`] reads and folds the log in parts → [`load`] copies their rows
//! into tables without indexes → the indexes are made → a [`Projection`] on the new generation takes the events that came meanwhile →
//! [`verify`](crate::verify) compares → [`swap`].

mod load;
mod request;
pub(crate) mod shard;
mod swap;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cqrs_es::Aggregate as _;
use domain::{Company, Prospect};
use event_store::feed::{Feed, FeedError};
use event_store::keyring::Keyring;
use migrations::{CODE_VERSION, COMPANY_PROSPECT, GenerationError};
use service_kit::postgres::Database;
use service_kit::shutdown::Shutdown;
use tokio::task::JoinSet;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};

use crate::connection::connect;
use crate::elsewhere::{self, Erased, Own};
use crate::memory::WITHOUT_ROWS;
use crate::projection::{Projection, StepError};
use crate::record::ApplyError;
use crate::refresh::{RefreshError, Refresher, Schedule};
use crate::skips::Skips;
use crate::verify::{VerifyError, verify_generation};
use load::{Loader, Merged};
use request::{Desk, Progress, Request};
use shard::{Shard, Source};

/// How often it is looked whether something is asked for.
const POLL: Duration = Duration::from_millis(500);
/// After so many attempts that ended in the middle, killed ones included, a request fails.
const ATTEMPTS_MAX: i32 = 20;
/// A projector that has said nothing for so long stands still, and others take over from it.
const LEASE: Duration = Duration::from_secs(10);
/// Memory of a rebuild that a program of a newer version asks for itself.
const MEMORY_BYTES: usize = 1 << 30;
/// Parts that are folded, and indexes that are made, at the same time.
const WORKERS_MAX: usize = 4;
/// How long what is counted of a generation may take before it goes live. Nothing else counts by it.
const COUNTING: Schedule = Schedule {
    events: i64::MAX,
    age: Duration::MAX,
    lock_wait: Duration::from_secs(5),
    length: Duration::from_secs(1_800),
};
/// How often it is looked whether another count has ended.
const COUNTS_MAX: usize = 1_200;
/// The server's memory for making one index.
const INDEX_MEMORY: &str =
    "SET statement_timeout = 0; SET synchronous_commit = off; SET maintenance_work_mem = '256MB'";

/// Why a rebuild or a roll-back did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The log, its keys or a step.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The database is away or refuses.
    #[error("the database: {}", service_kit::postgres::describe(.0))]
    Database(#[from] Error),
    /// The tables could not be made.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The check could not be made.
    #[error("the check: {0}")]
    Verify(#[from] VerifyError),
    /// What is counted could not be counted.
    #[error("counting: {0}")]
    Refresh(#[from] RefreshError),
    /// Another count did not end.
    #[error("another refresh of what is counted has been under way for {0} tries")]
    Counting(usize),
    /// There is too little room.
    #[error("the new generation takes about {needed} bytes on the server's disk, and there is room for {room}")]
    Room {
        /// Bytes that it takes, roughly.
        needed: i64,
        /// Bytes that it may take.
        room: i64,
    },
    /// There is nothing to roll back to.
    #[error("there is no previous generation: nothing was rebuilt since the last roll-back, or ever")]
    NoPrevious,
    /// The previous generation is another version's.
    #[error(
        "the previous generation was built by version {found} of the projection's code, and this program has version {own}: \
         run the release that built it, and ask again"
    )]
    OtherVersion {
        /// What built it.
        found: i32,
        /// What this program has.
        own: i32,
    },
    /// The generation does not get near the live one.
    #[error("events come faster than the new generation takes them in: it does not come near the live one")]
    NotNear,
    /// It was begun again and again.
    #[error("it was begun {0} times and never came to its end; the projector's log says why")]
    TooOften(i32),
    /// Somebody wants it to end.
    #[error("it was cancelled")]
    Cancelled,
    /// Another projector has it now, or it is over.
    #[error("another projector has taken it")]
    Lost,
}

impl RebuildError {
    /// Whether it may go well another time.
    fn is_passing(&self) -> bool {
        match self {
            Self::Database(_) | Self::Refresh(_) | Self::Counting(_) | Self::NotNear => true,
            Self::Step(error) => matches!(
                error,
                StepError::Database(_)
                    | StepError::Feed(FeedError::Database(_))
                    | StepError::NoAnswer(_)
                    | StepError::Fenced
            ),
            Self::Generation(error) => matches!(error, GenerationError::Database(_)),
            Self::Verify(error) => {
                matches!(error, VerifyError::Database(_) | VerifyError::Feed(FeedError::Database(_)))
            }
            _ => false,
        }
    }
}

/// Carries out what operators ask for, and has the views and old generations follow.
pub struct Rebuilds {
    database: Database,
    keyring: Arc<Keyring>,
    code_version: i32,
    lease: Duration,
}

impl Rebuilds {
    /// What carries out rebuilds and roll-backs of `database`.
    pub fn new(database: Database, keyring: Arc<Keyring>) -> Self {
        Self { database, keyring, code_version: CODE_VERSION, lease: LEASE }
    }

    /// The same for another version of the projection's code.
    #[must_use]
    pub fn with_version(self, code_version: i32) -> Self {
        Self { code_version, ..self }
    }

    /// Runs until the end is requested; what is under way then is taken up again by whoever runs next.
    pub async fn run(self, shutdown: Shutdown) {
        let mut told = None;
        while !shutdown.is_requested() {
            let Err(error) = tokio::select! {
                () = shutdown.requested() => return,
                worked = self.work() => worked,
            };
            let said = error.to_string();
            if told.as_ref() != Some(&said) {
                tracing::warn!(error = said, "rebuilds cannot be looked for; tried again");
                told = Some(said);
            }
            tokio::select! { () = shutdown.requested() => return, () = tokio::time::sleep(POLL) => {} }
        }
    }

    async fn work(&self) -> Result<std::convert::Infallible, RebuildError> {
        let mut desk = Desk::open(&self.database, self.code_version, self.lease).await?;
        if desk.ask_for_own_version(MEMORY_BYTES).await? {
            tracing::info!(version = self.code_version, "the live generation is of an older version: it is rebuilt");
        }
        loop {
            swap::tidy_up(desk.client()).await?;
            match desk.take().await? {
                Some(request) => self.carry_out(&desk, &request).await?,
                None => tokio::time::sleep(POLL).await,
            }
        }
    }

    async fn carry_out(&self, desk: &Desk, request: &Request) -> Result<(), RebuildError> {
        let progress = Arc::new(Progress::default());
        let work = async {
            if request.attempts > ATTEMPTS_MAX {
                return Err(RebuildError::TooOften(ATTEMPTS_MAX));
            }
            if request.rollback {
                self.roll_back(desk, request, &progress).await
            } else {
                self.rebuild(desk, request, &progress).await
            }
        };
        let outcome = tokio::select! {
            outcome = Box::pin(work) => outcome,
            ended = desk.beat(request, &progress) => Err(ended),
        };
        let Err(error) = outcome else { return desk.let_go().await.map_err(RebuildError::from) };
        let said = error.to_string();
        tracing::warn!(rebuild_id = request.id, error = said, "the rebuild has stopped");
        match error {
            // Whoever has it now writes down what becomes of it.
            RebuildError::Lost => {}
            RebuildError::Cancelled => desk.finish(request, "cancelled", &said).await?,
            error if error.is_passing() && request.attempts < ATTEMPTS_MAX => {
                desk.put_back(request, &said).await?;
                tokio::time::sleep(POLL).await;
            }
            _ => desk.finish(request, "failed", &said).await?,
        }
        desk.let_go().await.map_err(RebuildError::from)
    }

    async fn rebuild(&self, desk: &Desk, request: &Request, progress: &Arc<Progress>) -> Result<(), RebuildError> {
        let generation = match self.loaded(request.generation).await? {
            // An earlier attempt has loaded it: its rows and its checkpoint are as good as ever.
            Some(generation) => generation,
            None => Build { rebuilds: self, desk, request, progress }.run().await?,
        };
        let mut projection = self.open(generation).await?;
        desk.enter(request, progress, "catching_up", 0).await?;
        self.catch_up(desk, request, progress, &mut projection).await?;
        desk.enter(request, progress, "checking", projection.position()).await?;
        let log = Feed::open(&self.database).await.map_err(StepError::from)?;
        let mut driven = JoinSet::new();
        let read = connect(&self.database, &mut driven).await?;
        read.batch_execute("SET statement_timeout = 0").await?;
        let report = verify_generation(&log, &read, &self.keyring, generation, request.memory_bytes).await?;
        if report.differences > 0 {
            tracing::warn!(generation, differences = report.differences, "the generation is not the fold of the log");
        }
        desk.set_report(request, &report).await?;
        drop((log, read));
        self.go_live(desk, request, progress, &mut projection).await
    }

    async fn roll_back(&self, desk: &Desk, request: &Request, progress: &Arc<Progress>) -> Result<(), RebuildError> {
        const SQL: &str = "-- projector::rebuild::roll_back
            SELECT g.generation, g.code_version
            FROM read.live AS l JOIN read.generations AS g
                ON g.projection = l.projection AND g.generation = l.previous_generation
            WHERE l.projection = $1";
        let mut driven = JoinSet::new();
        let client = connect(&self.database, &mut driven).await?;
        let row = client.query_opt(SQL, &[&COMPANY_PROSPECT]).await?.ok_or(RebuildError::NoPrevious)?;
        let (generation, found): (i32, i32) = (row.get(0), row.get(1));
        if found != self.code_version {
            return Err(RebuildError::OtherVersion { found, own: self.code_version });
        }
        desk.set_generation(request, generation).await?;
        let mut projection = self.open(generation).await?;
        desk.enter(request, progress, "catching_up", 0).await?;
        self.catch_up(desk, request, progress, &mut projection).await?;
        self.go_live(desk, request, progress, &mut projection).await
    }

    async fn open(&self, generation: i32) -> Result<Projection, RebuildError> {
        let keyring = Arc::clone(&self.keyring);
        Ok(Projection::open_generation(&self.database, keyring, generation, self.code_version).await?)
    }

    /// Takes steps until there is nothing left to do.
    async fn catch_up(
        &self,
        desk: &Desk,
        request: &Request,
        progress: &Arc<Progress>,
        projection: &mut Projection,
    ) -> Result<(), RebuildError> {
        let head = projection.head().await?;
        desk.enter(request, progress, "catching_up", head - projection.position()).await?;
        let from = projection.position();
        // What comes after the head of now is left to the swap, which comes back for it.
        while projection.position() < head || projection.complete_position() < projection.position() {
            swap::step(projection).await?;
            progress.position.store(projection.position(), Ordering::Relaxed);
            progress.done.store(projection.position() - from, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn go_live(
        &self,
        desk: &Desk,
        request: &Request,
        progress: &Arc<Progress>,
        projection: &mut Projection,
    ) -> Result<(), RebuildError> {
        self.catch_up(desk, request, progress, projection).await?;
        desk.enter(request, progress, "counting", 0).await?;
        self.count(projection.generation()).await?;
        desk.enter(request, progress, "swapping", 0).await?;
        swap::swap(&self.database, desk, request, projection).await
    }

    /// Refreshes what is counted of the generation: whoever asks for numbers right after the swap finds them.
    async fn count(&self, generation: i32) -> Result<(), RebuildError> {
        let mut refresher = Refresher::new(self.database.clone(), COUNTING);
        for _ in 0..COUNTS_MAX {
            if refresher.refresh(generation).await? {
                return Ok(());
            }
            // The live generation's are being refreshed: one at a time over all.
            tokio::time::sleep(POLL).await;
        }
        Err(RebuildError::Counting(COUNTS_MAX))
    }

    /// The generation, if its rows and indexes are there and it is this version's.
    async fn loaded(&self, generation: Option<i32>) -> Result<Option<i32>, RebuildError> {
        const SQL: &str = "-- projector::rebuild::loaded
            SELECT generation FROM read.generations
            WHERE projection = $1 AND generation = $2 AND loaded_at IS NOT NULL AND code_version = $3";
        let mut driven = JoinSet::new();
        let client = connect(&self.database, &mut driven).await?;
        let row = client.query_opt(SQL, &[&COMPANY_PROSPECT, &generation, &self.code_version]).await?;
        Ok(row.map(|row| row.get(0)))
    }
}

/// One generation on its way to being loaded.
struct Build<'a> {
    rebuilds: &'a Rebuilds,
    desk: &'a Desk,
    request: &'a Request,
    progress: &'a Arc<Progress>,
}

/// What the log has, up to its head.
struct Extent {
    head: i64,
    epoch: String,
    companies: i64,
    prospects: i64,
}

impl Build<'_> {
    /// Makes a generation and loads it; gives its number.
    async fn run(&self) -> Result<i32, RebuildError> {
        self.enter("preparing", 0).await?;
        let mut driven = JoinSet::new();
        let mut client = connect(&self.rebuilds.database, &mut driven).await?;
        client.batch_execute(INDEX_MEMORY).await?;
        self.see_that_there_is_room(&client).await?;
        let skips = Arc::new(Skips::read(&client, COMPANY_PROSPECT).await.map_err(StepError::from)?);
        let extent = extent(&client, &skips).await?;
        let generation = self.create(&mut client).await?;
        let (database, keyring) = (self.rebuilds.database.clone(), Arc::clone(&self.rebuilds.keyring));
        let source = Source { database, keyring, head: extent.head, skips };
        let (at_first, at_last): (Vec<String>, Vec<String>) =
            migrations::index_statements(COMPANY_PROSPECT, generation)?.into_iter().partition(|statement| {
                statement.contains("ADD PRIMARY KEY") && !statement.contains(".company_prospect ")
            });

        self.enter("companies", 2 * extent.companies).await?;
        let merged = self.companies(&source, generation).await?;
        for key in at_first {
            client.batch_execute(&key).await?;
        }
        self.enter("prospects", 2 * extent.prospects).await?;
        let erased = self.prospects(&source, generation, merged).await?;
        Loader::open(&source.database, generation).await?.own_rows().await?;

        self.enter("indexes", i64::try_from(at_last.len()).unwrap_or(i64::MAX)).await?;
        self.indexes(&client, at_last).await?;
        self.open_up(&mut client, generation, &extent).await?;
        // Where nobody keeps the live one up to date, because it is another version's, these have not come to it.
        let own = Own { generation, code_version: self.rebuilds.code_version, live: false };
        elsewhere::clear(&client, own, erased).await?;
        Ok(generation)
    }

    async fn enter(&self, phase: &str, total: i64) -> Result<(), RebuildError> {
        self.desk.enter(self.request, self.progress, phase, total).await
    }

    /// The live generation's size, and the half again that sorting takes, is what the new one is thought to need.
    async fn see_that_there_is_room(&self, client: &Client) -> Result<(), RebuildError> {
        const SQL: &str = "-- projector::rebuild::see_that_there_is_room
            SELECT (greatest(
                (SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class AS c
                 WHERE c.relkind = 'r' AND c.relnamespace = to_regnamespace('read_' || l.generation)),
                -- A live generation that is far behind says little: then as much as the log.
                CASE WHEN c.position < h.position / 2 THEN pg_table_size('log.events') ELSE 0 END
            ) * 1.5)::bigint
            FROM read.live AS l JOIN read.checkpoints AS c USING (projection, generation), log.head AS h
            WHERE l.projection = $1";
        let needed: i64 = client.query_one(SQL, &[&COMPANY_PROSPECT]).await?.get(0);
        match self.request.room_bytes {
            Some(room) if room < needed => Err(RebuildError::Room { needed, room }),
            _ => Ok(()),
        }
    }

    /// Makes the tables, and names them in the request in the same transaction: nobody takes them for left over.
    async fn create(&self, client: &mut Client) -> Result<i32, RebuildError> {
        const NUMBER: &str = "-- projector::rebuild::create, number
            SELECT nextval('read.generation_numbers')::integer";
        const TAKEN: &str = "-- projector::rebuild::create, taken
            SELECT to_regnamespace('read_' || $1::integer) IS NOT NULL
                OR EXISTS (SELECT FROM read.generations AS g WHERE g.generation = $1)";
        const NAME: &str = "-- projector::rebuild::create, name
            UPDATE read.rebuilds SET generation = $3 WHERE rebuild_id = $1 AND worker = $2 AND finished_at IS NULL";
        let transaction = client.transaction().await?;
        let generation = loop {
            let number: i32 = transaction.query_one(NUMBER, &[]).await?.get(0);
            if !transaction.query_one(TAKEN, &[&number]).await?.get::<_, bool>(0) {
                break number;
            }
        };
        migrations::create_generation(&transaction, COMPANY_PROSPECT, generation, self.rebuilds.code_version).await?;
        if transaction.execute(NAME, &[&self.request.id, &self.desk.worker(), &generation]).await? != 1 {
            return Err(RebuildError::Lost);
        }
        transaction.commit().await?;
        Ok(generation)
    }

    /// Folds and loads all companies, and who stands for whom.
    async fn companies(&self, source: &Source, generation: i32) -> Result<Merged, RebuildError> {
        let (workers, bytes_max) = self.workers();
        let shards = Arc::new(Mutex::new(Shard::parts(workers)));
        let merged = Arc::new(Mutex::new(Merged::new()));
        let work = || {
            let (source, progress) = (source.clone(), Arc::clone(self.progress));
            let (shards, merged) = (Arc::clone(&shards), Arc::clone(&merged));
            async move {
                let loader = Loader::open(&source.database, generation).await?;
                while let Some(shard) = next(&shards) {
                    let part = shard::fold::<Company>(&source, shard, bytes_max, &progress.done).await?;
                    add(&shards, part.left);
                    let of_part = loader.companies(part.records, |events| progress.add(events)).await?;
                    merged.lock().expect(UNPOISONED).extend(of_part);
                }
                Ok(())
            }
        };
        all((0..workers).map(|_| work())).await?;
        let merged = std::mem::take(&mut *merged.lock().expect(UNPOISONED));
        Loader::open(&source.database, generation).await?.merged(&merged).await?;
        Ok(merged)
    }

    /// Folds and loads all prospects; gives those who were erased.
    async fn prospects(&self, source: &Source, generation: i32, merged: Merged) -> Result<Vec<Erased>, RebuildError> {
        let (workers, bytes_max) = self.workers();
        let merged = Arc::new(merged);
        let shards = Arc::new(Mutex::new(Shard::parts(workers)));
        let erased = Arc::new(Mutex::new(Vec::new()));
        let work = || {
            let (source, progress, merged) = (source.clone(), Arc::clone(self.progress), Arc::clone(&merged));
            let (shards, erased) = (Arc::clone(&shards), Arc::clone(&erased));
            async move {
                let loader = Loader::open(&source.database, generation).await?;
                while let Some(shard) = next(&shards) {
                    let part = shard::fold::<Prospect>(&source, shard, bytes_max, &progress.done).await?;
                    add(&shards, part.left);
                    erased.lock().expect(UNPOISONED).extend(elsewhere::erased(&part.records));
                    loader.prospects(part.records, &merged, |events| progress.add(events)).await?;
                }
                Ok(())
            }
        };
        all((0..workers).map(|_| work())).await?;
        Ok(std::mem::take(&mut *erased.lock().expect(UNPOISONED)))
    }

    /// How many parts are folded at the same time, and the bytes of records of each: half of the memory, because rows and what is on its
    /// way take some too.
    fn workers(&self) -> (usize, usize) {
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX).next_power_of_two();
        (workers, self.request.memory_bytes / 2 / workers)
    }

    /// Makes the indexes: the key, which nobody else can work beside, then the others, some at a time.
    async fn indexes(&self, client: &Client, statements: Vec<String>) -> Result<(), RebuildError> {
        let (keys, others): (Vec<String>, Vec<String>) =
            statements.into_iter().partition(|statement| statement.contains("ADD PRIMARY KEY"));
        for key in keys {
            client.batch_execute(&key).await?;
            self.progress.add(1);
        }
        // The last ones first: they are of the larger table.
        let others = Arc::new(Mutex::new(others));
        let work = || {
            let (database, others) = (self.rebuilds.database.clone(), Arc::clone(&others));
            let progress = Arc::clone(self.progress);
            async move {
                let mut driven = JoinSet::new();
                let client = connect(&database, &mut driven).await?;
                client.batch_execute(INDEX_MEMORY).await?;
                while let Some(statement) = next(&others) {
                    client.batch_execute(&statement).await?;
                    progress.add(1);
                }
                Ok(())
            }
        };
        all((0..self.workers().0).map(|_| work())).await
    }

    /// Counts what the tables hold, lets others see them, and has steps begin after the head that was loaded.
    async fn open_up(&self, client: &mut Client, generation: i32, extent: &Extent) -> Result<(), RebuildError> {
        const STEP: &str = "-- projector::rebuild::open_up
            INSERT INTO read.checkpoint_steps (projection, generation, step, position, epoch) VALUES ($1, $2, 1, $3, $4)";
        let schema = migrations::schema_name(generation);
        client
            .batch_execute(&format!(
                "ANALYZE {schema}.companies; ANALYZE {schema}.merged_companies; ANALYZE {schema}.company_prospect;
                 SET synchronous_commit = on"
            ))
            .await?;
        let transaction = client.transaction().await?;
        migrations::open_access(&transaction, COMPANY_PROSPECT, generation).await?;
        transaction.execute(STEP, &[&COMPANY_PROSPECT, &generation, &extent.head, &extent.epoch]).await?;
        transaction.commit().await?;
        self.progress.position.store(extent.head, Ordering::Relaxed);
        Ok(())
    }
}

/// What the log has. It has no holes and no records of other sorts: whoever reads it in parts would not see them.
async fn extent(client: &Client, skips: &Skips) -> Result<Extent, RebuildError> {
    const HEAD: &str = "-- projector::rebuild::extent, head
        SELECT position, coalesce(epoch, '') FROM log.head";
    const COUNT: &str = "-- projector::rebuild::extent
        SELECT count(*), count(*) FILTER (WHERE e.aggregate_type = $2), count(*) FILTER (WHERE e.aggregate_type = $3),
               min(e.position) FILTER (WHERE e.aggregate_type <> ALL ($4 /* all sorts */) AND e.position <> ALL ($5 /* left out */))
        FROM log.events AS e WHERE e.position <= $1";
    const HOLE: &str = "-- projector::rebuild::extent, hole
        SELECT g.position FROM generate_series(1::bigint, $1::bigint) AS g (position)
        WHERE NOT EXISTS (SELECT FROM log.events AS e WHERE e.position = g.position) ORDER BY 1 LIMIT 1";
    const OTHER: &str = "-- projector::rebuild::extent, other
        SELECT aggregate_type FROM log.events WHERE position = $1";
    let row = client.query_one(HEAD, &[]).await?;
    let (head, epoch): (i64, String) = (row.get(0), row.get(1));
    let sorts: Vec<&str> = [Company::TYPE, Prospect::TYPE].into_iter().chain(WITHOUT_ROWS).collect();
    let parameters: [&(dyn ToSql + Sync); 5] = [&head, &Company::TYPE, &Prospect::TYPE, &sorts, &skips.positions()];
    let row = client.query_one(COUNT, &parameters).await?;
    if let Some(position) = row.get::<_, Option<i64>>(3) {
        let aggregate_type = client.query_one(OTHER, &[&position]).await?.get(0);
        return Err(StepError::from(ApplyError::Sort { position, aggregate_type }).into());
    }
    if row.get::<_, i64>(0) != head {
        let hole = client.query_opt(HOLE, &[&head]).await?.map_or(head, |row| row.get(0));
        return Err(StepError::from(FeedError::Hole(hole)).into());
    }
    Ok(Extent { head, epoch, companies: row.get(1), prospects: row.get(2) })
}

const UNPOISONED: &str = "nobody panics while holding it";

fn next<T>(work: &Mutex<Vec<T>>) -> Option<T> {
    work.lock().expect(UNPOISONED).pop()
}

fn add<T>(work: &Mutex<Vec<T>>, more: Vec<T>) {
    work.lock().expect(UNPOISONED).extend(more);
}

/// Does all of this at the same time; the first that fails ends the others.
async fn all<F>(work: impl Iterator<Item = F>) -> Result<(), RebuildError>
where
    F: Future<Output = Result<(), RebuildError>> + Send + 'static,
{
    let mut workers = JoinSet::new();
    for one in work {
        workers.spawn(one);
    }
    while let Some(done) = workers.join_next().await {
        done.expect("whoever works does not panic")?;
    }
    Ok(())
}
