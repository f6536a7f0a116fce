//! What status calls well and what it calls stuck.

use migrations::testing::TestDatabase;

use crate::program::prospectus;

const EVENT_OF_A_MINUTE_AGO: &str = "INSERT INTO log.events VALUES
    (1, gen_random_uuid(), 'company', gen_random_uuid(), 1, gen_random_uuid(), 'CompanyRegistered', 1, '{}', '{}',
     now() - interval '1 minute')";

#[tokio::test]
async fn a_projection_that_does_not_move_is_stuck_and_one_that_is_done_is_live() {
    let database = TestDatabase::new().await;
    let client = database.superuser().await;
    let empty = prospectus(&database, &["status", "--json"]).await;
    assert_eq!((empty.code, empty.json()["projections"][0]["state"].as_str()), (0, Some("live")));

    client.batch_execute(EVENT_OF_A_MINUTE_AGO).await.expect("an event");
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
    assert_eq!((behind["relay"]["lag_events"].as_i64(), behind["relay"]["state"].as_str()), (Some(1), Some("stuck")));
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
