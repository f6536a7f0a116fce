//! `GET /v1/companies`

use axum::response::Response;
use service_kit::problem::Problem;

use crate::list::resource::COMPANIES;
use crate::routes::page::answer;
use crate::routes::{Parts, ReadHeaders};

/// Companies: one page of them.
#[utoipa::path(get, path = "/v1/companies", tag = "companies",
    params(ReadHeaders,
        ("sort" = Option<String>, Query, description = "name, domain, revenue, employee_count, created_at, updated_at or id; - in front for the other direction; records without a value come last"),
        ("limit" = Option<u16>, Query, description = "Items on the page, at most 1000; 100 where it is not given. A page of large records has fewer: at most 4 MiB"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
        ("fields" = Option<String>, Query, description = "Only these fields: a,b"),
        ("count" = Option<String>, Query, description = "exact or estimated: adds `count`"),
        ("include_deleted" = Option<bool>, Query, description = "Deleted ones too")),
    responses((status = 200, description = "`items`, and `next_cursor` where there are more"), (status = 304, description = "If-None-Match has the page's ETag"), (status = 400, description = "A parameter is unknown or wrong, or the cursor is of another list"),
        (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(in crate::routes) async fn list((service, principal, uri, headers): Parts) -> Result<Response, Problem> {
    answer(&COMPANIES, &service, &principal, &uri, &headers).await
}
