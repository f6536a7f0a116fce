//! Making and starting PostgreSQL's data directories, and what the project needs in the database.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use service_kit::auth::ApiKey;
use service_kit::postgres::Database;
use tokio::process::Command;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::account::Account;
use crate::data::Data;
use crate::error::StackError;
use crate::installed::Postgres;
use crate::part::Part;

/// How long a server may take to come up.
const READY: Duration = Duration::from_secs(60);
/// Between two looks at something that is coming up.
const LOOK: Duration = Duration::from_millis(15);
/// The database of the stack.
const DATABASE: &str = "prospectus";

/// Settings of every server of the stack. Durability stays on; nothing that a statement holds is logged.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=300",
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "wal_level=replica",
    "max_wal_size=4GB",
    "wal_keep_size=0",
    "max_slot_wal_keep_size=16GB",
    "checkpoint_timeout=10min",
    "jit=off",
    // What statements cost, for `prospectus status --performance`; not those that may hold a password.
    "shared_preload_libraries=pg_stat_statements",
    "pg_stat_statements.track_utility=off",
    "random_page_cost=1.1",
    // A replica's long query holds back the primary's vacuum rather than being cancelled.
    "hot_standby_feedback=on",
    "max_standby_streaming_delay=5s",
    "wal_receiver_status_interval=1s",
    // After a promotion the other replicas find the new primary within this time.
    "wal_retrieve_retry_interval=100ms",
    // A constraint's detail would print a row, which may be personal.
    "log_error_verbosity=terse",
    "log_min_error_statement=panic",
    "log_parameter_max_length=0",
    "log_parameter_max_length_on_error=0",
    "log_statement=none",
    "log_checkpoints=off",
];

/// The servers of a stack, whichever of them is the primary.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    /// Their seats and ports.
    pub(crate) ports: Vec<(Part, u16)>,
    /// Whether a commit waits until one standby has flushed it.
    pub(crate) synchronous: bool,
    /// The `archive_command`, where the write-ahead log is archived.
    pub(crate) archive_command: Option<String>,
}

impl Servers {
    /// The URL of whichever of them takes writes, for a role of ours.
    pub(crate) fn role_url(&self, data: &Data, role: &str) -> String {
        let password = data.role_passwords.get(role).map_or("", String::as_str);
        self.url(role, password)
    }

    /// The URL of whichever of them takes writes, for the superuser.
    pub(crate) fn superuser_url(&self, data: &Data) -> String {
        self.url("postgres", &data.superuser_password)
    }

    fn url(&self, role: &str, password: &str) -> String {
        let hosts: Vec<String> = self.ports.iter().map(|(_, port)| format!("127.0.0.1:{port}")).collect();
        let only = if hosts.len() > 1 { "?target_session_attrs=read-write" } else { "" };
        format!("postgres://{role}:{password}@{}/{DATABASE}{only}", hosts.join(","))
    }

    /// What a standby in this seat connects to: whichever of the others is the primary.
    fn primary_conninfo(&self, data: &Data, seat: Part) -> String {
        let others: Vec<u16> = self.ports.iter().filter(|(other, _)| *other != seat).map(|(_, port)| *port).collect();
        let hosts = vec!["127.0.0.1"; others.len()].join(",");
        let ports: Vec<String> = others.iter().map(ToString::to_string).collect();
        format!(
            "host={hosts} port={} user=postgres passfile='{}' application_name={} target_session_attrs=read-write \
             connect_timeout=3",
            ports.join(","),
            data.path(PASSWORDS).display(),
            seat.name()
        )
    }
}

/// The file that standbys and PostgreSQL's programs read the superuser's password from, so that it is in no command line.
const PASSWORDS: &str = "pgpass";

/// Writes the password file.
pub(crate) fn write_passwords(data: &Data, account: Option<Account>) -> Result<(), StackError> {
    let path = data.path(PASSWORDS);
    crate::data::write_private(&path, &format!("127.0.0.1:*:*:postgres:{}\n", data.superuser_password))?;
    account.map_or(Ok(()), |account| account.own(&path))
}

