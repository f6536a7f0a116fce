//! The sealer: signs heads of the Merkle tree over the log (decision 18). What it builds and checks is `event_store::proof`; here is the
//! loop around it: one sealer at a time by an advisory lock, when a head is due, where heads go.
//!
//! A head is signed only over what a connected standby has flushed, so that a promotion loses nothing that was sealed; where none is
//! connected, over what the primary has. It is stored first, then written to the file outside the database, then published on NATS.
//! What the file and this process's memory hold of earlier heads must fit what is stored, or nothing is signed.

mod heads_file;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use event_store::feed::{Feed, FeedError};
use event_store::proof::heads::{HeadsError, StoredHead};
use event_store::proof::sealing::{LostTail, SealError, Sealing};
use event_store::proof::{SealKeys, SignedHead};
use service_kit::postgres::Database;
use service_kit::shutdown::Shutdown;
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::types::PgLsn;

use crate::config::Config;
use heads_file::HeadsFile;

/// The subject that heads are published on, as JSON.
pub const SUBJECT: &str = "prospectus.heads";

/// How often the log is looked at. A standby has mostly flushed by the next look.
const LOOK: Duration = Duration::from_millis(100);
/// From one head to the next, at least: with the looks and the standby it comes to less than a second, with some room for a machine that is full.
const HEAD_EVERY: Duration = Duration::from_millis(400);
/// Wait after anything failed, and between attempts to get the lock.
const RETRY_WAIT: Duration = Duration::from_millis(500);
/// How long one statement may take.
const STATEMENT_TIMEOUT: &str = "30s";
/// How long NATS may take for a connection.
const NATS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a head may wait for room among those that are still to be sent: sealing must not wait for NATS.
const NATS_ROOM_TIMEOUT: Duration = Duration::from_millis(100);

/// Why sealing stopped for now.
#[derive(Debug, thiserror::Error)]
enum SealerError {
    /// The library's reason.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The file of heads cannot be kept.
    #[error("the file of heads {path}: {reason}")]
    File {
        /// Which file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<tokio_postgres::Error> for SealerError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Seal(error.into())
    }
}

impl From<FeedError> for SealerError {
    fn from(error: FeedError) -> Self {
        Self::Seal(error.into())
    }
}

impl From<HeadsError> for SealerError {
    fn from(error: HeadsError) -> Self {
        Self::Seal(error.into())
    }
}

/// What the sealer does until the end is asked for; none if it is not configured.
///
/// # Errors
/// If it has a database and no key, or one of them is none.
pub fn work(config: &Config, shutdown: Shutdown) -> anyhow::Result<Option<impl Future<Output = ()> + Send + use<>>> {
    let Some(url) = &config.sealer_database_url else {
        tracing::info!("no sealer in this process: PROSPECTUS_SEALER_DATABASE_URL is not set");
        return Ok(None);
    };
    let keys = SealKeys::parse(config.seal_key_text()?.expose()).context("the key that seals")?;
    let sealer = Sealer {
        database: Database::parse(url.expose(), "prospectus sealer")?
            .read_write()
            .with_option("statement_timeout", STATEMENT_TIMEOUT),
        keys,
        nats_url: config.nats_url.as_ref().map(|url| url.expose().to_owned()),
        nats: None,
        heads_file: config.heads_file.clone(),
        newest: None,
        told: None,
    };
    Ok(Some(async move {
        tokio::select! {
            () = shutdown.requested() => {}
            () = sealer.run() => {}
        }
    }))
}

struct Sealer {
    database: Database,
    keys: SealKeys,
    nats_url: Option<String>,
    nats: Option<async_nats::Client>,
    heads_file: Option<PathBuf>,
    /// The newest head that this process has stored.
    newest: Option<SignedHead>,
    /// The lost tail that was told of last.
    told: Option<LostTail>,
}

/// Where the log and its standbys are.
struct Look {
    position: i64,
    /// Everything up to `position` is in the write-ahead log before this place.
    written: PgLsn,
    standbys: i64,
    flushed: Option<PgLsn>,
}

