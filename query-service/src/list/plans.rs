//! No list scans a table: the plans of every filter with every sort, as the query role, on enough rows.

use deadpool_postgres::Pool;
use migrations::testing::TestDatabase;
use serde_json::Value as Json;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Resource;
use super::cursor::{Key, Last};
use super::filter::{Conditions, Filter, Kind};
use super::resource::{COMPANIES, COMPANY_PROSPECTS, PROSPECTS};
use super::sort::{Order, Sort};
use super::statement::{STATEMENTS_MAX, Selection};
use crate::parameters::Parameters;
use crate::read::{BIND_TENANT, tenant_text};
use crate::replicas::{Replicas, Scope};

const TENANT: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001);

/// 20,000 companies and prospects, nine tenths of them of one tenant, with sort keys missing here and there.
const ROWS: &str = "
    INSERT INTO read_1.companies (tenant_id, company_id, version, position, domain, name, name_sort, industry, employee_count,
        min_employee_size, max_employee_size, revenue, city, state, country, created_at, updated_at)
    SELECT CASE WHEN n % 10 > 0 THEN '00000000-0000-7000-8000-000000000001' ELSE '00000000-0000-7000-8000-000000000002' END::uuid,
           gen_random_uuid(), 1, n, CASE WHEN n % 7 > 0 THEN 'd' || n || '.com' END, 'Name ' || n, 'name ' || n, 'industry ' || n % 50,
           n % 1000, n % 100, n % 100 + 5, CASE WHEN n % 3 > 0 THEN n * 1000 END, 'city ' || n % 300, 'state ' || n % 50, 'DE',
           now() + n * interval '1 second', now() + n * interval '2 seconds'
    FROM generate_series(1, 20000) AS n;
    INSERT INTO read_1.company_prospect (tenant_id, row_id, position, assigned_company_id, company_id, domain, company_name, company_name_sort,
        industry, employee_count, revenue, company_version, company_created_at, company_updated_at, prospect_id, last_name, prospect_name_sort,
        email, email_key, job_title, job_title_level, department, prospect_city, prospect_state, prospect_country, prospect_version,
        prospect_created_at, prospect_updated_at, created_at, updated_at)
    SELECT tenant_id, company_id, position, company_id, company_id, domain, name, name_sort, industry, employee_count, revenue, 1, created_at,
           updated_at, CASE WHEN position % 4 > 0 THEN company_id END, name, CASE WHEN position % 5 > 0 THEN name_sort END, name, name_sort,
           'title ' || position % 200, 'manager', 'department ' || position % 20, city, state, country,
           CASE WHEN position % 4 > 0 THEN 1 END, CASE WHEN position % 4 > 0 THEN created_at END,
           CASE WHEN position % 4 > 0 THEN updated_at END, created_at, updated_at
    FROM read_1.companies;
    ANALYZE read_1.companies; ANALYZE read_1.company_prospect";

/// The query role's connections, made as the service makes them.
async fn query_role(database: &TestDatabase) -> Pool {
    let (trigger, shutdown) = service_kit::shutdown::Shutdown::new();
    let url = database.url_for("prospectus_query");
    let replicas = Replicas::open(&[&url], None, false, 1, &shutdown).await.expect("a URL");
    drop(trigger);
    replicas.choose(&[], Scope::ReadTables, 0).expect("it answers").pool.clone()
}

fn example(filter: &Filter) -> &'static str {
    match filter.kind {
        Kind::Id => "00000000-0000-7000-8000-000000000009",
        Kind::Text | Kind::Name => "industry 7",
        Kind::Domain => "d7.com",
        Kind::Email => "name.7@example.com",
        Kind::Country => "DE",
        Kind::JobTitleLevel => "manager",
        Kind::Integer | Kind::Least | Kind::Most => "500",
        Kind::After => "2026-01-01T00:00:00Z",
    }
}

fn several(filter: &Filter) -> Option<String> {
    let one = example(filter);
    (!matches!(filter.kind, Kind::Least | Kind::Most | Kind::After)).then(|| format!("{one},{one}"))
}

fn key(sort: &Sort) -> Key {
    match sort.name {
        "id" => Key::Id(TENANT),
        "name" | "domain" => Key::Text("name 5".to_owned()),
        "revenue" | "employee_count" => Key::Integer(500),
        _ => Key::Instant(1_767_225_600_000_000),
    }
}

