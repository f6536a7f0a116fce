//! Requirement 003's table `Customer` in a database of its own, copied and followed while somebody goes on working with it.

use std::process::Stdio;

use http::Method;
use local_stack::Part;
use serde_json::{Value, json};
use service_kit::postgres::Database;
use tests::{Client, TestStack, eventually, prospectus, run_prospectus};

const TABLE: &str = r#"CREATE TABLE "Customer" (
    id text PRIMARY KEY, salutation text, "firstName" text, "lastName" text, email text, phone text, "mobilePhone" text,
    "jobTitle" text, "jobTitleLevel" text, department text, "jobTitleLink" text, company text, industry text,
    "minEmployeeSize" integer, "maxEmployeeSize" integer, "employeeSizeLink" text, revenue bigint, address text, city text,
    state text, country text, "zipCode" text, "externalSource" text NOT NULL, "externalId" text NOT NULL,
    "createdAt" timestamp(3) NOT NULL DEFAULT now(), "updatedAt" timestamp(3) NOT NULL)"#;

/// The stack, its legacy database, and the address of that.
async fn legacy(test: &TestStack) -> (tokio_postgres::Client, String) {
    let superuser = test.superuser(Part::Primary).await;
    superuser.batch_execute("CREATE DATABASE legacy").await.expect("a second database");
    let url = test.stack.superuser_url(Part::Primary);
    let (server, _) = url.rsplit_once('/').expect("a URL with a database");
    let url = format!("{server}/legacy");
    let client = Database::parse(&url, "tests").expect("a URL").client().await.expect("it answers");
    client.batch_execute(TABLE).await.expect("the table");
    (client, url)
}

/// Writes a row whose `updatedAt` is so many seconds ago.
async fn write(legacy: &tokio_postgres::Client, number: i32, first_name: &str, seconds_ago: i32) {
    let sql = r#"INSERT INTO "Customer" (id, "firstName", email, company, "externalSource", "externalId", "updatedAt")
        VALUES ('ck' || $1, $2, 'p' || $1 || '@firm' || $1 || '.co.uk', 'Firm ' || $1, 'crm', 'x' || $1,
                (now() AT TIME ZONE 'UTC') - make_interval(secs => $3::int))
        ON CONFLICT (id) DO UPDATE SET "firstName" = excluded."firstName", "updatedAt" = excluded."updatedAt""#;
    let sql = sql.replace("|| $1", "|| $1::int");
    legacy.execute(&sql, &[&number, &first_name, &seconds_ago]).await.expect("a row");
}

/// Waits until the person of a row has this first name; none: is gone.
async fn becomes(client: &Client, number: i32, first_name: Option<&str>) {
    eventually(&format!("row {number} becomes {first_name:?}"), async || {
        let found = client.read(&format!("/v1/prospects?email=p{number}@firm{number}.co.uk"), None).await;
        let is = found.json["items"][0]["first_name"].as_str();
        (found.status == 200 && is == first_name).then_some(())
    })
    .await;
}

fn arguments<'a>(url: &'a str, state: &'a str) -> Vec<&'a str> {
    vec![
        "import",
        "--from",
        url,
        "--table",
        "Customer",
        "--mapping",
        "customer",
        "--source",
        "legacy",
        "--state",
        state,
        "--json",
    ]
}

