//! The review queue: what is in it, in which order, with which candidates, and whose it is.

use serde_json::{Value, json};

use crate::support::{OTHER_TENANT, Stack, id};

impl Stack {
    /// Kind, number and reason of the reviews on a page.
    async fn reviews(&self, query: &str) -> Vec<(String, String, String)> {
        let answer = self.get(&format!("/v1/reviews{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let items = answer.json()["items"].as_array().expect("items").clone();
        items.iter().map(|item| (text(&item["kind"]), text(&item["id"]), text(&item["reason"]))).collect()
    }

    async fn company_in_review(&self, number: u32, like: u32) {
        let columns = "name, name_sort, name_key, country, looks_like_company_id, review_since";
        let values = format!("'Acme', 'acme', 'acme', 'GB', '{}', '2026-01-02T03:04:05.678Z'", id(like));
        self.company(&id(number), columns, &values).await;
    }

    async fn prospect_in_review(&self, number: u32, reason: &str, columns: &str, values: &str) {
        let columns = format!("last_name, review, review_since{columns}");
        self.prospect(&id(number), &columns, &format!("'L{number}', '{reason}', '2026-01-02T00:00:00Z'{values}")).await;
    }
}

fn review(kind: &str, number: u32, reason: &str) -> (String, String, String) {
    (kind.to_owned(), id(number), reason.to_owned())
}

/// Everything that a queue may have, and what is not in it.
async fn queue() -> Stack {
    let stack = Stack::new().await;
    stack.checkpoint(9).await;
    let named = "name, name_sort, name_key, country, domain";
    stack.company(&id(10), named, "'Acme Ltd', 'acme ltd', 'acme', 'GB', 'acme.com'").await;
    stack
        .company(
            &id(11),
            &format!("{named}, deleted_at"),
            "'Gone', 'gone', 'gone', 'GB', 'gone.com', '2026-03-01T00:00:00Z'",
        )
        .await;
    stack
        .company(
            &id(12),
            &format!("{named}, merged_into"),
            &format!("'Two', 'two', 'two', 'GB', 'two.com', '{}'", id(11)),
        )
        .await;
    stack.sql(&format!("INSERT INTO read_1.merged_companies SELECT tenant_id, '{}', company_id FROM read_1.companies WHERE company_id = '{}'", id(12), id(11))).await;
    stack.company_in_review(14, 10).await;
    stack
        .prospect_in_review(13, "name_only", ", hint_name, hint_country, hint_host", ", 'ACME Inc.', 'GB', 'gmail.com'")
        .await;
    stack.prospect_in_review(15, "suspicious_domain", ", hint_host", ", 'mail.acme.con'").await;
    stack.prospect_in_review(16, "no_company", ", email", ", 'ada@sales.acme.com'").await;
    // The company of the one is deleted, that of the other was merged into it.
    stack.prospect(&id(17), "last_name, assigned_company_id", &format!("'Of gone', '{}'", id(11))).await;
    stack.prospect(&id(18), "last_name, assigned_company_id", &format!("'Of two', '{}'", id(12))).await;
    // Not in review: left alone, deleted, with a company.
    stack.prospect_in_review(19, "left_alone", "", "").await;
    stack.prospect(&id(20), "last_name, prospect_deleted_at", "'Deleted', '2026-03-01T00:00:00Z'").await;
    let shown = "company_id, assigned_company_id, company_version, company_created_at, company_updated_at, last_name";
    stack.prospect(&id(21), shown, &format!("'{0}', '{0}', 1, now(), now(), 'At work'", id(10))).await;
    stack
}

#[tokio::test]
async fn the_queue_has_both_kinds_in_order_by_reason_and_by_page() {
    let stack = queue().await;
    let all = [
        review("prospect", 13, "name_only"),
        review("company", 14, "looks_like"),
        review("prospect", 15, "suspicious_domain"),
        review("prospect", 16, "no_company"),
        review("prospect", 17, "company_deleted"),
        review("prospect", 18, "company_deleted"),
    ];
    assert_eq!(stack.reviews("").await, all);
    assert_eq!(stack.reviews("?kind=company").await, all[1..2]);
    assert_eq!(stack.reviews("?reason=looks_like").await, all[1..2]);
    assert_eq!(stack.reviews("?kind=prospect&limit=2").await, [all[0].clone(), all[2].clone()]);
    assert_eq!(stack.reviews("?reason=company_deleted").await, all[4..]);
    assert_eq!(stack.reviews("?reason=name_only").await, all[..1]);
    assert!(stack.reviews("?kind=company&reason=no_company").await.is_empty());
    for (query, count) in [
        ("", 6),
        ("&kind=prospect", 5),
        ("&reason=company_deleted", 2),
        ("&reason=looks_like", 1),
        ("&kind=company&reason=no_company", 0),
    ] {
        let answer = stack.get(&format!("/v1/reviews?limit=1&count=exact{query}")).await;
        assert_eq!(answer.json()["count"], count, "{query}: {}", answer.body);
    }

    for limit in 1..4 {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let query = format!("?limit={limit}{cursor}");
            seen.extend(stack.reviews(&query).await);
            match stack.get(&format!("/v1/reviews{query}")).await.json()["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen, all, "{limit} at a time");
    }
}

#[tokio::test]
async fn a_review_shows_the_record_what_was_said_and_who_may_be_meant() {
    let stack = queue().await;
    let answer = stack.get("/v1/reviews").await;
    let items = answer.json()["items"].as_array().expect("items").clone();
    let of = |number: u32| items.iter().find(|item| item["id"] == id(number).as_str()).expect("it is there").clone();
    let candidates = |item: &Value| -> Vec<(String, Value)> {
        let candidates = item["candidates"].as_array().expect("candidates").iter();
        candidates.map(|one| (one["company_id"].as_str().expect("an id").to_owned(), one["reasons"].clone())).collect()
    };
    let by_name = of(13);
    assert_eq!(by_name["hint"], json!({"name": "ACME Inc.", "country": "GB", "host": "gmail.com"}));
    assert_eq!(by_name["since"], "2026-01-02T00:00:00Z");
    let best = &by_name["candidates"][0];
    assert_eq!(
        (&best["name"], &best["domain"], &best["similarity"]),
        (&json!("Acme Ltd"), &json!("acme.com"), &json!(0.95))
    );
    let same = json!(["same_country", "same_name"]);
    assert_eq!(candidates(&by_name), [(id(10), same.clone()), (id(14), same.clone())]);
    // As its GET shows it.
    for (item, path) in [(&by_name, "prospects"), (&of(14), "companies"), (&of(17), "prospects")] {
        let record = stack.get(&format!("/v1/{path}/{}", item["id"].as_str().expect("an id"))).await;
        assert_eq!(item["record"], record.json());
    }
    assert_eq!(of(14)["looks_like_company_id"], id(10).as_str());
    assert_eq!(candidates(&of(14)), [(id(10), same)], "not itself");
    assert_eq!(candidates(&of(15)), [(id(10), json!(["same_domain_label"]))], "acme.con: perhaps acme.com");
    assert_eq!(candidates(&of(16)), [(id(10), json!(["email_domain"]))]);
    for deleted in [17, 18] {
        let item = of(deleted);
        assert_eq!((&item["since"], &item["hint"]), (&json!("2026-03-01T00:00:00Z"), &Value::Null));
        assert!(candidates(&item).is_empty());
    }
}

#[tokio::test]
async fn reads_of_the_queue_are_as_all_reads() {
    let stack = queue().await;
    let page = stack.get("/v1/reviews").await;
    assert_eq!(page.header("prospectus-position"), "9");
    let headers = format!("If-None-Match: {}\r\n", page.header("etag"));
    assert_eq!(stack.get_with("/v1/reviews", &headers).await.status, 304);
    assert_eq!(stack.request("GET", "/v1/reviews", &stack.reader, "").await.status, 200);
    let headers = "Prospectus-Min-Position: 10\r\nPrefer: wait=0\r\n";
    assert_eq!(stack.get_with("/v1/reviews", headers).await.code(), "not_fresh");
    // A company that was deleted, and whose prospects do not show it yet.
    let queued = format!(
        "INSERT INTO read.fanout (projection, generation, tenant_id, company_id, position)
         SELECT 'company_prospect', 1, tenant_id, company_id, 8 FROM read_1.companies WHERE company_id = '{}'",
        id(10)
    );
    stack.sql(&queued).await;
    assert_eq!(stack.get("/v1/reviews").await.header("prospectus-position"), "7");
    let wrong = stack.get("/v1/reviews?kind=person&reason=bored&limit=101&count=estimated&cursor=x").await;
    let errors = wrong.json()["errors"].as_array().expect("errors").clone();
    let mut named: Vec<&str> = errors.iter().filter_map(|error| error["pointer"].as_str()).collect();
    named.sort_unstable();
    assert_eq!((wrong.status, named), (400, vec!["count", "cursor", "kind", "limit", "reason"]));
    let cursor = stack.get("/v1/reviews?limit=1").await.json()["next_cursor"].as_str().expect("more").to_owned();
    let other = stack.get(&format!("/v1/reviews?kind=prospect&cursor={cursor}")).await;
    assert_eq!((other.status, other.code().as_str()), (400, "invalid_cursor"));
}

#[tokio::test]
async fn another_tenants_reviews_and_companies_are_not_seen() {
    let stack = queue().await;
    let other = stack.request("GET", "/v1/reviews?count=exact", &stack.other_key, "").await;
    assert_eq!(other.json(), json!({"items": [], "count": 0}));
    // Of the same name, domain and label, but another tenant's.
    stack.sql(&format!("UPDATE read_1.companies SET tenant_id = '{OTHER_TENANT}'")).await;
    let items = stack.get("/v1/reviews").await.json()["items"].clone();
    for item in items.as_array().expect("items") {
        assert_eq!(item["candidates"], json!([]), "{item}");
    }
    let query = stack.role("prospectus_query").await;
    let count = async |tenant: &str| -> i64 {
        query.batch_execute(&format!("SET prospectus.tenant = '{tenant}'")).await.expect("a setting");
        let sql = "SELECT count(*) FROM read_1.own_companies_of_label('acme', 10)";
        query.query_one(sql, &[]).await.expect("a count").get(0)
    };
    assert_eq!((count(crate::support::TENANT).await, count(OTHER_TENANT).await, count("").await), (0, 1, 0));
}
