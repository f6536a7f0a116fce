//! Commands on what is in review.

use axum::body::Body;
use axum::extract::Path;
use axum::response::Response;
use service_kit::problem::Problem;

use super::{Incoming, Parts};
use crate::operation::Operation;

/// Resolves a review. A prospect is assigned to a company, or to one that is made for it in the same moment, or left as it is; a company
/// is merged into another one or left as it is.
#[utoipa::path(post, path = "/v1/reviews/{id}/resolve", tag = "reviews",
    request_body(content = super::schema::ResolveFields, description = "Exactly one of the four: `assign`, `create` or `leave` for a prospect, `merge` or `leave` for a company"),
    params(super::schema::CommandHeaders, ("id" = String, Path, description = "The review, which has the id of the prospect or company that it is about; If-Match counts for that record")),
    responses((status = 200, body = super::schema::AnswerBody, description = "Resolved: the answer is of the record in review, its `position` includes the company's changes; `company_id` is the company that was made"),
        (status = 404, description = "There is no such record"),
        (status = 409, description = "The record is not in review any more (`not_in_review`: `company_id` is what a prospect has) or deleted; the company to assign to or merge into is deleted or merged (`merged_into`); or the domain or a reference of the company to be made belongs to another: `claimed_by`, to which the prospect can be assigned. Nothing was changed"),
        (status = 422, description = "Fields are wrong, all of them listed; there is no such company; or a prospect's resolution for a company, and the reverse")))]
pub(super) async fn resolve(
    Path(id): Path<String>,
    (service, principal, context, method, path, headers): Parts,
    body: Body,
) -> Result<Response, Problem> {
    let incoming = Incoming::new(principal, context, method, path, headers)?;
    incoming.with_object(&service, body, |object| Operation::resolve_review(&id, object)).await
}
