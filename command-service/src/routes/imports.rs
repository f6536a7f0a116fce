//! Imports: sending a list, looking at what became of it, taking it back.

mod document;
mod receive;
mod rows;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use service_kit::auth::Permission;
use service_kit::problem::{Code, Problem};
use std::time::Duration;
use uuid::Uuid;

use super::Parts;
use crate::carry_out::{Caller, Service};
use crate::import::{NotTaken, StagingError};
use crate::problems::{import_error, load_error, not_carried_out};

/// The longest that a client may have its answer wait.
const WAIT_SECONDS_MAX: u64 = 30;

/// Sends a list to be imported.
///
/// CSV (any delimiter, quotes, line breaks in cells) or NDJSON, in UTF-8, UTF-16, Windows-1252 or Latin-1, plain, gzip or zstd, of any
/// size. It is answered as soon as the bytes are stored; `Prefer: wait=S` waits for the rows.
#[utoipa::path(post, path = "/v1/imports", tag = "imports",
    request_body(content((String = "text/csv"), (String = "application/x-ndjson"), (String = "application/octet-stream"), (String = "multipart/form-data")),
        description = "The list; or, as multipart/form-data, first a part `mapping` (TOML), then a part `file`"),
    params(
        ("source" = String, Query, description = "The name of the list's source, at most 100 characters: ids are the source's, and `source_rank` goes by it"),
        ("mapping" = Option<String>, Query, description = "A built-in mapping: customer, hubspot or salesforce; without one, and without a part `mapping`, it is guessed from the header"),
        ("dry_run" = Option<bool>, Query, description = "Only say what would become of the rows, as far as memory for it goes"),
        ("conflicts" = Option<String>, Query, description = "Which of two values of one field wins: `newest` (the default), `keep` or `source_rank`"),
        ("rank" = Option<String>, Query, description = "For `source_rank`: the names of sources, best first, with commas between them; `api` is what people entered"),
        ("unmapped" = Option<String>, Query, description = "What becomes of columns that the mapping does not name: `ignore` or `attributes`"),
        ("format" = Option<String>, Query, description = "`csv` or `ndjson`; else by Content-Type, or by the first byte"),
        ("charset" = Option<String>, Query, description = "utf-8, iso-8859-1, windows-1252, utf-16le or utf-16be; else by Content-Type, a byte order mark, or UTF-8"),
        ("delimiter" = Option<String>, Query, description = "What stands between two cells: one character, or `tab`; else by the header"),
        ("compression" = Option<String>, Query, description = "gzip, zstd or none; else by Content-Encoding or the first bytes"),
        ("Prefer" = Option<String>, Header, description = "`wait=S`: wait for the rows, at most 30 seconds"),
        ("Idempotency-Key" = Option<String>, Header, description = "Sent again with it, the import that it began is answered")),
    responses((status = 200, body = document::ImportDocument, description = "All rows are done (only with `Prefer: wait`)"),
        (status = 202, body = document::ImportDocument, description = "The bytes are stored, and the rows come; `Location` says where to look"),
        (status = 422, description = "The list or the mapping cannot be used: `reason`, `import_id`")))]
pub(super) async fn create(
    (State(service), principal, context, _, uri, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    principal.require(Permission::SendCommands)?;
    let tenant_id = principal.tenant_id;
    let caller = Caller::new(principal, context, &headers)?;
    let import_id = receive::receive(&service, &caller, &uri, &headers, body).await?;
    let failed = service.imports.find(tenant_id, import_id).await.map_err(load_error)?.state.failed;
    if let Some(failed) = failed {
        // The key's first list: its refusal is answered again.
        let detail = format!("{}; with another list, or to try again, send a new Idempotency-Key", failed.detail);
        let problem = Problem::new(Code::InvalidList, detail).member("reason", failed.code);
        return Err(problem.member("import_id", import_id.to_string()));
    }
    answer(&service, tenant_id, import_id, wait_of(&headers), true).await
}

/// The imports of the last seven days, the newest first, at most a hundred.
#[utoipa::path(get, path = "/v1/imports", tag = "imports",
    responses((status = 200, body = document::ImportList, description = "The imports")))]
