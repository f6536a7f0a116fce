//! Seeing inside: the figures that operators are promised are in a scrape, and ready means that a process can do its job now.

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
use tests::{TestStack, eventually};

/// What each service's figures must hold.
const FIGURES: &[(Part, &[&str])] = &[
    (
        Part::CommandService(1),
        &[
            "prospectus_commands_total{type=\"company.register\",outcome=\"done\"}",
            "prospectus_commands_total{type=\"company.register\",outcome=\"claim_taken\"}",
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
