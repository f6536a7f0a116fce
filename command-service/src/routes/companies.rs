//! Commands on companies.

use axum::body::Body;
use axum::extract::Path;
use axum::response::Response;
use domain::CompanyCommand;
use service_kit::problem::Problem;

use super::{Incoming, Parts};
use crate::operation::Operation;

/// Registers a company.
#[utoipa::path(post, path = "/v1/companies", tag = "companies",
    request_body(content = super::schema::CompanyFields, description = "The company's fields; a name or a domain is required"),
    params(super::schema::CommandHeaders),
    responses((status = 201, body = super::schema::AnswerBody, description = "Registered; `deleted_holder` names a deleted company that had the domain or a reference"),
        (status = 409, description = "A domain or external reference belongs to another company: `claimed_by`"),
        (status = 422, description = "Fields are wrong, all of them listed")))]
pub(super) async fn register(
    (service, principal, context, method, path, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    let incoming = Incoming::new(principal, context, method, path, headers)?;
    incoming.with_object(&service, body, Operation::register_company).await
}

/// Changes a company's fields: JSON Merge Patch, null clears.
#[utoipa::path(patch, path = "/v1/companies/{id}", tag = "companies",
    request_body(content = super::schema::CompanyFields, description = "The fields to change"),
    params(super::schema::CommandHeaders, ("id" = String, Path, description = "The company")),
    responses((status = 200, body = super::schema::AnswerBody, description = "Changed, or already so: then the version stays"),
        (status = 404, description = "There is no such company"), (status = 409, description = "A claim is taken, or the company is deleted"),
        (status = 422, description = "Fields are wrong")))]
pub(super) async fn update(
    Path(id): Path<String>,
    (service, principal, context, method, path, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    let incoming = Incoming::new(principal, context, method, path, headers)?;
    incoming.with_object(&service, body, |object| Operation::update_company(&id, object)).await
}

/// Deletes a company; its history stays, its claims are released, and it can be restored.
#[utoipa::path(delete, path = "/v1/companies/{id}", tag = "companies",
    params(super::schema::CommandHeaders, ("id" = String, Path, description = "The company")),
    responses((status = 200, body = super::schema::AnswerBody, description = "Deleted"), (status = 404, description = "There is no such company"),
        (status = 409, description = "It is deleted already")))]
pub(super) async fn delete(
    Path(id): Path<String>,
    (service, principal, context, method, path, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    let incoming = Incoming::new(principal, context, method, path, headers)?;
    incoming.without_body(&service, body, Operation::company(&id, CompanyCommand::Delete)).await
}

/// Restores a deleted company with all that it had.
#[utoipa::path(post, path = "/v1/companies/{id}/restore", tag = "companies",
    params(super::schema::CommandHeaders, ("id" = String, Path, description = "The company")),
    responses((status = 200, body = super::schema::AnswerBody, description = "Restored, or not deleted"), (status = 404, description = "There is no such company"),
        (status = 409, description = "Another company has taken its domain or reference meanwhile: `claimed_by`")))]
pub(super) async fn restore(
    Path(id): Path<String>,
    (service, principal, context, method, path, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    let incoming = Incoming::new(principal, context, method, path, headers)?;
    incoming.without_body(&service, body, Operation::company(&id, CompanyCommand::Restore)).await
}

/// Merges a company into another one. The other one's values win, its blanks are filled, domains, references and social media move, and
/// prospects follow. It can be undone.
#[utoipa::path(post, path = "/v1/companies/{id}/merge", tag = "companies",
    request_body(content = super::schema::MergeFields),
    params(super::schema::CommandHeaders, ("id" = String, Path, description = "The company that is merged; If-Match counts for it")),
    responses((status = 200, body = super::schema::AnswerBody, description = "Merged, or already so: the answer is of the merged company, its `position` includes both"),
        (status = 404, description = "There is no such company"),
        (status = 409, description = "One of the two is deleted, or was merged into another: `merged_into`"),
        (status = 422, description = "`into` is no company's id or the company itself, or the two have more together than a company may have")))]
pub(super) async fn merge(
    Path(id): Path<String>,
    (service, principal, context, method, path, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    let incoming = Incoming::new(principal, context, method, path, headers)?;
    incoming.with_object(&service, body, |object| Operation::merge_company(&id, object)).await
}

/// Undoes a merge: both companies are as they were, but for what was changed since in fields that the merge did not fill.
#[utoipa::path(post, path = "/v1/companies/{id}/unmerge", tag = "companies",
    params(super::schema::CommandHeaders, ("id" = String, Path, description = "The company that was merged; If-Match counts for it")),
    responses((status = 200, body = super::schema::AnswerBody, description = "Undone, or it was not merged: the answer is of this company, its `position` includes both"),
        (status = 404, description = "There is no such company"),
        (status = 409, description = "Fields that the merge filled were changed since: `errors` lists them. Or the other company is deleted (`restore_first`) or was merged itself (`unmerge_first`), or this one is deleted")))]
pub(super) async fn unmerge(
    Path(id): Path<String>,
    (service, principal, context, method, path, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    let incoming = Incoming::new(principal, context, method, path, headers)?;
    incoming.without_body(&service, body, Operation::unmerge_company(&id)).await
}

/// Adds a page on social media.
#[utoipa::path(post, path = "/v1/companies/{id}/social-media", tag = "companies",
    request_body(content = super::schema::SocialMediaFields),
    params(super::schema::CommandHeaders, ("id" = String, Path, description = "The company")),
    responses((status = 201, body = super::schema::AnswerBody, description = "Added: `social_media_id`"), (status = 200, body = super::schema::AnswerBody, description = "It was there already"),
        (status = 404, description = "There is no such company"), (status = 409, description = "The company is deleted"), (status = 422, description = "Fields are wrong")))]
pub(super) async fn add_social_media(
    Path(id): Path<String>,
    (service, principal, context, method, path, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    let incoming = Incoming::new(principal, context, method, path, headers)?;
    incoming.with_object(&service, body, |object| Operation::add_social_media(&id, object)).await
}

/// Removes a page on social media.
#[utoipa::path(delete, path = "/v1/companies/{id}/social-media/{social_media_id}", tag = "companies",
    params(super::schema::CommandHeaders, ("id" = String, Path, description = "The company"), ("social_media_id" = String, Path, description = "The entry")),
    responses((status = 200, body = super::schema::AnswerBody, description = "Removed"), (status = 404, description = "There is no such company or entry"),
        (status = 409, description = "The company is deleted")))]
pub(super) async fn remove_social_media(
    Path((id, entry)): Path<(String, String)>,
    (service, principal, context, method, path, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    let incoming = Incoming::new(principal, context, method, path, headers)?;
    incoming.without_body(&service, body, Operation::remove_social_media(&id, &entry)).await
}
