//! I7: no request sees or changes a row of another tenant, and no person's SQL role sees more than its own.

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
use service_kit::auth::ApiKey;
use service_kit::postgres::Database;
use tests::TestStack;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_key_meets_404_or_nothing_everywhere() {
    let test = TestStack::start().await;
    let demo = test.client();
    let superuser = test.superuser(Part::Primary).await;
    let (stranger_tenant, key) = (Uuid::now_v7(), ApiKey::generate().expect("random numbers"));
    superuser
        .execute("INSERT INTO access.tenants (tenant_id, name) VALUES ($1, 'stranger')", &[&stranger_tenant])
        .await
        .expect("a tenant");
    superuser
        .execute(
            "INSERT INTO access.api_keys (prefix, tenant_id, secret_sha256, role) VALUES ($1, $2, $3, 'admin')",
            &[&key.prefix(), &stranger_tenant, &&key.secret_sha256()[..]],
        )
        .await
        .expect("a key");
    let stranger = test.client_with(key.expose());

    let body = json!({"name": "Ours", "domain": "ours.example", "external_refs": [{"source": "crm", "id": "1"}]});
    let company = demo.command(Method::POST, "/v1/companies", &body).await.id();
    let entry = json!({"platform": "X", "url": "https://x.example/ours"});
    let path = format!("/v1/companies/{company}/social-media");
    let entry =
        demo.command(Method::POST, &path, &entry).await.json["social_media_id"].as_str().expect("an id").to_owned();
    let prospect = json!({"first_name": "Ada", "email": "ada@ours.example", "company_id": company});
    let prospect = demo.command(Method::POST, "/v1/prospects", &prospect).await;
    let (prospect, position) = (prospect.id(), prospect.position());

    let commands = [
        (Method::PATCH, format!("/v1/companies/{company}"), json!({"name": "Theirs"})),
        (Method::DELETE, format!("/v1/companies/{company}"), json!({})),
        (Method::POST, format!("/v1/companies/{company}/restore"), json!({})),
        (Method::POST, format!("/v1/companies/{company}/merge"), json!({"into": Uuid::now_v7()})),
        (Method::POST, format!("/v1/companies/{company}/unmerge"), json!({})),
        (
            Method::POST,
            format!("/v1/companies/{company}/social-media"),
            json!({"platform": "X", "url": "https://x.example/"}),
        ),
        (Method::DELETE, format!("/v1/companies/{company}/social-media/{entry}"), json!({})),
        (Method::PATCH, format!("/v1/prospects/{prospect}"), json!({"first_name": "Eve"})),
        (Method::DELETE, format!("/v1/prospects/{prospect}"), json!({})),
        (Method::POST, format!("/v1/prospects/{prospect}/restore"), json!({})),
        (Method::POST, format!("/v1/prospects/{prospect}/assign"), json!({"company_id": null})),
    ];
    let mut lines = String::new();
    for (method, path, body) in &commands {
        let answer = stranger.command(method.clone(), path, body).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}: {answer:?}");
        lines += &format!("{}\n", json!({"method": method.as_str(), "path": path, "body": body}));
    }
    let batch = stranger.try_command(Method::POST, "/v1/batch", &[], lines).await.expect("an answer");
    for line in batch.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line: serde_json::Value = serde_json::from_slice(line).expect("JSON");
        assert_eq!(line["status"], 404, "{line}");
    }
    // A company of another tenant is no company to assign to.
    let theirs = json!({"first_name": "Eve", "company_id": company});
    let refused = stranger.command(Method::POST, "/v1/prospects", &theirs).await;
    assert_eq!(
        (refused.status, &refused.json["errors"][0]["pointer"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("/company_id"))
    );
    // Nor to merge into, and what looks like it is not told.
    let own = stranger.command(Method::POST, "/v1/companies", &json!({"name": "Ours"})).await;
    let path = format!("/v1/companies/{}/merge", own.id());
    let refused = stranger.command(Method::POST, &path, &json!({"into": company})).await;
    assert_eq!(
        (refused.status, &refused.json["errors"][0]["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("no_such_company"))
    );
    let duplicates = stranger.read(&format!("/v1/companies/{}/duplicates", own.id()), Some(own.position())).await;
    assert_eq!(duplicates.json, json!({"items": []}), "{duplicates:?}");
    let anothers = stranger.read(&format!("/v1/companies/{company}/duplicates"), Some(own.position())).await;
    assert_eq!(anothers.status, StatusCode::NOT_FOUND);
    assert_eq!(
        stranger.command(Method::DELETE, &format!("/v1/companies/{}", own.id()), &json!({})).await.status,
        StatusCode::OK
    );
    // The same domain and reference are free in another tenant, whose registration changes nothing here.
    assert_eq!(stranger.command(Method::POST, "/v1/companies", &body).await.status, StatusCode::CREATED);
    let own = stranger.command(Method::POST, "/v1/prospects", &json!({"first_name": "Own"})).await.position();
    assert!(own > position);

    for path in [format!("/v1/companies/{company}"), format!("/v1/prospects/{prospect}")] {
        assert_eq!(stranger.read(&path, Some(own)).await.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(demo.read(&path, Some(own)).await.status, StatusCode::OK, "{path}");
    }
    for (list, count) in [("companies", 2), ("prospects", 1), ("company-prospects", 2)] {
        let seen = stranger.read(&format!("/v1/{list}?include_deleted=true"), Some(own)).await;
        assert_eq!(seen.json["items"].as_array().map(Vec::len), Some(count), "{list}: {seen:?}");
        let filtered = stranger.read(&format!("/v1/{list}?domain=ours.example,elsewhere.example"), Some(own)).await;
        let text = String::from_utf8_lossy(&filtered.bytes).into_owned();
        assert!(!text.contains(&company) && !text.contains(&prospect), "{list}: {text}");
    }
    let events = stranger.read("/v1/events?after=0&limit=1000", Some(own)).await;
    assert_eq!(events.json["items"].as_array().map(Vec::len), Some(4), "{events:?}");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_sql_role_sees_its_tenant_whatever_it_sets() {
    let test = TestStack::start().await;
    let client = test.client();
    let superuser = test.superuser(Part::Primary).await;
    let answer = client.command(Method::POST, "/v1/companies", &json!({"name": "Ours"})).await;
    client.read(&format!("/v1/companies/{}", answer.id()), Some(answer.position())).await;
    let empty = Uuid::now_v7();
    superuser
        .batch_execute(&format!(
            "INSERT INTO access.tenants (tenant_id, name) VALUES ('{empty}', 'empty');
             CREATE ROLE anna LOGIN PASSWORD 'anna' IN ROLE prospectus_people;
             CREATE ROLE berta LOGIN PASSWORD 'berta' IN ROLE prospectus_people;
             INSERT INTO access.sql_roles SELECT 'anna', tenant_id FROM access.tenants WHERE name = 'demo';
             INSERT INTO access.sql_roles VALUES ('berta', '{empty}')"
        ))
        .await
        .expect("people");
    let demo: Uuid = superuser
        .query_one("SELECT tenant_id FROM access.tenants WHERE name = 'demo'", &[])
        .await
        .expect("demo")
        .get(0);
    let relations = ["log.events", "read.companies", "read.company_prospect", "read.company_prospect_view"];
    let login = async |name: &str| {
        let url = test.stack.superuser_url(Part::Primary);
        let (_, address) = url.split_once('@').expect("a password");
        let url = format!("postgres://{name}:{name}@{address}");
        Database::parse(&url, "tests").expect("a good URL").client().await.expect("it may log in")
    };
    let anna = login("anna").await;
    for relation in relations {
        let seen: i64 = anna.query_one(&format!("SELECT count(*) FROM {relation}"), &[]).await.expect(relation).get(0);
        assert_eq!(seen, 1, "{relation}");
    }
    let berta = login("berta").await;
    let attempts = [
        format!("SET prospectus.tenant = '{demo}'"),
        "SET row_security = on".to_owned(),
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY".to_owned(),
        "SET search_path = read, log, access".to_owned(),
    ];
    for attempt in &attempts {
        berta.batch_execute(attempt).await.expect("a person may set this");
    }
    for refused in [
        "SET ROLE prospectus_query",
        "SET ROLE prospectus_owner",
        "SET SESSION AUTHORIZATION anna",
        "TABLE access.sql_roles",
        "TABLE log.person_keys",
        "TABLE log.claims",
        "INSERT INTO log.events SELECT * FROM log.events",
        "DELETE FROM log.events",
    ] {
        assert!(berta.batch_execute(refused).await.is_err(), "{refused}");
    }
    for relation in relations {
        let seen: i64 = berta.query_one(&format!("SELECT count(*) FROM {relation}"), &[]).await.expect(relation).get(0);
        assert_eq!(seen, 0, "{relation}");
    }
    let off = berta.batch_execute("SET row_security = off; SELECT * FROM log.events").await;
    assert!(off.is_err(), "row security cannot be gone around");
    test.finish().await;
}