/// A value that no row has.
fn missing(filter: &Filter) -> &'static str {
    match filter.kind {
        Kind::Id => "00000000-0000-7000-8000-000000000009",
        Kind::Text | Kind::Name => "none",
        Kind::Domain => "none.com",
        Kind::Email => "none@example.com",
        Kind::Country => "FR",
        Kind::JobTitleLevel => "intern",
        Kind::Integer | Kind::Most => "-7",
        Kind::Least => "9000000000000000",
        Kind::After => "2999-01-01T00:00:00Z",
    }
}

/// The queries that narrow a list: each filter with one value, with several, and none at all.
fn queries(resource: &Resource) -> Vec<String> {
    let single = resource.filters.iter().map(|filter| format!("{}={}", filter.name, example(filter)));
    let lists = resource.filters.iter().filter_map(|filter| Some(format!("{}={}", filter.name, several(filter)?)));
    single.chain(lists).chain([String::new()]).collect()
}

/// Queries that nothing passes: each filter alone, and with another that most rows pass.
fn queries_in_vain(resource: &Resource) -> Vec<String> {
    let in_vain = |filter: &Filter| format!("{}={}", filter.name, missing(filter));
    let pairs =
        resource.filters.windows(2).map(|pair| format!("{}&{}={}", in_vain(&pair[0]), pair[1].name, example(&pair[1])));
    resource.filters.iter().map(in_vain).chain(pairs).collect()
}

/// Every statement of a list for these queries, each with what it is called in a failure.
fn selections(resource: &'static Resource, queries: &[String]) -> Vec<(String, Selection)> {
    let names: Vec<&str> = resource.filters.iter().map(|filter| filter.name).collect();
    let mut selections = Vec::new();
    for query in queries {
        for sort in resource.sorts {
            for (descending, include_deleted) in [(false, false), (true, false), (false, true), (true, true)] {
                let begun = Last { key: Some(key(sort)), id: TENANT };
                let in_nulls = sort.nullable.then_some(Last { key: None, id: TENANT });
                for after in [None, Some(begun)].into_iter().chain(in_nulls.map(Some)) {
                    let mut parameters = Parameters::parse(Some(query), &names).expect("UTF-8");
                    let conditions = Conditions::parse(resource.filters, &mut parameters);
                    parameters.check().expect("known filters, right values");
                    let name = format!("{} {query} sort={} {descending} {after:?}", resource.path, sort.name);
                    let order = Order { sort, descending };
                    selections
                        .push((name, Selection { resource, conditions, order, include_deleted, limit: 100, after }));
                }
            }
        }
    }
    selections
}

#[test]
fn what_a_connection_keeps_prepared_is_bounded() {
    let mut kept = std::collections::HashSet::new();
    for resource in [&COMPANIES, &PROSPECTS, &COMPANY_PROSPECTS] {
        let common =
            selections(resource, &queries(resource)).into_iter().filter(|(_, selection)| selection.is_common());
        kept.extend(common.map(|(_, selection)| selection.page_sql(1)));
    }
    assert!((50..STATEMENTS_MAX).contains(&kept.len()), "{} statements", kept.len());
}

/// Rows that a statement may visit for a page of 100: the page and one more, from both of its parts, and as many again.
const VISITED_MAX: i64 = 400;
/// Of the tenant's prospects, those without a name.
const NAMELESS: i64 = 2000;

