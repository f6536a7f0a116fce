//! An auditor's way through what happened: who, when, from where and why; the feed over a restart; who looked at whom; in a terminal.

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::{Value, json};
use tests::{TestStack, eventually, run_prospectus};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::imports;

#[tokio::test(flavor = "multi_thread")]
async fn a_history_says_who_when_from_where_and_why() {
    let test = TestStack::start().await;
    let writer_key = test.tenant_key("demo", "writer").await;
    let writer = test.client_with(&writer_key);
    let auditor = test.client_of("demo", "auditor").await;
    let prefix = writer_key.split_once('.').expect("a key").0;

    let body = json!({"name": "Acme", "domain": "acme.com", "attributes": {"tier": "gold"}});
    let made = writer.command(Method::POST, "/v1/companies", &body).await;
    let (company, first) = (made.id(), made.position());
    let request = uuid::Uuid::now_v7().to_string();
    let headers = [
        ("x-request-id", request.as_str()),
        ("x-correlation-id", "campaign-7"),
        ("x-causation-id", "mail-3"),
        ("prospectus-source", "crm"),
    ];
    let patch = json!({"name": "Acme United", "attributes": {"tier": null, "size": "big"}}).to_string();
    let path = format!("/v1/companies/{company}");
    let changed = writer.try_command(Method::PATCH, &path, &headers, patch).await.expect("an answer");
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");

    let history = auditor.read(&format!("{path}/history"), Some(changed.position())).await;
    assert_eq!(history.status, StatusCode::OK, "{history:?}");
    let items = history.json["items"].as_array().expect("items").clone();
    let (registered, last) = (&items[0], items.last().expect("a change"));
    assert_eq!((&registered["type"], &registered["position"]), (&json!("CompanyRegistered"), &json!(first)));
    assert!(last["recorded_at"].as_str() >= registered["recorded_at"].as_str());
    let beside = |name: &str| last[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(beside("actor"), format!("key:{prefix}"));
    assert_eq!([beside("key"), beside("actor_role")], [prefix, "writer"]);
    assert_eq!([beside("request_id"), beside("client_address")], [request.as_str(), "127.0.0.1"]);
    assert_eq!([beside("correlation_id"), beside("causation_id"), beside("source")], ["campaign-7", "mail-3", "crm"]);
    let changes: Vec<&Value> =
        items[1..].iter().flat_map(|item| item["changes"].as_array().expect("changes")).collect();
    let change = |field: &str| {
        changes.iter().find(|change| change["field"] == field).map(|c| (c["from"].clone(), c["to"].clone()))
    };
    assert_eq!(change("name"), Some((json!("Acme"), json!("Acme United"))));
    assert_eq!(change("attributes.tier"), Some((json!("gold"), Value::Null)));
    assert_eq!(change("attributes.size"), Some((Value::Null, json!("big"))));
    assert_eq!(changes.len(), 3, "{changes:?}");

    // As it was, by version, position and time.
    let time = registered["recorded_at"].as_str().expect("a time");
    for when in ["as_of_version=1".to_owned(), format!("as_of_position={first}"), format!("as_of={time}")] {
        let was = auditor.read(&format!("{path}?{when}"), None).await;
        assert_eq!((was.status, &was.json["name"]), (StatusCode::OK, &json!("Acme")), "{when}: {was:?}");
    }
    for (when, status, said) in [
        ("as_of_version=99", StatusCode::NOT_FOUND, "its newest is"),
        ("as_of=2020-01-01T00:00:00Z", StatusCode::NOT_FOUND, "not there yet"),
        ("as_of=2999-01-01T00:00:00Z", StatusCode::BAD_REQUEST, "future"),
        ("as_of=yesterday", StatusCode::BAD_REQUEST, "RFC 3339"),
        ("as_of_version=0", StatusCode::BAD_REQUEST, "whole number"),
        ("as_of_version=1&as_of_position=1", StatusCode::BAD_REQUEST, "wrong"),
    ] {
        let refused = auditor.read(&format!("{path}?{when}"), None).await;
        assert_eq!(refused.status, status, "{when}: {refused:?}");
        assert!(refused.json["detail"].as_str().is_some_and(|detail| detail.contains(said)), "{when}: {refused:?}");
    }

    // Roles and tenants.
    let reader = test.client_of("demo", "reader").await;
    let stranger = test.client_of("stranger", "auditor").await;
    for path in [format!("{path}/history"), format!("{path}?as_of_version=1")] {
        assert_eq!(reader.read(&path, None).await.status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(writer.read(&path, None).await.status, StatusCode::FORBIDDEN, "{path}");
        let others = stranger.read(&path, None).await;
        assert_eq!((others.status, &others.json["detail"]), (StatusCode::NOT_FOUND, &json!("there is no such record")));
    }
    assert_eq!(auditor.command(Method::PATCH, &path, &json!({"name": "X"})).await.status, StatusCode::FORBIDDEN);

    // What happened to a merged company is part of its primary's history, until it is taken out again.
    let other = writer.command(Method::POST, "/v1/companies", &json!({"name": "Other", "city": "Paris"})).await.id();
    let merge = writer.command(Method::POST, &format!("/v1/companies/{other}/merge"), &json!({"into": company})).await;
    assert_eq!(merge.status, StatusCode::OK, "{merge:?}");
    let both = auditor.read(&format!("{path}/history"), Some(merge.position())).await.json;
    let of_other = both["items"].as_array().expect("items").iter().filter(|item| item["aggregate_id"] == *other);
    let types: Vec<&str> = of_other.map(|item| item["type"].as_str().expect("a type")).collect();
    assert_eq!(types, ["CompanyRegistered", "CompanyMerged"], "{both}");
    let before = merge.position() - 2;
    let there = auditor.read(&format!("/v1/companies/{other}?as_of_position={before}"), None).await;
    assert_eq!((there.status, &there.json["city"]), (StatusCode::OK, &json!("Paris")), "{there:?}");
    let moved = auditor.read(&format!("/v1/companies/{other}?as_of_version=2"), None).await;
    let location = moved.headers.get("location").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(location.starts_with(&format!("/v1/companies/{company}?as_of_position=")), "{moved:?}");
    let undone = writer.command(Method::POST, &format!("/v1/companies/{other}/unmerge"), &json!({})).await;
    let alone = auditor.read(&format!("{path}/history"), Some(undone.position())).await.json;
    assert!(alone["items"].as_array().expect("items").iter().all(|item| item["aggregate_id"] == *company), "{alone}");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imports_rows_lead_back_to_the_list_and_who_sent_it() {
    let test = TestStack::start().await;
    let key = test.tenant_key("demo", "writer").await;
    let client = test.client();
    let list = "first_name,last_name,email,company\nAda,Lovelace,ada@acme.com,Acme\nBob,Builder,bob@acme.com,Acme\n";
    let import = imports::import(&test.client_with(&key), "source=crm", list).await;
    let position = import["position"].as_i64();
    let found = client.read("/v1/prospects?email=bob@acme.com", position).await;
    let prospect = found.json["items"][0]["prospect_id"].as_str().expect("an id").to_owned();
    let history = client.read(&format!("/v1/prospects/{prospect}/history"), position).await.json;
    let item = &history["items"][0];
    assert_eq!((&item["import_id"], &item["row"]), (&import["id"], &json!(2)), "{item}");
    assert_eq!((&item["source"], &item["client_address"]), (&json!("crm"), &json!("127.0.0.1")), "{item}");
    assert_eq!(item["key"].as_str(), key.split_once('.').map(|(prefix, _)| prefix), "{item}");
    let changes = item["changes"].as_array().expect("changes");
    assert!(
        changes.iter().any(|change| *change == json!({"field": "first_name", "from": null, "to": "Bob"})),
        "{item}"
    );

    let id = import["id"].as_str().expect("an id");
    let undo = client.command(Method::POST, &format!("/v1/imports/{id}/undo"), &json!({})).await;
    assert!(undo.status.is_success(), "{undo:?}");
    let item = eventually("the import is taken back", async || {
        let history = client.read(&format!("/v1/prospects/{prospect}/history"), None).await.json;
        history["items"].as_array()?.iter().find(|item| item["type"] == "ProspectImportUndone").cloned()
    })
    .await;
    assert_eq!(item["import_id"], import["id"], "{item}");
    let undone_by = test.stack.api_key().split_once('.').map(|(prefix, _)| prefix);
    assert_eq!(item["key"].as_str(), undone_by, "who took it back, not who sent the list: {item}");
    test.finish().await;
}

/// Reads server-sent events until `wanted` of them have come or the connection ends; gives their ids.
async fn live(test: &TestStack, after: i64, wanted: usize) -> Vec<i64> {
    let url = test.stack.url(Part::QueryService);
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.expect("a connection");
    let head = format!(
        "GET /v1/events HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {}\r\nAccept: text/event-stream\r\nLast-Event-ID: {after}\r\n\r\n",
        test.stack.api_key()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let (mut text, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    let ids = |text: &[u8]| -> Vec<i64> {
        // What is not whole yet does not count.
        let whole = text.windows(2).rposition(|two| two == b"\n\n").unwrap_or(0);
        let text = String::from_utf8_lossy(&text[..whole]).into_owned();
        text.lines().filter_map(|line| line.strip_prefix("id: ")?.rsplit_once('-')?.1.parse().ok()).collect()
    };
    loop {
        let read = tokio::time::timeout(tests::PATIENCE, stream.read(&mut buffer)).await.expect("in time").unwrap_or(0);
        text.extend_from_slice(&buffer[..read]);
        let ids = ids(&text);
        if read == 0 || ids.len() >= wanted {
            return ids;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_is_resumed_over_a_restart_without_a_hole_or_a_double() {
    const EVENTS: usize = 120;
    let test = TestStack::start().await;
    let client = test.client();
    let write_half = || {
        let client = client.clone();
        tokio::spawn(async move {
            let mut last = 0;
            for number in 0..EVENTS / 2 {
                last = client
                    .command(Method::POST, "/v1/companies", &json!({"name": format!("C{number}")}))
                    .await
                    .position();
            }
            last
        })
    };
    let writing = write_half();
    let mut seen = live(&test, 0, EVENTS / 4).await;
    test.stack.stop(Part::QueryService).await.expect("it stops");
    test.stack.start_part(Part::QueryService).await.expect("it starts");
    writing.await.expect("it writes");
    // However quick the first half was, as many again are still to come.
    let writing = write_half();
    seen.extend(live(&test, *seen.last().expect("some"), EVENTS / 4).await);
    test.stack.kill(Part::QueryService);
    let last = writing.await.expect("it writes");
    while seen.last().is_none_or(|seen| *seen < last) {
        test.stack.ready(Part::QueryService).await.expect("it is started again");
        let from = seen.last().copied().unwrap_or(0);
        seen.extend(live(&test, from, usize::try_from(last - from).expect("a few")).await);
    }
    assert_eq!(seen, (1..=last).collect::<Vec<i64>>());
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_noted_as_the_tenant_says() {
    let test = TestStack::start().await;
    let client = test.client();
    let made = client.command(Method::POST, "/v1/prospects", &json!({"last_name": "Lovelace"})).await;
    let path = format!("/v1/prospects/{}", made.id());
    let on = run_prospectus(&test, &["tenants", "set", "demo", "--audit-reads", "on", "--json"]).await;
    assert_eq!((on.code, &on.json()["audit_reads"]), (0, &json!(true)), "{on:?}");
    // A key counts for some seconds without another look.
    let auditor = test.client_of("demo", "auditor").await;
    let notes = eventually("a read is noted", async || {
        let shown = auditor.read(&path, Some(made.position())).await;
        assert_eq!(shown.status, StatusCode::OK, "{shown:?}");
        let page = auditor.read("/v1/reads", None).await;
        page.json["items"].as_array().filter(|items| !items.is_empty()).cloned()
    })
    .await;
    assert_eq!((&notes[0]["endpoint"], &notes[0]["record_ids"]), (&json!("/v1/prospects/{id}"), &json!([made.id()])));
    // Without the primary nothing can be noted, and so nothing is shown; a tenant that does not ask for it is answered.
    let other = test.client_of("other", "admin").await;
    test.stack.stop(Part::Primary).await.expect("it stops");
    let refused = auditor.read(&path, None).await;
    assert_eq!(
        (refused.status, &refused.json["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("database_unavailable"))
    );
    assert_eq!(other.read("/v1/prospects", None).await.status, StatusCode::OK);
    test.stack.start_part(Part::Primary).await.expect("it starts");
    eventually("reads are noted again", async || auditor.read(&path, None).await.status.is_success().then_some(()))
        .await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_in_a_terminal() {
    let test = TestStack::start().await;
    let client = test.client();
    let made = client.command(Method::POST, "/v1/prospects", &json!({"last_name": "Lovelace", "country": "GB"})).await;
    let id = made.id();
    let changed = client.command(Method::PATCH, &format!("/v1/prospects/{id}"), &json!({"last_name": "King"})).await;
    let history = client.read(&format!("/v1/prospects/{id}/history"), Some(changed.position())).await.json;
    let time = history["items"][0]["recorded_at"].as_str().expect("a time").to_owned();
    let run = async |arguments: &[&str]| {
        let mut command = tests::prospectus(&test, &[&["audit", "history", &id], arguments].concat());
        command.env("PROSPECTUS_QUERY_URL", test.stack.url(Part::QueryService)).env("PAGER", "false");
        tests::ran(command).await
    };
    let shown = run(&[]).await;
    assert_eq!(shown.code, 0, "{shown:?}");
    for said in ["version 1  ProspectRegistered", "last_name: \"Lovelace\" → \"King\"", "as admin, from 127.0.0.1"] {
        assert!(shown.stdout.contains(said), "{said}: {shown:?}");
    }
    assert!(!shown.stdout.contains('\u{1b}'), "no colours where there is no terminal: {shown:?}");
    assert_eq!(run(&["--json"]).await.json()["items"], history["items"]);
    let diff = run(&["--diff", "1..2", "--json"]).await.json();
    assert_eq!(diff["changes"], json!([{"field": "last_name", "from": "Lovelace", "to": "King"}]));
    assert_eq!(run(&["--at", &time, "--json"]).await.json()["last_name"], "Lovelace");
    let refused = run(&["--diff", "1..9"]).await;
    assert!(refused.code == 1 && refused.stderr.contains("its newest is 2"), "{refused:?}");
    test.finish().await;
}
