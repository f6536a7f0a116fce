//! `prospectus import --from`: copies a legacy table as imports, and follows it until the cut-over. How that goes, and the way back:
//! `docs/legacy-cutover.md`.
//!
//! First all rows in the order of their ids, some ten thousand an import. Then, every few seconds, the rows whose `updatedAt` is not
//! older than the newest one seen less an overlap, because a transaction that commits late brings times that have passed; rows of
//! that window that were sent as they are now are not sent again. And from time to time a sweep over all ids: the prospect of a row
//! that is gone is deleted, if the table made it. Whatever is interrupted is done again, and then changes nothing.

mod legacy;
mod state;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use futures_util::stream;
use http::Method;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use service_kit::config::Secret;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::report;
use super::upload::{Reading, request};
use crate::api::{Api, ApiError, Body};
use crate::output::Output;
use legacy::{Legacy, LegacyRow};
use state::{Known, State};

/// Rows of one import at most.
const IMPORT_ROWS: usize = 50_000;
/// Rows whose content is remembered, so that they are not sent again while they are in the overlap.
const SENT_MAX: usize = 100_000;
/// Pages on their way to the service.
const PAGES_AHEAD: usize = 2;
/// The longest wait after something went wrong.
const AWAY_WAIT: Duration = Duration::from_secs(10);
/// The longest line of an answer that is looked at: a row of 1 MiB, escaped.
const LINE_BYTES_MAX: usize = 8 << 20;

/// Which table is copied, and how it is followed.
#[derive(Debug, clap::Args)]
#[group(skip)] // the one that it is part of is called so too
pub struct Args {
    /// Copies a table of this PostgreSQL database: `postgres://reader:…@host:5432/legacy`.
    #[arg(long, requires = "table", hide_env_values = true, value_name = "URL")]
    from: Option<Secret>,
    /// With --from: the table, with the columns id and updatedAt; another schema's as schema.table.
    #[arg(long, requires = "from")]
    table: Option<String>,
    /// With --from: goes on and follows the table until Ctrl-C.
    #[arg(long, requires = "from")]
    follow: bool,
    /// With --from: where it is remembered how far it is; files beside it hold the ids.
    #[arg(long, default_value = "prospectus-follow.state")]
    state: PathBuf,
    /// With --follow: seconds between two looks for changes.
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    every: f64,
    /// With --follow: how many seconds late a transaction may commit and still be seen.
    #[arg(long, default_value_t = 60.0, value_parser = seconds)]
    overlap: f64,
    /// With --follow: seconds between two sweeps for rows that are gone.
    #[arg(long, default_value_t = 3600.0, value_parser = seconds)]
    sweep: f64,
    /// With --follow: if more rows than this are gone at once, nothing is deleted and the command ends.
    #[arg(long, default_value_t = 1_000)]
    deletions_max: usize,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=1e7).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds, such as 60 or 0.5".to_owned()),
    }
}

/// Copies the table and, where that is asked for, follows it.
///
/// # Errors
/// If a side cannot be reached to begin with, the service refuses, or too many rows are gone.
pub(super) async fn run(args: &Args, reading: &Reading, api: &Api) -> anyhow::Result<Output> {
    let (Some(url), Some(table)) = (&args.from, &args.table) else { anyhow::bail!("--from and --table go together") };
    let reading = reading.of_rows();
    let (path, mapping) = reading.path()?;
    let legacy = Legacy::open(url, table).await?;
    let what = format!("{} as {}", legacy.name(), reading.source.as_deref().unwrap_or_default());
    let state = State::open(&args.state, &what)?;
    let mut follower =
        Follower { args, api, path, mapping, legacy, state, sent: HashMap::new(), totals: Totals::default() };
    let followed = tokio::select! {
        ended = follower.run(url, table) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    followed?;
    let (totals, state) = (&follower.totals, args.state.display());
    let json = json!({
        "copied": follower.state.progress.copied, "mark": follower.state.progress.mark, "imports": totals.imports,
        "rows": totals.rows, "refused": totals.refused, "in_review": totals.in_review, "deleted": totals.deleted,
        "kept": totals.kept, "state": state.to_string(),
    });
    let text = format!(
        "{}; {} rows in {} imports, {} in review, {} refused; {} prospects deleted, {} that others made kept\n{state} says how far it is: the same command goes on from there\n",
        if follower.state.progress.copied { "all rows are copied" } else { "not all rows are copied yet" },
        totals.rows,
        totals.imports,
        totals.in_review,
        totals.refused,
        totals.deleted,
        totals.kept,
    );
    Ok(Output { json, text, well: follower.state.progress.copied })
}

#[derive(Debug, Default)]
struct Totals {
    imports: u64,
    rows: u64,
    refused: u64,
    in_review: u64,
    deleted: u64,
    kept: u64,
}

struct Follower<'a> {
    args: &'a Args,
    api: &'a Api,
    path: String,
    mapping: Option<String>,
    legacy: Legacy,
    state: State,
    /// What was sent of the rows in the overlap.
    sent: HashMap<String, u64>,
    totals: Totals,
}

