//! A restored backup brings back whom it holds; the lists outside the database say whom to erase again.

use std::path::Path;
use std::sync::Arc;

use domain::{Prospect, Status};
use event_store::{Keyring, Store};
use http::Method;
use local_stack::Part;
use projector::projection::Projection;
use serde_json::{Value, json};
use service_kit::postgres::Database;
use tests::{Ran, TestStack, eventually, prospectus, ran, run_prospectus};
use uuid::Uuid;

use super::{erase, listed, person};

/// Dumps the database, and restores the dump as another one of the same server; gives its URL.
async fn restored(test: &TestStack, dump: &Path, name: &str) -> String {
    let primary = test.superuser(Part::Primary).await;
    primary.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database");
    let url = test.stack.superuser_url(Part::Primary).replace("/prospectus", &format!("/{name}"));
    let mut command = tokio::process::Command::new(program(test, "psql").await);
    command.args(["-q", "-X", "-v", "ON_ERROR_STOP=1", "-d", &url, "-f"]).arg(dump);
    let restored = ran(command).await;
    assert_eq!(restored.code, 0, "{}", restored.stderr);
    url
}

async fn program(test: &TestStack, name: &str) -> std::path::PathBuf {
    let primary = test.superuser(Part::Primary).await;
    let row = primary.query_one("SELECT setting FROM pg_config WHERE name = 'BINDIR'", &[]).await.expect("where");
    Path::new(&row.get::<_, String>(0)).join(name)
}

async fn back_up(test: &TestStack, name: &str) -> std::path::PathBuf {
    let file = test.directory().join(name);
    let mut command = tokio::process::Command::new(program(test, "pg_dump").await);
    command.arg("-f").arg(&file).arg(test.stack.superuser_url(Part::Primary));
    let made = ran(command).await;
    assert_eq!(made.code, 0, "{}", made.stderr);
    file
}

