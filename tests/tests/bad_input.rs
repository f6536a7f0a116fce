//! Bad input gets a problem document that says what to do, and nothing is written.

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::{Value, json};
use service_kit::auth::ApiKey;
use tests::{Answer, Client, TestStack, eventually};

/// What is expected of a wrong request: status, code, and pointers of the errors that it lists (in any order; none: not looked at).
type Expected<'a> = (u16, &'a str, &'a [&'a str]);

/// A wrong command: method, path, headers, body.
type Command<'a> = (Method, &'a str, Vec<(&'a str, &'a str)>, Vec<u8>, Expected<'a>);

/// A wrong query: method, path, headers.
type Query<'a> = (Method, &'a str, Vec<(&'a str, &'a str)>, Expected<'a>);

fn assert_problem(what: &str, answer: &Answer, (status, code, pointers): Expected<'_>) {
    let told = || format!("{what}: {answer:?}");
    assert_eq!(answer.status.as_u16(), status, "{}", told());
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{}", told());
    assert!(answer.headers.contains_key("x-request-id"), "{}", told());
    let problem = &answer.json;
    assert_eq!(problem["status"], status, "{}", told());
    assert!(problem["type"].as_str().is_some_and(|text| text.ends_with(&format!("/{code}"))), "{}", told());
    for member in ["title", "detail", "instance"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {}", told());
    }
    let mut found: Vec<&str> =
        problem["errors"].as_array().into_iter().flatten().filter_map(|error| error["pointer"].as_str()).collect();
    found.sort_unstable();
    if !pointers.is_empty() {
        assert_eq!(found, pointers, "{}", told());
    }
    if status == 503 {
        assert!(answer.headers.contains_key("retry-after"), "{}", told());
    }
}

/// The service's description names the answer, where it has the endpoint.
fn assert_described(description: &Value, method: &Method, path: &str, status: u16) {
    let segments: Vec<&str> = path.split('?').next().unwrap_or_default().split('/').collect();
    let is_at = |template: &str| {
        let template: Vec<&str> = template.split('/').collect();
        template.len() == segments.len()
            && template.iter().zip(&segments).all(|(wanted, given)| wanted.starts_with('{') || wanted == given)
    };
    let paths = description["paths"].as_object().expect("paths");
    let found = paths.iter().find(|(template, _)| is_at(template));
    let operation = found.and_then(|(_, methods)| methods.get(method.as_str().to_ascii_lowercase()));
    // Another method or path is no endpoint's answer.
    assert!(operation.is_some() || [404, 405].contains(&status), "{method} {path} is not described");
    if let Some(operation) = operation {
        let document = &operation["responses"][status.to_string()]["content"]["application/problem+json"]["schema"];
        assert_eq!(document["$ref"], "#/components/schemas/Problem", "{status} of {method} {path}: {operation}");
    }
}

async fn head(log: &tokio_postgres::Client) -> i64 {
    log.query_one("SELECT position FROM log.head", &[]).await.expect("the log can be read").get(0)
}

