//! The feed as a stream: NDJSON up to the head, or server-sent events that go on live. A page at a time is read and held, and only when
//! the client has taken the one before; a client that takes nothing is cut off by the server's own bound ([`service_kit::http::Limits`]).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use service_kit::auth::Permission;
use service_kit::problem::Problem;
use tokio::time::{Instant, sleep_until};

use super::{Events, PageOfEvents};
use crate::Service;
use crate::freshness::Wanted;
use crate::read::{Snapshot, State};
use crate::reads::{Reader, ShownRecords};
use crate::record::write_json;
use crate::routes::add_position;
use crate::streams::Place;

/// Events read at a time.
pub(super) const PAGE: i64 = 200;
/// How often a comment is sent while nothing happens, so that whoever is between knows that the stream is alive.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// How often it is looked whether the key still counts.
const KEY_LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a page may wait for a replica that has what another one showed already.
const PAGE_WAIT: Duration = Duration::from_secs(10);

/// What the client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A line an event, to the head as it was at the beginning.
    NdJson,
    /// Server-sent events, without an end.
    ServerSent,
}

impl Form {
    /// What the client asks for; none for a page of JSON.
    pub(super) fn wanted(headers: &http::HeaderMap) -> Option<Self> {
        let given = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        given.flat_map(|value| value.split(',')).find_map(|kind| {
            match kind.split(';').next().map_or("", str::trim).to_ascii_lowercase().as_str() {
                "application/x-ndjson" => Some(Self::NdJson),
                "text/event-stream" => Some(Self::ServerSent),
                _ => None,
            }
        })
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::NdJson => "application/x-ndjson",
            Self::ServerSent => "text/event-stream",
        }
    }
}

/// A feed on its way to a client.
pub(super) struct Stream {
    pub(super) service: Arc<Service>,
    pub(super) reader: Reader,
    /// The key as it was presented.
    pub(super) presented: String,
    pub(super) form: Form,
    /// Everything up to here was sent, or is somebody else's.
    pub(super) after: i64,
    /// How many more events may be sent.
    pub(super) left: i64,
    pub(super) _place: Place,
}

/// A stream that has begun.
struct Running {
    stream: Stream,
    /// The head as it was at the beginning.
    head: i64,
    /// The epoch that `after` is of.
    epoch: String,
    first: Option<PageOfEvents>,
    key_looked_at: Instant,
    /// Nothing was sent yet.
    fresh: bool,
    ended: bool,
}

impl Stream {
    /// Begins to answer with a first page.
    pub(super) fn answer(self, first: Snapshot<PageOfEvents>) -> Response {
        let Snapshot { state, data } = first;
        let form = self.form;
        let running = Running {
            head: state.position,
            epoch: state.epoch.clone(),
            first: Some(data),
            key_looked_at: Instant::now(),
            fresh: true,
            ended: false,
            stream: self,
        };
        let body = futures_util::stream::unfold(running, Running::next);
        let mut response = Body::from_stream(body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
        // Proxies that gather answers would hold back what is live.
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        add_position(headers, &state);
        // What is sent is noted page by page.
        ShownRecords::default().on(response)
    }
}

type Piece = Result<Bytes, io::Error>;

impl Running {
    async fn next(mut self) -> Option<(Piece, Self)> {
        if self.ended {
            return None;
        }
        let piece = match self.piece().await {
            Ok(Some(piece)) => Ok(piece),
            Ok(None) => return None,
            Err(problem) => {
                self.ended = true;
                match self.stream.form {
                    Form::ServerSent => {
                        let document = problem.instance(self.stream.reader.context.request_id).to_json();
                        Ok(Bytes::from(format!("event: problem\ndata: {document}\n\n")))
                    }
                    // The client sees that the answer is cut off.
                    Form::NdJson => Err(io::Error::other("the feed broke off")),
                }
            }
        };
        Some((piece, self))
    }

    /// What is sent next; none at the end.
    async fn piece(&mut self) -> Result<Option<Bytes>, Problem> {
        if std::mem::take(&mut self.fresh) && self.stream.form == Form::ServerSent {
            // At once, so that the client knows that it is connected.
            return Ok(Some(Bytes::from_static(b"retry: 1000\n\n")));
        }
        let heartbeat_at = Instant::now() + HEARTBEAT_EVERY;
        let mut wait = true;
        loop {
            if self.stream.service.shutdown.is_requested() {
                return self.end_early();
            }
            self.look_at_key().await?;
            let page = match self.first.take() {
                Some(page) => page,
                None => self.read().await?,
            };
            if !page.items.is_empty() {
                let shown = ShownRecords::new(page.items.iter().map(|item| item.aggregate_id));
                self.stream.service.reads.note(&self.stream.reader, shown).await?;
                return Ok(Some(self.write(&page)));
            }
            match self.stream.form {
                Form::NdJson => return Ok(None),
                Form::ServerSent if !wait => return Ok(Some(Bytes::from_static(b": nothing new\n\n"))),
                Form::ServerSent if self.stream.left == 0 => return Ok(None),
                Form::ServerSent => {}
            }
            wait = self.news(heartbeat_at).await;
        }
    }

