//! One record by its id.

use insta::assert_snapshot;

use crate::support::{OTHER_TENANT, Stack, TENANT, id};

#[tokio::test]
async fn a_company_shows_every_field() {
    let stack = Stack::new().await;
    stack.checkpoint(7).await;
    stack
        .company(
            &id(10),
            "domain, name, name_sort, revenue, revenue_currency, attributes, external_refs",
            "'example.com', 'Example \"é\"', 'example', 9007199254740993, 'USD', '{\"a\": 1}', '[{\"source\": \"crm\", \"id\": \"1\"}]'",
        )
        .await;
    let answer = stack.get(&format!("/v1/companies/{}", id(10))).await;
    assert_snapshot!(answer.shown(), @r##"
    200
    {
      "additional_domains": [],
      "address": null,
      "attributes": {
        "a": 1
      },
      "city": null,
      "company_id": "00000000-0000-7000-8000-000000000010",
      "company_type": null,
      "country": null,
      "created_at": "2026-01-02T03:04:05.678Z",
      "deleted_at": null,
      "domain": "example.com",
      "email_address": null,
      "employee_count": null,
      "employee_size_link": null,
      "external_refs": [
        {
          "id": "1",
          "source": "crm"
        }
      ],
      "flags": [],
      "founding_date": null,
      "industry": null,
      "legal_name": null,
      "logo_url": null,
      "long_description": null,
      "max_employee_size": null,
      "merged_into": null,
      "min_employee_size": null,
      "mobile_phone": null,
      "name": "Example \"é\"",
      "phone": null,
      "position": 7,
      "revenue": 9007199254740993,
      "revenue_currency": "USD",
      "short_description": null,
      "social_media": [],
      "state": null,
      "updated_at": "2026-02-03T04:05:06Z",
      "version": 3,
      "zip_code": null
    }
    "##);
    assert_eq!((answer.header("etag"), answer.header("prospectus-position")), ("\"3\"", "7"));
    assert_eq!(answer.header("prospectus-epoch"), "1.00000001");
    let head = stack.request("HEAD", &format!("/v1/companies/{}", id(10)), &stack.key, "").await;
    assert_eq!((head.status, head.header("etag"), head.body.as_str()), (200, "\"3\"", ""));
    let some = stack.get(&format!("/v1/companies/{}?fields=name,revenue", id(10))).await;
    assert_snapshot!(some.body, @r##"{"name":"Example \"é\"","revenue":9007199254740993}"##);
}

#[tokio::test]
async fn an_etag_saves_the_body() {
    let stack = Stack::new().await;
    stack.company(&id(10), "domain", "'example.com'").await;
    let path = format!("/v1/companies/{}", id(10));
    for tags in ["\"3\"", "W/\"3\"", "\"1\", \"3\"", "*"] {
        let answer = stack.get_with(&path, &format!("If-None-Match: {tags}\r\n")).await;
        assert_eq!((answer.status, answer.body.as_str(), answer.header("etag")), (304, "", "\"3\""), "{tags}");
    }
    assert_eq!(stack.get_with(&path, "If-None-Match: \"2\"\r\n").await.status, 200);
}

#[tokio::test]
async fn what_is_not_there_is_the_same_as_what_is_anothers() {
    let stack = Stack::new().await;
    stack.company(&id(10), "domain", "'example.com'").await;
    stack.prospect(&id(20), "first_name", "'Ada'").await;
    let mut seen = Vec::new();
    for (key, path) in [
        (&stack.other_key, format!("/v1/companies/{}", id(10))),
        (&stack.key, format!("/v1/companies/{}", id(99))),
        (&stack.key, "/v1/companies/none".to_owned()),
        (&stack.other_key, format!("/v1/prospects/{}", id(20))),
        (&stack.key, format!("/v1/prospects/{}", id(10))),
    ] {
        let answer = stack.request("GET", &path, key, "").await;
        seen.push(answer.shown());
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:#?}");
    assert_snapshot!(seen[0], @r##"
    404
    {
      "code": "not_found",
      "detail": "there is no such record",
      "status": 404,
      "title": "Not found",
      "type": "/problems/not_found"
    }
    "##);
    for path in ["/v1/companies", "/v1/prospects", "/v1/company-prospects", "/v1/events"] {
        let answer = stack.request("GET", path, &stack.other_key, "").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "{\"items\":[]}"), "{path}");
    }
    assert_ne!(TENANT, OTHER_TENANT);
}

#[tokio::test]
async fn deleted_and_merged_companies_say_so() {
    let stack = Stack::new().await;
    stack.company(&id(10), "domain, deleted_at", "'example.com', '2026-03-01T00:00:00Z'").await;
    stack
        .company(&id(11), "domain, deleted_at, merged_into", &format!("'b.com', '2026-03-01T00:00:00Z', '{}'", id(12)))
        .await;
    stack.checkpoint(7).await;
    for missing in [id(10), id(99)] {
        let answer = stack.get(&format!("/v1/companies/{missing}")).await;
        assert_eq!(
            (answer.header("prospectus-position"), answer.header("prospectus-epoch"), answer.header("cache-control")),
            ("7", "1.00000001", "private, no-cache"),
            "{}",
            answer.status
        );
    }
    let gone = stack.get(&format!("/v1/companies/{}", id(10))).await;
    assert_snapshot!(gone.shown(), @r##"
    410
    {
      "code": "gone",
      "deleted_at": "2026-03-01T00:00:00Z",
      "detail": "the record is deleted; ?include_deleted=true shows it",
      "status": 410,
      "title": "The record is deleted",
      "type": "/problems/gone"
    }
    "##);
    let shown = stack.get(&format!("/v1/companies/{}?include_deleted=true", id(10))).await;
    assert_eq!((shown.status, shown.json()["deleted_at"].as_str()), (200, Some("2026-03-01T00:00:00Z")));
    let moved = stack.get(&format!("/v1/companies/{}", id(11))).await;
    assert_eq!((moved.status, moved.header("location")), (301, format!("/v1/companies/{}", id(12)).as_str()));
    // Where that one was merged itself, to the end.
    stack.company(&id(12), "domain, merged_into", &format!("'c.com', '{}'", id(13))).await;
    for merged in [id(11), id(12)] {
        let end = id(13);
        let pointer = format!("INSERT INTO read_1.merged_companies VALUES ('{TENANT}', '{merged}', '{end}')");
        stack.sql(&pointer).await;
        let moved = stack.get(&format!("/v1/companies/{merged}?fields=name")).await;
        assert_eq!(
            (moved.status, moved.header("location")),
            (301, format!("/v1/companies/{end}?fields=name").as_str())
        );
    }
    let all = stack.get("/v1/companies").await;
    assert_eq!(all.body, "{\"items\":[]}");
    let all = stack.get("/v1/companies?include_deleted=true").await;
    assert_eq!(all.json()["items"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn a_prospect_shows_its_own_fields_and_where_its_company_leads() {
    let stack = Stack::new().await;
    stack
        .prospect(
            &id(20),
            "first_name, last_name, email, prospect_city, assigned_company_id",
            &format!("'Ada', 'Lovelace', 'Ada@example.com', 'London', '{}'", id(10)),
        )
        .await;
    let answer = stack.get(&format!("/v1/prospects/{}", id(20))).await;
    assert_snapshot!(answer.shown(), @r##"
    200
    {
      "address": null,
      "assigned_company_id": "00000000-0000-7000-8000-000000000010",
      "attributes": {},
      "city": "London",
      "company_id": null,
      "country": null,
      "created_at": "2026-01-02T00:00:00Z",
      "deleted_at": null,
      "department": null,
      "email": "Ada@example.com",
      "erased_at": null,
      "external_refs": [],
      "first_name": "Ada",
      "flags": [],
      "job_title": null,
      "job_title_level": null,
      "job_title_link": null,
      "last_name": "Lovelace",
      "mobile_phone": null,
      "phone": null,
      "prospect_id": "00000000-0000-7000-8000-000000000020",
      "salutation": null,
      "state": null,
      "updated_at": "2026-01-03T00:00:00Z",
      "version": 2,
      "zip_code": null
    }
    "##);
    assert_eq!(answer.header("etag"), "\"2.0\"", "its company is deleted");
    stack.prospect(&id(21), "first_name", "'Ada'").await;
    assert_eq!(stack.get(&format!("/v1/prospects/{}", id(21))).await.header("etag"), "\"2\"");
    // Where it leads to another company than it was given, the tag is another one for each of them, though their versions be the same.
    let columns =
        "first_name, assigned_company_id, company_id, company_version, company_created_at, company_updated_at";
    let values = format!("'Ada', '{}', '{}', 3, now(), now()", id(10), id(11));
    stack.prospect(&id(22), columns, &values).await;
    let path = format!("/v1/prospects/{}", id(22));
    assert_eq!(stack.get(&path).await.header("etag"), "\"2.8\"");
    let elsewhere = format!(
        "UPDATE read_1.company_prospect SET company_id = '{}', position = 9 WHERE row_id = '{}'",
        id(12),
        id(22)
    );
    stack.sql(&elsewhere).await;
    assert_eq!(stack.get_with(&path, "If-None-Match: \"2.8\"\r\n").await.status, 200);
}

#[tokio::test]
async fn wrong_requests_are_refused() {
    let stack = Stack::new().await;
    let path = format!("/v1/companies/{}", id(10));
    for (query, code) in [
        ("?nonsense=1", "unknown_parameter"),
        ("?fields=nonsense", "invalid_parameter"),
        ("?include_deleted=maybe", "invalid_parameter"),
        ("?fields=name&fields=domain", "invalid_parameter"),
        ("?fields=%FF", "invalid_utf8"),
    ] {
        let answer = stack.get(&format!("{path}{query}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{query}");
    }
    for position in ["-1", "x", "99999999999999999999"] {
        let answer = stack.get_with(&path, &format!("Prospectus-Min-Position: {position}\r\n")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_parameter"), "{position}");
    }
    assert_eq!(stack.request("GET", &path, "pk_nonsense.nonsense", "").await.status, 401);
    assert_eq!(stack.request("POST", &path, &stack.key, "").await.status, 405);
    let document = stack.get("/openapi.json").await.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    let parameters = document["paths"]["/v1/companies"]["get"]["parameters"].to_string();
    assert!(parameters.contains("employees_min") && parameters.contains("Prospectus-Min-Position"), "{parameters}");
    let paths: Vec<&String> = document["paths"].as_object().expect("paths").keys().collect();
    assert_snapshot!(format!("{paths:?}"), @r##"["/v1/analytics/metrics", "/v1/analytics/reports/{name}", "/v1/analytics/trends", "/v1/companies", "/v1/companies/{id}", "/v1/companies/{id}/duplicates", "/v1/companies/{id}/history", "/v1/company-prospects", "/v1/events", "/v1/log/heads", "/v1/log/proofs/consistency", "/v1/log/proofs/inclusion", "/v1/projections", "/v1/prospects", "/v1/prospects/{id}", "/v1/prospects/{id}/history", "/v1/reads", "/v1/reviews"]"##);
}
