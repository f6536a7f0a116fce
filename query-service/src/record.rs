//! Records as JSON: which columns they have under which names, written straight from the row.

use std::error::Error;

use projector::columns::Cell;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};
use uuid::Uuid;

/// One field of a record.
#[derive(Debug)]
pub(crate) struct Column {
    /// Its name in JSON.
    pub(crate) name: &'static str,
    /// Its column in the table.
    pub(crate) sql: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Uuid,
    Integer,
    Instant,
    Json,
}

const fn text(name: &'static str) -> Column {
    Column { name, sql: name, kind: Kind::Text }
}

const fn column(name: &'static str, sql: &'static str, kind: Kind) -> Column {
    Column { name, sql, kind }
}

/// A company.
pub(crate) const COMPANY: &[Column] = &[
    column("company_id", "company_id", Kind::Uuid),
    column("version", "version", Kind::Integer),
    column("position", "position", Kind::Integer),
    text("domain"),
    column("additional_domains", "additional_domains", Kind::Json),
    text("name"),
    text("legal_name"),
    text("company_type"),
    text("industry"),
    text("founding_date"),
    text("short_description"),
    text("long_description"),
    column("employee_count", "employee_count", Kind::Integer),
    column("min_employee_size", "min_employee_size", Kind::Integer),
    column("max_employee_size", "max_employee_size", Kind::Integer),
    text("employee_size_link"),
    column("revenue", "revenue", Kind::Integer),
    text("revenue_currency"),
    text("address"),
    text("city"),
    text("state"),
    text("country"),
    text("zip_code"),
    text("phone"),
    text("mobile_phone"),
    text("email_address"),
    text("logo_url"),
    column("social_media", "social_media", Kind::Json),
    column("external_refs", "external_refs", Kind::Json),
    column("attributes", "attributes", Kind::Json),
    column("flags", "flags", Kind::Json),
    column("merged_into", "merged_into", Kind::Uuid),
    column("created_at", "created_at", Kind::Instant),
    column("updated_at", "updated_at", Kind::Instant),
    column("deleted_at", "deleted_at", Kind::Instant),
];

/// A prospect: its own fields, and whom it works for.
pub(crate) const PROSPECT: &[Column] = &[
    column("prospect_id", "prospect_id", Kind::Uuid),
    // Not the row's position: that may be its company's last change, of which the version in the ETag says nothing.
    column("version", "prospect_version", Kind::Integer),
    column("company_id", "company_id", Kind::Uuid),
    column("assigned_company_id", "assigned_company_id", Kind::Uuid),
    text("salutation"),
    text("first_name"),
    text("last_name"),
    text("email"),
    column("phone", "prospect_phone", Kind::Text),
    column("mobile_phone", "prospect_mobile_phone", Kind::Text),
    column("address", "prospect_address", Kind::Text),
    column("city", "prospect_city", Kind::Text),
    column("state", "prospect_state", Kind::Text),
    column("country", "prospect_country", Kind::Text),
    column("zip_code", "prospect_zip_code", Kind::Text),
    text("job_title"),
    text("job_title_level"),
    text("job_title_link"),
    text("department"),
    column("external_refs", "prospect_external_refs", Kind::Json),
    column("attributes", "prospect_attributes", Kind::Json),
    column("flags", "prospect_flags", Kind::Json),
    column("created_at", "prospect_created_at", Kind::Instant),
    column("updated_at", "prospect_updated_at", Kind::Instant),
    column("deleted_at", "prospect_deleted_at", Kind::Instant),
    column("erased_at", "prospect_erased_at", Kind::Instant),
];

