//! `prospectus audit history`: what happened to a record, what changed between two of its versions, and what it was at a time.

use std::io::Write as _;

use anyhow::Context as _;
use http::Method;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::terminal::{Pages, Paint, harmless};
use crate::api::{Api, ApiError, QueryService};
use crate::output::Output;

/// Events asked for at a time.
const PAGE: usize = 500;
/// The sorts of record that have a history.
const SORTS: [&str; 2] = ["companies", "prospects"];

/// Shows what happened to a company or prospect: who changed what, when, from where and why.
///
/// Coloured and paged on a terminal (`NO_COLOR` and `PAGER` are heeded).
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  prospectus audit history 0198c0de-0000-7000-8000-000000000001\n  \
                  prospectus audit history 0198c0de-0000-7000-8000-000000000001 --diff 3..7\n  \
                  prospectus audit history 0198c0de-0000-7000-8000-000000000001 --at 2026-03-01T12:00:00Z --json")]
pub struct Args {
    /// The company's or prospect's id.
    id: Uuid,
    /// What changed between two of its versions; 0 is before the first.
    #[arg(long, value_name = "A..B", value_parser = versions, conflicts_with = "at")]
    diff: Option<(i64, i64)>,
    /// The record as it was at this time, as in RFC 3339.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    #[command(flatten)]
    service: QueryService,
}

fn versions(text: &str) -> Result<(i64, i64), String> {
    let read = |text: &str| text.parse::<i64>().ok().filter(|version| *version >= 0);
    let both = text.split_once("..").and_then(|(from, to)| Some((read(from)?, read(to)?)));
    both.ok_or_else(|| "must be two versions, such as 3..7".to_owned())
}

/// Runs the command.
///
/// # Errors
/// If there is no such record, version or time, the key may not, or the service cannot be reached.
pub async fn run(args: &Args, as_json: bool) -> anyhow::Result<Output> {
    let api = Api::of_reads(&args.service)?;
    let paint = Paint::for_stdout();
    if let Some(time) = &args.at {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("as_of", time).finish();
        let record = record(&api, args.id, &query).await?;
        let lines: Vec<String> = members(&record).map(|(name, value)| format!("{name}: {}", shown(value))).collect();
        let text = lines.join("\n") + "\n";
        return Ok(paged(record, text, as_json));
    }
    if let Some((from, to)) = args.diff {
        let mut sides = Vec::new();
        for version in [from, to] {
            sides.push(match version {
                0 => Value::Null,
                version => record(&api, args.id, &format!("as_of_version={version}")).await?,
            });
        }
        let changes = difference(&sides[0], &sides[1]);
        let text: String = changes.iter().map(|change| changed(change, paint)).collect();
        let text = if text.is_empty() { "nothing differs\n".to_owned() } else { text };
        return Ok(paged(json!({"from": from, "to": to, "changes": changes}), text, as_json));
    }
    history(&api, args.id, paint, as_json).await
}

/// Shows pages as they come: a history may be longer than what is held.
async fn history(api: &Api, id: Uuid, paint: Paint, as_json: bool) -> anyhow::Result<Output> {
    let (path, mut page) = first_of(api, |sort| format!("/v1/{sort}/{id}/history?limit={PAGE}")).await?;
    let mut pages = (!as_json).then(Pages::open);
    let mut output = std::io::stdout();
    let mut first = true;
    let mut reads_on = true;
    loop {
        for item in page["items"].as_array().into_iter().flatten() {
            reads_on &= match &mut pages {
                Some(pages) => pages.write(&event(item, id, paint)),
                // One document, however long.
                None => write!(output, "{}{item}", if first { "{\"items\":[" } else { "," }).is_ok(),
            };
            first = false;
        }
        let Some(next) = page["next_cursor"].as_str().filter(|_| reads_on).map(str::to_owned) else { break };
        page = api.ask(Method::GET, &format!("{path}&cursor={next}")).await?;
    }
    match pages {
        Some(pages) => pages.finish(),
        // Whoever reads may have gone away; there is nobody left to tell.
        None => _ = writeln!(output, "{}]}}", if first { "{\"items\":[" } else { "" }),
    }
    Ok(Output::printed())
}

/// The record, as it was, whatever became of it.
async fn record(api: &Api, id: Uuid, query: &str) -> anyhow::Result<Value> {
    Ok(first_of(api, |sort| format!("/v1/{sort}/{id}?include_deleted=true&{query}")).await?.1)
}

