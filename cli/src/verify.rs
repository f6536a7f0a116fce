//! `prospectus verify`: the read tables against the log.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use service_kit::config::{KeyringArgs, Secret};
use service_kit::postgres::Database;

use crate::output::Output;
use crate::primary::{Primary, keyring};
use crate::rebuild::{bytes, known};

/// Folds the log, independently of the projection's SQL, and compares every row of the live tables with it. Exit code 1 and the first
/// differences, field by field, if they differ. What they show may be personal.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  prospectus verify\n  prospectus verify company_prospect --on postgres://postgres:…@replica:5432/prospectus"
)]
pub struct Args {
    /// Which projection; all without it.
    projection: Option<String>,
    /// The server whose tables are compared: a replica, as a superuser. Without it the primary's.
    #[arg(long, hide_env_values = true)]
    on: Option<Secret>,
    /// Seconds to wait until no company's change is on its way to its prospects any more.
    #[arg(long, default_value_t = 10)]
    wait: u64,
    /// Most memory for records; beside all companies, as many prospects as go into it are folded at a time.
    #[arg(long, default_value = "1GiB", value_parser = bytes)]
    memory: u64,
    #[command(flatten)]
    keyring: KeyringArgs,
}

/// Runs the command.
///
/// # Errors
/// If a side cannot be read.
pub async fn run(args: &Args, primary: &Primary) -> anyhow::Result<Output> {
    let client = primary.connect_migrated().await?;
    let keyring = keyring(&args.keyring, &client).await?;
    // There is one projection; a second one brings its own comparison.
    let projection = args.projection.as_deref().map_or(Ok(migrations::COMPANY_PROSPECT), known)?;
    let on = match &args.on {
        Some(url) => Database::parse(url.expose(), "prospectus verify")?,
        None => primary.database().clone(),
    };
    let memory = usize::try_from(args.memory).unwrap_or(usize::MAX);
    let wait = Duration::from_secs(args.wait);
    let report = projector::verify::verify_within(primary.database(), &on, &Arc::new(keyring), wait, memory)
        .await
        .with_context(|| format!("comparing the tables on {}", on.name()))?;
    let well = report.differences == 0;
    let mut text = format!("{projection}, {} rows compared at position {}: ", report.rows, report.position);
    match report.differences {
        0 => text.push_str("they are the fold of the log\n"),
        differences => {
            let _ = writeln!(text, "{differences} differences");
            for line in &report.first {
                let _ = writeln!(text, "  {line}");
            }
            if differences > report.first.len() {
                let _ = writeln!(text, "  … and {} more", differences - report.first.len());
            }
            let _ = writeln!(text, "`prospectus rebuild {projection}` builds them anew");
        }
    }
    let json = json!({
        "projection": projection, "on": on.name(), "position": report.position, "rows": report.rows,
        "differences": report.differences, "first": report.first,
    });
    Ok(Output { json, text, well })
}
