//! `GET /v1/events`: the log in order, the tenant's own events, personal members opened.

use axum::response::Response;
use deadpool_postgres::Object;
use domain::Sealed;
use event_store::StoredEvent;
use event_store::keyring::{KeyError, Keyring};
use event_store::seal::{PersonKeyState, PersonKeys};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use service_kit::auth::Permission;
use service_kit::problem::{Code, Problem};
use tokio_postgres::IsolationLevel;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{LIMIT_DEFAULT, LIMIT_MAX, Parts, ReadHeaders, answer_tagged};
use crate::freshness::Wanted;
use crate::parameters::Parameters;
use crate::problems::ReadError;
use crate::read::{BIND_TENANT, Question, Snapshot, State, query_bounded, tenant_text};
use crate::record::instant_text;
use crate::replicas::Scope;

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
        const HEAD: &str = "-- query_service::routes::events::head
            SELECT h.position, h.epoch FROM log.head AS h";
        const PAGE: &str = "-- query_service::routes::events::page
            SELECT e.position, e.tenant_id, e.aggregate_type, e.aggregate_id, e.sequence, e.event_id, e.event_type,
                   e.event_version, e.payload, e.metadata, e.recorded_at
            FROM log.events AS e
            WHERE e.tenant_id = $1 /* tenant */ AND e.position > $2 /* after */ ORDER BY e.position LIMIT $3";
        let transaction =
            client.build_transaction().read_only(true).isolation_level(IsolationLevel::RepeatableRead).start().await?;
        let bind = transaction.prepare_cached(BIND_TENANT).await?;
        transaction.query(&bind, &[&tenant_text(self.tenant)]).await?;
        let head = transaction.query_one(&transaction.prepare_cached(HEAD).await?, &[]).await?;
        let page = transaction.prepare_cached(PAGE).await?;
        let values: [&(dyn ToSql + Sync); 3] = [&self.tenant, &self.after, &self.limit];
        let (rows, cut) = query_bounded(&*transaction, &page, &values).await?;
        let stored = rows.iter().map(StoredEvent::from_row).collect::<Result<Vec<_>, _>>()?;
        let persons = stored.iter().filter(|event| is_sealed(event)).map(|event| (event.tenant_id, event.aggregate_id));
        let keys = PersonKeys::fetch(&*transaction, self.keyring, persons.collect::<Vec<_>>()).await?;
        transaction.commit().await?;
        let state = State {
            generation: None,
            position: head.try_get(0)?,
            epoch: head.try_get::<_, Option<String>>(1)?.unwrap_or_default(),
        };
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

/// The tenant's own events, in the order of the log.
#[utoipa::path(get, path = "/v1/events", tag = "log",
    params(ReadHeaders, ("after" = Option<i64>, Query, description = "Events after this position; 0 where it is not given"),
        ("limit" = Option<u16>, Query, description = "Events on the page, at most 1000; 100 where it is not given"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before, instead of `after`")),
    responses((status = 200, description = "`items`: position, aggregate_type, aggregate_id, sequence, event_id, type, version, payload, metadata, recorded_at; `next_cursor` where the page is full: it has `limit` events, or 4 MiB"),
        (status = 304, description = "If-None-Match has the page's ETag"),
        (status = 403, description = "The key's role has no right to read events"), (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(super) async fn list((service, principal, uri, headers): Parts) -> Result<Response, Problem> {
    principal.require(Permission::ReadEvents)?;
    let mut parameters = Parameters::parse(uri.query(), &["after", "limit", "cursor"])?;
    let most = i64::try_from(LIMIT_MAX).expect("a thousand");
    let limit = parameters.number("limit", 1, most).unwrap_or(i64::try_from(LIMIT_DEFAULT).expect("a hundred"));
    let after = parameters.number("after", 0, i64::MAX);
    let cursor = parse_cursor(&mut parameters);
    if after.is_some() && cursor.is_some() {
        parameters.note_value("cursor", "and `after` say the same; send one of them");
    }
    let wanted = Wanted::parse(&headers, &mut parameters);
    parameters.check()?;
    let question =
        Events { keyring: &service.keyring, tenant: principal.tenant_id, after: cursor.or(after).unwrap_or(0), limit };
    let snapshot = service.replicas.read(&question, &wanted).await?;
    let body = serde_json::to_vec(&snapshot.data).expect("texts, ids, numbers and JSON always serialise");
    Ok(answer_tagged(body, &snapshot.state, &headers))
}

#[derive(Serialize)]
struct PageOfEvents {
    items: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A cursor of the log is a position: it stays right for ever.
fn parse_cursor(parameters: &mut Parameters) -> Option<i64> {
    let position = parameters.text("cursor")?.parse().ok().filter(|position| *position >= 0);
    if position.is_none() {
        parameters.note(Code::InvalidCursor, "cursor", "send next_cursor exactly as it came");
    }
    position
}
