//! Migrating: from nothing, twice at once, and what is refused.

use migrations::testing::TestDatabase;
use migrations::{MigrateError, SchemaError};

#[tokio::test]
async fn an_empty_database_is_migrated_and_then_left_alone() {
    let database = TestDatabase::empty().await;
    let mut client = database.superuser().await;
    assert!(matches!(migrations::check(&client).await, Err(SchemaError::Empty)));

    let first = migrations::migrate(&mut client).await.expect("the first run");
    assert_eq!(first.version, migrations::version());
    assert_eq!(first.applied.first().map(String::as_str), Some("0001_roles"));
    assert_eq!(first.applied.len(), usize::try_from(migrations::version()).expect("small"));
    assert_eq!(first.generations, ["company_prospect"]);

    let second = migrations::migrate(&mut client).await.expect("the second run");
    assert!(second.applied.is_empty() && second.generations.is_empty());
    migrations::check(&client).await.expect("fits");

    let row = client
        .query_one("SELECT projection, generation, position, epoch FROM read.checkpoints", &[])
        .await
        .expect("one checkpoint");
    assert_eq!(
        (row.get::<_, &str>(0), row.get::<_, i32>(1), row.get::<_, i64>(2), row.get::<_, &str>(3)),
        ("company_prospect", 1, 0, "")
    );
}

#[tokio::test]
async fn two_runners_at_once_apply_everything_once() {
    let database = TestDatabase::empty().await;
    let (mut one, mut two) = (database.superuser().await, database.superuser().await);
    let (one, two) = tokio::join!(migrations::migrate(&mut one), migrations::migrate(&mut two));
    let applied = one.expect("one").applied.len() + two.expect("two").applied.len();
    assert_eq!(applied, usize::try_from(migrations::version()).expect("small"));
}

#[tokio::test]
async fn an_edited_file_is_refused() {
    let database = TestDatabase::new().await;
    let mut client = database.superuser().await;
    client
        .execute("UPDATE migrations.applied SET sha256 = sha256('another text') WHERE version = 2", &[])
        .await
        .expect("an edit");
    let error = migrations::migrate(&mut client).await.expect_err("refused");
    assert!(matches!(&error, MigrateError::Schema(SchemaError::Changed { file }) if file == "0002_access"));
    assert!(error.to_string().contains("was changed after it was applied"));
    assert!(matches!(migrations::check(&client).await, Err(SchemaError::Changed { .. })));
}

#[tokio::test]
async fn a_newer_and_an_older_database_are_refused() {
    let database = TestDatabase::new().await;
    let mut client = database.superuser().await;
    client
        .execute(
            "INSERT INTO migrations.applied (version, name, sha256) VALUES ($1, 'of_tomorrow', sha256(''))",
            &[&(migrations::version() + 1)],
        )
        .await
        .expect("a newer release was here");
    assert!(matches!(migrations::migrate(&mut client).await, Err(MigrateError::Schema(SchemaError::Newer { .. }))));
    assert!(matches!(migrations::check(&client).await, Err(SchemaError::Newer { .. })));

    client
        .execute("DELETE FROM migrations.applied WHERE version >= $1", &[&migrations::version()])
        .await
        .expect("the last one was not applied");
    let error = migrations::check(&client).await.expect_err("refused");
    assert!(matches!(error, SchemaError::Older { .. }));
    assert!(error.to_string().contains("run `prospectus migrate`"));
}

#[tokio::test]
async fn every_login_role_may_check_the_version() {
    let database = TestDatabase::new().await;
    for role in ["prospectus_appender", "prospectus_relay", "prospectus_projector", "prospectus_query"] {
        migrations::check(&database.client_for(role).await).await.expect(role);
    }
}

#[tokio::test]
async fn a_further_generation_stands_beside_the_live_one_until_the_views_are_pointed_at_it() {
    let database = TestDatabase::new().await;
    let mut client = database.superuser().await;
    let transaction = client.transaction().await.expect("transaction");
    migrations::create_generation(&transaction, migrations::COMPANY_PROSPECT, 2, 1).await.expect("tables");
    migrations::create_indexes(&transaction, migrations::COMPANY_PROSPECT, 2).await.expect("indexes");
    let table_of_view = "SELECT DISTINCT view_name || ' ' || table_schema FROM information_schema.view_table_usage
                         WHERE view_schema = 'read' AND view_name = 'companies'";
    let before: String = transaction.query_one(table_of_view, &[]).await.expect("view").get(0);
    assert_eq!(before, "companies read_1");
    migrations::point_views(&transaction, migrations::COMPANY_PROSPECT, 2).await.expect("views");
    let after: String = transaction.query_one(table_of_view, &[]).await.expect("view").get(0);
    assert_eq!(after, "companies read_2");
    let unknown = migrations::create_generation(&transaction, "nothing", 3, 1).await;
    assert!(matches!(unknown, Err(migrations::GenerationError::Unknown(_))));
}

