//! I2: what was acknowledged is there once, whatever dies meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
use tests::{Client, TestStack, eventually};

/// Writers that go on until told to stop; each command has an idempotency key and is sent until it is answered. Gives the id that
/// each key was answered with.
pub(crate) fn write(
    client: &Client,
    writers: usize,
    stop: &Arc<AtomicBool>,
) -> tokio::task::JoinSet<Vec<(String, String)>> {
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let (client, stop) = (client.clone(), Arc::clone(stop));
        tasks.spawn(async move {
            let mut acknowledged = Vec::new();
            let mut number = 0;
            while !stop.load(Ordering::SeqCst) {
                number += 1;
                let key = format!("w{writer}-{number}");
                let body = json!({"name": key, "domain": format!("{key}.example")}).to_string();
                let headers = [("idempotency-key", key.as_str())];
                let answer = loop {
                    match client.try_command(Method::POST, "/v1/companies", &headers, body.clone()).await {
                        Ok(answer) if answer.status == StatusCode::CREATED => break answer,
                        Ok(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE => {}
                        Ok(answer) => panic!("{key}: {answer:?}"),
                        // The service is dead or was killed with the answer on its way.
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                };
                acknowledged.push((key, answer.id()));
            }
            acknowledged
        });
    }
    tasks
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_command_is_there_once_after_kills() {
    let test = TestStack::start().await;
    let client = test.client();
    let stop = Arc::new(AtomicBool::new(false));
    let writers = write(&client, 8, &stop);
    let head = async |log: &tokio_postgres::Client| -> Option<i64> {
        Some(log.query_one("SELECT position FROM log.head", &[]).await.ok()?.get(0))
    };
    let mut victims = vec![Part::CommandService(1); 10];
    for at in [3, 7, 11] {
        victims.insert(at, Part::Primary);
    }
    for victim in victims {
        // Kill in the midst of work: after at least 50 more events.
        let before = eventually("the log can be read", async || head(&try_connect(&test).await?).await).await;
        eventually("more events", async || head(&try_connect(&test).await?).await.filter(|now| *now >= before + 50))
            .await;
        let pid = test.stack.pid(victim);
        test.stack.kill(victim);
        eventually("a new process", async || test.stack.pid(victim).filter(|now| Some(*now) != pid)).await;
    }
    stop.store(true, Ordering::SeqCst);
    let acknowledged: Vec<(String, String)> = writers.join_all().await.concat();
    test.stack.ready(Part::Primary).await.expect("the primary is back");
    let found = every_one_is_there_once(&test, &acknowledged).await;
    // Sent again, the keys give the first answers and change nothing.
    for (key, id) in acknowledged.iter().step_by(37) {
        let body = json!({"name": key, "domain": format!("{key}.example")}).to_string();
        let headers = [("idempotency-key", key.as_str())];
        let answer = client.try_command(Method::POST, "/v1/companies", &headers, body).await.expect("an answer");
        assert_eq!((answer.status, &answer.id()), (StatusCode::CREATED, id));
    }
    let log = test.superuser(Part::Primary).await;
    let events: i64 = log.query_one("SELECT count(*) FROM log.events", &[]).await.expect("counted").get(0);
    assert_eq!(usize::try_from(events).expect("positive"), found);
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}

async fn try_connect(test: &TestStack) -> Option<tokio_postgres::Client> {
    let url = test.stack.superuser_url(Part::Primary);
    service_kit::postgres::Database::parse(&url, "tests").ok()?.client().await.ok()
}

/// Every acknowledged command is in the log once, with the id that was answered, and the log has no hole. Gives how many events there are.
pub(crate) async fn every_one_is_there_once(test: &TestStack, acknowledged: &[(String, String)]) -> usize {
    let log = test.superuser(Part::Primary).await;
    let rows = log
        .query(
            "SELECT payload -> 'profile' ->> 'name', aggregate_id::text, position FROM log.events ORDER BY position",
            &[],
        )
        .await
        .expect("the log can be read");
    let mut found: HashMap<String, String> = HashMap::new();
    for (row, expected) in rows.iter().zip(1_i64..) {
        assert_eq!(row.get::<_, i64>(2), expected, "positions are dense");
        let twice = found.insert(row.get(0), row.get(1));
        assert_eq!(twice, None, "{} is in the log twice", row.get::<_, String>(0));
    }
    assert!(acknowledged.len() > 500, "{} commands were acknowledged", acknowledged.len());
    for (key, id) in acknowledged {
        assert_eq!(found.get(key), Some(id), "{key} was acknowledged");
    }
    found.len()
}
