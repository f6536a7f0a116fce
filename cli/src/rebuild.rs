//! `prospectus rebuild` and `prospectus rollback`: asks the projector for it, and shows how far it is.

mod room;

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio_postgres::{Client, Row};

use crate::output::Output;
use crate::primary::Primary;

/// How often it is looked how far the projector is.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Phases whose parts are events, counted when they are folded and when their record is written.
const TWICE: [&str; 3] = ["companies", "prospects", "checking"];

/// Builds a projection's read tables anew from the log, beside the live ones, and makes them live. Reading and writing go on throughout.
///
/// The projector does it; interrupting this command changes nothing. The tables that were live until then stay for `prospectus rollback`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  prospectus rebuild company_prospect\n  prospectus rebuild --all --memory 4GiB\n  prospectus rebuild company_prospect --cancel"
)]
pub struct RebuildArgs {
    /// Which projection.
    #[arg(required_unless_present = "all")]
    projection: Option<String>,
    /// Every projection, one after the other.
    #[arg(long, conflicts_with = "projection")]
    all: bool,
    /// Most memory that the projector folds in, such as 512MiB; what does not go into it is folded in rounds. The check holds all companies
    /// at a time, beside that.
    #[arg(long, default_value = "1GiB", value_parser = bytes)]
    memory: u64,
    /// Room on the server's disk that the new tables may take; without it, what is free there, if the server runs on this machine.
    #[arg(long, value_parser = bytes)]
    disk: Option<u64>,
    /// Gives up the one that is under way.
    #[arg(long)]
    cancel: bool,
    /// Seconds to wait for a projector that takes it.
    #[arg(long, default_value_t = 10)]
    wait: u64,
}

/// Makes the generation that was live before live again, after it has caught up.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  prospectus rollback company_prospect")]
pub struct RollbackArgs {
    /// Which projection.
    projection: String,
    /// Seconds to wait for a projector that takes it.
    #[arg(long, default_value_t = 10)]
    wait: u64,
}

/// Runs `prospectus rebuild`.
///
/// # Errors
/// If there is no such projection, no projector takes it, or something else is under way.
pub async fn rebuild(args: &RebuildArgs, primary: &Primary) -> anyhow::Result<Output> {
    let client = primary.connect_migrated().await?;
    let projections: Vec<&str> = match &args.projection {
        Some(projection) => vec![known(projection)?],
        None => migrations::PROJECTIONS.to_vec(),
    };
    if args.cancel {
        return cancel(&client, &projections).await;
    }
    let (room, from) = room::of(&client, args.disk).await?;
    let mut results = Vec::new();
    for projection in projections {
        let asked = Asked { projection, kind: "rebuild", memory: args.memory, room, from: &from };
        results.push(asked.carry_out(&client, Duration::from_secs(args.wait)).await?);
    }
    Ok(output(results, Some(&from)))
}

/// Runs `prospectus rollback`.
///
/// # Errors
/// As [`rebuild`].
pub async fn rollback(args: &RollbackArgs, primary: &Primary) -> anyhow::Result<Output> {
    let client = primary.connect_migrated().await?;
    let projection = known(&args.projection)?;
    let asked = Asked { projection, kind: "rollback", memory: 1, room: None, from: "nobody: nothing is built" };
    Ok(output(vec![asked.carry_out(&client, Duration::from_secs(args.wait)).await?], None))
}

/// The projection of this name.
///
/// # Errors
/// If there is none.
pub fn known(projection: &str) -> anyhow::Result<&'static str> {
    let known = migrations::PROJECTIONS.iter().find(|known| **known == projection);
    known.copied().with_context(|| {
        format!("there is no projection {projection:?}; there is {}", migrations::PROJECTIONS.join(", "))
    })
}

/// What is asked of a projector.
struct Asked<'a> {
    projection: &'a str,
    kind: &'a str,
    memory: u64,
    room: Option<u64>,
    from: &'a str,
}