pub(super) async fn list((State(service), principal, _, _, uri, _): Parts) -> Result<Response, Problem> {
    principal.require(Permission::ReadRecords)?;
    no_query(&uri)?;
    let imports = &service.imports;
    let ids = imports.list(principal.tenant_id).await.map_err(|error| staging_error(&error))?;
    let mut items = Vec::with_capacity(ids.len());
    for id in ids {
        let import = imports.find(principal.tenant_id, id).await.map_err(load_error)?;
        if import.version > 0 {
            items.push(document::of(id, &import));
        }
    }
    Ok(Json(json!({ "items": items })).into_response())
}

/// What became of an import so far.
#[utoipa::path(get, path = "/v1/imports/{id}", tag = "imports",
    params(("id" = String, Path, description = "The import"), ("Prefer" = Option<String>, Header, description = "`wait=S`: wait for its end, at most 30 seconds")),
    responses((status = 200, body = document::ImportDocument, description = "The import"), (status = 404, description = "There is no such import")))]
pub(super) async fn show(
    Path(id): Path<String>,
    (State(service), principal, _, _, uri, headers): Parts,
) -> Result<Response, Problem> {
    principal.require(Permission::ReadRecords)?;
    no_query(&uri)?;
    answer(&service, principal.tenant_id, uuid(&id)?, wait_of(&headers), false).await
}

/// What became of each row, as NDJSON, or, with `Accept: text/csv`, as the rows themselves with what became of them in front.
#[utoipa::path(get, path = "/v1/imports/{id}/rows", tag = "imports",
    params(("id" = String, Path, description = "The import"),
        ("outcome" = Option<String>, Query, description = "Only rows of these outcomes: created, updated, unchanged, in_review, refused, with commas between them")),
    responses((status = 200, content_type = "application/x-ndjson", body = String, description = "A line a row: `{row, line, outcome, text, company_id, prospect_ids, reasons}`"),
        (status = 404, description = "There is no such import, or its rows have expired")))]
pub(super) async fn rows(
    Path(id): Path<String>,
    (State(service), principal, _, _, uri, headers): Parts,
) -> Result<Response, Problem> {
    principal.require(Permission::ReadRecords)?;
    rows::rows(&service, principal.tenant_id, uuid(&id)?, &uri, &headers).await
}

/// The records that taking an import back left as they were.
#[utoipa::path(get, path = "/v1/imports/{id}/left", tag = "imports",
    params(("id" = String, Path, description = "The import")),
    responses((status = 200, body = document::LeftList, description = "The records, each with the reason"),
        (status = 404, description = "There is no such import, it was not taken back, or that is longer ago than seven days")))]
pub(super) async fn left(
    Path(id): Path<String>,
    (State(service), principal, _, _, uri, _): Parts,
) -> Result<Response, Problem> {
    principal.require(Permission::ReadRecords)?;
    no_query(&uri)?;
    let left = service.imports.left(principal.tenant_id, uuid(&id)?).await.map_err(|error| staging_error(&error))?;
    let items = left.ok_or_else(Problem::not_found)?;
    Ok(Json(json!({ "items": items })).into_response())
}

/// Takes an import back: every record that it touched is again what it was, unless somebody has changed it since.
#[utoipa::path(post, path = "/v1/imports/{id}/undo", tag = "imports",
    params(("id" = String, Path, description = "The import"), ("Prefer" = Option<String>, Header, description = "`wait=S`: wait for the end, at most 30 seconds")),
    responses((status = 200, body = document::ImportDocument, description = "It is taken back (or was before)"), (status = 202, body = document::ImportDocument, description = "It is being taken back"),
        (status = 404, description = "There is no such import"), (status = 409, description = "It still runs, was refused as a whole, or was a dry run")))]
