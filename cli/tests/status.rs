//! What status calls well and what it calls stuck.

use migrations::testing::TestDatabase;

use crate::program::prospectus;

const EVENT_OF_A_MINUTE_AGO: &str = "INSERT INTO log.events VALUES
    (1, gen_random_uuid(), 'company', gen_random_uuid(), 1, gen_random_uuid(), 'CompanyRegistered', 1, '{}', '{}',
     now() - interval '1 minute')";

const STEP_OF_A_MINUTE_AGO: &str = "UPDATE read.checkpoint_steps SET updated_at = now() - interval '1 minute'";

#[tokio::test]
async fn a_projection_that_does_not_move_is_stuck_and_one_that_is_done_is_live() {
    let database = TestDatabase::new().await;
    let client = database.superuser().await;
    let empty = prospectus(&database, &["status", "--json"]).await;
    assert_eq!((empty.code, empty.json()["projections"][0]["state"].as_str()), (0, Some("live")));

    client.batch_execute(EVENT_OF_A_MINUTE_AGO).await.expect("an event");
    let early = prospectus(&database, &["status", "--json", "--stuck-after-seconds", "3600"]).await;
    assert_eq!((early.code, early.json()["projections"][0]["state"].as_str()), (0, Some("catching_up")));
    client.batch_execute(STEP_OF_A_MINUTE_AGO).await.expect("the last step");
    let stuck = prospectus(&database, &["status", "--json", "--between-ms", "10"]).await;
    assert_eq!(stuck.code, 1, "{stuck:?}");
    let projection = &stuck.json()["projections"][0];
    assert_eq!((projection["state"].as_str(), projection["lag_events"].as_i64()), (Some("stuck"), Some(1)));
    assert!(projection["lag_seconds"].as_f64().is_some_and(|seconds| seconds >= 60.0));
    let text = prospectus(&database, &["status", "--between-ms", "10"]).await;
    assert!(text.stdout.contains("STUCK: projection company_prospect"), "{text:?}");

    let apply = "INSERT INTO read.checkpoint_steps (projection, generation, step, position, epoch)
                 VALUES ('company_prospect', 1, 1, 1, '1.00000000')";
    client.batch_execute(apply).await.expect("the projector's step");
    assert_eq!(prospectus(&database, &["status"]).await.code, 0);

    // Applied but still queued for a company's prospects is not complete.
    let queue = "INSERT INTO read.fanout (projection, generation, tenant_id, company_id, position)
                 VALUES ('company_prospect', 1, gen_random_uuid(), gen_random_uuid(), 1)";
    client.batch_execute(queue).await.expect("a queued change");
    client.batch_execute(STEP_OF_A_MINUTE_AGO).await.expect("the last step");
    let behind = prospectus(&database, &["status", "--json", "--between-ms", "10"]).await;
    let projection = behind.json()["projections"][0].clone();
    assert_eq!((projection["position"].as_i64(), projection["applied_position"].as_i64()), (Some(0), Some(1)));
    assert_eq!(behind.code, 1);
}

#[tokio::test]
async fn what_cannot_be_reached_is_named() {
    let database = TestDatabase::new().await;
    // Nothing listens on a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let (replica, nats) = (format!("postgres://postgres@127.0.0.1:{port}/none"), format!("nats://127.0.0.1:{port}"));
    let answer = prospectus(&database, &["status", "--json", "--replica-urls", &replica, "--nats-url", &nats]).await;
    assert_eq!(answer.code, 1);
    let json = answer.json();
    assert_eq!(json["replicas"][0]["state"], "unreachable");
    assert_eq!(json["relay"]["state"], "unreachable");
    assert_eq!(json["stuck"].as_array().map(Vec::len), Some(2));

    let itself = prospectus(&database, &["status", "--json", "--replica-urls", &database.url()]).await;
    assert_eq!((itself.code, itself.json()["replicas"][0]["state"].as_str()), (0, Some("live")));
}

