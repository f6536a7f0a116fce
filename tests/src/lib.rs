//! What the end-to-end tests share: a stack of their own and a client of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_store::{Feed, Keyring};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use local_stack::{Options, Part, Stack};
use serde_json::Value;
use service_kit::auth::ApiKey;
use service_kit::postgres::Database;

/// How long a test waits for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A stack of a test's own, gone at the end.
pub struct TestStack {
    /// The stack.
    pub stack: Stack,
    directory: PathBuf,
}

impl TestStack {
    /// A whole stack: a replica, NATS, the three services.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A stack with other options.
    ///
    /// # Panics
    /// If it does not start: the test cannot go on.
    pub async fn start_with(change: impl FnOnce(&mut Options)) -> Self {
        let directory = std::env::temp_dir().join(format!("prospectus-test-{}", uuid::Uuid::new_v4().simple()));
        let mut options = Options::throw_away(directory.clone());
        change(&mut options);
        let stack = Stack::start(options).await.unwrap_or_else(|error| panic!("the stack does not start: {error}"));
        Self { stack, directory }
    }

    /// A client with the stack's own key, role admin.
    pub fn client(&self) -> Client {
        self.client_with(self.stack.api_key())
    }

    /// A client with another key.
    pub fn client_with(&self, key: &str) -> Client {
        Client {
            http: HttpClient::builder(TokioExecutor::new()).build_http(),
            command: self.stack.url(Part::CommandService(1)),
            query: self.stack.url(Part::QueryService),
            key: key.to_owned(),
        }
    }

    /// A superuser's connection to the primary or a replica.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn superuser(&self, part: Part) -> tokio_postgres::Client {
        Database::parse(&self.stack.superuser_url(part), "tests")
            .expect("the stack's URLs are good")
            .client()
            .await
            .expect("the server answers")
    }

    /// A new key of a role in the tenant of this name, which is made where there is none.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn tenant_key(&self, tenant: &str, role: &str) -> String {
        let primary = self.superuser(Part::Primary).await;
        let key = ApiKey::generate().expect("random numbers");
        let known = "INSERT INTO access.tenants (tenant_id, name) SELECT $1, $2
                     WHERE NOT EXISTS (SELECT FROM access.tenants WHERE name = $2)";
        primary.execute(known, &[&uuid::Uuid::now_v7(), &tenant]).await.expect("a tenant");
        let sql = "INSERT INTO access.api_keys (prefix, tenant_id, secret_sha256, role)
                   SELECT $1, tenant_id, $2, $3 FROM access.tenants WHERE name = $4";
        let made = primary.execute(sql, &[&key.prefix(), &&key.secret_sha256()[..], &role, &tenant]).await;
        assert_eq!(made.expect("a key"), 1);
        key.expose().to_owned()
    }

    /// A client with a new key of a tenant, once the replica knows it.
    ///
    /// # Panics
    /// If the database refuses.
    pub async fn client_of(&self, tenant: &str, role: &str) -> Client {
        let client = self.client_with(&self.tenant_key(tenant, role).await);
        eventually("the replica knows the key", async || {
            client.read("/v1/projections", None).await.status.is_success().then_some(())
        })
        .await;
        client
    }

    /// Where everything of the stack lies.
    pub fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// Takes the stack down in order and removes its directory.
    ///
    /// # Panics
    /// If the directory cannot be removed.
    pub async fn finish(self) {
        self.stack.shutdown().await;
        std::fs::remove_dir_all(&self.directory).expect("the stack's directory can be removed");
    }
}

/// A client of both services.
#[derive(Clone)]
pub struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    command: String,
    query: String,
    key: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as it came.
    pub bytes: Bytes,
    /// Its body as JSON; null where it is none.
    pub json: Value,
}

impl Answer {
    /// The position that a change got.
    ///
    /// # Panics
    /// If the answer is not that of a change.
    pub fn position(&self) -> i64 {
        self.json["position"].as_i64().unwrap_or_else(|| panic!("no position in {self:?}"))
    }

    /// The id of the changed record.
    ///
    /// # Panics
    /// If the answer is not that of a change.
    pub fn id(&self) -> String {
        self.json["id"].as_str().unwrap_or_else(|| panic!("no id in {self:?}")).to_owned()
    }
}

