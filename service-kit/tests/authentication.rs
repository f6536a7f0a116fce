//! API keys against a real database.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use migrations::testing::TestDatabase;
use service_kit::auth::{ApiKey, Authenticator, Permission, Principal, protect};
use service_kit::http::Limits;
use service_kit::postgres::Database;

use crate::client::{DEADLINE, start};

const TENANT: &str = "00000000-0000-7000-8000-000000000001";

async fn key(client: &tokio_postgres::Client, role: &str) -> ApiKey {
    let key = ApiKey::generate().expect("random bytes");
    client
        .execute(
            &format!(
                "INSERT INTO access.api_keys (prefix, tenant_id, secret_sha256, role) VALUES ($1, '{TENANT}', $2, $3)"
            ),
            &[&key.prefix(), &key.secret_sha256().as_slice(), &role],
        )
        .await
        .expect("a key");
    key
}

async fn tenant(database: &TestDatabase) -> tokio_postgres::Client {
    let client = database.superuser().await;
    let insert = format!("INSERT INTO access.tenants (tenant_id, name) VALUES ('{TENANT}', 'demo')");
    client.batch_execute(&insert).await.expect("a tenant");
    client
}

fn pool(url: &str) -> deadpool_postgres::Pool {
    Database::parse(url, "test").expect("a URL").pool(2, Duration::from_secs(5)).expect("a pool")
}

fn router(authenticator: Authenticator) -> Router {
    let open = Router::new().route("/open", get(async || "open"));
    let closed = Router::new()
        .route("/who", get(async |principal: Principal| principal.tenant_id.to_string()))
        .route("/write", get(async |principal: Principal| principal.require(Permission::SendCommands).map(|()| "may")));
    open.merge(protect(closed, authenticator))
}

#[tokio::test]
async fn a_key_opens_its_tenant_and_its_roles_doors() {
    let database = TestDatabase::new().await;
    let client = tenant(&database).await;
    let reader = key(&client, "reader").await;
    let writer = key(&client, "writer").await;
    let authenticator = Authenticator::new(vec![pool(&database.url_for("prospectus_appender"))]);
    let server = start(router(authenticator), Limits::default()).await;
    let bearer = |key: &str| format!("Authorization: Bearer {key}\r\n");

    let answer = server.request("GET", "/who", &bearer(reader.expose()), b"").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, TENANT));
    let answer = server.request("GET", "/write", &bearer(reader.expose()), b"").await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("forbidden")));
    assert_eq!(server.request("GET", "/write", &bearer(writer.expose()), b"").await.status, 200);

    let other_secret = ApiKey::generate().expect("random bytes");
    let forged = format!("{}.{}", reader.prefix(), &other_secret.expose()[16..]);
    for (path, headers) in [
        ("/who", String::new()),
        ("/who", bearer("")),
        ("/who", bearer("nonsense")),
        ("/who", bearer(other_secret.expose())),
        ("/who", bearer(&forged)),
        ("/who", format!("Authorization: Basic {}\r\n", reader.expose())),
    ] {
        let answer = server.request("GET", path, &headers, b"").await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"), "{headers}");
        assert!(!answer.body.contains(other_secret.expose()));
    }
    assert_eq!(server.request("GET", "/open", "", b"").await.status, 200);
    assert_eq!(server.request("GET", "/nowhere", "", b"").await.status, 404);
}

/// What is logged, to be looked at.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic while it was held").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_names_the_tenant_of_a_refused_request() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
    // The server's tasks run on this thread.
    let _logging = tracing::subscriber::set_default(subscriber);
    let database = TestDatabase::new().await;
    let client = tenant(&database).await;
    let reader = key(&client, "reader").await;
    let authenticator = Authenticator::new(vec![pool(&database.url_for("prospectus_appender"))]);
    let server = start(router(authenticator), Limits::default()).await;
    let bearer = format!("Authorization: Bearer {}\r\n", reader.expose());
    let refused = server.request("GET", "/write", &bearer, b"").await;
    assert_eq!(refused.status, 403);
    let text = String::from_utf8(logged.0.lock().expect("no panic").clone()).expect("UTF-8");
    let id = refused.header("x-request-id");
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let line =
        lines.into_iter().find(|line| line["span"]["request_id"] == id).unwrap_or_else(|| panic!("{id}: {text}"));
    assert_eq!(line["message"], "refused");
    assert_eq!(line["tenant"], TENANT, "{line}");
    assert_eq!(line["problem"], "forbidden", "{line}");
}

#[tokio::test]
async fn a_revoked_key_is_refused_within_seconds() {
    let database = TestDatabase::new().await;
    let client = tenant(&database).await;
    let key = key(&client, "admin").await;
    let authenticator = Authenticator::new(vec![pool(&database.url_for("prospectus_query"))]);
    authenticator.authenticate(key.expose()).await.expect("valid");
    client.execute("UPDATE access.api_keys SET revoked_at = clock_timestamp()", &[]).await.expect("revoked");
    tokio::time::timeout(DEADLINE, async {
        while authenticator.authenticate(key.expose()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("it stops counting");
}

#[tokio::test]
async fn the_next_database_answers_when_the_first_does_not_and_known_keys_outlive_an_outage() {
    let database = TestDatabase::new().await;
    let client = tenant(&database).await;
    let key = key(&client, "admin").await;
    let other = self::key(&client, "admin").await;
    // Nothing listens on a port that was just given back.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let away = pool(&format!("postgres://nobody@127.0.0.1:{gone}/none"));
    let here = pool(&database.url_for("prospectus_query"));
    let authenticator = Authenticator::new(vec![away, here.clone()]);
    authenticator.authenticate(key.expose()).await.expect("the second database answers");

    here.close();
    let error = authenticator.authenticate(other.expose()).await.expect_err("nobody knows this one");
    assert_eq!(error.code().name(), "database_unavailable");
    // Past the time that a key counts without another look, so that only the outage keeps it.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(30)).await;
    tokio::time::resume();
    authenticator.authenticate(key.expose()).await.expect("known before the outage");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    assert!(authenticator.authenticate(key.expose()).await.is_err(), "not for ever");
}
