//! What is counted, through the whole stack: refreshed by the projector on the primary, read from the replica.

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::{Value, json};
use tests::{Client, TestStack, read_tables_equal_the_log};

async fn made(client: &Client, path: &str, fields: Value) -> (String, i64) {
    let answer = client.command(Method::POST, path, &fields).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    (answer.id(), answer.position())
}

/// A figure of the overview that includes a position.
async fn figure(client: &Client, name: &str, position: i64) -> Value {
    let answer = client.read("/v1/analytics/reports/overview", Some(position)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert!(answer.json["as_of"]["position"].as_i64() >= Some(position), "{answer:?}");
    let items = answer.json["items"].as_array().expect("items");
    items.iter().find(|item| item["figure"] == name).expect("the figure")["count"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_follow_the_log_on_the_replica_and_those_of_erased_persons_at_once() {
    // So long that nothing is counted for its age within this test.
    let test = TestStack::start_with(|options| {
        options.environment.push(("PROSPECTUS_REFRESH_EVENTS".into(), "10".into()));
        options.environment.push(("PROSPECTUS_REFRESH_SECONDS".into(), "86400".into()));
    })
    .await;
    let client = test.client();
    let other = test.client_with(&test.tenant_key("other", "admin").await);
    let (company, _) =
        made(&client, "/v1/companies", json!({"name": "Acme", "industry": "Steel", "country": "GB"})).await;
    let mut last = (String::new(), 0);
    for number in 0..9 {
        let company = (number < 6).then_some(&company);
        last = made(&client, "/v1/prospects", json!({"last_name": format!("L{number}"), "company_id": company})).await;
    }
    assert_eq!(figure(&client, "prospects", last.1).await, 9);
    assert_eq!(figure(&client, "prospects_with_company", last.1).await, 6);
    assert_eq!(figure(&other, "prospects", last.1).await, 0, "another tenant's are its own");
    // One event more is not enough; an erasure is.
    let erased = client
        .command(Method::POST, &format!("/v1/prospects/{}/erase", last.0), &json!({"reason": "request 4711"}))
        .await;
    assert_eq!(erased.status, StatusCode::OK, "{erased:?}");
    assert_eq!(figure(&client, "prospects", erased.position()).await, 8);
    let csv = client.read_with(Method::GET, "/v1/analytics/reports/industries", &[("accept", "text/csv")]).await;
    assert_eq!(csv.status, StatusCode::OK);
    let replica = test.superuser(Part::Replica(1)).await;
    let counted: i64 =
        replica.query_one("SELECT position FROM read_1.stats_as_of", &[]).await.expect("the view").get(0);
    assert!(counted >= erased.position(), "it is on the replica");
    read_tables_equal_the_log(&test).await;
    test.finish().await;
}
