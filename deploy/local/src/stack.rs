//! The running stack: what it consists of, in which order it comes up and goes down, and how it is held off.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::account::Account;
use crate::archive;
use crate::data::{Data, write_private};
use crate::error::StackError;
use crate::installed::{self, Postgres};
use crate::keep::{Keeper, Pids, Recipe, Wanted, signal_child};
use crate::part::Part;
use crate::postgres::Servers;
use crate::seats::Seats;
use crate::{http, postgres};

/// How long a service may take to be ready.
const READY: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(15);

/// Which ports the services get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// 8080, 8081, 8082, as in the documents.
    Fixed,
    /// Whatever is free.
    Free,
}

/// What to start.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line, independent of the others")]
pub struct Options {
    /// Where it lives.
    pub data_directory: PathBuf,
    /// Which ports.
    pub ports: Ports,
    /// Streaming replicas.
    pub replicas: u8,
    /// Whether a command is acknowledged only when one replica has it on its disk too: two replicas at least.
    pub synchronous: bool,
    /// Whether the write-ahead log is archived, so that `prospectus backup` and `prospectus restore` work.
    pub archive: bool,
    /// Command services.
    pub command_services: u8,
    /// Only the primary, migrated.
    pub postgres_only: bool,
    /// What is not started, or, for the relay and the sealer, left out.
    pub without: Vec<Part>,
    /// Whether the processes' output goes to our own, each line with its name in front.
    pub echo: bool,
    /// Variables for the services beside their own, to try other settings.
    pub environment: Vec<(String, String)>,
}

impl Options {
    /// A throw-away stack on free ports in `data_directory`.
    pub fn throw_away(data_directory: PathBuf) -> Self {
        Self {
            data_directory,
            ports: Ports::Free,
            replicas: 1,
            synchronous: false,
            archive: false,
            command_services: 1,
            postgres_only: false,
            without: Vec::new(),
            echo: false,
            environment: Vec::new(),
        }
    }
}

/// A running stack. Dropped without [`Stack::shutdown`] it is killed.
pub struct Stack {
    pub(crate) shared: Arc<Shared>,
    /// By seat.
    parts: BTreeMap<Part, Kept>,
    /// Of the parts that run inside the command services, those that are left out.
    left_out: Arc<Mutex<BTreeSet<Part>>>,
    pub(crate) options: Options,
    pub(crate) account: Option<Account>,
    pub(crate) postgres: Postgres,
    pub(crate) pids: Pids,
}

/// How a process is told and asked.
struct Kept {
    tell: watch::Sender<Wanted>,
    idle: watch::Receiver<bool>,
    keeper: JoinHandle<()>,
}

pub(crate) struct Shared {
    pub(crate) data: Data,
    pub(crate) seats: Seats,
    pub(crate) servers: Servers,
    nats_server: Option<PathBuf>,
}

impl Stack {
    /// Starts everything and waits until it is ready.
    ///
    /// # Errors
    /// What is missing, taken or refuses; what was started is taken down again.
    pub async fn start(options: Options) -> Result<Self, StackError> {
        if options.synchronous && options.replicas < 2 && !options.postgres_only {
            return Err(StackError::Order(
                "synchronous needs two replicas: with one, nothing could be written while it is away".to_owned(),
            ));
        }
        let account = Account::unprivileged()?;
        let mut data = Data::open(&options.data_directory, account).await?;
        let seats = Seats::open(data.path("servers.json"))?;
        let postgres = Postgres::find(postgres::data_major(&data, seats.seat(Part::Primary))).await?;
        let nats_server = if options.postgres_only { None } else { Some(installed::nats_server()?) };
        let ports = choose_ports(&mut data, &options, &seats)?;
        let synchronous = options.synchronous && !options.postgres_only;
        let archive_command = if options.archive { Some(archive::make(&data, account).await?) } else { None };
        let servers = Servers { ports, synchronous, archive_command };
        data.save_ports()?;
        postgres::write_passwords(&data, account)?;
        let pids = Pids::new(data.path("pids.json"), seats.clone())?;
        let left_out = options.without.iter().copied().filter(|part| part.is_inside()).collect();
        let left_out = Arc::new(Mutex::new(left_out));
        let shared = Arc::new(Shared { data, seats, servers, nats_server });
        let mut stack = Self { shared, parts: BTreeMap::new(), left_out, options, account, postgres, pids };
        match stack.bring_up().await {
            Ok(()) => Ok(stack),
            Err(error) => {
                stack.shutdown().await;
                Err(error)
            }
        }
    }

