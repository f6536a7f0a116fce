//! Many commands in one request: NDJSON in, NDJSON out, in order, each line an outcome of its own.
//!
//! Lines that have nothing in common overlap, so that group commit has something to group; lines that may affect each other
//! take effect in order. Answers wait for a client that still sends, up to a bound; then the batch waits for the client.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use service_kit::auth::Permission;
use service_kit::http::parse_json_object;
use service_kit::problem::{Code, Problem};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::{COMMAND_BYTES_MAX, Parts};
use crate::carry_out::{Caller, Done, Service, Terms, check_idempotency_key};
use crate::operation::{Object, Operation, Order, key};

/// Lines under way at the same time.
const IN_FLIGHT_MAX: usize = 256;
/// Lines of one batch.
const LINES_MAX: usize = 1_000_000;
/// Bytes of answers that wait for a client that is still sending.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How long a client may send nothing.
const LINE_TIMEOUT: Duration = Duration::from_secs(30);
/// Things remembered as in use; finished ones are forgotten when there are more.
const REMEMBERED_MAX: usize = 4 * IN_FLIGHT_MAX;

/// Carries out many commands, one a line.
#[utoipa::path(post, path = "/v1/batch", tag = "batch",
    request_body(content = String, content_type = "application/x-ndjson",
        description = "One `{\"method\", \"path\", \"body\", \"idempotency_key\"?, \"if_match\"?}` a line, each at most 1 MiB"),
    responses((status = 200, content_type = "application/x-ndjson", body = String, description = "One `{\"status\", \"body\"}` a line, in order"),
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
    let (answers, lines) = mpsc::channel(IN_FLIGHT_MAX);
    let room = Arc::new(Semaphore::new(ANSWER_BYTES_MAX));
    tokio::spawn(
        Batch { service: service.0, caller, answers, room: Arc::clone(&room), under_way: UnderWay::default() }
            .run(body),
    );
    let (buffer, buffered) = mpsc::unbounded_channel();
    // Bounded by the semaphore: a line is let in only when there is room for its bytes.
    tokio::spawn(forward(lines, buffer));
    let stream = futures_util::stream::unfold((buffered, room), async |(mut buffered, room)| {
        let line: Bytes = buffered.recv().await?;
        room.add_permits(line.len());
        Some((Ok::<_, Infallible>(line), (buffered, room)))
    });
    let mut response = Body::from_stream(stream).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

async fn forward(mut lines: mpsc::Receiver<Bytes>, buffer: mpsc::UnboundedSender<Bytes>) {
    while let Some(line) = lines.recv().await {
        if buffer.send(line).is_err() {
            return;
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    method: String,
    path: String,
    #[serde(borrow, default)]
    body: Option<&'a RawValue>,
    #[serde(default)]
    idempotency_key: Option<String>,
    #[serde(default)]
    if_match: Option<i64>,
}

struct Batch {
    service: Arc<Service>,
    caller: Arc<Caller>,
    answers: mpsc::Sender<Bytes>,
    room: Arc<Semaphore>,
    under_way: UnderWay,
}

impl Batch {
    async fn run(mut self, mut body: Body) {
        let mut under_way: FuturesOrdered<JoinHandle<Bytes>> = FuturesOrdered::new();
        let mut lines = Lines::default();
        let mut count = 0;
        let mut more = true;
        while more || !under_way.is_empty() {
            // Read on while there is room; otherwise, or when all is read, wait for the oldest line.
            if more && under_way.len() < IN_FLIGHT_MAX {
                if let Some(line) = lines.next() {
                    count += 1;
                    if count > LINES_MAX {
                        let problem =
                            Problem::new(Code::BodyTooLarge, format!("a batch has at most {LINES_MAX} lines"));
                        under_way.push_back(tokio::spawn(async move { written(Err(problem)) }));
                        more = false;
                    } else if !matches!(&line, Ok(line) if line.trim_ascii().is_empty()) {
                        under_way.push_back(self.begin(line));
                    }
                    continue;
                }
                tokio::select! {
                    Some(line) = under_way.next() => if !self.send(line).await { return },
                    frame = tokio::time::timeout(LINE_TIMEOUT, body.frame()) => match frame {
                        Ok(Some(Ok(frame))) => if let Ok(data) = frame.into_data() { lines.feed(&data) },
                        Ok(None) => {
                            lines.end();
                            more = lines.has_line();
                        }
                        // Broken off or silent: what arrived whole is carried out, a piece of a line is not.
                        Ok(Some(Err(_))) | Err(_) => more = false,
                    },
                }
            } else if let Some(line) = under_way.next().await
                && !self.send(line).await
            {
                return;
            }
            if lines.ended && !lines.has_line() {
                more = false;
            }
        }
    }

    /// Starts a line; it goes on even if the client goes away, as a command of its own would.
    fn begin(&mut self, line: Result<Bytes, Problem>) -> JoinHandle<Bytes> {
        let parsed = line.and_then(|line| Parsed::new(&line).map(|parsed| (line, parsed)));
        let (line, parsed) = match parsed {
            Ok(parsed) => parsed,
            Err(problem) => return tokio::spawn(async move { written(Err(problem)) }),
        };
        let mut order = parsed.operation.order();
        if let (Order::Keys(keys), Some(idempotency_key)) = (&mut order, &parsed.idempotency_key) {
            keys.push(key(&("receipt", idempotency_key)));
        }
        let (before, done) = self.under_way.enter(order);
        let (service, caller) = (Arc::clone(&self.service), Arc::clone(&self.caller));
        tokio::spawn(async move {
            for mut earlier in before {
                // An error says that the earlier line's task has ended, which is what is waited for.
                let _ = earlier.wait_for(|ended| *ended).await;
            }
            let terms = Terms {
                idempotency_key: parsed.idempotency_key.as_deref(),
                if_match: parsed.if_match,
                request: [parsed.method.as_str().as_bytes(), parsed.path.as_bytes(), &line[parsed.body.clone()]],
                patient: true,
            };
            let outcome = service.carry_out(&caller, parsed.operation, terms).await;
            done.send_replace(true);
            written(outcome)
        })
    }

    /// Hands an answer on, waiting for room; false if nobody reads any more.
    async fn send(&self, line: Result<Bytes, tokio::task::JoinError>) -> bool {
        let line = line.unwrap_or_else(|error| {
            tracing::error!(%error, "a line of a batch broke");
            written(Err(Problem::internal()))
        });
        let Ok(permits) = self.room.acquire_many(u32::try_from(line.len()).unwrap_or(u32::MAX)).await else {
            return false;
        };
        permits.forget();
        self.answers.send(line).await.is_ok()
    }
}

/// A line taken apart.
struct Parsed {
    operation: Operation,
    method: Method,
    path: String,
    idempotency_key: Option<String>,
    if_match: Option<i64>,
    /// Where in the line the body stands.
    body: std::ops::Range<usize>,
}

impl Parsed {
    fn new(line: &[u8]) -> Result<Self, Problem> {
        // For its good errors on what is not even JSON.
        parse_json_object(line)?;
        let parsed: Line<'_> = serde_json::from_slice(line).map_err(|_| {
            Problem::new(
                Code::InvalidJson,
                "a line is {\"method\", \"path\", \"body\", \"idempotency_key\"?, \"if_match\"?}",
            )
        })?;
        let method = Method::from_bytes(parsed.method.as_bytes())
            .map_err(|_| Problem::new(Code::MethodNotAllowed, "method must be POST, PATCH or DELETE"))?;
        if let Some(key) = &parsed.idempotency_key {
            check_idempotency_key(key)?;
        }
        let (object, body) = match parsed.body {
            Some(raw) if raw.get() != "null" => {
                let start = raw.get().as_ptr() as usize - line.as_ptr() as usize;
                (parse_json_object(raw.get().as_bytes())?, start..start + raw.get().len())
            }
            _ => (Object::new(), 0..0),
        };
        let operation = Operation::parse(&method, &parsed.path, object)?;
        let Line { path, idempotency_key, if_match, .. } = parsed;
        Ok(Self { operation, method, path, idempotency_key, if_match, body })
    }
}

/// The answer line of an outcome.
fn written(outcome: Result<Done, Problem>) -> Bytes {
    #[derive(serde::Serialize)]
    struct Answer<T> {
        status: u16,
        body: T,
    }
    let mut line = match outcome {
        Ok(Done { status, answer, .. }) => serde_json::to_vec(&Answer { status: status.as_u16(), body: answer }),
        Err(problem) => serde_json::to_vec(&Answer { status: problem.status().as_u16(), body: problem.to_json() }),
    }
    .unwrap_or_else(|_| format!("{{\"status\":{}}}", StatusCode::INTERNAL_SERVER_ERROR.as_u16()).into_bytes());
    line.push(b'\n');
    line.into()
}

/// What the lines under way have in use.
#[derive(Default)]
struct UnderWay {
    last_of: HashMap<u64, watch::Receiver<bool>>,
    since_barrier: Vec<watch::Receiver<bool>>,
    barrier: Option<watch::Receiver<bool>>,
}

impl UnderWay {
    /// Enters a line: the earlier ones that it waits for, and what tells that it has ended.
    fn enter(&mut self, order: Order) -> (Vec<watch::Receiver<bool>>, watch::Sender<bool>) {
        let (done, ended) = watch::channel(false);
        self.forget_ended();
        let mut before: Vec<_> = self.barrier.iter().cloned().collect();
        match order {
            Order::Everything => {
                before.append(&mut self.since_barrier);
                self.last_of.clear();
                self.barrier = Some(ended);
            }
            Order::Keys(mut keys) => {
                // A line that names one thing twice does not wait for itself.
                keys.sort_unstable();
                keys.dedup();
                before.extend(keys.into_iter().filter_map(|key| self.last_of.insert(key, ended.clone())));
                self.since_barrier.push(ended);
            }
        }
        (before, done)
    }

    fn forget_ended(&mut self) {
        let running = |receiver: &watch::Receiver<bool>| !*receiver.borrow() && receiver.has_changed().is_ok();
        if self.barrier.as_ref().is_some_and(|barrier| !running(barrier)) {
            self.barrier = None;
        }
        if self.since_barrier.len() > REMEMBERED_MAX {
            self.since_barrier.retain(running);
        }
        if self.last_of.len() > REMEMBERED_MAX {
            self.last_of.retain(|_, receiver| running(receiver));
        }
    }
}

/// Cuts a body into lines as it arrives.
#[derive(Default)]
struct Lines {
    buffer: BytesMut,
    /// Up to here there is no line break.
    searched: usize,
    /// The rest of a line that is too long is thrown away.
    skipping: bool,
    ended: bool,
}

impl Lines {
    fn feed(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    fn end(&mut self) {
        self.ended = true;
    }

    fn has_line(&self) -> bool {
        !self.buffer.is_empty()
    }

    fn next(&mut self) -> Option<Result<Bytes, Problem>> {
        loop {
            let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n').map(|at| at + self.searched);
            let line = match end {
                Some(end) => {
                    self.searched = 0;
                    self.buffer.split_to(end + 1)
                }
                None if self.ended && !self.buffer.is_empty() => {
                    self.searched = 0;
                    self.buffer.split()
                }
                None if self.buffer.len() > COMMAND_BYTES_MAX => {
                    self.searched = 0;
                    self.buffer.clear();
                    if std::mem::replace(&mut self.skipping, true) {
                        return None;
                    }
                    return Some(Err(too_long()));
                }
                None => {
                    self.searched = self.buffer.len();
                    return None;
                }
            };
            // The rest of a line that was answered already.
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            return Some(if line.len() > COMMAND_BYTES_MAX + 1 { Err(too_long()) } else { Ok(line.freeze()) });
        }
    }
}

fn too_long() -> Problem {
    Problem::new(Code::BodyTooLarge, format!("a line may have at most {COMMAND_BYTES_MAX} bytes"))
        .member("limit", COMMAND_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_waits_for_earlier_ones_and_never_for_itself() {
        let mut under_way = UnderWay::default();
        let (before, _first) = under_way.enter(Order::Keys(vec![1, 2, 1]));
        assert_eq!(before.len(), 0);
        let (before, _second) = under_way.enter(Order::Keys(vec![2, 3]));
        assert_eq!(before.len(), 1);
        let (before, _third) = under_way.enter(Order::Everything);
        assert_eq!(before.len(), 2);
        let (before, _fourth) = under_way.enter(Order::Keys(vec![4]));
        assert_eq!(before.len(), 1);
    }
}
