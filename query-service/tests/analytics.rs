//! What is counted, over HTTP: the numbers are those of the read tables, a tenant's own, and say what they include.

use serde_json::{Value, json};

use crate::support::{OTHER_TENANT, Stack, TENANT, id};

impl Stack {
    /// Has everything counted, as the projector does.
    async fn count(&self) {
        self.sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT read_1.refresh_stats(); COMMIT").await;
    }

    async fn numbers(&self, path: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/analytics/{path}")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()["items"].as_array().expect("items").clone()
    }

    /// Value and count of a measure.
    async fn metric(&self, record: &str, measure: &str, filter: &str) -> Vec<(Value, Value, i64)> {
        let items = self.numbers(&format!("metrics?record={record}&measure={measure}{filter}")).await;
        let read =
            |item: &Value| (item["kind"].clone(), item["value"].clone(), item["count"].as_i64().expect("a count"));
        items.iter().map(read).collect()
    }

    async fn number(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{error:?}: {sql}")).get(0)
    }
}

/// Companies and prospects of the first tenant, and the same again as another's.
async fn counted() -> Stack {
    let stack = Stack::new().await;
    let columns = "name, name_sort, industry, country, state, employee_count, revenue, revenue_currency, external_refs";
    for (number, values) in [
        (
            1,
            "'A', 'a', 'Steel', 'GB', 'Kent', 5, 999999, 'USD', '[{\"source\":\"crm\",\"id\":\"1\"},{\"source\":\"web\",\"id\":\"1\"}]'",
        ),
        (2, "'B', 'b', 'Steel', 'GB', 'Kent', 50, 1000000, 'EUR', '[{\"source\":\"crm\",\"id\":\"2\"}]'"),
        (3, "'C', 'c', '=cmd|'' /C calc''!A0', 'DE', NULL, NULL, NULL, NULL, '[]'"),
        (4, "'D', 'd', NULL, NULL, NULL, 10001, 5000000000, 'USD', '[]'"),
    ] {
        stack.company(&id(number), columns, values).await;
    }
    stack.company(&id(5), "name, name_sort, industry, deleted_at", "'E', 'e', 'Steel', '2026-02-01T00:00:00Z'").await;
    stack.company(&id(6), "name, name_sort, industry, merged_into", &format!("'F', 'f', 'Wool', '{}'", id(2))).await;
    stack.sql(&format!("INSERT INTO read_1.merged_companies VALUES ('{TENANT}', '{}', '{}')", id(6), id(2))).await;
    let columns =
        "last_name, email, prospect_country, prospect_state, job_title_level, department, assigned_company_id";
    for (number, values) in [
        (10, format!("'L', 'l@x.example', 'GB', 'Kent', 'vp', 'Sales', '{}'", id(1))),
        (11, format!("'L', NULL, 'GB', 'Kent', 'vp', 'Research', '{}'", id(6))),
        (12, format!("'L', 'm@x.example', 'DE', 'Kent', 'manager', NULL, '{}'", id(5))),
        (13, "'L', 'n@x.example', NULL, 'Hessen', NULL, NULL, NULL".to_owned()),
    ] {
        stack.prospect(&id(number), columns, &values).await;
    }
    stack.prospect(&id(14), "last_name, prospect_deleted_at", "'Gone', '2026-02-01T00:00:00Z'").await;
    for table in ["companies", "company_prospect"] {
        stack
            .sql(&format!(
                "INSERT INTO read_1.{table} SELECT (jsonb_populate_record(r, '{{\"tenant_id\": \"{OTHER_TENANT}\"}}')).* FROM read_1.{table} AS r"
            ))
            .await;
    }
    stack.sql(&format!("DELETE FROM read_1.companies WHERE tenant_id = '{OTHER_TENANT}' AND industry = 'Steel'")).await;
    stack.checkpoint(9).await;
    stack.count().await;
    stack
}