#[tokio::test]
async fn the_relay_is_as_far_as_the_last_message_in_nats() {
    let database = TestDatabase::new().await;
    let nats = Nats::start().await;
    let status =
        async || prospectus(&database, &["status", "--json", "--nats-url", &nats.url, "--between-ms", "10"]).await;
    assert_eq!(status().await.json()["relay"]["state"], "unreachable", "there is no stream yet");

    let jetstream = async_nats::jetstream::new(async_nats::connect(&nats.url).await.expect("NATS"));
    let stream = async_nats::jetstream::stream::Config {
        name: "PROSPECTUS_EVENTS".to_owned(),
        subjects: vec!["prospectus.events.>".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(stream).await.expect("the stream");
    assert_eq!(status().await.json()["relay"]["position"], 0, "an empty stream");

    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Prospectus-Position", "1");
    let published =
        jetstream.publish_with_headers("prospectus.events.t.company.CompanyRegistered", headers, "{}".into());
    published.await.expect("sent").await.expect("stored");
    database.superuser().await.batch_execute(EVENT_OF_A_MINUTE_AGO).await.expect("an event");
    let published = status().await.json();
    assert_eq!(
        (published["relay"]["position"].as_i64(), published["relay"]["state"].as_str()),
        (Some(1), Some("live"))
    );

    let second = EVENT_OF_A_MINUTE_AGO.replacen("(1,", "(2,", 1);
    database.superuser().await.batch_execute(&second).await.expect("another event");
    let behind = status().await.json();
    // It has just published something, so it goes on.
    assert_eq!(
        (behind["relay"]["lag_events"].as_i64(), behind["relay"]["state"].as_str()),
        (Some(1), Some("catching_up"))
    );

    // A message of an event that the log does not hold: the log has lost it.
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Prospectus-Position", "3");
    let lost = jetstream.publish_with_headers("prospectus.events.t.company.CompanyRegistered", headers, "{}".into());
    lost.await.expect("sent").await.expect("stored");
    let ahead = status().await;
    assert_eq!((ahead.code, &ahead.json()["lost"]), (1, &serde_json::json!(["events that relay has"])), "{ahead:?}");
}

#[tokio::test]
async fn the_sealer_is_as_far_as_its_newest_head() {
    let database = TestDatabase::new().await;
    let client = database.superuser().await;
    let status = async || prospectus(&database, &["status", "--json"]).await;
    assert!(status().await.json()["sealer"].is_null(), "nothing was ever sealed");
    client
        .batch_execute(
            "INSERT INTO log.seal_keys (key_id, public_key) VALUES ('0123456789abcdef', decode(repeat('00', 32), 'hex'));
             INSERT INTO log.tree_heads SELECT 1, gen_random_uuid(), '1.00000000', 1, decode(repeat('00', 32), 'hex'),
                 now() - interval '1 minute', '0123456789abcdef', decode(repeat('00', 64), 'hex');
             INSERT INTO read.checkpoint_steps (projection, generation, step, position, epoch)
             VALUES ('company_prospect', 1, 1, 2, '1.00000000')",
        )
        .await
        .expect("a head");
    let lost = status().await;
    assert_eq!(lost.code, 1, "it covers an event that there is not: {lost:?}");
    assert_eq!(lost.json()["lost"].as_array().map(Vec::len), Some(2), "the head and the checkpoint: {lost:?}");
    for position in [1, 2] {
        let event = EVENT_OF_A_MINUTE_AGO.replacen("(1,", &format!("({position},"), 1);
        client.batch_execute(&event).await.expect("an event");
    }
    let stuck = status().await;
    assert_eq!((stuck.code, &stuck.json()["stuck"]), (1, &serde_json::json!(["sealer"])), "{stuck:?}");
    client.batch_execute("UPDATE log.tree_heads SET signed_at = now()").await.expect("a newer head");
    let going = status().await;
    assert_eq!((going.code, going.json()["sealer"]["state"].as_str()), (0, Some("catching_up")), "{going:?}");
}

#[tokio::test]
async fn an_event_that_cannot_be_applied_is_told_with_what_to_do() {
    let database = TestDatabase::new().await;
    let client = database.superuser().await;
    client.batch_execute(EVENT_OF_A_MINUTE_AGO).await.expect("an event");
    client
        .batch_execute(
            "INSERT INTO read.projection_errors (projection, generation, position, event_position, reason, error)
             VALUES ('company_prospect', 1, 1, 1, 'event_unreadable', 'event at position 1: no such form')",
        )
        .await
        .expect("an error");
    let stopped = prospectus(&database, &["status"]).await;
    assert_eq!(stopped.code, 1);
    for said in ["HAS STOPPED at the event at position 1", "no such form", "prospectus projection skip"] {
        assert!(stopped.stdout.contains(said), "{said}: {stopped:?}");
    }
}

#[tokio::test]
async fn the_server_and_its_costs_are_shown() {
    let database = TestDatabase::new().await;
    let client = database.superuser().await;
    let open = database.superuser().await;
    open.batch_execute("BEGIN; SELECT 1").await.expect("a transaction");
    let seconds = "SELECT extract(epoch FROM clock_timestamp() - xact_start) >= 1 FROM pg_stat_activity
                   WHERE datname = current_database() AND state = 'idle in transaction'";
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !client.query_one(seconds, &[]).await.expect("the activity").get::<_, bool>(0) {
        assert!(std::time::Instant::now() < deadline, "time goes by");
    }
    let plain = prospectus(&database, &["status", "--json", "--stuck-after-seconds", "1"]).await;
    let told = plain.json();
    assert_eq!((plain.code, told["performance"].is_null(), told["backup"].is_null()), (0, true, true), "{told}");
    let long = told["long_transactions"].as_array().expect("a list");
    assert!(long.iter().any(|one| one["state"] == "idle in transaction"), "{told}");
    client
        .batch_execute(
            "INSERT INTO ops.backups (started_at, finished_at, kind, label, position, ok)
             VALUES (now() - interval '3 hours', now() - interval '2 hours', 'full', 'nightly', 7, true)",
        )
        .await
        .expect("a backup");
    let text = prospectus(&database, &["status", "--performance"]).await;
    assert!(text.stdout.contains("last backup: nightly, 2.0 hours old"), "{text:?}");
    assert!(text.stdout.contains("pg_stat_statements is not there"), "the extension is not in this database: {text:?}");
    client.batch_execute("CREATE EXTENSION pg_stat_statements").await.expect("the local stack loads it");
    prospectus(&database, &["status"]).await;
    let costs = prospectus(&database, &["status", "--performance", "--json"]).await.json();
    let statements = costs["performance"]["statements"].as_array().expect("statements");
    assert!(
        statements.iter().any(|one| one["statement"].as_str().is_some_and(|name| name.starts_with("cli::status::"))),
        "{statements:?}"
    );
    let tables = costs["performance"]["tables"].as_array().expect("tables");
    assert!(
        tables.iter().any(|one| one["table"] == "log.events" && one["index_bytes"].as_i64() > Some(0)),
        "{tables:?}"
    );
}

/// A NATS server of one test.
struct Nats {
    url: String,
    process: std::process::Child,
    directory: std::path::PathBuf,
}

impl Nats {
    async fn start() -> Self {
        let directory = std::env::temp_dir().join(format!("prospectus-cli-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&directory).expect("a directory");
        // Nothing listens on a port that was just given back, and the server takes it at once.
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let process = std::process::Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
            .arg(&directory)
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("nats-server is installed: `make setup`");
        let nats = Self { url: format!("nats://127.0.0.1:{port}"), process, directory };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while async_nats::connect(&nats.url).await.is_err() {
            assert!(std::time::Instant::now() < deadline, "NATS answers");
            tokio::task::yield_now().await;
        }
        nats
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        // Where the server is gone already, or its directory, there is nothing left to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
