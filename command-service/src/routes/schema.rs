//! What the OpenAPI document says of the fields: made from the domain's own tables, so that it cannot differ from what is checked.

use std::borrow::Cow;

use domain::{Field, JsonType};
use http::StatusCode;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, RefOr, SecurityRequirement};
use utoipa::{IntoParams, PartialSchema, ToSchema};

/// The document without its paths, which come with the routes.
pub(super) fn description() -> OpenApi {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key: pk_….…")).build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Prospectus: commands")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some("Changes companies and prospects. Reads are the query service's."))
                .build(),
        )
        .components(Some(ComponentsBuilder::new().security_scheme("api_key", SecurityScheme::Http(bearer)).build()))
        .security(Some([SecurityRequirement::new("api_key", Vec::<String>::new())]))
        .build()
}

/// The refusals that every command has; those of its own stand with its handler.
pub(super) fn refusals(operation: &Operation) -> Vec<(StatusCode, &'static str)> {
    let mut refusals = vec![
        (StatusCode::BAD_REQUEST, "Not JSON, not UTF-8, a wrong header, or a query parameter"),
        (StatusCode::UNAUTHORIZED, "No key, or one that is not valid"),
        (StatusCode::FORBIDDEN, "The key's role may not"),
        (StatusCode::REQUEST_TIMEOUT, "The body did not arrive within 30 s"),
        (StatusCode::PAYLOAD_TOO_LARGE, "The body is larger than 1 MiB: `limit`"),
        (StatusCode::UNPROCESSABLE_ENTITY, "The Idempotency-Key was used with another request"),
        (StatusCode::INTERNAL_SERVER_ERROR, "The service failed; its log has the reason under the request's id"),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many commands wait, the database is away, or the service stops: nothing was changed; or `outcome-unknown`",
        ),
    ];
    if operation.request_body.is_some() {
        refusals.push((StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is of another media type"));
    }
    let named = operation.parameters.iter().flatten().any(
        |parameter| matches!(parameter, RefOr::T(parameter) if matches!(parameter.parameter_in, ParameterIn::Path)),
    );
    if named {
        refusals.push((StatusCode::PRECONDITION_FAILED, "If-Match is not the current `version`"));
    }
    refusals
}

/// Headers that every command takes.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only describes headers, which are read by name")]
pub(super) struct CommandHeaders {
    /// At most 255 characters: sent again with the same request it gives the first answer, for seven days.
    #[param(rename = "Idempotency-Key")]
    idempotency_key: Option<String>,
    /// The version in quotes that is to be changed; another one is answered 412.
    #[param(rename = "If-Match")]
    if_match: Option<String>,
    /// Which system the data comes from; in the history of every event.
    #[param(rename = "Prospectus-Source")]
    source: Option<String>,
    /// What belongs together across requests; in the history of every event.
    #[param(rename = "X-Correlation-Id")]
    correlation_id: Option<String>,
    /// What this is a consequence of; in the history of every event.
    #[param(rename = "X-Causation-Id")]
    causation_id: Option<String>,
}

/// The answer to every change.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes event_store::Answer")]
pub(super) struct AnswerBody {
    /// The record.
    id: uuid::Uuid,
    /// Its version after the change.
    version: i64,
    /// Position of its last event in the log; give it to a read as `Prospectus-Min-Position`.
    position: i64,
    /// Which life of the log the position belongs to.
    epoch: String,
    /// Only where a page on social media was added: its id.
    #[schema(nullable = false)]
    social_media_id: Option<uuid::Uuid>,
    /// Only where a company was made for a prospect in review: that company.
    #[schema(nullable = false)]
    company_id: Option<uuid::Uuid>,
    /// Only where a new record has a domain or a reference that a deleted one had: that one.
    #[schema(nullable = false)]
    deleted_holder: Option<uuid::Uuid>,
}

/// A company's fields, from the domain's table.
pub(super) struct CompanyFields;
/// A prospect's fields, from the domain's table.
pub(super) struct ProspectFields;
/// A page on social media.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what domain::company::AddSocialMedia parses")]
pub(super) struct SocialMediaFields {
    /// `LinkedIn`, X, …
    #[schema(max_length = 100)]
    platform: String,
    /// Its address.
    #[schema(max_length = 2048, format = "uri")]
    url: String,
}
/// The company that another one is merged into.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what domain::company::MergeInto parses")]
pub(super) struct MergeFields {
    /// The company that stays and stands for both.
    into: uuid::Uuid,
}
/// What becomes of a record in review: exactly one of these.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what domain::review::Resolve parses")]
pub(super) struct ResolveFields {
    /// The prospect works at this company.
    #[schema(nullable = false)]
    assign: Option<AssignFields>,
    /// The prospect works at a company with these fields, which is made.
    #[schema(nullable = false)]
    create: Option<CompanyFields>,
    /// The company is the same as this one.
    #[schema(nullable = false)]
    merge: Option<MergeFields>,
    /// The record stays as it is; `true`.
    #[schema(nullable = false)]
    leave: Option<bool>,
}
/// Whom a prospect works for.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what domain::prospect::AssignProspect parses")]
pub(super) struct AssignFields {
    /// A live company, or null.
    company_id: Option<uuid::Uuid>,
}

/// Why a person is erased.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what domain::prospect::EraseProspect parses")]
pub(super) struct EraseFields {
    /// A short text, such as `request 4711`. It stays in the log for ever, so it must hold no personal data.
    #[schema(max_length = 255)]
    reason: String,
}

/// What is to be explained.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what domains::explain takes")]
pub(super) struct ExplainFields {
    /// An e-mail address, a URL or a host.
    input: String,
}

/// How an input leads to a company's domain, or why it leads to none.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes domain::value::company_domain::Explanation")]
pub(super) struct ExplanationBody {
    /// As it was sent.
    input: String,
    /// The company's domain; null where it leads to none.
    domain: Option<String>,
    /// Only where it leads to none: why.
    #[schema(nullable = false)]
    reason: Option<ExplanationReason>,
    /// What was done, in order.
    steps: Vec<ExplanationStep>,
}

/// Why an input leads to no company's domain.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes domain::Invalid")]
pub(super) struct ExplanationReason {
    /// For programs: `free_mail`, `disposable_mail`, `shared_host`, `public_suffix`, `ip_address`, `invalid_domain`, `empty`, `too_long`.
    code: String,
    /// For people.
    detail: String,
}

/// One step of an explanation.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes domain::value::company_domain::Explanation")]
pub(super) struct ExplanationStep {
    /// `trimmed`, `after_last_at` or `host_of_url`, `ascii_lower_case`, `without_www`, `registrable_domain`, `owner`, `suspicion`.
    step: String,
    /// What it led to.
    result: String,
}

macro_rules! schema_of_fields {
    ($name:ident, $fields:path) => {
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                object_of($fields())
            }
        }
        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    };
}
schema_of_fields!(CompanyFields, domain::company::fields);
schema_of_fields!(ProspectFields, domain::prospect::fields);