/// The database of an earlier release, with a generation that is live: what migrating makes of it is what migrating makes of nothing.
#[tokio::test]
async fn a_database_of_an_earlier_release_becomes_what_a_new_one_is() {
    const FILES: [(i32, &str, &str); 9] = [
        (1, "roles", include_str!("../sql/0001_roles.sql")),
        (2, "access", include_str!("../sql/0002_access.sql")),
        (3, "log", include_str!("../sql/0003_log.sql")),
        (4, "read", include_str!("../sql/0004_read.sql")),
        (5, "duplicates", include_str!("../sql/0005_duplicates.sql")),
        (6, "imports", include_str!("../sql/0006_imports.sql")),
        (7, "proofs", include_str!("../sql/0007_proofs.sql")),
        (8, "reads", include_str!("../sql/0008_reads.sql")),
        (9, "erasures", include_str!("../sql/0009_erasures.sql")),
    ];
    const GENERATION: [&str; 3] = [
        include_str!("release_9/company_prospect.sql"),
        include_str!("release_9/company_prospect_indexes.sql"),
        include_str!("release_9/company_prospect_views.sql"),
    ];
    let database = TestDatabase::empty().await;
    let mut client = database.superuser().await;
    let run = async |sql: &str| client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    run("CREATE SCHEMA migrations;
         CREATE TABLE migrations.applied (version integer PRIMARY KEY CHECK (version >= 1), name text NOT NULL,
             sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
             applied_at timestamptz NOT NULL DEFAULT clock_timestamp())")
    .await;
    for (version, name, sql) in FILES {
        run(sql).await;
        let applied =
            "INSERT INTO migrations.applied (version, name, sha256) VALUES ($1, $2, sha256(convert_to($3, 'UTF8')))";
        client.execute(applied, &[&version, &name, &sql]).await.expect("its row");
    }
    for sql in GENERATION {
        run(&format!("SET ROLE prospectus_owner; {}; RESET ROLE", sql.replace("{schema}", "read_1"))).await;
    }
    run("INSERT INTO read.generations (projection, generation, code_version) VALUES ('company_prospect', 1, 1);
         INSERT INTO read.checkpoint_steps (projection, generation, step, position, epoch) VALUES ('company_prospect', 1, 0, 0, '');
         INSERT INTO read.live (projection, generation) VALUES ('company_prospect', 1);
         INSERT INTO read_1.companies (tenant_id, company_id, version, position, name, name_sort, country, created_at, updated_at)
             VALUES (gen_random_uuid(), gen_random_uuid(), 1, 1, 'There before', 'there before', 'DE', now(), now())")
    .await;

    let report = migrations::migrate(&mut client).await.expect("migrated");
    assert_eq!(report.applied.first().map(String::as_str), Some("0010_rebuilds"));
    assert!(report.generations.is_empty(), "the generation stays");
    let found = migrations::catalogue::facts(&client).await.expect("facts");
    let fresh = TestDatabase::empty().await;
    let mut fresh_client = fresh.superuser().await;
    migrations::migrate(&mut fresh_client).await.expect("migrated");
    let expected = migrations::catalogue::facts(&fresh_client).await.expect("facts");
    let differences = migrations::catalogue::differences(&expected, &found);
    assert!(differences.is_empty(), "{differences:#?}");

    // The projector takes it from there: it counts what is there, and removes what nobody needs.
    let projector = database.client_for("prospectus_projector").await;
    let refresh = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT read_1.refresh_stats(); COMMIT";
    projector.batch_execute(refresh).await.expect("a refresh");
    let counted = "SELECT records FROM read_1.company_stats WHERE measure = 'total'";
    assert_eq!(client.query_one(counted, &[]).await.expect("a count").get::<_, i64>(0), 1);
    projector.batch_execute("SET ROLE prospectus_builder; DROP SCHEMA read_1 CASCADE").await.expect("its owner");
}
