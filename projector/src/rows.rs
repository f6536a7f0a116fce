//! What the read tables show of a record: the columns of both tables and the cells of a row. No SQL here: the projection writes
//! these cells, and the verifier compares with them.

use domain::review::ReviewReason;
use domain::{Company, Prospect, Status};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::columns::{Cell, Columns, Kind};
use crate::record::{Folded, Place};

use Kind::{Json, Number, Text, Time, Uuid as Id};

/// Columns of `companies`.
pub const COMPANIES: Columns = &[
    ("tenant_id", Id),
    ("company_id", Id),
    ("version", Number),
    ("position", Number),
    ("domain", Text),
    ("additional_domains", Json),
    ("name", Text),
    ("name_sort", Text),
    ("name_key", Text),
    ("legal_name", Text),
    ("company_type", Text),
    ("industry", Text),
    ("founding_date", Text),
    ("short_description", Text),
    ("long_description", Text),
    ("employee_count", Number),
    ("min_employee_size", Number),
    ("max_employee_size", Number),
    ("employee_size_link", Text),
    ("revenue", Number),
    ("revenue_currency", Text),
    ("address", Text),
    ("city", Text),
    ("state", Text),
    ("country", Text),
    ("zip_code", Text),
    ("phone", Text),
    ("mobile_phone", Text),
    ("email_address", Text),
    ("logo_url", Text),
    ("social_media", Json),
    ("external_refs", Json),
    ("attributes", Json),
    ("flags", Json),
    ("merged_into", Id),
    ("created_at", Time),
    ("updated_at", Time),
    ("deleted_at", Time),
    ("looks_like_company_id", Id),
    ("review_since", Time),
];

/// Columns of `merged_companies`.
pub const MERGED_COMPANIES: Columns = &[("tenant_id", Id), ("company_id", Id), ("primary_id", Id)];

/// Columns of `company_prospect` that are the prospect's own, or of the row.
pub const PROSPECTS: Columns = &[
    ("tenant_id", Id),
    ("row_id", Id),
    ("position", Number),
    ("assigned_company_id", Id),
    ("prospect_id", Id),
    ("salutation", Text),
    ("first_name", Text),
    ("last_name", Text),
    ("prospect_name_sort", Text),
    ("email", Text),
    ("email_key", Text),
    ("job_title", Text),
    ("job_title_level", Text),
    ("department", Text),
    ("job_title_link", Text),
    ("prospect_address", Text),
    ("prospect_city", Text),
    ("prospect_state", Text),
    ("prospect_country", Text),
    ("prospect_zip_code", Text),
    ("prospect_phone", Text),
    ("prospect_mobile_phone", Text),
    ("prospect_external_refs", Json),
    ("prospect_attributes", Json),
    ("prospect_flags", Json),
    ("prospect_version", Number),
    ("prospect_position", Number),
    ("prospect_created_at", Time),
    ("prospect_updated_at", Time),
    ("prospect_deleted_at", Time),
    ("prospect_erased_at", Time),
    ("created_at", Time),
    ("updated_at", Time),
    ("review", Text),
    ("review_since", Time),
    ("hint_name", Text),
    ("hint_country", Text),
    ("hint_host", Text),
];

/// Columns of `company_prospect` that say something of a person, and what stands in them where the person was erased.
pub const PERSONAL: &[(&str, &str)] = &[
    ("salutation", "NULL"),
    ("first_name", "NULL"),
    ("last_name", "NULL"),
    ("prospect_name_sort", "NULL"),
    ("email", "NULL"),
    ("email_key", "NULL"),
    ("job_title_link", "NULL"),
    ("prospect_address", "NULL"),
    ("prospect_city", "NULL"),
    ("prospect_state", "NULL"),
    ("prospect_zip_code", "NULL"),
    ("prospect_phone", "NULL"),
    ("prospect_mobile_phone", "NULL"),
    ("prospect_external_refs", "'[]'"),
    ("prospect_attributes", "'{}'"),
    ("prospect_flags", "'[]'"),
    ("hint_name", "NULL"),
    ("hint_country", "NULL"),
    ("hint_host", "NULL"),
];

/// Columns of `company_prospect` that are its company's: the name there, the column of `companies`, and what it holds.
pub const DENORMALISED: &[(&str, &str, Kind)] = &[
    ("company_id", "company_id", Id),
    ("domain", "domain", Text),
    ("company_name", "name", Text),
    ("company_name_sort", "name_sort", Text),
    ("industry", "industry", Text),
    ("employee_count", "employee_count", Number),
    ("min_employee_size", "min_employee_size", Number),
    ("max_employee_size", "max_employee_size", Number),
    ("revenue", "revenue", Number),
    ("company_address", "address", Text),
    ("company_city", "city", Text),
    ("company_state", "state", Text),
    ("company_country", "country", Text),
    ("company_zip_code", "zip_code", Text),
    ("company_phone", "phone", Text),
    ("company_mobile_phone", "mobile_phone", Text),
    ("company_version", "version", Number),
    ("company_created_at", "created_at", Time),
    ("company_updated_at", "updated_at", Time),
];

/// The row of a company.
pub fn company(place: Place, record: &Folded<Company>) -> Vec<Cell> {
    company_columns(place, record, COMPANIES)
}

