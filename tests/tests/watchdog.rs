//! What hangs is told to be stuck, by whoever looks from outside: figures, readiness, the API and `prospectus status`.

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::{Value, json};
use tests::{Client, TestStack, eventually, run_prospectus};

const PATIENCE_SECONDS: &str = "1";

/// Waits until a figure of a service is so.
async fn figure_is(test: &TestStack, client: &Client, part: Part, name: &str, wanted: f64) {
    eventually(&format!("{name} is {wanted}"), async || {
        let scraped = client.get_from(&test.stack.url(part), "/metrics").await;
        let text = String::from_utf8_lossy(&scraped.bytes).into_owned();
        let value: f64 = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())?;
        (value.total_cmp(&wanted).is_eq()).then_some(())
    })
    .await;
}

async fn stuck(test: &TestStack) -> (i32, Vec<String>) {
    let nats = test.stack.environment().into_iter().find(|(name, _)| name == "PROSPECTUS_NATS_URL").expect("NATS").1;
    let arguments =
        ["status", "--json", "--between-ms", "10", "--stuck-after-seconds", PATIENCE_SECONDS, "--nats-url", &nats];
    let ran = run_prospectus(test, &arguments).await;
    let names = ran.json()["stuck"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .map(ToOwned::to_owned)
        .collect();
    (ran.code, names)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_a_relay_and_a_sealer_that_hang_are_stuck() {
    let patience = ("PROSPECTUS_STUCK_AFTER_SECONDS".to_owned(), PATIENCE_SECONDS.to_owned());
    let test = TestStack::start_with(|options| options.environment.push(patience)).await;
    let client = test.client();
    let first = client.command(Method::POST, "/v1/companies", &json!({"name": "First"})).await.position();
    client.read("/v1/companies", Some(first)).await;
    let figures = [
        (Part::Projector, "prospectus_projection_stuck"),
        (Part::CommandService(1), "prospectus_relay_stuck"),
        (Part::CommandService(1), "prospectus_sealer_stuck"),
    ];
    for (part, name) in figures {
        figure_is(&test, &client, part, name, 0.0).await;
    }
    // Each loop waits for what does not come: a table's lock within a step, the relay's turn, a lock before a head is stored.
    let holder = test.superuser(Part::Primary).await;
    holder
        .batch_execute(
            "BEGIN; LOCK TABLE read.checkpoint_steps IN SHARE MODE; LOCK TABLE log.tree_heads IN EXCLUSIVE MODE;
             SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity AS a WHERE a.application_name = 'prospectus relay';
             SELECT pg_advisory_lock(5787213827046133841)",
        )
        .await
        .expect("the locks");
    client.command(Method::POST, "/v1/companies", &json!({"name": "Waits"})).await.position();
    for (part, name) in figures {
        figure_is(&test, &client, part, name, 1.0).await;
    }
    let ready = client.get_from(&test.stack.url(Part::Projector), "/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE, "{ready:?}");
    let commands = client.get_from(&test.stack.url(Part::CommandService(1)), "/readyz").await;
    assert_eq!(commands.status, StatusCode::OK, "commands are taken all the same: {commands:?}");
    let (code, names) = stuck(&test).await;
    assert_eq!((code, names.len()), (1, 3), "{names:?}");
    assert_eq!(client.read("/v1/projections", None).await.json["items"][0]["state"], "stuck");
    for (part, what) in
        [(Part::Projector, "projection"), (Part::CommandService(1), "relay"), (Part::CommandService(1), "sealer")]
    {
        let log = std::fs::read_to_string(test.stack.log(part)).expect("its log");
        let told = log.lines().any(|line| line.contains("stuck: no progress") && line.contains(what));
        assert!(told, "the log of {part} tells of the {what}");
    }

    holder.batch_execute("ROLLBACK; SELECT pg_advisory_unlock_all()").await.expect("the locks are let go");
    for (part, name) in figures {
        figure_is(&test, &client, part, name, 0.0).await;
    }
    eventually("nothing is stuck", async || (stuck(&test).await == (0, Vec::new())).then_some(())).await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_without_nats_is_stuck_once_something_waits() {
    let patience = ("PROSPECTUS_STUCK_AFTER_SECONDS".to_owned(), PATIENCE_SECONDS.to_owned());
    let test = TestStack::start_with(|options| options.environment.push(patience)).await;
    let client = test.client();
    let part = Part::CommandService(1);
    client.command(Method::POST, "/v1/companies", &json!({"name": "First"})).await.position();
    figure_is(&test, &client, part, "prospectus_relay_lag_events", 0.0).await;
    test.stack.stop(Part::Nats).await.expect("it stops");
    client.command(Method::POST, "/v1/companies", &json!({"name": "Waits"})).await.position();
    figure_is(&test, &client, part, "prospectus_relay_stuck", 1.0).await;
    figure_is(&test, &client, part, "prospectus_sealer_stuck", 0.0).await;
    test.stack.start_part(Part::Nats).await.expect("it starts");
    figure_is(&test, &client, part, "prospectus_relay_stuck", 0.0).await;
    test.finish().await;
}