impl Sealer {
    async fn run(mut self) {
        let mut said = String::new();
        // A rule that asks for what has never been sees nothing.
        for counter in ["prospectus_sealer_failures_total", "prospectus_sealer_lost_tails_total"] {
            metrics::counter!(counter).increment(0);
        }
        for gauge in ["prospectus_sealer_active", "prospectus_sealer_refuses"] {
            metrics::gauge!(gauge).set(0.0);
        }
        loop {
            if let Err(error) = self.seal().await {
                metrics::counter!("prospectus_sealer_failures_total").increment(1);
                metrics::gauge!("prospectus_sealer_active").set(0.0);
                let refuses = matches!(error, SealerError::Seal(SealError::Refused(_)));
                metrics::gauge!("prospectus_sealer_refuses").set(if refuses { 1.0 } else { 0.0 });
                let error = error.to_string();
                // Once per reason, not twice a second for as long as it lasts.
                match (error == said, refuses) {
                    (true, _) => tracing::debug!(error, "the sealer tries again"),
                    (false, true) => tracing::error!(error, "the sealer signs nothing"),
                    (false, false) => tracing::warn!(error, "the sealer stopped and tries again"),
                }
                said = error;
            }
            tokio::time::sleep(RETRY_WAIT).await;
        }
    }

    /// Seals until something fails.
    async fn seal(&mut self) -> Result<(), SealerError> {
        const LOCK: &str = "-- command_service::sealer::seal, lock
            SELECT pg_try_advisory_lock(5787213827046133842)";
        let feed = Feed::open(&self.database).await?;
        while !feed.client().query_one(LOCK, &[]).await?.get::<_, bool>(0) {
            // Another one seals; what it refuses, it says.
            metrics::gauge!("prospectus_sealer_refuses").set(0.0);
            tokio::time::sleep(RETRY_WAIT).await;
        }
        let mut file = self.heads_file.clone().map(HeadsFile::open).transpose()?;
        let kept = file.as_ref().and_then(HeadsFile::newest);
        let known = self.newest.iter().chain(kept).max_by_key(|head| head.head.time).cloned();
        let (mut sealing, lost) = Sealing::resume(&feed, &self.keys, known.as_ref()).await?;
        self.tell_of(lost);
        if let Some(file) = &mut file {
            file.catch_up(feed.client()).await?;
        }
        if let Some(newest) = sealing.newest() {
            // Who published it last may have ended before it did.
            self.publish(newest).await;
        }
        tracing::info!(size = sealing.size(), key = self.keys.signer().id(), "the sealer seals");
        metrics::gauge!("prospectus_sealer_active").set(1.0);
        metrics::gauge!("prospectus_sealer_refuses").set(0.0);
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting: Option<(i64, PgLsn)> = None;
        let (mut target, mut due) = (0, Instant::now());
        loop {
            ticks.tick().await;
            let look = look(&feed).await?;
            target = look.sealable(&mut waiting).max(target);
            if u64::try_from(look.position).unwrap_or(0) < sealing.size() {
                return Err(SealError::AnotherLife.into());
            }
            if Instant::now() < due {
                continue;
            }
            while let Some(head) = sealing.seal(&feed, &self.keys, target, OffsetDateTime::now_utc()).await? {
                due = Instant::now() + HEAD_EVERY;
                self.newest = Some(head.signed.clone());
                if let Some(file) = &mut file {
                    file.append(std::slice::from_ref(&head))?;
                }
                self.publish(&head).await;
                metrics::counter!("prospectus_sealer_heads_total").increment(1);
            }
            report(sealing.size(), look.position);
        }
    }

