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
