//! Reads are noted, where a tenant asks for it, before anything is shown.

use serde_json::{Value, json};

use crate::events::event;
use crate::support::{OTHER_TENANT, Stack, TENANT, id};

async fn audited() -> Stack {
    let stack = Stack::new().await;
    stack.sql(&format!("UPDATE access.tenants SET audit_reads = true WHERE tenant_id = '{TENANT}'")).await;
    stack.company(&id(10), "domain", "'example.com'").await;
    stack.company(&id(11), "domain", "'b.com'").await;
    stack.prospect(&id(20), "first_name", "'Ada'").await;
    stack
        .sql(&format!(
            "INSERT INTO log.events SELECT 1, '{TENANT}', 'company', '{}', 1, gen_random_uuid(), 'CompanyRegistered', 1,
                 '{{\"profile\":{{\"name\":\"Acme\"}}}}', '{{\"actor\":\"key:pk_x\"}}', '2026-01-01T00:00:00Z'",
            id(10)
        ))
        .await;
    stack
}

/// All that was noted: the endpoint, the records.
async fn noted(stack: &Stack) -> Vec<(String, Value)> {
    let page = stack.get("/v1/reads").await.json();
    let items = page["items"].as_array().expect("items").clone();
    items
        .iter()
        .map(|item| (item["endpoint"].as_str().expect("a text").to_owned(), item["record_ids"].clone()))
        .collect()
}

#[tokio::test]
async fn what_was_shown_to_whom_is_noted_in_order() {
    let stack = audited().await;
    let request = "X-Request-Id: 00000000-0000-7000-8000-000000000777\r\n";
    assert_eq!(stack.request("GET", &format!("/v1/prospects/{}", id(20)), &stack.reader, request).await.status, 200);
    for path in ["/v1/companies", "/v1/company-prospects", "/v1/events", "/v1/projections"] {
        assert_eq!(stack.get(path).await.status, 200, "{path}");
    }
    assert_eq!(stack.get(&format!("/v1/companies/{}/history", id(10))).await.status, 200);
    assert_eq!(stack.get(&format!("/v1/companies/{}?as_of_version=1", id(10))).await.status, 200);
    // Nothing is shown, so nothing is noted.
    assert_eq!(stack.get(&format!("/v1/companies/{}", id(99))).await.status, 404);
    assert_eq!(stack.get_with("/v1/events", "Accept: application/x-ndjson\r\n").await.status, 200);
    let expected = [
        ("/v1/prospects/{id}", json!([id(20)])),
        ("/v1/companies", json!([id(10), id(11)])),
        ("/v1/company-prospects", json!([id(20)])),
        ("/v1/events", json!([id(10)])),
        ("/v1/companies/{id}/history", json!([id(10)])),
        ("/v1/companies/{id}", json!([id(10)])),
        ("/v1/events", json!([id(10)])),
    ];
    assert_eq!(noted(&stack).await, expected.map(|(endpoint, records)| (endpoint.to_owned(), records)));
    let first = stack.get("/v1/reads?limit=1").await.json();
    let item = &first["items"][0];
    let prefix = stack.reader.split_once('.').expect("a key").0;
    assert_eq!((&item["key"], &item["actor_role"]), (&json!(prefix), &json!("reader")));
    assert_eq!(item["request_id"], "00000000-0000-7000-8000-000000000777");
    assert_eq!((&item["client_address"], &first["next_cursor"]), (&json!("127.0.0.1"), &json!("1")));
    let second = stack.get("/v1/reads?limit=1&cursor=1").await.json();
    assert_eq!(second["items"][0]["position"], 2);
    // Who looked at which person.
    let of = stack.get(&format!("/v1/reads?record_id={}", id(20))).await.json();
    let endpoints: Vec<&str> =
        of["items"].as_array().expect("items").iter().filter_map(|item| item["endpoint"].as_str()).collect();
    assert_eq!(endpoints, ["/v1/prospects/{id}", "/v1/company-prospects"]);
    let next = stack.get(&format!("/v1/reads?record_id={}&limit=1&after=1", id(20))).await.json();
    assert_eq!(next["items"][0]["position"], 3);
    assert_eq!(stack.get("/v1/reads?record_id=ada").await.code(), "invalid_parameter");
    let others = stack.request("GET", &format!("/v1/reads?record_id={}", id(20)), &stack.other_key, "").await;
    assert_eq!(others.body, "{\"items\":[]}", "another tenant's");
    assert_eq!(stack.request("GET", "/v1/reads", &stack.reader, "").await.status, 403);
    let others = stack.request("GET", "/v1/reads", &stack.other_key, "").await;
    assert_eq!(others.body, "{\"items\":[]}", "another tenant's");
}

#[tokio::test]
async fn what_cannot_be_noted_is_not_shown() {
    let stack = audited().await;
    stack.sql("REVOKE EXECUTE ON FUNCTION log.note_reads FROM prospectus_reads").await;
    for path in [format!("/v1/prospects/{}", id(20)), "/v1/companies".to_owned(), "/v1/events".to_owned()] {
        let refused = stack.get(&path).await;
        assert_eq!((refused.status, refused.code().as_str()), (503, "database_unavailable"), "{path}");
        assert!(!refused.body.contains("Ada") && !refused.body.contains("example.com"), "{}", refused.body);
    }
    // A stream breaks off before the first event.
    let lines = stack.get_with("/v1/events", "Accept: application/x-ndjson\r\n").await;
    assert!(!lines.body.contains("position"), "{}", lines.body);
    // Who does not ask for it is not kept waiting by it.
    event(&stack, 2, OTHER_TENANT, &id(30), "{}").await;
    assert_eq!(stack.request("GET", "/v1/events", &stack.other_key, "").await.status, 200);
    stack.sql("GRANT EXECUTE ON FUNCTION log.note_reads TO prospectus_reads").await;
    assert_eq!(stack.get("/v1/companies").await.status, 200);
}

/// A route that is added and does not say what it shows would be answered 500 here.
#[tokio::test]
async fn every_endpoint_says_which_records_it_shows() {
    let stack = audited().await;
    let description = stack.get("/openapi.json").await.json();
    let paths: Vec<&String> = description["paths"].as_object().expect("paths").keys().collect();
    assert!(paths.len() >= 12, "{paths:?}");
    for path in paths {
        let path = path.replace("{name}", "overview");
        let record = if path.starts_with("/v1/prospects") { id(20) } else { id(10) };
        let query = match path.as_str() {
            "/v1/log/proofs/inclusion" => "?position=1",
            "/v1/log/proofs/consistency" => "?from=1",
            _ => "",
        };
        let answer = stack.get(&(path.replace("{id}", &record) + query)).await;
        assert!([200, 404].contains(&answer.status), "{path}: {}", answer.body);
    }
}
