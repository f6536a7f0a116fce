//! The relay: what the stream holds after a relay ended, a second one took over, messages were taken out, another hand published,
//! or the log began other lives.

use async_nats::HeaderMap;
use async_nats::jetstream::{self, Context};
use event_store::epoch;
use futures_util::StreamExt as _;
use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
use tests::{Client, TestStack, eventually};

const STREAM: &str = "PROSPECTUS_EVENTS";

/// A message of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The event's position.
    pub position: i64,
    /// The event's epoch.
    pub epoch: String,
    /// The event's id.
    pub event_id: String,
}

/// The stream's messages in the stream's order; none while NATS or the stream is away.
pub async fn published(test: &TestStack) -> Option<Vec<Published>> {
    let stream = jetstream(test).await?.get_stream(STREAM).await.ok()?;
    let count = usize::try_from(stream.get_info().await.ok()?.state.messages).ok()?;
    let consumer = stream.create_consumer(jetstream::consumer::pull::OrderedConfig::default()).await.ok()?;
    let mut messages = consumer.messages().await.ok()?.take(count);
    let mut published = Vec::with_capacity(count);
    while let Some(message) = messages.next().await {
        let message = message.ok()?;
        let header = |name: &str| Some(message.headers.as_ref()?.get(name)?.as_str().to_owned());
        let position = header("Prospectus-Position")?.parse().ok()?;
        let body: serde_json::Value = serde_json::from_slice(&message.payload).ok()?;
        assert_eq!(body["position"], position);
        published.push(Published {
            position,
            epoch: header("Prospectus-Epoch")?,
            event_id: header("Prospectus-Event-Id")?,
        });
    }
    Some(published)
}

async fn jetstream(test: &TestStack) -> Option<Context> {
    let url = test.stack.environment().into_iter().find(|(name, _)| name == "PROSPECTUS_NATS_URL")?.1;
    Some(jetstream::new(async_nats::connect(url).await.ok()?))
}

/// Waits until the stream holds exactly these positions, in this order.
async fn holds(test: &TestStack, what: &str, wanted: impl IntoIterator<Item = i64>) {
    let wanted: Vec<i64> = wanted.into_iter().collect();
    eventually(&format!("{what}: the stream holds {wanted:?}"), async || {
        let found: Vec<i64> = published(test).await?.iter().map(|message| message.position).collect();
        (found == wanted).then_some(())
    })
    .await;
}

/// Registers so many companies.
async fn register(client: &Client, count: i64) {
    for number in 0..count {
        let answer = client.command(Method::POST, "/v1/companies", &json!({"name": format!("Company {number}")})).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }
}