pub(super) async fn undo(
    Path(id): Path<String>,
    (State(service), principal, context, _, uri, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    principal.require(Permission::SendCommands)?;
    no_query(&uri)?;
    service_kit::http::read_body(&headers, body, super::COMMAND_BYTES_MAX, service_kit::http::BODY_TIMEOUT).await?;
    let (tenant_id, import_id) = (principal.tenant_id, uuid(&id)?);
    let caller = Caller::new(principal, context, &headers)?;
    let asked = service.imports.request_undo(tenant_id, import_id, caller.metadata()).await;
    asked.map_err(|error| not_carried_out(error, import_error))?;
    answer(&service, tenant_id, import_id, wait_of(&headers), true).await
}

/// The import's document; 202 where it is not at its end and the client `asked` for it to come there.
async fn answer(
    service: &Service,
    tenant_id: Uuid,
    import_id: Uuid,
    wait: Duration,
    asked: bool,
) -> Result<Response, Problem> {
    let imports = &service.imports;
    let import = imports.wait(tenant_id, import_id, wait).await.map_err(load_error)?;
    if import.version == 0 {
        return Err(Problem::not_found());
    }
    let mut document = document::of(import_id, &import);
    if let Some(mapping) = imports.mapping(tenant_id, import_id).await.map_err(|error| staging_error(&error))? {
        document["mapping_toml"] = mapping.into();
    }
    let open = asked && import.state.state.is_open();
    let status = if open { StatusCode::ACCEPTED } else { StatusCode::OK };
    let mut response = (status, Json(document)).into_response();
    let location = format!("/v1/imports/{import_id}");
    let location = HeaderValue::from_str(&location).expect("a path of an id is header text");
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// `Prefer: wait=S` (RFC 7240); what is no number is left out of account.
fn wait_of(headers: &HeaderMap) -> Duration {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let seconds = preferences.flat_map(|value| value.split(',')).find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').parse::<u64>().ok())?
    });
    Duration::from_secs(seconds.unwrap_or(0).min(WAIT_SECONDS_MAX))
}

fn no_query(uri: &http::Uri) -> Result<(), Problem> {
    match uri.query() {
        Some(_) => Err(Problem::new(Code::UnknownParameter, "this endpoint takes no query parameters")),
        None => Ok(()),
    }
}

fn uuid(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::not_found())
}

/// What is told of bytes that cannot be had.
fn staging_error(error: &StagingError) -> Problem {
    match error {
        StagingError::Pool(_) | StagingError::Database(_) => {
            tracing::warn!(%error, "the bytes of an import cannot be had");
            Problem::new(Code::DatabaseUnavailable, "the database cannot be reached")
        }
        StagingError::Key(_) | StagingError::Form(_) | StagingError::Gone(_) => {
            tracing::error!(%error, "the bytes of an import cannot be read");
            Problem::internal()
        }
    }
}

/// What is told of a list that is not taken.
fn not_taken(error: NotTaken, import_id: Option<Uuid>) -> Problem {
    let error = match error {
        NotTaken::Command(error) => return not_carried_out(*error, import_error),
        other => other,
    };
    let (reason, detail) = error.told();
    let problem = match &error {
        NotTaken::Refused(_) | NotTaken::Mapping(_) => Problem::new(Code::InvalidList, detail),
        NotTaken::TooLarge(_) => Problem::new(Code::BodyTooLarge, detail),
        NotTaken::Busy => Problem::new(Code::Overloaded, detail).retry_after(5),
        NotTaken::Storage(_) | NotTaken::Trouble(_) | NotTaken::Command(_) => {
            tracing::warn!(%error, "a list cannot be stored");
            Problem::new(Code::DatabaseUnavailable, detail)
        }
    };
    let problem = problem.member("reason", Value::from(reason));
    match import_id {
        Some(id) => problem.member("import_id", id.to_string()),
        None => problem,
    }
}
