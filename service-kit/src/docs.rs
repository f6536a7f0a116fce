//! The service's documents: its OpenAPI description, the same as a page, and a page for every problem. Everything is made once, at
//! the start, and needs no other host and no script.

mod page;
mod refusals;

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderValue, header};

use crate::problem::{Code, Problem};

pub use refusals::describe_refusals;

/// `/openapi.json`, `/docs` and `/problems/{code}`, to be merged into the service's router.
///
/// # Errors
/// If the description cannot be written as JSON.
pub fn router<S: Clone + Send + Sync + 'static>(
    description: &utoipa::openapi::OpenApi,
) -> serde_json::Result<Router<S>> {
    let json = Bytes::from(serde_json::to_vec_pretty(description)?);
    let page: Arc<str> = page::api(&serde_json::from_slice(&json)?).into();
    Ok(Router::new()
        .route("/openapi.json", get(async move || ([(header::CONTENT_TYPE, "application/json")], json)))
        .route("/docs", get(async move || html(page.to_string())))
        .route("/problems", get(async || html(page::problems())))
        .route("/problems/{code}", get(problem)))
}

async fn problem(Path(name): Path<String>) -> Response {
    match Code::find(&name) {
        Some(code) => html(page::problem(code)),
        None => Problem::new(Code::NotFound, "there is no such problem; /problems lists them all").into_response(),
    }
}

fn html(page: String) -> Response {
    let mut response = Html(page).into_response();
    // The pages need their own style and nothing else.
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}
