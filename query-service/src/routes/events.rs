//! `GET /v1/events`: the log in order, the tenant's own events, personal members opened; as pages, or as a stream.

mod stream;

use std::sync::Arc;

use axum::response::Response;
use deadpool_postgres::Object;
use domain::Sealed;
use event_store::StoredEvent;
use event_store::keyring::{KeyError, Keyring};
use event_store::seal::{PersonKeyState, PersonKeys};
use http::header;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use service_kit::auth::Permission;
use service_kit::http::RequestContext;
use service_kit::problem::{Code, Problem};
use tokio_postgres::IsolationLevel;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{LIMIT_DEFAULT, LIMIT_MAX, Parts, ReadHeaders, answer_tagged};
use crate::freshness::Wanted;
use crate::parameters::Parameters;
use crate::problems::ReadError;
use crate::read::{BIND_TENANT, Question, Snapshot, State, query_bounded, tenant_text};
use crate::reads::{Reader, ShownRecords};
use crate::record::instant_text;
use crate::replicas::Scope;
use stream::{Form, PAGE, Stream};

struct Events<'a> {
    keyring: &'a Keyring,
    tenant: Uuid,
    after: i64,
    limit: i64,
}

/// One event as it is shown.
#[derive(Serialize)]
struct Shown {
    position: i64,
    aggregate_type: String,
    aggregate_id: Uuid,
    sequence: i64,
    event_id: Uuid,
    #[serde(rename = "type")]
    event_type: String,
    version: i16,
    payload: Box<RawValue>,
    metadata: Box<RawValue>,
    recorded_at: String,
}

impl Question for Events<'_> {
    type Data = PageOfEvents;
    const SCOPE: Scope = Scope::Log;

    async fn ask(&self, client: &mut Object, _: i32) -> Result<Snapshot<PageOfEvents>, ReadError> {
        const PAGE: &str = "-- query_service::routes::events::page
            SELECT e.position, e.tenant_id, e.aggregate_type, e.aggregate_id, e.sequence, e.event_id, e.event_type,
                   e.event_version, e.payload, e.metadata, e.recorded_at
            FROM log.events AS e
            WHERE e.tenant_id = $1 /* tenant */ AND e.position > $2 /* after */ ORDER BY e.position LIMIT $3";
        let transaction =
            client.build_transaction().read_only(true).isolation_level(IsolationLevel::RepeatableRead).start().await?;
        let bind = transaction.prepare_cached(BIND_TENANT).await?;
        transaction.query(&bind, &[&tenant_text(self.tenant)]).await?;
        let state = State::of_log(&transaction).await?;
        let page = transaction.prepare_cached(PAGE).await?;
        let values: [&(dyn ToSql + Sync); 3] = [&self.tenant, &self.after, &self.limit];
        let (rows, cut) = query_bounded(&*transaction, &page, &values).await?;
        let stored = rows.iter().map(StoredEvent::from_row).collect::<Result<Vec<_>, _>>()?;
        let persons = stored.iter().filter(|event| is_sealed(event)).map(|event| (event.tenant_id, event.aggregate_id));
        let keys = PersonKeys::fetch(&*transaction, self.keyring, persons.collect::<Vec<_>>()).await?;
        transaction.commit().await?;
        let more = cut || usize::try_from(self.limit).is_ok_and(|limit| stored.len() >= limit);
        let next_cursor = stored.last().filter(|_| more).map(|event| event.position.to_string());
        let items = stored.into_iter().map(|event| show(event, &keys)).collect::<Result<_, _>>()?;
        Ok(Snapshot { state, data: PageOfEvents { items, next_cursor } })
    }
}

/// Whether the payload may have a sealed member: only then its person's key is fetched.
fn is_sealed(event: &StoredEvent) -> bool {
    event.payload.contains("\"sealed\"")
}

fn show(event: StoredEvent, keys: &PersonKeys) -> Result<Shown, ReadError> {
    let payload = if is_sealed(&event) { open(&event, keys)? } else { event.payload };
    let of_its_form = |_| ReadError::Event(event.position);
    Ok(Shown {
        position: event.position,
        aggregate_type: event.aggregate_type,
        aggregate_id: event.aggregate_id,
        sequence: event.sequence,
        event_id: event.event_id,
        event_type: event.event_type,
        version: event.event_version,
        payload: RawValue::from_string(payload).map_err(of_its_form)?,
        metadata: RawValue::from_string(event.metadata).map_err(of_its_form)?,
        recorded_at: instant_text(event.recorded_at),
    })
}

/// Opens the personal member of a payload as it is stored, whatever the event: `{"personal": {"sealed": …}}` becomes its content, or
/// the word `erased` where the person was erased. A key that is missing is an error, never an erasure.
fn open(event: &StoredEvent, keys: &PersonKeys) -> Result<String, ReadError> {
    let damaged = || ReadError::Event(event.position);
    let mut payload: Map<String, Value> = serde_json::from_str(&event.payload).map_err(|_| damaged())?;
    let Some(sealed) = payload.get("personal").and_then(|member| member.get("sealed")).and_then(Value::as_str) else {
        return Ok(event.payload.clone());
    };
    let person = event.aggregate_id;
    let opened = match keys.get(event.tenant_id, person) {
        None => return Err(KeyError::NoKeyRow(person).into()),
        Some(PersonKeyState::Erased(_)) => Value::from("erased"),
        Some(PersonKeyState::Held(key)) => {
            let json = key.open(event.tenant_id, person, event.event_id, &Sealed(sealed.to_owned()))?;
            serde_json::from_slice(&json).map_err(|_| damaged())?
        }
    };
    payload.insert("personal".to_owned(), opened);
    serde_json::to_string(&payload).map_err(|_| damaged())
}

