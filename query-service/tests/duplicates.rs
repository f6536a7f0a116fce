//! Candidates for a merge: what they have in common, whose they are, and that they are found by indexes.

use serde_json::{Value, json};

use crate::support::{OTHER_TENANT, Stack, id};

impl Stack {
    async fn named(&self, number: u32, key: &str, columns: &str, values: &str) {
        let columns = format!("name, name_sort, name_key{columns}");
        self.company(&id(number), &columns, &format!("'{key} Inc', '{key} inc', '{key}'{values}")).await;
    }

    /// The candidates for a company: number, similarity, reasons.
    async fn duplicates(&self, number: u32, query: &str) -> Vec<(String, f64, Value)> {
        let answer = self.get(&format!("/v1/companies/{}/duplicates{query}", id(number))).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let items = answer.json()["items"].as_array().expect("items").clone();
        let item = |item: &Value| {
            let company = item["company_id"].as_str().expect("an id").to_owned();
            (company, item["similarity"].as_f64().expect("a number"), item["reasons"].clone())
        };
        items.iter().map(item).collect()
    }
}

#[tokio::test]
async fn candidates_come_with_their_reasons_best_first() {
    let stack = Stack::new().await;
    stack.checkpoint(7).await;
    stack
        .named(
            10,
            "acme robotics",
            ", country, phone, email_address, domain",
            ", 'GB', '+441', 'Info@acme.com', 'acme.com'",
        )
        .await;
    stack.named(11, "acme robotics", ", country", ", 'GB'").await;
    stack.named(12, "acme robotic", ", country", ", 'GB'").await;
    stack.named(13, "acme robotics", ", country", ", 'US'").await;
    stack
        .named(14, "something else", ", phone, email_address, domain", ", '+441', 'info@acme.com', 'acme.co.uk'")
        .await;
    stack.named(15, "nothing in common", ", country", ", 'GB'").await;
    // What is gone is no candidate.
    stack.named(16, "acme robotics", ", deleted_at", ", '2026-03-01T00:00:00Z'").await;
    stack.named(17, "acme robotics", ", merged_into", &format!(", '{}'", id(11))).await;
    let all = stack.duplicates(10, "").await;
    let seen: Vec<(&str, &Value)> = all.iter().map(|(id, _, reasons)| (id.as_str(), reasons)).collect();
    let ids = [id(14), id(11), id(12), id(13)];
    assert_eq!(
        seen,
        [
            (&*ids[0], &json!(["same_domain_label", "same_email_address", "same_phone"])),
            (&*ids[1], &json!(["same_country", "same_name"])),
            (&*ids[2], &json!(["same_country", "similar_name"])),
            (&*ids[3], &json!(["same_name"])),
        ]
    );
    assert!(all.windows(2).all(|pair| pair[0].1 >= pair[1].1), "{all:?}");
    assert_eq!(stack.duplicates(10, "?limit=2").await, all[..2]);
    assert!(stack.duplicates(15, "").await.is_empty());
    let wrong = stack.get(&format!("/v1/companies/{}/duplicates?limit=101", id(10))).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "invalid_parameter"));
    for (number, status) in [(16, 410), (17, 301), (99, 404)] {
        let answer = stack.get(&format!("/v1/companies/{}/duplicates", id(number))).await;
        assert_eq!((answer.status, answer.header("prospectus-position")), (status, "7"), "{}", answer.body);
    }
    let tagged = stack.get(&format!("/v1/companies/{}/duplicates", id(10))).await;
    let headers = format!("If-None-Match: {}\r\n", tagged.header("etag"));
    assert_eq!(stack.get_with(&format!("/v1/companies/{}/duplicates", id(10)), &headers).await.status, 304);
}

#[tokio::test]
async fn a_name_without_trigrams_is_found_where_it_is_the_same() {
    let stack = Stack::new().await;
    stack.named(10, "株式会社", "", "").await;
    stack.named(11, "株式会社", "", "").await;
    assert_eq!(stack.duplicates(10, "").await, [(id(11), 0.85, json!(["same_name"]))]);
}

#[tokio::test]
async fn another_tenants_companies_are_neither_candidates_nor_there() {
    let stack = Stack::new().await;
    stack.named(10, "acme robotics", ", phone", ", '+441'").await;
    stack.named(11, "acme robotics", ", phone", ", '+441'").await;
    stack
        .sql(&format!("UPDATE read_1.companies SET tenant_id = '{OTHER_TENANT}' WHERE company_id = '{}'", id(11)))
        .await;
    assert!(stack.duplicates(10, "").await.is_empty());
    let path = format!("/v1/companies/{}/duplicates", id(10));
    assert_eq!(stack.request("GET", &path, &stack.other_key, "").await.status, 404);
}

