//! Rebuilding and rolling back a running system: whoever writes and reads notices nothing, and the commands say what became of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::{Value, json};
use tests::{Client, TestStack, eventually, read_tables_equal_the_log, run_prospectus};
use tokio::task::JoinSet;

const RECORDS_AT_FIRST: usize = 300;

async fn made(client: &Client, path: &str, body: Value) -> String {
    let answer = client.command(Method::POST, path, &body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer.id()
}

/// Writes until it is told to stop; gives how much.
async fn write(client: Client, companies: Vec<String>, stop: Arc<AtomicBool>) -> usize {
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        let company = &companies[number % companies.len()];
        made(&client, "/v1/prospects", json!({"last_name": format!("Load {number}"), "company_id": company})).await;
        let change = json!({"city": format!("City {number}")});
        let answer = client.command(Method::PATCH, &format!("/v1/companies/{company}"), &change).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        number += 1;
    }
    number
}

/// Reads a record and lists until it is told to stop: never an error, nothing that is missing, no position that goes back.
async fn read(client: Client, known: String, stop: Arc<AtomicBool>) -> usize {
    let (mut position, mut rows, mut number) = (0, 0, 0);
    while !stop.load(Ordering::SeqCst) {
        let list = client.read("/v1/company-prospects?limit=1&count=exact", None).await;
        assert_eq!(list.status, StatusCode::OK, "{list:?}");
        let counted = list.json["count"].as_u64().unwrap_or_else(|| panic!("no count in {list:?}"));
        let record = client.read(&format!("/v1/prospects/{known}"), None).await;
        assert_eq!(record.status, StatusCode::OK, "{record:?}");
        let now: u64 = record.headers["prospectus-position"].to_str().expect("text").parse().expect("a number");
        assert!(now >= position, "position {now} after {position}");
        assert!(counted >= rows, "{counted} rows after {rows}");
        (position, rows, number) = (now, counted, number + 1);
    }
    number
}

/// One that waits for what it has just written.
async fn read_own_writes(client: Client, stop: Arc<AtomicBool>) -> usize {
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        let answer = client.command(Method::POST, "/v1/companies", &json!({"name": format!("Own {number}")})).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        let read = client.read(&format!("/v1/companies/{}", answer.id()), Some(answer.position())).await;
        assert_eq!(read.status, StatusCode::OK, "{read:?}");
        number += 1;
    }
    number
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuilds_and_roll_backs_under_load_are_noticed_by_nobody() {
    let test = TestStack::start().await;
    let client = test.client();
    let mut companies = Vec::new();
    for number in 0..20 {
        let company = json!({"name": format!("Company {number}"), "domain": format!("c{number}.example")});
        companies.push(made(&client, "/v1/companies", company).await);
    }
    let mut known = String::new();
    for number in 0..RECORDS_AT_FIRST {
        let company = &companies[number % companies.len()];
        known =
            made(&client, "/v1/prospects", json!({"last_name": format!("P {number}"), "company_id": company})).await;
    }
    let merged = client
        .command(Method::POST, &format!("/v1/companies/{}/merge", companies[0]), &json!({"into": companies[1]}))
        .await;
    assert_eq!(merged.status, StatusCode::OK, "{merged:?}");
    let last = client.read(&format!("/v1/prospects/{known}"), Some(merged.position())).await;
    assert_eq!(last.status, StatusCode::OK, "{last:?}");

    let stop = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    load.spawn(write(client.clone(), companies[2..].to_vec(), Arc::clone(&stop)));
    load.spawn(read(client.clone(), known, Arc::clone(&stop)));
    load.spawn(read_own_writes(client.clone(), Arc::clone(&stop)));
    for arguments in [
        &["rebuild", "company_prospect", "--json", "--wait", "60"][..],
        &["rebuild", "--all", "--memory", "64KiB", "--json", "--wait", "60"],
        &["rollback", "company_prospect", "--json", "--wait", "60"],
        &["rollback", "company_prospect", "--json", "--wait", "60"],
    ] {
        let ran = run_prospectus(&test, arguments).await;
        let told = &ran.json()[0];
        assert_eq!((ran.code, told["outcome"].as_str()), (0, Some("live")), "{arguments:?}: {ran:?}");
        if arguments[0] == "rebuild" {
            assert_eq!(told["differences"], 0, "{ran:?}");
            assert!(told["room"].as_str().is_some_and(|room| room.contains("bytes are free in")), "{ran:?}");
        }
    }
    stop.store(true, Ordering::SeqCst);
    let counts = load.join_all().await;
    assert!(counts.iter().all(|count| *count > 5), "there was load: {counts:?}");
    read_tables_equal_the_log(&test).await;

    // The command compares too, on the primary and on a replica, and names what is off.
    let replica = test.stack.superuser_url(Part::Replica(1));
    for arguments in
        [&["verify", "--json"][..], &["verify", "company_prospect", "--on", &replica, "--memory", "64KiB", "--json"]]
    {
        let ran = run_prospectus(&test, arguments).await;
        assert_eq!((ran.code, &ran.json()["differences"]), (0, &json!(0)), "{ran:?}");
    }
    let primary = test.superuser(Part::Primary).await;
    let live: i32 = primary.query_one("SELECT generation FROM read.live", &[]).await.expect("live").get(0);
    let sql = format!("UPDATE read_{live}.companies SET city = 'Elsewhere' WHERE company_id = '{}'", companies[1]);
    primary.batch_execute(&sql).await.expect("tampered");
    eventually("the replica has it too", async || {
        let ran = run_prospectus(&test, &["verify", "--on", &replica]).await;
        (ran.code == 1
            && ran.stdout.contains(&format!(
                "companies {}, city: should be Text(None), is Text(Some(\"Elsewhere\"))",
                companies[1]
            )))
        .then_some(())
    })
    .await;
    // A rebuild puts it right; without a projector nothing happens, and that is said.
    test.stack.stop(Part::Projector).await.expect("stopped");
    let ran = run_prospectus(&test, &["rebuild", "company_prospect", "--wait", "1"]).await;
    assert!(ran.code == 1 && ran.stderr.contains("no projector has taken it"), "{ran:?}");
    test.stack.start_part(Part::Projector).await.expect("started");
    let ran = run_prospectus(&test, &["rebuild", "company_prospect", "--wait", "60"]).await;
    assert!(ran.code == 0 && ran.stdout.contains("is live at position"), "{ran:?}");
    read_tables_equal_the_log(&test).await;
    // What cannot be: too little room, no such projection.
    let ran = run_prospectus(&test, &["rebuild", "company_prospect", "--disk", "1KiB", "--wait", "60"]).await;
    assert!(ran.code == 1 && ran.stdout.contains("there is room for 1024"), "{ran:?}");
    let ran = run_prospectus(&test, &["rebuild", "companies"]).await;
    assert!(ran.code == 1 && ran.stderr.contains("there is company_prospect"), "{ran:?}");
    let ran = run_prospectus(&test, &["rebuild", "--all", "--cancel"]).await;
    assert!(ran.code == 0 && ran.stdout.contains("nothing is under way"), "{ran:?}");
    test.finish().await;
}
