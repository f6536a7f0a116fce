//! Migrating, tenants, keys, SQL roles.

use std::time::Duration;

use migrations::testing::TestDatabase;
use service_kit::auth::{Authenticator, Role};
use service_kit::postgres::Database;

use crate::program::prospectus;

#[tokio::test]
async fn an_empty_database_is_migrated_and_other_commands_say_so_before() {
    let database = TestDatabase::empty().await;
    let before = prospectus(&database, &["tenants", "list"]).await;
    assert_eq!(before.code, 1);
    assert!(before.stderr.contains("run `prospectus migrate`"), "{before:?}");
    let migrated = prospectus(&database, &["migrate", "--json"]).await;
    assert_eq!((migrated.code, migrated.json()["version"].as_i64()), (0, Some(migrations::version().into())));
    assert_eq!(prospectus(&database, &["migrate", "--json"]).await.json()["applied"], serde_json::json!([]));
    assert_eq!(prospectus(&database, &["tenants", "list", "--json"]).await.json(), serde_json::json!([]));
}

#[tokio::test]
async fn a_key_works_until_it_is_revoked() {
    let database = TestDatabase::new().await;
    let tenant = prospectus(&database, &["tenants", "create", "acme", "--json"]).await.json();
    let made = prospectus(
        &database,
        &["keys", "create", "--tenant", "acme", "--role", "writer", "--name", "a test", "--json"],
    )
    .await
    .json();
    let key = made["key"].as_str().expect("a key");
    // One for each look, because an authenticator remembers for a few seconds.
    let authenticator = || {
        let database = Database::parse(&database.url_for("prospectus_appender"), "test").expect("a URL");
        Authenticator::new(vec![database.pool(1, Duration::from_secs(5)).expect("a pool")])
    };
    let principal = authenticator().authenticate(key).await.expect("valid");
    assert_eq!(
        (principal.tenant_id.to_string().as_str(), principal.role),
        (tenant["tenant_id"].as_str().expect("an id"), Role::Writer)
    );

    let list = prospectus(&database, &["keys", "list", "--tenant", "acme"]).await.stdout;
    assert!(list.contains(made["prefix"].as_str().expect("a prefix")) && list.contains("a test"), "{list}");
    assert!(!list.contains(&key[16..]), "the secret is shown once");

    assert_eq!(prospectus(&database, &["keys", "revoke", key]).await.code, 0);
    assert!(authenticator().authenticate(key).await.is_err());
    assert_eq!(prospectus(&database, &["keys", "revoke", key]).await.code, 0, "again is fine");
    let keys = prospectus(&database, &["keys", "list", "--json"]).await.json();
    assert!(keys[0]["revoked_at"].is_string());
}

#[tokio::test]
async fn wrong_names_are_refused_with_what_to_do() {
    let database = TestDatabase::new().await;
    assert_eq!(prospectus(&database, &["tenants", "create", "acme"]).await.code, 0);
    for (arguments, said) in [
        (&["tenants", "create", "acme"][..], "already"),
        (&["tenants", "create", "Not A Name"], "lower-case"),
        (&["keys", "create", "--tenant", "nobody", "--role", "reader"], "prospectus tenants create nobody"),
        (&["keys", "revoke", "pk_000000000000"], "prospectus keys list"),
        (&["sql-roles", "grant", "nobody_here", "--tenant", "acme"], "CREATE ROLE"),
        (&["sql-roles", "grant", "prospectus_query", "--tenant", "acme"], "more than one tenant"),
        (&["sql-roles", "grant", "prospectus_owner", "--tenant", "acme"], "cannot log in"),
        (&["sql-roles", "revoke", "nobody_here"], "sql-roles list"),
    ] {
        let answer = prospectus(&database, arguments).await;
        assert_eq!(answer.code, 1, "{arguments:?}");
        assert!(answer.stderr.contains(said), "{arguments:?}: {answer:?}");
    }
    assert_eq!(prospectus(&database, &["tenants", "create", "acme", "--if-missing"]).await.code, 0);
    assert_eq!(prospectus(&database, &["keys", "create", "--tenant", "acme", "--role", "king"]).await.code, 2);
}

#[tokio::test]
async fn a_person_reads_the_tenant_that_its_role_is_bound_to() {
    let database = TestDatabase::new().await;
    let superuser = database.superuser().await;
    let tenant = prospectus(&database, &["tenants", "create", "acme", "--json"]).await.json();
    let tenant_id = tenant["tenant_id"].as_str().expect("an id");
    // A name that needs quotes, unique on the server, because roles are the server's.
    let role = format!("Ada \"{}\"", database.url().rsplit('/').next().expect("a database"));
    let quoted = format!("\"{}\"", role.replace('"', "\"\""));
    superuser
        .batch_execute(&format!(
            "CREATE ROLE {quoted} LOGIN PASSWORD 'test-only';
             INSERT INTO log.events VALUES
                 (1, '{tenant_id}', 'company', gen_random_uuid(), 1, gen_random_uuid(), 'CompanyRegistered', 1, '{{}}', '{{}}', now())"
        ))
        .await
        .expect("a role and an event");
    let granted = prospectus(&database, &["sql-roles", "grant", &role, "--tenant", "acme"]).await;
    assert_eq!(granted.code, 0, "{granted:?}");
    let listed = prospectus(&database, &["sql-roles", "list", "--json"]).await.json();
    assert_eq!(listed, serde_json::json!([{"role": role, "tenant": "acme", "active": true}]));

    let count = "SELECT count(*) FROM log.events";
    let person = database.client_for(&role).await;
    assert_eq!(person.query_one(count, &[]).await.expect("count").get::<_, i64>(0), 1);
    assert_eq!(prospectus(&database, &["sql-roles", "revoke", &role]).await.code, 0);
    assert!(person.query_one(count, &[]).await.is_err(), "no right to read any more");
    drop(person);
    superuser.batch_execute(&format!("DROP ROLE {quoted}")).await.expect("the role goes");
}
