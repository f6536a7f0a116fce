//! A service on a free port over a database of its own, and a client.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use event_store::Keyring;
use migrations::testing::TestDatabase;
use query_service::Service;
use query_service::reads::ReadLog;
use query_service::replicas::Replicas;
use query_service::routes::router;
use query_service::streams::Streams;
use serde_json::Value;
use service_kit::auth::ApiKey;
use service_kit::http::{Limits, serve};
use service_kit::postgres::Database;
use service_kit::shutdown::{Shutdown, ShutdownTrigger};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// No answer takes longer than this, or the test fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What has done nothing for so long is stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(60);

pub const TENANT: &str = "00000000-0000-7000-8000-000000000001";
pub const OTHER_TENANT: &str = "00000000-0000-7000-8000-000000000002";

pub const KEY_FILE: &str =
    "wrap one AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nindex AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n";

pub struct Stack {
    /// Dropped with the stack, after its service.
    database: TestDatabase,
    pub client: tokio_postgres::Client,
    /// Another connection, for looking on while `client` is in a transaction.
    pub watcher: tokio_postgres::Client,
    pub replicas: Arc<Replicas>,
    pub address: std::net::SocketAddr,
    /// An admin of the first tenant.
    pub key: String,
    /// A reader of the first tenant.
    pub reader: String,
    /// An admin of the other tenant.
    pub other_key: String,
    pub trigger: ShutdownTrigger,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Status and body, without what differs from run to run.
    pub fn shown(&self) -> String {
        let mut body = self.json();
        if let Some(object) = body.as_object_mut() {
            object.remove("instance");
        }
        format!("{}\n{body:#}", self.status)
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Stack {
    pub async fn new() -> Self {
        let database = TestDatabase::new().await;
        let url = database.url_for("prospectus_query");
        Self::over(database, &[&url], None).await
    }

    pub async fn over(database: TestDatabase, urls: &[&str], fallback: Option<&str>) -> Self {
        let client = database.superuser().await;
        let mut keys = Vec::new();
        for (tenant, name) in [(TENANT, "one"), (OTHER_TENANT, "other")] {
            run(&client, &format!("INSERT INTO access.tenants (tenant_id, name) VALUES ('{tenant}', '{name}')")).await;
        }
        for (tenant, role) in [(TENANT, "admin"), (TENANT, "reader"), (OTHER_TENANT, "admin")] {
            let key = ApiKey::generate().expect("random bytes");
            let sql = format!(
                "INSERT INTO access.api_keys (prefix, tenant_id, secret_sha256, role) VALUES ($1, '{tenant}', $2, $3)"
            );
            client.execute(&sql, &[&key.prefix(), &key.secret_sha256().as_slice(), &role]).await.expect("a key");
            keys.push(key.expose().to_owned());
        }
        let watcher = database.superuser().await;
        let (trigger, shutdown) = Shutdown::new();
        let replicas = Replicas::open(urls, fallback, false, 4, &shutdown).await.expect("URLs");
        let authenticator = replicas.authenticator();
        let keyring = Keyring::parse(KEY_FILE).expect("keys");
        let reads = ReadLog::open(Some(&database.url_for("prospectus_reads"))).expect("a URL");
        let (streams, ending) = (Streams::default(), shutdown.clone());
        let service = Service {
            replicas: Arc::clone(&replicas),
            keyring,
            authenticator,
            reads,
            streams,
            stuck_after: STUCK_AFTER,
            shutdown: ending,
        };
        let router = router(Arc::new(service), Router::new()).expect("a router");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(serve(router, listener, Limits::default(), shutdown));
        let [key, reader, other_key] = keys.try_into().expect("three keys");
        Self { database, client, watcher, replicas, address, key, reader, other_key, trigger }
    }

    /// A connection of a service's role.
    pub async fn role(&self, role: &str) -> tokio_postgres::Client {
        self.database.client_for(role).await
    }

    /// The database as a service's role sees it.
    pub fn database(&self, role: &str) -> Database {
        Database::parse(&self.database.url_for(role), "query-service tests").expect("a good URL")
    }

    pub async fn sql(&self, sql: &str) {
        run(&self.client, sql).await;
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &self.key, "").await
    }

    pub async fn get_with(&self, path: &str, headers: &str) -> Answer {
        self.request("GET", path, &self.key, headers).await
    }

    pub async fn request(&self, method: &str, path: &str, key: &str, headers: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("in time").expect("an answer");
        parse(&answer)
    }

    /// Moves the live generation's checkpoint on.
    pub async fn checkpoint(&self, position: i64) {
        self.sql(&format!(
            "INSERT INTO read.checkpoint_steps (projection, generation, step, position, epoch)
             SELECT 'company_prospect', 1, max(step) + 1, {position}, '1.00000001' FROM read.checkpoint_steps"
        ))
        .await;
    }

    /// A company of the first tenant; `columns` and `values` beside those that every row has.
    pub async fn company(&self, id: &str, columns: &str, values: &str) {
        self.sql(&format!(
            "INSERT INTO read_1.companies (tenant_id, company_id, version, position, created_at, updated_at, {columns})
             VALUES ('{TENANT}', '{id}', 3, 7, '2026-01-02T03:04:05.678Z', '2026-02-03T04:05:06Z', {values})"
        ))
        .await;
    }

    /// A prospect of the first tenant.
    pub async fn prospect(&self, id: &str, columns: &str, values: &str) {
        self.sql(&format!(
            "INSERT INTO read_1.company_prospect (tenant_id, row_id, prospect_id, position, prospect_version,
                 prospect_created_at, prospect_updated_at, created_at, updated_at, {columns})
             VALUES ('{TENANT}', '{id}', '{id}', 8, 2, '2026-01-02T00:00:00Z', '2026-01-03T00:00:00Z',
                 '2026-01-02T00:00:00Z', '2026-01-03T00:00:00Z', {values})"
        ))
        .await;
    }
}

/// A port that nothing listens on: it was just given back.
pub fn dead_url() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    format!("postgres://nobody@127.0.0.1:{port}/none?sslmode=disable")
}

pub fn id(number: u32) -> String {
    format!("00000000-0000-7000-8000-{number:012}")
}

async fn run(client: &tokio_postgres::Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
}

fn parse(answer: &[u8]) -> Answer {
    let answer = std::str::from_utf8(answer).expect("UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Answer { status: status.expect("a status"), headers, body: body.to_owned() }
}
