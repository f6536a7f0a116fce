//! Keeping one process alive: it is started, its output is passed on, and when it dies it is started again within a second.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::account::Account;
use crate::data::replace;
use crate::error::StackError;
use crate::part::Part;
use crate::seats::Seats;

/// A process that lived shorter than this waits before it is started again.
const SHORT_LIFE: Duration = Duration::from_secs(2);
/// That wait: well within the second in which it is promised back.
const AGAIN: Duration = Duration::from_millis(300);
/// How long a process may take to end by itself.
const STOP: Duration = Duration::from_secs(30);

/// How a process is started, made anew for each start.
pub(crate) struct Recipe {
    /// Program and arguments.
    pub(crate) words: Vec<OsString>,
    /// Variables beside the stack's own environment.
    pub(crate) environment: Vec<(String, String)>,
    /// As whom.
    pub(crate) account: Option<Account>,
}

/// Process ids of everything that runs, by seat; kept true in `pids.json`, there by part.
#[derive(Clone)]
pub(crate) struct Pids {
    path: PathBuf,
    known: Arc<Mutex<BTreeMap<Part, u32>>>,
    seats: Seats,
}

impl Pids {
    pub(crate) fn new(path: PathBuf, seats: Seats) -> Result<Self, StackError> {
        replace(&path, "{}")?;
        Ok(Self { path, known: Arc::default(), seats })
    }

    fn set(&self, seat: Part, pid: Option<u32>) {
        let mut known = self.lock();
        match pid {
            Some(pid) => known.insert(seat, pid),
            None => known.remove(&seat),
        };
        self.write(&known);
    }

    /// Writes the file anew: the seats have other parts now.
    pub(crate) fn publish(&self) {
        self.write(&self.lock());
    }

    fn write(&self, known: &BTreeMap<Part, u32>) {
        let by_part: BTreeMap<String, u32> =
            known.iter().map(|(seat, pid)| (self.seats.part(*seat).name(), *pid)).collect();
        let text = serde_json::to_string_pretty(&by_part).unwrap_or_default();
        if let Err(error) = replace(&self.path, &text) {
            eprintln!("local-stack | {error}");
        }
    }

    pub(crate) fn get(&self, seat: Part) -> Option<u32> {
        self.lock().get(&seat).copied()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Part, u32>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the keeper of a process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Whether it should run.
    pub(crate) running: bool,
    /// Changed to have it stopped and started again.
    pub(crate) round: u64,
}

pub(crate) struct Keeper {
    /// Whose process it keeps; of a server, the seat.
    pub(crate) seat: Part,
    /// Whether it has nothing running and will start nothing until it is told to.
    pub(crate) idle: watch::Sender<bool>,
    pub(crate) log: PathBuf,
    /// Whether its output goes to our own standard output too.
    pub(crate) echo: bool,
    pub(crate) pids: Pids,
    pub(crate) setpriv: Option<PathBuf>,
    pub(crate) recipe: Box<dyn Fn() -> Recipe + Send + Sync>,
}

impl Keeper {
    /// Keeps the process as it is wanted until nobody wants anything any more.
    pub(crate) async fn run(self, mut wanted: watch::Receiver<Wanted>) {
        loop {
            // Said while what is wanted cannot change, so that who has it stopped and then sees it idle can rely on it.
            let running = {
                let now = wanted.borrow_and_update();
                self.idle.send_replace(!now.running);
                now.running
            };
            if !running {
                if wanted.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let started = Instant::now();
            let mut child = match self.spawn().await {
                Ok(child) => child,
                Err(error) => {
                    self.say(&error.to_string());
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            self.pids.set(self.seat, child.id());
            tokio::select! {
                ended = child.wait() => {
                    self.pids.set(self.seat, None);
                    let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                    self.say(&format!("ended ({how}); it is started again"));
                    if started.elapsed() < SHORT_LIFE {
                        tokio::time::sleep(AGAIN).await;
                    }
                }
                changed = wanted.changed() => {
                    self.stop(&mut child).await;
                    self.pids.set(self.seat, None);
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn part(&self) -> Part {
        self.pids.seats.part(self.seat)
    }

    fn say(&self, what: &str) {
        println!("local-stack | {}: {what}", self.part());
    }

    async fn spawn(&self) -> Result<Child, StackError> {
        let recipe = (self.recipe)();
        let mut words = recipe.words;
        // Where this supervisor is killed outright, its children end too.
        if let Some(setpriv) = &self.setpriv {
            let signal = if self.seat.is_server() { "INT" } else { "TERM" };
            words.splice(0..0, [setpriv.clone().into_os_string(), "--pdeathsig".into(), signal.into()]);
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(recipe.environment).current_dir("/").kill_on_drop(true).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(account) = recipe.account {
            account.run(&mut command);
        }
        let mut child = command.spawn().map_err(StackError::io(format!("starting the {}", self.part())))?;
        let log = tokio::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .await
            .map_err(StackError::io(format!("opening {}", self.log.display())))?;
        let log = Arc::new(tokio::sync::Mutex::new(log));
        if let Some(output) = child.stdout.take() {
            tokio::spawn(pass_on(output, self.seat, Arc::clone(&log), self.echo));
        }
        if let Some(output) = child.stderr.take() {
            tokio::spawn(pass_on(output, self.seat, log, self.echo));
        }
        Ok(child)
    }

    async fn stop(&self, child: &mut Child) {
        // PostgreSQL's fast shutdown is SIGINT.
        let signal = if self.seat.is_server() { Signal::INT } else { Signal::TERM };
        signal_child(child.id(), signal);
        if tokio::time::timeout(STOP, child.wait()).await.is_err() {
            self.say("does not end by itself and is killed");
            // If this fails it has ended meanwhile.
            let _ = child.kill().await;
        }
    }
}

/// Sends a signal to a process of ours; one that has ended needs none.
pub(crate) fn signal_child(pid: Option<u32>, signal: Signal) {
    if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

async fn pass_on(
    output: impl AsyncRead + Unpin,
    part: Part,
    log: Arc<tokio::sync::Mutex<tokio::fs::File>>,
    echo: bool,
) {
    let mut lines = BufReader::new(output);
    let mut line = Vec::new();
    while let Ok(1..) = lines.read_until(b'\n', &mut line).await {
        let written = async {
            let mut log = log.lock().await;
            log.write_all(&line).await?;
            log.flush().await
        };
        if let Err(error) = written.await {
            eprintln!("local-stack | the log of the {part} cannot be written: {error}");
        }
        if echo {
            println!("{part} | {}", String::from_utf8_lossy(&line).trim_end());
        }
        line.clear();
    }
}
