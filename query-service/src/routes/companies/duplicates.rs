//! `GET /v1/companies/{id}/duplicates`

use axum::extract::Path;
use axum::response::Response;
use deadpool_postgres::Object;
use futures_util::join;
use service_kit::auth::Permission;
use service_kit::problem::{Code, Problem};
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::get::STANDS_FOR_IT;
use crate::duplicates::{Candidate, Candidates, Evidence};
use crate::freshness::Wanted;
use crate::parameters::Parameters;
use crate::problems::ReadError;
use crate::read::{Question, Snapshot, State, begin_bound};
use crate::reads::ShownRecords;
use crate::record::instant_text;
use crate::replicas::Scope;
use crate::routes::record::moved;
use crate::routes::{Parts, ReadHeaders, answer_tagged};

/// Candidates in an answer where the request does not say, and at most.
const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 100;
/// Candidates that each sort of evidence gives at most.
const OF_EACH_SORT_MAX: i32 = 100;

struct DuplicatesOf {
    tenant: Uuid,
    id: Uuid,
}

/// What is there of the company, and what looks like it.
enum Found {
    Nothing,
    Deleted(OffsetDateTime),
    Merged(Uuid),
    Live(Candidates),
}

impl Question for DuplicatesOf {
    type Data = Found;
    const SCOPE: Scope = Scope::ReadTables;

    async fn ask(&self, client: &mut Object, generation: i32) -> Result<Snapshot<Found>, ReadError> {
        let statement = client.prepare_cached(&sql(&migrations::schema_name(generation))).await?;
        let begin = begin_bound(self.tenant);
        let values: [&(dyn ToSql + Sync); 3] = [&self.tenant, &self.id, &OF_EACH_SORT_MAX];
        let (begun, rows, ended) =
            join!(client.batch_execute(&begin), client.query(&statement, &values), client.batch_execute("COMMIT"));
        begun?;
        let rows = rows?;
        ended?;
        let first = rows.first().ok_or(ReadError::NoGeneration)?;
        let state = State::from_row(first)?;
        let (id, deleted_at, merged_into): (Option<Uuid>, Option<OffsetDateTime>, Option<Uuid>) =
            (first.try_get(4)?, first.try_get(5)?, first.try_get(6)?);
        let data = match (id, merged_into, deleted_at) {
            (None, ..) => Found::Nothing,
            (_, Some(primary), _) => Found::Merged(primary),
            (.., Some(at)) => Found::Deleted(at),
            _ => Found::Live(candidates(&rows)?),
        };
        Ok(Snapshot { state, data })
    }
}

fn sql(schema: &str) -> String {
    format!(
        "-- query_service::routes::companies::duplicates
        SELECT l.generation, c.position, c.epoch, NULL::bigint AS queued, r.company_id, r.deleted_at, {STANDS_FOR_IT},
               d.company_id, d.name, d.domain, d.country, d.evidence, d.name_similarity, d.same_country
        FROM read.live AS l
        LEFT JOIN LATERAL (
            SELECT s.position, s.epoch FROM read.checkpoint_steps AS s
            WHERE s.projection = l.projection AND s.generation = l.generation ORDER BY s.step DESC LIMIT 1
        ) AS c ON true
        LEFT JOIN {{schema}}.companies AS r ON r.tenant_id = $1 /* tenant */ AND r.company_id = $2 /* id */
        LEFT JOIN LATERAL {{schema}}.duplicate_candidates(r.company_id, $3 /* of each sort */) AS d
            ON r.deleted_at IS NULL AND r.merged_into IS NULL
        WHERE l.projection = 'company_prospect'"
    )
    .replace("{schema}", schema)
}

fn candidates(rows: &[Row]) -> Result<Candidates, ReadError> {
    let mut candidates = Candidates::default();
    for row in rows {
        let Some(company_id) = row.try_get::<_, Option<Uuid>>(7)? else { continue };
        let evidence = match row.try_get::<_, &str>(11)? {
            "phone" => Evidence::Phone,
            "email_address" => Evidence::EmailAddress,
            "domain_label" => Evidence::DomainLabel,
            _ => Evidence::Name { similarity: f64::from(row.try_get::<_, f32>(12)?), same_country: row.try_get(13)? },
        };
        let (name, domain, country) = (row.try_get(8)?, row.try_get(9)?, row.try_get(10)?);
        let candidate = Candidate { company_id, name, domain, country, similarity: 0.0, reasons: Vec::new() };
        candidates.add(candidate, evidence);
    }
    Ok(candidates)
}

/// Companies that may be the same as this one.
#[utoipa::path(get, path = "/v1/companies/{id}/duplicates", tag = "companies",
    params(ReadHeaders, ("id" = String, Path, description = "The company"),
        ("limit" = Option<u16>, Query, description = "Candidates at most; 20 where it is not given, at most 100")),
    responses((status = 200, description = "`items`, best first: company_id, name, domain, country, similarity (0 to 1), reasons: same_name or similar_name (compared in lower case, without punctuation and legal forms), with it same_country; same_phone; same_email_address; same_domain_label (acme.com and acme.de). Only live companies; each reason is looked for among a hundred at most"),
        (status = 301, description = "Merged: `Location` is the list of the company that stands for it"),
        (status = 304, description = "If-None-Match has the answer's ETag"), (status = 404, description = "There is no such company"),
        (status = 410, description = "Deleted, since `deleted_at`"), (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(in crate::routes) async fn list(
    Path(id): Path<String>,
    (service, principal, uri, headers): Parts,
) -> Result<Response, Problem> {
    principal.require(Permission::ReadRecords)?;
    let mut parameters = Parameters::parse(uri.query(), &["limit"])?;
    let most = i64::try_from(LIMIT_MAX).expect("a hundred");
    let limit = parameters.number("limit", 1, most).and_then(|limit| usize::try_from(limit).ok());
    let wanted = Wanted::parse(&headers, &mut parameters);
    parameters.check()?;
    let id = Uuid::try_parse(&id).map_err(|_| Problem::not_found())?;
    let question = DuplicatesOf { tenant: principal.tenant_id, id };
    let Snapshot { state, data } = service.replicas.read(&question, &wanted).await?;
    match data {
        Found::Nothing => Err(state.describe(Problem::not_found())),
        Found::Deleted(at) => {
            let problem = Problem::new(Code::Gone, "the company is deleted; restore it first");
            Err(state.describe(problem.member("deleted_at", instant_text(at))))
        }
        Found::Merged(primary) => Ok(moved(&format!("/v1/companies/{primary}/duplicates"), &uri, &state)),
        Found::Live(candidates) => {
            let items = candidates.best(limit.unwrap_or(LIMIT_DEFAULT));
            let shown = ShownRecords::new(items.iter().map(|item| item.company_id).chain([id]));
            let body = serde_json::json!({ "items": items }).to_string().into_bytes();
            Ok(shown.on(answer_tagged(body, &state, &headers)))
        }
    }
}