/// A row of `company_prospect_view`, under the view's names.
pub(crate) const COMPANY_PROSPECT: &[Column] = &[
    column("company_id", "company_id", Kind::Uuid),
    column("prospect_id", "prospect_id", Kind::Uuid),
    column("position", "position", Kind::Integer),
    text("domain"),
    text("company_name"),
    text("industry"),
    column("employee_count", "employee_count", Kind::Integer),
    column("min_employee_size", "min_employee_size", Kind::Integer),
    column("max_employee_size", "max_employee_size", Kind::Integer),
    column("revenue", "revenue", Kind::Integer),
    text("company_address"),
    text("company_city"),
    text("company_state"),
    text("company_country"),
    text("company_zip_code"),
    text("company_phone"),
    text("company_mobile_phone"),
    text("salutation"),
    text("first_name"),
    text("last_name"),
    text("email"),
    text("job_title"),
    text("job_title_level"),
    text("department"),
    text("job_title_link"),
    text("prospect_address"),
    text("prospect_city"),
    text("prospect_state"),
    text("prospect_country"),
    text("prospect_zip_code"),
    text("prospect_phone"),
    text("prospect_mobile_phone"),
    column("company_version", "company_version", Kind::Integer),
    column("prospect_version", "prospect_version", Kind::Integer),
    column("company_created_at", "company_created_at", Kind::Instant),
    column("company_updated_at", "company_updated_at", Kind::Instant),
    column("prospect_created_at", "prospect_created_at", Kind::Instant),
    column("prospect_updated_at", "prospect_updated_at", Kind::Instant),
    column("prospect_deleted_at", "prospect_deleted_at", Kind::Instant),
    column("created_at", "created_at", Kind::Instant),
    column("updated_at", "updated_at", Kind::Instant),
];

/// The columns as a select list of the table with the alias `r`.
pub(crate) fn select_list(columns: &[Column]) -> String {
    columns.iter().map(|column| format!("r.{}", column.sql)).collect::<Vec<_>>().join(", ")
}

/// Writes a row's columns from `offset` on as an object. `selected` says for each column whether it is wanted; none is all.
///
/// # Errors
/// If the row has other columns.
pub(crate) fn write_object(
    out: &mut Vec<u8>,
    row: &Row,
    offset: usize,
    columns: &[Column],
    selected: Option<&[bool]>,
) -> Result<(), tokio_postgres::Error> {
    out.push(b'{');
    let mut first = true;
    for (place, column) in columns.iter().enumerate() {
        if selected.is_some_and(|selected| !selected[place]) {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        out.push(b'"');
        out.extend_from_slice(column.name.as_bytes());
        out.extend_from_slice(b"\":");
        write_value(out, row, offset + place, column.kind)?;
    }
    out.push(b'}');
    Ok(())
}

fn write_value(out: &mut Vec<u8>, row: &Row, place: usize, kind: Kind) -> Result<(), tokio_postgres::Error> {
    match kind {
        Kind::Text => write_json(out, &row.try_get::<_, Option<&str>>(place)?),
        Kind::Uuid => write_json(out, &row.try_get::<_, Option<Uuid>>(place)?),
        Kind::Integer => write_json(out, &row.try_get::<_, Option<i64>>(place)?),
        Kind::Instant => write_json(out, &row.try_get::<_, Option<OffsetDateTime>>(place)?.map(instant_text)),
        Kind::Json => match row.try_get::<_, Option<JsonbText<'_>>>(place)? {
            Some(JsonbText(text)) => out.extend_from_slice(text.as_bytes()),
            None => out.extend_from_slice(b"null"),
        },
    }
    Ok(())
}

/// Appends a value as JSON.
pub(crate) fn write_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(out, value).expect("texts, ids and numbers always serialise, and a Vec takes every write");
}

/// A cell of a record that was folded, as [`write_object`] shows the same column of a row.
pub(crate) fn json_of(cell: Cell) -> Value {
    match cell {
        Cell::Uuid(id) => id.map(|id| id.to_string()).into(),
        Cell::Text(text) => text.into(),
        Cell::Number(number) => number.into(),
        Cell::Time(instant) => instant.map(instant_text).into(),
        Cell::Json(json) => json,
    }
}

/// An instant as RFC 3339 in UTC.
pub(crate) fn instant_text(instant: OffsetDateTime) -> String {
    instant.format(&Rfc3339).expect("PostgreSQL's instants that the log holds have years of four digits")
}

/// The text of a `jsonb` column, as PostgreSQL writes it.
struct JsonbText<'a>(&'a str);

impl<'a> FromSql<'a> for JsonbText<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        match raw.split_first() {
            // The first byte is the version of jsonb's binary form.
            Some((1, text)) => Ok(Self(std::str::from_utf8(text)?)),
            _ => Err("a form of jsonb that is not known".into()),
        }
    }

    fn accepts(column: &Type) -> bool {
        *column == Type::JSONB
    }
}
