//! `/v1/analytics`: what is counted, as JSON or CSV.

use axum::extract::Path;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use service_kit::auth::Permission;
use service_kit::problem::{Code, Problem};

use super::{Parts, ReadHeaders, answer_tagged};
use crate::analytics::filters::{FILTERS, Filters};
use crate::analytics::metrics::Metrics;
use crate::analytics::report::Report;
use crate::analytics::table::Table;
use crate::analytics::trends::Trends;
use crate::analytics::{AsOf, Numbers, Wish};
use crate::freshness::Wanted;
use crate::parameters::Parameters;
use crate::read::{Snapshot, State};
use crate::reads::ShownRecords;
use crate::record::{instant_text, write_json};

/// When the numbers were made.
const AS_OF: HeaderName = HeaderName::from_static("prospectus-as-of");

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Csv,
}

impl Form {
    /// `format`, else the first form of `Accept` that there is, else JSON. Another `format` is noted.
    fn parse(headers: &HeaderMap, parameters: &mut Parameters) -> Self {
        match parameters.text("format") {
            Some("json") => return Self::Json,
            Some("csv") => return Self::Csv,
            Some(_) => parameters.note_value("format", "must be json or csv"),
            None => {}
        }
        let given = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let found = given.flat_map(|value| value.split(',')).find_map(|kind| {
            match kind.split(';').next().map_or("", str::trim).to_ascii_lowercase().as_str() {
                "text/csv" => Some(Self::Csv),
                "application/json" | "application/*" | "*/*" => Some(Self::Json),
                _ => None,
            }
        });
        found.unwrap_or(Self::Json)
    }
}