impl Client {
    /// Sends a command; an error is a broken connection.
    ///
    /// # Errors
    /// If no answer came.
    pub async fn try_command(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, hyper_util::client::legacy::Error> {
        self.send(&self.command, method, path, headers, body.into()).await
    }

    /// Sends a command.
    ///
    /// # Panics
    /// If no answer came.
    pub async fn command(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.try_command(method, path, &[], body.to_string()).await.expect("the command service answers")
    }

    /// Reads; with a position, what includes it.
    ///
    /// # Panics
    /// If no answer came.
    pub async fn read(&self, path: &str, position: Option<i64>) -> Answer {
        let position = position.map(|position| position.to_string());
        let mut headers = Vec::new();
        if let Some(position) = &position {
            headers.extend([("prospectus-min-position", position.as_str()), ("prefer", "wait=30")]);
        }
        self.send(&self.query, Method::GET, path, &headers, Bytes::new()).await.expect("the query service answers")
    }

    /// Reads with headers of one's own.
    ///
    /// # Panics
    /// If no answer came.
    pub async fn read_with(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(&self.query, method, path, headers, Bytes::new()).await.expect("the query service answers")
    }

    /// Gets a page of some service.
    ///
    /// # Panics
    /// If no answer came.
    pub async fn get_from(&self, base: &str, path: &str) -> Answer {
        self.send(base, Method::GET, path, &[], Bytes::new()).await.expect("the service answers")
    }

    /// The same client with its commands going to another command service.
    #[must_use]
    pub fn to(&self, stack: &Stack, part: Part) -> Self {
        Self { command: stack.url(part), ..self.clone() }
    }

    /// The same client of another stack that has the same keys.
    #[must_use]
    pub fn to_stack(&self, stack: &Stack) -> Self {
        Self { command: stack.url(Part::CommandService(1)), query: stack.url(Part::QueryService), ..self.clone() }
    }

    async fn send(
        &self,
        base: &str,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, hyper_util::client::legacy::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header("authorization", format!("Bearer {}", self.key));
        if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).expect("a good request");
        let answer = self.http.request(request).await?;
        let (head, body) = answer.into_parts();
        let bytes = body.collect().await.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes);
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Answer { status: head.status, headers: head.headers, bytes, json })
    }
}

/// Looks again and again until `look` finds something, for at most [`PATIENCE`].
///
/// # Panics
/// If it does not come.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "it did not come: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// I5: what the replica's read tables show is the fold of the log, and every claim and match belongs to a record's state.
///
/// # Panics
/// With the first differences, if there are any.
pub async fn read_tables_equal_the_log(test: &TestStack) {
    let database = |part: Part| {
        Database::parse(&test.stack.role_url("prospectus_verifier", part), "tests").expect("the stack's URLs are good")
    };
    let keys = std::fs::read_to_string(test.directory().join("keyring")).expect("the stack's keys");
    let keyring = Arc::new(Keyring::parse(&keys).expect("good keys"));
    let (log, replica) = (database(Part::Primary), database(Part::Replica(1)));
    let head = Feed::open(&log).await.expect("the log opens").head().await.expect("a head").position;
    let report = eventually("the replica is at the head", async || {
        let report =
            projector::verify::verify(&log, &replica, &keyring, PATIENCE).await.expect("both sides can be read");
        (report.position >= head).then_some(report)
    })
    .await;
    assert_eq!(report.differences, 0, "of {} rows: {:#?}", report.rows, report.first);
    assert!(report.rows > 0);
    let claims = projector::verify::verify_claims(&log, &keyring).await.expect("claims can be read");
    assert_eq!(claims.differences, 0, "{:#?}", claims.first);
}

/// What a run of `prospectus` answered.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Ran {
    /// What it printed, as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// `prospectus`, to be started with the environment that it has on the stack, and nothing else of ours.
///
/// # Panics
/// If this test does not know where it lies.
pub fn prospectus(test: &TestStack, arguments: &[&str]) -> tokio::process::Command {
    let mut command = program("prospectus");
    command
        .env("PROSPECTUS_PRIMARY_URL", test.stack.superuser_url(Part::Primary))
        .env("PROSPECTUS_COMMAND_URL", test.stack.url(Part::CommandService(1)))
        .env("PROSPECTUS_API_KEY", test.stack.api_key())
        .env("PROSPECTUS_KEYRING_FILE", test.directory().join("keyring"))
        .args(arguments);
    command
}

/// A program of ours, with nothing of this process's environment that it would read.
///
/// # Panics
/// If this test does not know where it lies.
pub fn program(name: &str) -> tokio::process::Command {
    let own = std::env::current_exe().expect("this test's own path");
    let directory = std::env::var_os("PROSPECTUS_BIN_DIR")
        .map_or_else(|| own.ancestors().nth(2).expect("tests lie in target/release/deps").to_owned(), PathBuf::from);
    let mut command = tokio::process::Command::new(directory.join(name));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PROSPECTUS_") {
            command.env_remove(name);
        }
    }
    command.kill_on_drop(true);
    command
}

/// Runs `prospectus` to its end.
///
/// # Panics
/// If it cannot be started.
pub async fn run_prospectus(test: &TestStack, arguments: &[&str]) -> Ran {
    ran(prospectus(test, arguments)).await
}

/// Runs a command to its end.
///
/// # Panics
/// If it cannot be started.
pub async fn ran(mut command: tokio::process::Command) -> Ran {
    let output = command
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .expect("the program runs: `cargo build --release --bins`");
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}
