//! Building the next generation of the projection beside the live one, and making it live; or the previous one live again
//! (decision 13, `docs/decisions/0011-a-rebuild-is-sharded-by-record.md`).
//!
//! The way of a rebuild: [`request`] takes what is asked for → [`shard`](crate::shard) reads and folds the log in parts → [`load`] copies their rows
//! into tables without indexes → [`build`] makes the indexes → a [`Projection`] on the new generation takes the events that came
//! meanwhile → [`verify`](crate::verify) compares with the log, [`beside`] with the live one → [`swap`].

mod beside;
mod build;
mod load;
mod request;
mod swap;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use event_store::feed::FeedError;
use event_store::keyring::Keyring;
use migrations::{CODE_VERSION, COMPANY_PROSPECT, GenerationError};
use service_kit::postgres::Database;
use service_kit::shutdown::Shutdown;
use tokio::task::JoinSet;
use tokio_postgres::Error;

use crate::connection::connect;
use crate::projection::{Projection, StepError};
use crate::refresh::{Refresher, Schedule};
use crate::verify::{VerifyError, verify_generation};
use beside::Beside;
use build::Build;
use request::{Desk, Progress, Request};

/// How often it is looked whether something is asked for.
const POLL: Duration = Duration::from_millis(500);
/// After so many attempts that ended in the middle, killed ones included, a request fails.
const ATTEMPTS_MAX: i32 = 20;
/// A projector that has said nothing for so long stands still, and others take over from it.
const LEASE: Duration = Duration::from_secs(10);
/// Memory of a rebuild that a program of a newer version asks for itself.
const MEMORY_BYTES: usize = 1 << 30;
/// How long what is counted of a generation may take before it goes live. Nothing else counts by it.
const COUNTING: Schedule = Schedule {
    events: i64::MAX,
    age: Duration::MAX,
    lock_wait: Duration::from_secs(5),
    length: Duration::from_secs(1_800),
};
/// How often it is looked whether another count has ended.
const COUNTS_MAX: usize = 1_200;

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
    /// It is not what the log leads to.
    #[error(
        "the new generation differs from an independent fold of the log in {0} places, so it does not go live; the first of them stand with \
         the request. If an event was left out meanwhile (`prospectus projection skip`), ask again; else this is a fault of the program"
    )]
    Differs(usize),
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
            Self::NotNear | Self::Step(StepError::NoAnswer(_) | StepError::Fenced) => true,
            Self::Database(error)
            | Self::Step(StepError::Database(error) | StepError::Feed(FeedError::Database(error)))
            | Self::Generation(GenerationError::Database(error))
            | Self::Verify(
                VerifyError::Database(error)
                | VerifyError::Log(StepError::Database(error) | StepError::Feed(FeedError::Database(error))),
            ) => passes(error),
            _ => false,
        }
    }
}

/// Whether the database may say otherwise another time: it was away, had no room for one more connection, or somebody was in the way. A full
/// disk, a value that does not fit or a damaged table are there the next time as well.
fn passes(error: &Error) -> bool {
    const CLASSES: [&str; 6] = ["08", "57", "40", "55P03", "53300", "25P03"];
    error.code().is_none_or(|code| CLASSES.iter().any(|class| code.code().starts_with(class)))
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
        let (mut told, mut asked) = (None, false);
        while !shutdown.is_requested() {
            let Err(error) = tokio::select! {
                () = shutdown.requested() => return,
                worked = self.work(&mut asked) => worked,
            };
            let said = error.to_string();
            if told.as_ref() != Some(&said) {
                tracing::warn!(error = said, "rebuilds cannot be looked for; tried again");
                told = Some(said);
            }
            tokio::select! { () = shutdown.requested() => return, () = tokio::time::sleep(POLL) => {} }
        }
    }

    async fn work(&self, asked: &mut bool) -> Result<std::convert::Infallible, RebuildError> {
        let mut desk = Desk::open(&self.database, self.code_version, self.lease).await?;
        let mut untidy = None;
        loop {
            // At its start a program asks whatever came of it before; then only where nothing came between.
            if desk.ask_for_own_version(MEMORY_BYTES, !*asked).await? {
                tracing::info!(
                    version = self.code_version,
                    "the live generation is of an older version: it is rebuilt"
                );
            }
            *asked = true;
            if let Err(error) = swap::tidy_up(desk.client(), self.code_version).await {
                let said = service_kit::postgres::describe(&error);
                if untidy.as_ref() != Some(&said) {
                    tracing::warn!(error = said, "views or old generations could not be put right; tried again");
                    untidy = Some(said);
                }
            }
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
        desk.enter(request, progress, "checking", 2 * projection.position()).await?;
        let check = async {
            let memory_bytes = request.memory_bytes;
            let report =
                verify_generation(&self.database, &self.keyring, generation, memory_bytes, &progress.done).await?;
            desk.set_report(request, &report).await?;
            if report.differences > 0 {
                return Err(RebuildError::Differs(report.differences));
            }
            desk.enter(request, progress, "counting", 0).await
        };
        // Each is one connection's work, which leaves room for the check. A check that fails ends them.
        let others = async { Ok(tokio::join!(self.beside(generation), self.count(generation, projection.position()))) };
        let ((), (beside, ())) = tokio::try_join!(check, others)?;
        if let Some(beside) = beside? {
            let (differences, live) = (beside.count, beside.live);
            tracing::info!(generation, differences, live, "compared with the live generation");
            desk.set_beside(request, &beside).await?;
        }
        self.go_live(desk, request, progress, &mut projection).await
    }

    /// What the generation shows otherwise than the live one; nothing where that is not to be told.
    async fn beside(&self, generation: i32) -> Result<Option<Beside>, Error> {
        let mut driven = JoinSet::new();
        let read = connect(&self.database, &mut driven).await?;
        read.batch_execute("SET statement_timeout = 0").await?;
        match beside::compare(&read, generation).await {
            // What is live may be spoilt beyond reading: perhaps that is why one rebuilds.
            Err(error) if error.code().is_some() => {
                let said = service_kit::postgres::describe(&error);
                tracing::warn!(error = said, "the live generation cannot be compared with the new one");
                Ok(None)
            }
            compared => compared,
        }
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
        // What has come since it was counted first: numbers do not go back by a swap.
        self.count(projection.generation(), projection.position()).await;
        desk.enter(request, progress, "swapping", 0).await?;
        swap::swap(&self.database, desk, request, projection).await
    }

    /// Has what is counted of the generation include `position`, if it does not already: whoever asks for numbers right after the swap finds
    /// them. Where that cannot be, they are told later that the numbers are not there yet, and the generation goes live all the same.
    async fn count(&self, generation: i32, position: i64) {
        let mut refresher = Refresher::new(self.database.clone(), COUNTING);
        for _ in 0..COUNTS_MAX {
            match refresher.refresh_up_to(generation, position).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, generation, "what is counted of the generation could not be counted");
                    return refresher.forget().await;
                }
            }
            // The live generation's are being refreshed: one at a time over all.
            tokio::time::sleep(POLL).await;
        }
        tracing::warn!(generation, "another refresh does not end: what is counted of the generation comes later");
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
