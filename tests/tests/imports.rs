//! Lists of people and companies through `POST /v1/imports`: every row is accounted for, nothing is doubled, and it can be taken back.

mod forms;
mod leases;
mod messy;
mod reference;
mod refusals;
mod rules;
mod undo;

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tests::{Answer, Client, TestStack, eventually};

/// Sends a list and waits for its end.
pub async fn import(client: &Client, query: &str, list: impl Into<Vec<u8>>) -> Value {
    let answer = send(client, query, &[], list).await;
    assert!(answer.status.is_success(), "{answer:?}");
    finished(client, &answer).await
}

/// Sends a list; with `Prefer: wait`.
pub async fn send(client: &Client, query: &str, headers: &[(&str, &str)], list: impl Into<Vec<u8>>) -> Answer {
    let mut all = headers.to_vec();
    for (name, value) in [("content-type", "application/octet-stream"), ("prefer", "wait=10")] {
        if !headers.iter().any(|(given, _)| *given == name) {
            all.push((name, value));
        }
    }
    let path = format!("/v1/imports?{query}");
    client.try_command(Method::POST, &path, &all, list.into()).await.expect("the command service answers")
}

/// Sends a list with a mapping of its own, and waits for its end.
pub async fn import_mapped(client: &Client, query: &str, mapping: &str, list: &[u8]) -> Value {
    let answer = send_mapped(client, query, &[], mapping, list).await;
    assert!(answer.status.is_success(), "{answer:?}");
    finished(client, &answer).await
}

