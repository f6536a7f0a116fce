//! What the server itself forbids (decisions 15 and 16, invariants I3 and I7).

use migrations::testing::TestDatabase;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

const SERVICE_ROLES: &[&str] = &[
    "prospectus_appender",
    "prospectus_relay",
    "prospectus_projector",
    "prospectus_query",
    "prospectus_sealer",
    "prospectus_verifier",
    "prospectus_operator",
    "prospectus_reads",
];

const TENANT: &str = "'00000000-0000-7000-8000-000000000001'";

/// One event, one company and one of its rows in the read tables.
async fn fill(client: &Client) {
    client
        .batch_execute(&format!(
            "INSERT INTO log.events VALUES
                 (1, {TENANT}, 'company', gen_random_uuid(), 1, gen_random_uuid(), 'CompanyRegistered', 1, '{{}}', '{{}}', now());
             INSERT INTO read_1.companies (tenant_id, company_id, version, position, domain, created_at, updated_at)
             VALUES ({TENANT}, {TENANT}, 1, 1, 'example.com', now(), now());
             INSERT INTO read_1.company_prospect (tenant_id, row_id, position, assigned_company_id, company_id, company_version,
                 company_created_at, company_updated_at, created_at, updated_at)
             VALUES ({TENANT}, {TENANT}, 1, {TENANT}, {TENANT}, 1, now(), now(), now(), now());
             INSERT INTO log.person_keys (tenant_id, person_id, erased_position) VALUES ({TENANT}, {TENANT}, 1);
             INSERT INTO read.fanout (projection, generation, tenant_id, company_id, position)
             VALUES ('company_prospect', 1, {TENANT}, {TENANT}, 1)"
        ))
        .await
        .expect("rows");
}

#[tokio::test]
async fn no_service_role_can_change_or_remove_an_event_or_a_persons_key() {
    let database = TestDatabase::new().await;
    fill(&database.superuser().await).await;
    for role in SERVICE_ROLES {
        let client = database.client_for(role).await;
        // The query role's transactions are read-only by default, which it may change: the grants must refuse by themselves.
        client.batch_execute("SET default_transaction_read_only = off").await.expect("a setting");
        for statement in [
            "UPDATE log.events SET payload = '{}'",
            "UPDATE log.events SET recorded_at = now() WHERE position = 1",
            "DELETE FROM log.events",
            "TRUNCATE log.events",
            "TRUNCATE log.events CASCADE",
            "UPDATE log.reads SET record_ids = '{}'",
            "DELETE FROM log.reads",
            "TRUNCATE log.reads",
            "INSERT INTO log.reads SELECT * FROM log.reads",
            "UPDATE log.person_keys SET wrapped_key = NULL",
            "DELETE FROM log.person_keys",
            "ALTER TABLE log.events DISABLE ROW LEVEL SECURITY",
            "DROP TABLE log.events",
            "SET ROLE prospectus_owner",
            "SET session_replication_role = replica",
        ] {
            let error = client.batch_execute(statement).await.expect_err(statement);
            assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{role}: {statement}: {error:?}");
        }
    }
    // Who builds read tables owns them and nothing else.
    let builder = database.client_for("prospectus_projector").await;
    builder.batch_execute("SET ROLE prospectus_builder").await.expect("the projector builds");
    for statement in [
        "SELECT FROM log.events",
        "UPDATE log.events SET payload = '{}'",
        "TRUNCATE log.events",
        "ALTER TABLE log.events DISABLE ROW LEVEL SECURITY",
        "CREATE TRIGGER t BEFORE INSERT ON log.events FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "DROP SCHEMA log CASCADE",
        "DROP TABLE read.checkpoint_steps",
        "UPDATE access.api_keys SET role = 'admin'",
    ] {
        let error = builder.batch_execute(statement).await.expect_err(statement);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "builder: {statement}: {error:?}");
    }
    let count: i64 =
        database.superuser().await.query_one("SELECT count(*) FROM log.events", &[]).await.expect("count").get(0);
    assert_eq!(count, 1);
}

