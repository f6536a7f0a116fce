//! One record by its id: the hot path of the service.

mod as_of;

use std::sync::{Arc, PoisonError, RwLock};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use deadpool_postgres::Object;
use futures_util::join;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use service_kit::auth::{Permission, Principal};
use service_kit::problem::{Code, Problem};
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{add_position, matches_etag};
use crate::Service;
use crate::freshness::Wanted;
use crate::parameters::Parameters;
use crate::past::{AsOf, Past};
use crate::problems::ReadError;
use crate::read::{Question, Snapshot, State, begin_bound};
use crate::reads::ShownRecords;
use crate::record::{Column, instant_text, write_object};
use crate::replicas::Scope;

/// A sort of record.
#[derive(Debug)]
pub(super) struct Sort {
    /// The path that its id follows.
    pub(super) path: &'static str,
    /// Its fields.
    pub(super) columns: &'static [Column],
    /// Makes the statement that reads one from a generation's schema. Its columns: generation, position, epoch, least queued
    /// position, id, version, `deleted_at`, `merged_into`, the position of what else the record shows where that is another record's, then
    /// the fields.
    pub(super) statement: fn(&str) -> String,
    /// The statement for the generation that was read last, so that a read does not make its text again.
    pub(super) kept: RwLock<Option<(i32, Arc<str>)>>,
}

impl Sort {
    fn sql(&self, generation: i32) -> Arc<str> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((of, sql)) = kept
            && of == generation
        {
            return sql;
        }
        let sql: Arc<str> = (self.statement)(&migrations::schema_name(generation)).into();
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = Some((generation, Arc::clone(&sql)));
        sql
    }
}

/// Columns in front of the fields.
const FIELDS_AT: usize = 9;

struct RecordById {
    sort: &'static Sort,
    tenant: Uuid,
    id: Uuid,
}

impl Question for RecordById {
    type Data = Option<Row>;
    const SCOPE: Scope = Scope::ReadTables;

    async fn ask(&self, client: &mut Object, generation: i32) -> Result<Snapshot<Option<Row>>, ReadError> {
        let read = client.prepare_cached(&self.sort.sql(generation)).await?;
        let begin = begin_bound(self.tenant);
        let values: [&(dyn ToSql + Sync); 2] = [&self.tenant, &self.id];
        // All three are sent before the first answer is awaited: one flush, one round trip.
        let (begun, rows, ended) =
            join!(client.batch_execute(&begin), client.query(&read, &values), client.batch_execute("COMMIT"));
        // The first failure is the cause; what follows it only says that the transaction is over.
        begun?;
        let row = rows?.pop();
        ended?;
        match row {
            Some(row) => {
                let state = State::from_row(&row)?;
                let found = row.try_get::<_, Option<Uuid>>(4)?.is_some();
                Ok(Snapshot { state, data: found.then_some(row) })
            }
            None => Err(ReadError::NoGeneration),
        }
    }
}

/// Answers `GET <path>/{id}`.
pub(super) async fn answer<R: Past>(
    sort: &'static Sort,
    service: &Service,
    principal: &Principal,
    id: &str,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    principal.require(Permission::ReadRecords)?;
    let mut parameters =
        Parameters::parse(uri.query(), &["include_deleted", "fields", "as_of", "as_of_version", "as_of_position"])?;
    let include_deleted = parameters.flag("include_deleted");
    let fields = parameters.fields(sort.columns);
    let as_of = AsOf::parse(&mut parameters);
    let wanted = Wanted::parse(headers, &mut parameters);
    parameters.check()?;
    // What is no UUID is no record's id: the same answer as for one that nobody has.
    let id = Uuid::try_parse(id).map_err(|_| Problem::not_found())?;
    if let Some(as_of) = as_of {
        let asked = as_of::Asked { id, as_of, include_deleted, fields: fields.as_deref(), wanted };
        return as_of::answer::<R>(service, principal, asked, uri, headers).await;
    }
    let question = RecordById { sort, tenant: principal.tenant_id, id };
    let snapshot = service.replicas.read(&question, &wanted).await?;
    let response =
        respond(sort, &snapshot, include_deleted, fields.as_deref(), uri, headers).map_err(|failed| match failed {
            Failed::Problem(problem) => snapshot.state.describe(problem),
            Failed::Row(error) => ReadError::from(error).into_problem(),
        })?;
    Ok(ShownRecords::new([id]).on(response))
}

enum Failed {
    Problem(Problem),
    Row(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Row(error)
    }
}

fn respond(
    sort: &Sort,
    snapshot: &Snapshot<Option<Row>>,
    include_deleted: bool,
    fields: Option<&[bool]>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Failed> {
    let Some(row) = &snapshot.data else { return Err(Failed::Problem(Problem::not_found())) };
    if !include_deleted {
        if let Some(primary) = row.try_get::<_, Option<Uuid>>(7)? {
            return Ok(moved(&format!("{}/{primary}", sort.path), uri, &snapshot.state));
        }
        if let Some(at) = row.try_get::<_, Option<OffsetDateTime>>(6)? {
            return Err(Failed::Problem(gone(at, erased_at(sort, row)?)));
        }
    }
    let version: i64 = row.try_get(5)?;
    let etag = match row.try_get::<_, Option<i64>>(8)? {
        Some(shown_position) => format!("\"{version}.{shown_position}\""),
        None => format!("\"{version}\""),
    };
    let mut response = if matches_etag(headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut body = Vec::with_capacity(1024);
        write_object(&mut body, row, FIELDS_AT, sort.columns, fields)?;
        let mut response = Response::new(Body::from(body));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    };
    add_position(response.headers_mut(), &snapshot.state);
    let etag = HeaderValue::try_from(etag).expect("digits, a dot and quotes are ASCII");
    response.headers_mut().insert(header::ETAG, etag);
    Ok(response)
}

/// The record is deleted since then, and its person erased, if that is why.
fn gone(deleted_at: OffsetDateTime, erased_at: Option<OffsetDateTime>) -> Problem {
    let problem = match erased_at {
        Some(at) => {
            Problem::new(Code::Gone, "the person was erased; ?include_deleted=true shows what is left of the record")
                .member("erased_at", instant_text(at))
        }
        None => Problem::new(Code::Gone, "the record is deleted; ?include_deleted=true shows it"),
    };
    problem.member("deleted_at", instant_text(deleted_at))
}

/// When the person that the record is was erased, where that happened and the sort has persons.
fn erased_at(sort: &Sort, row: &Row) -> Result<Option<OffsetDateTime>, tokio_postgres::Error> {
    let place = sort.columns.iter().position(|column| column.name == "erased_at");
    place.map_or(Ok(None), |place| row.try_get(FIELDS_AT + place))
}

/// 301 to `path`, with the query of the request.
pub(super) fn moved(path: &str, uri: &Uri, state: &State) -> Response {
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let mut response = StatusCode::MOVED_PERMANENTLY.into_response();
    // The path is ours and the query came as a part of a URI, so this is one.
    if let Ok(location) = HeaderValue::try_from(format!("{path}{query}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    add_position(response.headers_mut(), state);
    response
}
