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