#[tokio::test]
async fn no_service_role_can_change_or_remove_what_was_sealed_and_only_the_sealer_adds_to_it() {
    let database = TestDatabase::new().await;
    let insert = "INSERT INTO log.seal_keys (key_id, public_key) VALUES ('0123456789abcdef', sha256('x'));
        INSERT INTO log.tree_heads (number, log_id, epoch, tree_size, root_hash, signed_at, key_id, signature)
        VALUES (1, gen_random_uuid(), '1.00000000', 1, sha256('x'), now(), '0123456789abcdef', sha512('x'));
        INSERT INTO log.tree_hashes (level, first, epoch, hashes) VALUES (0, 0, 1, sha256('x'))";
    database.client_for("prospectus_sealer").await.batch_execute(insert).await.expect("the sealer");
    for role in SERVICE_ROLES {
        let client = database.client_for(role).await;
        client.batch_execute("SET default_transaction_read_only = off").await.expect("a setting");
        for table in ["seal_keys", "tree_heads", "tree_hashes"] {
            let mut statements = vec![
                format!("DELETE FROM log.{table}"),
                format!("TRUNCATE log.{table} CASCADE"),
                format!("DROP TABLE log.{table}"),
            ];
            if *role != "prospectus_sealer" {
                statements.push(format!("INSERT INTO log.{table} SELECT * FROM log.{table}"));
            }
            for statement in statements {
                let error = client.batch_execute(&statement).await.expect_err(&statement);
                assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{role}: {statement}: {error:?}");
            }
        }
        for statement in [
            "UPDATE log.seal_keys SET public_key = sha256('y')",
            "UPDATE log.tree_heads SET root_hash = sha256('y')",
            "UPDATE log.tree_hashes SET hashes = sha256('y')",
        ] {
            let error = client.batch_execute(statement).await.expect_err(statement);
            assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{role}: {statement}: {error:?}");
        }
    }
}

#[tokio::test]
async fn only_the_appender_can_insert_events() {
    let database = TestDatabase::new().await;
    let insert = format!(
        "INSERT INTO log.events VALUES
             (1, {TENANT}, 'company', gen_random_uuid(), 1, gen_random_uuid(), 'CompanyRegistered', 1, '{{}}', '{{}}', now())"
    );
    for role in SERVICE_ROLES.iter().filter(|role| **role != "prospectus_appender") {
        let client = database.client_for(role).await;
        client.batch_execute("SET default_transaction_read_only = off").await.expect("a setting");
        let error = client.batch_execute(&insert).await.expect_err(role);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{role}: {error:?}");
    }
    database.client_for("prospectus_appender").await.batch_execute(&insert).await.expect("the appender");
}

#[tokio::test]
async fn row_level_security_is_forced_wherever_there_is_a_tenant() {
    let database = TestDatabase::new().await;
    let rows = database
        .superuser()
        .await
        .query(
            "SELECT c.oid::regclass::text, c.relrowsecurity AND c.relforcerowsecurity
             FROM pg_class AS c
             JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
             WHERE c.relkind IN ('r', 'p')",
            &[],
        )
        .await
        .expect("catalogue");
    assert!(rows.len() >= 11, "the query finds the tables");
    let open: Vec<&str> = rows.iter().filter(|row| !row.get::<_, bool>(1)).map(|row| row.get(0)).collect();
    assert!(open.is_empty(), "without forced row-level security: {open:?}");
}

#[tokio::test]
async fn every_table_and_column_has_a_comment() {
    let database = TestDatabase::new().await;
    let rows = database
        .superuser()
        .await
        .query(
            "SELECT c.oid::regclass::text || coalesce('.' || a.attname, '')
             FROM pg_class AS c
             JOIN pg_namespace AS n ON n.oid = c.relnamespace
             LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
               AND (obj_description(c.oid, 'pg_class') IS NULL OR col_description(c.oid, a.attnum) IS NULL)",
            &[],
        )
        .await
        .expect("catalogue");
    let bare: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert!(bare.is_empty(), "without a comment: {bare:?}");
}

