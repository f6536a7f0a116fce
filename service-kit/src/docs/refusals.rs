//! What a service's description says of refusals, written down once for all its endpoints.

use http::StatusCode;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use crate::problem::FieldProblem;

/// A refusal (RFC 9457). Some have members of their own beside these; the page behind `type` names them.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what problem::Problem writes")]
struct Problem {
    /// Leads to a page that explains it: `/problems/<code>`, relative to the service.
    #[schema(format = "uri-reference")]
    r#type: String,
    /// What it is, in a few words; the same for every problem of the code.
    title: String,
    /// The status of the answer, or of the line of a batch.
    status: u16,
    /// What is special about this one.
    detail: String,
    /// What it is, for programs.
    code: String,
    /// The request: `urn:uuid:` and its `X-Request-Id`, which is in the service's log too.
    #[schema(format = "uri")]
    instance: String,
    /// All that is wrong with the request.
    #[schema(nullable = false)]
    errors: Option<Vec<FieldProblem>>,
    /// `claim_taken`: the record that has it.
    #[schema(nullable = false)]
    claimed_by: Option<Uuid>,
    /// `precondition_failed`: the current version.
    #[schema(nullable = false)]
    version: Option<i64>,
    /// `body_too_large`: the most bytes that are taken.
    #[schema(nullable = false)]
    limit: Option<u64>,
}

/// Adds to every endpoint the refusals that `common` gives for it, unless it describes that status itself, and to every refusal its
/// document; a 503 says when to try again.
pub fn describe_refusals(description: &mut OpenApi, common: impl Fn(&Operation) -> Vec<(StatusCode, &'static str)>) {
    let schemas = &mut description.components.get_or_insert_default().schemas;
    schemas.insert("Problem".to_owned(), Problem::schema());
    schemas.insert("FieldProblem".to_owned(), FieldProblem::schema());
    for operation in description.paths.paths.values_mut().flat_map(operations) {
        for (status, when) in common(operation) {
            let response = || RefOr::T(ResponseBuilder::new().description(when).build());
            operation.responses.responses.entry(status.as_str().to_owned()).or_insert_with(response);
        }
        for (status, response) in &mut operation.responses.responses {
            let RefOr::T(response) = response else { continue };
            if status.starts_with(['4', '5']) {
                let content = Content::new(Some(Ref::from_schema_name("Problem")));
                response.content.insert("application/problem+json".to_owned(), content.into());
            }
            if status == StatusCode::SERVICE_UNAVAILABLE.as_str() {
                let header = HeaderBuilder::new()
                    .description(Some("When to try again, in seconds"))
                    .schema(Some(ObjectBuilder::new().schema_type(Type::Integer)))
                    .build();
                response.headers.insert("Retry-After".to_owned(), header.into());
            }
        }
    }
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.post, &mut path.put, &mut path.patch, &mut path.delete].into_iter().flatten()
}
