//! Pages, filters, sorts, counts.

use serde_json::Value;

use crate::support::{Stack, TENANT, id};

/// Rows with ties and with sort keys that are missing.
async fn fill(stack: &Stack) {
    stack
        .sql(&format!(
            "INSERT INTO read_1.companies (tenant_id, company_id, version, position, domain, name, name_sort, revenue, employee_count, industry, created_at, updated_at)
             SELECT '{TENANT}', ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 1, n,
                    'd' || lpad((n * 7 % 60)::text, 3, '0') || '.com', CASE WHEN n % 3 > 0 THEN 'Name ' || n % 5 END,
                    CASE WHEN n % 3 > 0 THEN 'name ' || n % 5 END, CASE WHEN n % 4 > 0 THEN n % 6 - 2 END,
                    CASE WHEN n % 5 > 0 THEN n % 7 END, CASE WHEN n % 2 = 0 THEN 'Paging' ELSE 'a,b' END,
                    '2026-01-01T00:00:00Z'::timestamptz + n % 9 * interval '1 microsecond', '2026-01-02T00:00:00Z'::timestamptz + n % 4 * interval '1 day'
             FROM generate_series(1, 60) AS n;
             INSERT INTO read_1.company_prospect (tenant_id, row_id, prospect_id, position, prospect_version, prospect_created_at, prospect_updated_at,
                 created_at, updated_at, last_name, prospect_name_sort, email, email_key, assigned_company_id, company_id, company_version, company_created_at,
                 company_updated_at, company_name, company_name_sort, domain, revenue, employee_count, prospect_deleted_at)
             SELECT c.tenant_id, c.company_id, CASE WHEN c.position % 10 > 0 THEN c.company_id END, c.position, CASE WHEN c.position % 10 > 0 THEN 1 END,
                 CASE WHEN c.position % 10 > 0 THEN c.created_at END, CASE WHEN c.position % 10 > 0 THEN c.updated_at END, c.created_at, c.updated_at,
                 c.name, c.name_sort, replace(c.name, ' ', '.') || '@Example.com', replace(c.name_sort, ' ', '.') || '@example.com', c.company_id, c.company_id, 1, c.created_at, c.updated_at, c.name, c.name_sort, c.domain,
                 c.revenue, c.employee_count, CASE WHEN c.position = 59 THEN c.updated_at END
             FROM read_1.companies AS c"
        ))
        .await;
}

