//! What became of each row, as a stream.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri, header};
use service_kit::problem::{Code, Problem};
use uuid::Uuid;

use super::staging_error;
use crate::carry_out::Service;
use crate::import::{Form, Format, OF_REPORT, Outcome, Outcomes, RowOutcome};

/// Answers with the outcomes of an import's rows.
pub(super) async fn rows(
    service: &Service,
    tenant_id: Uuid,
    import_id: Uuid,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let wanted = wanted(uri)?;
    let outcomes = service.imports.outcomes(tenant_id, import_id).await.map_err(|error| staging_error(&error))?;
    let outcomes = outcomes.ok_or_else(Problem::not_found)?;
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let csv = accept.split(',').any(|kind| kind.trim().starts_with("text/csv"));
    let form = outcomes.form.clone();
    let shape = if csv { Shape::Csv(form) } else { Shape::NdJson };
    let (media, first) = match &shape {
        Shape::NdJson => ("application/x-ndjson", String::new()),
        Shape::Csv(form) => ("text/csv; charset=utf-8", header_of(form.as_ref())),
    };
    let state = (outcomes, shape, wanted, Some(first), import_id);
    let stream = futures_util::stream::unfold(Some(state), async |state| {
        let (mut outcomes, shape, wanted, first, import_id): (Outcomes, Shape, Option<BTreeSet<Outcome>>, _, _) =
            state?;
        if let Some(first) = first {
            return Some((Ok(Bytes::from(first)), Some((outcomes, shape, wanted, None, import_id))));
        }
        match outcomes.next().await {
            Ok(None) => None,
            Ok(Some(rows)) => {
                let mut text = Vec::new();
                let shown = |row: &&RowOutcome| wanted.as_ref().is_none_or(|wanted| wanted.contains(&row.outcome));
                for row in rows.iter().filter(shown) {
                    shape.write(row, &mut text);
                }
                Some((Ok::<_, std::io::Error>(Bytes::from(text)), Some((outcomes, shape, wanted, None, import_id))))
            }
            Err(error) => {
                tracing::warn!(%import_id, %error, "the outcomes of an import broke off");
                // The client sees that the answer is cut off.
                Some((Err(std::io::Error::other("the outcomes cannot be read further")), None))
            }
        }
    });
    let mut response = Body::from_stream(stream).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    Ok(response)
}

/// How rows are written.
enum Shape {
    NdJson,
    /// The rows as they stood, with what became of them in front, so that they can be corrected and sent again.
    Csv(Option<Form>),
}

impl Shape {
    fn write(&self, row: &RowOutcome, text: &mut Vec<u8>) {
        match self {
            Self::NdJson => serde_json::to_writer(&mut *text, row).expect("outcomes are plain structs"),
            Self::Csv(form) => {
                let delimiter = delimiter_of(form.as_ref()).to_string();
                let outcome = serde_json::to_value(row.outcome).ok();
                let outcome = outcome.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
                let reasons: Vec<String> = row
                    .reasons
                    .iter()
                    .map(|reason| {
                        let about = reason.column.as_deref().or(reason.field.as_deref());
                        about.map_or_else(|| reason.detail.clone(), |about| format!("{about}: {}", reason.detail))
                    })
                    .collect();
                let original = if is_csv(form.as_ref()) { row.text.clone() } else { quoted(&row.text) };
                let cells = [
                    row.row.to_string(),
                    row.line.to_string(),
                    outcome.to_owned(),
                    quoted(&reasons.join("; ")),
                    original,
                ];
                text.extend_from_slice(cells.join(&delimiter).as_bytes());
            }
        }
        text.push(b'\n');
    }
}

fn is_csv(form: Option<&Form>) -> bool {
    form.is_some_and(|form| form.format == Format::Csv)
}

/// What stood between two cells of the list.
fn delimiter_of(form: Option<&Form>) -> char {
    form.filter(|form| form.format == Format::Csv).map_or(',', |form| char::from(form.delimiter))
}

fn header_of(form: Option<&Form>) -> String {
    let delimiter = delimiter_of(form).to_string();
    let mut names: Vec<String> = OF_REPORT.map(str::to_owned).into();
    match form.filter(|form| form.format == Format::Csv) {
        Some(form) => names.extend(form.columns.iter().map(|name| quoted(name))),
        None => names.push("row".to_owned()),
    }
    names.join(&delimiter) + "\n"
}

/// A cell in quotes, doubled where it holds some.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// The outcomes that are asked for; none for all.
fn wanted(uri: &Uri) -> Result<Option<BTreeSet<Outcome>>, Problem> {
    let mut wanted = None;
    for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        if name != "outcome" {
            return Err(Problem::new(Code::UnknownParameter, "this endpoint takes only the parameter outcome"));
        }
        let wrong = || {
            let detail = "outcome must be one or more of created, updated, unchanged, in_review, refused, with commas between them";
            Problem::new(Code::InvalidParameter, detail)
        };
        let parsed = value.split(',').map(|name| Outcome::parse(name.trim()).ok_or_else(wrong));
        wanted = Some(parsed.collect::<Result<_, _>>()?);
    }
    Ok(wanted)
}