/// Sends a list with a mapping of its own.
pub async fn send_mapped(client: &Client, query: &str, headers: &[(&str, &str)], mapping: &str, list: &[u8]) -> Answer {
    let boundary = "--------a-boundary-that-is-in-no-list";
    let mut body = Vec::new();
    for (name, content) in [("mapping", mapping.as_bytes()), ("file", list)] {
        body.extend(format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n").bytes());
        body.extend_from_slice(content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{boundary}--\r\n").bytes());
    let media = format!("multipart/form-data; boundary={boundary}");
    send(client, query, &[headers, &[("content-type", media.as_str())]].concat(), body).await
}

/// The import's document at its end.
pub async fn finished(client: &Client, answer: &Answer) -> Value {
    let id = answer.json["id"].as_str().unwrap_or_else(|| panic!("no id in {answer:?}")).to_owned();
    eventually("the import's end", async || {
        let document = get(client, &format!("/v1/imports/{id}")).await.json;
        (document["finished_at"].is_string() && document["state"] != "running").then_some(document)
    })
    .await
}

/// Gets something of the command service.
pub async fn get(client: &Client, path: &str) -> Answer {
    client.try_command(Method::GET, path, &[], "").await.expect("the command service answers")
}

/// The outcomes of all rows, in their order.
pub async fn rows(client: &Client, import: &Value) -> Vec<Value> {
    let answer = get(client, &format!("/v1/imports/{}/rows", import["id"].as_str().expect("an id"))).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let lines = answer.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect()
}

/// `[read, created, updated, unchanged, in_review, refused]`
pub fn tally(import: &Value) -> [u64; 6] {
    let count = |name: &str| import["rows"][name].as_u64().unwrap_or_else(|| panic!("no count in {import}"));
    let tally = ["read", "created", "updated", "unchanged", "in_review", "refused"].map(count);
    assert_eq!(tally[0], tally[1..].iter().sum::<u64>(), "every row is accounted for: {import}");
    tally
}

/// `[created, updated, unchanged]` of `companies` or `prospects`.
pub fn records(import: &Value, which: &str) -> [u64; 3] {
    ["created", "updated", "unchanged"].map(|name| import[which][name].as_u64().expect("a count"))
}

/// Events of companies and prospects in the log.
pub async fn events_of_records(test: &TestStack) -> i64 {
    let primary = test.superuser(local_stack::Part::Primary).await;
    let sql = "SELECT count(*) FROM log.events WHERE aggregate_type IN ('company', 'prospect')";
    primary.query_one(sql, &[]).await.expect("a count").get(0)
}

/// How often each reason was given.
pub fn reasons(rows: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for row in rows {
        for reason in row["reasons"].as_array().expect("reasons") {
            *counts.entry(reason["code"].as_str().expect("a code").to_owned()).or_insert(0) += 1;
        }
    }
    counts
}

fn real_data(name: &str) -> Option<Vec<u8>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let file = std::env::var_os("PROSPECTUS_TEST_DATA").map_or(beside, PathBuf::from).join(name);
    if !file.is_file() {
        println!(
            "no real data: {} is not there (PROSPECTUS_TEST_DATA names its folder); this test is left out",
            file.display()
        );
        return None;
    }
    Some(std::fs::read(file).expect("the file can be read"))
}

fn mapping(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/local/mappings");
    std::fs::read_to_string(folder.join(name)).expect("the mapping is there")
}

#[tokio::test(flavor = "multi_thread")]
async fn real_companies_with_their_founders_are_all_accounted_for() {
    let Some(list) = real_data("yc-companies.csv") else { return };
    let test = TestStack::start().await;
    let client = test.client();
    let first = import_mapped(&client, "source=yc", &mapping("yc-companies.toml"), &list).await;
    assert_eq!(tally(&first), [4663, 4663, 0, 0, 0, 0]);
    // Two pairs of lines claim one website each: one company with both ids, and the second line's values stand in the report.
    assert_eq!((records(&first, "companies"), records(&first, "prospects")), ([4661, 0, 0], [9172, 0, 0]));
    let outcomes = rows(&client, &first).await;
    let counts = reasons(&outcomes);
    assert_eq!((counts["shared_host"], counts["conflict"]), YC_AWKWARD, "{counts:?}");
    // A website on somebody else's host makes no domain; the company stands by its id.
    let hosted = outcomes.iter().find(|row| row["reasons"].to_string().contains("shared_host")).expect("a hosted one");
    let company = client
        .read(&format!("/v1/companies/{}", hosted["company_id"].as_str().expect("an id")), first["position"].as_i64())
        .await;
    assert_eq!((company.status, &company.json["domain"]), (StatusCode::OK, &Value::Null), "{company:?}");
    assert_eq!(company.json["external_refs"][0]["source"], "yc");
    let twice = outcomes
        .iter()
        .find(|row| row["reasons"].to_string().contains("\"field\":\"name\""))
        .expect("a shared website");
    let company = client
        .read(&format!("/v1/companies/{}", twice["company_id"].as_str().expect("an id")), first["position"].as_i64())
        .await;
    assert_eq!(company.json["external_refs"].as_array().map(Vec::len), Some(2), "{company:?}");

    let before = events_of_records(&test).await;
    let second = import_mapped(&client, "source=yc", &mapping("yc-companies.toml"), &list).await;
    assert_eq!(tally(&second), [4663, 0, 0, 4663, 0, 0]);
    assert_eq!((records(&second, "companies"), records(&second, "prospects")), ([0, 0, 4661], [0, 0, 9172]));
    assert_eq!(events_of_records(&test).await, before, "the same file twice leads to no event");
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}

/// Rows whose website is somebody else's host, and contradictions of the two shared websites' rows.
const YC_AWKWARD: (usize, usize) = (13, 5);

#[tokio::test(flavor = "multi_thread")]
async fn companies_with_two_classes_of_shares_are_one() {
    let Some(list) = real_data("sp500-constituents.csv") else { return };
    let test = TestStack::start().await;
    let client = test.client();
    let import = import_mapped(&client, "source=cik", &mapping("sp500-constituents.toml"), &list).await;
    assert_eq!((tally(&import), records(&import, "companies")), ([503, 500, 3, 0, 0, 0], [500, 0, 0]));
    // The second line's symbol and name are newer in the list; the first ones stand in the report.
    let outcomes = rows(&client, &import).await;
    let alphabet = outcomes
        .iter()
        .rfind(|row| row["text"].as_str().is_some_and(|text| text.contains("Alphabet")))
        .expect("Alphabet");
    assert!(alphabet["reasons"].to_string().contains("\"lost\":\"GOOGL\""), "{alphabet}");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lines_about_one_company_at_the_same_time_are_one_company() {
    let test = TestStack::start().await;
    let client = test.client();
    let list = |part: usize| -> String {
        let lines = (0..600).map(|line| {
            let company = line % 150;
            format!("p{part}-{line}@company{company}.example,Person {line},Company {company}\n")
        });
        std::iter::once("Email,Full Name,Company\n".to_owned()).chain(lines).collect()
    };
    let imports = futures_util::future::join_all((0..4).map(|part| {
        let (client, list) = (client.clone(), list(part));
        async move { import(&client, "source=crm", list).await }
    }))
    .await;
    let mut sums = [0; 2];
    for document in &imports {
        assert_eq!(document["state"], "done", "{document}");
        assert_eq!(tally(document)[5], 0, "{document}");
        sums[0] += records(document, "companies")[0];
        sums[1] += records(document, "prospects")[0];
    }
    assert_eq!(sums, [150, 2400], "each company was made by one of the imports");
    let position = imports.iter().filter_map(|document| document["position"].as_i64()).max();
    let count = client.read("/v1/companies?limit=1&count=exact", position).await;
    assert_eq!(count.json["count"], json!(150), "{count:?}");
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}
