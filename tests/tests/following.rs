//! I1 and I10: readers that follow the log from position 1 see every position once, in order, on the primary and on a replica,
//! while many write through two command services and a foreign transaction keeps its snapshot open.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use event_store::Feed;
use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
use service_kit::postgres::Database;
use tests::{PATIENCE, TestStack};
use tokio::sync::watch;

/// Writers, half of them through each command service.
const WRITERS: usize = 16;
/// Between two looks of a reader that has caught up.
const POLL: Duration = Duration::from_millis(5);
/// Commands of each.
const COMMANDS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_every_position_once_and_in_order_beside_a_foreign_snapshot() {
    let test = TestStack::start_with(|options| options.command_services = 2).await;
    let foreign = test.superuser(Part::Primary).await;
    foreign
        .batch_execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM log.events; SELECT pg_current_xact_id()",
        )
        .await
        .expect("a snapshot");
    let (done, ended) = watch::channel(None::<i64>);
    let mut readers = tokio::task::JoinSet::new();
    for part in [Part::Primary, Part::Replica(1)] {
        let url = test.stack.role_url("prospectus_verifier", part);
        readers.spawn(follow(url, ended.clone()));
    }
    let accepted = Arc::new(AtomicUsize::new(0));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let service = Part::CommandService(if writer % 2 == 0 { 1 } else { 2 });
        let (client, accepted) = (test.client().to(&test.stack, service), Arc::clone(&accepted));
        writers.spawn(async move {
            for number in 0..COMMANDS {
                // Every third domain is shared by all writers: a batch with one that is taken is rolled back and looked through.
                // Every twentieth command is refused for what it says, before it comes to the log.
                let domain = match number % 3 {
                    0 => format!("shared{number}.example"),
                    _ => format!("own{writer}-{number}.example"),
                };
                let name = if number % 20 == 7 { "" } else { "Company" };
                let body = json!({"name": name, "domain": domain, "additional_domains": [format!("also-{domain}")]});
                let answer = client.command(Method::POST, "/v1/companies", &body).await;
                match answer.status {
                    StatusCode::CREATED => _ = accepted.fetch_add(1, Ordering::SeqCst),
                    StatusCode::CONFLICT if number % 3 == 0 => {}
                    StatusCode::UNPROCESSABLE_ENTITY if name.is_empty() => {}
                    _ => panic!("{answer:?}"),
                }
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.expect("no command met anything else");
    }
    let log = test.superuser(Part::Primary).await;
    let head: i64 = log.query_one("SELECT position FROM log.head", &[]).await.expect("a head").get(0);
    assert_eq!(
        usize::try_from(head).expect("positive"),
        accepted.load(Ordering::SeqCst),
        "each accepted one, nothing else"
    );
    done.send_replace(Some(head));
    while let Some(reader) = readers.join_next().await {
        assert_eq!(reader.expect("no hole, nothing twice"), head);
    }
    // Projecting and reading do not wait for the foreign transaction either.
    tests::read_tables_equal_the_log(&test).await;
    let open: i64 = log
        .query_one(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND backend_xid IS NOT NULL",
            &[],
        )
        .await
        .expect("counted")
        .get(0);
    assert_eq!(open, 1, "the foreign transaction is still open");
    foreign.batch_execute("COMMIT").await.expect("it was open all the time");
    test.finish().await;
}

/// Follows the log from its beginning until the head that is told at the end; gives the last position.
async fn follow(url: String, ended: watch::Receiver<Option<i64>>) -> i64 {
    let feed = Feed::open(&Database::parse(&url, "tests").expect("a good URL")).await.expect("the log opens");
    let started = Instant::now();
    let mut position = 0;
    loop {
        // The feed itself fails where a position is missing or out of order.
        let page = feed.after(position, 100).await.expect("no hole");
        for event in &page {
            assert_eq!(event.position, position + 1);
            position = event.position;
        }
        let head = *ended.borrow();
        if head.is_some_and(|head| position >= head) {
            return position;
        }
        assert!(started.elapsed() < PATIENCE, "the reader is at {position}, the head is {head:?}");
        if page.is_empty() {
            tokio::time::sleep(POLL).await;
        }
    }
}