/// Starts following.
fn follow(test: &TestStack, url: &str, state: &str) -> tokio::process::Child {
    let more = ["--follow", "--every", "0.2", "--sweep", "0.2", "--deletions-max", "3"];
    let mut command = prospectus(test, &[arguments(url, state), more.to_vec()].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// Ends it as Ctrl-C does; what it said.
async fn interrupt(child: tokio::process::Child) -> Value {
    let id = child.id().expect("it still runs").to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
    let output = child.wait_with_output().await.expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_copied_and_followed_across_restarts() {
    let test = TestStack::start().await;
    let client = test.client();
    let (legacy, url) = legacy(&test).await;
    for number in 1..=6 {
        write(&legacy, number, "First", 3_600).await;
    }
    // The same person a second time: both rows become one prospect.
    let twin = r#"INSERT INTO "Customer" (id, email, company, "externalSource", "externalId", "updatedAt")
        SELECT 'twin', email, company, 'crm', 'twin', "updatedAt" FROM "Customer" WHERE id = 'ck5'"#;
    legacy.execute(twin, &[]).await.expect("a row");
    // And somebody who was entered here before.
    let body =
        json!({"first_name": "Here", "email": "p6@firm6.co.uk", "external_refs": [{"source": "crm", "id": "x6"}]});
    let here = client.command(Method::POST, "/v1/prospects", &body).await;
    client.read(&format!("/v1/prospects/{}", here.id()), Some(here.position())).await;
    let state = test.directory().join("follow.state");
    let state = state.to_str().expect("UTF-8");

    let copied = run_prospectus(&test, &arguments(&url, state)).await;
    assert_eq!((copied.code, &copied.json()["rows"]), (0, &json!(7)), "{copied:?}");
    becomes(&client, 6, Some("First")).await;
    let again = run_prospectus(&test, &arguments(&url, state)).await;
    assert_eq!((again.code, &again.json()["rows"]), (0, &json!(0)), "what is copied is not copied again: {again:?}");

    // What it remembered is lost, as after a crash right after the upload: who made whom, the service knows.
    for ending in ["", ".ids", ".new", ".imports"] {
        let _ = std::fs::remove_file(format!("{state}{ending}"));
    }
    let anew = run_prospectus(&test, &arguments(&url, state)).await;
    assert_eq!((anew.code, &anew.json()["rows"]), (0, &json!(7)), "{anew:?}");

    let following = follow(&test, &url, state);
    write(&legacy, 1, "Changed", 0).await;
    becomes(&client, 1, Some("Changed")).await;
    // A transaction that was open for half a minute commits now, with the time at which it began.
    write(&legacy, 7, "Late", 30).await;
    becomes(&client, 7, Some("Late")).await;
    // A row that became the same prospect as another, and one whose prospect was here before.
    legacy.execute(r#"DELETE FROM "Customer" WHERE id IN ('ck2', 'twin', 'ck6')"#, &[]).await.expect("deleted");
    becomes(&client, 2, None).await;
    let said = interrupt(following).await;
    becomes(&client, 5, Some("First")).await;
    becomes(&client, 6, Some("First")).await;
    assert_eq!((&said["deleted"], &said["kept"]), (&json!(1), &json!(1)), "{said}");

    write(&legacy, 3, "While it was away", 0).await;
    legacy.execute(r#"DELETE FROM "Customer" WHERE id = 'ck4'"#, &[]).await.expect("deleted");
    let following = follow(&test, &url, state);
    becomes(&client, 3, Some("While it was away")).await;
    becomes(&client, 4, None).await;
    for untouched in [5, 6] {
        becomes(&client, untouched, Some("First")).await;
    }
    interrupt(following).await;

    // The wrong table, or an empty one, must not delete everybody.
    legacy.execute(r#"DELETE FROM "Customer""#, &[]).await.expect("deleted");
    let output = follow(&test, &url, state).wait_with_output().await.expect("it ends by itself");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("--deletions-max"), "{said}");
    becomes(&client, 5, Some("First")).await;

    let report = run_prospectus(&test, &["integrity", "--json", "--wait", "60"]).await;
    assert_eq!(report.code, 0, "{report:?}");
    assert_eq!(report.json()["counts"]["prospects"]["log"], json!({"live": 5, "deleted": 2}), "{report:?}");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_none_is_named_and_nothing_is_written_to_it() {
    let test = TestStack::start().await;
    let (legacy, url) = legacy(&test).await;
    write(&legacy, 1, "First", 0).await;
    legacy.batch_execute("CREATE TABLE odd (id text)").await.expect("a table");
    let state = test.directory().join("follow.state");
    let state = state.to_str().expect("UTF-8");
    for (table, said) in
        [("customer", "case-sensitive"), ("odd", "updatedAt"), ("x\"; DROP TABLE \"Customer\"; --", "no table")]
    {
        let mut arguments = arguments(&url, state);
        arguments[4] = table;
        let refused = run_prospectus(&test, &arguments).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stdout.contains(said), "{refused:?}");
    }
    let count = legacy.query_one(r#"SELECT count(*) FROM "Customer""#, &[]).await.expect("it is still there");
    assert_eq!(count.get::<_, i64>(0), 1);

    // The state of one table is not taken for another's.
    let first = run_prospectus(&test, &arguments(&url, state)).await;
    assert_eq!(first.code, 0, "{first:?}");
    let mut other = arguments(&url, state);
    other[8] = "another";
    let refused = run_prospectus(&test, &other).await;
    assert!(refused.code == 1 && refused.stdout.contains("--state"), "{refused:?}");
    test.finish().await;
}
