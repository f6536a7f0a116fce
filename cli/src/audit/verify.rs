//! `prospectus audit verify`: the whole log against every signed head.

use std::fmt::Write;
use std::path::PathBuf;

use event_store::proof::PublicKey;
use event_store::proof::verify::{Anchors, Finding, Report, Since, Verdict, What, verify};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::kept;
use crate::output::Output;
use crate::primary::Primary;

/// Findings that are shown; `--json` has a thousand.
const SHOWN_MAX: usize = 100;

/// Reads the whole log once and compares it with every signed head. Exit code 1 unless it is intact.
///
/// What the database alone can show is that events, stored hashes and signatures fit each other. Whoever can change the database could
/// cut off the newest events together with the heads over them, or sign anew with another key: a head that was kept elsewhere (--head)
/// and a pinned key (--key) rule that out.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  prospectus audit verify\n  prospectus audit verify --head heads.ndjson --key 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n  prospectus audit verify --json | jq .findings"
)]
pub struct Args {
    /// A file of heads that was kept outside the database: a head, lines of heads, a page of GET /v1/log/heads, or a proof.
    #[arg(long)]
    head: Vec<PathBuf>,
    /// A public key in base64: only heads that it has signed count. Once for each key that ever signed.
    #[arg(long = "key")]
    keys: Vec<PublicKey>,
    /// The name of an epoch that is known to have begun with the loss of a tail: that loss is told, and is no reason for exit code 1.
    #[arg(long = "known-loss")]
    known_losses: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// If the database or a file cannot be read.
pub async fn run(args: &Args, primary: &Primary) -> anyhow::Result<Output> {
    let mut heads = Vec::new();
    for file in &args.head {
        heads.extend(kept::heads(file)?);
    }
    let anchors = Anchors { heads, keys: args.keys.clone(), known_losses: args.known_losses.clone() };
    let client = primary.connect_migrated().await?;
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let bar = bar();
    let report = verify(&client, &anchors, |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    })
    .await;
    bar.finish_and_clear();
    let report = report?;
    client.batch_execute("COMMIT").await?;
    Ok(output(&report))
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::no_length();
    let template = "{bar:30} {human_pos}/{human_len} events  {per_sec}  {eta} left";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn output(report: &Report) -> Output {
    let verdict = report.verdict();
    let mut json = json!(report);
    json["verdict"] = json!(verdict);
    Output { json, text: text(report, verdict), well: verdict == Verdict::Intact }
}

fn text(report: &Report, verdict: Verdict) -> String {
    let mut text = format!("log {}: {} events, {} signed heads\n", report.log_id, report.events, report.heads);
    if let Some(newest) = &report.newest {
        let _ = writeln!(text, "the newest {}; {} events have come since", head(newest), report.unsealed);
    }
    for lost in &report.lost_tails {
        let _ = writeln!(
            text,
            "\nA TAIL WAS LOST WITH ITS SERVER: positions {} to {} were sealed, and epoch {} has used them again; no tampering shows in that \
             ({} heads over it; the newest {}){}",
            lost.first,
            lost.last,
            lost.epoch,
            lost.heads,
            head(&lost.head),
            if lost.known { "; known" } else { "" }
        );
    }
    if report.found > 0 {
        let _ = writeln!(text, "\nTAMPERED: {} things are wrong", report.found);
        for finding in report.findings.iter().take(SHOWN_MAX) {
            let _ = writeln!(text, "  {}", told(finding));
        }
        if report.found > SHOWN_MAX as u64 {
            let _ = writeln!(text, "  … and {} more: --json has the first thousand", report.found - SHOWN_MAX as u64);
        }
        if let Some(proven) = &report.proven {
            let _ = writeln!(text, "the log is what was signed up to position {} ({})", proven.tree_size, head(proven));
        }
    }
    text.push_str(match verdict {
        Verdict::Intact => "\nintact: every event under a head is what was signed\n",
        Verdict::Unsealed => "\nUNSEALED: there are events and no signed head; is a sealer running?\n",
        Verdict::TailLost => "\n`--known-loss EPOCH` says that a loss is known\n",
        Verdict::Tampered => "",
    });
    if !report.pinned && report.newest.is_some() {
        text.push_str("the keys are those that the log itself names; --key pins those that you know\n");
    }
    text
}

fn head(since: &Since) -> String {
    let name = since.number.map_or_else(|| "head that was kept".to_owned(), |number| format!("head, number {number},"));
    format!("{name} over {} events, signed {} by key {}", since.tree_size, since.time, since.key_id)
}

fn told(finding: &Finding) -> String {
    let Finding { what, first, last, from, since } = finding;
    let places = if first == last { format!("position {first}") } else { format!("positions {first} to {last}") };
    let said = match what {
        What::Changed => format!("{places}: changed"),
        What::Removed => format!("{places}: removed"),
        What::Inserted => format!("{places}: inserted"),
        What::Moved => format!("{places}: reordered, sealed at {} on", from.unwrap_or(*first)),
        What::Rewritten => format!("{places}: rewritten somewhere in there, stored hashes included"),
        What::Truncated => format!("{places}: cut off, the log ends before them"),
        What::Hole => format!("{places}: not sealed yet, and some are missing"),
        What::StoredHash => {
            format!("{places}: the events are what was signed; the hashes stored beside them are not theirs")
        }
        What::HeadInvalid => format!("a head over {first} events: its signature is wrong"),
        What::HeadOfAnotherKey => format!("a head over {first} events: not signed by a pinned key"),
        What::HeadOfAnotherLog => format!("a head over {first} events: of another log"),
        What::HeadOfAnotherEpoch => format!("a head over {first} events: of an epoch that the log does not have"),
        What::HeadsMissing => format!("{first} of {last} heads were removed"),
    };
    match since {
        Some(since) => format!("{said}, since the {}", head(since)),
        None => said,
    }
}