    async fn bring_up(&mut self) -> Result<(), StackError> {
        let port = self.port(Part::Primary);
        let primary = self.seat(Part::Primary);
        postgres::make_primary(&self.postgres, &self.shared.data, self.account, primary).await?;
        self.keep(Part::Primary, true)?;
        postgres::ready(&self.shared.data, Part::Primary, port, "postgres").await?;
        // A promotion whose supervisor was killed before its end.
        self.promote_server(port).await?;
        postgres::set_up(&self.shared.data, port).await?;
        if self.options.postgres_only {
            return Ok(());
        }
        for number in 1..=self.options.replicas {
            self.make_ready_to_follow(Part::Replica(number)).await?;
        }
        let servers: Vec<Part> =
            [Part::Nats].into_iter().chain((1..=self.options.replicas).map(Part::Replica)).collect();
        let mut services: Vec<Part> = (1..=self.options.command_services).map(Part::CommandService).collect();
        services.extend([Part::Projector, Part::QueryService]);
        for parts in [servers, services] {
            for part in &parts {
                let wanted = !self.options.without.contains(part);
                self.keep(*part, wanted)?;
            }
            for part in parts {
                if !self.options.without.contains(&part) {
                    self.ready(part).await?;
                }
            }
        }
        Ok(())
    }

    /// Sees to it that a replica has data that the primary's can be streamed to.
    pub(crate) async fn make_ready_to_follow(&self, part: Part) -> Result<(), StackError> {
        let (data, seat, port) = (&self.shared.data, self.seat(part), self.port(Part::Primary));
        if !self.needs_data(seat) {
            let client = postgres::connect_to(data, port, "postgres").await?;
            return postgres::ensure_slot(&client, seat).await;
        }
        postgres::make_replica(&self.postgres, data, self.account, seat, port).await?;
        self.shared.seats.set_anew(seat, false)
    }

    /// Whether a seat has no data, or some that must not be served.
    fn needs_data(&self, seat: Part) -> bool {
        !postgres::has_data(&self.shared.data, seat) || self.shared.seats.is_anew(seat)
    }

    /// Starts the keeper of a part.
    fn keep(&mut self, part: Part, running: bool) -> Result<(), StackError> {
        let (tell, wanted) = watch::channel(Wanted { running, round: 0 });
        let (idle, is_idle) = watch::channel(false);
        let seat = self.seat(part);
        let keeper = Keeper {
            seat,
            idle,
            log: self.shared.data.log(seat),
            echo: self.options.echo,
            pids: self.pids.clone(),
            setpriv: installed::setpriv(),
            recipe: self.recipe(part)?,
        };
        self.parts.insert(seat, Kept { tell, idle: is_idle, keeper: tokio::spawn(keeper.run(wanted)) });
        Ok(())
    }