/// The URL of a server for its superuser.
pub(crate) fn superuser_url(data: &Data, port: u16) -> String {
    format!("postgres://postgres:{}@127.0.0.1:{port}/{DATABASE}", data.superuser_password)
}

/// The URL of a server for a role of ours.
pub(crate) fn role_url(data: &Data, role: &str, port: u16) -> String {
    let password = data.role_passwords.get(role).map_or("", String::as_str);
    format!("postgres://{role}:{password}@127.0.0.1:{port}/{DATABASE}")
}

/// The data directory of a seat.
pub(crate) fn directory(data: &Data, seat: Part) -> PathBuf {
    data.path(&seat.name())
}

/// The major version that made a data directory, if there is one.
pub(crate) fn data_major(data: &Data, primary: Part) -> Option<u32> {
    let version = fs::read_to_string(directory(data, primary).join("PG_VERSION")).ok()?;
    version.trim().parse().ok()
}

/// The command that runs the server of a seat. Whether it is a standby says `standby.signal` in its directory; as one it follows
/// whichever server is the primary.
pub(crate) fn command(
    postgres: &Postgres,
    data: &Data,
    servers: &Servers,
    seat: Part,
    is_primary: bool,
) -> Vec<std::ffi::OsString> {
    let mut words = vec![postgres.program("postgres").into_os_string()];
    words.push("-D".into());
    words.push(directory(data, seat).into_os_string());
    let shared_buffers = if is_primary { "shared_buffers=512MB" } else { "shared_buffers=256MB" };
    let mut settings: Vec<String> = SETTINGS.iter().copied().chain([shared_buffers]).map(ToOwned::to_owned).collect();
    if servers.ports.len() > 1 {
        settings.push(format!("primary_conninfo={}", servers.primary_conninfo(data, seat)));
        settings.push(format!("primary_slot_name={}", seat.name()));
    }
    if servers.synchronous {
        let names: Vec<String> = servers.ports.iter().map(|(seat, _)| seat.name()).collect();
        settings.push(format!("synchronous_standby_names=ANY 1 ({})", names.join(", ")));
    }
    if let Some(command) = &servers.archive_command {
        // Standbys too: what a primary had no time to archive is archived by whoever takes its place.
        settings.push("archive_mode=always".to_owned());
        settings.push(format!("archive_command={command}"));
        // What is written last is archived within this time too.
        settings.push("archive_timeout=60s".to_owned());
    }
    for setting in settings {
        words.push("-c".into());
        words.push(setting.into());
    }
    words.push("-p".into());
    let port = servers.ports.iter().find(|(other, _)| *other == seat).map_or(0, |(_, port)| *port);
    words.push(port.to_string().into());
    words
}

/// Makes the primary's data directory, unless it is there.
pub(crate) async fn make_primary(
    postgres: &Postgres,
    data: &Data,
    account: Option<Account>,
    seat: Part,
) -> Result<(), StackError> {
    let directory = directory(data, seat);
    if directory.join("PG_VERSION").exists() {
        return Ok(());
    }
    make_directory(&directory, account)?;
    let password_file = data.path("password");
    crate::data::write_private(&password_file, &data.superuser_password)?;
    if let Some(account) = account {
        account.own(&password_file)?;
    }
    let mut command = Command::new(postgres.program("initdb"));
    command.arg("-D").arg(&directory).args([
        "-U",
        "postgres",
        "-k",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
        "-A",
        "scram-sha-256",
    ]);
    command.arg("--pwfile").arg(&password_file);
    let made = run("initdb", command, account).await;
    fs::remove_file(&password_file).map_err(StackError::io("removing the password file"))?;
    made?;
    let access = "# Made by local-stack\nhost all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n";
    fs::write(directory.join("pg_hba.conf"), access).map_err(StackError::io("writing pg_hba.conf"))
}

/// Whether a seat has data.
pub(crate) fn has_data(data: &Data, seat: Part) -> bool {
    directory(data, seat).join("PG_VERSION").exists()
}