/// How many live companies and prospects there are, in all and by what is known of them. A prospect's country is its own; its industry,
/// size and revenue are its company's. What says something of a person, a state or a source, is told where at least five prospects share it.
#[utoipa::path(get, path = "/v1/analytics/metrics", tag = "analytics",
    params(ReadHeaders,
        ("country" = Option<String>, Query, description = "Only records in these countries, by code of ISO 3166-1 or name: GB,France"),
        ("industry" = Option<String>, Query, description = "Only companies of these industries, and their prospects: a,b; a comma in a value is written \\,"),
        ("record" = Option<String>, Query, description = "Only company, or only prospect"),
        ("measure" = Option<String>, Query, description = "Only these: total, country, industry, state, size_band, revenue_band, company_type, job_level, department, source, filled"),
        ("limit" = Option<u16>, Query, description = "Values of each measure, the most frequent first, at most 1000; 20 where it is not given. The rest is one row of kind `others`"),
        ("format" = Option<String>, Query, description = "json or csv; where it is not given, what Accept says. In CSV a text that a spreadsheet would take for a formula begins with an apostrophe")),
    responses((status = 200, description = "`as_of` {position, epoch, time}: exactly the events up to that position are counted; `items`: record, measure, kind (total; value; none: nothing is known; others: not told), value (of measure `filled`: the field that is known), count, share of the total. As CSV: the items, and as_of in the headers Prospectus-Position, Prospectus-Epoch and Prospectus-As-Of"),
        (status = 304, description = "If-None-Match has the answer's ETag"), (status = 400, description = "A parameter is unknown or wrong"),
        (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(super) async fn metrics(parts: Parts) -> Result<Response, Problem> {
    answer(parts, "metrics", Metrics::PARAMETERS, |parameters| Wish::Metrics(Metrics::parse(parameters))).await
}

/// How many companies and prospects were made in each day, week (from Monday) or month, in UTC.
#[utoipa::path(get, path = "/v1/analytics/trends", tag = "analytics",
    params(ReadHeaders,
        ("interval" = Option<String>, Query, description = "day, week or month; day where it is not given"),
        ("from" = Option<String>, Query, description = "The first day, such as 2026-01-31; so that there are 30 days, 12 weeks or 12 months where it is not given. Its whole interval is counted"),
        ("to" = Option<String>, Query, description = "The last day; today where it is not given. Its whole interval is counted"),
        ("country" = Option<String>, Query, description = "Only records in these countries, by code of ISO 3166-1 or name: GB,France"),
        ("industry" = Option<String>, Query, description = "Only companies of these industries, and their prospects: a,b; a comma in a value is written \\,"),
        ("format" = Option<String>, Query, description = "json or csv; where it is not given, what Accept says")),
    responses((status = 200, description = "`as_of` {position, epoch, time}; `items`, an interval each, those without records too: from, to (its first and last day), companies_created, prospects_created (deleted and merged ones included), companies_live, prospects_live (those of them that are neither). As CSV: the items"),
        (status = 304, description = "If-None-Match has the answer's ETag"), (status = 400, description = "A parameter is unknown or wrong, or there are more than 1100 intervals"),
        (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(super) async fn trends(parts: Parts) -> Result<Response, Problem> {
    answer(parts, "trends", Trends::PARAMETERS, |parameters| Wish::Trends(Trends::parse(parameters))).await
}

/// Numbers put together: `overview` (figure, count, share), `completeness` (record, field, filled, missing, share), `industries` and
/// `countries` (companies, prospects, how many of these have an e-mail address and a phone number), `sources` (companies, prospects).
#[utoipa::path(get, path = "/v1/analytics/reports/{name}", tag = "analytics",
    params(ReadHeaders, ("name" = String, Path, description = "overview, completeness, industries, countries or sources"),
        ("country" = Option<String>, Query, description = "Only records in these countries, by code of ISO 3166-1 or name: GB,France"),
        ("industry" = Option<String>, Query, description = "Only companies of these industries, and their prospects: a,b; a comma in a value is written \\,"),
        ("limit" = Option<u16>, Query, description = "Of industries, countries and sources: values, the most frequent first, at most 1000; 100 where it is not given. The rest is one row of kind `others`"),
        ("format" = Option<String>, Query, description = "json or csv; where it is not given, what Accept says. In CSV a text that a spreadsheet would take for a formula begins with an apostrophe")),
    responses((status = 200, description = "`as_of` {position, epoch, time}: exactly the events up to that position are counted; `items`: the rows. As CSV: the rows, and as_of in the headers Prospectus-Position, Prospectus-Epoch and Prospectus-As-Of"),
        (status = 304, description = "If-None-Match has the answer's ETag"), (status = 400, description = "A parameter is unknown or wrong"),
        (status = 404, description = "There is no such report"), (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(super) async fn report(Path(name): Path<String>, parts: Parts) -> Result<Response, Problem> {
    parts.1.require(Permission::ReadRecords)?;
    let Some(report) = Report::named(&name) else {
        return Err(Problem::new(Code::NotFound, format!("there is no such report; there are {}", Report::names())));
    };
    let own = report.parameters();
    answer(parts, &name, own, |parameters| Wish::Report(report.parse(parameters))).await
}

/// Answers with numbers. `name` is what a file of them is called; `own` are the parameters that `parse` reads.
async fn answer(
    (service, principal, uri, headers): Parts,
    name: &str,
    own: &[&str],
    parse: impl FnOnce(&mut Parameters) -> Wish,
) -> Result<Response, Problem> {
    principal.require(Permission::ReadRecords)?;
    let allowed: Vec<&str> = own.iter().chain(FILTERS).copied().chain(["format"]).collect();
    let mut parameters = Parameters::parse(uri.query(), &allowed)?;
    let wanted = Wanted::parse(&headers, &mut parameters);
    let form = Form::parse(&headers, &mut parameters);
    let filters = Filters::parse(&mut parameters);
    let wish = parse(&mut parameters);
    parameters.check()?;
    let numbers = Numbers { tenant: principal.tenant_id, filters, wish };
    let Snapshot { state, data } = service.replicas.read(&numbers, &wanted).await?;
    let (as_of, table) = data?;
    let body = match form {
        Form::Json => json(&state, as_of, &table),
        Form::Csv => table.csv(),
    };
    let mut response = answer_tagged(body, &state, &headers);
    let given = response.headers_mut();
    given.insert(header::VARY, HeaderValue::from_static("Accept"));
    given.insert(AS_OF, HeaderValue::try_from(instant_text(as_of.made_at)).expect("an instant is ASCII"));
    if form == Form::Csv && response.status() == StatusCode::OK {
        let given = response.headers_mut();
        given.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present"));
        let file = HeaderValue::try_from(format!("attachment; filename=\"{name}.csv\""));
        given.insert(header::CONTENT_DISPOSITION, file.expect("the names of reports are ASCII"));
    }
    // Numbers show no record.
    Ok(ShownRecords::default().on(response))
}

fn json(state: &State, as_of: AsOf, table: &Table) -> Vec<u8> {
    let mut body = Vec::with_capacity(128 + table.rows.len() * 128);
    body.extend_from_slice(b"{\"as_of\":{\"position\":");
    write_json(&mut body, &state.position);
    body.extend_from_slice(b",\"epoch\":");
    write_json(&mut body, &state.epoch);
    body.extend_from_slice(b",\"time\":");
    write_json(&mut body, &instant_text(as_of.made_at));
    body.extend_from_slice(b"},\"items\":");
    table.write_items(&mut body);
    body.push(b'}');
    body
}
