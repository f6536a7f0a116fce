//! Key-encryption keys: rotation on a running stack, and services with a wrong key file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
use tests::{TestStack, program, ran, run_prospectus};

use super::{erase, person};

/// 32 bytes in base64.
const OTHER_KEY: &str = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
const SERVICES: [Part; 3] = [Part::CommandService(1), Part::Projector, Part::QueryService];

fn key_file(test: &TestStack) -> String {
    std::fs::read_to_string(test.directory().join("keyring")).expect("the key file")
}

/// Every service starts again with this key file.
async fn start_with(test: &TestStack, keys: &str) {
    std::fs::write(test.directory().join("keyring"), keys).expect("written");
    for part in SERVICES {
        test.stack.stop(part).await.expect("it stops");
        test.stack.start_part(part).await.expect("it starts");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_rotated_while_commands_run_and_then_not_needed() {
    let test = TestStack::start().await;
    let client = test.client();
    let ada = person(&client, json!({"first_name": "Ada"})).await;
    let erased = person(&client, json!({"first_name": "Erased"})).await;
    erase(&client, &erased).await;
    let old = key_file(&test);
    let new = format!("wrap k2 {OTHER_KEY}\n{old}");
    let refused = run_prospectus(&test, &["keys", "retire", "k1"]).await;
    assert!(refused.code == 1 && refused.stderr.contains("wraps new keys"), "{refused:?}");
    start_with(&test, &new).await;
    let refused = run_prospectus(&test, &["keys", "retire", "k1"]).await;
    assert!(refused.code == 1 && refused.stderr.contains("still wraps 1 keys"), "{refused:?}");
    let ended = Arc::new(AtomicBool::new(false));
    let commands = {
        let (client, ada, ended) = (client.clone(), ada.clone(), Arc::clone(&ended));
        tokio::spawn(async move {
            let mut carried_out = 0;
            while !ended.load(Ordering::SeqCst) {
                let changed = client
                    .command(
                        Method::PATCH,
                        &format!("/v1/prospects/{ada}"),
                        &json!({"city": format!("City {carried_out}")}),
                    )
                    .await;
                assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
                person(&client, json!({"first_name": format!("Person {carried_out}")})).await;
                carried_out += 1;
            }
            carried_out
        })
    };
    for _ in 0..3 {
        let done = run_prospectus(&test, &["keys", "rewrap", "--json"]).await;
        assert_eq!((done.code, &done.json()["left"]), (0, &json!(0)), "{done:?}");
    }
    ended.store(true, Ordering::SeqCst);
    assert!(commands.await.expect("the commands ran") > 0);
    let retired = run_prospectus(&test, &["keys", "retire", "k1", "--json"]).await;
    assert_eq!(retired.code, 0, "{retired:?}");
    // Without the old key everything opens.
    let without: String = new.split_inclusive('\n').filter(|line| !line.starts_with("wrap k1 ")).collect();
    start_with(&test, &without).await;
    let changed = client.command(Method::PATCH, &format!("/v1/prospects/{ada}"), &json!({"last_name": "King"})).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    let shown = client.read(&format!("/v1/prospects/{ada}"), Some(changed.position())).await;
    assert_eq!((&shown.json["first_name"], &shown.json["last_name"]), (&json!("Ada"), &json!("King")));
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_a_wrong_key_file_says_so_and_does_not_start() {
    let test = TestStack::start().await;
    let client = test.client();
    let ada = person(&client, json!({"first_name": "Ada"})).await;
    let primary = test.superuser(Part::Primary).await;
    let state = async || -> Vec<String> {
        let sql = "SELECT w::text FROM log.wrapping_keys AS w UNION ALL SELECT k::text FROM log.person_keys AS k
                   UNION ALL SELECT e::text FROM log.events AS e ORDER BY 1";
        primary.query(sql, &[]).await.expect("the tables").iter().map(|row| row.get(0)).collect()
    };
    let (before, good) = (state().await, key_file(&test));
    let line = |name: &str| good.lines().find(|line| line.starts_with(name)).expect("a line").to_owned();
    for (keys, says) in [
        (
            good.replace(&line("wrap k1"), &format!("wrap k1 {OTHER_KEY}")),
            "key `k1` of the key file is not the key of that name",
        ),
        (
            good.replace(&line("wrap k1"), &format!("wrap k2 {OTHER_KEY}")),
            "key-encryption key `k1` is not in the key file",
        ),
        (
            good.replace(&line("index"), &format!("index {OTHER_KEY}")),
            "key `index` of the key file is not the key of that name",
        ),
        (good.replace(&line("index"), ""), "the key file has no line `index <key>`"),
    ] {
        let roles = [
            ("command-service", "prospectus_appender"),
            ("projector", "prospectus_projector"),
            ("query-service", "prospectus_query"),
        ];
        for (service, role) in roles {
            let mut command = program(service);
            let url = test.stack.role_url(role, Part::Primary);
            command
                .env("PROSPECTUS_LISTEN", "127.0.0.1:0")
                .env("PROSPECTUS_KEYRING", &keys)
                .env("PROSPECTUS_NATS_URL", "nats://127.0.0.1:1");
            command.env("PROSPECTUS_DATABASE_URL", &url).env("PROSPECTUS_REPLICA_DATABASE_URLS", &url);
            let refused = tokio::time::timeout(tests::PATIENCE, ran(command)).await.expect("it ends by itself");
            assert_ne!(refused.code, 0, "{service}: {refused:?}");
            let said = format!("{}{}", refused.stdout, refused.stderr);
            assert!(said.contains(says), "{service}: {said}");
            assert!(!said.contains(OTHER_KEY), "{service} never shows a key");
        }
        let refused = {
            let mut command = tests::prospectus(&test, &["keys", "rewrap"]);
            command.env_remove("PROSPECTUS_KEYRING_FILE").env("PROSPECTUS_KEYRING", &keys);
            ran(command).await
        };
        assert!(refused.code == 1 && refused.stderr.contains(says), "{refused:?}");
        assert_eq!(state().await, before, "nothing is overwritten");
    }
    let changed = client.command(Method::PATCH, &format!("/v1/prospects/{ada}"), &json!({"city": "Ulm"})).await;
    assert_eq!(changed.status, StatusCode::OK, "those with the right keys go on");
    test.finish().await;
}