/// Publishes a message as if it were an event that the log does not have.
async fn forge(test: &TestStack, position: i64) {
    let mut headers = HeaderMap::new();
    headers.insert("Prospectus-Position", position.to_string());
    headers.insert("Prospectus-Epoch", "0.forged");
    headers.insert("Prospectus-Event-Id", uuid::Uuid::new_v4().to_string());
    let body = json!({"position": position}).to_string();
    let subject = "prospectus.events.forged.company.CompanyRegistered";
    let jetstream = jetstream(test).await.expect("NATS answers");
    let sent = jetstream.publish_with_headers(subject, headers, body.into()).await.expect("sent");
    sent.await.expect("stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_out_of_the_stream_is_published_again_also_when_nothing_happens() {
    let test = TestStack::start().await;
    let client = test.client();
    register(&client, 20).await;
    holds(&test, "at first", 1..=20).await;
    let stream = async || jetstream(&test).await.expect("NATS").get_stream(STREAM).await.expect("the stream");

    test.stack.wipe_nats().await.expect("NATS is wiped");
    holds(&test, "NATS wiped on a quiet system", 1..=20).await;
    stream().await.purge().await.expect("purged");
    holds(&test, "purged on a quiet system", 1..=20).await;
    stream().await.purge().keep(5).await.expect("purged");
    holds(&test, "all but the newest purged", 1..=20).await;
    let last = stream().await.get_info().await.expect("its state").state.last_sequence;
    stream().await.delete_message(last - 3).await.expect("deleted");
    holds(&test, "one taken out of the middle", 1..=20).await;
    stream().await.purge().await.expect("purged");
    register(&client, 10).await;
    holds(&test, "purged with commands right after it", 1..=30).await;

    // A relay that starts sees what went missing meanwhile, and repeats nothing where nothing did.
    test.stack.stop(Part::Relay).await.expect("stopped");
    stream().await.purge().await.expect("purged");
    register(&client, 5).await;
    test.stack.start_part(Part::Relay).await.expect("started");
    holds(&test, "purged with the relay away", 1..=35).await;
    test.stack.stop(Part::Relay).await.expect("stopped");
    register(&client, 5).await;
    test.stack.start_part(Part::Relay).await.expect("started");
    holds(&test, "the relay goes on after the last message", 1..=40).await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_relay_takes_over_and_an_empty_stream_gets_the_newest_events() {
    let test = TestStack::start_with(|options| {
        options.command_services = 2;
        options.environment.push(("PROSPECTUS_REFILL_EVENTS".to_owned(), "25".to_owned()));
    })
    .await;
    let one = test.client();
    let other = one.to(&test.stack, Part::CommandService(2));
    tokio::join!(register(&one, 20), register(&other, 20));
    holds(&test, "two relays beside each other", 1..=40).await;
    for round in 0..2 {
        for (number, client) in [(1, &other), (2, &one)] {
            test.stack.stop(Part::CommandService(number)).await.expect("stopped");
            register(client, 5).await;
            let head = 40 + round * 10 + i64::from(number) * 5;
            holds(&test, &format!("the relay of service {number} away"), 1..=head).await;
            test.stack.start_part(Part::CommandService(number)).await.expect("started");
        }
    }
    test.stack.wipe_nats().await.expect("NATS is wiped");
    holds(&test, "NATS wiped", 36..=60).await;
    register(&one, 5).await;
    holds(&test, "after it", 36..=65).await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_hand_and_other_lives_of_the_log_lose_no_event() {
    let test = TestStack::start().await;
    let client = test.client();
    register(&client, 10).await;
    holds(&test, "at first", 1..=10).await;
    // A hand that publishes beside the relay: what the relay sends next is refused, and it finds its place again.
    forge(&test, 11).await;
    register(&client, 10).await;
    holds(&test, "beside another hand", (1..=10).chain([11]).chain(11..=20)).await;

    // What a server published that lost its tail, 21 to 25, before two others began lives of their own at 21 and at 24.
    test.stack.stop(Part::Relay).await.expect("stopped");
    for position in 21..=25 {
        forge(&test, position).await;
    }
    let mut log = test.superuser(Part::Primary).await;
    for _ in 0..2 {
        let transaction = log.transaction().await.expect("begun");
        epoch::begin(&transaction).await.expect("an epoch");
        transaction.commit().await.expect("committed");
        register(&client, 3).await;
    }
    test.stack.start_part(Part::Relay).await.expect("started");
    let after = (1..=10).chain([11]).chain(11..=20).chain(21..=25).chain(21..=26);
    holds(&test, "after two promotions", after).await;

    // Every event has its own epoch and id, however often and late it is published.
    let rows = log
        .query(
            "SELECT e.position, e.event_id::text,
                    (SELECT p.name FROM log.epochs AS p WHERE p.first_position <= e.position ORDER BY p.number DESC LIMIT 1)
             FROM log.events AS e ORDER BY e.position",
            &[],
        )
        .await
        .expect("the log can be read");
    let wanted: Vec<Published> =
        rows.iter().map(|row| Published { position: row.get(0), event_id: row.get(1), epoch: row.get(2) }).collect();
    let numbers: Vec<&str> = wanted.iter().filter_map(|message| message.epoch.split('.').next()).collect();
    assert_eq!(numbers, [vec!["1"; 20], vec!["2"; 3], vec!["3"; 3]].concat());
    test.stack.wipe_nats().await.expect("NATS is wiped");
    holds(&test, "NATS wiped", 1..=26).await;
    assert_eq!(published(&test).await.expect("the stream"), wanted);
    test.finish().await;
}
