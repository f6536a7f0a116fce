//! `GET /v1/prospects/{id}`

use std::sync::RwLock;

use axum::extract::Path;
use axum::response::Response;
use domain::Prospect;
use service_kit::problem::Problem;

use crate::record::{PROSPECT, select_list};
use crate::routes::record::{Sort, answer};
use crate::routes::{Parts, ReadHeaders};

static PROSPECT_BY_ID: Sort = Sort {
    path: "/v1/prospects",
    columns: PROSPECT,
    // Only a change of this prospect's company that is still on its way keeps the answer back. Where the company that it leads
    // to is not the one it was given, the record shows something of that company, so the row's position is part of the tag: two
    // companies may have one version, and a prospect may lead to one after the other.
    kept: RwLock::new(None),
    statement: |schema| {
        format!(
            "-- query_service::routes::prospects::get
            SELECT l.generation, c.position, c.epoch,
                   (SELECT f.position FROM read.fanout AS f
                    WHERE f.projection = l.projection AND f.generation = l.generation
                      AND f.tenant_id = $1 AND f.company_id = r.assigned_company_id) AS queued,
                   r.prospect_id AS id, r.prospect_version, r.prospect_deleted_at, NULL::uuid AS merged_into,
                   CASE WHEN r.company_id IS DISTINCT FROM r.assigned_company_id THEN CASE WHEN r.company_id IS NULL THEN 0 ELSE r.position END END
                       AS shown_position, {}
            FROM read.live AS l
            LEFT JOIN LATERAL (
                SELECT s.position, s.epoch FROM read.checkpoint_steps AS s
                WHERE s.projection = l.projection AND s.generation = l.generation ORDER BY s.step DESC LIMIT 1
            ) AS c ON true
            LEFT JOIN {schema}.company_prospect AS r
                ON r.tenant_id = $1 /* tenant */ AND r.row_id = $2 /* id */ AND r.prospect_id IS NOT NULL
            WHERE l.projection = 'company_prospect'",
            select_list(PROSPECT)
        )
    },
};

/// A prospect.
#[utoipa::path(get, path = "/v1/prospects/{id}", tag = "prospects",
    params(ReadHeaders, ("id" = String, Path, description = "The prospect"),
        ("include_deleted" = Option<bool>, Query, description = "Show it although it is deleted"),
        ("fields" = Option<String>, Query, description = "Only these fields: a,b"),
        ("as_of" = Option<String>, Query, description = "The record as it was at this time (RFC 3339), what was recorded right then included. For auditors and admins, as the other two"),
        ("as_of_version" = Option<i64>, Query, description = "The record at this version"),
        ("as_of_position" = Option<i64>, Query, description = "The record after the event at this position of the log, which the answer waits for")),
    responses((status = 200, description = "The prospect; fields without a value are null"), (status = 304, description = "If-None-Match has the current ETag"),
        (status = 404, description = "There is no such prospect, or, as the detail says, there was not yet, or not that version"), (status = 410, description = "Deleted, since `deleted_at`"),
        (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(in crate::routes) async fn get(
    Path(id): Path<String>,
    (service, principal, uri, headers): Parts,
) -> Result<Response, Problem> {
    answer::<Prospect>(&PROSPECT_BY_ID, &service, &principal, &id, &uri, &headers).await
}
