//! Erasing again: the list outside the database against the log.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use domain::prospect::EraseProspect;
use event_store::erasures::{Erasure, KeptErasure, PAGE};
use event_store::{Forgotten, Metadata, Request};
use tokio_postgres::Client;
use uuid::Uuid;

use super::{ErasureList, KeepError};
use crate::carry_out::Executors;

/// How long one erasure may take.
const DEADLINE: Duration = Duration::from_secs(30);

impl ErasureList {
    /// Erases everybody in the list again whom the log holds as somebody who is not erased. Two processes that do it at the same time
    /// erase nobody twice.
    ///
    /// # Errors
    /// If the list cannot be read, the database is away, or a person's key row is missing, which is damage and never taken for an
    /// erasure. Then it is to be done again; [`ErasureList::is_applied`] says no until it is.
    pub async fn apply_again(&self, executors: &Executors) -> Result<(), KeepError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        self.another_life.store(true, Ordering::SeqCst);
        let (path, bytes) = {
            let kept = kept.lock().await;
            (kept.path.clone(), kept.bytes)
        };
        let client = self.pool.get().await?;
        let mut at = 0;
        while at < bytes {
            let (erasures, next) = page(path.clone(), at, bytes).await?;
            at = next;
            for (tenant_id, person) in not_erased(&client, &erasures).await? {
                let request = request(tenant_id);
                let became = executors.prospects.erase_again(&client, person, EraseProspect::again(), &request).await?;
                if matches!(became, Forgotten::Erased | Forgotten::Emptied) {
                    metrics::counter!("prospectus_erasures_reapplied_total").increment(1);
                    tracing::warn!(%tenant_id, %person, "the log did not know that this person was erased: erased again");
                }
            }
        }
        self.another_life.store(false, Ordering::SeqCst);
        Ok(())
    }
}

/// The lines from a place of the list on, at most [`PAGE`], and the place after them.
async fn page(path: PathBuf, at: u64, end: u64) -> Result<(Vec<Erasure>, u64), KeepError> {
    let failed = |source| KeepError::File { path: path.clone(), source };
    let read = {
        let path = path.clone();
        move || -> io::Result<(Vec<Option<Erasure>>, u64)> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(at))?;
            let (mut lines, mut line, mut next) = (BufReader::new(file), String::new(), at);
            let mut erasures = Vec::new();
            while i64::try_from(erasures.len()).is_ok_and(|count| count < PAGE) && next < end {
                line.clear();
                let read = lines.read_line(&mut line)?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                next += read as u64;
                erasures.push(serde_json::from_str::<KeptErasure>(&line).ok().map(|kept| kept.erasure));
            }
            Ok((erasures, next))
        }
    };
    let read = tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    let (erasures, next) = read.map_err(failed)?;
    // Every line was read when the list was opened, or written since.
    let changed = || KeepError::File { path: path.clone(), source: io::Error::other("it was changed meanwhile") };
    Ok((erasures.into_iter().collect::<Option<_>>().ok_or_else(changed)?, next))
}

/// Of these persons, those whom the log holds and whose key is not emptied.
async fn not_erased(client: &Client, erasures: &[Erasure]) -> Result<Vec<(Uuid, Uuid)>, KeepError> {
    const SQL: &str = "-- command_service::erasures::again::not_erased
        SELECT n.tenant_id, n.person_id FROM unnest($1::uuid[], $2::uuid[]) AS n (tenant_id, person_id)
        WHERE EXISTS (SELECT FROM log.events AS e WHERE e.tenant_id = n.tenant_id AND e.aggregate_id = n.person_id AND e.sequence = 1)
          AND NOT EXISTS (SELECT FROM log.person_keys AS k
                          WHERE k.tenant_id = n.tenant_id AND k.person_id = n.person_id AND k.erased_position IS NOT NULL)";
    let (tenants, persons): (Vec<Uuid>, Vec<Uuid>) =
        erasures.iter().map(|erasure| (erasure.tenant_id, erasure.person_id)).unzip();
    Ok(client.query(SQL, &[&tenants, &persons]).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn request(tenant_id: Uuid) -> Request {
    let request_id = Uuid::now_v7().to_string();
    let metadata = Metadata {
        actor: "command-service".to_owned(),
        actor_role: "system".to_owned(),
        correlation_id: request_id.clone(),
        causation_id: None,
        request_id,
        source: "erasures list".to_owned(),
        client_address: None,
    };
    let deadline = Instant::now() + DEADLINE;
    Request { tenant_id, metadata, receipt: None, if_match: None, deadline, patient: true }
}
