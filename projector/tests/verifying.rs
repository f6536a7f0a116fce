//! The verifier finds what was done to the read tables, claims and matches behind the projection's back.

use std::time::Duration;

use projector::projection::STEP_EVENTS_MAX;
use projector::verify::{DIFFERENCES_MAX, VerifyError, verify};
use serde_json::json;
use uuid::Uuid;

use crate::support::{Opened, TENANT, go_on, keyring, refusal};

/// The two tables, each with its key.
const TABLES: [(&str, &str); 2] = [("companies", "company_id"), ("company_prospect", "row_id")];

async fn projected() -> (Opened, Uuid, Uuid) {
    let opened = Opened::new().await;
    let company = opened
        .company(json!({"name": "Acme", "domain": "acme.com", "phone": "+15205550123", "revenue": 5, "country": "US",
            "external_refs": [{"source": "crm", "id": "1"}]}))
        .await;
    opened.company(json!({"name": "Lonely", "domain": "lonely.com"})).await;
    let prospect = opened
        .prospect(json!({"last_name": "One", "company_id": company, "email": "one@acme.com",
            "external_refs": [{"source": "crm", "id": "1"}]}))
        .await;
    opened.prospect(json!({"last_name": "Two", "company_id": company})).await;
    go_on(&opened).await;
    opened.assert_projected().await;
    // The tables' own checks would catch some of what follows; here only the verifier is on guard.
    opened
        .sql(
            "DO $$ DECLARE a record; BEGIN
                 FOR a IN SELECT conrelid::regclass AS name, conname FROM pg_constraint
                          WHERE connamespace = 'read_1'::regnamespace AND contype = 'c' LOOP
                     EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', a.name, a.conname);
                 END LOOP;
             END $$;
             CREATE TABLE kept_companies AS SELECT * FROM read_1.companies;
             CREATE TABLE kept_company_prospect AS SELECT * FROM read_1.company_prospect;",
        )
        .await;
    (opened, company, prospect)
}

