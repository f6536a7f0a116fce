//! An event that a projection cannot apply: it stops there, loudly; everything else goes on; an operator leaves it out, on the record.

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::{Value, json};
use tests::{Client, TestStack, eventually, read_tables_equal_the_log, run_prospectus};

/// A figure of the projector.
async fn figure(test: &TestStack, client: &Client, name: &str) -> Option<f64> {
    let scraped = client.get_from(&test.stack.url(Part::Projector), "/metrics").await;
    let text = String::from_utf8_lossy(&scraped.bytes).into_owned();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

async fn status(test: &TestStack) -> (i32, Value) {
    let nats = test.stack.environment().into_iter().find(|(name, _)| name == "PROSPECTUS_NATS_URL").expect("NATS").1;
    let ran = run_prospectus(test, &["status", "--json", "--nats-url", &nats]).await;
    (ran.code, ran.json())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_applied_stops_its_projection_alone_until_it_is_skipped() {
    let test = TestStack::start().await;
    let client = test.client();
    let other = test.client_with(&test.tenant_key("other", "admin").await);
    let victim = client.command(Method::POST, "/v1/companies", &json!({"name": "Victim"})).await.id();
    let bystander = other.command(Method::POST, "/v1/companies", &json!({"name": "Bystander"})).await.position();
    other.read("/v1/companies", Some(bystander)).await;
    let early = run_prospectus(&test, &["projection", "skip", "--position", "1", "--reason", "none"]).await;
    assert!(early.code == 1 && early.stderr.contains("has not stopped at an event"), "{early:?}");

    let primary = test.superuser(Part::Primary).await;
    let provoke = "ALTER TABLE read_1.companies ADD CONSTRAINT provoked CHECK (name <> 'Poison')";
    primary.batch_execute(provoke).await.expect("a constraint that our code does not know");
    let path = format!("/v1/companies/{victim}");
    let bad = client.command(Method::PATCH, &path, &json!({"name": "Poison"})).await.position();
    let after = other.command(Method::POST, "/v1/companies", &json!({"name": "After"})).await.position();

    // Loudly: the figures, readiness, the API, the operator's command, the log.
    eventually("the figure names the event", async || {
        let stopped = figure(&test, &client, "prospectus_projection_stopped_at_position").await?;
        (stopped.to_string() == bad.to_string()).then_some(())
    })
    .await;
    assert_eq!(figure(&test, &client, "prospectus_projection_stuck").await, Some(1.0));
    let ready = client.get_from(&test.stack.url(Part::Projector), "/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE, "{ready:?}");
    let item = eventually("the replica tells of it", async || {
        let item = client.read("/v1/projections", None).await.json["items"][0].clone();
        (item["state"] == "stuck").then_some(item)
    })
    .await;
    assert_eq!((&item["last_error"]["position"], &item["last_error"]["stands"]), (&json!(bad), &json!(true)), "{item}");
    let (code, told) = status(&test).await;
    let projection = &told["projections"][0];
    assert_eq!((code, projection["state"].as_str()), (1, Some("stuck")), "{told}");
    let said = projection["last_error"]["error"].as_str().expect("the reason");
    assert!(said.contains("provoked") && !said.contains("Poison"), "{said}");
    let log = std::fs::read_to_string(test.stack.log(Part::Projector)).expect("its log");
    assert!(log.contains("the projection has stopped") && !log.contains("Poison"), "{log}");

    // Alone: reads go on from the read tables, commands and publication too.
    let companies = other.read("/v1/companies", None).await;
    assert_eq!((companies.status, &companies.json["items"][0]["name"]), (StatusCode::OK, &json!("Bystander")));
    eventually("relay and sealer go on", async || {
        let (_, told) = status(&test).await;
        ["relay", "sealer"]
            .iter()
            .all(|one| told[one]["position"] == after && told[one]["state"] == "live")
            .then_some(())
    })
    .await;

    // Only that event can be left out.
    for (position, why) in [(after, "has stopped at position"), (bad - 1, "has stopped at position")] {
        let position = position.to_string();
        let refused = run_prospectus(&test, &["projection", "skip", "--position", &position, "--reason", "none"]).await;
        assert!(refused.code == 1 && refused.stderr.contains(why), "{refused:?}");
    }
    let position = bad.to_string();
    let arguments = ["projection", "skip", "--json", "--position", &position, "--reason", "a test wanted it"];
    let skipped = run_prospectus(&test, &arguments).await;
    assert_eq!(skipped.code, 0, "{skipped:?}");
    assert_eq!(skipped.json()["recorded_at_position"], after + 1, "{skipped:?}");
    let read = other.read("/v1/companies", Some(after + 1)).await;
    assert_eq!(read.json["items"].as_array().map(Vec::len), Some(2), "{read:?}");
    assert_eq!(client.read(&path, None).await.json["name"], "Victim", "what it said before");
    eventually("all is well again", async || {
        let (code, told) = status(&test).await;
        (code == 0 && told["projections"][0]["state"] == "live").then_some(())
    })
    .await;
    // Done again it is not recorded again.
    assert_eq!(run_prospectus(&test, &arguments).await.code, 0);
    let listed = run_prospectus(&test, &["projection", "skipped", "--json"]).await.json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!((&listed[0]["position"], &listed[0]["reason"]), (&json!(bad), &json!("a test wanted it")), "{listed}");

    // The record goes on with its next event, and no tenant sees what operators decided.
    let healed = client.command(Method::PATCH, &path, &json!({"name": "Healed"})).await.position();
    assert_eq!(client.read(&path, Some(healed)).await.json["name"], "Healed");
    for tenant in [&client, &other] {
        let events = tenant.read("/v1/events?limit=100", Some(healed)).await;
        assert!(!events.json.to_string().contains("ProjectionPositionSkipped"), "{events:?}");
    }
    read_tables_equal_the_log(&test).await;
    test.finish().await;
}
