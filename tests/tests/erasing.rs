//! Forgetting a person, from outside: what is left to be read, who comes back and who does not, and that no trace is left on any disk.

mod restoring;
mod rotating;
mod traces;

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::{Value, json};
use tests::{Answer, Client, TestStack, eventually, run_prospectus};

use crate::imports::{import, reasons, rows, tally};

async fn erase(client: &Client, id: &str) -> Answer {
    let answer =
        client.command(Method::POST, &format!("/v1/prospects/{id}/erase"), &json!({"reason": "request 4711"})).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer
}

async fn person(client: &Client, fields: Value) -> String {
    let answer = client.command(Method::POST, "/v1/prospects", &fields).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer.id()
}

/// The lines of the list that a command service keeps outside the database.
fn listed(test: &TestStack, part: Part) -> Vec<Value> {
    let file = test.directory().join(format!("erasures-{}.ndjson", part.name()));
    let text = std::fs::read_to_string(file).expect("the list is there");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one person, seen from every side")]
async fn an_erased_person_is_gone_from_reads_and_its_history_says_erased() {
    let test = TestStack::start_with(|options| options.command_services = 2).await;
    let client = test.client();
    let ada = person(&client, json!({"first_name": "Ada", "email": "ada@acme.com", "job_title": "CTO"})).await;
    let path = format!("/v1/prospects/{ada}");
    client.command(Method::PATCH, &path, &json!({"city": "London"})).await;

    // Who may, and what must be said.
    for role in ["reader", "writer", "auditor"] {
        let other = test.client_with(&test.tenant_key("demo", role).await);
        let refused = other.command(Method::POST, &format!("{path}/erase"), &json!({"reason": "x"})).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{role}: {refused:?}");
        let line = format!("{{\"method\":\"POST\",\"path\":\"{path}/erase\",\"body\":{{\"reason\":\"x\"}}}}\n");
        let headers = [("content-type", "application/x-ndjson")];
        let batch = other.try_command(Method::POST, "/v1/batch", &headers, line).await.expect("an answer");
        let status = batch.json["status"].as_u64().unwrap_or_else(|| batch.status.as_u16().into());
        assert_eq!(status, 403, "{role}: {batch:?}");
    }
    let refused = client.command(Method::POST, &format!("{path}/erase"), &json!({})).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        refused.json["errors"][0]["detail"].as_str().is_some_and(|detail| detail.contains("no personal data")),
        "{refused:?}"
    );
    let headers = [("if-match", "\"1\"")];
    let body = json!({"reason": "request 4711"}).to_string();
    let stale =
        client.try_command(Method::POST, &format!("{path}/erase"), &headers, body.clone()).await.expect("an answer");
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);

    let headers = [("idempotency-key", "once"), ("if-match", "\"2\"")];
    let erased =
        client.try_command(Method::POST, &format!("{path}/erase"), &headers, body.clone()).await.expect("an answer");
    assert_eq!((erased.status, erased.json["version"].as_i64()), (StatusCode::OK, Some(3)), "{erased:?}");
    // Written down before it was answered; the other process has it soon after.
    let line = &listed(&test, Part::CommandService(1))[0];
    assert_eq!((line["person_id"].as_str(), line["position"].as_i64()), (Some(ada.as_str()), Some(erased.position())));
    assert_eq!(line.as_object().map(serde_json::Map::len), Some(5), "nothing personal: {line}");
    eventually("the other service's list", async || (listed(&test, Part::CommandService(2)).len() == 1).then_some(()))
        .await;
    let other = client.to(&test.stack, Part::CommandService(2));
    for client in [&client, &other] {
        assert_eq!(erase(client, &ada).await.position(), erased.position(), "again changes nothing");
        let same = client
            .try_command(Method::POST, &format!("{path}/erase"), &headers, body.clone())
            .await
            .expect("an answer");
        assert_eq!(same.json, erased.json, "the first answer");
        for (method, path, body) in [
            (Method::PATCH, path.clone(), json!({"first_name": "Ada"})),
            (Method::DELETE, path.clone(), Value::Null),
            (Method::POST, format!("{path}/restore"), json!({})),
            (Method::POST, format!("{path}/assign"), json!({"company_id": null})),
            (Method::POST, format!("/v1/reviews/{ada}/resolve"), json!({"leave": true})),
        ] {
            let refused = client.command(method, &path, &body).await;
            assert_eq!(
                (refused.status, &refused.json["code"]),
                (StatusCode::CONFLICT, &json!("erased")),
                "{path}: {refused:?}"
            );
        }
    }
    assert_eq!(listed(&test, Part::CommandService(2)).len(), 1);

    let position = Some(erased.position());
    let gone = client.read(&path, position).await;
    assert_eq!(gone.status, StatusCode::GONE);
    assert!(gone.json["erased_at"].is_string() && gone.json["deleted_at"].is_string(), "{gone:?}");
    let left = client.read(&format!("{path}?include_deleted=true"), position).await;
    assert_eq!((&left.json["job_title"], &left.json["version"]), (&json!("CTO"), &json!(3)));
    assert_eq!(left.json["erased_at"], gone.json["erased_at"]);
    for field in ["first_name", "email", "city"] {
        assert_eq!(left.json[field], Value::Null, "{field}: {left:?}");
    }
    let found = client.read("/v1/prospects?email=ada@acme.com&include_deleted=true", position).await;
    assert_eq!(found.json["items"], json!([]), "{found:?}");
    let events = client.read("/v1/events", position).await;
    let of_ada: Vec<&Value> = events.json["items"].as_array().expect("events").iter().collect();
    assert_eq!(
        of_ada.iter().map(|event| &event["type"]).collect::<Vec<_>>(),
        ["ProspectRegistered", "ProspectProfileUpdated", "ProspectErased"]
    );
    assert_eq!(
        (&of_ada[0]["payload"]["personal"], &of_ada[1]["payload"]["personal"]),
        (&json!("erased"), &json!("erased"))
    );
    assert_eq!(of_ada[2]["payload"], json!({"reason": "request 4711"}));
    // The history says that something was there, when and who changed it, and `erased` in its place; so does the record as it was.
    let history = client.read(&format!("{path}/history"), position).await;
    let items = history.json["items"].as_array().expect("a history");
    let of_erased = json!({"field": "personal", "from": "erased", "to": "erased"});
    for item in &items[..2] {
        assert!(item["changes"].as_array().is_some_and(|changes| changes.contains(&of_erased)), "{item}");
        assert!(item["actor"].is_string() && item["recorded_at"].is_string(), "{item}");
    }
    assert_eq!((&items[2]["type"], &items[2]["reason"]), (&json!("ProspectErased"), &json!("request 4711")));
    for (when, told) in [
        ("as_of_version=2".to_owned(), json!("erased")),
        (format!("as_of_position={}", erased.position() - 1), json!("erased")),
        (format!("as_of={}", items[1]["recorded_at"].as_str().expect("a time")), json!("erased")),
        ("as_of_version=3".to_owned(), Value::Null),
    ] {
        let then = client.read(&format!("{path}?include_deleted=true&{when}"), position).await;
        assert_eq!((then.status, &then.json["job_title"]), (StatusCode::OK, &json!("CTO")), "{when}: {then:?}");
        for field in ["first_name", "email"] {
            assert_eq!(then.json[field], told, "{when}, {field}: {then:?}");
        }
        let text = String::from_utf8_lossy(&then.bytes).to_lowercase();
        assert!(!text.contains("ada") && !text.contains("london"), "{text}");
    }
    let text = String::from_utf8_lossy(&history.bytes).to_lowercase();
    assert!(!text.contains("\"ada\"") && !text.contains("ada@") && !text.contains("london"), "{text}");
    let gone = client.read(&format!("{path}?as_of_version=3"), position).await;
    assert!(gone.status == StatusCode::GONE && gone.json["erased_at"].is_string(), "{gone:?}");
    let mut history = tests::prospectus(&test, &["audit", "history", &ada]);
    history.env("PROSPECTUS_QUERY_URL", test.stack.url(Part::QueryService));
    let shown = tests::ran(history).await;
    assert!(shown.code == 0 && shown.stdout.contains("why: request 4711"), "{shown:?}");
    let list = run_prospectus(&test, &["erasures", "list", "--tenant", "demo", "--json"]).await.json();
    assert_eq!((list.as_array().map(Vec::len), &list[0]["prospect_id"]), (Some(1), &json!(ada)));
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_is_not_written_down_outside_is_not_acknowledged() {
    let test = TestStack::start().await;
    let client = test.client();
    let [ada, bob] =
        [person(&client, json!({"first_name": "Ada"})).await, person(&client, json!({"first_name": "Bob"})).await];
    erase(&client, &ada).await;
    let list = test.directory().join("erasures-command_service.ndjson");
    let kept = std::fs::read(&list).expect("the list");
    // A device that is no file stands where the list was.
    test.stack.stop(Part::CommandService(1)).await.expect("it stops");
    std::fs::remove_file(&list).expect("removed");
    std::os::unix::fs::symlink("/dev/null", &list).expect("a device");
    test.stack.start_part(Part::CommandService(1)).await.expect("it starts");
    for _ in 0..2 {
        let path = format!("/v1/prospects/{bob}/erase");
        let answer = client.command(Method::POST, &path, &json!({"reason": "asked to"})).await;
        assert_eq!(
            (answer.status, &answer.json["code"]),
            (StatusCode::SERVICE_UNAVAILABLE, &json!("erasure_incomplete")),
            "{answer:?}"
        );
        assert!(answer.headers.contains_key("retry-after"));
    }
    test.stack.stop(Part::CommandService(1)).await.expect("it stops");
    std::fs::remove_file(&list).expect("removed");
    // With what was there, and the beginning of a line that a crash cut off.
    std::fs::write(&list, [&kept[..], b"{\"tenant_id\":"].concat()).expect("put back");
    test.stack.start_part(Part::CommandService(1)).await.expect("it starts");
    erase(&client, &bob).await;
    let listed = listed(&test, Part::CommandService(1));
    assert_eq!(
        listed.iter().map(|line| line["person_id"].as_str()).collect::<Vec<_>>(),
        [Some(ada.as_str()), Some(bob.as_str())]
    );
    test.finish().await;
}

