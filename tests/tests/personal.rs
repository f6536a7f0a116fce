//! I8: no plain personal data in the log's tables, in NATS's directory or in what the services print.

use std::path::Path;

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::{Value, json};
use tests::{TestStack, eventually};

/// A marker for every personal field; the search looks for the part that they share.
const MARK: &str = "Xq7Marker";

fn marked() -> Value {
    json!({
        "salutation": format!("{MARK}Sal"), "first_name": format!("{MARK}First"), "last_name": format!("{MARK}Last"),
        "email": format!("{MARK}@mail.example"), "phone": format!("{MARK} 12"), "mobile_phone": format!("{MARK} 13"),
        "address": format!("{MARK} Street 1"), "city": format!("{MARK}City"), "state": format!("{MARK}State"),
        "zip_code": format!("{MARK}Zip"), "job_title_link": format!("https://links.example/{MARK}"),
        "external_refs": [{"source": format!("{MARK}Source"), "id": format!("{MARK}Id")}],
        "attributes": {format!("{MARK}Key"): format!("{MARK}Value")},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_personal_value_is_found_outside_the_read_tables() {
    let test = TestStack::start().await;
    let client = test.client();
    let answer = client.command(Method::POST, "/v1/prospects", &marked()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let id = answer.id();
    let changed = json!({"first_name": format!("{MARK}Changed"), "attributes": {format!("{MARK}Key"): null}});
    client.command(Method::PATCH, &format!("/v1/prospects/{id}"), &changed).await;
    // Refused in every way that knows the values: a taken reference, wrong fields, bad JSON, a reused key.
    assert_eq!(client.command(Method::POST, "/v1/prospects", &marked()).await.status, StatusCode::CONFLICT);
    let mut wrong = marked();
    wrong["email"] = json!(MARK);
    wrong[format!("{MARK}Unknown")] = json!(1);
    assert_eq!(client.command(Method::POST, "/v1/prospects", &wrong).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let broken = format!("{{\"first_name\": \"{MARK}\", ");
    let refused = client.try_command(Method::POST, "/v1/prospects", &[], broken).await.expect("an answer");
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    for body in [json!({"first_name": format!("{MARK}A")}), json!({"first_name": format!("{MARK}B")})] {
        let headers = [("idempotency-key", "same")];
        client.try_command(Method::POST, "/v1/prospects", &headers, body.to_string()).await.expect("an answer");
    }
    let last = client.command(Method::POST, &format!("/v1/prospects/{id}/assign"), &json!({"company_id": null})).await;
    assert_eq!(last.status, StatusCode::OK);
    let found =
        client.read(&format!("/v1/prospects?email={}@mail.example", MARK.to_lowercase()), Some(last.position())).await;
    assert_eq!(found.json["items"].as_array().map(Vec::len), Some(1), "{found:?}");
    eventually("the relay has published", async || {
        let nats = files_with(&test.directory().join("nats"), b"ProspectRegistered");
        (!nats.is_empty()).then_some(())
    })
    .await;

    let superuser = test.superuser(Part::Primary).await;
    superuser.batch_execute("CHECKPOINT").await.expect("a checkpoint");
    let files_of = async |schema: &str| {
        let sql = "SELECT pg_relation_filepath(c.oid) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                   WHERE c.relkind IN ('r', 'i', 't', 'm') AND (n.nspname = $1 OR c.oid IN (
                       SELECT t.reltoastrelid FROM pg_class AS t JOIN pg_namespace AS m ON m.oid = t.relnamespace WHERE m.nspname = $1))";
        let rows = superuser.query(sql, &[&schema]).await.expect("the catalogue");
        let primary = test.directory().join("postgres_primary");
        rows.iter().map(|row| primary.join(row.get::<_, String>(0))).collect::<Vec<_>>()
    };
    let holds = |files: &[std::path::PathBuf]| {
        let lower = MARK.to_lowercase();
        files.iter().any(|file| contains(file, MARK.as_bytes()) || contains(file, lower.as_bytes()))
    };
    assert!(holds(&files_of("read_1").await), "the search can find: the read tables hold it");
    assert!(!holds(&files_of("log").await), "the log's tables");
    for place in ["nats", "logs"] {
        let directory = test.directory().join(place);
        let lower = MARK.to_lowercase();
        let found = [files_with(&directory, MARK.as_bytes()), files_with(&directory, lower.as_bytes())].concat();
        assert!(found.is_empty(), "{place}: {found:?}");
    }
    let rows = superuser.query("SELECT row_to_json(e)::text FROM log.events AS e", &[]).await.expect("the log");
    assert_eq!(rows.len(), 3, "registered twice, changed once");
    assert!(rows.iter().all(|row| !row.get::<_, String>(0).contains(MARK)));
    test.finish().await;
}

fn contains(file: &Path, text: &[u8]) -> bool {
    std::fs::read(file).is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text))
}

/// The files below a directory that hold a text.
fn files_with(directory: &Path, text: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if contains(&path, text) {
            found.push(path);
        }
    }
    found
}