/// A key of the tenant `demo` with a role.
async fn key(log: &tokio_postgres::Client, role: &str) -> String {
    let key = ApiKey::generate().expect("random numbers");
    log.execute(
        "INSERT INTO access.api_keys (prefix, tenant_id, secret_sha256, role)
         SELECT $1, tenant_id, $2, $3 FROM access.tenants WHERE name = 'demo'",
        &[&key.prefix(), &&key.secret_sha256()[..], &role],
    )
    .await
    .expect("a key");
    key.expose().to_owned()
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_command_gets_a_problem_and_nothing_is_written() {
    let test = TestStack::start().await;
    let client = test.client();
    let log = test.superuser(Part::Primary).await;
    let first = json!({"name": "First", "domain": "first.example"});
    let company = client.command(Method::POST, "/v1/companies", &first).await.id();
    let used = [("idempotency-key", "used")];
    let kept =
        client.try_command(Method::POST, "/v1/companies", &used, r#"{"name": "Kept"}"#).await.expect("an answer");
    assert_eq!(kept.status, StatusCode::CREATED);
    let before = head(&log).await;

    let large = format!(r#"{{"name": "{}"}}"#, "x".repeat(1 << 20));
    let many_fields = json!({
        "name": "", "domain": "co.uk", "country": "Nowhere", "revenue": "much", "revenue_currency": "XXZ", "logo_url": "nope",
        "min_employee_size": 9, "max_employee_size": 3, "founding_date": "13-13", "colour": "red", "company_id": company,
        "email_address": "a@b@c", "attributes": {"a": {"b": 1}},
    });
    let wrong_fields: Expected<'_> = (
        422,
        "invalid_fields",
        &[
            "/attributes/a",
            "/colour",
            "/company_id",
            "/country",
            "/domain",
            "/email_address",
            "/founding_date",
            "/logo_url",
            "/min_employee_size",
            "/name",
            "/revenue",
            "/revenue_currency",
        ],
    );
    let person = json!({"email": "nobody", "phone": "none", "company_id": "x", "job_title_level": 3, "first_name": 7});
    let wrong_person: Expected<'_> =
        (422, "invalid_fields", &["/company_id", "/email", "/first_name", "/job_title_level", "/phone"]);
    let at = format!("/v1/companies/{company}");
    let nobody = "/v1/companies/00000000-0000-7000-8000-000000000000";
    let long_key = "k".repeat(256);
    let cases: Vec<Command<'_>> = vec![
        (Method::POST, "/v1/companies", vec![], many_fields.to_string().into(), wrong_fields),
        (Method::POST, "/v1/prospects", vec![], person.to_string().into(), wrong_person),
        (Method::POST, "/v1/prospects", vec![], b"{}".to_vec(), (422, "invalid_fields", &[])),
        (Method::POST, "/v1/companies", vec![], b"{".to_vec(), (400, "invalid_json", &[])),
        (Method::POST, "/v1/companies", vec![], b"{} {}".to_vec(), (400, "invalid_json", &[])),
        (Method::POST, "/v1/companies", vec![], br#"{"name": "a", "name": "b"}"#.to_vec(), (400, "invalid_json", &[])),
        (Method::POST, "/v1/companies", vec![], b"[]".to_vec(), (400, "invalid_json", &[])),
        (Method::POST, "/v1/companies", vec![], b"{\"name\": \"\xff\"}".to_vec(), (400, "invalid_utf8", &[])),
        (Method::POST, "/v1/companies", vec![], large.clone().into(), (413, "body_too_large", &[])),
        (
            Method::POST,
            "/v1/companies",
            vec![("content-type", "text/plain")],
            b"{}".to_vec(),
            (415, "unsupported_media_type", &[]),
        ),
        (Method::POST, "/v1/companies?dry_run=true", vec![], b"{}".to_vec(), (400, "unknown_parameter", &[])),
        (Method::PUT, "/v1/companies", vec![], b"{}".to_vec(), (405, "method_not_allowed", &[])),
        (Method::GET, &at, vec![], vec![], (405, "method_not_allowed", &[])),
        (Method::POST, "/v1/nothing", vec![], b"{}".to_vec(), (404, "not_found", &[])),
        (Method::PATCH, nobody, vec![], br#"{"name": "A"}"#.to_vec(), (404, "not_found", &[])),
        (Method::PATCH, "/v1/companies/no-id", vec![], br#"{"name": "A"}"#.to_vec(), (404, "not_found", &[])),
        (Method::POST, "/v1/companies", vec![], first.to_string().into(), (409, "claim_taken", &[])),
        (
            Method::PATCH,
            &at,
            vec![("if-match", "\"7\"")],
            br#"{"name": "A"}"#.to_vec(),
            (412, "precondition_failed", &[]),
        ),
        (
            Method::PATCH,
            &at,
            vec![("if-match", "seven")],
            br#"{"name": "A"}"#.to_vec(),
            (400, "invalid_parameter", &[]),
        ),
        (Method::PATCH, &at, vec![], br#"{"social_media": []}"#.to_vec(), (422, "invalid_fields", &["/social_media"])),
        (
            Method::POST,
            "/v1/companies",
            vec![("idempotency-key", "used")],
            br#"{"name": "Other"}"#.to_vec(),
            (422, "idempotency_key_reused", &[]),
        ),
        (
            Method::POST,
            "/v1/companies",
            vec![("idempotency-key", &long_key)],
            br#"{"name": "A"}"#.to_vec(),
            (400, "invalid_parameter", &[]),
        ),
        (
            Method::POST,
            "/v1/prospects",
            vec![],
            br#"{"first_name": "Ada", "company_id": "00000000-0000-7000-8000-000000000000"}"#.to_vec(),
            (422, "invalid_fields", &["/company_id"]),
        ),
        (
            Method::POST,
            "/v1/batch",
            vec![("content-type", "text/csv")],
            b"a,b".to_vec(),
            (415, "unsupported_media_type", &[]),
        ),
        (Method::POST, "/v1/domains/explain", vec![], b"{}".to_vec(), (422, "invalid_fields", &["/input"])),
        (
            Method::POST,
            "/v1/domains/explain",
            vec![],
            br#"{"input": 7, "colour": "red"}"#.to_vec(),
            (422, "invalid_fields", &["/colour", "/input"]),
        ),
        (Method::POST, "/v1/domains/explain", vec![], large.clone().into(), (413, "body_too_large", &[])),
    ];
    let description = client.get_from(&test.stack.url(Part::CommandService(1)), "/openapi.json").await.json;
    for (method, path, headers, body, expected) in cases {
        assert_described(&description, &method, path, expected.0);
        let what = format!("{method} {path} {headers:?} {}", String::from_utf8_lossy(&body[..body.len().min(100)]));
        let answer = client.try_command(method, path, &headers, body).await.expect("an answer");
        assert_problem(&what, &answer, expected);
        match expected.1 {
            "claim_taken" => assert_eq!(answer.json["claimed_by"], company, "{answer:?}"),
            "precondition_failed" => assert_eq!(answer.json["version"], 1, "{answer:?}"),
            "method_not_allowed" => assert!(answer.headers.contains_key("allow"), "{answer:?}"),
            "body_too_large" => assert_eq!(answer.json["limit"], 1 << 20, "{answer:?}"),
            _ => {}
        }
    }
    for status in [401, 403, 503] {
        assert_described(&description, &Method::POST, "/v1/companies", status);
    }
    for (wrong, expected) in [("pk_none.none", (401, "unauthenticated")), ("", (401, "unauthenticated"))] {
        let answer = test.client_with(wrong).command(Method::POST, "/v1/companies", &json!({"name": "A"})).await;
        assert_problem(wrong, &answer, (expected.0, expected.1, &[]));
    }
    for role in ["reader", "auditor"] {
        let other = test.client_with(&key(&log, role).await);
        let answer = other.command(Method::POST, "/v1/companies", &json!({"name": "A"})).await;
        assert_problem(role, &answer, (403, "forbidden", &[]));
        // Asking where an address leads changes nothing: whoever may read may ask.
        let answer = other.command(Method::POST, "/v1/domains/explain", &json!({"input": "ada@Mail.Acme.co.uk"})).await;
        assert_eq!((answer.status.as_u16(), &answer.json["domain"]), (200, &json!("acme.co.uk")), "{answer:?}");
    }
    assert_eq!(head(&log).await, before, "nothing was written");

    // In a batch each bad line fails alone, however large or broken it is.
    let lines = [
        r#"{"method": "POST", "path": "/v1/companies", "body": {"name": "Good one"}}"#.to_owned(),
        "{".to_owned(),
        format!(r#"{{"method": "POST", "path": "/v1/companies", "body": {large}}}"#),
        r#"{"method": "GET", "path": "/v1/companies"}"#.to_owned(),
        r#"{"method": "POST", "path": "/v1/companies", "body": {"name": ""}}"#.to_owned(),
        r#"{"method": "POST", "path": "/v1/companies", "body": {"name": "Good two"}}"#.to_owned(),
    ];
    let answer = client.try_command(Method::POST, "/v1/batch", &[], lines.join("\n")).await.expect("an answer");
    let statuses: Vec<Value> = answer
        .bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice::<Value>(line).expect("JSON")["status"].clone())
        .collect();
    assert_eq!(statuses, [201, 400, 413, 405, 422, 201].map(Value::from), "{answer:?}");
    assert_eq!(head(&log).await, before + 2);
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_query_gets_a_problem() {
    let test = TestStack::start().await;
    let client = test.client();
    let log = test.superuser(Part::Primary).await;
    for name in ["A", "B", "C"] {
        client.command(Method::POST, "/v1/companies", &json!({"name": name})).await;
    }
    let position = head(&log).await;
    let page = client.read("/v1/companies?limit=1&sort=name", Some(position)).await;
    let cursor = page.json["next_cursor"].as_str().expect("there are more").to_owned();
    let changed = format!("/v1/companies?limit=1&sort=-name&cursor={cursor}");
    let ahead = (position + 1_000).to_string();
    let cases: Vec<Query<'_>> = vec![
        (Method::GET, "/v1/companies?cursor=zzz", vec![], (400, "invalid_cursor", &[])),
        (Method::GET, &changed, vec![], (400, "invalid_cursor", &[])),
        (Method::GET, "/v1/companies?limit=0", vec![], (400, "invalid_parameter", &["limit"])),
        (Method::GET, "/v1/companies?limit=1001", vec![], (400, "invalid_parameter", &["limit"])),
        (Method::GET, "/v1/companies?limit=99999999999999999999", vec![], (400, "invalid_parameter", &["limit"])),
        (Method::GET, "/v1/companies?colour=red", vec![], (400, "unknown_parameter", &["colour"])),
        (Method::GET, "/v1/companies?sort=colour", vec![], (400, "invalid_parameter", &["sort"])),
        (Method::GET, "/v1/companies?fields=colour", vec![], (400, "invalid_parameter", &["fields"])),
        (Method::GET, "/v1/companies?revenue_min=much", vec![], (400, "invalid_parameter", &["revenue_min"])),
        (Method::GET, "/v1/companies?name=%ff", vec![], (400, "invalid_utf8", &[])),
        (Method::GET, "/v1/events?after=-1", vec![], (400, "invalid_parameter", &["after"])),
        (Method::GET, "/v1/companies/no-id", vec![], (404, "not_found", &[])),
        (Method::GET, "/v1/nothing", vec![], (404, "not_found", &[])),
        (Method::DELETE, "/v1/companies", vec![], (405, "method_not_allowed", &[])),
        (Method::GET, "/v1/companies", vec![("prospectus-min-position", "soon")], (400, "invalid_parameter", &[])),
        (
            Method::GET,
            "/v1/companies",
            vec![("prospectus-min-position", &ahead), ("prefer", "wait=0")],
            (503, "not_fresh", &[]),
        ),
        (Method::GET, "/v1/companies", vec![("prospectus-min-position", "1.00000000-1")], (409, "epoch_mismatch", &[])),
    ];
    for (method, path, headers, expected) in cases {
        let what = format!("{method} {path} {headers:?}");
        assert_problem(&what, &client.read_with(method, path, &headers).await, expected);
    }
    let nobody: Client = test.client_with("pk_none.none");
    assert_problem("no key", &nobody.read("/v1/companies", None).await, (401, "unauthenticated", &[]));
    for (role, status) in [("auditor", 200), ("reader", 403)] {
        let other = test.client_with(&key(&log, role).await);
        let answer = eventually("the key is on the replica", async || {
            let answer = other.read("/v1/events?after=0", None).await;
            (answer.status != StatusCode::UNAUTHORIZED).then_some(answer)
        })
        .await;
        assert_eq!(answer.status, status, "{role}: {answer:?}");
    }
    assert_eq!(head(&log).await, position);
    test.finish().await;
}