/// What nobody has costs next to nothing to look for, whatever the order: no walk through the tenant's 18,000 rows. Statements that
/// are kept prepared are tried with a plan for any value.
#[tokio::test]
async fn no_list_walks_through_the_tenant_to_find_nothing() {
    let database = TestDatabase::new().await;
    database.superuser().await.batch_execute(ROWS).await.expect("rows");
    let pool = query_role(&database).await;
    let mut client = pool.get().await.expect("a connection");
    let transaction = client.transaction().await.expect("a transaction");
    transaction.query(BIND_TENANT, &[&tenant_text(TENANT)]).await.expect("bound");
    let figures = transaction
        .prepare(
            "SELECT sum(t.seq_tup_read + t.idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables AS t
             WHERE t.schemaname = 'read_1'",
        )
        .await
        .expect("the figures");
    let visited = async || -> i64 { transaction.query_one(&figures, &[]).await.expect("the figures").get(0) };
    let mut read = 0;
    for resource in [&COMPANIES, &PROSPECTS, &COMPANY_PROSPECTS] {
        let in_vain = selections(resource, &queries_in_vain(resource)).into_iter();
        let kept = selections(resource, &[String::new()]).into_iter().filter(|(_, selection)| selection.is_common());
        for (name, selection) in in_vain.chain(kept) {
            let mode = if selection.is_common() { "force_generic_plan" } else { "auto" };
            transaction.batch_execute(&format!("SET LOCAL plan_cache_mode = {mode}")).await.expect("set");
            let cursor = selection.cursor_values().expect("fits");
            let filters = selection.conditions.values.iter().map(|value| &**value as &(dyn ToSql + Sync));
            let of_count: Vec<&(dyn ToSql + Sync)> = std::iter::once(&TENANT as _).chain(filters).collect();
            let of_page: Vec<_> = of_count.iter().copied().chain(cursor.iter().map(|value| &**value as _)).collect();
            let page = (selection.page_sql(1), &of_page);
            let count = (selection.count_sql(1), &of_count);
            // The count is the same for every order and cursor.
            let counts = selection.conditions.count > 0 && selection.order.sort.name == "id" && cursor.is_empty();
            for (sql, values) in std::iter::once(page).chain(counts.then_some(count)) {
                let before = visited().await;
                transaction.query(&sql, values).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
                let visited = visited().await - before;
                // Personal columns keep no statistics, so the planner takes those without a name for few and may look through them.
                let nameless = if selection.order.sort.column == "prospect_name_sort" { NAMELESS } else { 0 };
                assert!(visited <= VISITED_MAX + nameless, "{name}: {visited} rows visited");
                read += 1;
            }
        }
    }
    assert!(read > 5000, "{read} statements");
}

#[tokio::test]
async fn every_list_begins_at_an_index_with_the_tenant() {
    let database = TestDatabase::new().await;
    database.superuser().await.batch_execute(ROWS).await.expect("rows");
    let pool = query_role(&database).await;
    let mut client = pool.get().await.expect("a connection");
    let transaction = client.transaction().await.expect("a transaction");
    transaction.query(BIND_TENANT, &[&tenant_text(TENANT)]).await.expect("bound");
    let mut read = 0;
    for resource in [&COMPANIES, &PROSPECTS, &COMPANY_PROSPECTS] {
        for (name, selection) in selections(resource, &queries(resource)) {
            let cursor = selection.cursor_values().expect("fits");
            let values: Vec<&(dyn ToSql + Sync)> = std::iter::once(&TENANT as &(dyn ToSql + Sync))
                .chain(selection.conditions.values.iter().map(|value| &**value as _))
                .chain(cursor.iter().map(|value| &**value as _))
                .collect();
            let sql = format!("EXPLAIN (FORMAT JSON) {}", selection.page_sql(1));
            let rows =
                transaction.query(&sql, &values).await.unwrap_or_else(|error| panic!("{name}: {error:?}\n{sql}"));
            let plan: Json = rows[0].get(0);
            if selection.conditions.count == 0 {
                // Then the index is the list's order, and a page costs what is on it, however deep it is.
                assert!(!plan.to_string().contains("Sort\""), "{name}: {plan:#}");
            }
            let mut scans = Vec::new();
            collect_scans(&plan, &mut scans);
            assert!(!scans.is_empty(), "{name}: {plan:#}");
            for (kind, condition) in scans {
                assert!(kind != "Seq Scan" && condition.contains("tenant_id"), "{name}: {kind} {condition}\n{plan:#}");
            }
            read += 1;
        }
    }
    assert!(read > 1000, "{read} plans");
}

/// Every node that reads a table or an index, with its index condition.
fn collect_scans(plan: &Json, scans: &mut Vec<(String, String)>) {
    match plan {
        Json::Array(nodes) => nodes.iter().for_each(|node| collect_scans(node, scans)),
        Json::Object(node) => {
            let kind = node.get("Node Type").and_then(Json::as_str).unwrap_or_default();
            // A bitmap's heap scan reads what the index scan below it found.
            if kind.ends_with("Scan") && !matches!(kind, "Bitmap Heap Scan" | "Subquery Scan") {
                let condition = node.get("Index Cond").and_then(Json::as_str).unwrap_or_default();
                scans.push((kind.to_owned(), condition.to_owned()));
            }
            node.values().for_each(|child| collect_scans(child, scans));
        }
        _ => {}
    }
}