/// Asks for the company of an id, then for the prospect; gives the path that was answered.
async fn first_of(api: &Api, path: impl Fn(&str) -> String) -> anyhow::Result<(String, Value)> {
    let mut refused = None;
    for sort in SORTS {
        let path = path(sort);
        match api.ask(Method::GET, &path).await {
            Ok(answer) => return Ok((path, answer)),
            // A record that is there, but not so, says more than that there is none.
            Err(ApiError::Refused(problem)) if problem["status"] == 404 => {
                let plain = problem["detail"] == "there is no such record";
                if refused.is_none() || !plain {
                    refused = Some(problem);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::Refused(refused.context("no sort of record was asked for")?).into())
}

fn paged(json: Value, text: String, as_json: bool) -> Output {
    if as_json {
        return Output::new(json, text);
    }
    let mut pages = Pages::open();
    pages.write(&text);
    pages.finish();
    Output::printed()
}

fn members(record: &Value) -> impl Iterator<Item = (&str, &Value)> {
    record.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()).map(|(name, value)| (&**name, value))
}

/// The members that differ, as a history's changes, but for those that say when and how often the record changed.
fn difference(from: &Value, to: &Value) -> Vec<Value> {
    let empty = Map::new();
    let (from, to) = (from.as_object().unwrap_or(&empty), to.as_object().unwrap_or(&empty));
    let names = to.keys().chain(from.keys().filter(|name| !to.contains_key(*name)));
    let told = names.filter(|name| !["version", "position", "updated_at"].contains(&name.as_str()));
    let differ = told.filter(|name| from.get(*name).unwrap_or(&Value::Null) != to.get(*name).unwrap_or(&Value::Null));
    differ.map(|name| json!({"field": name, "from": from.get(name), "to": to.get(name)})).collect()
}

/// One event, its surroundings and its changes.
fn event(item: &Value, of: Uuid, paint: Paint) -> String {
    let text = |name: &str| item[name].as_str().map(harmless);
    let mut lines = format!(
        "{}  {}  {}\n",
        paint.bold(&format!("version {}", item["sequence"])),
        text("type").unwrap_or_default(),
        paint.faint(&format!("{}, position {}", text("recorded_at").unwrap_or_default(), item["position"])),
    );
    if item["aggregate_id"] != of.to_string() {
        lines += &format!("    of the merged company {}\n", text("aggregate_id").unwrap_or_default());
    }
    let mut who = vec![format!("by {}", text("actor").unwrap_or_else(|| "nobody that is known".to_owned()))];
    who.extend(text("actor_role").map(|role| format!("as {role}")));
    who.extend(text("client_address").map(|address| format!("from {address}")));
    who.extend(text("source").map(|source| format!("source {source}")));
    lines += &format!("    {}\n", who.join(", "));
    if let Some(import) = text("import_id") {
        let row = item["row"].as_u64().map_or_else(String::new, |row| format!(", row {row}"));
        let key = text("key").map_or_else(String::new, |key| format!(", key {key}"));
        lines += &format!("    import {import}{row}{key}\n");
    }
    if let Some(reason) = text("reason") {
        lines += &format!("    why: {reason}\n");
    }
    let why = [("request", "request_id"), ("correlation", "correlation_id"), ("caused by", "causation_id")];
    let why: Vec<String> = why.iter().filter_map(|(said, name)| Some(format!("{said} {}", text(name)?))).collect();
    if !why.is_empty() {
        lines += &format!("    {}\n", paint.faint(&why.join(", ")));
    }
    lines.extend(item["changes"].as_array().into_iter().flatten().map(|change| changed(change, paint)));
    lines.push('\n');
    lines
}

fn changed(change: &Value, paint: Paint) -> String {
    let field = change["field"].as_str().map(harmless).unwrap_or_default();
    format!("    {field}: {} → {}\n", paint.red(&shown(&change["from"])), paint.green(&shown(&change["to"])))
}

fn shown(value: &Value) -> String {
    if value.is_null() { "nothing".to_owned() } else { harmless(&value.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> Value {
        json!({"position": 7, "sequence": 2, "aggregate_id": Uuid::nil(), "type": "CompanyProfileUpdated",
            "recorded_at": "2026-01-01T00:00:00Z", "actor": "key:pk_x", "actor_role": "writer", "source": "api\u{1b}[2J",
            "client_address": "127.0.0.1", "request_id": "r", "correlation_id": "c", "causation_id": null,
            "import_id": Uuid::nil(), "row": 17, "key": "pk_y",
            "changes": [{"field": "name", "from": null, "to": "Acme\u{9b}31m"}]})
    }

    #[test]
    fn an_event_says_who_when_where_and_why_and_orders_no_terminal() {
        let plain = event(&item(), Uuid::nil(), Paint::with(false));
        for said in [
            "version 2  CompanyProfileUpdated  2026-01-01T00:00:00Z, position 7",
            "by key:pk_x, as writer, from 127.0.0.1, source api",
            "import 00000000-0000-0000-0000-000000000000, row 17, key pk_y",
            "request r, correlation c",
            "name: nothing → \"Acme",
        ] {
            assert!(plain.contains(said), "{said}: {plain}");
        }
        assert!(!plain.contains(['\u{1b}', '\u{9b}']), "{plain:?}");
        let coloured = event(&item(), Uuid::nil(), Paint::with(true));
        assert!(coloured.contains("\u{1b}[1mversion 2\u{1b}[0m"), "{coloured:?}");
        assert!(event(&item(), Uuid::max(), Paint::with(false)).contains("of the merged company 0000"));
    }

    #[test]
    fn a_difference_leaves_out_what_every_change_changes() {
        let (from, to) =
            (json!({"version": 1, "name": "A", "city": null}), json!({"version": 2, "name": "B", "city": null}));
        assert_eq!(difference(&from, &to), [json!({"field": "name", "from": "A", "to": "B"})]);
        assert_eq!(difference(&Value::Null, &to), [json!({"field": "name", "from": null, "to": "B"})]);
        assert_eq!((versions("3..7"), versions("0..1")), (Ok((3, 7)), Ok((0, 1))));
        assert!(versions("3").is_err() && versions("-1..2").is_err() && versions("a..b").is_err());
    }
}