fn object_of(fields: impl Iterator<Item = &'static Field>) -> RefOr<Schema> {
    let object = fields.fold(ObjectBuilder::new(), |object, field| object.property(field.name, schema_of(field)));
    RefOr::T(object.additional_properties(Some(AdditionalProperties::FreeForm(false))).build().into())
}

fn schema_of(field: &Field) -> RefOr<Schema> {
    let schema = &field.schema;
    let list = |items: ObjectBuilder| {
        RefOr::T(
            ArrayBuilder::new()
                .items(items)
                .description(Some(field.description))
                .max_items(schema.max_items)
                .build()
                .into(),
        )
    };
    let text = || ObjectBuilder::new().schema_type(Type::String);
    match schema.json_type {
        JsonType::String | JsonType::Integer => {
            let json_type = if schema.json_type == JsonType::String { Type::String } else { Type::Integer };
            let mut object = ObjectBuilder::new()
                .schema_type(SchemaType::from_iter([json_type, Type::Null]))
                .description(Some(field.description))
                .max_length(schema.max_length)
                .minimum(schema.minimum.map(number))
                .maximum(schema.maximum.map(number));
            if let Some(format) = schema.format {
                let known = if format == "uuid" {
                    SchemaFormat::KnownFormat(KnownFormat::Uuid)
                } else {
                    SchemaFormat::Custom(format.to_owned())
                };
                object = object.format(Some(known));
            }
            RefOr::T(object.build().into())
        }
        JsonType::Attributes => {
            let object = ObjectBuilder::new().description(Some(field.description));
            RefOr::T(object.additional_properties(Some(AdditionalProperties::FreeForm(true))).build().into())
        }
        JsonType::Strings => list(text()),
        JsonType::ExternalRefs => list(ObjectBuilder::new().property("source", text()).property("id", text())),
        JsonType::SocialMedia => list(ObjectBuilder::new().property("platform", text()).property("url", text())),
    }
}

fn number(bound: i64) -> utoipa::Number {
    utoipa::Number::Int(isize::try_from(bound).unwrap_or(isize::MAX))
}
