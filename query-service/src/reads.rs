//! Who was shown which records, noted before the answer is given, for tenants that ask for it. A read that cannot be noted is refused: a
//! log with holes would be no audit. Why the notes go straight to the primary: `docs/decisions/0010-reads-are-noted-first.md`.
//!
//! A handler says what it shows by leaving [`ShownRecords`] on its answer; [`note_shown`], around every route, notes it. An answer to
//! such a tenant on which nothing was left is not given, so no route can be forgotten.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use service_kit::auth::Principal;
use service_kit::http::RequestContext;
use service_kit::postgres::{Database, DatabaseError, describe};
use service_kit::problem::{Code, Problem};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::Service;

/// Notes that wait to be written; beyond it reads are refused.
const QUEUE_MAX: usize = 1_024;
/// Notes written at once: those that came while the ones before were being committed.
const BATCH_MAX: usize = 256;
/// How long the primary may take over one batch, and over a connection.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The records that an answer shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShownRecords(Vec<Uuid>);

impl ShownRecords {
    /// These, each once.
    pub(crate) fn new(ids: impl IntoIterator<Item = Uuid>) -> Self {
        let mut ids: Vec<Uuid> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        Self(ids)
    }

    /// Says so on an answer.
    pub(crate) fn on(self, mut response: Response) -> Response {
        response.extensions_mut().insert(self);
        response
    }
}

/// Who asks, and for what: what a note says beside the records.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) principal: Principal,
    pub(crate) context: RequestContext,
    /// The route, without ids and parameters.
    pub(crate) endpoint: Arc<str>,
}

struct Note {
    reader: Reader,
    records: Vec<Uuid>,
    written: oneshot::Sender<bool>,
}

/// Where reads are noted.
#[derive(Debug)]
pub struct ReadLog {
    /// None where no database is configured for it.
    queue: Option<mpsc::Sender<Note>>,
}

impl ReadLog {
    /// Starts the task that writes, which ends with the last handle. Nothing is connected to before there is something to note.
    ///
    /// # Errors
    /// If the URL is none.
    pub fn open(url: Option<&str>) -> Result<Self, DatabaseError> {
        let Some(url) = url else { return Ok(Self { queue: None }) };
        let database = Database::parse(url, "prospectus query-service, reads")?.read_write();
        let (queue, notes) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(write_all(database, notes));
        Ok(Self { queue: Some(queue) })
    }

    /// Notes that these records are shown, where the reader's tenant asks for it. Only then may they be.
    ///
    /// # Errors
    /// `database_unavailable` or `overloaded`.
    pub(crate) async fn note(&self, reader: &Reader, shown: ShownRecords) -> Result<(), Problem> {
        if !reader.principal.audits_reads || shown.0.is_empty() {
            return Ok(());
        }
        let Some(queue) = &self.queue else {
            tracing::error!("a tenant's reads are to be noted, but PROSPECTUS_READS_DATABASE_URL is not set");
            return Err(not_noted());
        };
        let (written, answer) = oneshot::channel();
        let note = Note { reader: reader.clone(), records: shown.0, written };
        queue
            .try_send(note)
            .map_err(|_| Problem::new(Code::Overloaded, "too many reads wait to be noted; try again"))?;
        match answer.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(not_noted()),
        }
    }
}

fn not_noted() -> Problem {
    Problem::new(Code::DatabaseUnavailable, "the tenant wants every read noted, and this one cannot be noted now")
}

/// Around every route that shows records: notes what the answer shows before it is given.
pub(crate) async fn note_shown(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let Some(principal) = extensions.get::<Principal>().filter(|principal| principal.audits_reads).cloned() else {
        return next.run(request).await;
    };
    let endpoint = extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str).into();
    let Some(context) = extensions.get::<RequestContext>().copied() else {
        tracing::error!("a route whose reads are noted is not under http::observe");
        return Problem::internal().into_response();
    };
    let reader = Reader { principal, context, endpoint };
    let mut response = next.run(request).await;
    if !response.status().is_success() && response.status() != StatusCode::NOT_MODIFIED {
        return response;
    }
    let Some(shown) = response.extensions_mut().remove::<ShownRecords>() else {
        tracing::error!(endpoint = &*reader.endpoint, "an answer does not say which records it shows");
        return Problem::internal().into_response();
    };
    match service.reads.note(&reader, shown).await {
        Ok(()) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn write_all(database: Database, mut notes: mpsc::Receiver<Note>) {
    let mut client = None;
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while notes.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let outcome = timeout(WRITE_TIMEOUT, write(&database, &mut client, &batch)).await;
        let written = match outcome {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(error = describe(&error), notes = batch.len(), "reads could not be noted");
                false
            }
            Err(_) => {
                tracing::warn!(notes = batch.len(), "noting reads took too long");
                false
            }
        };
        if !written {
            // What is in flight on it is of no use to anybody.
            client = None;
        }
        metrics::counter!("prospectus_reads_noted_total").increment(if written { batch.len() as u64 } else { 0 });
        for note in batch.drain(..) {
            // Whoever has gone away does not want the answer.
            let _ = note.written.send(written);
        }
    }
}

async fn write(database: &Database, client: &mut Option<Client>, notes: &[Note]) -> Result<(), tokio_postgres::Error> {
    const SQL: &str = "-- query_service::reads::write
        SELECT log.note_reads($1::uuid[] /* tenants */, $2::text[] /* keys */, $3::text[] /* roles */,
            $4::text[] /* endpoints */, $5::uuid[] /* requests */, $6::text[] /* addresses */, $7::text[] /* records */)";
    // A primary that was started again, or another one, is found at the next read.
    let connected = match client.take().filter(|client| !client.is_closed()) {
        Some(connected) => connected,
        None => database.client().await?,
    };
    let connected = client.insert(connected);
    let of = |note: &Note| note.reader.principal.clone();
    let tenants: Vec<Uuid> = notes.iter().map(|note| note.reader.principal.tenant_id).collect();
    let keys: Vec<String> = notes.iter().map(|note| of(note).key_prefix.to_string()).collect();
    let roles: Vec<&str> = notes.iter().map(|note| note.reader.principal.role.name()).collect();
    let endpoints: Vec<&str> = notes.iter().map(|note| &*note.reader.endpoint).collect();
    let requests: Vec<Uuid> = notes.iter().map(|note| note.reader.context.request_id).collect();
    let addresses: Vec<String> = notes.iter().map(|note| note.reader.context.peer.ip().to_string()).collect();
    let records: Vec<String> = notes.iter().map(|note| array_text(&note.records)).collect();
    let values: [&(dyn ToSql + Sync); 7] = [&tenants, &keys, &roles, &endpoints, &requests, &addresses, &records];
    connected.execute(SQL, &values).await?;
    Ok(())
}

/// Ids as the text of an array: arrays of different lengths do not go into one parameter.
fn array_text(ids: &[Uuid]) -> String {
    let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    format!("{{{}}}", ids.join(","))
}
