//! No trace: every personal field holds a marker, in every way that it can come in, and after erasing no file of the whole stack holds one.

use std::path::{Path, PathBuf};

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::{Value, json};
use tests::{Client, TestStack, eventually, ran};
use tokio_postgres::Client as Sql;

use super::{erase, person};
use crate::imports::{get, import, import_mapped, rows};

/// What every personal value has in it; the search looks for it in any case.
const MARK: &str = "xq7marker";

const MAPPING: &str = r#"
[columns]
"Email" = "prospect.email"
"First" = "prospect.first_name"
"City" = "prospect.city"
"Company" = "company.name"
[ids]
prospect = "{ID}"
"#;

fn marked(number: u32) -> Value {
    json!({
        "salutation": format!("{MARK}Sal"), "first_name": format!("{MARK}First"), "last_name": format!("{MARK}Last"),
        "email": format!("{MARK}{number}@mail.example"), "phone": format!("{MARK} 12"), "mobile_phone": format!("{MARK} 13"),
        "address": format!("{MARK} Street 1"), "city": format!("{MARK}City"), "state": format!("{MARK}State"),
        "zip_code": format!("{MARK}Zip"), "job_title_link": format!("https://links.example/{MARK}"),
        "external_refs": [{"source": format!("{MARK}Source"), "id": format!("{MARK}Id{number}")}],
        "attributes": {format!("{MARK}Key"): format!("{MARK}Value")}, "job_title": "CTO",
    })
}

/// Persons who came in by hand, by a repeated command, by lists, through a review, and back to what they were.
async fn bring_in(client: &Client) -> Vec<String> {
    let mut ids = vec![person(client, marked(1)).await];
    let path = format!("/v1/prospects/{}", ids[0]);
    let changed = json!({"first_name": format!("{MARK}Changed"), "attributes": {format!("{MARK}Key"): null}});
    assert_eq!(client.command(Method::PATCH, &path, &changed).await.status, StatusCode::OK);
    // Sent twice under one key; and refused in ways that know the values.
    let headers = [("idempotency-key", "same")];
    for _ in 0..2 {
        let answer = client
            .try_command(Method::POST, "/v1/prospects", &headers, marked(2).to_string())
            .await
            .expect("an answer");
        assert_eq!(answer.status, StatusCode::CREATED);
        ids.push(answer.id());
    }
    assert_eq!(client.command(Method::POST, "/v1/prospects", &marked(1)).await.status, StatusCode::CONFLICT);
    let broken = format!("{{\"first_name\": \"{MARK}\", ");
    client.try_command(Method::POST, "/v1/prospects", &[], broken).await.expect("an answer");
    // A list: a free-mail address leads to no company, so that what it says of one is kept with the person, in review.
    let list = |city: &str| {
        format!(
            "ID,Email,First,City,Company\n{MARK}7,{MARK}7@gmail.com,{MARK}First,{MARK}{city},{MARK}Company\n{MARK}8,{MARK}8@gmail.com,{MARK}Eight,{MARK}{city},\n"
        )
    };
    let first = import_mapped(client, "source=crm", MAPPING, list("Ulm").as_bytes()).await;
    let outcomes = rows(client, &first).await;
    for row in &outcomes {
        ids.push(row["prospect_ids"][0].as_str().unwrap_or_else(|| panic!("{row}")).to_owned());
    }
    let leave = format!("/v1/reviews/{}/resolve", ids.last().expect("ids"));
    assert_eq!(client.command(Method::POST, &leave, &json!({"leave": true})).await.status, StatusCode::OK);
    // Another list changes them, and is taken back: its events hold what they were before.
    let second = import_mapped(client, "source=web", MAPPING, list("Bonn").as_bytes()).await;
    let path = format!("/v1/imports/{}", second["id"].as_str().expect("an id"));
    client.command(Method::POST, &format!("{path}/undo"), &json!({})).await;
    eventually("the import is taken back", async || (get(client, &path).await.json["state"] == "undone").then_some(()))
        .await;
    // A list of lines of JSON that is only rehearsed.
    let line = format!("{{\"Email\":\"{MARK}9@gmail.com\",\"First Name\":\"{MARK}Nine\"}}\n");
    import(client, "source=web&dry_run=true", line).await;
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// What an operator does after erasing, as `docs/personal-data.md` says: the tables are written anew, and old pages and WAL go.
async fn clean_up(test: &TestStack, primary: &Sql) {
    let now: String = primary.query_one("SELECT pg_current_xact_id()::text", &[]).await.expect("a number").get(0);
    let older = format!(
        "SELECT EXISTS (
             SELECT FROM (SELECT backend_xmin AS xmin FROM pg_stat_activity WHERE pid <> pg_backend_pid()
                          UNION ALL SELECT backend_xmin FROM pg_stat_replication
                          UNION ALL SELECT xmin FROM pg_replication_slots) AS s
             WHERE age(s.xmin) > age('{now}'::xid))"
    );
    eventually("nobody looks at what was before", async || {
        (!primary.query_one(&older, &[]).await.expect("snapshots").get::<_, bool>(0)).then_some(())
    })
    .await;
    for table in ["read_1.company_prospect", "log.person_keys", "log.claims", "log.matches"] {
        primary.batch_execute(&format!("VACUUM FULL {table}")).await.unwrap_or_else(|error| panic!("{table}: {error}"));
    }
    drop_old_wal(test, primary).await;
}

