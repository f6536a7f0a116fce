//! Two companies that are one: merged, read, and taken apart again, over HTTP.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tests::{Answer, Client, TestStack};

async fn register(client: &Client, body: &Value) -> String {
    let answer = client.command(Method::POST, "/v1/companies", body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer.id()
}

async fn merge(client: &Client, id: &str, into: &str) -> Answer {
    client.command(Method::POST, &format!("/v1/companies/{id}/merge"), &json!({ "into": into })).await
}

async fn unmerge(client: &Client, id: &str) -> Answer {
    client.command(Method::POST, &format!("/v1/companies/{id}/unmerge"), &json!({})).await
}

async fn patch(client: &Client, id: &str, body: &Value) -> Answer {
    client.command(Method::PATCH, &format!("/v1/companies/{id}"), body).await
}

fn done(answer: &Answer) -> i64 {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.position()
}

/// Everything that is read of these records at this position, without what says when and how often they changed.
async fn contents(client: &Client, companies: &[&str], prospects: &[&str], position: i64) -> Vec<Value> {
    let companies = companies.iter().map(|id| format!("/v1/companies/{id}"));
    let prospects = prospects.iter().map(|id| format!("/v1/prospects/{id}"));
    let mut contents = Vec::new();
    for path in companies.chain(prospects) {
        let answer = client.read(&path, Some(position)).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        contents.push(lasting(answer.json));
    }
    for list in ["companies", "company-prospects"] {
        let answer = client.read(&format!("/v1/{list}"), Some(position)).await;
        contents.extend(answer.json["items"].as_array().expect("items").iter().cloned().map(lasting));
    }
    contents
}

fn lasting(mut record: Value) -> Value {
    for name in ["version", "position", "updated_at", "company_version", "company_updated_at"] {
        record.as_object_mut().expect("a record").remove(name);
    }
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_moves_everything_and_its_undoing_brings_it_back() {
    let test = TestStack::start().await;
    let client = test.client();
    let primary = register(
        &client,
        &json!({"name": "Acme Robotics", "domain": "acme.com", "country": "GB", "external_refs": [{"source": "crm", "id": "1"}]}),
    )
    .await;
    let secondary = register(
        &client,
        &json!({"name": "ACME Robotics Ltd", "domain": "acme.co.uk", "additional_domains": ["acme.io"], "country": "GB",
            "industry": "Robots", "phone": "+442079460958", "external_refs": [{"source": "erp", "id": "A"}],
            "social_media": [{"platform": "X", "url": "https://x.com/acme"}], "attributes": {"tier": "gold"}}),
    )
    .await;
    let assigned = async |company: &str, name: &str| {
        let body = json!({"last_name": name, "company_id": company});
        let answer = client.command(Method::POST, "/v1/prospects", &body).await;
        (answer.id(), answer.position())
    };
    let (ours, _) = assigned(&primary, "Ours").await;
    let (theirs, position) = assigned(&secondary, "Theirs").await;
    let everything = async |position| contents(&client, &[&primary, &secondary], &[&ours, &theirs], position).await;
    let apart = everything(position).await;

    // It is proposed, with reasons.
    let duplicates = client.read(&format!("/v1/companies/{secondary}/duplicates"), Some(position)).await;
    assert_eq!(duplicates.json["items"].as_array().map(Vec::len), Some(1), "{duplicates:?}");
    let candidate = &duplicates.json["items"][0];
    assert_eq!((&candidate["company_id"], &candidate["name"]), (&json!(primary), &json!("Acme Robotics")));
    assert_eq!(candidate["reasons"], json!(["same_country", "same_domain_label", "same_name"]));

    // Merged once, however often it is asked for.
    let path = format!("/v1/companies/{secondary}/merge");
    let body = json!({ "into": primary }).to_string();
    let headers = [("idempotency-key", "merge"), ("if-match", "\"1\"")];
    let merged = client.try_command(Method::POST, &path, &headers, body.clone()).await.expect("an answer");
    let position = done(&merged);
    assert_eq!((merged.id(), merged.json["version"].as_i64()), (secondary.clone(), Some(2)), "it is of the merged one");
    let again = client.try_command(Method::POST, &path, &headers, body).await.expect("an answer");
    assert_eq!((again.status, again.json), (StatusCode::OK, merged.json));
    assert_eq!(done(&merge(&client, &secondary, &primary).await), position, "merged already: nothing changes");

    let moved = client.read(&format!("/v1/companies/{secondary}"), Some(position)).await;
    let location = moved.headers.get("location").and_then(|value| value.to_str().ok());
    assert_eq!((moved.status, location), (StatusCode::MOVED_PERMANENTLY, Some(&*format!("/v1/companies/{primary}"))));
    let both = client.read(&format!("/v1/companies/{primary}"), Some(position)).await.json;
    let shown = ["name", "domain", "additional_domains", "industry", "phone", "attributes", "external_refs"]
        .map(|name| &both[name]);
    assert_eq!(
        shown,
        [
            &json!("Acme Robotics"),
            &json!("acme.com"),
            &json!(["acme.co.uk", "acme.io"]),
            &json!("Robots"),
            &json!("+442079460958"),
            &json!({"tier": "gold"}),
            &json!([{"source": "crm", "id": "1"}, {"source": "erp", "id": "A"}]),
        ]
    );
    assert_eq!(both["social_media"][0]["url"], "https://x.com/acme");
    for prospect in [&ours, &theirs] {
        let prospect = client.read(&format!("/v1/prospects/{prospect}"), Some(position)).await;
        assert_eq!(prospect.json["company_id"], json!(primary), "{prospect:?}");
    }
    let listed = client.read("/v1/companies", Some(position)).await;
    assert_eq!(listed.json["items"].as_array().map(Vec::len), Some(1), "a merged company is no longer listed");
    let listed = client.read("/v1/companies?include_deleted=true", Some(position)).await;
    assert_eq!(listed.json["items"].as_array().map(Vec::len), Some(2), "{listed:?}");
    let rows = client.read(&format!("/v1/company-prospects?company_id={primary}"), Some(position)).await;
    assert_eq!(rows.json["items"].as_array().map(Vec::len), Some(2), "{rows:?}");

    // What was the secondary's belongs to the primary.
    for body in [json!({"domain": "acme.co.uk"}), json!({"domain": "www.acme.io"})] {
        let taken = client.command(Method::POST, "/v1/companies", &body).await;
        assert_eq!((taken.status, &taken.json["claimed_by"]), (StatusCode::CONFLICT, &json!(primary)), "{taken:?}");
    }

    // What would be lost stands in the way, by name; put right, it does not.
    patch(&client, &primary, &json!({"industry": "Toys", "additional_domains": ["acme.co.uk"], "city": "Leeds"})).await;
    let refused = unmerge(&client, &secondary).await;
    let pointers: Vec<&Value> =
        refused.json["errors"].as_array().into_iter().flatten().map(|error| &error["pointer"]).collect();
    assert_eq!(
        (refused.status, pointers),
        (StatusCode::CONFLICT, vec![&json!("/industry"), &json!("/additional_domains")])
    );
    let put_right = json!({"industry": "Robots", "additional_domains": ["acme.co.uk", "acme.io"], "city": null});
    patch(&client, &primary, &put_right).await;
    let path = format!("/v1/companies/{secondary}/unmerge");
    let headers = [("idempotency-key", "unmerge")];
    let undone = client.try_command(Method::POST, &path, &headers, "").await.expect("an answer");
    let position = done(&undone);
    assert_eq!(everything(position).await, apart);
    // The second time there is nothing to undo, which the key's first answer comes before.
    let again = client.try_command(Method::POST, &path, &headers, "").await.expect("an answer");
    assert_eq!((again.status, again.json), (StatusCode::OK, undone.json));
    let version = undone_version(&unmerge(&client, &secondary).await);
    assert_eq!(version, 3, "nothing is merged: nothing changes");
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}

fn undone_version(answer: &Answer) -> i64 {
    done(answer);
    answer.json["version"].as_i64().expect("a version")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_merged_or_undone_says_what_to_do() {
    let test = TestStack::start().await;
    let client = test.client();
    let mut ids = Vec::new();
    for name in ["A", "B", "C", "D", "Deleted"] {
        ids.push(register(&client, &json!({ "name": name })).await);
    }
    let [a, b, c, d, deleted] = &ids[..] else { panic!("five") };
    done(&client.command(Method::DELETE, &format!("/v1/companies/{deleted}"), &json!({})).await);
    done(&merge(&client, a, b).await);
    let position = done(&merge(&client, b, c).await);
    let nobody = uuid::Uuid::now_v7().to_string();
    let said = |answer: &Answer, member: &str| {
        (
            answer.status.as_u16(),
            answer.json["code"].as_str().unwrap_or_default().to_owned(),
            answer.json[member].clone(),
        )
    };
    let refused = |status: u16, code: &str, value: Value| (status, code.to_owned(), value);

    // Merging: who takes no part, and whom to take instead.
    for (id, into, member, expected) in [
        (d, d, "merged_into", refused(422, "invalid_fields", json!(null))),
        (d, &nobody, "merged_into", refused(422, "invalid_fields", json!(null))),
        (&nobody, d, "merged_into", refused(404, "not_found", json!(null))),
        (d, deleted, "merged_into", refused(409, "deleted", json!(null))),
        (deleted, d, "merged_into", refused(409, "deleted", json!(null))),
        // Not the one that it was merged into, but the end of the chain.
        (d, a, "merged_into", refused(409, "merged", json!(c))),
        (a, d, "merged_into", refused(409, "merged", json!(c))),
        (c, a, "merged_into", refused(409, "conflict", json!(null))),
    ] {
        let answer = merge(&client, id, into).await;
        assert_eq!(said(&answer, member), expected, "{answer:?}");
    }
    for (body, code) in [
        (json!({}), "required"),
        (json!({"into": "acme"}), "invalid_id"),
        (json!({"into": d}), "itself"),
        (json!({"into": nobody}), "no_such_company"),
    ] {
        let answer = client.command(Method::POST, &format!("/v1/companies/{d}/merge"), &body).await;
        assert_eq!((answer.status.as_u16(), &answer.json["errors"][0]["code"]), (422, &json!(code)), "{answer:?}");
    }
    let path = format!("/v1/companies/{d}/merge");
    let stale = client.try_command(Method::POST, &path, &[("if-match", "\"7\"")], json!({"into": c}).to_string()).await;
    assert_eq!(stale.expect("an answer").status, StatusCode::PRECONDITION_FAILED);
    // Any command on a merged company names the end of the chain, and so does reading it.
    let answer = patch(&client, a, &json!({"name": "New"})).await;
    assert_eq!(said(&answer, "merged_into"), refused(409, "merged", json!(c)), "{answer:?}");
    let moved = client.read(&format!("/v1/companies/{a}"), Some(position)).await;
    let location = moved.headers.get("location").and_then(|value| value.to_str().ok());
    assert_eq!((moved.status.as_u16(), location), (301, Some(&*format!("/v1/companies/{c}"))));
    let assigned = client.command(Method::POST, "/v1/prospects", &json!({"last_name": "X", "company_id": a})).await;
    assert_eq!(assigned.json["errors"][0]["code"], "no_such_company", "{assigned:?}");

    // Undoing: from the end of the chain, and while the other one is there.
    let answer = unmerge(&client, a).await;
    assert_eq!(said(&answer, "unmerge_first"), refused(409, "conflict", json!(b)), "{answer:?}");
    done(&client.command(Method::DELETE, &format!("/v1/companies/{c}"), &json!({})).await);
    let answer = unmerge(&client, b).await;
    assert_eq!(said(&answer, "restore_first"), refused(409, "deleted", json!(c)), "{answer:?}");
    let answer = unmerge(&client, &nobody).await;
    assert_eq!(said(&answer, "merged_into"), refused(404, "not_found", json!(null)), "{answer:?}");
    done(&client.command(Method::POST, &format!("/v1/companies/{c}/restore"), &json!({})).await);

    // As lines of a batch, each after the one before.
    let line = |path: String, body: Value| json!({"method": "POST", "path": path, "body": body}).to_string();
    let lines = [
        line(format!("/v1/companies/{b}/unmerge"), json!(null)),
        line(format!("/v1/companies/{a}/unmerge"), json!(null)),
        line(format!("/v1/companies/{d}/merge"), json!({"into": a})),
        line(format!("/v1/companies/{d}/merge"), json!({"into": b})),
    ];
    let batch = client.try_command(Method::POST, "/v1/batch", &[], lines.join("\n")).await.expect("an answer");
    let lines = batch.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let statuses: Vec<Value> =
        lines.map(|line| serde_json::from_slice::<Value>(line).expect("JSON")["status"].clone()).collect();
    assert_eq!(statuses, [200, 200, 200, 409], "{batch:?}");
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}
