//! The log is proven by real processes: heads come while events come, proofs are checked by the command and by an independent verifier,
//! keys rotate, sealers take over from each other, standbys come first, and what a superuser changes is found.

use std::path::PathBuf;

use event_store::proof::SignedHead;
use futures_util::StreamExt as _;
use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::{Value, json};
use tests::{Client, Ran, TestStack, eventually, ran, run_prospectus};

/// Registers so many companies; the last one's position.
async fn register(client: &Client, count: i64) -> i64 {
    let mut position = 0;
    for number in 0..count {
        let answer = client.command(Method::POST, "/v1/companies", &json!({"name": format!("Company {number}")})).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        position = answer.position();
    }
    position
}

/// Waits until a head on the replica covers a position; gives it as it is served.
async fn covered(client: &Client, position: i64) -> Value {
    eventually(&format!("a head covers {position}"), async || {
        let page = client.read("/v1/log/heads?limit=1", None).await.json;
        (page["items"][0]["tree_size"].as_i64()? >= position).then(|| page["items"][0].clone())
    })
    .await
}

/// All heads, oldest first, and the public keys.
async fn heads(client: &Client) -> (Vec<Value>, Vec<String>) {
    let page = client.read("/v1/log/heads?limit=1000", None).await.json;
    let mut items = page["items"].as_array().expect("items").clone();
    items.reverse();
    let keys = page["keys"].as_array().expect("keys");
    (items, keys.iter().map(|key| key["public_key"].as_str().expect("a key").to_owned()).collect())
}

/// The independent verifier.
async fn python(arguments: &[&str]) -> Ran {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("verify_log.py");
    let mut command = tokio::process::Command::new("python3");
    command.arg(script).args(arguments).kill_on_drop(true);
    ran(command).await
}

fn file(test: &TestStack, name: &str, content: &str) -> String {
    let path = test.directory().join(name);
    std::fs::write(&path, content).expect("written");
    path.display().to_string()
}

fn heads_file(test: &TestStack) -> String {
    test.directory().join("heads.ndjson").display().to_string()
}

/// What the heads file has, once it has as many lines as there are heads.
async fn kept(test: &TestStack, client: &Client) -> Vec<SignedHead> {
    eventually("the file has every head", async || {
        let text = std::fs::read_to_string(heads_file(test)).ok()?;
        let kept: Vec<SignedHead> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (kept.len() == heads(client).await.0.len()).then_some(kept)
    })
    .await
}

