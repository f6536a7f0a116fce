//! The review queue scans no table and walks through no tenant: its plans, and the rows that it visits, as the query role.

use migrations::testing::TestDatabase;
use serde_json::Value as Json;
use tokio_postgres::Transaction;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Kind, Selection, candidates_sql, reasons};
use crate::read::{BIND_TENANT, tenant_text};
use crate::replicas::{Replicas, Scope};

const TENANT: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001);

/// 20,000 companies and prospects, nine tenths of them of one tenant, nearly all of them not in review; what is in review stands at
/// the end of the ids.
const ROWS: &str = "
    INSERT INTO read_1.companies (tenant_id, company_id, version, position, domain, name, name_sort, name_key, country, created_at,
        updated_at, looks_like_company_id, review_since)
    SELECT CASE WHEN n % 10 > 0 THEN '00000000-0000-7000-8000-000000000001' ELSE '00000000-0000-7000-8000-000000000002' END::uuid,
           lpad(to_hex(n), 32, '0')::uuid, 1, n, 'd' || n || '.com', 'n', 'n', left(md5(n::text), 12), 'DE', now(), now(),
           CASE WHEN n > 19700 THEN gen_random_uuid() END, CASE WHEN n > 19700 THEN now() END
    FROM generate_series(1, 20000) AS n;
    INSERT INTO read_1.company_prospect (tenant_id, row_id, position, assigned_company_id, company_id, company_version, company_created_at,
        company_updated_at, prospect_id, last_name, prospect_version, prospect_created_at, prospect_updated_at, created_at, updated_at,
        review, review_since, hint_name)
    SELECT tenant_id, company_id, position, CASE WHEN position % 3 > 0 OR position < 19700 THEN company_id END,
           CASE WHEN position < 19700 THEN company_id END, CASE WHEN position < 19700 THEN 1 END,
           CASE WHEN position < 19700 THEN now() END, CASE WHEN position < 19700 THEN now() END,
           company_id, 'n', 1, now(), now(), now(), now(),
           CASE WHEN position >= 19700 AND position % 3 = 0 THEN 'name_only' END, CASE WHEN position % 3 = 0 THEN now() END, name
    FROM read_1.companies;
    ANALYZE read_1.companies; ANALYZE read_1.company_prospect";

/// Rows that one statement may visit: a page of twenty and one more, for each of them what it points to, and as many again.
const VISITED_MAX: i64 = 300;

fn selections() -> impl Iterator<Item = Selection> {
    let kinds = [None, Some(Kind::Prospect), Some(Kind::Company)];
    kinds.into_iter().flat_map(|kind| {
        let reasons = reasons().map(Some).chain([None]);
        reasons.flat_map(move |reason| {
            let places = [Uuid::nil(), Uuid::from_u128(19_800), Uuid::max()];
            places.map(|after| Selection { kind, reason, after, limit: 20 })
        })
    })
}

/// Reads a statement's plan, made for any value as kept statements are, and how many rows it visits.
async fn check(transaction: &Transaction<'_>, sql: &str, values: &[&(dyn ToSql + Sync)], what: &str) {
    const VISITED: &str = "SELECT sum(t.seq_tup_read + t.idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables AS t
        WHERE t.schemaname = 'read_1'";
    let visited = async || -> i64 { transaction.query_one(VISITED, &[]).await.expect("the figures").get(0) };
    for mode in ["force_generic_plan", "force_custom_plan"] {
        transaction.batch_execute(&format!("SET LOCAL plan_cache_mode = {mode}")).await.expect("set");
        let rows = transaction.query(&format!("EXPLAIN (FORMAT JSON) {sql}"), values).await.expect("a plan");
        let plan: Json = rows[0].get(0);
        let mut scans = Vec::new();
        collect_scans(&plan, &mut scans);
        assert!(!scans.is_empty(), "{what}: {plan:#}");
        for (kind, condition) in scans {
            assert!(kind != "Seq Scan" && condition.contains("tenant_id"), "{what}: {kind} {condition}\n{plan:#}");
        }
        let before = visited().await;
        transaction.query(sql, values).await.expect("it is read");
        let visited = visited().await - before;
        assert!(visited <= VISITED_MAX, "{what}: {visited} rows visited\n{plan:#}");
    }
}

#[tokio::test]
async fn the_queue_reads_no_more_than_its_page() {
    let database = TestDatabase::new().await;
    database.superuser().await.batch_execute(ROWS).await.expect("rows");
    let (trigger, shutdown) = service_kit::shutdown::Shutdown::new();
    let replicas =
        Replicas::open(&[&database.url_for("prospectus_query")], None, false, 1, &shutdown).await.expect("a URL");
    drop(trigger);
    let pool = replicas.choose(&[], Scope::ReadTables, 0).expect("it answers").pool.clone();
    let mut client = pool.get().await.expect("a connection");
    let transaction = client.transaction().await.expect("a transaction");
    transaction.query(BIND_TENANT, &[&tenant_text(TENANT)]).await.expect("bound");
    let mut read = 0;
    for selection in selections() {
        let what = format!("{selection:?}");
        let values: [&(dyn ToSql + Sync); 2] = [&TENANT, &selection.after];
        if selection.has_prospects() {
            let reason = selection.prospects_reason();
            let of_reason = reason.iter().map(|reason| reason as &(dyn ToSql + Sync));
            let values: Vec<_> = values.into_iter().chain(of_reason).collect();
            check(&transaction, &selection.prospects_sql("read_1"), &values, &what).await;
            read += 1;
        }
        if selection.has_companies() {
            check(&transaction, &selection.companies_sql("read_1"), &values, &what).await;
            read += 1;
        }
    }
    assert!(read > 30, "{read} statements");
    // Each of twenty by its name, its address and its host; the trigrams' own functions are read in `tests/duplicates.rs`.
    let keys = vec![Some("c4ca4238a0b9".to_owned()); 20];
    let countries = vec![None::<String>; 20];
    let themselves = vec![None::<Uuid>; 20];
    let domains: Vec<Option<String>> = (1..=20).map(|n| Some(format!("d{n}.com"))).collect();
    let labels: Vec<Option<String>> = (1..=20).map(|n| Some(format!("d{n}"))).collect();
    let values: [&(dyn ToSql + Sync); 6] = [&TENANT, &keys, &countries, &themselves, &domains, &labels];
    check(&transaction, &candidates_sql("read_1"), &values, "candidates").await;
}

/// Every node that reads a table or an index, with its index condition.
fn collect_scans(plan: &Json, scans: &mut Vec<(String, String)>) {
    match plan {
        Json::Array(nodes) => nodes.iter().for_each(|node| collect_scans(node, scans)),
        Json::Object(node) => {
            let kind = node.get("Node Type").and_then(Json::as_str).unwrap_or_default();
            if kind.ends_with("Scan") && !matches!(kind, "Bitmap Heap Scan" | "Subquery Scan" | "Function Scan") {
                let condition = node.get("Index Cond").and_then(Json::as_str).unwrap_or_default();
                scans.push((kind.to_owned(), condition.to_owned()));
            }
            node.values().for_each(|child| collect_scans(child, scans));
        }
        _ => {}
    }
}