    /// Waits until there may be something to send, or it is time for something else; false where it is time for a heartbeat.
    async fn news(&self, heartbeat_at: Instant) -> bool {
        let service = &self.stream.service;
        tokio::select! {
            () = service.replicas.moved_past(self.stream.after) => true,
            () = sleep_until(self.key_looked_at + KEY_LOOK_EVERY) => true,
            () = service.shutdown.requested() => true,
            () = sleep_until(heartbeat_at) => false,
        }
    }

    /// The process ends: a live stream with a word, which is resumed elsewhere; one that was to have an end is cut off.
    fn end_early(&mut self) -> Result<Option<Bytes>, Problem> {
        self.ended = true;
        match self.stream.form {
            Form::ServerSent => {
                Ok(Some(Bytes::from_static(b": the service is ending, come back with Last-Event-ID\n\n")))
            }
            Form::NdJson => Err(Problem::new(service_kit::problem::Code::ShuttingDown, "the service is ending")),
        }
    }

    async fn look_at_key(&mut self) -> Result<(), Problem> {
        if self.key_looked_at.elapsed() < KEY_LOOK_EVERY {
            return Ok(());
        }
        let principal = self.stream.service.authenticator.authenticate(&self.stream.presented).await?;
        principal.require(Permission::ReadEvents)?;
        self.stream.reader.principal = principal;
        self.key_looked_at = Instant::now();
        Ok(())
    }

    async fn read(&mut self) -> Result<PageOfEvents, Problem> {
        let Stream { service, reader, after, left, form, .. } = &mut self.stream;
        let limit = PAGE.min(*left);
        let position = match form {
            _ if limit == 0 => return Ok(PageOfEvents::default()),
            // Up to the head, whichever server answers: one that is behind it would end the feed with a hole.
            Form::NdJson if *after >= self.head => return Ok(PageOfEvents::default()),
            Form::NdJson => self.head,
            // A server that has the next event before one that has not.
            Form::ServerSent if service.replicas.reached_log() > *after => *after + 1,
            Form::ServerSent => return Ok(PageOfEvents::default()),
        };
        let tenant = reader.principal.tenant_id;
        let question = Events { keyring: &service.keyring, tenant, after: *after, limit };
        let wanted = Wanted { position, epoch: None, wait: PAGE_WAIT };
        let Snapshot { state, data } = service.replicas.read(&question, &wanted).await?;
        self.check_epoch(&state).await?;
        if data.items.is_empty() {
            // What came was others'.
            self.stream.after = self.stream.after.max(state.position);
        }
        Ok(data)
    }

    /// Where the log has begun another life, what was sent must be of its past.
    async fn check_epoch(&mut self, state: &State) -> Result<(), Problem> {
        if state.epoch == self.epoch {
            return Ok(());
        }
        let Stream { service, reader, after, .. } = &self.stream;
        let question =
            Events { keyring: &service.keyring, tenant: reader.principal.tenant_id, after: *after, limit: 1 };
        let before = (!self.epoch.is_empty()).then(|| self.epoch.clone());
        let wanted = Wanted { position: *after, epoch: before, wait: PAGE_WAIT };
        service.replicas.read(&question, &wanted).await?;
        self.epoch.clone_from(&state.epoch);
        Ok(())
    }

    fn write(&mut self, page: &PageOfEvents) -> Bytes {
        let mut text = Vec::with_capacity(page.items.len() * 1_024);
        for item in &page.items {
            if self.stream.form == Form::NdJson && item.position > self.head {
                // Up to the head as it was, or a busy log would have no end.
                self.ended = true;
                break;
            }
            if self.stream.form == Form::ServerSent {
                // With the life of the log: whoever comes back after a tail was lost is told, and misses nothing in silence.
                let epoch = Some(&self.epoch).filter(|epoch| !epoch.is_empty());
                let epoch = epoch.map_or_else(String::new, |epoch| format!("{epoch}-"));
                text.extend_from_slice(format!("id: {epoch}{}\ndata: ", item.position).as_bytes());
            }
            write_json(&mut text, item);
            text.push(b'\n');
            if self.stream.form == Form::ServerSent {
                text.push(b'\n');
            }
            self.stream.after = item.position;
            self.stream.left -= 1;
        }
        Bytes::from(text)
    }
}
