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
    // A constraint's detail would print a row, which may be personal.
    "log_error_verbosity=terse",
    "log_min_error_statement=panic",
    "log_parameter_max_length=0",
    "log_parameter_max_length_on_error=0",
    "log_statement=none",
    "log_checkpoints=off",
];

/// The URL of a server for its superuser.
pub(crate) fn superuser_url(data: &Data, port: u16) -> String {
    format!("postgres://postgres:{}@127.0.0.1:{port}/{DATABASE}", data.superuser_password)
}

/// The URL of a server for a role of ours.
pub(crate) fn role_url(data: &Data, role: &str, port: u16) -> String {
    let password = data.role_passwords.get(role).map_or("", String::as_str);
    format!("postgres://{role}:{password}@127.0.0.1:{port}/{DATABASE}")
}

/// The data directory of a server.
pub(crate) fn directory(data: &Data, part: Part) -> PathBuf {
    data.path(&part.name())
}

/// The major version that made a data directory, if there is one.
pub(crate) fn data_major(data: &Data) -> Option<u32> {
    let version = fs::read_to_string(directory(data, Part::Primary).join("PG_VERSION")).ok()?;
    version.trim().parse().ok()
}

/// The command that runs a server.
pub(crate) fn command(postgres: &Postgres, data: &Data, part: Part, port: u16) -> Vec<std::ffi::OsString> {
    let mut words = vec![postgres.program("postgres").into_os_string()];
    words.push("-D".into());
    words.push(directory(data, part).into_os_string());
    let shared_buffers = if part == Part::Primary { "shared_buffers=512MB" } else { "shared_buffers=256MB" };
    for setting in SETTINGS.iter().copied().chain([shared_buffers]) {
        words.push("-c".into());
        words.push(setting.into());
    }
    words.push("-p".into());
    words.push(port.to_string().into());
    words
}

/// Makes the primary's data directory, unless it is there.
pub(crate) async fn make_primary(postgres: &Postgres, data: &Data, account: Option<Account>) -> Result<(), StackError> {
    let directory = directory(data, Part::Primary);
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

/// Makes a replica's data directory from the running primary, unless it is there.
pub(crate) async fn make_replica(
    postgres: &Postgres,
    data: &Data,
    account: Option<Account>,
    part: Part,
    primary_port: u16,
) -> Result<(), StackError> {
    let directory = directory(data, part);
    if directory.join("PG_VERSION").exists() {
        return Ok(());
    }
    make_directory(&directory, account)?;
    let slot = part.name();
    let client = connect(&superuser_url(data, primary_port).replace(DATABASE, "postgres")).await?;
    // Left by an attempt that did not get to the end.
    let drop_slot =
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active";
    client.execute(drop_slot, &[&slot]).await.map_err(StackError::database("dropping a replication slot"))?;
    let url = format!(
        "postgres://postgres:{}@127.0.0.1:{primary_port}/postgres?application_name={slot}",
        data.superuser_password
    );
    let mut command = Command::new(postgres.program("pg_basebackup"));
    command.arg("-D").arg(&directory).args(["-R", "-C", "-S", &slot, "-X", "stream", "-c", "fast", "-d", &url]);
    run("pg_basebackup", command, account).await
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

async fn connect(url: &str) -> Result<Client, StackError> {
    let database = Database::parse(url, "local-stack")
        .map_err(|error| StackError::Database { what: "connecting".to_owned(), message: error.to_string() })?;
    database.client().await.map_err(StackError::database("connecting"))
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