#[tokio::test]
async fn metrics_are_the_counts_of_the_read_tables() {
    let stack = counted().await;
    let value = |value: &str, count: i64| (json!("value"), json!(value), count);
    let none = |count: i64| (json!("none"), Value::Null, count);
    let others = |count: i64| (json!("others"), Value::Null, count);
    assert_eq!(stack.metric("company", "total", "").await, [(json!("total"), Value::Null, 4)]);
    assert_eq!(stack.metric("prospect", "total", "").await, [(json!("total"), Value::Null, 4)]);
    let formula = "=cmd|' /C calc'!A0";
    assert_eq!(stack.metric("company", "industry", "").await, [value("Steel", 2), value(formula, 1), none(1)]);
    assert_eq!(stack.metric("company", "country", "").await, [value("GB", 2), value("DE", 1), none(1)]);
    assert_eq!(stack.metric("company", "state", "").await, [value("Kent", 2), none(2)]);
    let bands = [value("0-10", 1), value("10001+", 1), value("11-50", 1), none(1)];
    assert_eq!(stack.metric("company", "size_band", "").await, bands);
    let bands = [value("EUR 1M-10M", 1), value("USD 1B+", 1), value("USD under 1M", 1), none(1)];
    assert_eq!(stack.metric("company", "revenue_band", "").await, bands);
    assert_eq!(stack.metric("company", "source", "").await, [value("crm", 2), value("web", 1), none(2)]);
    assert_eq!(stack.metric("prospect", "job_level", "").await, [value("vp", 2), value("manager", 1), none(1)]);
    assert_eq!(stack.metric("prospect", "department", "").await, [value("Research", 1), value("Sales", 1), none(2)]);
    // One works at a company that was merged into one of Steel, one at a deleted one, one at none.
    assert_eq!(stack.metric("prospect", "industry", "").await, [value("Steel", 2), none(2)]);
    assert_eq!(stack.metric("prospect", "state", "").await, [others(4)], "of fewer than five persons");
    assert_eq!(stack.metric("prospect", "filled", "").await.iter().map(|one| one.2).max(), Some(4));
    assert!(stack.metric("prospect", "filled", "").await.contains(&value("email", 3)));
    assert!(stack.metric("prospect", "filled", "").await.contains(&value("company", 2)));
    assert!(stack.metric("company", "filled", "").await.contains(&value("prospects", 2)));
    // Filters, alone and together; the most frequent first, and the rest in one row.
    assert_eq!(
        stack.metric("company", "industry", "&country=DE,United%20Kingdom").await,
        [value("Steel", 2), value(formula, 1)]
    );
    assert_eq!(stack.metric("prospect", "job_level", "&industry=Steel&country=GB").await, [value("vp", 2)]);
    assert_eq!(stack.metric("prospect", "total", "&industry=Wool").await, [(json!("total"), Value::Null, 0)]);
    assert_eq!(stack.metric("company", "industry", "&limit=1").await, [value("Steel", 2), none(1), others(1)]);
    let shares = stack.numbers("metrics?record=company&measure=industry").await;
    assert_eq!(shares[0]["share"], 0.5);
    let all = stack.numbers("metrics").await;
    let records: Vec<&Value> = all.iter().map(|item| &item["record"]).collect();
    assert!(records.contains(&&json!("company")) && records.contains(&&json!("prospect")));
}

#[tokio::test]
async fn trends_count_days_weeks_and_months_with_empty_ones_between() {
    let stack = counted().await;
    let days = stack.numbers("trends?from=2026-01-01&to=2026-01-03").await;
    let of = |from: &str, to: &str, counts: [i64; 4]| json!({"from": from, "to": to, "companies_created": counts[0], "companies_live": counts[1], "prospects_created": counts[2], "prospects_live": counts[3]});
    let empty = |day: &str| of(day, day, [0; 4]);
    assert_eq!(days, [empty("2026-01-01"), of("2026-01-02", "2026-01-02", [6, 4, 5, 4]), empty("2026-01-03")]);
    let weeks = stack.numbers("trends?interval=week&from=2026-01-02&to=2026-01-05").await;
    assert_eq!(weeks, [of("2025-12-29", "2026-01-04", [6, 4, 5, 4]), of("2026-01-05", "2026-01-11", [0; 4])]);
    let months = stack.numbers("trends?interval=month&from=2025-12-31&to=2026-01-31&industry=Steel").await;
    assert_eq!(months, [of("2025-12-01", "2025-12-31", [0; 4]), of("2026-01-01", "2026-01-31", [3, 2, 2, 2])]);
    let british = stack.numbers("trends?from=2026-01-02&to=2026-01-02&country=GB").await;
    assert_eq!(british, [of("2026-01-02", "2026-01-02", [2, 2, 2, 2])]);
    assert_eq!(stack.numbers("trends").await.len(), 30);
    assert_eq!(stack.numbers("trends?interval=month").await.len(), 12);
}