/// Makes a replica's data directory from the running primary, whatever was in it.
pub(crate) async fn make_replica(
    postgres: &Postgres,
    data: &Data,
    account: Option<Account>,
    seat: Part,
    primary_port: u16,
) -> Result<(), StackError> {
    let directory = directory(data, seat);
    make_directory(&directory, account)?;
    let slot = seat.name();
    let client = connect_to(data, primary_port, "postgres").await?;
    // Its place is that of the data that is gone.
    let drop_slot =
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active";
    client.execute(drop_slot, &[&slot]).await.map_err(StackError::database("dropping a replication slot"))?;
    ensure_slot(&client, seat).await?;
    let source = source(data, primary_port, &slot);
    let mut command = Command::new(postgres.program("pg_basebackup"));
    command.arg("-D").arg(&directory).args(["-S", &slot, "-X", "stream", "-c", "fast", "-d", &source]);
    run("pg_basebackup", command, account).await?;
    mark_standby(data, account, seat)
}

/// Makes a standby of a server that was the primary, by rewinding its files to where the new primary's began to differ. Fails where that
/// cannot be done any more; its data are of no use then.
pub(crate) async fn rewind(
    postgres: &Postgres,
    data: &Data,
    account: Option<Account>,
    seat: Part,
    primary_port: u16,
) -> Result<(), StackError> {
    let directory = directory(data, seat);
    // A server that did not end in order must recover first, which one that is marked as a standby refuses to do alone. pg_rewind would see
    // to it, but not where recovery was itself cut off in order: it takes that for a standby that had nothing of its own, and rewinds nothing.
    remove_standby_mark(data, seat)?;
    let mut recover = Command::new(postgres.program("postgres"));
    recover.arg("--single").arg("-D").arg(&directory).arg("template1").stdin(std::process::Stdio::null());
    run("postgres --single", recover, account).await?;
    let mut command = Command::new(postgres.program("pg_rewind"));
    command.arg("-D").arg(&directory).arg("--source-server").arg(source(data, primary_port, "pg_rewind"));
    run("pg_rewind", command, account).await?;
    mark_standby(data, account, seat)
}

/// Makes the server of a seat start as a standby and nothing else.
pub(crate) fn mark_standby(data: &Data, account: Option<Account>, seat: Part) -> Result<(), StackError> {
    let path = directory(data, seat).join("standby.signal");
    fs::write(&path, "").map_err(StackError::io(format!("writing {}", path.display())))?;
    account.map_or(Ok(()), |account| account.own(&path))
}

/// Lets the server of a seat start as a primary.
pub(crate) fn remove_standby_mark(data: &Data, seat: Part) -> Result<(), StackError> {
    let path = directory(data, seat).join("standby.signal");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StackError::io(format!("removing {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

/// What a standby needs on the primary: a slot, so that the primary keeps what the standby has not received.
pub(crate) async fn ensure_slot(primary: &Client, seat: Part) -> Result<(), StackError> {
    let make = "SELECT pg_create_physical_replication_slot($1::text, true)
         WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1::text)";
    let made = primary.execute(make, &[&seat.name()]).await;
    made.map(|_| ()).map_err(StackError::database("making a replication slot"))
}

fn source(data: &Data, port: u16, application_name: &str) -> String {
    format!(
        "host=127.0.0.1 port={port} user=postgres dbname=postgres passfile='{}' application_name={application_name}",
        data.path(PASSWORDS).display()
    )
}

fn make_directory(directory: &Path, account: Option<Account>) -> Result<(), StackError> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .map_err(StackError::io(format!("removing the unfinished {}", directory.display())))?;
    }
    // PostgreSQL takes a directory only if nobody else can read it.
    fs::DirBuilder::new()
        .mode(0o700)
        .create(directory)
        .map_err(StackError::io(format!("making {}", directory.display())))?;
    account.map_or(Ok(()), |account| account.own(directory))
}