/// Materialized views have no row-level security: only their owner reads those that hold a tenant's numbers, and the projector, which builds
/// generations, works for all tenants and serves no request.
#[tokio::test]
async fn nobody_who_serves_requests_reads_materialized_views_or_refreshes_them() {
    let database = TestDatabase::new().await;
    let superuser = database.superuser().await;
    let views = "SELECT c.oid::regclass::text, EXISTS (
            SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id')
        FROM pg_class AS c WHERE c.relkind = 'm' ORDER BY 1";
    let rows = superuser.query(views, &[]).await.expect("catalogue");
    let views: Vec<(String, bool)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let with_tenant: Vec<&str> = views.iter().filter(|(_, tenant)| *tenant).map(|(view, _)| view.as_str()).collect();
    assert_eq!(with_tenant, ["read_1.company_stats", "read_1.growth", "read_1.prospect_stats"]);
    let refused = async |client: &Client, statement: &str| {
        let error = client.batch_execute(statement).await.expect_err(statement);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}: {error:?}");
    };
    for role in SERVICE_ROLES {
        let client = database.client_for(role).await;
        client.batch_execute("SET default_transaction_read_only = off").await.expect("a setting");
        client.batch_execute(&format!("SET prospectus.tenant = {TENANT}")).await.expect("a setting");
        if *role == "prospectus_projector" {
            let refresh = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT read_1.refresh_stats(); ROLLBACK";
            client.batch_execute(refresh).await.expect("the projector");
            continue;
        }
        for (view, tenant) in &views {
            if *tenant || *role == "prospectus_query" {
                refused(&client, &format!("SELECT * FROM {view}")).await;
            }
            refused(&client, &format!("REFRESH MATERIALIZED VIEW CONCURRENTLY {view}")).await;
        }
        let refresh = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT read_1.refresh_stats()";
        refused(&client, refresh).await;
        client.batch_execute("ROLLBACK").await.expect("the end");
        if *role != "prospectus_query" {
            refused(&client, "SELECT * FROM read_1.own_stats(NULL, NULL)").await;
        }
    }
    let people =
        "SELECT count(*) FROM pg_class WHERE relkind = 'm' AND has_table_privilege('prospectus_people', oid, 'SELECT')";
    assert_eq!(superuser.query_one(people, &[]).await.expect("a count").get::<_, i64>(0), 0);
}

#[tokio::test]
async fn the_query_role_is_told_the_numbers_of_one_tenant_and_without_a_setting_none() {
    let database = TestDatabase::new().await;
    let superuser = database.superuser().await;
    fill(&superuser).await;
    let refresh = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT read_1.refresh_stats(); COMMIT";
    superuser.batch_execute(refresh).await.expect("counted");
    let client = database.client_for("prospectus_query").await;
    let told = async || -> i64 {
        let sql = "SELECT (SELECT count(*) FROM read_1.own_stats(NULL, NULL))
                        + (SELECT count(*) FROM read_1.own_growth(NULL, NULL, '-infinity', 'infinity'))";
        client.query_one(sql, &[]).await.expect("numbers").get(0)
    };
    assert_eq!(told().await, 0, "without a setting");
    client.batch_execute("SET prospectus.tenant = '00000000-0000-7000-8000-000000000002'").await.expect("a setting");
    assert_eq!(told().await, 0, "with another tenant's");
    client.batch_execute(&format!("SET prospectus.tenant = {TENANT}")).await.expect("a setting");
    assert!(told().await > 1);
}

/// Rows that the client sees in each relation that a request reads.
async fn seen(client: &Client) -> Vec<(&'static str, i64)> {
    let mut seen = Vec::new();
    for relation in [
        "log.events",
        "log.person_keys",
        "read.fanout",
        "read_1.companies",
        "read_1.company_prospect",
        "read.companies",
        "read.company_prospect",
        "read.company_prospect_view",
    ] {
        let count = client.query_one(&format!("SELECT count(*) FROM {relation}"), &[]).await.expect(relation).get(0);
        seen.push((relation, count));
    }
    seen
}