#[tokio::test]
async fn reports_put_numbers_together() {
    let stack = counted().await;
    let overview = stack.numbers("reports/overview").await;
    let figure = |name: &str| {
        overview.iter().find(|item| item["figure"] == name).map(|item| (item["count"].clone(), item["share"].clone()))
    };
    assert_eq!(figure("companies"), Some((json!(4), json!(1.0))));
    assert_eq!(figure("companies_without_prospects"), Some((json!(2), json!(0.5))));
    assert_eq!(figure("prospects_without_company"), Some((json!(2), json!(0.5))));
    assert_eq!(figure("prospects_with_email"), Some((json!(3), json!(0.75))));
    let completeness = stack.numbers("reports/completeness").await;
    let row = |record: &str, field: &str, filled: i64, share: f64| json!({"record": record, "field": field, "filled": filled, "missing": 4 - filled, "share": share});
    for expected in [
        row("company", "size", 3, 0.75),
        row("company", "domain", 0, 0.0),
        row("prospect", "department", 2, 0.5),
        row("prospect", "phone", 0, 0.0),
    ] {
        assert!(completeness.contains(&expected), "{expected}: {completeness:?}");
    }
    // No field is counted that the report does not know.
    let counted: Vec<(String, String)> = stack
        .client
        .query(
            "SELECT DISTINCT 'company', value FROM read_1.company_stats WHERE measure = 'filled'
             UNION SELECT 'prospect', value FROM read_1.prospect_stats WHERE measure = 'filled'",
            &[],
        )
        .await
        .expect("the views")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    for (record, field) in counted {
        assert!(completeness.iter().any(|row| row["record"] == *record && row["field"] == *field), "{record} {field}");
    }
    let industries = stack.numbers("reports/industries?limit=1").await;
    let row = |kind: &str, industry: Value, companies: i64, prospects: i64, email: i64, share: Value| {
        json!({"kind": kind, "industry": industry, "companies": companies, "prospects": prospects, "prospects_with_email": email,
            "email_share": share, "prospects_with_phone": 0, "phone_share": if prospects > 0 { json!(0.0) } else { Value::Null }})
    };
    let expected = [
        row("value", json!("Steel"), 2, 2, 1, json!(0.5)),
        row("none", Value::Null, 1, 2, 2, json!(1.0)),
        row("others", Value::Null, 1, 0, 0, Value::Null),
    ];
    assert_eq!(industries, expected);
    let countries = stack.numbers("reports/countries?industry=Steel").await;
    assert_eq!((countries.len(), &countries[0]["country"], &countries[0]["prospects"]), (1, &json!("GB"), &json!(2)));
    let sources = stack.numbers("reports/sources").await;
    assert_eq!(sources[0], json!({"kind": "value", "source": "crm", "companies": 2, "prospects": 0}));
    assert_eq!(sources[2], json!({"kind": "none", "source": null, "companies": 2, "prospects": 4}));
    let unknown = stack.get("/v1/analytics/reports/horoscope").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.body.contains("overview, completeness, industries, countries, sources"), "{}", unknown.body);
}

#[tokio::test]
async fn csv_comes_by_accept_or_by_format_and_no_text_of_it_is_a_formula() {
    let stack = counted().await;
    let path = "/v1/analytics/metrics?record=company&measure=industry";
    let expected = "record,measure,kind,value,count,share\r\ncompany,industry,value,Steel,2,0.5\r\n\
        company,industry,value,\"'=cmd|' /C calc'!A0\",1,0.25\r\ncompany,industry,none,,1,0.25\r\n";
    let json = stack.get(path).await;
    for (path, accept) in [
        (format!("{path}&format=csv"), ""),
        (format!("{path}&format=csv"), "Accept: application/json\r\n"),
        (path.to_owned(), "Accept: text/csv\r\n"),
        (path.to_owned(), "Accept: text/html, text/csv;q=0.5, */*\r\n"),
    ] {
        let csv = stack.get_with(&path, accept).await;
        assert_eq!(csv.body, expected, "{accept}");
        assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8; header=present");
        assert_eq!(csv.header("content-disposition"), "attachment; filename=\"metrics.csv\"");
        assert_eq!(csv.header("prospectus-position"), "9");
        assert_eq!(csv.header("prospectus-as-of"), json.json()["as_of"]["time"].as_str().expect("a time"));
        let headers = format!("{accept}If-None-Match: {}\r\n", csv.header("etag"));
        assert_eq!(stack.get_with(&path, &headers).await.status, 304);
    }
    for accept in ["", "Accept: */*\r\n", "Accept: application/json, text/csv\r\n", "Accept: text/html\r\n"] {
        let answer = stack.get_with(path, accept).await;
        assert_eq!(answer.header("content-type"), "application/json", "{accept}");
        assert_eq!(answer.header("vary"), "Accept");
    }
}

