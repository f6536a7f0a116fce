//! Promotions: with synchronous standbys nothing that was acknowledged is lost (I2); without, what is lost is told, everywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
use tests::{Client, TestStack, eventually, run_prospectus};

use crate::crashes::{every_one_is_there_once, write};

/// Where the sequence of deaths begins; any other must do too.
const SEED: u64 = 0x5EED_0005;

/// The next of a reproducible sequence (xorshift64).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

async fn head(test: &TestStack) -> i64 {
    let log = test.superuser(Part::Primary).await;
    log.query_one("SELECT position FROM log.head", &[]).await.expect("the log can be read").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_promotions_under_load_lose_no_acknowledged_command() {
    let test = TestStack::start_with(|options| {
        options.replicas = 2;
        options.synchronous = true;
    })
    .await;
    let client = test.client();
    let stop = Arc::new(AtomicBool::new(false));
    let writers = write(&client, 8, &stop);
    let (mut random, mut servers) = (SEED, std::collections::BTreeSet::new());
    for number in 1..=10 {
        let before = head(&test).await;
        eventually("more events", async || (head(&test).await >= before + 50).then_some(())).await;
        // Asked to go while it works, killed outright, or killed and already started again by the supervisor.
        let (old, way) = (test.stack.pid(Part::Primary), next(&mut random) % 3);
        if way > 0 {
            test.stack.kill(Part::Primary);
        }
        if way > 1 {
            eventually("it is back", async || test.stack.pid(Part::Primary).filter(|now| Some(*now) != old)).await;
        }
        let promotion = test.stack.promote(false).await.unwrap_or_else(|error| panic!("promotion {number}: {error}"));
        assert_eq!((promotion.received.len(), promotion.is_whole()), (2, true), "{promotion}");
        servers.insert(promotion.server);
    }
    assert!(servers.len() > 1, "always the same server: {servers:?}");
    let before = head(&test).await;
    eventually("more events", async || (head(&test).await >= before + 50).then_some(())).await;
    stop.store(true, Ordering::SeqCst);
    let acknowledged = writers.join_all().await.concat();
    assert!(acknowledged.len() > 500, "{} commands were acknowledged", acknowledged.len());
    let events = every_one_is_there_once(&test, &acknowledged).await;
    let log = test.superuser(Part::Primary).await;
    let row = log.query_one("SELECT count(*), max(first_position) FROM log.epochs", &[]).await.expect("epochs");
    let (epochs, last): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!(epochs, 11, "a life of the log for each promotion");
    assert!(usize::try_from(last).expect("a position") <= events);
    tests::read_tables_equal_the_log(&test).await;
    // A head is signed only over what a standby has: none covers more than the log has.
    let heads = test.directory().join("heads.ndjson").display().to_string();
    let verified = eventually("the log is sealed and intact", async || {
        let verified = run_prospectus(&test, &["audit", "verify", "--head", &heads, "--json"]).await;
        (verified.json()["verdict"] == "intact").then_some(verified)
    })
    .await;
    assert_eq!(verified.json()["lost_tails"], json!([]));
    // The query service follows the roles: reads come from replicas, which are others than at the start.
    let answer = client.read("/v1/companies?limit=1", Some(i64::try_from(events).expect("a position"))).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    test.finish().await;
}

async fn register(client: &Client, count: usize) -> (String, i64) {
    let mut last = None;
    for number in 0..count {
        let answer = eventually("a command is taken", async || {
            let body = json!({"name": format!("Company {number}")}).to_string();
            let answer = client.try_command(Method::POST, "/v1/companies", &[], body).await.ok()?;
            (answer.status == StatusCode::CREATED).then_some(answer)
        })
        .await;
        last = Some(answer);
    }
    let last = last.expect("some were registered");
    (last.json["epoch"].as_str().expect("an epoch").to_owned(), last.position())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_asynchronous_standby_did_not_have_is_lost_and_told() {
    let test = TestStack::start().await;
    let client = test.client();
    let (first, kept) = register(&client, 30).await;
    client.read("/v1/companies", Some(kept)).await;
    // The replica is away, so its primary acknowledges and seals alone; and then it is the primary that is away.
    test.stack.stop(Part::Replica(1)).await.expect("it stops");
    let (_, lost) = register(&client, 20).await;
    let heads = test.directory().join("heads.ndjson");
    eventually("a head over what will be lost", async || {
        let text = std::fs::read_to_string(&heads).ok()?;
        text.lines().last().filter(|line| line.contains(&format!("\"tree_size\":{lost}"))).map(|_| ())
    })
    .await;
    test.stack.stop(Part::Primary).await.expect("it stops");
    test.stack.start_part(Part::Replica(1)).await.expect("it starts alone");
    let promotion = test.stack.promote(false).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(promotion.server, "postgres_replica");
    let (epoch, position) = register(&client, 10).await;
    assert_ne!(epoch, first);
    assert_eq!(position, kept + 10, "positions of the lost tail are used again");
    // Who comes with a position of the lost tail is told, and who names no epoch gets what is there now.
    let asked = format!("{first}-{lost}");
    let headers = [("prospectus-min-position", asked.as_str()), ("prefer", "wait=30")];
    let told = eventually("the replica has the new life", async || {
        let answer = client.read_with(Method::GET, "/v1/companies", &headers).await;
        (answer.status != StatusCode::SERVICE_UNAVAILABLE).then_some(answer)
    })
    .await;
    assert_eq!(told.status, StatusCode::CONFLICT, "{told:?}");
    assert_eq!(client.read("/v1/companies", Some(position)).await.status, StatusCode::OK);
    // The sealer and an auditor who kept the heads are told too.
    let file = heads.display().to_string();
    let report = eventually("the new life is sealed", async || {
        let report = run_prospectus(&test, &["audit", "verify", "--head", &file, "--json"]).await;
        (report.json()["unsealed"] == 0).then_some(report)
    })
    .await;
    let json = report.json();
    assert_eq!((report.code, &json["verdict"]), (1, &json!("tail_lost")), "{json:#}");
    let tail = &json["lost_tails"][0];
    assert_eq!(
        (&tail["first"], &tail["last"], &tail["epoch"]),
        (&json!(kept + 1), &json!(lost), &json!(epoch)),
        "{json:#}"
    );
    let known = run_prospectus(&test, &["audit", "verify", "--head", &file, "--known-loss", &epoch]).await;
    assert_eq!(known.code, 0, "{known:?}");
    let metrics = client.get_from(&test.stack.url(Part::CommandService(1)), "/metrics").await;
    let metrics = String::from_utf8(metrics.bytes.to_vec()).expect("UTF-8");
    assert!(metrics.lines().any(|line| line == "prospectus_sealer_lost_tails_total 1"), "{metrics}");
    // Nothing papers over it: the old primary, which had the tail, is a replica without it.
    let replica = test.superuser(Part::Replica(1)).await;
    eventually("the old primary has the new life", async || {
        let row = replica.query_one("SELECT position FROM log.head", &[]).await;
        (row.expect("an answer").get::<_, i64>(0) == position).then_some(())
    })
    .await;
    drop(replica);
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}
