//! Which company's domain an e-mail address, URL or host leads to: the rules that imports go by, asked about one input.

use axum::Json;
use axum::body::Body;
use domain::value::company_domain;
use domain::{FieldErrors, Invalid};
use http::HeaderMap;
use serde_json::Value;
use service_kit::auth::{Permission, Principal};
use service_kit::http::read_json;
use service_kit::problem::Problem;

use crate::operation::Object;
use crate::problems::field_errors;

/// Explains step by step which company's domain an e-mail address, a URL or a host leads to, or why to none. Changes nothing.
#[utoipa::path(post, path = "/v1/domains/explain", tag = "domains",
    request_body(content = super::schema::ExplainFields),
    responses((status = 200, body = super::schema::ExplanationBody, description = "Explained; `domain` is null where it leads to no company's"),
        (status = 422, description = "Fields are wrong")))]
pub(super) async fn explain(principal: Principal, headers: HeaderMap, body: Body) -> Result<Json<Value>, Problem> {
    principal.require(Permission::ReadRecords)?;
    let body = read_json(&headers, body, super::COMMAND_BYTES_MAX).await?;
    let input = input_of(body.object).map_err(field_errors)?;
    Ok(Json(company_domain::explain(&input).to_json(&input)))
}

fn input_of(object: Object) -> Result<String, FieldErrors> {
    let (mut input, mut errors) = (None, FieldErrors::default());
    for (name, value) in object {
        match name.as_str() {
            "input" => match value {
                Value::String(text) => input = Some(text),
                _ => errors.push("/input", Invalid::wrong_type("a string")),
            },
            _ => errors.push(domain::field_error::pointer_to("", &name), Invalid::unknown_field()),
        }
    }
    if input.is_none() && errors.is_empty() {
        errors.push("/input", Invalid::required("say which e-mail address, URL or host"));
    }
    errors.or_value(input.unwrap_or_default())
}