async fn reapply(test: &TestStack, url: &str, arguments: &[&str]) -> Ran {
    let mut command = prospectus(test, &[&["erasures", "reapply", "--json"], arguments].concat());
    command.env("PROSPECTUS_PRIMARY_URL", url);
    ran(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_restored_backup_brings_back_is_erased_again() {
    let test = TestStack::start().await;
    let client = test.client();
    let fields = |name: &str| json!({"first_name": name, "email": format!("{name}@acme.com"), "external_refs": [{"source": "crm", "id": name}]});
    let mut ids = Vec::new();
    for name in ["ada", "bob", "carl"] {
        ids.push(person(&client, fields(name)).await);
    }
    let before = erase(&client, &ids[2]).await.position();
    client.read("/v1/prospects", Some(before)).await;
    let backup = back_up(&test, "backup.sql").await;
    let later = person(&client, fields("dora")).await;
    for id in [&ids[0], &later] {
        erase(&client, id).await;
    }
    let url = restored(&test, &backup, "restored").await;
    let database = Database::parse(&url, "tests").expect("a URL");
    let sql = database.client().await.expect("it answers");
    let open = "SELECT count(*) FROM log.person_keys WHERE wrapped_key IS NOT NULL";
    assert_eq!(sql.query_one(open, &[]).await.expect("a count").get::<_, i64>(0), 2, "Ada is back");

    let since = listed(&test, Part::CommandService(1))[0]["erased_at"].as_str().expect("a time").to_owned();
    let list = test.directory().join("erasures-command_service.ndjson").display().to_string();
    let wrong = reapply(&test, &url, &["--since", "yesterday"]).await;
    assert_eq!(wrong.code, 2, "{wrong:?}");
    let none = reapply(&test, &url, &["--since", "2999-01-01", "--file", &list]).await;
    assert_eq!(none.json(), json!({"erased": 0, "emptied": 0, "already": 0, "unknown": 0}), "{none:?}");
    let done = reapply(&test, &url, &["--since", &since, "--file", &list]).await;
    assert_eq!(done.json(), json!({"erased": 1, "emptied": 0, "already": 1, "unknown": 1}), "{done:?}");
    let again = reapply(&test, &url, &["--since", &since, "--file", &list]).await;
    assert_eq!(again.json(), json!({"erased": 0, "emptied": 0, "already": 2, "unknown": 1}), "{again:?}");

    let keys = std::fs::read_to_string(test.directory().join("keyring")).expect("the keys");
    let keyring = Arc::new(Keyring::parse(&keys).expect("good keys"));
    let tenant: Uuid = sql.query_one("SELECT tenant_id FROM access.tenants", &[]).await.expect("a tenant").get(0);
    let load = async |id: &str| {
        let (store, _task) = Store::open(&database, Arc::clone(&keyring));
        store.loader().load::<Prospect>(tenant, id.parse().expect("an id")).await.expect("it loads").state
    };
    let ada = load(&ids[0]).await;
    assert!(ada.erased && ada.personal.fields.first_name.is_none());
    let bob = load(&ids[1]).await;
    assert_eq!((bob.status, bob.personal.fields.first_name.is_some()), (Status::Live, true));
    let row = sql
        .query_one(
            "SELECT metadata ->> 'actor', metadata ->> 'source' FROM log.events ORDER BY position DESC LIMIT 1",
            &[],
        )
        .await;
    let row = row.expect("the last event");
    assert_eq!((row.get(0), row.get(1)), ("operator", "erasures reapply"));
    for table in ["claims", "matches"] {
        let left =
            format!("SELECT count(*) FROM log.{table} AS t JOIN log.erasures AS e ON e.person_id = t.aggregate_id");
        assert_eq!(sql.query_one(&left, &[]).await.expect("a count").get::<_, i64>(0), 0, "{table}");
    }
    let mut projection =
        Projection::open(&database.clone().read_write(), Arc::clone(&keyring)).await.expect("it opens");
    while !projection.step(1_000).await.expect("a step").idle() {}
    let shown = "SELECT count(*) FROM read_1.company_prospect AS t WHERE t::text LIKE '%ada%' OR t::text LIKE '%carl%'";
    assert_eq!(sql.query_one(shown, &[]).await.expect("a count").get::<_, i64>(0), 0);

    // The keys alone come from an older backup: the log says who is erased, and they are emptied once more.
    let old = restored(&test, &backup, "older").await;
    let older = Database::parse(&old, "tests").expect("a URL").client().await.expect("it answers");
    let sealed = "SELECT wrapping_key_id, wrapped_key FROM log.person_keys WHERE person_id = $1::text::uuid";
    let key = older.query_one(sealed, &[&ids[0]]).await.expect("Ada's key");
    let bring_back = "UPDATE log.person_keys SET wrapping_key_id = $2, wrapped_key = $3, erased_position = NULL WHERE person_id = $1::text::uuid";
    sql.execute(bring_back, &[&ids[0], &key.get::<_, String>(0), &key.get::<_, Vec<u8>>(1)])
        .await
        .expect("brought back");
    let no_list = reapply(&test, &url, &["--since", &since]).await;
    assert!(
        no_list.code == 2 && no_list.stderr.contains("--file"),
        "the log alone does not know who was erased later: {no_list:?}"
    );
    let emptied = reapply(&test, &url, &["--since", &since, "--log-only"]).await;
    assert_eq!(emptied.json(), json!({"erased": 0, "emptied": 1, "already": 1, "unknown": 0}), "{emptied:?}");
    assert_eq!(sql.query_one(open, &[]).await.expect("a count").get::<_, i64>(0), 1, "Bob's alone");
    // A row that is missing is never taken for an erasure.
    sql.execute("DELETE FROM log.person_keys WHERE person_id = $1::text::uuid", &[&ids[0]]).await.expect("removed");
    let missing = reapply(&test, &url, &["--since", &since, "--log-only"]).await;
    assert!(missing.code == 1 && missing.stdout.contains("no key row"), "{missing:?}");
    // What the stack itself serves has not changed.
    let erased =
        client.command(Method::POST, &format!("/v1/prospects/{}/erase", ids[0]), &json!({"reason": "again"})).await;
    assert_eq!(erased.json["version"], Value::from(2), "{erased:?}");
    drop((sql, older, projection));
    test.finish().await;
}

/// The log loses its tail, as a promotion does it: events from a position on, and all that was written with them.
async fn lose_tail(test: &TestStack, from: i64) {
    let primary = test.superuser(Part::Primary).await;
    primary
        .batch_execute(&format!(
            "DELETE FROM log.events WHERE position >= {from}; DELETE FROM log.erasures WHERE position >= {from};
             DELETE FROM log.erased_values;
             DELETE FROM log.person_keys; INSERT INTO log.person_keys TABLE kept_keys;
             DELETE FROM log.claims; INSERT INTO log.claims TABLE kept_claims;
             DELETE FROM log.matches; INSERT INTO log.matches TABLE kept_matches"
        ))
        .await
        .expect("lost");
    let epoch = run_prospectus(test, &["log", "new-epoch", "--json"]).await;
    assert_eq!(epoch.code, 0, "{epoch:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_lost_tail_brings_back_is_erased_again_before_the_service_serves_and_while_it_does() {
    let test = TestStack::start().await;
    let client = test.client();
    let ada = person(&client, json!({"first_name": "Ada", "email": "ada@acme.com"})).await;
    let bob = person(&client, json!({"first_name": "Bob", "email": "bob@acme.com"})).await;
    let primary = test.superuser(Part::Primary).await;
    primary
        .batch_execute(
            "CREATE TABLE kept_keys AS TABLE log.person_keys; CREATE TABLE kept_claims AS TABLE log.claims;
             CREATE TABLE kept_matches AS TABLE log.matches",
        )
        .await
        .expect("kept");
    let open = "SELECT count(*) FROM log.person_keys WHERE wrapped_key IS NOT NULL";
    let again = "SELECT metadata ->> 'source' FROM log.events WHERE event_type = 'ProspectErased'";
    for running in [false, true] {
        let erased = if running { &bob } else { &ada };
        let position = erase(&client, erased).await.position();
        client.read("/v1/prospects", Some(position)).await;
        if !running {
            test.stack.stop(Part::CommandService(1)).await.expect("stopped");
        }
        lose_tail(&test, 3).await;
        assert_eq!(primary.query_one(open, &[]).await.expect("a count").get::<_, i64>(0), 2, "they are back");
        if running {
            // The service sees the other life of the log by itself.
            eventually("both are erased again", async || {
                (primary.query_one(open, &[]).await.expect("a count").get::<_, i64>(0) == 0).then_some(())
            })
            .await;
        } else {
            test.stack.start_part(Part::CommandService(1)).await.expect("started");
            assert_eq!(primary.query_one(open, &[]).await.expect("a count").get::<_, i64>(0), 1, "Bob's alone");
        }
        test.stack.ready(Part::CommandService(1)).await.expect("ready");
        let rows = primary.query(again, &[]).await.expect("events");
        assert!(rows.iter().all(|row| row.get::<_, &str>(0) == "erasures list"), "erased by events of its own");
        let refused = client.command(Method::PATCH, &format!("/v1/prospects/{erased}"), &json!({"city": "Ulm"})).await;
        assert_eq!(refused.json["code"], "erased", "{refused:?}");
    }
    eventually("each erasure, in each life of the log, is in the list", async || {
        (listed(&test, Part::CommandService(1)).len() == 5).then_some(())
    })
    .await;
    // The read tables, which a promotion or a backup takes back together with the log, were not: nothing is said of them here.
    test.finish().await;
}