async fn put_back(opened: &Opened, table: &str) {
    opened.sql(&format!("DELETE FROM read_1.{table}; INSERT INTO read_1.{table} SELECT * FROM kept_{table}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_cell_is_found_in_every_column_and_told_with_its_record() {
    const COLUMNS: &str = "SELECT attname::text, atttypid::regtype::text FROM pg_attribute
        WHERE attrelid = ('read_1.' || $1)::regclass AND attnum > 0 AND NOT attisdropped";
    let (opened, company, prospect) = projected().await;
    for ((table, key), id) in TABLES.into_iter().zip([company, prospect]) {
        let columns = opened.client.query(COLUMNS, &[&table]).await.expect("the columns");
        assert!(columns.len() > 35, "{table} has more columns than {}", columns.len());
        for row in columns {
            let (column, sort): (String, String) = (row.get(0), row.get(1));
            let other = match sort.as_str() {
                "uuid" => "gen_random_uuid()".to_owned(),
                "text" => format!("coalesce({column}, '') || 'x'"),
                "bigint" => format!("coalesce({column}, 0) + 1"),
                "timestamp with time zone" => format!("coalesce({column}, now()) + interval '1 microsecond'"),
                "jsonb" => r#"'[{"not": "this"}]'"#.to_owned(),
                other => panic!("{table}.{column} is a {other}"),
            };
            // To another value, and to none where there was one.
            for other in [other.as_str(), "NULL"] {
                let change = format!("UPDATE read_1.{table} SET {column} = {other} WHERE {key} = '{id}'");
                let null_to_null =
                    format!("SELECT count(*) FROM read_1.{table} WHERE {key} = '{id}' AND {column} IS NULL");
                if other == "NULL"
                    && (opened.number(&null_to_null).await == 1 || !nullable(&opened, table, &column).await)
                {
                    continue;
                }
                opened.sql(&change).await;
                let report = opened.verify().await;
                let told = report.first.iter().any(|line| {
                    let moved = column == key || column == "tenant_id";
                    line.starts_with(&format!("{table} {id}")) && (moved || line.contains(&format!(", {column}: ")))
                });
                assert!(report.differences > 0 && told, "{table}.{column} to {other}: {report:?}");
                put_back(&opened, table).await;
            }
        }
        opened.assert_projected().await;
    }
}

async fn nullable(opened: &Opened, table: &str, column: &str) -> bool {
    let sql = format!(
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'read_1.{table}'::regclass AND attname = '{column}' AND NOT attnotnull"
    );
    opened.number(&sql).await == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_and_an_added_row_are_found() {
    let (opened, _, _) = projected().await;
    for (table, key) in TABLES {
        let sql = format!("SELECT {key} FROM read_1.{table}");
        for row in opened.client.query(&sql, &[]).await.expect("the rows") {
            let id: Uuid = row.get(0);
            opened.sql(&format!("DELETE FROM read_1.{table} WHERE {key} = '{id}'")).await;
            let report = opened.verify().await;
            assert_eq!((report.differences, &report.first), (1, &vec![format!("{table} {id}: is missing")]));
            put_back(&opened, table).await;
        }
        // A copy under another id, and one of another tenant's.
        let added = Uuid::now_v7();
        for changed in [format!("{key} = '{added}'"), format!("tenant_id = '{added}'")] {
            opened
                .sql(&format!(
                    "CREATE TEMP TABLE copy AS SELECT * FROM read_1.{table} LIMIT 1; UPDATE copy SET {changed};
                     INSERT INTO read_1.{table} SELECT * FROM copy; DROP TABLE copy"
                ))
                .await;
            let report = opened.verify().await;
            assert_eq!(report.differences, 1, "{:?}", report.first);
            assert!(report.first[0].ends_with(": should not be there"), "{:?}", report.first);
            put_back(&opened, table).await;
        }
    }
    opened.assert_projected().await;
    // All are counted, some are told.
    opened
        .sql(
            "UPDATE read_1.company_prospect SET job_title = 'x', department = 'x', email = 'x', company_city = 'x',
        company_name = 'x', industry = 'x', revenue = 6, prospect_city = 'x'",
        )
        .await;
    let report = opened.verify().await;
    assert_eq!((report.differences, report.first.len()), (24, DIFFERENCES_MAX));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_complete_is_not_compared() {
    let (opened, company, _) = projected().await;
    let queue = format!(
        "INSERT INTO read.fanout (projection, generation, tenant_id, company_id, position)
         VALUES ('company_prospect', 1, '{TENANT}', '{company}', 1)"
    );
    opened.sql(&queue).await;
    let database = opened.verifier();
    let outcome = verify(&database, &database, &keyring(), Duration::ZERO).await;
    assert!(matches!(refusal(outcome), VerifyError::Queued(1, _)));
    // Events after the checkpoint are not missed: the log is folded up to it.
    opened.sql("DELETE FROM read.fanout").await;
    opened.rename(company, "Later").await;
    let report = opened.verify().await;
    assert_eq!((report.differences, report.position), (0, opened.head().await - 1));
    let mut projection = opened.projection().await;
    projection.step(STEP_EVENTS_MAX).await.expect("a step");
    opened.assert_projected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_and_an_added_claim_or_match_are_found() {
    let (opened, company, prospect) = projected().await;
    assert_eq!(opened.verify_claims().await.differences, 0);
    opened.sql("CREATE TABLE kept_claims AS SELECT * FROM log.claims; CREATE TABLE kept_matches AS SELECT * FROM log.matches").await;
    let of = |id: Uuid, what: &str| {
        format!("{what} WHERE ctid = (SELECT min(ctid) FROM log.{{table}} WHERE aggregate_id = '{id}')")
    };
    for table in ["claims", "matches"] {
        for id in [company, prospect] {
            for (tamper, differences) in [
                (of(id, "DELETE FROM log.{table}"), 1),
                // Somebody else's now, or another value: one is missing, and one is too many.
                (of(id, &format!("UPDATE log.{{table}} SET aggregate_id = '{TENANT}'")), 2),
                (of(id, "UPDATE log.{table} SET key = key || 'x'"), 2),
                (of(id, "UPDATE log.{table} SET kind = 'other'"), 2),
                (of(id, &format!("UPDATE log.{{table}} SET tenant_id = '{company}'")), 2),
                (format!("INSERT INTO log.{{table}} VALUES ('{TENANT}', 'domain', 'other.com', '{id}')"), 1),
            ] {
                let tamper = tamper.replace("{table}", table);
                opened.sql(&tamper).await;
                let report = opened.verify_claims().await;
                assert_eq!(report.differences, differences, "{tamper}: {:?}", report.first);
                assert!(report.first.iter().any(|line| line.contains(&id.to_string())), "{:?}", report.first);
                opened
                    .sql(&format!("DELETE FROM log.{table}; INSERT INTO log.{table} SELECT * FROM kept_{table}"))
                    .await;
            }
        }
    }
    // A claim that was given up although its record is live.
    opened.sql(&of(company, "UPDATE log.claims SET released = true").replace("{table}", "claims")).await;
    assert_eq!(opened.verify_claims().await.differences, 1);
    opened.sql("UPDATE log.claims SET released = false").await;
    assert_eq!(opened.verify_claims().await.differences, 0);
}
