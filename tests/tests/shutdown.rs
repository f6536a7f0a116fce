//! An orderly end: what was accepted is finished, what waits is refused, nothing is half-done.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
use tests::{TestStack, eventually};

/// Writers that go on until the service has gone.
const WRITERS: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn a_command_service_told_to_end_finishes_what_it_accepted() {
    let test = TestStack::start().await;
    let client = test.client();
    let gone = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (client, gone) = (client.clone(), Arc::clone(&gone));
        writers.spawn(async move {
            let mut accepted = Vec::new();
            for number in 0.. {
                let key = format!("s{writer}-{number}");
                let body = json!({"name": key}).to_string();
                let headers = [("idempotency-key", key.as_str())];
                match client.try_command(Method::POST, "/v1/companies", &headers, body).await {
                    Ok(answer) if answer.status == StatusCode::CREATED => accepted.push((key.clone(), answer.id())),
                    Ok(answer) => assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}"),
                    // Nobody listens any more, or again not yet.
                    Err(_) => {}
                }
                if gone.load(Ordering::SeqCst) {
                    break;
                }
            }
            accepted
        });
    }
    let log = test.superuser(Part::Primary).await;
    let count = async || log.query_one("SELECT count(*) FROM log.events", &[]).await.expect("counted").get::<_, i64>(0);
    eventually("commands are under way", async || (count().await > 500).then_some(())).await;
    test.stack.stop(Part::CommandService(1)).await.expect("it ends");
    gone.store(true, Ordering::SeqCst);
    let results = writers.join_all().await;
    let written: HashMap<String, String> = log
        .query("SELECT payload -> 'profile' ->> 'name', aggregate_id::text FROM log.events", &[])
        .await
        .expect("the log can be read")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let mut accepted_count = 0;
    for (key, id) in results.iter().flatten() {
        assert_eq!(written.get(key), Some(id), "{key} was accepted");
        accepted_count += 1;
    }
    // It ended by itself, in order: nothing was written that nobody was told of.
    let untold: Vec<&String> =
        written.keys().filter(|key| !results.iter().flatten().any(|(known, _)| known == *key)).collect();
    assert!(untold.is_empty(), "of {accepted_count}: written, but its client was not told: {untold:?}");
    let said = std::fs::read_to_string(test.stack.log(Part::CommandService(1))).expect("its log");
    assert!(!said.contains("panicked"), "{said}");
    test.stack.start_part(Part::CommandService(1)).await.expect("it starts again");
    let again = client.command(Method::POST, "/v1/companies", &json!({"name": "After"})).await;
    assert_eq!(again.status, StatusCode::CREATED);
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}
