//! `prospectus import`: sends a list to the command service and shows what becomes of it; looks at earlier ones and takes them back;
//! copies a legacy table and follows it.

mod follow;
mod report;
mod upload;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use http::Method;
use serde_json::json;
use uuid::Uuid;

use crate::api::{Api, CommandService};
use crate::output::Output;

/// Imports a list of companies and prospects, a line each.
///
/// Every row is accounted for: created, updated, unchanged, in review or refused. Exit code 0 when it is done, refused rows included;
/// 1 when it failed as a whole.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  prospectus import contacts.csv --source crm --mapping hubspot --dry-run\n  \
                  zstdcat list.csv.zst | prospectus import - --source list\n  \
                  prospectus import --rows 0198… --outcome refused --csv > again.csv\n  \
                  prospectus import --from postgres://…/legacy --table Customer --mapping customer --source legacy --follow")]
#[command(group = clap::ArgGroup::new("what").required(true).args(["file", "show", "undo", "rows", "list", "from"]))]
pub struct Args {
    /// CSV or NDJSON, plain, gzip or zstd; `-` for standard input.
    file: Option<PathBuf>,
    #[command(flatten)]
    reading: upload::Reading,
    /// Shows an import, following it if it runs.
    #[arg(long, value_name = "ID")]
    show: Option<Uuid>,
    /// Takes an import back: what it touched is again what it was, but for records that somebody changed since.
    #[arg(long, value_name = "ID")]
    undo: Option<Uuid>,
    /// Prints what became of each row, as NDJSON.
    #[arg(long, value_name = "ID")]
    rows: Option<Uuid>,
    /// With --rows: only created, updated, unchanged, `in_review` or refused ones; several with commas.
    #[arg(long, requires = "rows")]
    outcome: Option<String>,
    /// With --rows: as CSV, the original rows with what became of them in front.
    #[arg(long, requires = "rows")]
    csv: bool,
    /// Lists the newest imports.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    follow: follow::Args,
    #[command(flatten)]
    service: CommandService,
}

/// Runs the command.
///
/// # Errors
/// If the list cannot be read, the service refuses it, or cannot be reached.
pub async fn run(args: &Args) -> anyhow::Result<Output> {
    let api = Api::of_commands(&args.service)?;
    if let Some(file) = &args.file {
        return send(&api, args, file).await;
    }
    if let Some(id) = args.show {
        let asked = api.ask(Method::GET, &format!("/v1/imports/{id}")).await;
        let document = asked.with_context(|| format!("import {id}"))?;
        return watched(&api, document).await;
    }
    if let Some(id) = args.undo {
        let asked = api.ask(Method::POST, &format!("/v1/imports/{id}/undo")).await;
        let document = asked.with_context(|| format!("import {id}"))?;
        return watched(&api, document).await;
    }
    if let Some(id) = args.rows {
        return print_rows(&api, id, args).await;
    }
    if args.list {
        return Ok(report::list(&api.ask(Method::GET, "/v1/imports").await?));
    }
    follow::run(&args.follow, &args.reading, &api).await
}

async fn send(api: &Api, args: &Args, file: &PathBuf) -> anyhow::Result<Output> {
    let (path, mapping) = args.reading.path()?;
    let bar = report::sending();
    let (list, media) = upload::open(file, &bar).await?;
    let (headers, body) = upload::request(list, media, mapping.as_deref());
    let sent = tokio::select! {
        sent = api.upload(&path, headers, body) => sent,
        _ = tokio::signal::ctrl_c() => {
            bar.finish_and_clear();
            anyhow::bail!("given up before all bytes were sent: nothing is imported");
        }
    };
    bar.finish_and_clear();
    watched(api, sent?).await
}

/// Follows the import to its end, unless somebody has seen enough.
async fn watched(api: &Api, document: serde_json::Value) -> anyhow::Result<Output> {
    let id = document["id"].as_str().context("the service's answer has no id")?.to_owned();
    tokio::select! {
        ended = report::to_its_end(api, document) => Ok(report::output(ended.with_context(|| format!("import {id}"))?)),
        _ = tokio::signal::ctrl_c() => {
            let text = format!(
                "\nimport {id} goes on without this command\n  look again:   prospectus import --show {id}\n  \
                 take it back: prospectus import --undo {id}\n  its rows:     prospectus import --rows {id}\n"
            );
            Ok(Output { json: json!({"id": id, "state": "running"}), text, well: false })
        }
    }
}

async fn print_rows(api: &Api, id: Uuid, args: &Args) -> anyhow::Result<Output> {
    let mut path = format!("/v1/imports/{id}/rows");
    if let Some(outcome) = &args.outcome {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        path = format!("{path}?{}", query.append_pair("outcome", outcome).finish());
    }
    let accept = if args.csv { "text/csv" } else { "application/x-ndjson" };
    let mut output = std::io::stdout().lock();
    api.stream(&path, accept, |piece| Ok(output.write_all(piece)?)).await?;
    Ok(Output::printed())
}
