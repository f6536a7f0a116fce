//! `GET /v1/companies/{id}`

use std::sync::RwLock;

use axum::extract::Path;
use axum::response::Response;
use domain::Company;
use service_kit::problem::Problem;

use crate::record::{COMPANY, select_list};
use crate::routes::record::{Sort, answer};
use crate::routes::{Parts, ReadHeaders};

/// Of a merged company `r`, the one that stands for it: the end of the chain, where that was merged itself.
pub(super) const STANDS_FOR_IT: &str = "CASE WHEN r.merged_into IS NOT NULL THEN coalesce((
                       SELECT m.primary_id FROM {schema}.merged_companies AS m
                       WHERE m.tenant_id = $1 AND m.company_id = r.company_id), r.merged_into) END AS merged_into";

static COMPANY_BY_ID: Sort = Sort {
    path: "/v1/companies",
    columns: COMPANY,
    kept: RwLock::new(None),
    statement: |schema| {
        format!(
            "-- query_service::routes::companies::get
            SELECT l.generation, c.position, c.epoch, NULL::bigint AS queued,
                   r.company_id AS id, r.version, r.deleted_at, {STANDS_FOR_IT}, NULL::bigint AS shown_position, {}
            FROM read.live AS l
            LEFT JOIN LATERAL (
                SELECT s.position, s.epoch FROM read.checkpoint_steps AS s
                WHERE s.projection = l.projection AND s.generation = l.generation ORDER BY s.step DESC LIMIT 1
            ) AS c ON true
            LEFT JOIN {schema}.companies AS r ON r.tenant_id = $1 /* tenant */ AND r.company_id = $2 /* id */
            WHERE l.projection = 'company_prospect'",
            select_list(COMPANY)
        )
        .replace("{schema}", schema)
    },
};

/// A company.
#[utoipa::path(get, path = "/v1/companies/{id}", tag = "companies",
    params(ReadHeaders, ("id" = String, Path, description = "The company"),
        ("include_deleted" = Option<bool>, Query, description = "Show it although it is deleted or merged"),
        ("fields" = Option<String>, Query, description = "Only these fields: a,b"),
        ("as_of" = Option<String>, Query, description = "The record as it was at this time (RFC 3339), what was recorded right then included. For auditors and admins, as the other two"),
        ("as_of_version" = Option<i64>, Query, description = "The record at this version"),
        ("as_of_position" = Option<i64>, Query, description = "The record after the event at this position of the log, which the answer waits for")),
    responses((status = 200, description = "The company; fields without a value are null"), (status = 301, description = "Merged: `Location` is the company that stands for it, also where that is the end of several merges"),
        (status = 304, description = "If-None-Match has the current ETag"), (status = 404, description = "There is no such company, or, as the detail says, there was not yet, or not that version"),
        (status = 410, description = "Deleted, since `deleted_at`"), (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(in crate::routes) async fn get(
    Path(id): Path<String>,
    (service, principal, uri, headers): Parts,
) -> Result<Response, Problem> {
    answer::<Company>(&COMPANY_BY_ID, &service, &principal, &id, &uri, &headers).await
}
