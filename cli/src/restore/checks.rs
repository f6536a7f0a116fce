//! What is done and looked at before a restored directory may be served from.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use event_store::proof::PublicKey;
use event_store::proof::verify::{Anchors, Verdict, verify};
use event_store::{Keyring, epoch};
use projector::projection::Projection;
use serde_json::{Value, json};
use service_kit::config::Secret;

use crate::audit;
use crate::erasures;
use crate::primary::Primary;

/// Events that the projection takes in at a time.
const STEP_EVENTS: i64 = 5_000;
/// How long the comparison waits for changes that are on their way: there are none when it begins.
const SETTLED: Duration = Duration::from_secs(10);

/// What came of it.
pub struct Checked {
    /// For programs.
    pub json: Value,
    /// For people.
    pub text: String,
    /// Why nobody may serve from it.
    pub wrong: Vec<String>,
}

/// What the log is compared with from outside, read before anything is restored.
///
/// # Errors
/// If a file cannot be read.
pub fn anchors(files: &[PathBuf], keys: &[PublicKey], known_losses: &[String]) -> anyhow::Result<Anchors> {
    let mut heads = Vec::new();
    for file in files {
        heads.extend(audit::heads(file)?);
    }
    Ok(Anchors { heads, keys: keys.to_vec(), known_losses: known_losses.to_vec() })
}

/// Brings the database to this release's schema, begins a new epoch, erases again, brings the read tables to the end of the log, and compares
/// everything. With `gives_up` a tail is given up on purpose: heads over it are no loss that somebody must be told of.
///
/// # Errors
/// If something cannot be done or read; what is not as it should be is in the answer.
pub async fn run(
    url: &Secret,
    lists: &[PathBuf],
    keyring: &Secret,
    mut anchors: Anchors,
    gives_up: bool,
) -> anyhow::Result<Checked> {
    const DENSE: &str = "-- cli::restore::checks::run, dense
        SELECT count(*), coalesce(min(e.position), 1), coalesce(max(e.position), 0) FROM log.events AS e";
    let (mut text, mut wrong) = (String::new(), Vec::new());
    let primary = Primary::new(Some(url))?;
    let migrated = migrations::migrate(&mut primary.connect().await?).await;
    let migrated = migrated.context("bringing the restored database to this release's schema")?;
    if !migrated.applied.is_empty() {
        let _ = writeln!(text, "migrated: {}", migrated.applied.join(", "));
    }
    let mut client = primary.connect_migrated().await?;
    let row = client.query_one(DENSE, &[]).await?;
    let (events, first, last): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    if (first, last) == (1, events) {
        let _ = writeln!(text, "the log is dense: {events} events, positions 1 to {last}");
    } else {
        wrong.push(format!("the log has holes: {events} events at positions {first} to {last}"));
    }

    // Before anything is appended, so that what is erased again stands in the new life.
    let transaction = client.transaction().await?;
    let begun = epoch::begin(&transaction).await?;
    transaction.commit().await?;
    let _ = writeln!(text, "epoch {} begins at position {}", begun.name, begun.first_position);

    let keyring = Arc::new(Keyring::parse(keyring.expose())?);
    keyring.verify(&client, false).await?;
    let reapplied = erasures::reapply(None, lists, Arc::clone(&keyring), &client, primary.database()).await?;
    let _ = write!(text, "{}", reapplied.text);

    let mut projection = Projection::open(primary.database(), Arc::clone(&keyring)).await?;
    while !projection.step(STEP_EVENTS).await?.idle() {}
    drop(projection);
    let database = primary.database();
    let rows = projector::verify::verify(database, database, &keyring, SETTLED).await?;
    let claims = projector::verify::verify_claims(database, &keyring).await?;
    let different = rows.differences + claims.differences;
    if different == 0 {
        let _ = writeln!(text, "the read tables equal the log: {} rows at position {}", rows.rows, rows.position);
    } else {
        wrong.push(format!(
            "{different} rows or claims differ from the log: `prospectus integrity` and a rebuild tell and mend"
        ));
    }

    if gives_up {
        // Heads from after the restored time, kept outside, are over a tail that this restore has given up.
        anchors.known_losses.push(begun.name.to_string());
    }
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let report = verify(&client, &anchors, |_, _| {}).await?;
    client.batch_execute("COMMIT").await?;
    let verdict = report.verdict();
    match verdict {
        Verdict::Intact => {
            let _ = writeln!(
                text,
                "heads verified: {} signed heads, {} events since the newest",
                report.heads, report.unsealed
            );
        }
        // Nothing was signed by that time; that nothing was taken away either, only heads from outside can say.
        Verdict::Unsealed if anchors.heads.is_empty() && report.heads == 0 => {
            let _ = writeln!(text, "there was no signed head yet, and none was given with --head");
        }
        Verdict::TailLost => wrong.push(
            "more was signed than there is: the archive lacks its end (look for it on the servers, or give --to with the last moment that it \
             has, which gives the rest up), or an earlier epoch has lost a tail (--known-loss)"
                .to_owned(),
        ),
        _ => wrong.push(format!(
            "the signed heads say that the log is not what was signed ({}): `prospectus audit verify`",
            json!(verdict)
        )),
    }
    for lost in &report.lost_tails {
        let _ = writeln!(
            text,
            "not there: positions {} to {}, which were signed; epoch {} uses them again",
            lost.first, lost.last, lost.epoch
        );
    }
    for what in &wrong {
        let _ = writeln!(text, "WRONG: {what}");
    }
    client.batch_execute("CHECKPOINT").await?;
    let json = json!({
        "events": events, "last_position": last, "dense": (first, last) == (1, events),
        "epoch": &*begun.name, "first_position": begun.first_position, "erasures": reapplied.json,
        "rows": rows.rows, "differences": different, "heads": report.heads, "unsealed": report.unsealed, "verdict": verdict,
        "lost_tails": report.lost_tails,
    });
    Ok(Checked { json, text, wrong })
}