#[tokio::test]
async fn the_query_role_looks_for_likes_in_its_own_tenant_only() {
    let stack = Stack::new().await;
    stack.named(10, "acme robotics", "", "").await;
    let query = stack.role("prospectus_query").await;
    let count = async |tenant: &str| -> i64 {
        let sql = "SELECT count(*) FROM read_1.own_companies_like('acme robotics', NULL, NULL, 10)";
        query.batch_execute(&format!("SET prospectus.tenant = '{tenant}'")).await.expect("a setting");
        query.query_one(sql, &[]).await.expect("a count").get(0)
    };
    assert_eq!((count(crate::support::TENANT).await, count(OTHER_TENANT).await, count("").await), (1, 0, 0));
    for refused in [
        format!("SELECT * FROM read_1.companies_like('{OTHER_TENANT}', 'acme', NULL, NULL, 10)"),
        format!("SELECT * FROM read_1.companies_with_the_same('{OTHER_TENANT}', '{}', 10)", id(10)),
    ] {
        let error = query.batch_execute(&refused).await.expect_err(&refused);
        assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE), "{error:?}");
    }
}

/// Decision 15: what is text search goes through functions, whose plans are read here. Each begins at an index with the tenant.
#[tokio::test]
async fn candidates_are_found_by_indexes_with_the_tenant() {
    let stack = Stack::new().await;
    const ROWS: &str = "
        INSERT INTO read_1.companies (tenant_id, company_id, version, position, domain, name, name_sort, name_key, phone, email_address,
            country, created_at, updated_at)
        SELECT CASE WHEN n % 10 > 0 THEN '00000000-0000-7000-8000-000000000001' ELSE '00000000-0000-7000-8000-000000000002' END::uuid,
               gen_random_uuid(), 1, n, 'd' || n || '.com', 'n', 'n', left(md5(n::text), 12), '+' || n, n || '@example.com', 'DE',
               now(), now()
        FROM generate_series(1, 20000) AS n;
        ANALYZE read_1.companies";
    stack.sql(ROWS).await;
    stack
        .sql("SET ROLE prospectus_builder; SET plan_cache_mode = force_generic_plan; SELECT extensions.show_limit()")
        .await;
    let id = id(10);
    let tenant = crate::support::TENANT;
    let mut indexes = Vec::new();
    for (function, types, values) in [
        ("companies_like", "uuid, text, text, uuid, integer", format!("'{tenant}', 'acme', 'DE', '{id}', 100")),
        ("companies_with_the_same", "uuid, uuid, integer", format!("'{tenant}', '{id}', 100")),
    ] {
        let source = "SELECT prosrc FROM pg_proc WHERE pronamespace = 'read_1'::regnamespace AND proname = $1";
        let body: String = stack.client.query_one(source, &[&function]).await.expect("the function").get(0);
        stack.sql(&format!("PREPARE {function} ({types}) AS {body}")).await;
        let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE {function} ({values})");
        // Not prepared: EXPLAIN EXECUTE answers in text over the simple protocol.
        let answer = stack.client.simple_query(&explain).await.expect("a plan");
        let text = answer.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        let plan: Value = serde_json::from_str(text.expect("a plan")).expect("JSON");
        let mut scans = Vec::new();
        collect_scans(&plan, &mut scans);
        for (kind, condition, index) in scans {
            assert!(kind != "Seq Scan" && condition.contains("tenant_id"), "{function}: {kind} {condition}\n{plan:#}");
            indexes.push(index);
        }
    }
    indexes.sort();
    assert_eq!(
        indexes,
        [
            "companies_domain_label",
            "companies_email_address",
            "companies_name_key",
            "companies_name_trigrams",
            "companies_phone",
            "companies_pkey"
        ]
    );
}

/// Every node that reads a table or an index: its kind, its index condition, its index.
fn collect_scans(plan: &Value, scans: &mut Vec<(String, String, String)>) {
    match plan {
        Value::Array(nodes) => nodes.iter().for_each(|node| collect_scans(node, scans)),
        Value::Object(node) => {
            let text = |name: &str| node.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let kind = text("Node Type");
            // A bitmap's heap scan reads what the index scan below it found.
            if kind.ends_with("Scan") && !matches!(&*kind, "Bitmap Heap Scan" | "Subquery Scan") {
                scans.push((kind, text("Index Cond"), text("Index Name")));
            }
            node.values().for_each(|child| collect_scans(child, scans));
        }
        _ => {}
    }
}
