//! Databases for tests: each test has its own, migrated, on the server of `PROSPECTUS_PRIMARY_URL`, and it is gone at the end.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use tokio_postgres::{Client, NoTls};
use url::Url;

/// What the service roles' password is where the stack has set none.
const TEST_PASSWORD: &str = "test-only";

/// Serialises what is shared by every test on the server: the template and the roles' passwords.
const SETUP_LOCK: i64 = 0x7072_6f73_7465_7374;

/// The roles that can log in.
const LOGIN_ROLES: &[&str] = &[
    "prospectus_appender",
    "prospectus_relay",
    "prospectus_projector",
    "prospectus_query",
    "prospectus_sealer",
    "prospectus_verifier",
    "prospectus_operator",
    "prospectus_reads",
];

/// A migrated database of one test, dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    server: Url,
    name: String,
    passwords: HashMap<String, String>,
}

impl TestDatabase {
    /// A migrated database.
    ///
    /// # Panics
    /// If `PROSPECTUS_PRIMARY_URL` is missing or the server refuses: a test cannot go on without.
    pub async fn new() -> Self {
        let server = server();
        let client = connect(&server).await;
        let template = prepare_server(&client, &server).await;
        let passwords = passwords();
        let database = Self::named(server, passwords);
        // Creating from a template that another test is copying too is fine; nobody connects to it once it has its name.
        run(&client, &format!("CREATE DATABASE {} TEMPLATE {template}", database.name)).await;
        let own = database.superuser().await;
        // Settings and grants on a database are not copied with it; the files that make them may be run any number of times.
        run(&own, include_str!("../sql/0001_roles.sql")).await;
        run(&own, &format!("GRANT CREATE ON DATABASE {} TO prospectus_builder", database.name)).await;
        run(&own, include_str!("../sql/0011_analytics.sql")).await;
        run(&own, "UPDATE log.identity SET log_id = gen_random_uuid()").await;
        database
    }

    /// A database without anything in it, for tests of the runner.
    ///
    /// # Panics
    /// As [`TestDatabase::new`].
    pub async fn empty() -> Self {
        let server = server();
        let client = connect(&server).await;
        let database = Self::named(server, passwords());
        run(&client, &format!("CREATE DATABASE {}", database.name)).await;
        database
    }

    fn named(server: Url, passwords: HashMap<String, String>) -> Self {
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        Self { server, name, passwords }
    }

    /// The superuser's address of this database.
    pub fn url(&self) -> String {
        let mut url = self.server.clone();
        url.set_path(&self.name);
        url.into()
    }

    /// A role's address of this database, such as `prospectus_appender`'s.
    ///
    /// # Panics
    /// If the URL of the server is not one that can carry a role.
    pub fn url_for(&self, role: &str) -> String {
        let password = self.passwords.get(role).map_or(TEST_PASSWORD, String::as_str);
        let mut url = self.server.clone();
        url.set_path(&self.name);
        url.set_username(role).expect("a PostgreSQL URL has a host");
        url.set_password(Some(password)).expect("a PostgreSQL URL has a host");
        url.into()
    }

    /// A connection as the superuser.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn superuser(&self) -> Client {
        connect(&self.url().parse().expect("made from a URL")).await
    }

    /// A connection as a role.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn client_for(&self, role: &str) -> Client {
        connect(&self.url_for(role).parse().expect("made from a URL")).await
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // The test's own runtime may be ending; a thread with its own is independent of it.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let client = connect(&server).await;
                run(&client, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
            });
        })
        .join();
        assert!(dropped.is_ok() || std::thread::panicking(), "the test database {} could not be dropped", self.name);
    }
}

fn server() -> Url {
    let url = std::env::var("PROSPECTUS_PRIMARY_URL").expect(
        "PROSPECTUS_PRIMARY_URL is not set: run the tests through `make test` or `target/release/local-stack exec -- cargo test`",
    );
    url.parse().expect("PROSPECTUS_PRIMARY_URL is a URL")
}

/// Passwords that the stack has set: `role=password,role=password`.
fn passwords() -> HashMap<String, String> {
    let Ok(given) = std::env::var("PROSPECTUS_ROLE_PASSWORDS") else { return HashMap::new() };
    given
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(role, password)| (role.to_owned(), password.to_owned()))
        .collect()
}

/// Sees that the template of this code's files exists and the roles have passwords; gives the template's name.
async fn prepare_server(client: &Client, server: &Url) -> String {
    let template = format!("prospectus_template_{}", files_hash());
    client.execute("SELECT pg_advisory_lock($1)", &[&SETUP_LOCK]).await.expect("the set-up lock");
    let exists: bool = client
        .query_one("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", &[&template])
        .await
        .expect("pg_database")
        .get(0);
    if !exists {
        let building = format!("{template}_building");
        run(client, &format!("DROP DATABASE IF EXISTS {building} WITH (FORCE)")).await;
        run(client, &format!("CREATE DATABASE {building}")).await;
        let mut url = server.clone();
        url.set_path(&building);
        let (mut building_client, connection) =
            tokio_postgres::connect(url.as_str(), NoTls).await.expect("the template");
        let driver = tokio::spawn(connection);
        crate::migrate(&mut building_client).await.expect("the template migrates");
        drop(building_client);
        driver.await.expect("the connection's task").expect("the connection ends cleanly");
        if std::env::var_os("PROSPECTUS_ROLE_PASSWORDS").is_none() {
            for role in LOGIN_ROLES {
                run(client, &format!("ALTER ROLE {role} PASSWORD '{TEST_PASSWORD}'")).await;
            }
        }
        rename_when_left(client, &building, &template).await;
    }
    client.execute("SELECT pg_advisory_unlock($1)", &[&SETUP_LOCK]).await.expect("the set-up lock");
    template
}

/// Renames a database whose last session may still be going away.
async fn rename_when_left(client: &Client, from: &str, to: &str) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match client.batch_execute(&format!("ALTER DATABASE {from} RENAME TO {to}")).await {
            Ok(()) => return,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{}", crate::describe(&error)),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Names the state of every SQL file, so that an edited file makes another template.
fn files_hash() -> String {
    let mut hash = Sha256::new();
    for migration in crate::MIGRATIONS {
        hash.update(migration.sql);
    }
    for file in [
        include_str!("../sql/generation/company_prospect.sql"),
        include_str!("../sql/generation/company_prospect_indexes.sql"),
        include_str!("../sql/generation/company_prospect_access.sql"),
        include_str!("../sql/generation/company_prospect_views.sql"),
        include_str!("../sql/generation/company_prospect_analytics.sql"),
    ] {
        hash.update(file);
    }
    let digest = hash.finalize();
    let short: [u8; 8] = digest[..8].try_into().expect("a SHA-256 has 32 bytes");
    format!("{:016x}", u64::from_be_bytes(short))
}

async fn connect(url: &Url) -> Client {
    let (client, connection) = tokio_postgres::connect(url.as_str(), NoTls)
        .await
        .unwrap_or_else(|error| panic!("PostgreSQL: {}", crate::describe(&error)));
    tokio::spawn(connection);
    client
}

async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{}: {sql}", crate::describe(&error)));
}
