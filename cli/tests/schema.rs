//! What was changed behind the migrations' back is found and named.

use migrations::testing::TestDatabase;

use crate::program::prospectus;

#[tokio::test]
async fn a_database_is_what_the_migrations_say_until_somebody_changes_it() {
    let database = TestDatabase::new().await;
    let client = database.superuser().await;
    let well = prospectus(&database, &["schema", "validate"]).await;
    assert_eq!((well.code, well.stdout.lines().count()), (0, 1), "{well:?}");
    // Each as somebody might do it, and what must be said of it.
    let changes = [
        (
            "ALTER TABLE log.events ALTER COLUMN payload TYPE jsonb USING payload::jsonb",
            "column log.events.payload: should be: json NOT NULL, is: jsonb NOT NULL",
        ),
        (
            "ALTER TABLE log.events DROP CONSTRAINT events_position_check",
            "constraint events_position_check of log.events: is missing",
        ),
        ("DROP INDEX log.events_tenant", "index log.events_tenant: is missing"),
        ("CREATE INDEX by_hand ON read_1.companies (name)", "index read_live.by_hand: should not be there"),
        (
            "ALTER TABLE log.claims NO FORCE ROW LEVEL SECURITY",
            "table log.claims: should be: owner prospectus_owner, row-level security on and forced",
        ),
        ("DROP POLICY request ON log.person_keys", "policy request of log.person_keys: is missing"),
        ("ALTER POLICY append ON log.events WITH CHECK (false)", "policy append of log.events: should be"),
        (
            "GRANT DELETE ON log.events TO prospectus_appender",
            "grant of DELETE on log.events to prospectus_appender: should not be there",
        ),
        (
            "REVOKE SELECT ON log.epochs FROM prospectus_relay",
            "grant of SELECT on log.epochs to prospectus_relay: is missing",
        ),
        (
            "CREATE OR REPLACE FUNCTION access.request_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT NULL::uuid'",
            "function access.request_tenant()",
        ),
        ("GRANT EXECUTE ON FUNCTION log.forget TO PUBLIC", "grant of EXECUTE on function log.forget("),
        (
            "ALTER TABLE log.matches DISABLE TRIGGER refuse_erased_persons",
            "trigger refuse_erased_persons of log.matches",
        ),
        ("CREATE TABLE read.scribbles (note text)", "table read.scribbles: should not be there"),
        ("DROP VIEW log.cqrs_events", "view log.cqrs_events: is missing"),
        ("GRANT CREATE ON SCHEMA public TO PUBLIC", "grant of CREATE on schema public to public: should not be there"),
    ];
    for (change, _) in &changes {
        // The view over the log stands in the way of its own test only.
        let change = if change.contains("jsonb") {
            format!("DROP VIEW log.cqrs_events; {change}")
        } else {
            (*change).to_owned()
        };
        let change = change.replace("DROP VIEW", "DROP VIEW IF EXISTS");
        client.batch_execute(&change).await.unwrap_or_else(|error| panic!("{error:?}: {change}"));
    }
    let name: String = client.query_one("SELECT current_database()", &[]).await.expect("a name").get(0);
    let setting = format!("ALTER ROLE prospectus_query IN DATABASE {name} SET statement_timeout = '1h'");
    client.batch_execute(&setting).await.expect("a setting");
    let found = prospectus(&database, &["schema", "validate"]).await;
    assert_eq!(found.code, 1, "{found:?}");
    let said = changes
        .iter()
        .map(|(_, said)| *said)
        .chain(["setting statement_timeout of prospectus_query: should be: 30s, is: 1h"]);
    for said in said {
        assert!(found.stdout.lines().any(|line| line.starts_with(said)), "{said}\n{}", found.stdout);
    }
    let json = prospectus(&database, &["schema", "validate", "--json"]).await.json();
    assert!(json["differences"].as_array().is_some_and(|lines| lines.len() > changes.len()), "{json}");
    let left = client.query("SELECT FROM pg_database WHERE datname = 'prospectus_schema_scratch'", &[]).await;
    assert_eq!(left.expect("the databases").len(), 0, "nothing is left");
}

#[tokio::test]
async fn indexes_that_are_not_worth_their_room_and_those_that_may_be_missing() {
    let database = TestDatabase::new().await;
    let client = database.superuser().await;
    client
        .batch_execute(
            "CREATE TABLE read.parents (id integer PRIMARY KEY);
             CREATE TABLE read.children (id integer PRIMARY KEY, parent integer REFERENCES read.parents, a integer, b integer);
             CREATE INDEX children_a ON read.children (a);
             CREATE INDEX children_a_b ON read.children (a, b);
             CREATE INDEX children_a_b_again ON read.children (a, b);
             CREATE INDEX children_b ON read.children (b) WHERE a > 0",
        )
        .await
        .expect("tables");
    let told = prospectus(&database, &["schema", "indexes", "--json"]).await;
    assert_eq!(told.code, 0, "advice is no failure: {told:?}");
    let told = told.json();
    let of = |kind: &str, member: &str| -> Vec<String> {
        let rows = told[kind].as_array().expect("a list").iter();
        rows.filter_map(|row| row[member].as_str())
            .filter(|name| name.contains("children"))
            .map(ToOwned::to_owned)
            .collect()
    };
    assert_eq!(of("superfluous", "index"), ["read.children_a", "read.children_a_b_again"], "{told}");
    assert_eq!(of("missing", "table"), ["read.children"], "{told}");
    let unused = of("unused", "index");
    assert!(
        unused.contains(&"read.children_b".to_owned()) && !unused.iter().any(|name| name.contains("pkey")),
        "{told}"
    );
    // Ours has none that another makes superfluous, and every foreign key finds its rows.
    let ours = |kind: &str, member: &str| -> Vec<String> {
        let rows = told[kind].as_array().expect("a list").iter();
        rows.filter_map(|row| row[member].as_str())
            .filter(|name| !name.contains("children"))
            .map(ToOwned::to_owned)
            .collect()
    };
    assert_eq!(ours("superfluous", "index"), Vec::<String>::new());
    let text = prospectus(&database, &["schema", "indexes"]).await;
    assert!(text.stdout.contains("no replica was asked"), "{text:?}");
}
