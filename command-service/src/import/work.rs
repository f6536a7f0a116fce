//! Taking imports up: those that were just received, and those that a process left when it ended.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::import::OPEN;
use service_kit::shutdown::Shutdown;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Imports;
use super::lease::{Lease, LeaseError};
use super::places::Place;
use super::run::Run;
use super::staging::StagingError;
use super::world::Trouble;

/// How often it looks for imports that nobody works on.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often expired bytes are removed.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// Works on imports until the end is requested. What is under way then is left where it is: it goes on with the next start.
pub async fn work(imports: Arc<Imports>, shutdown: Shutdown) {
    let mut expired = tokio::time::interval(EXPIRY_INTERVAL);
    let under_way = Arc::new(UnderWay::default());
    // Ends them when it is dropped.
    let mut tasks = JoinSet::new();
    loop {
        match take_up(&imports, &under_way, &mut tasks).await {
            Ok(()) => {}
            Err(error) => tracing::warn!(error = %error, "imports cannot be looked for"),
        }
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "an import broke; it is taken up again");
            }
        }
        tokio::select! {
            () = shutdown.requested() => return,
            () = imports.wake.notified() => {}
            () = tokio::time::sleep(INTERVAL) => {}
            _ = expired.tick() => remove_expired(&imports).await,
        }
    }
}

/// Imports that this process works on.
#[derive(Default)]
struct UnderWay(Mutex<HashSet<Uuid>>);

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them, while it lives.
struct Entry {
    under_way: Arc<UnderWay>,
    import_id: Uuid,
    _place: Place,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.import_id);
    }
}

async fn take_up(
    imports: &Arc<Imports>,
    under_way: &Arc<UnderWay>,
    tasks: &mut JoinSet<()>,
) -> Result<(), StagingError> {
    // The index holds only these, and few at any time. Of every tenant the oldest first; those that another process works on are left
    // out before a connection is opened for them: the lock is given back with the statement.
    const SQL: &str = "-- command_service::import::work::take_up
        SELECT tenant_id, aggregate_id FROM (
            SELECT tenant_id, aggregate_id, row_number() OVER (PARTITION BY tenant_id ORDER BY aggregate_id) AS place
            FROM log.claims WHERE kind = 'import_open' AND NOT released AND aggregate_id <> ALL ($1)
            ORDER BY place, aggregate_id LIMIT 200) AS open
        WHERE pg_try_advisory_xact_lock(hashtextextended('import ' || aggregate_id::text, 0))
        ORDER BY place, aggregate_id";
    debug_assert_eq!(OPEN, "import_open");
    let client = imports.staging.client().await?;
    if !imports.running.has_room() {
        return Ok(());
    }
    let mine: Vec<Uuid> = under_way.lock().iter().copied().collect();
    let rows = client.query(SQL, &[&mine]).await?;
    drop(client);
    for row in rows {
        let (tenant_id, import_id): (Uuid, Uuid) = (row.get(0), row.get(1));
        let Some(place) = imports.running.take(tenant_id) else { continue };
        if !under_way.lock().insert(import_id) {
            continue;
        }
        let entry = Entry { under_way: Arc::clone(under_way), import_id, _place: place };
        let mut lease = match Lease::take(&imports.database, import_id).await {
            Ok(lease) => lease,
            Err(LeaseError::Held) => continue,
            Err(LeaseError::Unavailable(why)) => {
                tracing::warn!(why, "an import cannot be taken up");
                return Ok(());
            }
        };
        let run = Arc::new(Run {
            tenant_id,
            import_id,
            executors: Arc::clone(&imports.executors),
            staging: imports.staging.clone(),
            turns: Arc::clone(&imports.turns),
        });
        let imports = Arc::clone(imports);
        tasks.spawn(async move {
            let entry = entry;
            tokio::select! {
                () = lease.lost() => tracing::warn!(%import_id, "the lock on an import was lost"),
                done = run.run() => match done {
                    Ok(()) => tracing::info!(%import_id, "an import is at its end"),
                    Err(Trouble::Lasting(why)) => tracing::error!(%import_id, why, "an import cannot go on"),
                    Err(trouble) => tracing::warn!(%import_id, why = %trouble, "an import is taken up again later"),
                },
            }
            drop((lease, entry));
            imports.changed.notify_waiters();
        });
    }
    Ok(())
}

async fn remove_expired(imports: &Imports) {
    loop {
        match imports.staging.remove_expired().await {
            Ok(true) => metrics::counter!("prospectus_imports_expired_total").increment(1),
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "expired imports could not be removed");
                return;
            }
        }
    }
}
