//! `GET /v1/companies/{id}/history` and `GET /v1/prospects/{id}/history`

use std::marker::PhantomData;

use axum::extract::Path;
use axum::response::Response;
use domain::{Company, Prospect};
use service_kit::auth::Permission;
use service_kit::problem::Problem;
use uuid::Uuid;

use super::{LIMIT_DEFAULT, LIMIT_MAX, Parts, ReadHeaders, answer_tagged};
use crate::freshness::Wanted;
use crate::parameters::Parameters;
use crate::past::{HistoryOf, Past};
use crate::reads::ShownRecords;
use crate::record::write_json;
use crate::routes::events::parse_cursor;

/// What happened to a company: who changed which member from what to what, when, from where and why. As long as other companies are
/// merged into it, what happened to them as well, each event with its `aggregate_id`, in the order of the log.
#[utoipa::path(get, path = "/v1/companies/{id}/history", tag = "companies",
    params(ReadHeaders, ("id" = String, Path, description = "The company"),
        ("limit" = Option<u16>, Query, description = "Events on the page, at most 1000; 100 where it is not given"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, description = "`items`, newest last: position, sequence (the version after it), aggregate_id, event_id, type, recorded_at, actor, actor_role, key (the prefix of the API key; of an import: of who sent the list), correlation_id, causation_id, request_id, client_address, source, import_id and row where an import led to it, and changes: {field, from, to} for each member that is another one after it, an attribute as `attributes.<key>`; `next_cursor` where there are more"),
        (status = 304, description = "If-None-Match has the page's ETag"), (status = 403, description = "The key's role has no right to read histories"),
        (status = 404, description = "There is no such company"), (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(super) async fn of_company(path: Path<String>, parts: Parts) -> Result<Response, Problem> {
    answer::<Company>(path, parts).await
}

/// What happened to a prospect, as with companies. Which company a merged or deleted one leads to is that company's history; of a person
/// who was erased, what was personal shows as one change of `personal` from `erased` to `erased`.
#[utoipa::path(get, path = "/v1/prospects/{id}/history", tag = "prospects",
    params(ReadHeaders, ("id" = String, Path, description = "The prospect"),
        ("limit" = Option<u16>, Query, description = "Events on the page, at most 1000; 100 where it is not given"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, description = "`items`, newest last, as in a company's history; `next_cursor` where there are more"),
        (status = 304, description = "If-None-Match has the page's ETag"), (status = 403, description = "The key's role has no right to read histories"),
        (status = 404, description = "There is no such prospect"), (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(super) async fn of_prospect(path: Path<String>, parts: Parts) -> Result<Response, Problem> {
    answer::<Prospect>(path, parts).await
}

async fn answer<R: Past>(
    Path(id): Path<String>,
    (service, principal, uri, headers): Parts,
) -> Result<Response, Problem> {
    principal.require(Permission::ReadEvents)?;
    let mut parameters = Parameters::parse(uri.query(), &["limit", "cursor"])?;
    let most = i64::try_from(LIMIT_MAX).expect("a thousand");
    let limit = parameters.number("limit", 1, most).and_then(|limit| usize::try_from(limit).ok());
    let after = parse_cursor(&mut parameters).unwrap_or(0);
    let wanted = Wanted::parse(&headers, &mut parameters);
    parameters.check()?;
    let id = Uuid::try_parse(&id).map_err(|_| Problem::not_found())?;
    let (keyring, tenant, limit) = (&service.keyring, principal.tenant_id, limit.unwrap_or(LIMIT_DEFAULT));
    let question = HistoryOf::<R> { keyring, tenant, id, after, limit, sort: PhantomData };
    let snapshot = service.replicas.read(&question, &wanted).await?;
    let Some(page) = snapshot.data else { return Err(snapshot.state.describe(Problem::not_found())) };
    let mut body = Vec::with_capacity(page.items.len() + 64);
    body.extend_from_slice(b"{\"items\":[");
    body.extend_from_slice(&page.items);
    body.push(b']');
    if let Some(next) = page.next {
        body.extend_from_slice(b",\"next_cursor\":");
        write_json(&mut body, &next.to_string());
    }
    body.push(b'}');
    Ok(ShownRecords::new(page.shown).on(answer_tagged(body, &snapshot.state, &headers)))
}