/// Checkpoints and WAL switches on both servers, until only WAL from after this moment is left.
async fn drop_old_wal(test: &TestStack, primary: &Sql) {
    let replica = test.superuser(Part::Replica(1)).await;
    let now: String = primary.query_one("SELECT pg_walfile_name(pg_switch_wal())", &[]).await.expect("a switch").get(0);
    primary.batch_execute("CHECKPOINT").await.expect("a checkpoint");
    eventually("old WAL is gone on both", async || {
        // A little WAL of another segment, so that the switch makes a new one.
        primary
            .batch_execute("SELECT pg_logical_emit_message(true, 'test', 'x'); SELECT pg_switch_wal(); CHECKPOINT")
            .await
            .expect("a checkpoint");
        let end: String = primary.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.expect("the end").get(0);
        let caught_up = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'::pg_lsn");
        if !replica.query_one(&caught_up, &[]).await.expect("the replay").get::<_, bool>(0) {
            return None;
        }
        replica.batch_execute("CHECKPOINT").await.expect("a restart point");
        let old = |part: Part| {
            let directory = test.directory().join(part.name()).join("pg_wal");
            let names = std::fs::read_dir(directory).expect("WAL").flatten().map(|entry| entry.file_name());
            names.filter_map(|name| name.into_string().ok()).any(|name| name.len() == 24 && name <= now)
        };
        (!old(Part::Primary) && !old(Part::Replica(1))).then_some(())
    })
    .await;
}

/// The files below a directory that hold one of the texts, in lower case or as given; those of the lists that the test sent are none of the
/// stack's.
fn files_with(directory: &Path, needles: &[Vec<u8>]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|sort| sort.is_dir()) {
            found.extend(files_with(&path, needles));
        } else if let Ok(bytes) = std::fs::read(&path) {
            let lower = bytes.to_ascii_lowercase();
            if needles.iter().any(|needle| holds(&bytes, needle) || holds(&lower, needle)) {
                found.push(path);
            }
        }
    }
    found
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    // Where the first byte is, the rest is looked at: quicker than every window.
    let mut at = 0;
    while let Some(next) = bytes[at..].iter().position(|byte| *byte == needle[0]) {
        at += next;
        if bytes[at..].starts_with(needle) {
            return true;
        }
        at += 1;
    }
    false
}