#[tokio::test]
async fn an_answer_says_what_it_includes_and_who_wants_more_waits_for_it() {
    let stack = counted().await;
    let path = "/v1/analytics/metrics";
    let answer = stack.get(path).await;
    let as_of = &answer.json()["as_of"];
    assert_eq!((&as_of["position"], &as_of["epoch"]), (&json!(9), &json!("1.00000001")));
    assert_eq!((answer.header("prospectus-position"), answer.header("prospectus-epoch")), ("9", "1.00000001"));
    // The read tables are further than what is counted, which says so.
    stack.company(&id(40), "name, name_sort", "'New', 'new'").await;
    stack.checkpoint(12).await;
    assert_eq!(stack.get(path).await.json(), answer.json());
    let wanted = |seconds: u32| format!("Prospectus-Min-Position: 12\r\nPrefer: wait={seconds}\r\n");
    let early = stack.get_with(path, &wanted(0)).await;
    assert_eq!((early.status, early.code().as_str()), (503, "not_fresh"), "{}", early.body);
    assert_eq!((&early.json()["position"], early.header("retry-after")), (&json!(9), "1"));
    let fresh = wanted(30);
    let (waited, ()) = tokio::join!(stack.get_with(path, &fresh), stack.count());
    assert_eq!((waited.status, waited.header("prospectus-position")), (200, "12"));
    assert_eq!(stack.metric("company", "total", "").await[0].2, 5);
    // Without any, there is nothing to be right about.
    let empty = Stack::new().await;
    assert_eq!(empty.get(path).await.json()["items"][0]["count"], 0);
    empty.checkpoint(3).await;
    let never = empty.get(path).await;
    assert_eq!((never.status, never.code().as_str()), (503, "not_fresh"), "{}", never.body);
}

#[tokio::test]
async fn a_tenant_sees_its_own_numbers_only() {
    let stack = counted().await;
    let of = async |key: &str, path: &str| {
        let answer = stack.request("GET", &format!("/v1/analytics/{path}"), key, "").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["items"].clone()
    };
    let companies = "metrics?record=company&measure=total";
    assert_eq!(of(&stack.other_key, companies).await[0]["count"], 2);
    assert_eq!(of(&stack.key, companies).await[0]["count"], 4);
    assert_eq!(of(&stack.reader, companies).await[0]["count"], 4, "a reader may");
    for path in [
        "metrics",
        "reports/industries",
        "reports/overview",
        "reports/sources",
        "reports/completeness",
        "reports/countries",
    ] {
        assert_ne!(of(&stack.key, path).await, of(&stack.other_key, path).await, "{path}");
    }
    assert!(!of(&stack.other_key, "metrics").await.to_string().contains("Steel"));
    let trends = of(&stack.other_key, "trends?from=2026-01-02&to=2026-01-02").await;
    let own = stack.number(&format!("SELECT count(*) FROM read_1.companies WHERE tenant_id = '{OTHER_TENANT}'")).await;
    assert_eq!(trends[0]["companies_created"], own);
    stack.sql(&format!("DELETE FROM read_1.companies WHERE tenant_id = '{OTHER_TENANT}'")).await;
    stack.sql(&format!("DELETE FROM read_1.company_prospect WHERE tenant_id = '{OTHER_TENANT}'")).await;
    stack.count().await;
    assert_eq!(
        of(&stack.other_key, companies).await,
        json!([{"record": "company", "measure": "total", "kind": "total", "value": null, "count": 0, "share": null}])
    );
    assert_eq!(of(&stack.key, companies).await[0]["count"], 4);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said() {
    let stack = counted().await;
    for (path, pointer, said) in [
        ("metrics?city=Ulm", "city", "allowed here: record, measure, limit, country, industry, format"),
        ("metrics?record=person", "record", "company, prospect"),
        ("metrics?measure=total,karma", "measure", "department"),
        ("metrics?country=Atlantis", "country", ""),
        ("metrics?industry=", "industry", ""),
        ("metrics?limit=0", "limit", "1 to 1000"),
        ("metrics?format=xml", "format", "json or csv"),
        ("trends?interval=year", "interval", "day, week or month"),
        ("trends?from=yesterday", "from", "2026-01-31"),
        ("trends?limit=5", "limit", "allowed here: interval, from, to"),
        ("reports/overview?limit=5", "limit", "allowed here: country, industry, format"),
        ("reports/sources?limit=5000", "limit", "1 to 1000"),
    ] {
        let answer = stack.get(&format!("/v1/analytics/{path}")).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
        let error = &answer.json()["errors"][0];
        assert_eq!(error["pointer"], pointer, "{path}");
        assert!(error["detail"].as_str().is_some_and(|detail| detail.contains(said)), "{path}: {error}");
    }
    for path in ["trends?from=2026-02-01&to=2026-01-01", "trends?from=2020-01-01&to=2026-01-01"] {
        let answer = stack.get(&format!("/v1/analytics/{path}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_parameter"), "{path}: {}", answer.body);
    }
}