async fn sql(test: &TestStack, sql: &str) {
    test.superuser(Part::Primary).await.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_come_while_events_come_and_proofs_of_them_are_checked_by_two_verifiers() {
    let test = TestStack::start().await;
    let client = test.client();
    let nats = test.stack.environment().into_iter().find(|(name, _)| name == "PROSPECTUS_NATS_URL").expect("NATS").1;
    let nats = async_nats::connect(nats).await.expect("NATS answers");
    let mut news = nats.subscribe("prospectus.heads").await.expect("subscribed");
    nats.flush().await.expect("NATS knows");
    let position = register(&client, 20).await;
    covered(&client, position).await;
    let (served, keys) = heads(&client).await;
    let published = eventually("a head on NATS", async || news.next().await).await;
    let published: SignedHead = serde_json::from_slice(&published.payload).expect("a head");
    let key = keys[0].parse().expect("a public key");
    assert!(published.is_signed_by(&key));
    let kept_heads = kept(&test, &client).await;
    for head in served.iter().map(|head| serde_json::from_value::<SignedHead>(head.clone()).expect("a head")) {
        assert!(head.is_signed_by(&key) && kept_heads.contains(&head), "{head:?}");
    }

    // A proof, made and checked, by the command and by the other verifier; then with something changed.
    let last = file(&test, "head.json", &served.last().expect("a head").to_string());
    let proof = run_prospectus(&test, &["audit", "prove", "7", "--head", &last]).await;
    assert_eq!(proof.code, 0, "{proof:?}");
    let good = file(&test, "proof.json", &proof.stdout);
    let (forged, own) = (proof.stdout.replace("Company 6", "Company 5"), key.to_string());
    assert_ne!(forged, proof.stdout);
    let forged = file(&test, "forged.json", &forged);
    let other = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    for (proof, head, key, code) in [
        (&good, Some(&last), None, 0),
        (&good, Some(&last), Some(own.as_str()), 0),
        (&good, None, Some(own.as_str()), 0),
        (&good, Some(&heads_file(&test)), None, 0),
        (&forged, Some(&last), None, 1),
        (&good, Some(&last), Some(other), 1),
    ] {
        let mut arguments = vec![proof.as_str()];
        arguments.extend(head.iter().flat_map(|head| ["--head", head.as_str()]));
        arguments.extend(key.iter().flat_map(|key| ["--key", key]));
        let ours = run_prospectus(&test, &[&["audit", "check"], &arguments[..]].concat()).await;
        assert_eq!(ours.code, code, "{arguments:?}: {ours:?}");
        let theirs = python(&[&["proof"], &arguments[..]].concat()).await;
        assert_eq!(theirs.code, code, "{arguments:?}: {theirs:?}");
    }
    let offline =
        ["audit", "check", &good, "--head", &last, "--json", "--primary-url", "postgres://nobody@127.0.0.1:1/none"];
    assert_eq!(run_prospectus(&test, &offline).await.json()["proven"], true);

    // The whole log, by both.
    let verified =
        run_prospectus(&test, &["audit", "verify", "--head", &heads_file(&test), "--key", &own, "--json"]).await;
    assert_eq!((verified.code, verified.json()["verdict"].as_str()), (0, Some("intact")), "{verified:?}");
    let dump = dump(&test).await;
    let (lines, page) = (file(&test, "log.ndjson", &dump), heads_file(&test));
    let theirs = python(&["log", &lines, "--head", &page, "--key", &own]).await;
    assert_eq!(theirs.code, 0, "{theirs:?}");
    let lines = file(&test, "changed.ndjson", &dump.replacen("Company 11", "Company 12", 1));
    assert_eq!(python(&["log", &lines, "--head", &page, "--key", &own]).await.code, 1);

    let none = file(&test, "none.json", "{\"items\": []}");
    assert_eq!(python(&["log", &lines, "--head", &none, "--key", &own]).await.code, 1, "nothing proves nothing");

    // What an auditor's key gets over HTTP is as good as what the command makes; and the log only grew.
    let size = served.last().expect("a head")["tree_size"].to_string();
    let answer = client.read(&format!("/v1/log/proofs/inclusion?position=7&tree_size={size}"), None).await;
    let answer = file(&test, "inclusion.json", &String::from_utf8_lossy(&answer.bytes));
    let ours = run_prospectus(&test, &["audit", "check", &answer, "--head", &last]).await;
    assert_eq!(ours.code, 0, "{ours:?}");
    assert_eq!(python(&["proof", &answer, "--head", &last]).await.code, 0);
    let before = served[0]["tree_size"].to_string();
    covered(&client, register(&client, 5).await).await;
    let grew = client.read(&format!("/v1/log/proofs/consistency?from={before}"), None).await;
    let text = String::from_utf8_lossy(&grew.bytes).into_owned();
    let answer = file(&test, "consistency.json", &text);
    let first = file(&test, "first.json", &served[0].to_string());
    let theirs = python(&["consistency", &answer, "--head", &first, "--key", &own]).await;
    assert_eq!(theirs.code, 0, "{theirs:?}");
    let root = grew.json["head_to"]["root_hash"].as_str().expect("a root");
    let other = file(&test, "other.json", &text.replace(root, &root.chars().rev().collect::<String>()));
    assert_eq!(python(&["consistency", &other, "--head", &first, "--key", &own]).await.code, 1);
    // Without NATS heads are signed all the same.
    test.stack.stop(Part::Nats).await.expect("stopped");
    covered(&client, register(&client, 2).await).await;
    test.stack.start_part(Part::Nats).await.expect("started");

    // A proof that is asked for at once waits for its head.
    let position = register(&client, 1).await.to_string();
    let proof = run_prospectus(&test, &["audit", "prove", &position, "--json"]).await;
    assert_eq!(proof.json()["event"]["position"].to_string(), position);
    let missing = run_prospectus(&test, &["audit", "prove", "999"]).await;
    assert!(missing.code == 1 && missing.stderr.contains("no position 999"), "{missing:?}");
    test.finish().await;
}

/// The log as docs/log-proofs.md says.
async fn dump(test: &TestStack) -> String {
    let sql = "SELECT json_build_object('position', position, 'tenant_id', tenant_id,
          'aggregate_type', aggregate_type, 'aggregate_id', aggregate_id, 'sequence', sequence, 'event_id', event_id,
          'event_type', event_type, 'event_version', event_version, 'payload', payload::text, 'metadata', metadata::text,
          'recorded_at', to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'))::text
        FROM log.events ORDER BY position";
    let rows = test.superuser(Part::Primary).await.query(sql, &[]).await.expect("the log");
    let lines: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    lines.join("\n") + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn sealing_goes_on_over_restarts_other_services_and_new_keys() {
    let test = TestStack::start_with(|options| options.command_services = 2).await;
    let one = test.client();
    let other = one.to(&test.stack, Part::CommandService(2));
    tokio::join!(register(&one, 15), register(&other, 15));
    covered(&one, 30).await;
    for round in 1..=2 {
        for (number, client) in [(1, &other), (2, &one)] {
            let part = Part::CommandService(number);
            if round == 1 {
                test.stack.kill(part);
            } else {
                test.stack.stop(part).await.expect("stopped");
            }
            let position = register(client, 3).await;
            covered(client, position).await;
            if round == 2 {
                test.stack.start_part(part).await.expect("started");
            }
            test.stack.ready(part).await.expect("ready");
        }
    }
    let old = heads(&one).await.1;
    assert_eq!(old.len(), 1);

    // A new key in front, the services started again one after the other.
    let path = test.directory().join("seal_key");
    let text = std::fs::read_to_string(&path).expect("the stack's key");
    std::fs::write(&path, format!("seal {}A=\n{text}", "B".repeat(42))).expect("written");
    for number in 1..=2 {
        test.stack.stop(Part::CommandService(number)).await.expect("stopped");
        test.stack.start_part(Part::CommandService(number)).await.expect("started");
    }
    let position = register(&one, 3).await;
    let head = covered(&one, position).await;
    let (served, keys) = heads(&one).await;
    assert_eq!(keys.len(), 2);
    let new = keys.iter().find(|key| !old.contains(key)).expect("a new key");
    let signer = |head: &Value| serde_json::from_value::<SignedHead>(head.clone()).expect("a head");
    assert!(signer(&head).is_signed_by(&new.parse().expect("a key")));

    // Sealed once, whoever did it: numbers without a hole, sizes that grow, every head in the file, all of it intact.
    let numbers: Vec<Option<i64>> = served.iter().map(|head| head["number"].as_i64()).collect();
    assert_eq!(numbers, (1..=i64::try_from(served.len()).expect("few")).map(Some).collect::<Vec<_>>());
    let kept = kept(&test, &one).await;
    assert_eq!(kept, served.iter().map(signer).collect::<Vec<_>>());
    assert!(kept.windows(2).all(|two| two[0].head.tree_size < two[1].head.tree_size), "{kept:?}");
    let file = heads_file(&test);
    let both = ["audit", "verify", "--head", &file, "--key", &old[0], "--key", new];
    assert_eq!(run_prospectus(&test, &both).await.code, 0);
    let only_new = run_prospectus(&test, &["audit", "verify", "--key", new]).await;
    assert!(only_new.code == 1 && only_new.stdout.contains("not signed by a pinned key"), "{only_new:?}");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_auditor_gets_hashes_and_no_event() {
    let test = TestStack::start().await;
    let position = register(&test.client(), 3).await;
    let auditor = test.client_of("other", "auditor").await;
    covered(&auditor, position).await;
    let proof = auditor.read("/v1/log/proofs/inclusion?position=2", None).await;
    assert_eq!(proof.status, StatusCode::OK, "{proof:?}");
    assert!(proof.json["event"].is_null() && proof.json["leaf_hash"].is_string(), "{proof:?}");
    let text = String::from_utf8_lossy(&proof.bytes);
    assert!(!text.contains("Company") && !text.contains("actor"), "{text}");
    let own = test.client_of("demo", "auditor").await;
    let proof = own.read("/v1/log/proofs/inclusion?position=2", None).await;
    assert!(proof.json["event"]["payload"].as_str().is_some_and(|payload| payload.contains("Company 1")), "{proof:?}");
    let command = own.command(Method::POST, "/v1/companies", &json!({"name": "X"})).await;
    assert_eq!(command.status, StatusCode::FORBIDDEN);
    for role in ["reader", "writer"] {
        let client = test.client_of("demo", role).await;
        assert_eq!(client.read("/v1/log/heads", None).await.status, StatusCode::FORBIDDEN, "{role}");
    }
    test.finish().await;
}

/// A figure of the command service.
async fn figure(test: &TestStack, client: &Client, name: &str) -> Option<f64> {
    let page = client.get_from(&test.stack.url(Part::CommandService(1)), "/metrics").await;
    let text = String::from_utf8(page.bytes.to_vec()).expect("text");
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

async fn figure_is(test: &TestStack, client: &Client, name: &str, wanted: f64) {
    eventually(&format!("{name} is {wanted}"), async || {
        figure(test, client, name).await.filter(|value| (value - wanted).abs() < 0.5).map(|_| ())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_standby_has_flushed_is_not_sealed() {
    let test = TestStack::start().await;
    let client = test.client();
    covered(&client, register(&client, 3).await).await;
    figure_is(&test, &client, "prospectus_sealer_waiting_events", 0.0).await;
    let replica = test.superuser(Part::Replica(1)).await;
    let receiver: i32 =
        replica.query_one("SELECT pid FROM pg_stat_wal_receiver", &[]).await.expect("a receiver").get(0);
    signal(receiver, "STOP").await;
    let position = register(&client, 4).await;
    figure_is(&test, &client, "prospectus_sealer_waiting_events", 4.0).await;
    let primary = test.superuser(Part::Primary).await;
    let sealed: i64 = primary.query_one("SELECT max(tree_size) FROM log.tree_heads", &[]).await.expect("heads").get(0);
    assert_eq!(sealed, position - 4);
    signal(receiver, "CONT").await;
    covered(&client, position).await;
    // Without any standby, what the primary has is sealed.
    test.stack.stop(Part::Replica(1)).await.expect("stopped");
    let position = register(&client, 2).await;
    eventually("sealed without a standby", async || {
        let sealed = primary.query_one("SELECT max(tree_size) FROM log.tree_heads", &[]).await.expect("heads");
        (sealed.get::<_, i64>(0) == position).then_some(())
    })
    .await;
    test.finish().await;
}

/// Sends a signal to a process of this test's own stack.
async fn signal(pid: i32, signal: &str) {
    let status = tokio::process::Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status().await;
    assert!(status.expect("kill runs").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_superuser_changes_is_found_and_not_sealed_over_and_a_lost_tail_is_told_apart() {
    let test = TestStack::start().await;
    let client = test.client();
    covered(&client, register(&client, 40).await).await;
    kept(&test, &client).await;
    test.stack.stop(Part::CommandService(1)).await.expect("stopped");
    sql(&test, "CREATE TABLE kept_events AS SELECT * FROM log.events").await;
    let file = heads_file(&test);
    let restore = "DELETE FROM log.events; INSERT INTO log.events SELECT * FROM kept_events";
    for (change, what, first, last) in [
        ("UPDATE log.events SET payload = '{}' WHERE position = 7", "changed", 7, 7),
        ("UPDATE log.events SET recorded_at = recorded_at + interval '1 second' WHERE position = 12", "changed", 12, 12),
        ("DELETE FROM log.events WHERE position = 9", "removed", 9, 9),
        ("DELETE FROM log.events WHERE position > 33", "truncated", 34, 40),
        (
            "UPDATE log.events SET position = 99 WHERE position = 3; UPDATE log.events SET position = 3 WHERE position = 30;
             UPDATE log.events SET position = 30 WHERE position = 99",
            "moved",
            3,
            3,
        ),
    ] {
        sql(&test, change).await;
        let verified = run_prospectus(&test, &["audit", "verify", "--json"]).await;
        let report = verified.json();
        assert_eq!((verified.code, report["verdict"].as_str()), (1, Some("tampered")), "{change}: {report:#}");
        let finding = &report["findings"][0];
        let places = (finding["what"].as_str(), finding["first"].as_i64(), finding["last"].as_i64());
        assert_eq!(places, (Some(what), Some(first), Some(last)), "{change}: {report:#}");
        assert!(finding["since"]["tree_size"].as_i64().is_some_and(|size| size >= first), "{report:#}");
        let text = run_prospectus(&test, &["audit", "verify", "--head", &file]).await;
        assert!(text.code == 1 && text.stdout.contains("TAMPERED"), "{text:?}");
        sql(&test, restore).await;
    }
    let verified = run_prospectus(&test, &["audit", "verify", "--head", &file]).await;
    assert_eq!(verified.code, 0, "{verified:?}");

    // A sealer does not sign over what was changed, and goes on when it is put right.
    sql(&test, "UPDATE log.events SET metadata = '{}' WHERE position = 38").await;
    test.stack.start_part(Part::CommandService(1)).await.expect("started");
    figure_is(&test, &client, "prospectus_sealer_refuses", 1.0).await;
    let before = heads(&client).await.0.len();
    register(&client, 1).await;
    let log = std::fs::read_to_string(test.stack.log(Part::CommandService(1))).expect("its log");
    assert!(log.contains("the event at position 38 is not the one that was sealed"), "{log}");
    assert_eq!(heads(&client).await.0.len(), before);
    sql(&test, "UPDATE log.events AS e SET metadata = k.metadata FROM kept_events AS k WHERE e.position = 38 AND k.position = 38").await;
    covered(&client, 41).await;
    figure_is(&test, &client, "prospectus_sealer_refuses", 0.0).await;

    // The tail is lost with its server; a new epoch uses its positions again.
    kept(&test, &client).await;
    test.stack.stop(Part::CommandService(1)).await.expect("stopped");
    sql(&test, "DELETE FROM log.events WHERE position > 35; DELETE FROM log.claims").await;
    let epoch = run_prospectus(&test, &["log", "new-epoch", "--json"]).await.json();
    let epoch = epoch["epoch"].as_str().expect("a name").to_owned();
    test.stack.start_part(Part::CommandService(1)).await.expect("started");
    register(&client, 10).await;
    eventually("a head of the new epoch", async || {
        let (heads, _) = heads(&client).await;
        heads.last().filter(|head| head["epoch"] == epoch.as_str() && head["tree_size"] == 45).map(|_| ())
    })
    .await;
    figure_is(&test, &client, "prospectus_sealer_lost_tails_total", 1.0).await;
    let verified = run_prospectus(&test, &["audit", "verify", "--head", &file, "--json"]).await;
    let report = verified.json();
    assert_eq!(
        (verified.code, report["verdict"].as_str(), report["found"].as_i64()),
        (1, Some("tail_lost"), Some(0)),
        "{report:#}"
    );
    // Hashes are of this life of the log, so no head of the lost one is given with them.
    let path = "/v1/log/proofs/consistency?from=41&to=45";
    let proof = client.read(path, None).await.json;
    let of_this_life = |head: &Value| head.is_null() || head["epoch"] == epoch.as_str();
    assert!(of_this_life(&proof["head_from"]) && proof["head_to"]["tree_size"] == 45, "{proof:#}");
    let lost = &report["lost_tails"][0];
    assert_eq!(
        (lost["first"].as_i64(), lost["last"].as_i64(), lost["epoch"].as_str()),
        (Some(36), Some(41), Some(epoch.as_str()))
    );
    let known = run_prospectus(&test, &["audit", "verify", "--head", &file, "--known-loss", &epoch]).await;
    assert!(known.code == 0 && known.stdout.contains("A TAIL WAS LOST"), "{known:?}");
    test.finish().await;
}
