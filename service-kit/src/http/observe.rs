//! What surrounds every request: its id, its log line, its figures, and the one shape of every refusal.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use super::serve::Peer;
use crate::auth::Principal;
use crate::health::READINESS;
use crate::problem::{Code, Problem};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the log calls a path that no route has: a client cannot make new names.
const UNMATCHED: &str = "unmatched";

/// Which request this is and where it came from; any handler under [`observe`] may take it as an argument.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext {
    /// The client's `X-Request-Id` if that is a UUID, else a new one.
    pub request_id: Uuid,
    /// The other end of the connection.
    pub peer: SocketAddr,
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_else(|| Self::of(&parts.headers, &parts.extensions)))
    }
}

impl RequestContext {
    fn of(headers: &http::HeaderMap, extensions: &http::Extensions) -> Self {
        let given = headers.get(&REQUEST_ID).and_then(|id| Uuid::try_parse_ascii(id.as_bytes()).ok());
        let peer = extensions.get::<Peer>().map_or((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0).into(), |peer| peer.0);
        Self { request_id: given.unwrap_or_else(Uuid::now_v7), peer }
    }
}

/// Finishes a service's router: 404 and 405 as problems, a request id, a log line and figures for every request, panics as
/// problems, `nosniff`. `service` is the label in the figures.
pub fn observe(router: Router, service: &'static str) -> Router {
    metrics::describe_counter!("http_requests_total", "Requests answered");
    metrics::describe_histogram!("http_request_duration_seconds", metrics::Unit::Seconds, "Until the answer's headers");
    let figures = Arc::new(Figures { service, routes: RwLock::new(HashMap::new()) });
    router
        .fallback(async || Problem::new(Code::NotFound, "there is no such path; /docs lists them all"))
        .method_not_allowed_fallback(async || {
            Problem::new(Code::MethodNotAllowed, "the Allow header lists the methods of this path")
        })
        .layer(axum::middleware::from_fn_with_state(figures, around))
}

async fn around(State(figures): State<Arc<Figures>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let context = RequestContext::of(request.headers(), request.extensions());
    request.extensions_mut().insert(context);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let span = tracing::info_span!("http.request", request_id = %context.request_id);

    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await;
    // The panic itself was logged by the process's hook, with its place.
    let mut response = answered.unwrap_or_else(|_| Problem::internal().into_response());

    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let allow = response.headers_mut().remove(header::ALLOW);
        // The principal among them, which the log line names.
        let extensions = std::mem::take(response.extensions_mut());
        response = problem.instance(context.request_id).into_response();
        response.extensions_mut().extend(extensions);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    let headers = response.headers_mut();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = context.request_id.hyphenated().encode_lower(&mut text);
    headers.insert(REQUEST_ID, HeaderValue::from_str(text).expect("a UUID is ASCII"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));

    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let took = started.elapsed();
    figures.record(route, &method, response.status(), took.as_secs_f64());
    span.in_scope(|| log(&response, route, &method, took.as_secs_f64()));
    response
}

fn log(response: &Response, route: &str, method: &Method, seconds: f64) {
    let status = response.status().as_u16();
    let principal = response.extensions().get::<Principal>();
    let tenant = principal.map(|principal| tracing::field::display(principal.tenant_id));
    let problem = response.extensions().get::<Problem>().map(|problem| problem.code().name());
    match status {
        ..400 => tracing::debug!(%method, route, status, seconds, tenant, "answered"),
        // Whoever asks asks again and again; what is in the way logs itself, once.
        503 if route == READINESS => tracing::debug!(status, seconds, "not ready"),
        400..500 => tracing::info!(%method, route, status, seconds, tenant, problem, "refused"),
        _ => tracing::warn!(%method, route, status, seconds, tenant, problem, "failed"),
    }
}

/// The handles of the figures, kept so that a request allocates no labels. Bounded by the routes, methods and statuses there are.
struct Figures {
    service: &'static str,
    routes: RwLock<HashMap<String, Vec<Figure>>>,
}

#[derive(Clone)]
struct Figure {
    method: &'static str,
    status: StatusCode,
    requests: metrics::Counter,
    duration: metrics::Histogram,
}

impl Figures {
    fn record(&self, route: &str, method: &Method, status: StatusCode, seconds: f64) {
        let figure = self.figure(route, known(method), status);
        figure.requests.increment(1);
        figure.duration.record(seconds);
    }

    fn figure(&self, route: &str, method: &'static str, status: StatusCode) -> Figure {
        let same = |figure: &&Figure| figure.method == method && figure.status == status;
        let kept = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(figure) = kept.get(route).and_then(|figures| figures.iter().find(same)) {
            return figure.clone();
        }
        drop(kept);
        let requests = metrics::counter!("http_requests_total", "service" => self.service, "method" => method,
            "route" => route.to_owned(), "status" => status.as_u16().to_string());
        let duration = metrics::histogram!("http_request_duration_seconds", "service" => self.service, "method" => method,
            "route" => route.to_owned());
        let figure = Figure { method, status, requests, duration };
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        routes.entry(route.to_owned()).or_default().push(figure.clone());
        figure
    }
}

/// A client can invent methods; the figures know these.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
