//! I4: NATS stopped, wiped and started under load loses nothing and repeats nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
use tests::{TestStack, eventually};

use crate::relay::published;

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_is_filled_again_and_the_projector_does_not_stop() {
    let test = TestStack::start().await;
    let client = test.client();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let (client, stop) = (client.clone(), Arc::clone(&stop));
        writers.spawn(async move {
            let mut last = 0;
            let mut number = 0;
            while !stop.load(Ordering::SeqCst) {
                number += 1;
                let body = json!({"name": format!("n{writer}-{number}")});
                let answer = client.command(Method::POST, "/v1/companies", &body).await;
                assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
                last = answer.position();
            }
            last
        });
    }
    let read = async |name: &str| {
        let answer = client.command(Method::POST, "/v1/companies", &json!({"name": name})).await;
        let seen = client.read(&format!("/v1/companies/{}", answer.id()), Some(answer.position())).await;
        assert_eq!(seen.status, StatusCode::OK, "the projector goes on: {seen:?}");
    };
    read("before").await;
    for round in 0..2 {
        test.stack.stop(Part::Nats).await.expect("NATS stops");
        read(&format!("away {round}")).await;
        test.stack.start_part(Part::Nats).await.expect("NATS starts");
        read(&format!("back {round}")).await;
        test.stack.wipe_nats().await.expect("NATS is wiped");
        read(&format!("wiped {round}")).await;
    }
    stop.store(true, Ordering::SeqCst);
    let head = writers.join_all().await.into_iter().max().expect("four writers");
    let messages = eventually("the stream holds everything up to the head", async || {
        let positions: Vec<i64> = published(&test).await?.iter().map(|message| message.position).collect();
        (positions.last() == Some(&head)).then_some(positions)
    })
    .await;
    // In order, none missing, none twice; the newest 1,000,000, which here is all.
    assert_eq!(messages, (1..=head).collect::<Vec<i64>>());
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}
