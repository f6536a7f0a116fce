//! Problem details (RFC 9457): the one shape of every refusal, and the one table of their codes.
//!
//! A problem's `type` is `/problems/<code>`, relative to the service, which serves a page there (see [`crate::docs`]).

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

mod catalogue;

pub use catalogue::Code;

/// A refusal on its way to a client.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Boxed, because it stands in the error of many results.
    content: Box<Content>,
}

#[derive(Debug, Clone)]
struct Content {
    code: Code,
    detail: String,
    instance: Option<Uuid>,
    errors: Vec<FieldProblem>,
    members: Map<String, Value>,
    headers: HeaderMap,
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldProblem {
    /// JSON pointer into the body (`/email`), or the name of a parameter.
    pub pointer: String,
    /// What is wrong, for programs: `invalid_email`.
    pub code: String,
    /// What is wrong, for people.
    pub detail: String,
}

impl Problem {
    /// A problem of a code; `detail` says what is special about this one. It must hold no SQL and nothing of another tenant.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let content = Content {
            code,
            detail: detail.into(),
            instance: None,
            errors: Vec::new(),
            members: Map::new(),
            headers: HeaderMap::new(),
        };
        let mut problem = Self { content: Box::new(content) };
        if code.status() == StatusCode::SERVICE_UNAVAILABLE {
            problem = problem.retry_after(1);
        }
        if code.status() == StatusCode::UNAUTHORIZED {
            problem = problem.header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        problem
    }

    /// Something that should not happen. What it was belongs in the log, not here.
    pub fn internal() -> Self {
        Self::new(Code::Internal, "the service failed; the log has the reason under this request id")
    }

    /// The record is not there, or another tenant's: the same answer.
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "there is no such record")
    }

    /// Adds everything that is wrong with the request.
    #[must_use]
    pub fn errors(mut self, errors: Vec<FieldProblem>) -> Self {
        self.content.errors = errors;
        self
    }

    /// Adds a member of its own: `claimed_by`, `version`, `lag`, …
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.content.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.content.headers.insert(name, value);
        self
    }

    /// When to try again, in seconds. Every 503 has one; without this call it is 1.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        self.header(header::RETRY_AFTER, seconds.into())
    }

    /// Names the request. [`crate::http::observe`] does it for whole answers; a line of a batch is named by its handler.
    #[must_use]
    pub fn instance(mut self, request_id: Uuid) -> Self {
        self.content.instance = Some(request_id);
        self
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.content.code
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.content.code.status()
    }

    /// The document.
    pub fn to_json(&self) -> Value {
        let mut document = Map::new();
        document.insert("type".to_owned(), format!("/problems/{}", self.content.code.name()).into());
        document.insert("title".to_owned(), self.content.code.title().into());
        document.insert("status".to_owned(), self.status().as_u16().into());
        document.insert("detail".to_owned(), self.content.detail.clone().into());
        document.insert("code".to_owned(), self.content.code.name().into());
        if let Some(request_id) = self.content.instance {
            document.insert("instance".to_owned(), format!("urn:uuid:{request_id}").into());
        }
        if !self.content.errors.is_empty() {
            let errors =
                self.content.errors.iter().map(
                    |error| serde_json::json!({"pointer": error.pointer, "code": error.code, "detail": error.detail}),
                );
            document.insert("errors".to_owned(), errors.collect());
        }
        for (name, value) in &self.content.members {
            document.entry(name.clone()).or_insert_with(|| value.clone());
        }
        Value::Object(document)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}", self.content.code.name(), self.content.detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        *response.status_mut() = self.status();
        response.headers_mut().extend(self.content.headers.clone());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // `http::observe` finds it here, names the request in it and writes it again.
        response.extensions_mut().insert(self);
        response
    }
}
