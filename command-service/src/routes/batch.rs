//! Many commands in one request: NDJSON in, NDJSON out, in order, each line an outcome of its own.
//!
//! Lines that have nothing in common overlap, so that group commit has something to group; lines that may affect each other
//! take effect in order. Answers wait for a client that still sends, up to a bound; then the batch waits for the client.

mod line;
mod lines;
mod under_way;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use http::{HeaderValue, StatusCode, header};
use service_kit::auth::Permission;
use service_kit::problem::{Code, Problem};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tracing::Instrument as _;
use uuid::Uuid;

use super::Parts;
use crate::carry_out::{Caller, Done, Service, Terms, count};
use crate::operation::{Order, UNKNOWN, key};
use line::Parsed;
use lines::Lines;
use under_way::UnderWay;

/// Lines under way at the same time.
const IN_FLIGHT_MAX: usize = 256;
/// Bytes of answers that wait for a client that is still sending.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How long a client may send nothing.
const LINE_TIMEOUT: Duration = Duration::from_secs(30);

/// Carries out many commands, one a line.
#[utoipa::path(post, path = "/v1/batch", tag = "batch",
    request_body(content = String, content_type = "application/x-ndjson",
        description = "One `{\"method\", \"path\", \"body\", \"idempotency_key\"?, \"if_match\"?}` a line, each at most 1 MiB"),
    responses((status = 200, content_type = "application/x-ndjson", body = String, description = "One `{\"status\", \"body\"}` a line, in order; the body of a refused one is a problem. \
            If the lines could not be read to their end (the body broke off, nothing came for 30 s, the service stops, or there are more \
            than a million), the last answer says why, for its line and all after it"),
        (status = 415, description = "Not NDJSON")))]
pub(super) async fn batch(
    (service, principal, context, _, path, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    principal.require(Permission::SendCommands)?;
    if path.query().is_some() {
        return Err(Problem::new(Code::UnknownParameter, "this endpoint takes no query parameters"));
    }
    if let Some(given) = headers.get(header::CONTENT_TYPE) {
        let essence =
            given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !matches!(
            &*essence,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/json"
        ) {
            return Err(Problem::new(Code::UnsupportedMediaType, "send the batch as application/x-ndjson"));
        }
    }
    let caller = Arc::new(Caller::new(principal, context, &headers)?);
    // Bounded by the semaphore: an answer is let in only when there is room for its bytes.
    let (answers, buffered) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(ANSWER_BYTES_MAX));
    let lines = Lines::new(body, LINE_TIMEOUT, service.shutdown.clone());
    let batch = Batch { service: service.0, caller, answers, room: Arc::clone(&room), under_way: UnderWay::default() };
    tokio::spawn(batch.run(lines).in_current_span());
    let stream = futures_util::stream::unfold((buffered, room), async |(mut buffered, room)| {
        let line: Bytes = buffered.recv().await?;
        room.add_permits(room_for(&line));
        Some((Ok::<_, Infallible>(line), (buffered, room)))
    });
    let mut response = Body::from_stream(stream).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

struct Batch {
    service: Arc<Service>,
    caller: Arc<Caller>,
    answers: mpsc::UnboundedSender<Bytes>,
    room: Arc<Semaphore>,
    under_way: UnderWay,
}

impl Batch {
    async fn run(mut self, mut lines: Lines) {
        let _open = Open::new();
        let mut under_way: FuturesOrdered<JoinHandle<Bytes>> = FuturesOrdered::new();
        let mut more = true;
        while more || !under_way.is_empty() {
            tokio::select! {
                line = lines.next(), if more && under_way.len() < IN_FLIGHT_MAX => match line {
                    Some(line) => under_way.push_back(self.begin(line)),
                    None => more = false,
                },
                Some(answer) = under_way.next(), if !under_way.is_empty() => if !self.send(answer).await { return },
            }
        }
        lines.discard_rest().await;
    }

    /// Starts a line; it goes on even if the client goes away, as a command of its own would.
    fn begin(&mut self, line: Result<Bytes, Problem>) -> JoinHandle<Bytes> {
        let parsed =
            line.map_err(|problem| (UNKNOWN, problem)).and_then(|line| Parsed::new(&line).map(|parsed| (line, parsed)));
        let request_id = self.caller.request_id();
        let (line, parsed) = match parsed {
            Ok(parsed) => parsed,
            Err((name, problem)) => {
                count(name, Some(&problem));
                return tokio::spawn(async move { written(Err(problem), request_id) });
            }
        };
        let mut order = parsed.operation.order();
        if let (Order::Keys(keys), Some(idempotency_key)) = (&mut order, &parsed.idempotency_key) {
            keys.push(key(&("receipt", idempotency_key)));
        }
        let (before, done) = self.under_way.enter(order);
        let (service, caller) = (Arc::clone(&self.service), Arc::clone(&self.caller));
        let carried_out = async move {
            for mut earlier in before {
                // An error says that the earlier line's task has ended, which is what is waited for.
                let _ = earlier.wait_for(|ended| *ended).await;
            }
            let terms = Terms {
                name: parsed.name,
                idempotency_key: parsed.idempotency_key.as_deref(),
                if_match: parsed.if_match,
                request: [parsed.method.as_str().as_bytes(), parsed.path.as_bytes(), &line[parsed.body.clone()]],
                patient: true,
            };
            let outcome = service.carry_out(&caller, parsed.operation, terms).await;
            done.send_replace(true);
            written(outcome, request_id)
        };
        // What goes wrong is logged under the request's id.
        tokio::spawn(carried_out.in_current_span())
    }

    /// Hands an answer on, waiting for room; false if nobody reads any more.
    async fn send(&self, line: Result<Bytes, tokio::task::JoinError>) -> bool {
        let line = line.unwrap_or_else(|error| {
            tracing::error!(%error, "a line of a batch broke");
            written(Err(Problem::internal()), self.caller.request_id())
        });
        let room = room_for(&line);
        if self.room.available_permits() < room {
            metrics::counter!("prospectus_batch_waits_total").increment(1);
        }
        tokio::select! {
            permits = self.room.acquire_many(u32::try_from(room).unwrap_or(u32::MAX)) => match permits {
                Ok(permits) => permits.forget(),
                Err(_) => return false,
            },
            // A client that has gone gives no room back.
            () = self.answers.closed() => return false,
        }
        self.answers.send(line).is_ok()
    }
}

/// The room that an answer takes; one that is larger than all there is waits for all of it.
fn room_for(answer: &Bytes) -> usize {
    answer.len().min(ANSWER_BYTES_MAX)
}

/// Counts a batch as open for as long as it lives.
struct Open;

impl Open {
    fn new() -> Self {
        metrics::gauge!("prospectus_batches_open").increment(1.0);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("prospectus_batches_open").decrement(1.0);
    }
}

/// The answer line of an outcome; a problem names the batch's request.
fn written(outcome: Result<Done, Problem>, request_id: Uuid) -> Bytes {
    #[derive(serde::Serialize)]
    struct Answer<T> {
        status: u16,
        body: T,
    }
    let mut line = match outcome {
        Ok(Done { status, answer, .. }) => serde_json::to_vec(&Answer { status: status.as_u16(), body: answer }),
        Err(problem) => {
            let status = problem.status().as_u16();
            serde_json::to_vec(&Answer { status, body: problem.instance(request_id).to_json() })
        }
    }
    .unwrap_or_else(|_| format!("{{\"status\":{}}}", StatusCode::INTERNAL_SERVER_ERROR.as_u16()).into_bytes());
    line.push(b'\n');
    line.into()
}