impl Asked<'_> {
    /// Asks, and follows until the end.
    async fn carry_out(&self, client: &Client, wait: Duration) -> anyhow::Result<Value> {
        const ASK: &str = "-- cli::rebuild::ask
            INSERT INTO read.rebuilds (projection, kind, memory_bytes, room_bytes, room_from)
            VALUES ($1 /* projection */, $2 /* kind */, $3 /* memory */, $4 /* room */, $5 /* whose word that is */)
            ON CONFLICT (projection) WHERE finished_at IS NULL DO NOTHING RETURNING rebuild_id";
        const OPEN: &str = "-- cli::rebuild::open
            SELECT rebuild_id, kind FROM read.rebuilds WHERE projection = $1 /* projection */ AND finished_at IS NULL";
        let memory = i64::try_from(self.memory).unwrap_or(i64::MAX);
        let room = self.room.map(|room| i64::try_from(room).unwrap_or(i64::MAX));
        let asked = client.query_opt(ASK, &[&self.projection, &self.kind, &memory, &room, &self.from]).await?;
        if let Some(row) = asked {
            return self.follow(client, row.get(0), Some(wait)).await;
        }
        let Some(row) = client.query_opt(OPEN, &[&self.projection]).await? else {
            bail!("what was under way has just ended: ask again");
        };
        let (id, kind): (i64, String) = (row.get(0), row.get(1));
        if kind != self.kind {
            bail!(
                "a {kind} of {} is under way: wait for its end, or `prospectus rebuild {0} --cancel`",
                self.projection
            );
        }
        let _ = writeln!(std::io::stderr(), "one is under way already; this is how far it is");
        self.follow(client, id, None).await
    }

    /// Shows how far it is until it is over. Takes it back if no projector has taken it after `wait`.
    async fn follow(&self, client: &Client, id: i64, wait: Option<Duration>) -> anyhow::Result<Value> {
        const LOOK: &str = "-- cli::rebuild::follow
            SELECT r.phase, r.done, r.total, r.attempts, r.outcome, r.error, r.generation, r.position, r.rows_checked, r.differences,
                   r.first_differences, extract(epoch FROM r.finished_at - r.requested_at)::float8,
                   r.live_differences, r.first_live_differences
            FROM read.rebuilds AS r WHERE r.rebuild_id = $1 /* which */";
        const TAKE_BACK: &str = "-- cli::rebuild::take_back
            DELETE FROM read.rebuilds WHERE rebuild_id = $1 /* which */ AND attempts = 0";
        let started = Instant::now();
        let mut shown = Shown::new();
        loop {
            let row = client.query_opt(LOOK, &[&id]).await?.context("what was asked for is gone")?;
            shown.look(&row);
            if row.get::<_, Option<&str>>(4).is_some() {
                shown.bar.finish_and_clear();
                return Ok(self.result(&row));
            }
            if wait.is_some_and(|wait| started.elapsed() > wait)
                && row.get::<_, i32>(3) == 0
                && client.execute(TAKE_BACK, &[&id]).await? == 1
            {
                shown.bar.finish_and_clear();
                bail!(
                    "no projector has taken it within {} s: is one running, of this release? Nothing has been changed",
                    started.elapsed().as_secs()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn result(&self, row: &Row) -> Value {
        json!({
            "projection": self.projection, "kind": self.kind, "outcome": row.get::<_, Option<&str>>(4), "error": row.get::<_, Option<&str>>(5),
            "generation": row.get::<_, Option<i32>>(6), "position": row.get::<_, Option<i64>>(7),
            "rows_checked": row.get::<_, Option<i64>>(8), "differences": row.get::<_, Option<i64>>(9),
            "first_differences": row.get::<_, Vec<String>>(10), "seconds": row.get::<_, Option<f64>>(11),
            "live_differences": row.get::<_, Option<i64>>(12), "first_live_differences": row.get::<_, Vec<String>>(13),
        })
    }
}

/// The bar on a terminal; without one, a line for each phase.
struct Shown {
    bar: ProgressBar,
    phase: String,
}

impl Shown {
    fn new() -> Self {
        let bar = ProgressBar::no_length();
        let template = "{msg:12} {bar:30} {human_pos}/{human_len}  {per_sec}  {eta} left  {elapsed}";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, phase: String::new() }
    }

    fn look(&mut self, row: &Row) {
        let phase: &str = row.get(0);
        let parts = |parts: i64| u64::try_from(parts).unwrap_or(0) / if TWICE.contains(&phase) { 2 } else { 1 };
        if phase != self.phase {
            phase.clone_into(&mut self.phase);
            // A new phase has another unit: its rate begins anew.
            self.bar.reset();
            self.bar.set_message(phase.to_owned());
            if self.bar.is_hidden() && phase != "done" {
                let _ = writeln!(std::io::stderr(), "{phase}");
            }
        }
        self.bar.set_length(parts(row.get(2)));
        self.bar.set_position(parts(row.get(1)));
    }
}

/// Asks for the end of what is under way; it ends within a second.
async fn cancel(client: &Client, projections: &[&str]) -> anyhow::Result<Output> {
    const UNTAKEN: &str = "-- cli::rebuild::cancel, untaken
        UPDATE read.rebuilds SET outcome = 'cancelled', finished_at = clock_timestamp()
        WHERE projection = ANY ($1 /* projections */) AND finished_at IS NULL AND attempts = 0 RETURNING projection";
    const TAKEN: &str = "-- cli::rebuild::cancel
        UPDATE read.rebuilds SET cancel = true
        WHERE projection = ANY ($1 /* projections */) AND finished_at IS NULL RETURNING projection";
    let mut cancelled = client.query(UNTAKEN, &[&projections]).await?;
    cancelled.extend(client.query(TAKEN, &[&projections]).await?);
    let cancelled: Vec<String> = cancelled.iter().map(|row| row.get(0)).collect();
    let text = match cancelled.as_slice() {
        [] => "nothing is under way\n".to_owned(),
        some => format!("given up: {}; what is live stays as it is\n", some.join(", ")),
    };
    Ok(Output::new(json!({ "cancelled": cancelled }), text))
}

fn output(results: Vec<Value>, room: Option<&str>) -> Output {
    let mut text = String::new();
    for one in &results {
        let of = |name: &str| one[name].as_str().map_or_else(|| one[name].to_string(), str::to_owned);
        if one["outcome"] == "live" {
            let seconds = one["seconds"].as_f64().unwrap_or(0.0);
            let _ = writeln!(
                text,
                "{}: generation {} is live at position {}, after {seconds:.1} s",
                of("projection"),
                of("generation"),
                of("position")
            );
        } else {
            let _ =
                writeln!(text, "{}: {}: {}; what is live stays as it is", of("projection"), of("outcome"), of("error"));
        }
        if let Some(differences) = one["differences"].as_i64() {
            let rows = of("rows_checked");
            let _ = writeln!(text, "compared with the fold of the log: {differences} differences in {rows} rows");
            for line in one["first_differences"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let _ = writeln!(text, "  {line}");
            }
        }
        if let Some(differences) = one["live_differences"].as_i64() {
            let _ = writeln!(text, "compared with what was live: {differences} rows differ");
            for line in one["first_live_differences"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let _ = writeln!(text, "  {line}");
            }
        }
    }
    if let Some(room) = room {
        let _ = writeln!(text, "room on the server's disk: {room}");
    }
    let well = results.iter().all(|one| one["outcome"] == "live");
    let mut json: Value = results.into();
    if let (Some(room), Some(results)) = (room, json.as_array_mut()) {
        for one in results.iter_mut() {
            one["room"] = room.into();
        }
    }
    Output { json, text, well }
}

/// Bytes as people write them: 1GiB, 512MiB, 100000.
pub fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        unit => return Err(format!("{unit:?} is no unit: KiB, MiB, GiB or TiB")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is not a number of bytes, such as 512MiB"))?;
    number.checked_mul(factor).filter(|bytes| *bytes > 0).ok_or_else(|| format!("{text:?} is out of range"))
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_read_as_people_write_them() {
        assert_eq!([bytes("7"), bytes("2KiB"), bytes("1GiB")], [Ok(7), Ok(2048), Ok(1 << 30)]);
        for bad in ["", "0", "GiB", "1GB", "-1", "1.5GiB", "99999999999TiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
