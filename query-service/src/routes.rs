//! The endpoints: folder = noun, file = verb. Each parses its request into a question and writes the answer.

mod analytics;
mod companies;
mod company_prospects;
mod events;
mod history;
mod log;
mod page;
mod projections;
mod prospects;
mod reads;
mod record;
mod reviews;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use service_kit::auth::{Principal, protect};
use service_kit::http::observe;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;
use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, RefOr, SecurityRequirement};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Service;
use crate::list::Resource;
use crate::list::resource::{COMPANIES, COMPANY_PROSPECTS, PROSPECTS};
use crate::read::State as SnapshotState;
use crate::reads::note_shown;

/// Items on a page where the request does not say.
pub(crate) const LIMIT_DEFAULT: usize = 100;
/// Items on a page at most.
pub(crate) const LIMIT_MAX: usize = 1000;
/// Bytes of rows on a page at most, unless one row alone has more: a page may have fewer items than its limit.
pub(crate) const PAGE_BYTES_MAX: usize = 4 << 20;

/// The service's whole router.
///
/// # Errors
/// If the description of the endpoints cannot be written as JSON.
pub fn router(service: Arc<Service>, health: Router) -> serde_json::Result<Router> {
    let (reads, mut description) = OpenApiRouter::with_openapi(description())
        .routes(routes!(companies::get::get))
        .routes(routes!(companies::list::list))
        .routes(routes!(companies::duplicates::list))
        .routes(routes!(history::of_company))
        .routes(routes!(prospects::get::get))
        .routes(routes!(prospects::list::list))
        .routes(routes!(history::of_prospect))
        .routes(routes!(company_prospects::list))
        .routes(routes!(reviews::list))
        .routes(routes!(events::list))
        .routes(routes!(log::heads::list))
        .routes(routes!(log::inclusion::get))
        .routes(routes!(log::consistency::get))
        .routes(routes!(reads::list))
        .routes(routes!(analytics::metrics))
        .routes(routes!(analytics::trends))
        .routes(routes!(analytics::report))
        .routes(routes!(projections::list))
        .split_for_parts();
    for resource in [&COMPANIES, &PROSPECTS, &COMPANY_PROSPECTS] {
        describe_filters(&mut description, resource);
    }
    let reads = reads.route_layer(axum::middleware::from_fn_with_state(Arc::clone(&service), note_shown));
    let reads: Router = protect(reads, service.authenticator.clone()).with_state(service);
    Ok(observe(reads.merge(health).merge(service_kit::docs::router(&description)?), "query-service"))
}

/// Adds a list's filters to its description, from the table that they are read by.
fn describe_filters(description: &mut OpenApi, resource: &Resource) {
    let operation = description.paths.paths.get_mut(resource.path).and_then(|path| path.get.as_mut());
    let Some(operation) = operation else { return };
    let parameters = resource.filters.iter().map(|filter| {
        let parameter = ParameterBuilder::new()
            .name(filter.name)
            .parameter_in(ParameterIn::Query)
            .description(Some(filter.kind.described()))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .build();
        RefOr::T(parameter)
    });
    operation.parameters.get_or_insert_default().extend(parameters);
}

/// The document without its paths, which come with the routes.
fn description() -> OpenApi {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key: pk_….…")).build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Prospectus: reads")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some("Reads companies, prospects and the log. Commands are the command service's."))
                .build(),
        )
        .components(Some(ComponentsBuilder::new().security_scheme("api_key", SecurityScheme::Http(bearer)).build()))
        .security(Some([SecurityRequirement::new("api_key", Vec::<String>::new())]))
        .build()
}

/// What every read's handler is given.
type Parts = (State<Arc<Service>>, Principal, Uri, HeaderMap);

/// Headers that every read takes.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only describes headers, which are read by name")]
struct ReadHeaders {
    /// A position, or `<epoch>-<position>`: the answer includes it, or is 503 `not_fresh`.
    #[param(rename = "Prospectus-Min-Position")]
    min_position: Option<String>,
    /// `wait=S`: how many seconds to wait for that position; 2 where it is not given, at most 30.
    #[param(rename = "Prefer")]
    prefer: Option<String>,
    /// `ETag`s of answers that the client has: 304 if one of them is still right.
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// Adds what every answer of a snapshot says about itself.
fn add_position(headers: &mut HeaderMap, state: &SnapshotState) {
    headers.extend(state.headers());
}

/// Answers with a body of JSON, or with 304 where the client has it already. The tag is made of the body: weak, for two answers with
/// the same body may include different positions.
fn answer_tagged(body: Vec<u8>, state: &SnapshotState, headers: &HeaderMap) -> Response {
    let digest = Sha256::digest(&body);
    let etag = format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(&digest[..12]));
    let mut response = if matches_etag(headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = Response::new(Body::from(body));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    };
    add_position(response.headers_mut(), state);
    response.headers_mut().insert(header::ETAG, HeaderValue::try_from(etag).expect("base64url and quotes are ASCII"));
    response
}

/// Whether `If-None-Match` names this entity tag, compared weakly.
fn matches_etag(headers: &HeaderMap, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let etag = opaque(etag);
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|given| given.trim() == "*" || opaque(given) == etag)
}
