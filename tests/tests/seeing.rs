//! Seeing inside: the figures that operators are promised are in a scrape, and ready means that a process can do its job now.

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
use tests::{Client, TestStack, eventually};

/// What each service's figures must hold.
const FIGURES: &[(Part, &[&str])] = &[
    (
        Part::CommandService(1),
        &[
            "prospectus_commands_total{type=\"company.register\",outcome=\"done\"}",
            "prospectus_commands_total{type=\"company.register\",outcome=\"claim_taken\"}",
            "prospectus_commands_total{type=\"company.register\",outcome=\"invalid_fields\"}",
            "prospectus_commands_total{type=\"prospect.assign\",outcome=\"invalid_json\"}",
            "prospectus_commands_total{type=\"prospect.register\",outcome=\"invalid_fields\"}",
            "prospectus_commands_total{type=\"unknown\",outcome=\"invalid_json\"}",
            "prospectus_batches_open",
            "prospectus_append_batch_events_count",
            "prospectus_append_commit_seconds_count",
            "prospectus_append_queue_depth",
            "prospectus_relay_position",
            "prospectus_pool_connections_in_use{pool=\"database\"}",
        ],
    ),
    (
        Part::Projector,
        &["prospectus_projection_lag_events", "prospectus_projection_lag_seconds", "prospectus_projection_position"],
    ),
    (
        Part::QueryService,
        &[
            "prospectus_replica_lag_events{replica=",
            "prospectus_replica_up{replica=",
            "prospectus_pool_connections_in_use{pool=",
        ],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn figures_and_readiness_tell_the_truth() {
    let test = TestStack::start().await;
    let client = test.client();
    let body = json!({"name": "Seen", "domain": "seen.example"});
    let position = client.command(Method::POST, "/v1/companies", &body).await.position();
    client.command(Method::POST, "/v1/companies", &body).await;
    client.read("/v1/companies", Some(position)).await;
    // Refused before they are commands: on their own, and as lines of a batch.
    client.command(Method::POST, "/v1/companies", &json!({"colour": "red"})).await;
    client.command(Method::POST, "/v1/prospects/none/assign", &json!([])).await;
    let lines = "{\n{\"method\": \"POST\", \"path\": \"/v1/prospects\", \"body\": {\"colour\": \"red\"}}";
    client.try_command(Method::POST, "/v1/batch", &[], lines).await.expect("an answer");
    a_failure_has_its_reason_in_the_log(&test, &client).await;
    for (part, names) in FIGURES {
        eventually(&format!("figures of the {part}"), async || {
            let scraped = client.get_from(&test.stack.url(*part), "/metrics").await;
            let text = String::from_utf8_lossy(&scraped.bytes).into_owned();
            let missing: Vec<&&str> = names.iter().filter(|name| !text.contains(**name)).collect();
            missing.is_empty().then_some(())
        })
        .await;
    }
    let ready = async |part: Part, wanted: StatusCode| {
        eventually(&format!("the {part} answers {wanted}"), async || {
            let answer = client.get_from(&test.stack.url(part), "/readyz").await;
            (answer.status == wanted).then_some(answer)
        })
        .await
    };
    let services = [Part::CommandService(1), Part::Projector, Part::QueryService];
    for part in services {
        ready(part, StatusCode::OK).await;
    }
    // Without the primary nothing can be appended or projected; reading goes on.
    test.stack.stop(Part::Primary).await.expect("it stops");
    for part in [Part::CommandService(1), Part::Projector] {
        let answer = ready(part, StatusCode::SERVICE_UNAVAILABLE).await;
        assert_eq!(answer.json["ready"], false, "{answer:?}");
    }
    ready(Part::QueryService, StatusCode::OK).await;
    let refused = client.command(Method::POST, "/v1/companies", &json!({"name": "Late"})).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    for part in services {
        assert_eq!(client.get_from(&test.stack.url(part), "/healthz").await.status, StatusCode::OK, "{part} is alive");
    }
    test.stack.start_part(Part::Primary).await.expect("it starts");
    for part in services {
        ready(part, StatusCode::OK).await;
    }
    let again = client.command(Method::POST, "/v1/companies", &json!({"name": "Again"})).await;
    assert_eq!(again.status, StatusCode::CREATED, "{again:?}");
    test.finish().await;
}

/// Whoever has the request id of a failure finds why in the log, for a command on its own and for a line of a batch; the answer
/// does not say it.
async fn a_failure_has_its_reason_in_the_log(test: &TestStack, client: &Client) {
    let log = test.superuser(Part::Primary).await;
    let break_it =
        "ALTER TABLE log.events ADD CONSTRAINT provoked CHECK (payload::text NOT LIKE '%Unlucky%') NOT VALID";
    log.batch_execute(break_it).await.expect("a constraint that our code does not know");
    let alone = json!({"name": "Unlucky"});
    let line = json!({"method": "POST", "path": "/v1/companies", "body": alone});
    for (path, body) in [("/v1/companies", &alone), ("/v1/batch", &line)] {
        let id = uuid::Uuid::new_v4().to_string();
        let headers = [("x-request-id", id.as_str())];
        let answer = client.try_command(Method::POST, path, &headers, body.to_string()).await.expect("an answer");
        let problem = answer.json.get("body").unwrap_or(&answer.json);
        assert_eq!(problem["status"], 500, "{answer:?}");
        assert_eq!(problem["instance"], format!("urn:uuid:{id}"), "{answer:?}");
        assert!(!problem.to_string().contains("provoked"), "{answer:?}");
        eventually(&format!("the log has the reason under {id}"), async || {
            let said = std::fs::read_to_string(test.stack.log(Part::CommandService(1))).expect("its log");
            said.lines().any(|line| line.contains(&id) && line.contains("provoked")).then_some(())
        })
        .await;
    }
    log.batch_execute("ALTER TABLE log.events DROP CONSTRAINT provoked").await.expect("mended");
}
