//! An import's document for people, and the bars that show it on the way.

use std::fmt::Write;
use std::time::Duration;

use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::api::{Api, ApiError};
use crate::output::{Output, table};

/// How often the service is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often in a row it may be away meanwhile.
const AWAY_MAX: u32 = 120;

/// The bar of bytes that are sent. Shows nothing where there is no terminal.
pub(super) fn sending() -> ProgressBar {
    let bar = ProgressBar::no_length();
    let template = "sending {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(LOOK_EVERY);
    bar
}

fn rows() -> ProgressBar {
    let bar = ProgressBar::no_length();
    let template = "{bar:30} {human_pos}/{human_len} rows  {per_sec}  {eta} left\n{msg}";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Whether nothing more becomes of it.
fn is_over(document: &Value) -> bool {
    matches!(document["state"].as_str(), Some("done" | "failed" | "undone"))
}

/// Follows an import to its end, with a bar on a terminal.
///
/// # Errors
/// If the service refuses, or is away for a minute.
pub(super) async fn to_its_end(api: &Api, mut document: Value) -> Result<Value, ApiError> {
    let path = format!("/v1/imports/{}", document["id"].as_str().unwrap_or_default());
    let (bar, mut away) = (rows(), 0);
    while !is_over(&document) {
        let rows = &document["rows"];
        if let Some(total) = rows["total"].as_u64() {
            bar.set_length(total);
        }
        bar.set_position(rows["read"].as_u64().unwrap_or(0));
        bar.set_message(line(&document));
        tokio::time::sleep(LOOK_EVERY).await;
        match api.ask(Method::GET, &path).await {
            Ok(seen) => (document, away) = (seen, 0),
            Err(ApiError::Away(_)) if away < AWAY_MAX => away += 1,
            Err(error) => return Err(error),
        }
    }
    bar.finish_and_clear();
    Ok(document)
}

/// What became of companies and prospects so far, in one line.
pub(super) fn line(document: &Value) -> String {
    let of = |side: &str| {
        let count = |what: &str| document[side][what].as_u64().unwrap_or(0);
        format!("{side} +{} ~{} ={}", count("created"), count("updated"), count("unchanged"))
    };
    let rows = |what: &str| document["rows"][what].as_u64().unwrap_or(0);
    format!("{}, {}, in review {}, refused {}", of("companies"), of("prospects"), rows("in_review"), rows("refused"))
}

/// The document of one import.
pub(super) fn output(document: Value) -> Output {
    let well = document["state"] != "failed";
    let text = |name: &str| document[name].as_str().unwrap_or_default();
    let id = text("id");
    let dry = if document["dry_run"] == true { " (dry run: nothing is written)" } else { "" };
    let mut said = format!("import {id} from {}: {}{dry}\n", text("source"), text("state"));
    if let Some(error) = document["error"].as_object() {
        let of = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        let _ = writeln!(said, "failed: {} ({})", of("detail"), of("code"));
    }
    let counts = |name: &str, what: &str| document[name].get(what).cloned().unwrap_or(Value::Null);
    let row = |name: &str| {
        let mut row = vec![name.into()];
        row.extend(["created", "updated", "unchanged", "in_review", "refused", "read"].map(|what| counts(name, what)));
        row
    };
    said.push_str(&table(
        &["", "created", "updated", "unchanged", "in review", "refused", "read"],
        &[row("rows"), row("companies"), row("prospects")],
    ));
    if let Some(undo) = document["undo"].as_object() {
        let of = |name: &str| undo.get(name).and_then(Value::as_u64).unwrap_or(0);
        let _ = writeln!(
            said,
            "taken back: {} companies, {} prospects; left because somebody changed them since: {}",
            of("companies"),
            of("prospects"),
            of("left")
        );
    }
    if let Some(mapping) = document["mapping_toml"].as_str() {
        let _ = write!(said, "\n# the mapping, to be saved, corrected and given as --mapping FILE\n{mapping}");
    }
    if document["rows"]["refused"].as_u64().is_some_and(|refused| refused > 0) {
        let _ = writeln!(said, "\nwhy rows were refused: prospectus import --rows {id} --outcome refused --csv");
    }
    Output { json: document, text: said, well }
}

/// The newest imports.
pub(super) fn list(document: &Value) -> Output {
    let columns = ["id", "state", "source", "started_at", "read", "refused"];
    let cell = |one: &Value, column: &str| match column {
        "read" | "refused" => one["rows"][column].clone(),
        _ => one[column].clone(),
    };
    let items = document["items"].as_array().map_or(&[][..], Vec::as_slice);
    let rows: Vec<Vec<Value>> =
        items.iter().map(|one| columns.iter().map(|column| cell(one, column)).collect()).collect();
    Output::new(json!(items), table(&columns, &rows))
}
