//! `local-stack`: the whole system on one machine.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use local_stack::{Options, Part, Ports, Promotion, Stack, StackError, data_directory, load_sample};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// Longest order on the control socket.
const ORDER_BYTES_MAX: u64 = 256;

/// A real PostgreSQL primary and replica, NATS, and the three services, on this machine.
#[derive(Parser)]
#[command(version)]
struct Line {
    #[command(subcommand)]
    command: Order,
}

#[derive(Subcommand)]
enum Order {
    /// Start everything in .data (or $`PROSPECTUS_DATA_DIR`), with a small sample; stays in the foreground.
    Up {
        #[command(flatten)]
        parts: PartArgs,
        /// Take free ports instead of 8080, 8081 and 8082.
        #[arg(long)]
        free_ports: bool,
    },
    /// Start a throw-away stack, run a command in it, and take it down: `local-stack exec -- python3 smoke.py`
    Exec {
        #[command(flatten)]
        parts: PartArgs,
        /// Only PostgreSQL's primary, migrated.
        #[arg(long, value_parser = ["postgres"])]
        only: Option<String>,
        /// Keep the data directory.
        #[arg(long)]
        keep: bool,
        /// Show what the processes print.
        #[arg(long)]
        verbose: bool,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Stop a part of the running stack and hold it off: `postgres_primary`, `postgres_replica`, nats, `command_service`, projector, `query_service`, relay, sealer
    Stop {
        /// Which.
        part: Part,
    },
    /// Start a part that was stopped.
    Start {
        /// Which.
        part: Part,
    },
    /// Make a replica the primary, with or without the old one's consent: the one that has received most
    ///
    /// The old primary is stopped and fenced first, asked or not; it comes back as a replica. Refused if not every replica says what it
    /// has received: one that is silent may have what was acknowledged.
    Promote {
        /// Promote although too few replicas answer: what only a silent one has received is lost.
        #[arg(long)]
        accept_loss: bool,
    },
    /// Empty a part that can be empty: nats
    Wipe {
        /// Which.
        #[arg(value_parser = ["nats"])]
        part: String,
    },
}

#[derive(Args)]
struct PartArgs {
    /// Parts that are not started, separated by commas.
    #[arg(long, value_delimiter = ',')]
    without: Vec<Part>,
    /// Streaming replicas; without it 1, with --synchronous 2.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=4))]
    replicas: Option<u8>,
    /// Acknowledge a command only when one of two replicas (or more) has it on its disk: no promotion loses one.
    #[arg(long)]
    synchronous: bool,
    /// Archive the write-ahead log, encrypted, in `backups` of the data directory, for `prospectus backup` and `prospectus restore`.
    /// It grows until `prospectus backup expire` removes what has expired.
    #[arg(long)]
    archive: bool,
    /// Command services, all on one log.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=4))]
    command_services: u8,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Line::parse().command {
        Order::Up { parts, free_ports } => up(parts, free_ports).await,
        Order::Exec { parts, only, keep, verbose, command } => {
            exec(parts, only.is_some(), keep, verbose, command).await
        }
        Order::Stop { part } => order(&format!("stop {}", part.name())).await,
        Order::Start { part } => order(&format!("start {}", part.name())).await,
        Order::Promote { accept_loss } => order(if accept_loss { "promote accept-loss" } else { "promote" }).await,
        Order::Wipe { part } => order(&format!("wipe {part}")).await,
    };
    done.unwrap_or_else(|error| {
        eprintln!("local-stack: {error:#}");
        ExitCode::FAILURE
    })
}

fn options(parts: PartArgs, data_directory: PathBuf) -> Options {
    Options {
        replicas: parts.replicas.unwrap_or(if parts.synchronous { 2 } else { 1 }),
        synchronous: parts.synchronous,
        archive: parts.archive,
        command_services: parts.command_services,
        without: parts.without,
        ..Options::throw_away(data_directory)
    }
}

async fn up(parts: PartArgs, free_ports: bool) -> anyhow::Result<ExitCode> {
    let mut options = options(parts, data_directory());
    options.echo = true;
    options.ports = if free_ports { Ports::Free } else { Ports::Fixed };
    let stack = tokio::select! {
        started = Stack::start(options) => started?,
        () = ended() => return Ok(ExitCode::FAILURE),
    };
    let (companies, prospects) = load_sample(&stack).await?;
    if companies > 0 {
        println!("local-stack | loaded the sample: {companies} companies, {prospects} prospects");
    }
    print_welcome(&stack, &stack.write_environment()?);
    tokio::select! {
        served = control(&stack) => served?,
        () = ended() => {}
    }
    println!("local-stack | stopping");
    stack.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

fn print_welcome(stack: &Stack, environment: &Path) {
    let (commands, queries) = (stack.url(Part::CommandService(1)), stack.url(Part::QueryService));
    let projector = stack.url(Part::Projector);
    let key = stack.api_key();
    println!(
        "
Prospectus runs. Ctrl-C stops it; its data stays in {data}.

  commands   {commands}   (documents: {commands}/docs)
  reads      {queries}   (documents: {queries}/docs)
  projector  {projector}/metrics

export PROSPECTUS_API_KEY={key}

A client registers a company and reads it back:
  curl -s {commands}/v1/companies -H \"Authorization: Bearer $PROSPECTUS_API_KEY\" -H 'Content-Type: application/json' -d '{{\"name\": \"Your Company\", \"domain\": \"your-company.example\"}}'
  curl -s '{queries}/v1/companies?sort=-revenue&limit=3&fields=name,domain,revenue' -H \"Authorization: Bearer $PROSPECTUS_API_KEY\"

An auditor reads what happened:
  curl -s '{queries}/v1/events?after=0&limit=3' -H \"Authorization: Bearer $PROSPECTUS_API_KEY\"

An operator looks at how far everything is:
  curl -s {queries}/v1/projections -H \"Authorization: Bearer $PROSPECTUS_API_KEY\"
and, in another terminal, with the passwords of this stack:
  . {environment}
  target/release/prospectus status
",
        data = stack.data_directory().display(),
        environment = environment.display(),
    );
}

async fn exec(
    parts: PartArgs,
    postgres_only: bool,
    keep: bool,
    verbose: bool,
    command: Vec<String>,
) -> anyhow::Result<ExitCode> {
    let directory = std::env::temp_dir().join(format!("prospectus-{}", uuid::Uuid::new_v4().simple()));
    let mut options = options(parts, directory.clone());
    options.postgres_only = postgres_only;
    options.echo = verbose;
    let code = run_in(options, command).await;
    if keep {
        eprintln!("local-stack | kept {}", directory.display());
    } else if let Err(error) = std::fs::remove_dir_all(&directory) {
        eprintln!("local-stack | {} could not be removed: {error}", directory.display());
    }
    code
}

async fn run_in(options: Options, command: Vec<String>) -> anyhow::Result<ExitCode> {
    let stack = tokio::select! {
        started = Stack::start(options) => started?,
        () = ended() => return Ok(ExitCode::FAILURE),
    };
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .envs(stack.environment())
        // Tests that are built another way test the binaries that are beside this one.
        .env("PROSPECTUS_BIN_DIR", local_stack::bin_directory()?)
        .stdin(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{} cannot be run", command[0]))?;
    let code = tokio::select! {
        status = child.wait() => status?.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
        served = control(&stack) => { served?; 1 }
        () = ended() => 1,
    };
    // Killed where it was not waited for; if it has ended, there is nothing to kill.
    let _ = child.kill().await;
    stack.shutdown().await;
    Ok(ExitCode::from(code))
}

async fn ended() {
    // Without its signals the process would still be ended by the system's own handling of them.
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
}

/// Takes orders from `local-stack stop|start|wipe`, one at a time.
async fn control(stack: &Stack) -> anyhow::Result<()> {
    let path = stack.data_directory().join("control.sock");
    // Left by a supervisor that was killed; the lock says that it is gone.
    if path.exists() {
        std::fs::remove_file(&path)?;
    }
    let listener = UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (reader, mut writer) = stream.into_split();
        let mut line = String::new();
        let mut reader = BufReader::new(tokio::io::AsyncReadExt::take(reader, ORDER_BYTES_MAX));
        let answer = match reader.read_line(&mut line).await {
            Ok(_) => obey(stack, line.trim()).await.unwrap_or_else(|error| format!("error: {error}")),
            Err(error) => format!("error: {error}"),
        };
        // Whoever gave the order may be gone.
        let _ = writer.write_all(answer.as_bytes()).await;
    }
}

/// Carries an order out; gives what there is to say.
async fn obey(stack: &Stack, line: &str) -> Result<String, StackError> {
    match line.split_once(' ') {
        Some(("stop", part)) => stack.stop(part.parse()?).await?,
        Some(("start", part)) => stack.start_part(part.parse()?).await?,
        Some(("wipe", "nats")) => stack.wipe_nats().await?,
        Some(("promote", "accept-loss")) => return promoted(&stack.promote(true).await?),
        None if line == "promote" => return promoted(&stack.promote(false).await?),
        _ => return Err(StackError::Order(format!("`{line}` is no order"))),
    }
    Ok(String::new())
}

/// What a promotion did; an error where something went wrong with a server other than the primary.
fn promoted(promotion: &Promotion) -> Result<String, StackError> {
    let text = promotion.to_string();
    if promotion.is_whole() { Ok(text) } else { Err(StackError::Promotion(text)) }
}

/// Gives an order to the running stack.
async fn order(line: &str) -> anyhow::Result<ExitCode> {
    let path = data_directory().join("control.sock");
    let mut stream = UnixStream::connect(&path)
        .await
        .with_context(|| format!("no stack runs in {}: start one with `local-stack up`", data_directory().display()))?;
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await?;
    if let Some(error) = answer.strip_prefix("error: ") {
        anyhow::bail!("{error}");
    }
    print!("{answer}");
    Ok(ExitCode::SUCCESS)
}
