//! Commands on prospects.

use axum::body::Body;
use axum::extract::Path;
use axum::response::Response;
use domain::ProspectCommand;
use service_kit::problem::Problem;

use super::{Incoming, Parts};
use crate::operation::Operation;

/// Registers a prospect.
#[utoipa::path(post, path = "/v1/prospects", tag = "prospects",
    request_body(content = super::schema::ProspectFields, description = "The prospect's fields; something to know the person by is required"),
    params(super::schema::CommandHeaders),
    responses((status = 201, body = super::schema::AnswerBody, description = "Registered"),
        (status = 409, description = "An external reference belongs to another prospect: `claimed_by`"),
        (status = 422, description = "Fields are wrong, all of them listed; a `company_id` that is no live company too")))]
pub(super) async fn register(
    (service, principal, context, method, path, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    let incoming = Incoming::new(principal, context, method, path, headers)?;
    incoming.with_object(&service, body, Operation::register_prospect).await
}

/// Changes a prospect's fields: JSON Merge Patch, null clears.
#[utoipa::path(patch, path = "/v1/prospects/{id}", tag = "prospects",
    request_body(content = super::schema::ProspectFields, description = "The fields to change"),
    params(super::schema::CommandHeaders, ("id" = String, Path, description = "The prospect")),
    responses((status = 200, body = super::schema::AnswerBody, description = "Changed, or already so: then the version stays"),
        (status = 404, description = "There is no such prospect"), (status = 409, description = "A reference is taken, or the prospect is deleted"),
        (status = 422, description = "Fields are wrong")))]
pub(super) async fn update(
    Path(id): Path<String>,
    (service, principal, context, method, path, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    let incoming = Incoming::new(principal, context, method, path, headers)?;
    incoming.with_object(&service, body, |object| Operation::update_prospect(&id, object)).await
}

/// Deletes a prospect; its history stays, its references are released, and it can be restored.
#[utoipa::path(delete, path = "/v1/prospects/{id}", tag = "prospects",
    params(super::schema::CommandHeaders, ("id" = String, Path, description = "The prospect")),
    responses((status = 200, body = super::schema::AnswerBody, description = "Deleted"), (status = 404, description = "There is no such prospect"),
        (status = 409, description = "It is deleted already")))]
pub(super) async fn delete(
    Path(id): Path<String>,
    (service, principal, context, method, path, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    let incoming = Incoming::new(principal, context, method, path, headers)?;
    incoming.without_body(&service, body, Operation::prospect(&id, ProspectCommand::Delete)).await
}

/// Restores a deleted prospect with all that it had.
#[utoipa::path(post, path = "/v1/prospects/{id}/restore", tag = "prospects",
    params(super::schema::CommandHeaders, ("id" = String, Path, description = "The prospect")),
    responses((status = 200, body = super::schema::AnswerBody, description = "Restored, or not deleted"), (status = 404, description = "There is no such prospect"),
        (status = 409, description = "Another prospect has taken its reference meanwhile: `claimed_by`")))]
pub(super) async fn restore(
    Path(id): Path<String>,
    (service, principal, context, method, path, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    let incoming = Incoming::new(principal, context, method, path, headers)?;
    incoming.without_body(&service, body, Operation::prospect(&id, ProspectCommand::Restore)).await
}

/// Assigns a prospect to a company, or to none.
#[utoipa::path(post, path = "/v1/prospects/{id}/assign", tag = "prospects",
    request_body(content = super::schema::AssignFields),
    params(super::schema::CommandHeaders, ("id" = String, Path, description = "The prospect")),
    responses((status = 200, body = super::schema::AnswerBody, description = "Assigned, or already so"), (status = 404, description = "There is no such prospect"),
        (status = 409, description = "The prospect is deleted"),
        (status = 422, description = "There is no such live company")))]
pub(super) async fn assign(
    Path(id): Path<String>,
    (service, principal, context, method, path, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    let incoming = Incoming::new(principal, context, method, path, headers)?;
    incoming.with_object(&service, body, |object| Operation::assign_prospect(&id, object)).await
}

/// Forgets a person, for good: all that identifies the person can no longer be read, in the log neither; the record counts as deleted. What
/// is said of backups, read tables and the time that each takes stands in `docs/personal-data.md`.
#[utoipa::path(post, path = "/v1/prospects/{id}/erase", tag = "prospects",
    request_body(content = super::schema::EraseFields),
    params(super::schema::CommandHeaders, ("id" = String, Path, description = "The prospect")),
    responses((status = 200, body = super::schema::AnswerBody, description = "Erased, or erased before"),
        (status = 403, description = "The key's role is not admin"), (status = 404, description = "There is no such prospect"),
        (status = 422, description = "The reason is missing or too long"),
        (status = 503, description = "`erasure_incomplete`: erased, but not yet written down outside the database: send it again; or as for every command")))]
pub(super) async fn erase(
    Path(id): Path<String>,
    (service, principal, context, method, path, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    let incoming = Incoming::new(principal, context, method, path, headers)?;
    incoming.with_object(&service, body, |object| Operation::erase_prospect(&id, object)).await
}