/// Walks a list page by page.
async fn walk(stack: &Stack, path: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    for _ in 0..100 {
        let answer = stack.get(&format!("{path}{cursor}")).await;
        assert_eq!(answer.status, 200, "{path}{cursor}: {}", answer.body);
        let page = answer.json();
        items.extend(page["items"].as_array().expect("items").iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
    panic!("{path} has no end");
}

#[tokio::test]
async fn a_walk_holds_every_row_once_in_order_for_every_sort() {
    let stack = Stack::new().await;
    fill(&stack).await;
    for (path, id, total, fields) in [
        (
            "/v1/companies",
            "company_id",
            60,
            ["company_id", "name", "domain", "revenue", "employee_count", "created_at", "updated_at"],
        ),
        ("/v1/prospects", "prospect_id", 53, ["prospect_id", "last_name", "", "", "", "created_at", "updated_at"]),
        (
            "/v1/company-prospects",
            "company_id",
            59,
            ["company_id", "company_name", "domain", "revenue", "employee_count", "created_at", "updated_at"],
        ),
    ] {
        let sorts = ["id", "name", "domain", "revenue", "employee_count", "created_at", "updated_at"];
        for (sort, field) in sorts.into_iter().zip(fields) {
            for direction in ["", "-"] {
                let items = walk(&stack, &format!("{path}?limit=7&sort={direction}{sort}")).await;
                let mut ids: Vec<&str> = items.iter().map(|item| item[id].as_str().expect("an id")).collect();
                assert_eq!(ids.len(), total, "{path} {direction}{sort}");
                ids.sort_unstable();
                ids.dedup();
                assert_eq!(ids.len(), total, "{path} {direction}{sort}: a row twice");
                if field.is_empty() {
                    continue;
                }
                for pair in items.windows(2) {
                    let in_order = ordered(&pair[0], &pair[1], field, id, direction == "-");
                    assert!(in_order, "{path} {direction}{sort}: {} before {}", pair[0], pair[1]);
                }
            }
        }
    }
}

fn ordered(one: &Value, next: &Value, field: &str, id: &str, descending: bool) -> bool {
    let ids = one[id].as_str().cmp(&next[id].as_str());
    let keys = match (&one[field], &next[field]) {
        (Value::Null, Value::Null) => std::cmp::Ordering::Equal,
        (Value::Null, _) => return false,
        (_, Value::Null) => return true,
        (Value::Number(a), Value::Number(b)) => a.as_i64().cmp(&b.as_i64()),
        // Times with fewer digits are not in the order of their texts; these are padded to microseconds.
        (Value::String(a), Value::String(b)) => padded(a).cmp(&padded(b)),
        other => panic!("{other:?}"),
    };
    let order = keys.then(ids);
    if descending { order.is_gt() } else { order.is_lt() }
}

fn padded(text: &str) -> String {
    match text.strip_suffix('Z') {
        Some(time) if text.starts_with("2026-") => {
            let (seconds, fraction) = time.split_once('.').unwrap_or((time, ""));
            format!("{seconds}.{fraction:0<6}")
        }
        _ => text.to_owned(),
    }
}

#[tokio::test]
async fn filters_narrow() {
    let stack = Stack::new().await;
    fill(&stack).await;
    for (path, expected) in [
        ("/v1/companies?industry=Paging", 30),
        ("/v1/companies?industry=Paging,a%5C,b", 60),
        ("/v1/companies?industry=a%5C,b", 30),
        ("/v1/companies?industry=none", 0),
        ("/v1/companies?name=NAME%201", 8),
        ("/v1/companies?domain=D001.com", 1),
        ("/v1/companies?domain=https://www.D001.com/about", 1),
        ("/v1/companies?revenue_min=3", 10),
        ("/v1/companies?revenue_min=2&revenue_max=2", 5),
        ("/v1/companies?employees_min=6", 6),
        ("/v1/companies?employee_count=5,6", 12),
        ("/v1/companies?created_after=2026-01-01T00:00:00.000007Z", 6),
        ("/v1/companies?updated_after=2026-01-04T00:00:00Z", 15),
        ("/v1/prospects?email=NAME.1@example.COM", 8),
        ("/v1/prospects?include_deleted=true", 54),
        ("/v1/company-prospects?include_deleted=true", 60),
    ] {
        let answer = stack
            .get(&format!("{path}&count=exact").replacen(
                "&count",
                if path.contains('?') { "&count" } else { "?count" },
                1,
            ))
            .await;
        let page = answer.json();
        assert_eq!(page["items"].as_array().map(Vec::len), Some(expected), "{path}: {}", answer.body);
        assert_eq!(page["count"].as_u64(), Some(expected as u64), "{path}");
    }
    let path = format!("/v1/company-prospects?company_id={}", id(10));
    let page = stack.get(&path).await.json();
    assert_eq!((page["items"].as_array().map(Vec::len), &page["items"][0]["prospect_id"]), (Some(1), &Value::Null));
    assert_eq!(stack.get(&format!("/v1/company-prospects?prospect_id={}", id(10))).await.body, "{\"items\":[]}");
    let estimated = stack.get("/v1/companies?limit=1&count=estimated&industry=Paging").await.json();
    assert!(estimated["count"].is_u64() && estimated["next_cursor"].is_string(), "{estimated}");
    let fields = stack.get("/v1/companies?limit=1&fields=domain").await.json();
    assert_eq!(fields["items"][0], serde_json::json!({"domain": "d007.com"}));
}

#[tokio::test]
async fn wrong_lists_are_refused() {
    let stack = Stack::new().await;
    fill(&stack).await;
    let page = stack.get("/v1/companies?limit=1&sort=revenue&industry=Paging").await.json();
    let cursor = page["next_cursor"].as_str().expect("more").to_owned();
    assert_eq!(
        stack.get(&format!("/v1/companies?limit=5&sort=revenue&industry=Paging&cursor={cursor}")).await.status,
        200
    );
    for (path, code) in [
        (format!("/v1/companies?sort=-revenue&industry=Paging&cursor={cursor}"), "invalid_cursor"),
        (format!("/v1/companies?sort=revenue&cursor={cursor}"), "invalid_cursor"),
        (format!("/v1/company-prospects?sort=revenue&industry=Paging&cursor={cursor}"), "invalid_cursor"),
        ("/v1/companies?cursor=zzz".to_owned(), "invalid_cursor"),
        ("/v1/companies?limit=0".to_owned(), "invalid_parameter"),
        ("/v1/companies?limit=1001".to_owned(), "invalid_parameter"),
        ("/v1/companies?limit=x".to_owned(), "invalid_parameter"),
        ("/v1/companies?sort=colour".to_owned(), "invalid_parameter"),
        ("/v1/companies?revenue_min=much".to_owned(), "invalid_parameter"),
        ("/v1/companies?created_after=yesterday".to_owned(), "invalid_parameter"),
        ("/v1/companies?industry=".to_owned(), "invalid_parameter"),
        ("/v1/companies?industry=a%00".to_owned(), "invalid_parameter"),
        ("/v1/companies?industry=a&industry=b".to_owned(), "invalid_parameter"),
        ("/v1/companies?count=maybe".to_owned(), "invalid_parameter"),
        ("/v1/prospects?company_id=none".to_owned(), "invalid_parameter"),
        ("/v1/companies?limit=999999&cursor=zzz&nonsense=1".to_owned(), "unknown_parameter"),
    ] {
        let answer = stack.get(&path).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{path}: {}", answer.body);
    }
    let other = stack
        .request("GET", &format!("/v1/companies?sort=revenue&industry=Paging&cursor={cursor}"), &stack.other_key, "")
        .await;
    assert_eq!(other.code(), "invalid_cursor", "another tenant's cursor");
}

#[tokio::test]
async fn a_filter_finds_what_a_command_would_have_stored() {
    let stack = Stack::new().await;
    let names = "domain, name, name_sort, country, industry";
    stack.company(&id(10), names, "'xn--bcher-kva.de', 'Bücher', 'bücher', 'GB', 'Médias'").await;
    stack
        .sql(&format!(
            "INSERT INTO read_1.company_prospect (tenant_id, row_id, prospect_id, position, prospect_version, prospect_created_at, prospect_updated_at,
                 created_at, updated_at, last_name, prospect_name_sort, job_title_level, assigned_company_id, company_id, company_version,
                 company_created_at, company_updated_at, company_name, company_name_sort, revenue, employee_count)
             VALUES ('{TENANT}', '{0}', '{0}', 8, 2, now(), now(), now(), now(), 'Lovelace', 'lovelace', 'c_suite', '{1}', '{1}', 1, now(), now(),
                 'Bücher', 'bücher', 7, 3)",
            id(20),
            id(10)
        ))
        .await;
    for path in [
        "/v1/companies?domain=b%C3%BCcher.de",
        "/v1/companies?domain=https://shop.B%C3%9CCHER.de/a",
        // The letter and its dots as two characters.
        "/v1/companies?name=Bu%CC%88cher",
        "/v1/companies?country=United%20Kingdom",
        "/v1/companies?country=GBR,fr",
        "/v1/companies?industry=Me%CC%81dias",
        "/v1/prospects?job_title_level=C-Level",
        "/v1/prospects?revenue=7",
        "/v1/prospects?employee_count=3,4",
        "/v1/prospects?company_name=B%C3%9CCHER",
        "/v1/company-prospects?prospect_name=LOVELACE",
    ] {
        let answer = stack.get(path).await;
        assert_eq!(answer.json()["items"].as_array().map(Vec::len), Some(1), "{path}: {}", answer.body);
    }
    for path in ["/v1/companies?domain=co.uk", "/v1/companies?country=Atlantis", "/v1/prospects?email=nobody"] {
        let answer = stack.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_parameter"), "{path}");
    }
}

#[tokio::test]
async fn everything_that_is_wrong_is_named_at_once() {
    let stack = Stack::new().await;
    let path = "/v1/companies?limit=0&sort=colour&revenue_min=much&fields=colour&count=maybe&cursor=zzz&colour=red&include_deleted=x&name=a&name=b";
    let answer = stack.get_with(path, "Prospectus-Min-Position: soon\r\n").await;
    let problem = answer.json();
    let mut named: Vec<String> = problem["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|error| {
            format!("{} {}", error["pointer"].as_str().expect("a name"), error["code"].as_str().expect("a code"))
        })
        .collect();
    named.sort_unstable();
    assert_eq!((answer.status, answer.code().as_str()), (400, "unknown_parameter"));
    assert_eq!(
        named,
        [
            "Prospectus-Min-Position invalid_parameter",
            "colour unknown_parameter",
            "count invalid_parameter",
            "cursor invalid_cursor",
            "fields invalid_parameter",
            "include_deleted invalid_parameter",
            "limit invalid_parameter",
            "name invalid_parameter",
            "revenue_min invalid_parameter",
            "sort invalid_parameter",
        ]
    );
}

#[tokio::test]
async fn a_page_of_large_records_is_short_and_the_walk_goes_on() {
    let stack = Stack::new().await;
    stack
        .sql(&format!(
            "INSERT INTO read_1.companies (tenant_id, company_id, version, position, domain, long_description, created_at, updated_at)
             SELECT '{TENANT}', ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 1, n, 'd' || n || '.com', repeat('x', 20000), now(), now()
             FROM generate_series(1, 500) AS n"
        ))
        .await;
    let answer = stack.get("/v1/companies?limit=1000").await;
    // 4 MiB, and what a row has beside its long text.
    assert!(answer.body.len() < 5 << 20, "{} bytes", answer.body.len());
    assert!(answer.json()["items"].as_array().is_some_and(|items| items.len() > 100));
    assert_eq!(walk(&stack, "/v1/companies?limit=1000&sort=domain").await.len(), 500);
}

#[tokio::test]
async fn a_list_has_an_etag() {
    let stack = Stack::new().await;
    fill(&stack).await;
    let first = stack.get("/v1/companies?limit=3").await;
    let again = stack.get_with("/v1/companies?limit=3", &format!("If-None-Match: {}\r\n", first.header("etag"))).await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
}