    /// Says that sealed events were lost, once.
    fn tell_of(&mut self, lost: Option<LostTail>) {
        if let Some(lost) = lost.filter(|lost| self.told.as_ref() != Some(lost)) {
            tracing::error!(
                first = lost.from,
                last = lost.head.head.tree_size,
                epoch = lost.epoch,
                "a tail of the log that was sealed is lost: sealing goes on with the events of the new epoch"
            );
            metrics::counter!("prospectus_sealer_lost_tails_total").increment(1);
            self.told = Some(lost);
        }
    }

    /// Publishes a head, if NATS is there: it carries news, never truth.
    async fn publish(&mut self, head: &StoredHead) {
        let Some(url) = &self.nats_url else { return };
        if self.nats.is_none() {
            let options = async_nats::ConnectOptions::new().connection_timeout(NATS_TIMEOUT).retry_on_initial_connect();
            self.nats = options.connect(url).await.ok();
        }
        let Some(nats) = &self.nats else { return };
        let body = serde_json::to_vec(&head.signed).expect("texts and numbers always serialise");
        let sent = tokio::time::timeout(NATS_ROOM_TIMEOUT, nats.publish(SUBJECT, body.into())).await;
        if !matches!(sent, Ok(Ok(()))) {
            metrics::counter!("prospectus_sealer_unpublished_total").increment(1);
        }
    }
}

impl Look {
    /// Up to where events may be sealed now. Those that no standby has yet wait for the next look.
    fn sealable(&self, waiting: &mut Option<(i64, PgLsn)>) -> i64 {
        let is_safe = |written: PgLsn| self.standbys == 0 || self.flushed.is_some_and(|flushed| flushed >= written);
        if is_safe(self.written) {
            *waiting = None;
            return self.position;
        }
        let safe = waiting.take_if(|(_, written)| is_safe(*written)).map_or(0, |(position, _)| position);
        waiting.get_or_insert((self.position, self.written));
        safe
    }
}

/// How far sealing is, and how many events wait, for a standby mostly.
#[expect(clippy::cast_precision_loss, reason = "figures")]
fn report(size: u64, position: i64) {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    metrics::gauge!("prospectus_sealer_position").set(size as f64);
    metrics::gauge!("prospectus_sealer_waiting_events").set(position.saturating_sub(size).max(0) as f64);
}

async fn look(feed: &Feed) -> Result<Look, SealerError> {
    // What the statement sees was flushed with its commit, before it asks how far flushing is.
    const SQL: &str = "-- command_service::sealer::look
        SELECT coalesce((SELECT e.position FROM log.events AS e ORDER BY e.position DESC LIMIT 1), 0),
               pg_current_wal_flush_lsn(), s.connected, s.flushed
        FROM log.standbys() AS s";
    let row = feed.client().query_one(SQL, &[]).await?;
    Ok(Look { position: row.get(0), written: row.get(1), standbys: row.get(2), flushed: row.get(3) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(position: i64, written: u64, flushed: Option<u64>) -> Look {
        let standbys = i64::from(flushed.is_some());
        Look { position, written: written.into(), standbys, flushed: flushed.map(Into::into) }
    }

    #[test]
    fn only_what_a_standby_has_flushed_is_sealed_and_without_one_all() {
        let mut waiting = None;
        assert_eq!(look(5, 100, None).sealable(&mut waiting), 5);
        assert_eq!(look(6, 110, Some(110)).sealable(&mut waiting), 6);
        assert_eq!(look(7, 120, Some(115)).sealable(&mut waiting), 0);
        // More has come, and the standby has only what was there at the look before.
        assert_eq!(look(9, 140, Some(125)).sealable(&mut waiting), 7);
        assert_eq!(look(12, 170, Some(139)).sealable(&mut waiting), 0);
        assert_eq!(look(13, 180, Some(140)).sealable(&mut waiting), 9);
        assert_eq!(look(13, 180, Some(180)).sealable(&mut waiting), 13);
        // The only standby goes away: what the primary has is all there is.
        assert_eq!(look(14, 190, Some(180)).sealable(&mut waiting), 0);
        assert_eq!(look(14, 190, None).sealable(&mut waiting), 14);
    }
}
