//! The benchmarks: every figure beside its limit, interleaved, in one run on one stack.
//!
//! `make bench` runs it inside a throw-away stack, whose variables say where everything is. Client and servers share the
//! machine's cores, as they do in the limits that the figures are compared with.

mod append;
mod audit;
mod client;
mod clock;
mod fanout;
mod foreign;
mod history;
mod http;
mod import;
mod load;
mod peer;
mod read;
mod rebuild;
mod refresh;
mod results;
mod sample;
mod sealer;
mod stack;
mod visible;

use std::time::Duration;

use clap::{Parser, ValueEnum};

use results::Results;
use stack::BenchStack;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Prospectus beside its limits and peers, in one run.
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// Rounds; the medians of them count.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each measurement, after a fifth of it as warm-up.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Seconds that a foreign transaction keeps its snapshot open while events are appended.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(5..=3600))]
    foreign_seconds: u64,
    /// Lines of the lists that are imported.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    import_lines: u64,
    /// Prospects of the log that is rebuilt from; for every twenty of them there are three companies.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100..=100_000_000))]
    rebuild_prospects: u64,
    /// Prospects of the materialized view that is refreshed.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    refresh_prospects: u64,
    /// Only these groups, separated by commas.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Group>,
    /// Print the table, write no files.
    #[arg(long)]
    dry_run: bool,
}

/// What is measured together, beside its limit.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Appending through the event store and through postgres-es.
    Append,
    /// Loading a record and appending to it.
    Load,
    /// Commands over HTTP: how many, and how long one takes.
    Http,
    /// From a command's answer to its row on the replica.
    Visible,
    /// From a command's answer to its row on the replica while a change reaches 100,000 rows.
    Fanout,
    /// Records over HTTP.
    Read,
    /// Appending while a foreign transaction keeps its snapshot.
    Foreign,
    /// Verifying a whole sealed log.
    Audit,
    /// Appends and imports with and without the sealer.
    Sealer,
    /// A record's history, and the whole feed as a stream.
    History,
    /// Lists of customers, new and again.
    Import,
    /// The read tables anew from the whole log.
    Rebuild,
    /// Requirement 003's materialized view, refreshed, beside one change of ours.
    Refresh,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let stack = BenchStack::from_environment()?;
    let length = Duration::from_secs(flags.seconds);
    let wanted = |group: Group| flags.only.is_empty() || flags.only.contains(&group);
    let mut results = Results::default();
    for round in 1..=flags.rounds {
        eprintln!("round {round} of {}", flags.rounds);
        if wanted(Group::Append) || wanted(Group::Http) {
            append::limits(&stack, length, &mut results).await?;
        }
        if wanted(Group::Append) {
            append::round(&stack, length, &mut results).await?;
        }
        if wanted(Group::Load) {
            load::round(&stack, length, &mut results).await?;
        }
        if wanted(Group::Http) {
            http::round(&stack, length, &mut results).await?;
        }
        if wanted(Group::Visible) {
            visible::round(&stack, length, &mut results).await?;
        }
        if wanted(Group::Read) {
            read::round(&stack, length, &mut results).await?;
        }
    }
    if wanted(Group::History) {
        history::run(&stack, length, &mut results).await?;
    }
    // After the others, whose tables stay as small as they were.
    if wanted(Group::Fanout) {
        fanout::run(&stack, flags.rounds, &mut results).await?;
    }
    if wanted(Group::Sealer) {
        sealer::run(&stack, length, flags.rounds, flags.import_lines, &mut results).await?;
    }
    if wanted(Group::Audit) {
        audit::run(&stack, flags.rounds, &mut results).await?;
    }
    if wanted(Group::Foreign) {
        eprintln!("beside a foreign snapshot of {} s", flags.foreign_seconds);
        foreign::run(&stack, length, Duration::from_secs(flags.foreign_seconds), &mut results).await?;
    }
    stack.memory(&mut results)?;
    // Last of all: after it the tables are large, and the memory is an import's.
    if wanted(Group::Import) {
        eprintln!("imports of {} lines", flags.import_lines);
        import::run(&stack, length, flags.import_lines, &mut results).await?;
    }
    if wanted(Group::Rebuild) {
        eprintln!("a rebuild of {} prospects", flags.rebuild_prospects);
        rebuild::run(&stack, flags.rebuild_prospects, &mut results).await?;
    }
    // It takes the rows that are there.
    if wanted(Group::Refresh) {
        refresh::run(&stack, flags.rounds, flags.refresh_prospects, &mut results).await?;
    }
    print!("{}", results.table());
    if !flags.dry_run {
        results.write()?;
    }
    Ok(())
}