#[tokio::test]
async fn the_query_role_sees_one_tenant_and_without_a_setting_none() {
    let database = TestDatabase::new().await;
    fill(&database.superuser().await).await;
    let client = database.client_for("prospectus_query").await;
    let none = |seen: Vec<(&str, i64)>| seen.iter().all(|(_, count)| *count == 0);
    assert!(none(seen(&client).await), "without a setting");
    client.batch_execute("SET prospectus.tenant = ''").await.expect("a setting");
    assert!(none(seen(&client).await), "with an empty setting");
    client.batch_execute("SET prospectus.tenant = '00000000-0000-7000-8000-000000000002'").await.expect("a setting");
    assert!(none(seen(&client).await), "with another tenant's");
    client.batch_execute(&format!("SET prospectus.tenant = {TENANT}")).await.expect("a setting");
    for (relation, count) in seen(&client).await {
        assert_eq!(count, 1, "{relation}");
    }
}

#[tokio::test]
async fn a_persons_sql_role_sees_its_tenant_whatever_it_sets() {
    let database = TestDatabase::new().await;
    let superuser = database.superuser().await;
    fill(&superuser).await;
    let role = format!("person_{}", uuid::Uuid::new_v4().simple());
    superuser
        .batch_execute(&format!(
            "INSERT INTO access.tenants (tenant_id, name) VALUES ('00000000-0000-7000-8000-000000000002', 'other'), ({TENANT}, 'own');
             CREATE ROLE {role} LOGIN PASSWORD 'test-only' IN ROLE prospectus_people;
             INSERT INTO access.sql_roles VALUES ('{role}', '00000000-0000-7000-8000-000000000002')"
        ))
        .await
        .expect("a person");
    let person = database.client_for(&role).await;
    let count = "SELECT (SELECT count(*) FROM log.events) + (SELECT count(*) FROM read.companies)
                      + (SELECT count(*) FROM read.company_prospect_view)";
    for setting in [
        "SELECT 1".to_owned(),
        format!("SET prospectus.tenant = {TENANT}"),
        "SET row_security = on".to_owned(),
        "SET search_path = pg_temp, access, public".to_owned(),
    ] {
        person.batch_execute(&setting).await.expect("a setting");
        assert_eq!(person.query_one(count, &[]).await.expect("count").get::<_, i64>(0), 0, "after {setting}");
    }
    for refused in [
        "SET ROLE prospectus_query",
        "SET SESSION AUTHORIZATION postgres",
        "INSERT INTO access.sql_roles VALUES ('x', gen_random_uuid())",
        "UPDATE read.companies SET domain = 'x'",
        "SELECT * FROM log.person_keys",
    ] {
        let error = person.batch_execute(refused).await.expect_err(refused);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{refused}: {error:?}");
    }
    superuser
        .execute(&format!("UPDATE access.sql_roles SET tenant_id = {TENANT} WHERE role_name = '{role}'"), &[])
        .await
        .expect("bound to the other tenant");
    assert_eq!(person.query_one(count, &[]).await.expect("count").get::<_, i64>(0), 3, "the rows are there to be seen");
    // Ending its session first lets the role go.
    drop(person);
    superuser.batch_execute(&format!("DROP ROLE {role}")).await.expect("the role goes");
}

#[tokio::test]
async fn a_table_that_is_dropped_while_it_is_measured_is_left_out() {
    const NOTHING: &str = "SELECT count(*) FROM ops.server_figures() AS f WHERE f.value IS NULL";
    const SIZES: &str = "SELECT count(*) FROM ops.server_figures() AS f WHERE f.name = 'read_9.passing'";
    let database = TestDatabase::new().await;
    let (client, other) = (database.superuser().await, database.superuser().await);
    other.batch_execute("CREATE SCHEMA read_9; CREATE TABLE read_9.passing (id integer)").await.expect("a table");
    // A snapshot in which it is there.
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.expect("a transaction");
    assert_eq!(client.query_one(SIZES, &[]).await.expect("figures").get::<_, i64>(0), 2);
    other.batch_execute("DROP TABLE read_9.passing").await.expect("it is gone");
    assert_eq!(client.query_one(NOTHING, &[]).await.expect("figures").get::<_, i64>(0), 0);
    assert_eq!(client.query_one(SIZES, &[]).await.expect("figures").get::<_, i64>(0), 0);
}
