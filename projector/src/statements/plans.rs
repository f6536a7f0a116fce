//! Every statement finds rows by their keys, also where the server counted the tables when they were nearly empty.

use migrations::testing::TestDatabase;

use super::*;
use crate::projection::SETTINGS;

/// Few rows when they are counted.
const COUNTED: &str = "
    INSERT INTO read_1.companies (tenant_id, company_id, version, position, name, name_sort, created_at, updated_at)
    SELECT '00000000-0000-7000-8000-000000000001', gen_random_uuid(), 1, n, 'Name', 'name', now(), now() FROM generate_series(1, 8) AS n;
    INSERT INTO read_1.company_prospect (tenant_id, row_id, position, assigned_company_id, company_id, company_name, company_name_sort,
        company_version, company_created_at, company_updated_at, created_at, updated_at)
    SELECT tenant_id, company_id, position, company_id, company_id, name, name_sort, 1, created_at, updated_at, created_at, updated_at
    FROM read_1.companies;
    ANALYZE read_1.companies; ANALYZE read_1.company_prospect; ANALYZE read_1.merged_companies";

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_by_their_keys_whatever_was_counted() {
    let database = TestDatabase::new().await;
    let client = database.superuser().await;
    client.batch_execute(COUNTED).await.expect("the tables of the first generation");
    client.batch_execute(SETTINGS).await.expect("the projector's own settings");
    for sql in [prospects(), remove_own_rows(), add_own_rows(), FANOUT_TARGETS.to_owned(), fanout()] {
        let sql = sql.replace("{schema}", "read_1");
        let parameters = client.prepare(&sql).await.expect("a statement").params().len();
        client.batch_execute(&format!("PREPARE planned AS {sql}")).await.expect("a statement");
        let nulls = vec!["NULL"; parameters].join(", ");
        let plan = client.query(&format!("EXPLAIN EXECUTE planned({nulls})"), &[]).await.expect("a plan");
        client.batch_execute("DEALLOCATE planned").await.expect("it was prepared");
        let lines: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        let plan = lines.join("\n");
        assert!(!plan.contains("Seq Scan"), "{sql}\n{plan}");
        for (number, line) in lines.iter().enumerate() {
            let key = match () {
                () if line.contains("using companies_pkey") => "company_id",
                () if line.contains("using company_prospect_pkey") => "row_id",
                () if line.contains("using company_prospect_assigned") => "assigned_company_id",
                () => continue,
            };
            let condition = lines.get(number + 1).filter(|line| line.contains("Index Cond"));
            assert!(condition.is_some_and(|line| line.contains(key)), "not by {key}: {line}\n{sql}\n{plan}");
        }
    }
}