/// A text dump of the whole database.
async fn dump(test: &TestStack, primary: &Sql) -> Vec<u8> {
    let directory: String =
        primary.query_one("SELECT setting FROM pg_config WHERE name = 'BINDIR'", &[]).await.expect("where").get(0);
    let mut command = tokio::process::Command::new(Path::new(&directory).join("pg_dump"));
    command.arg(test.stack.superuser_url(Part::Primary));
    let dump = ran(command).await;
    assert_eq!(dump.code, 0, "{}", dump.stderr);
    dump.stdout.into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_of_the_stack_holds_an_erased_persons_data() {
    let test = TestStack::start().await;
    let client = test.client();
    let primary = test.superuser(Part::Primary).await;
    for part in [Part::Primary, Part::Replica(1)] {
        let server = test.superuser(part).await;
        server.batch_execute("ALTER SYSTEM SET wal_recycle = off").await.expect("a setting");
        server.batch_execute("SELECT pg_reload_conf()").await.expect("read again");
    }
    let ids = bring_in(&client).await;
    assert_eq!(ids.len(), 4, "{ids:?}");
    let last = person(&client, json!({"first_name": "Stays", "email": "stays@mail.example"})).await;
    let head =
        client.command(Method::PATCH, &format!("/v1/prospects/{last}"), &json!({"city": "Ulm"})).await.position();
    for id in &ids {
        let shown = client.read(&format!("/v1/prospects/{id}"), Some(head)).await;
        assert!(shown.json.to_string().contains(MARK), "{shown:?}");
    }
    eventually("the relay has published", async || {
        let news = test.directory().join("nats");
        let subject = b"ProspectImportUndone".to_vec();
        (!files_with(&news, &[subject]).is_empty()).then_some(())
    })
    .await;
    // With hint bits set nothing writes these pages once more, and so no copy of them into new WAL.
    primary.batch_execute("VACUUM (FREEZE, ANALYZE)").await.expect("statistics");

    let wrapped = "SELECT wrapped_key FROM log.person_keys WHERE person_id = ANY ($1::text[]::uuid[])";
    let keys: Vec<Vec<u8>> =
        primary.query(wrapped, &[&ids]).await.expect("keys").iter().map(|row| row.get(0)).collect();
    assert_eq!(keys.len(), 4);
    let markers = [MARK.as_bytes().to_vec()];
    let files_of = async |schema: &str| {
        let sql = "WITH own AS (
                       SELECT c.oid, c.reltoastrelid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                       WHERE n.nspname = $1 AND c.relkind IN ('r', 'i'))
                   SELECT pg_relation_filepath(f.oid) FROM (
                       SELECT oid FROM own UNION SELECT reltoastrelid FROM own WHERE reltoastrelid <> 0
                       UNION SELECT i.indexrelid FROM pg_index AS i JOIN own ON own.reltoastrelid = i.indrelid) AS f";
        let rows = primary.query(sql, &[&schema]).await.expect("the catalogue");
        let servers = [Part::Primary, Part::Replica(1)].map(|part| test.directory().join(part.name()));
        rows.iter()
            .flat_map(|row| servers.each_ref().map(|server| server.join(row.get::<_, String>(0))))
            .collect::<Vec<_>>()
    };
    // Before: in the read tables' files on both servers, and, WAL aside, nowhere else in anything that the stack has written.
    drop_old_wal(&test, &primary).await;
    let allowed = files_of("read_1").await;
    let found = files_with(test.directory(), &markers);
    let elsewhere: Vec<&PathBuf> = found.iter().filter(|file| !allowed.contains(file)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    for part in [Part::Primary, Part::Replica(1)] {
        let of_server = found.iter().filter(|file| file.starts_with(test.directory().join(part.name())));
        assert!(of_server.count() > 0, "the search can find: {part}");
    }
    assert!(holds(&dump(&test, &primary).await.to_ascii_lowercase(), MARK.as_bytes()), "the search can find");
    assert!(!files_with(test.directory(), &keys).is_empty(), "the search can find keys");

    let mut position = 0;
    for id in &ids {
        position = erase(&client, id).await.position();
    }
    let gone = client.read(&format!("/v1/prospects/{}", ids[0]), Some(position)).await;
    assert_eq!(gone.status, StatusCode::GONE);
    clean_up(&test, &primary).await;
    let needles: Vec<Vec<u8>> = markers.iter().chain(&keys).cloned().collect();
    let found = files_with(test.directory(), &needles);
    let dumped = String::from_utf8_lossy(&dump(&test, &primary).await).to_lowercase();
    let left: Vec<&str> = dumped.lines().filter(|line| line.contains(MARK)).collect();
    assert!(left.is_empty(), "a dump: {left:#?}");
    assert!(found.is_empty(), "{found:?}");
    // Who was not erased is there.
    let stays = client.read(&format!("/v1/prospects/{last}"), Some(position)).await;
    assert_eq!((stays.status, &stays.json["first_name"]), (StatusCode::OK, &json!("Stays")));
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}
