//! `prospectus migrate`.

use std::fmt::Write;

use serde_json::json;

use crate::output::Output;
use crate::primary::Primary;

/// Applies the migrations that are missing and creates the first generation of every projection.
///
/// Safe to run again and from several places at once.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  prospectus migrate\n  PROSPECTUS_PRIMARY_URL=postgres://postgres:…@db:5432/prospectus prospectus migrate --json"
)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// What the runner said.
pub async fn run(_: &Args, primary: &Primary) -> anyhow::Result<Output> {
    let mut client = primary.connect().await?;
    let report = migrations::migrate(&mut client).await?;
    let mut text = String::new();
    for file in &report.applied {
        let _ = writeln!(text, "applied {file}");
    }
    for projection in &report.generations {
        let _ = writeln!(text, "created generation 1 of {projection}");
    }
    let _ = writeln!(text, "the database is at version {}", report.version);
    Ok(Output::new(
        json!({"version": report.version, "applied": report.applied, "generations": report.generations}),
        text,
    ))
}