    fn recipe(&self, part: Part) -> Result<Box<dyn Fn() -> Recipe + Send + Sync>, StackError> {
        let shared = Arc::clone(&self.shared);
        let (port, account) = (self.port(part), self.account);
        if let Some(binary) = part.binary() {
            let program = installed::service(binary)?;
            let environment = self.service_environment(part);
            let left_out = Arc::clone(&self.left_out);
            let url = |role: &str| shared.servers.role_url(&shared.data, role);
            let inside = [
                (Part::Relay, ("PROSPECTUS_RELAY_DATABASE_URL".to_owned(), url("prospectus_relay"))),
                (Part::Sealer, ("PROSPECTUS_SEALER_DATABASE_URL".to_owned(), url("prospectus_sealer"))),
            ];
            return Ok(Box::new(move || {
                let mut environment = environment.clone();
                if matches!(part, Part::CommandService(_)) {
                    let left_out = left_out.lock().unwrap_or_else(PoisonError::into_inner);
                    let there = inside.iter().filter(|(part, _)| !left_out.contains(part));
                    environment.extend(there.map(|(_, variable)| variable.clone()));
                }
                Recipe { words: vec![program.clone().into_os_string()], environment, account: None }
            }));
        }
        if part == Part::Nats {
            let program =
                shared.nats_server.clone().ok_or_else(|| StackError::Order("this stack has no NATS".to_owned()))?;
            return Ok(Box::new(move || Recipe {
                words: vec![
                    program.clone().into_os_string(),
                    "-a".into(),
                    "127.0.0.1".into(),
                    "-p".into(),
                    port.to_string().into(),
                    "-js".into(),
                    "-sd".into(),
                    shared.data.path("nats").into_os_string(),
                ],
                environment: Vec::new(),
                account,
            }));
        }
        let (program, seat) = (self.postgres.clone(), self.seat(part));
        Ok(Box::new(move || Recipe {
            words: postgres::command(
                &program,
                &shared.data,
                &shared.servers,
                seat,
                shared.seats.part(seat) == Part::Primary,
            ),
            environment: vec![("LC_ALL".to_owned(), "C.UTF-8".to_owned())],
            account,
        }))
    }

    fn service_environment(&self, part: Part) -> Vec<(String, String)> {
        let (data, servers) = (&self.shared.data, &self.shared.servers);
        let mut environment = vec![
            ("PROSPECTUS_LISTEN".to_owned(), format!("127.0.0.1:{}", self.port(part))),
            ("PROSPECTUS_KEYRING_FILE".to_owned(), data.path("keyring").display().to_string()),
            ("PROSPECTUS_NATS_URL".to_owned(), self.nats_url()),
        ];
        let role = |role: &str| servers.role_url(data, role);
        match part {
            Part::CommandService(_) => {
                environment.push(("PROSPECTUS_DATABASE_URL".to_owned(), role("prospectus_appender")));
                environment.push(("PROSPECTUS_SEAL_KEY_FILE".to_owned(), data.path("seal_key").display().to_string()));
                environment.push(("PROSPECTUS_HEADS_FILE".to_owned(), data.path("heads.ndjson").display().to_string()));
                let list = data.path(&format!("erasures-{}.ndjson", part.name()));
                environment.push(("PROSPECTUS_ERASURES_FILE".to_owned(), list.display().to_string()));
            }
            Part::Projector => environment.push(("PROSPECTUS_DATABASE_URL".to_owned(), role("prospectus_projector"))),
            _ => {
                // All of them: which are replicas, a promotion changes and the service sees. The primary is not read.
                let replicas =
                    servers.ports.iter().map(|(_, port)| postgres::role_url(data, "prospectus_query", *port));
                let replicas: Vec<String> = replicas.collect();
                environment.push(("PROSPECTUS_REPLICA_DATABASE_URLS".to_owned(), replicas.join(",")));
                environment.push(("PROSPECTUS_REPLICAS_ONLY".to_owned(), "true".to_owned()));
                environment.push(("PROSPECTUS_READS_DATABASE_URL".to_owned(), role("prospectus_reads")));
            }
        }
        environment.extend(self.options.environment.iter().cloned());
        environment
    }

    /// Where the data, port, log and keeper of a part are.
    pub(crate) fn seat(&self, part: Part) -> Part {
        self.shared.seats.seat(part)
    }