impl Follower<'_> {
    async fn run(&mut self, url: &Secret, table: &str) -> anyhow::Result<()> {
        let mut swept: Option<Instant> = None;
        loop {
            let result = self.round(&mut swept).await;
            if !self.args.follow {
                return result;
            }
            let mut wait = Duration::from_secs_f64(self.args.every);
            if let Err(error) = result {
                // A service or database that is away comes back; what is refused will be refused again.
                let passes = error.downcast_ref::<ApiError>().is_some_and(|error| matches!(error, ApiError::Away(_)))
                    || error.downcast_ref::<tokio_postgres::Error>().is_some();
                if !passes {
                    return Err(error);
                }
                eprintln!("prospectus: {}; trying again", crate::output::describe(&error));
                wait = wait.max(Duration::from_secs(1)).min(AWAY_WAIT);
                if self.legacy.is_closed()
                    && let Ok(legacy) = Legacy::open(url, table).await
                {
                    self.legacy = legacy;
                }
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn round(&mut self, swept: &mut Option<Instant>) -> anyhow::Result<()> {
        while !self.state.progress.copied {
            self.copy().await?;
        }
        if !self.args.follow {
            return Ok(());
        }
        self.changes().await?;
        if swept.is_none_or(|at| at.elapsed().as_secs_f64() >= self.args.sweep) {
            self.sweep().await?;
            *swept = Some(Instant::now());
        }
        Ok(())
    }

    /// Copies the next rows, one import of them.
    async fn copy(&mut self) -> anyhow::Result<()> {
        if self.state.progress.copied_to.is_none() && self.state.progress.mark.is_none() {
            // What changes while rows are copied has a later time than this.
            self.state.progress.mark = self.legacy.newest().await?;
            self.state.save()?;
        }
        let first = self.legacy.after_id(self.state.progress.copied_to.as_deref()).await?;
        if first.is_empty() {
            self.state.progress.copied = true;
            return self.state.save();
        }
        let (pages, body) = piped();
        let legacy = &self.legacy;
        let reading = async {
            let mut page = first;
            let (mut rows, mut last) = (0, None);
            while let Some(row) = page.last() {
                rows += page.len();
                last = Some(row.id.clone());
                if pages.send(Ok(lines(page.iter()))).await.is_err() || rows >= IMPORT_ROWS {
                    break;
                }
                page = match legacy.after_id(last.as_deref()).await {
                    Ok(page) => page,
                    Err(error) => {
                        // The service must not take what is there so far for all of it.
                        let _ = pages.send(Err(std::io::Error::other("the legacy table cannot be read"))).await;
                        return Err(error);
                    }
                };
            }
            drop(pages);
            Ok(last)
        };
        let (read, sent) = futures_util::join!(reading, self.upload(body));
        let last = read?;
        self.finish(sent?).await?;
        self.state.progress.copied_to = last;
        self.state.save()?;
        eprintln!("prospectus: {} rows are copied", self.totals.rows);
        Ok(())
    }

    /// Sends what has changed.
    async fn changes(&mut self) -> anyhow::Result<()> {
        let from = self.state.progress.mark.clone();
        let (mut beyond, mut seen, mut batch): (Option<LegacyRow>, HashMap<String, u64>, Vec<LegacyRow>) =
            Default::default();
        loop {
            let page = self.legacy.changed(from.as_deref(), self.args.overlap, beyond.as_ref()).await?;
            let Some(last) = page.last().cloned() else { break };
            for row in page {
                let hash = hash_of(&row);
                if self.sent.get(&row.id) != Some(&hash) {
                    batch.push(row.clone());
                }
                if seen.len() < SENT_MAX {
                    seen.insert(row.id, hash);
                }
            }
            beyond = Some(last);
            if batch.len() >= IMPORT_ROWS / 10 {
                self.send(std::mem::take(&mut batch)).await?;
            }
        }
        self.send(batch).await?;
        if let Some(newest) = beyond.and_then(|row| row.updated_at) {
            let mark = self.legacy.not_after_now(&newest).await?;
            if self.state.progress.mark.as_ref() != Some(&mark) {
                self.state.progress.mark = Some(mark);
                self.state.save()?;
            }
        }
        self.sent = seen;
        Ok(())
    }

    async fn send(&mut self, rows: Vec<LegacyRow>) -> anyhow::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let document = self.upload(crate::api::whole(lines(rows.iter()))).await?;
        self.finish(document).await
    }

    async fn upload(&self, body: Body) -> Result<Value, ApiError> {
        let (headers, body) = request(body, "application/x-ndjson", self.mapping.as_deref());
        self.api.upload(&self.path, headers, body).await
    }

    /// Follows an import to its end and learns which prospects its rows became.
    async fn finish(&mut self, document: Value) -> anyhow::Result<()> {
        let id = document["id"].as_str().context("the service's answer has no id")?.to_owned();
        self.state.note_import(&id)?;
        let document = report::to_its_end(self.api, document).await?;
        if document["state"] == "failed" {
            return Err(ApiError::Refused(json!({"detail": document["error"]["detail"], "import_id": id})).into());
        }
        let rows = |what: &str| document["rows"][what].as_u64().unwrap_or(0);
        self.totals.imports += 1;
        self.totals.rows += rows("read");
        self.totals.refused += rows("refused");
        self.totals.in_review += rows("in_review");
        let (state, mut rest) = (&mut self.state, Vec::new());
        let outcome = "created,updated,unchanged,in_review";
        let path = format!("/v1/imports/{id}/rows?outcome={outcome}");
        self.api
            .stream(&path, "application/x-ndjson", |piece| {
                rest.extend_from_slice(piece);
                let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                let learned: Vec<Known> = rest[..whole].split(|byte| *byte == b'\n').filter_map(learned).collect();
                rest.drain(..whole);
                anyhow::ensure!(rest.len() <= LINE_BYTES_MAX, "a row of import {id} is longer than 8 MiB");
                state.learn(&learned)
            })
            .await
    }

    /// Deletes the prospects of rows that are gone.
    async fn sweep(&mut self) -> anyhow::Result<()> {
        let mut gone: Vec<Known> = Vec::new();
        let max = self.args.deletions_max;
        let mut add = |row: Known| {
            gone.push(row);
            anyhow::ensure!(
                gone.len() <= max,
                "more than {max} rows of {} are gone at once: is it the right table? If so, give a larger --deletions-max",
                self.legacy.name()
            );
            Ok(())
        };
        let mut known = self.state.known()?;
        let mut next = known.next().transpose()?;
        self.legacy
            .ids(|id| {
                while let Some(row) = next.take_if(|row| row.id.as_str() <= id) {
                    if row.id != id {
                        add(row)?;
                    }
                    next = known.next().transpose()?;
                }
                Ok(())
            })
            .await?;
        while let Some(row) = next {
            add(row)?;
            next = known.next().transpose()?;
        }
        drop(known);
        if gone.is_empty() {
            return Ok(());
        }
        let ids: HashSet<String> = gone.iter().map(|row| row.id.clone()).collect();
        let mut made: HashSet<Uuid> = gone.iter().filter(|row| row.made).map(|row| row.prospect).collect();
        let mut prospects: BTreeSet<Uuid> = gone.iter().map(|row| row.prospect).collect();
        // Two rows of one person became one prospect, which stays as long as one of them does.
        for row in self.state.known()? {
            let row = row?;
            if !ids.contains(&row.id) {
                prospects.remove(&row.prospect);
            } else if row.made {
                made.insert(row.prospect);
            }
        }
        // What was there before the table's rows came is not the table's to delete.
        let others: Vec<Uuid> = prospects.iter().filter(|prospect| !made.contains(*prospect)).copied().collect();
        for prospect in &others {
            eprintln!("prospectus: the row of prospect {prospect} is gone, but the table did not make it: it stays");
        }
        self.totals.kept += others.len() as u64;
        prospects.retain(|prospect| made.contains(prospect));
        for prospect in prospects {
            match self.api.ask(Method::DELETE, &format!("/v1/prospects/{prospect}")).await {
                Ok(_) => self.totals.deleted += 1,
                // Somebody else, or this command before it was interrupted, was first.
                Err(ApiError::Refused(problem)) if [404, 409].map(Value::from).contains(&problem["status"]) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.state.merge(&ids, &made)?;
        self.state.save()
    }
}

/// A body that is fed through a bounded queue.
fn piped() -> (mpsc::Sender<Result<Bytes, std::io::Error>>, Body) {
    let (sender, receiver) = mpsc::channel(PAGES_AHEAD);
    let pieces = stream::unfold(receiver, |mut receiver: mpsc::Receiver<Result<Bytes, std::io::Error>>| async {
        let piece = receiver.recv().await?;
        Some((piece.map(Frame::data), receiver))
    });
    (sender, StreamBody::new(pieces).boxed_unsync())
}

fn lines<'a>(rows: impl Iterator<Item = &'a LegacyRow>) -> Bytes {
    let mut text = String::new();
    for row in rows {
        text.push_str(&row.json);
        text.push('\n');
    }
    text.into()
}

fn hash_of(row: &LegacyRow) -> u64 {
    let mut hasher = DefaultHasher::new();
    row.json.hash(&mut hasher);
    hasher.finish()
}

/// The legacy id and the prospect of a row's outcome.
fn learned(line: &[u8]) -> Option<Known> {
    let outcome: Value = serde_json::from_slice(line).ok()?;
    let row: Value = serde_json::from_str(outcome["text"].as_str()?).ok()?;
    let id = match &row["id"] {
        Value::String(id) => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => return None,
    };
    let prospect = Uuid::try_parse(outcome["prospect_ids"][0].as_str()?).ok()?;
    Some(Known { id, prospect, made: outcome["prospect_made_by_source"][0] == true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rows_outcome_tells_its_prospect() {
        let prospect = Uuid::from_u128(7);
        let outcome = |id: Value, made: bool| {
            let text = json!({"id": id, "email": "a@b.example"}).to_string();
            json!({"row": 1, "outcome": "in_review", "text": text, "prospect_ids": [prospect], "prospect_made_by_source": [made]})
                .to_string()
        };
        let known = |id: &str, made| Some(Known { id: id.to_owned(), prospect, made });
        assert_eq!(learned(outcome("ck1".into(), true).as_bytes()), known("ck1", true));
        assert_eq!(learned(outcome(12.into(), false).as_bytes()), known("12", false));
        assert_eq!(learned(b""), None);
        assert_eq!(learned(json!({"text": "{\"id\": 1}", "prospect_ids": []}).to_string().as_bytes()), None);
    }

    #[test]
    fn a_time_is_a_number_of_seconds() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        assert!(seconds("-1").is_err() && seconds("NaN").is_err() && seconds("1e300").is_err());
    }
}