/// Some columns of a company's row: for those who show a record without the columns that are only sorted and compared by.
pub fn company_columns((tenant, id): Place, record: &Folded<Company>, columns: &[(&'static str, Kind)]) -> Vec<Cell> {
    let company = &record.state;
    let social_media = company.social_media.iter().map(|entry| {
        let added = record.added_at.get(&entry.social_media_id).copied().unwrap_or(record.created_at);
        json!({"social_media_id": entry.social_media_id, "platform": entry.platform.as_str(), "url": entry.url.as_str(),
            "created_at": rfc3339(added), "updated_at": rfc3339(added)})
    });
    let social_media = Value::Array(social_media.collect());
    let cells = columns.iter().map(|(column, kind)| match *column {
        "tenant_id" => Cell::Uuid(Some(tenant)),
        "company_id" => Cell::Uuid(Some(id)),
        "version" => Cell::Number(Some(record.version)),
        "position" => Cell::Number(Some(record.position)),
        "domain" => Cell::Text(company.domain.as_ref().map(|domain| domain.as_str().to_owned())),
        "additional_domains" => Cell::Json(json!(company.additional_domains)),
        "name_sort" => Cell::Text(company.name_sort()),
        "name_key" => Cell::Text(company.name_key()),
        "social_media" => Cell::Json(social_media.clone()),
        "external_refs" => Cell::Json(json!(company.external_refs)),
        "attributes" => Cell::Json(json!(company.attributes)),
        "flags" => Cell::Json(json!(company.flags())),
        "merged_into" => Cell::Uuid(match company.status {
            Status::Merged { into } => Some(into),
            Status::Unregistered | Status::Live | Status::Deleted => None,
        }),
        "created_at" => Cell::Time(Some(record.created_at)),
        "updated_at" => Cell::Time(Some(record.updated_at)),
        "deleted_at" => Cell::Time(record.deleted_at),
        "looks_like_company_id" => Cell::Uuid(match company.open_review() {
            Some(ReviewReason::LooksLike { company_id }) => Some(company_id),
            _ => None,
        }),
        "review_since" => Cell::Time(record.review_since),
        field => cell(company.profile.get(field), *kind),
    });
    cells.collect()
}

/// The row of a merged company in `merged_companies`: the one that stands for it.
pub fn merged_company((tenant, id): Place, primary: Uuid) -> Vec<Cell> {
    vec![Cell::Uuid(Some(tenant)), Cell::Uuid(Some(id)), Cell::Uuid(Some(primary))]
}

/// The prospect's own part of its row. `position` and `updated_at` are the prospect's; the row's are the later of both sides'.
pub fn prospect(place: Place, record: &Folded<Prospect>) -> Vec<Cell> {
    prospect_columns(place, record, PROSPECTS)
}

/// Some columns of the prospect's own part of its row.
pub fn prospect_columns((tenant, id): Place, record: &Folded<Prospect>, columns: &[(&'static str, Kind)]) -> Vec<Cell> {
    let prospect = &record.state;
    let hint = &prospect.personal.company_hint;
    let (open, personal) = (&prospect.profile, &prospect.personal.fields);
    let cells = columns.iter().map(|(column, kind)| match *column {
        "tenant_id" => Cell::Uuid(Some(tenant)),
        "row_id" | "prospect_id" => Cell::Uuid(Some(id)),
        "position" | "prospect_position" => Cell::Number(Some(record.position)),
        "assigned_company_id" => Cell::Uuid(prospect.company_id),
        "prospect_name_sort" => Cell::Text(prospect.name_sort()),
        "email_key" => Cell::Text(prospect.personal.fields.email.as_ref().map(domain::value::EmailAddress::key)),
        "prospect_external_refs" => Cell::Json(json!(prospect.personal.external_refs)),
        "prospect_attributes" => Cell::Json(json!(prospect.personal.attributes)),
        "prospect_flags" => Cell::Json(json!(prospect.flags())),
        "prospect_version" => Cell::Number(Some(record.version)),
        "created_at" | "prospect_created_at" => Cell::Time(Some(record.created_at)),
        "updated_at" | "prospect_updated_at" => Cell::Time(Some(record.updated_at)),
        "prospect_deleted_at" => Cell::Time(record.deleted_at),
        "prospect_erased_at" => Cell::Time(record.erased_at),
        "review" if prospect.left_alone => Cell::Text(Some("left_alone".to_owned())),
        "review" => Cell::Text(prospect.open_review().map(|reason| reason.name().to_owned())),
        "review_since" => Cell::Time(record.review_since),
        "hint_name" => Cell::Text(hint.name.as_ref().map(|name| name.as_str().to_owned())),
        "hint_country" => Cell::Text(hint.country.as_ref().map(|country| country.as_str().to_owned())),
        "hint_host" => Cell::Text(hint.host.as_ref().map(|host| host.as_str().to_owned())),
        "prospect_country" => cell(open.get("country"), *kind),
        "job_title" | "job_title_level" | "department" => cell(open.get(column), *kind),
        field => cell(personal.get(field.strip_prefix("prospect_").unwrap_or(field)), *kind),
    });
    cells.collect()
}

/// What a column shows of a field's value.
fn cell(value: Option<Value>, kind: Kind) -> Cell {
    match (kind, value) {
        (Kind::Number, value) => Cell::Number(value.as_ref().and_then(Value::as_i64)),
        (_, Some(Value::String(text))) => Cell::Text(Some(text)),
        // A phone number that could not be read stands as {"as_given": …}; its flag says so.
        (_, value) => Cell::Text(value.and_then(|value| value["as_given"].as_str().map(str::to_owned))),
    }
}

fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).expect("a timestamp of the log is within RFC 3339's years")
}

/// The least id, before every row.
pub const LEAST_ID: Uuid = Uuid::nil();
