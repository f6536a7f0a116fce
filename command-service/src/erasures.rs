//! Erasures beyond the log: the list of erased persons outside the database, and the forgetting of what this process keeps in memory.
//!
//! Every command service has a file of its own, and each file gets every erasure of the log, whoever carried it out: the one of this
//! process before it is answered, those of others within [`LOOK_EVERY`]. So one file that survives is enough.
//!
//! The way back is [`again`]: whom the log has forgotten to be erased, after a restored backup or a promotion that lost a tail, is erased
//! again before this process serves, and whenever the log begins another life.

mod again;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::Pool;
use domain::ProspectError;
use event_store::ForgetError;
use event_store::erasures::{Erasure, Follower, KeptErasure, Place};
use service_kit::postgres::describe;
use service_kit::shutdown::Shutdown;
use tokio::sync::Mutex;

use crate::carry_out::Executors;

/// How often it is looked whether another process has erased somebody.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The list outside the database; none where no file was named.
pub struct ErasureList {
    pool: Pool,
    kept: Option<Mutex<Kept>>,
    /// The log has begun another life, and may not know of everybody in the list.
    another_life: AtomicBool,
}

/// The file, as far as it is good.
struct Kept {
    path: PathBuf,
    file: Arc<File>,
    /// Bytes of whole lines: what is beyond them is left of a write that failed.
    bytes: u64,
    place: Place,
}

/// Why an erasure is not in the list.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The file cannot be read or written.
    #[error("the list of erasures {}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of it is none of ours.
    #[error("the list of erasures {}, line {line}: not a line that this service has written; put the file right or name another one", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// Another process writes to it.
    #[error("the list of erasures {}: another process keeps it; every command service needs a file of its own", .0.display())]
    InUse(PathBuf),
    /// The database is away.
    #[error("no connection to the database: {0}")]
    Pool(#[from] deadpool_postgres::PoolError),
    /// The database refuses.
    #[error("the database: {}", describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// The log does not have what was just written to it.
    #[error("the erasure at position {0} is not in the database's list")]
    Missing(i64),
    /// Somebody who was erased cannot be erased again.
    #[error("erasing again whom the log has forgotten to be erased: {0}")]
    Again(#[from] ForgetError<ProspectError>),
}

impl ErasureList {
    /// Opens the file, making it where it is not there yet, and finds out how far it is.
    ///
    /// # Errors
    /// If it cannot be read and written, is not one of these, or belongs to another process.
    pub fn open(path: Option<&Path>, pool: Pool) -> Result<Self, KeepError> {
        if path.is_none() {
            tracing::warn!(
                "PROSPECTUS_ERASURES_FILE is not set: a backup that is restored brings back whom it holds, and nothing outside the database says \
                 who was erased since"
            );
        }
        let kept = path.map(Kept::open).transpose()?.map(Mutex::new);
        Ok(Self { pool, kept, another_life: AtomicBool::new(false) })
    }

    /// Whether everybody in the list is known to be erased in the log.
    pub fn is_applied(&self) -> bool {
        !self.another_life.load(Ordering::SeqCst)
    }

    /// Makes sure that the list has all erasures up to this position: they are on the disk when this returns.
    ///
    /// # Errors
    /// If the list cannot be written or the database not be asked.
    pub async fn keep_up_to(&self, position: i64) -> Result<(), KeepError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let mut kept = kept.lock().await;
        self.catch_up(&mut kept).await?;
        if kept.place.position < position { Err(KeepError::Missing(position)) } else { Ok(()) }
    }

    async fn catch_up(&self, kept: &mut Kept) -> Result<(), KeepError> {
        let client = self.pool.get().await?;
        loop {
            let before = kept.place;
            let (erasures, place) = before.next(&client).await?;
            if place.position < before.position || (before.epoch > 0 && place.epoch != before.epoch) {
                self.another_life.store(true, Ordering::SeqCst);
            }
            if erasures.is_empty() {
                kept.place = place;
                return Ok(());
            }
            kept.write(erasures, place).await?;
        }
    }
}

impl Kept {
    fn open(path: &Path) -> Result<Self, KeepError> {
        let failed = |source| KeepError::File { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(0o600).open(path).map_err(failed)?;
        file.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => KeepError::InUse(path.to_owned()),
            std::fs::TryLockError::Error(source) => failed(source),
        })?;
        if let Some(parent) = path.canonicalize().map_err(failed)?.parent() {
            // The file's name is to survive as its lines do.
            File::open(parent).and_then(|directory| directory.sync_all()).map_err(failed)?;
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        // What follows the last line break was never acknowledged.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut place = Place::default();
        for (number, line) in text[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
            let kept: KeptErasure = serde_json::from_slice(line)
                .map_err(|_| KeepError::Line { path: path.to_owned(), line: number + 1 })?;
            place = Place { position: kept.erasure.position, epoch: kept.epoch };
        }
        Ok(Self { path: path.to_owned(), file: Arc::new(file), bytes: whole as u64, place })
    }

    async fn write(&mut self, erasures: Vec<Erasure>, place: Place) -> Result<(), KeepError> {
        let mut lines = Vec::new();
        for erasure in erasures {
            let kept = KeptErasure { erasure, epoch: place.epoch };
            serde_json::to_writer(&mut lines, &kept).expect("ids, times and numbers always serialise");
            lines.push(b'\n');
        }
        let (file, good, added) = (Arc::clone(&self.file), self.bytes, lines.len() as u64);
        let written = tokio::task::spawn_blocking(move || {
            file.set_len(good)?;
            (&*file).write_all(&lines)?;
            file.sync_data()
        });
        let written = written.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        written.map_err(|source| KeepError::File { path: self.path.clone(), source })?;
        (self.bytes, self.place) = (good + added, place);
        Ok(())
    }
}

/// Forgets whom other processes have erased, and writes them into the list, until the service ends.
pub async fn forget(list: Arc<ErasureList>, executors: Arc<Executors>, pool: Pool, shutdown: Shutdown) {
    let mut follower: Option<Follower> = None;
    loop {
        if let Err(error) = look(&list, &executors, &pool, &mut follower).await {
            metrics::counter!("prospectus_erasures_failed_total").increment(1);
            tracing::warn!(%error, "erasures could not be followed");
        }
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

async fn look(
    list: &ErasureList,
    executors: &Executors,
    pool: &Pool,
    follower: &mut Option<Follower>,
) -> Result<(), KeepError> {
    let client = pool.get().await?;
    if let Some(follower) = follower {
        for (tenant_id, person_id) in follower.look(&client).await? {
            executors.prospects.forget(tenant_id, person_id);
        }
    } else {
        let begun = Follower::begin(&client).await?;
        // What was kept until here may be of somebody who was erased before.
        executors.prospects.forget_all();
        *follower = Some(begun);
    }
    drop(client);
    list.keep_up_to(0).await?;
    if list.is_applied() { Ok(()) } else { list.apply_again(executors).await }
}