const LIST: &str = "Email,Full Name,Company\nada@acme.example,Ada King,Acme\nbob@acme.example,Bob Ross,Acme\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_tenants_rule_says_whether_an_erased_person_is_let_in_again() {
    let test = TestStack::start().await;
    let client = test.client();
    let first = import(&client, "source=crm", LIST).await;
    let outcomes = rows(&client, &first).await;
    let ada = outcomes[0]["prospect_ids"][0].as_str().expect("a person").to_owned();
    erase(&client, &ada).await;
    for query in ["source=crm", "source=crm&dry_run=true", "source=other"] {
        let again = import(&client, query, LIST).await;
        assert_eq!(tally(&again)[5], 1, "{query}: {again}");
        let outcomes = rows(&client, &again).await;
        assert_eq!(
            (&outcomes[0]["outcome"], reasons(&outcomes).get("erased_person")),
            (&json!("refused"), Some(&1)),
            "{outcomes:?}"
        );
        assert_ne!(outcomes[1]["outcome"], json!("refused"));
    }
    for (method, path, body) in [
        (Method::POST, "/v1/prospects".to_owned(), json!({"email": "Ada@ACME.example"})),
        (
            Method::PATCH,
            format!("/v1/prospects/{}", outcomes[1]["prospect_ids"][0].as_str().expect("Bob")),
            json!({"email": "ada@acme.example"}),
        ),
    ] {
        let refused = client.command(method, &path, &body).await;
        assert_eq!(
            (refused.status, &refused.json["code"]),
            (StatusCode::CONFLICT, &json!("erased_person")),
            "{refused:?}"
        );
        assert_eq!(refused.json["errors"][0]["pointer"], "/email");
        assert!(!refused.json.to_string().to_lowercase().contains("ada@"), "{refused:?}");
    }
    // Another tenant has nothing to do with it.
    let other = test.client_with(&test.tenant_key("other", "admin").await);
    assert_eq!(tally(&import(&other, "source=crm", LIST).await)[5], 0);

    let wrong = run_prospectus(&test, &["tenants", "set", "demo"]).await;
    assert_eq!(wrong.code, 1, "{wrong:?}");
    let set = run_prospectus(&test, &["tenants", "set", "demo", "--erased-persons", "admit", "--json"]).await;
    assert_eq!((set.code, &set.json()["erased_persons"]), (0, &json!("admit")), "{set:?}");
    let admitted = import(&client, "source=crm", LIST).await;
    let outcomes = rows(&client, &admitted).await;
    assert_eq!(outcomes[0]["outcome"], "created", "{outcomes:?}");
    assert_ne!(outcomes[0]["prospect_ids"][0], json!(ada), "somebody new");
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}