    pub(crate) fn port(&self, part: Part) -> u16 {
        self.shared.data.ports.get(&self.seat(part).name()).copied().unwrap_or(0)
    }

    fn nats_url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port(Part::Nats))
    }

    /// The directory that it lives in.
    pub fn data_directory(&self) -> &Path {
        self.shared.data.root()
    }

    /// The address of a service, as `http://127.0.0.1:port`.
    pub fn url(&self, part: Part) -> String {
        format!("http://127.0.0.1:{}", self.port(part))
    }

    /// The API key of the tenant `demo`, role admin.
    pub fn api_key(&self) -> &str {
        &self.shared.data.api_key
    }

    /// A superuser's address of the primary or a replica.
    pub fn superuser_url(&self, part: Part) -> String {
        postgres::superuser_url(&self.shared.data, self.port(part))
    }

    /// A superuser's address of whichever server takes writes, now and after a promotion.
    pub fn servers_url(&self) -> String {
        self.shared.servers.superuser_url(&self.shared.data)
    }

    /// A role's address of the primary or a replica.
    pub fn role_url(&self, role: &str, part: Part) -> String {
        postgres::role_url(&self.shared.data, role, self.port(part))
    }

    /// The log file of a process.
    pub fn log(&self, part: Part) -> PathBuf {
        self.shared.data.log(self.seat(part))
    }

    /// The variables that a command inside the stack sees.
    pub fn environment(&self) -> Vec<(String, String)> {
        let data = &self.shared.data;
        let passwords: Vec<String> =
            data.role_passwords.iter().map(|(role, password)| format!("{role}={password}")).collect();
        let mut variables = vec![
            ("PROSPECTUS_PRIMARY_URL".to_owned(), self.superuser_url(Part::Primary)),
            ("PROSPECTUS_SERVERS_URL".to_owned(), self.servers_url()),
            ("PROSPECTUS_DATA_DIR".to_owned(), data.root().display().to_string()),
            ("PROSPECTUS_ROLE_PASSWORDS".to_owned(), passwords.join(",")),
            ("PROSPECTUS_KEYRING_FILE".to_owned(), data.path("keyring").display().to_string()),
            ("PROSPECTUS_API_KEY".to_owned(), self.api_key().to_owned()),
        ];
        if self.options.archive {
            variables.extend(archive::variables(data));
        }
        if !self.options.postgres_only {
            let list = |parts: Vec<String>| parts.join(",");
            let commands = (1..=self.options.command_services).map(|number| self.url(Part::CommandService(number)));
            let replicas = (1..=self.options.replicas).map(|number| self.superuser_url(Part::Replica(number)));
            variables.extend([
                ("PROSPECTUS_COMMAND_URL".to_owned(), self.url(Part::CommandService(1))),
                ("PROSPECTUS_COMMAND_URLS".to_owned(), list(commands.collect())),
                ("PROSPECTUS_QUERY_URL".to_owned(), self.url(Part::QueryService)),
                ("PROSPECTUS_PROJECTOR_URL".to_owned(), self.url(Part::Projector)),
                ("PROSPECTUS_REPLICA_URLS".to_owned(), list(replicas.collect())),
                ("PROSPECTUS_NATS_URL".to_owned(), self.nats_url()),
            ]);
        }
        variables
    }

    /// Writes [`Stack::environment`] into a file of the data directory that a shell reads with `.`, and that only its owner may read: it holds
    /// passwords.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_environment(&self) -> Result<PathBuf, StackError> {
        let quoted = |value: &str| format!("'{}'", value.replace('\'', r"'\''"));
        let variables = self.environment();
        let lines = variables.iter().map(|(name, value)| format!("export {name}={}\n", quoted(value)));
        let path = self.shared.data.path("environment");
        write_private(&path, &lines.collect::<String>())?;
        Ok(path)
    }

    /// The process id of a part that runs.
    pub fn pid(&self, part: Part) -> Option<u32> {
        self.pids.get(self.seat(part))
    }

    /// Kills a process outright (SIGKILL), as a crash would; the supervisor starts it again.
    pub fn kill(&self, part: Part) {
        signal_child(self.pid(part), Signal::KILL);
    }

    /// Stops a part in an orderly way and holds it off.
    ///
    /// # Errors
    /// If the stack has no such part.
    pub async fn stop(&self, part: Part) -> Result<(), StackError> {
        if part.is_inside() {
            return self.switch(part, false).await;
        }
        self.stop_seat(self.seat(part)).await
    }

    /// Stops what runs in a seat; when this returns, nothing is started there until it is told to.
    pub(crate) async fn stop_seat(&self, seat: Part) -> Result<(), StackError> {
        let kept = self.kept(seat)?;
        kept.tell.send_modify(|wanted| wanted.running = false);
        let mut idle = kept.idle.clone();
        match tokio::time::timeout(READY, idle.wait_for(|idle| *idle)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(StackError::Ended),
            Err(_) => Err(self.not_ready(self.shared.seats.part(seat), "its process does not end")),
        }
    }

    /// Starts a part that was held off, and waits until it is ready.
    ///
    /// # Errors
    /// If the stack has no such part, or it does not become ready.
    pub async fn start_part(&self, part: Part) -> Result<(), StackError> {
        if part.is_inside() {
            return self.switch(part, true).await;
        }
        if matches!(part, Part::Replica(_)) && self.kept(self.seat(part)).is_ok() && self.needs_data(self.seat(part)) {
            self.make_ready_to_follow(part).await?;
        }
        self.tell(part, |wanted| wanted.running = true)?;
        self.ready(part).await
    }

    /// Stops NATS, removes all that it stored, and starts it again.
    ///
    /// # Errors
    /// If it does not stop or start.
    pub async fn wipe_nats(&self) -> Result<(), StackError> {
        self.stop(Part::Nats).await?;
        let directory = self.shared.data.path("nats");
        std::fs::remove_dir_all(&directory).map_err(StackError::io("removing what NATS stored"))?;
        std::fs::create_dir_all(&directory).map_err(StackError::io("making NATS's directory"))?;
        if let Some(account) = self.account {
            account.own(&directory)?;
        }
        self.start_part(Part::Nats).await
    }

    /// Leaves out a part that runs inside the command services, or not any more: they are started again.
    async fn switch(&self, inside: Part, on: bool) -> Result<(), StackError> {
        {
            let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
            if on {
                left_out.remove(&inside)
            } else {
                left_out.insert(inside)
            };
        }
        for number in 1..=self.options.command_services {
            let part = Part::CommandService(number);
            let before = self.pid(part);
            self.tell(part, |wanted| wanted.round += 1)?;
            self.wait_until(part, |pid| pid.is_some() && pid != before).await?;
            self.ready(part).await?;
        }
        Ok(())
    }

    fn tell(&self, part: Part, change: impl FnOnce(&mut Wanted)) -> Result<(), StackError> {
        self.kept(self.seat(part))?.tell.send_modify(change);
        Ok(())
    }

    fn kept(&self, seat: Part) -> Result<&Kept, StackError> {
        let none = || StackError::Order(format!("this stack has no {}", self.shared.seats.part(seat)));
        self.parts.get(&seat).ok_or_else(none)
    }

    async fn wait_until(&self, part: Part, is_so: impl Fn(Option<u32>) -> bool) -> Result<(), StackError> {
        let started = Instant::now();
        while !is_so(self.pid(part)) {
            if started.elapsed() > READY {
                return Err(self.not_ready(part, "its process did not do what it was told"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until a part does its job.
    ///
    /// # Errors
    /// With the end of its log, if it does not.
    pub async fn ready(&self, part: Part) -> Result<(), StackError> {
        let port = self.port(part);
        match part {
            Part::Primary | Part::Replica(_) => postgres::ready(&self.shared.data, part, port, "prospectus").await,
            Part::Relay | Part::Sealer => Ok(()),
            Part::Nats => {
                let started = Instant::now();
                while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                    if started.elapsed() > READY {
                        return Err(self.not_ready(part, "nobody listens on its port"));
                    }
                    tokio::time::sleep(LOOK).await;
                }
                Ok(())
            }
            Part::CommandService(_) | Part::Projector | Part::QueryService => {
                let started = Instant::now();
                loop {
                    let reason = match http::call(port, "GET", "/readyz", None, None).await {
                        Ok((200, _)) => return Ok(()),
                        Ok((status, body)) => format!("/readyz answers {status}: {body}"),
                        Err(error) => error.to_string(),
                    };
                    if started.elapsed() > READY {
                        return Err(self.not_ready(part, &reason));
                    }
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    fn not_ready(&self, part: Part, reason: &str) -> StackError {
        let tail = http::tail(&self.log(part));
        StackError::NotReady { part, waited: READY, reason: reason.to_owned(), tail }
    }

    /// Takes everything down in order: services, NATS, replicas, primary.
    pub async fn shutdown(mut self) {
        let rank = |part: &Part| match part {
            Part::QueryService | Part::Projector | Part::CommandService(_) | Part::Relay | Part::Sealer => 0,
            Part::Nats => 1,
            Part::Replica(_) => 2,
            Part::Primary => 3,
        };
        for step in 0..=3 {
            let seats = &self.shared.seats;
            let (now, later): (BTreeMap<Part, Kept>, _) =
                std::mem::take(&mut self.parts).into_iter().partition(|(seat, _)| rank(&seats.part(*seat)) == step);
            self.parts = later;
            // With its sender gone a keeper ends its process and itself.
            let keepers: Vec<JoinHandle<()>> = now.into_values().map(|kept| kept.keeper).collect();
            for keeper in keepers {
                if let Err(error) = keeper.await {
                    eprintln!("local-stack | a keeper broke: {error}");
                }
            }
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        for kept in self.parts.values() {
            kept.keeper.abort();
        }
    }
}

/// Gives every part its port: the one that its seat had, else the documents' one or a free one. Gives the servers with theirs.
fn choose_ports(data: &mut Data, options: &Options, seats: &Seats) -> Result<Vec<(Part, u16)>, StackError> {
    let mut parts = vec![Part::Primary];
    if !options.postgres_only {
        parts.extend((1..=options.replicas).map(Part::Replica));
    }
    let servers = parts.len();
    parts.extend([Part::Nats, Part::Projector, Part::QueryService]);
    parts.extend((1..=options.command_services).map(Part::CommandService));
    let mut ports = Vec::new();
    let mut held = Vec::new();
    for part in parts {
        let fixed = match (options.ports, part) {
            (Ports::Fixed, Part::CommandService(1)) => Some(8080),
            (Ports::Fixed, Part::QueryService) => Some(8081),
            (Ports::Fixed, Part::Projector) => Some(8082),
            _ => None,
        };
        let seat = seats.seat(part);
        let before = data.ports.get(&seat.name()).copied();
        let listener = match (fixed, before) {
            (Some(port), _) => {
                TcpListener::bind(("127.0.0.1", port)).map_err(|_| StackError::PortTaken { port, part })?
            }
            (None, Some(port)) => match TcpListener::bind(("127.0.0.1", port)) {
                Ok(listener) => listener,
                Err(_) => free_port()?,
            },
            (None, None) => free_port()?,
        };
        let port = listener.local_addr().map_err(StackError::io("finding a free port"))?.port();
        data.ports.insert(seat.name(), port);
        ports.push((seat, port));
        // Held until all are chosen, so that no two parts get the same.
        held.push(listener);
    }
    ports.truncate(servers);
    Ok(ports)
}

fn free_port() -> Result<TcpListener, StackError> {
    TcpListener::bind(("127.0.0.1", 0)).map_err(StackError::io("finding a free port"))
}