/// The tenant's own events, in the order of the log, from any position on: a page of JSON, or, by `Accept`, a stream.
/// `application/x-ndjson` is a line an event, up to the head as it is at the beginning. `text/event-stream` goes on live: an event's `id` is
/// `<epoch>-<position>`, its `data` the item; who comes back with `Last-Event-ID` misses nothing and gets nothing twice. A comment comes every 15
/// seconds in which nothing happens; an event `problem` with its document says why a stream ends, a key that was revoked included. What
/// is personal is opened, for only auditors and admins may read events; of a person who was erased it is the word `erased`.
#[utoipa::path(get, path = "/v1/events", tag = "log",
    params(ReadHeaders, ("after" = Option<i64>, Query, description = "Events after this position; 0 where it is not given"),
        ("limit" = Option<i64>, Query, description = "Events on the page, at most 1000; 100 where it is not given. Of a stream: events in all; no bound where it is not given"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before, instead of `after`"),
        ("Last-Event-ID" = Option<String>, Header, description = "Of a stream of server-sent events: the id of the last event that came, or its position alone; counts before `after`")),
    responses((status = 200, description = "`items`: position, aggregate_type, aggregate_id, sequence, event_id, type, version, payload, metadata, recorded_at; `next_cursor` where the page is full: it has `limit` events, or 4 MiB. Streams have the same items"),
        (status = 304, description = "If-None-Match has the page's ETag"),
        (status = 403, description = "The key's role has no right to read events"), (status = 409, description = "The position of Last-Event-ID or Prospectus-Min-Position is not of this log's past"),
        (status = 503, description = "Not fresh enough yet, no replica answers, or too many streams are open")))]
pub(super) async fn list(
    (service, principal, uri, headers): Parts,
    context: RequestContext,
) -> Result<Response, Problem> {
    principal.require(Permission::ReadEvents)?;
    let form = Form::wanted(&headers);
    let mut parameters = Parameters::parse(uri.query(), &["after", "limit", "cursor"])?;
    let most = if form.is_some() { i64::MAX } else { i64::try_from(LIMIT_MAX).expect("a thousand") };
    let limit = parameters.number("limit", 1, most);
    let after = parameters.number("after", 0, i64::MAX);
    let cursor = parse_cursor(&mut parameters);
    if after.is_some() && cursor.is_some() {
        parameters.note_value("cursor", "and `after` say the same; send one of them");
    }
    let mut after = cursor.or(after).unwrap_or(0);
    let mut wanted = Wanted::parse(&headers, &mut parameters);
    if form == Some(Form::ServerSent)
        && let Some(last) = Wanted::last_event(&headers, &mut parameters)
    {
        after = last.position;
        // It has seen the log up to there, so the log must come to it; and where it says in which life, that must be this one's past.
        wanted.position = wanted.position.max(last.position);
        wanted.epoch = last.epoch.or(wanted.epoch);
    }
    parameters.check()?;
    let (keyring, tenant) = (&service.keyring, principal.tenant_id);
    let Some(form) = form else {
        let limit = limit.unwrap_or(i64::try_from(LIMIT_DEFAULT).expect("a hundred"));
        let snapshot = service.replicas.read(&Events { keyring, tenant, after, limit }, &wanted).await?;
        let body = serde_json::to_vec(&snapshot.data).expect("texts, ids, numbers and JSON always serialise");
        let shown = ShownRecords::new(snapshot.data.items.iter().map(|item| item.aggregate_id));
        return Ok(shown.on(answer_tagged(body, &snapshot.state, &headers)));
    };
    let place = service.streams.take(tenant)?;
    let left = limit.unwrap_or(i64::MAX);
    let first = Events { keyring, tenant, after, limit: left.min(PAGE) };
    let first = service.replicas.read(&first, &wanted).await?;
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let presented = authorization.and_then(|value| value.split_once(' ')).map_or("", |(_, key)| key.trim()).to_owned();
    let reader = Reader { principal, context, endpoint: "/v1/events".into() };
    let service = Arc::clone(&service);
    Ok(Stream { service, reader, presented, form, after, left, _place: place }.answer(first))
}

#[derive(Default, Serialize)]
struct PageOfEvents {
    items: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A cursor of the log is a position: it stays right for ever.
pub(super) fn parse_cursor(parameters: &mut Parameters) -> Option<i64> {
    let position = parameters.text("cursor")?.parse().ok().filter(|position| *position >= 0);
    if position.is_none() {
        parameters.note(Code::InvalidCursor, "cursor", "send next_cursor exactly as it came");
    }
    position
}
