//! I4: NATS stopped, wiped and started under load loses nothing and repeats nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::jetstream;
use futures_util::StreamExt as _;
use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
use tests::{TestStack, eventually};

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
        let positions = positions(&test).await?;
        (positions.last() == Some(&head)).then_some(positions)
    })
    .await;
    // In order, none missing, none twice; the newest 1,000,000, which here is all.
    assert_eq!(messages, (1..=head).collect::<Vec<i64>>());
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}

/// Positions of the stream's messages, in the stream's order.
async fn positions(test: &TestStack) -> Option<Vec<i64>> {
    let url = test.stack.environment().into_iter().find(|(name, _)| name == "PROSPECTUS_NATS_URL")?.1;
    let nats = async_nats::connect(url).await.ok()?;
    let stream = jetstream::new(nats).get_stream("PROSPECTUS_EVENTS").await.ok()?;
    let count = usize::try_from(stream.get_info().await.ok()?.state.messages).ok()?;
    let consumer = stream.create_consumer(jetstream::consumer::pull::OrderedConfig::default()).await.ok()?;
    let mut messages = consumer.messages().await.ok()?.take(count);
    let mut positions = Vec::with_capacity(count);
    while let Some(message) = messages.next().await {
        let message = message.ok()?;
        let headers = message.headers.as_ref()?;
        positions.push(headers.get("Prospectus-Position")?.as_str().parse().ok()?);
        let body: serde_json::Value = serde_json::from_slice(&message.payload).ok()?;
        assert_eq!(body["position"].as_i64(), positions.last().copied());
    }
    Some(positions)
}