async fn run(program: &str, mut command: Command, account: Option<Account>) -> Result<(), StackError> {
    if let Some(account) = account {
        account.run(&mut command);
    }
    let output = command
        .current_dir("/")
        .kill_on_drop(true)
        .output()
        .await
        .map_err(StackError::io(format!("running {program}")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let end: Vec<&str> = text.lines().rev().take(5).collect();
    Err(StackError::Program {
        program: program.to_owned(),
        output: end.into_iter().rev().collect::<Vec<_>>().join("; "),
    })
}

/// A superuser's connection. What the stack itself writes does not wait for standbys: where they are not there yet, it makes them.
async fn connect(url: &str) -> Result<Client, StackError> {
    let database = Database::parse(url, "local-stack")
        .map_err(|error| StackError::Database { what: "connecting".to_owned(), message: error.to_string() })?;
    database.with_option("synchronous_commit", "local").client().await.map_err(StackError::database("connecting"))
}

/// A superuser's connection to a database of the server at a port.
pub(crate) async fn connect_to(data: &Data, port: u16, database: &str) -> Result<Client, StackError> {
    connect(&superuser_url(data, port).replace(DATABASE, database)).await
}

/// Waits until a server answers.
pub(crate) async fn ready(data: &Data, part: Part, port: u16, database: &str) -> Result<(), StackError> {
    let started = Instant::now();
    let url = superuser_url(data, port).replace(DATABASE, database);
    loop {
        let answer =
            async { connect(&url).await?.simple_query("SELECT 1").await.map_err(StackError::database("asking")) };
        match answer.await {
            Ok(_) => return Ok(()),
            Err(error) if started.elapsed() > READY => {
                return Err(StackError::NotReady {
                    part,
                    waited: READY,
                    reason: error.to_string(),
                    tail: crate::http::tail(&data.log(part)),
                });
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// The database, the migrations, the roles' passwords, and the tenant `demo` with its key.
pub(crate) async fn set_up(data: &Data, port: u16) -> Result<(), StackError> {
    let server = connect(&superuser_url(data, port).replace(DATABASE, "postgres")).await?;
    let there = server
        .query_opt("SELECT FROM pg_database WHERE datname = $1", &[&DATABASE])
        .await
        .map_err(StackError::database("looking for the database"))?;
    if there.is_none() {
        let create = format!("CREATE DATABASE {DATABASE}");
        server.batch_execute(&create).await.map_err(StackError::database("making the database"))?;
    }
    let mut client = connect(&superuser_url(data, port)).await?;
    migrations::migrate(&mut client)
        .await
        .map_err(|error| StackError::Database { what: "migrating".to_owned(), message: error.to_string() })?;
    let counted = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements";
    client.batch_execute(counted).await.map_err(StackError::database("making the extension pg_stat_statements"))?;
    for (role, password) in &data.role_passwords {
        // Both are ours: a fixed name, and letters, digits, - and _.
        let set = format!("ALTER ROLE {role} PASSWORD '{password}'");
        client.batch_execute(&set).await.map_err(StackError::database("setting a role's password"))?;
    }
    let key = ApiKey::parse(&data.api_key)
        .ok_or_else(|| StackError::DataDirectory("the API key in secrets.json is not one".to_owned()))?;
    let tenant = "WITH made AS (INSERT INTO access.tenants (tenant_id, name) VALUES ($1, 'demo') ON CONFLICT DO NOTHING RETURNING tenant_id)
         SELECT tenant_id FROM made UNION ALL SELECT tenant_id FROM access.tenants WHERE name = 'demo'";
    let tenant: Uuid = client
        .query_one(tenant, &[&Uuid::now_v7()])
        .await
        .map_err(StackError::database("making the tenant demo"))?
        .get(0);
    let insert = "INSERT INTO access.api_keys (prefix, tenant_id, secret_sha256, role, name)
         VALUES ($1, $2, $3, 'admin', 'local stack') ON CONFLICT DO NOTHING";
    client
        .execute(insert, &[&key.prefix(), &tenant, &&key.secret_sha256()[..]])
        .await
        .map_err(StackError::database("making the key of the tenant demo"))?;
    Ok(())
}
