//! The review queue, from an import to the last decision, over HTTP.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tests::{Answer, Client, TestStack, read_tables_equal_the_log};

/// Free mail with an existing company's name; nothing of a company; a mistyped host.
const LIST: &str = "\
id,firstName,lastName,email,company,country
1,Ada,King,ada.king@gmail.com,ACME Robotics GmbH,GB
2,Grace,Hopper,grace@hotmail.com,,GB
3,Alan,Turing,alan@acme.con,Nobody Knows Them,GB
4,Emmy,Noether,emmy@gmail.com,New Labs,DE
";
/// The name and country of another company, under a domain of its own.
const NAMESAKES: &str = "\
Company name,Website,Country
Acme Robotics Ltd,acme-robotics.example.org,GB
Acme Robotics,acmerobotics.net,GB
Acme Robotics,acmerobotics.io,GB
";

async fn import(client: &Client, query: &str, list: &str) -> Value {
    let path = format!("/v1/imports?source=list{query}");
    let headers = [("content-type", "text/csv"), ("prefer", "wait=30")];
    let answer = client.try_command(Method::POST, &path, &headers, list.to_owned()).await.expect("an answer");
    assert_eq!((answer.status, &answer.json["state"]), (StatusCode::OK, &json!("done")), "{answer:?}");
    answer.json
}

/// The reviews that are left: id, reason, and the companies that are proposed.
async fn reviews(client: &Client, position: i64) -> Vec<Value> {
    let answer = client.read("/v1/reviews", Some(position)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json["items"].as_array().expect("items").clone()
}

async fn resolve(client: &Client, id: &str, body: &Value) -> Answer {
    client.command(Method::POST, &format!("/v1/reviews/{id}/resolve"), body).await
}

fn done(answer: &Answer) -> i64 {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.position()
}

fn refused<'a>(answer: &'a Answer, status: StatusCode, code: &str) -> &'a Value {
    assert_eq!((answer.status, &answer.json["code"]), (status, &json!(code)), "{answer:?}");
    &answer.json
}

fn id_of<'a>(reviews: &'a [Value], last_name: &str) -> &'a str {
    let found = reviews.iter().find(|item| item["record"]["last_name"] == last_name);
    found.and_then(|item| item["id"].as_str()).unwrap_or_else(|| panic!("no {last_name} in {reviews:?}"))
}

fn names(reviews: &[Value]) -> Vec<(&str, &str)> {
    reviews
        .iter()
        .map(|item| {
            let record = &item["record"];
            (
                record["last_name"].as_str().or(record["name"].as_str()).unwrap_or_default(),
                item["reason"].as_str().unwrap_or_default(),
            )
        })
        .collect()
}

async fn company(client: &Client, body: &Value) -> (String, i64) {
    let answer = client.command(Method::POST, "/v1/companies", body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    (answer.id(), answer.position())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_import_cannot_decide_is_decided_once() {
    let test = TestStack::start().await;
    let client = test.client();
    let (acme, _) = company(&client, &json!({"name": "Acme Robotics", "domain": "acme.com", "country": "GB"})).await;
    let first = import(&client, "&mapping=customer", LIST).await;
    assert_eq!(first["rows"]["in_review"], 4, "{first}");
    let position = first["position"].as_i64().expect("a position");
    let queue = reviews(&client, position).await;
    let expected =
        [("King", "name_only"), ("Hopper", "no_company"), ("Turing", "suspicious_domain"), ("Noether", "name_only")];
    assert_eq!(names(&queue), expected);
    assert_eq!(queue[0]["hint"], json!({"name": "ACME Robotics GmbH", "country": null, "host": "gmail.com"}));
    let candidate = &queue[0]["candidates"][0];
    assert_eq!((&candidate["company_id"], &candidate["reasons"]), (&json!(acme), &json!(["same_name"])));
    let mistyped = &queue[2]["candidates"][0];
    assert_eq!((&mistyped["company_id"], &mistyped["reasons"]), (&json!(acme), &json!(["same_domain_label"])));
    assert!([1, 3].iter().all(|place| queue[*place]["candidates"] == json!([])), "{queue:?}");
    let [ada, grace, alan, emmy] = ["King", "Hopper", "Turing", "Noether"].map(|name| id_of(&queue, name));

    // What cannot be is said, with what can be done instead, and changes nothing.
    let (gone, _) = company(&client, &json!({"name": "Gone"})).await;
    client.command(Method::DELETE, &format!("/v1/companies/{gone}"), &json!({})).await;
    let (merged, _) = company(&client, &json!({"name": "Merged"})).await;
    client.command(Method::POST, &format!("/v1/companies/{merged}/merge"), &json!({"into": acme})).await;
    let to = |company: &str| json!({"assign": {"company_id": company}});
    refused(&resolve(&client, ada, &to(&gone)).await, StatusCode::CONFLICT, "deleted");
    let moved = resolve(&client, ada, &to(&merged)).await;
    assert_eq!(refused(&moved, StatusCode::CONFLICT, "merged")["merged_into"], json!(acme));
    let none = resolve(&client, ada, &to(&uuid::Uuid::now_v7().to_string())).await;
    assert_eq!(
        refused(&none, StatusCode::UNPROCESSABLE_ENTITY, "invalid_fields")["errors"][0]["pointer"],
        "/assign/company_id"
    );
    let merge = resolve(&client, ada, &json!({"merge": {"into": acme}})).await;
    refused(&merge, StatusCode::UNPROCESSABLE_ENTITY, "invalid_fields");
    let unnamed = resolve(&client, ada, &json!({"create": {"city": "Bonn"}})).await;
    assert_eq!(
        refused(&unnamed, StatusCode::UNPROCESSABLE_ENTITY, "invalid_fields")["errors"][0]["pointer"],
        "/create/name"
    );
    let nobody = resolve(&client, &uuid::Uuid::now_v7().to_string(), &json!({"leave": true})).await;
    refused(&nobody, StatusCode::NOT_FOUND, "not_found");
    let nobody = resolve(&client, &uuid::Uuid::now_v7().to_string(), &to(&acme)).await;
    refused(&nobody, StatusCode::NOT_FOUND, "not_found");

    // Assigned, under its version.
    let path = format!("/v1/reviews/{ada}/resolve");
    let stale = [("if-match", "\"7\"")];
    let stale = client.try_command(Method::POST, &path, &stale, to(&acme).to_string()).await.expect("an answer");
    refused(&stale, StatusCode::PRECONDITION_FAILED, "precondition_failed");
    let position = done(&resolve(&client, ada, &to(&acme)).await);
    assert_eq!(names(&reviews(&client, position).await), expected[1..]);
    let shown = client.read(&format!("/v1/prospects/{ada}"), Some(position)).await;
    assert_eq!(shown.json["company_id"], json!(acme));
    let again = resolve(&client, ada, &to(&acme)).await;
    assert_eq!(refused(&again, StatusCode::CONFLICT, "not_in_review")["company_id"], json!(acme));

    // A company that exists already is named, so that the prospect can be assigned to it; one that does not is made in the same moment.
    let taken = resolve(&client, emmy, &json!({"create": {"name": "New Labs", "domain": "acme.com"}})).await;
    assert_eq!(refused(&taken, StatusCode::CONFLICT, "claim_taken")["claimed_by"], json!(acme));
    let create = json!({"create": {"name": "New Labs", "domain": "new-labs.de", "country": "DE"}}).to_string();
    let path = format!("/v1/reviews/{emmy}/resolve");
    let once = [("idempotency-key", "labs"), ("if-match", "\"1\"")];
    let created = client.try_command(Method::POST, &path, &once, create.clone()).await.expect("an answer");
    let position = done(&created);
    assert_eq!((created.id().as_str(), created.json["version"].as_i64()), (emmy, Some(2)));
    let labs = created.json["company_id"].as_str().expect("the new company").to_owned();
    let repeated = client.try_command(Method::POST, &path, &once, create.clone()).await.expect("an answer");
    assert_eq!((repeated.status, &repeated.json), (StatusCode::OK, &created.json), "the first answer");
    let without_key = client.try_command(Method::POST, &path, &[], create).await.expect("an answer");
    assert_eq!(refused(&without_key, StatusCode::CONFLICT, "not_in_review")["company_id"], json!(labs));
    let shown = client.read(&format!("/v1/company-prospects?prospect_id={emmy}"), Some(position)).await;
    let row = &shown.json["items"][0];
    assert_eq!((&row["company_id"], &row["domain"]), (&json!(labs), &json!("new-labs.de")));
    let companies = client.read("/v1/companies?name=New%20Labs", Some(position)).await;
    assert_eq!(companies.json["items"].as_array().map(Vec::len), Some(1), "made once: {companies:?}");

    // Left alone, as a line of a batch.
    let lines = [alan, grace].map(|id| {
        json!({"method": "POST", "path": format!("/v1/reviews/{id}/resolve"), "body": {"leave": true}}).to_string()
            + "\n"
    });
    let headers = [("content-type", "application/x-ndjson")];
    let batch = client.try_command(Method::POST, "/v1/batch", &headers, lines.concat()).await.expect("an answer");
    let answers: Vec<Value> =
        batch.bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert!(answers.len() == 2 && answers.iter().all(|answer| answer["status"] == 200), "{answers:?}");
    let position = answers[1]["body"]["position"].as_i64().expect("a position");
    assert!(reviews(&client, position).await.is_empty());
    refused(&resolve(&client, alan, &json!({"leave": true})).await, StatusCode::CONFLICT, "not_in_review");

    // The same list again has nothing new to say, and asks nobody again.
    let before = of_records(&client, position).await;
    let again = import(&client, "&mapping=customer", LIST).await;
    assert_eq!((&again["rows"]["unchanged"], &again["rows"]["in_review"]), (&json!(4), &json!(0)), "{again}");
    let position = again["position"].as_i64().unwrap_or(position).max(position);
    assert_eq!(of_records(&client, position).await, before);
    assert!(reviews(&client, position).await.is_empty());

    // A deleted company's prospects are in review until it is restored.
    let position = done(&client.command(Method::DELETE, &format!("/v1/companies/{acme}"), &json!({})).await);
    let queue = reviews(&client, position).await;
    assert_eq!(names(&queue), [("King", "company_deleted")]);
    assert!(queue[0]["since"].is_string(), "{queue:?}");
    let position = done(&client.command(Method::POST, &format!("/v1/companies/{acme}/restore"), &json!({})).await);
    assert!(reviews(&client, position).await.is_empty());
    done(&client.command(Method::DELETE, &format!("/v1/companies/{acme}"), &json!({})).await);
    let position = done(&resolve(&client, ada, &to(&labs)).await);
    assert!(reviews(&client, position).await.is_empty());
    read_tables_equal_the_log(&test).await;
    test.finish().await;
}

/// How many events of companies and prospects there are.
async fn of_records(client: &Client, position: i64) -> usize {
    let answer = client.read("/v1/events?limit=1000", Some(position)).await;
    let items = answer.json["items"].as_array().unwrap_or_else(|| panic!("no items in {answer:?}")).clone();
    items.iter().filter(|event| event["aggregate_type"] != "import").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_company_that_looks_like_another_one_is_merged_or_left_alone() {
    let test = TestStack::start().await;
    let client = test.client();
    let first = import(&client, "", NAMESAKES).await;
    let position = first["position"].as_i64().expect("a position");
    let listed = client.read("/v1/companies?sort=id", Some(position)).await;
    let companies: Vec<&str> =
        listed.json["items"].as_array().into_iter().flatten().filter_map(|item| item["company_id"].as_str()).collect();
    let [oldest, second, third] = companies[..] else { panic!("three companies, not {listed:?}") };
    let queue = reviews(&client, position).await;
    let of = |item: &Value| (item["id"].clone(), item["kind"].clone(), item["looks_like_company_id"].clone());
    assert_eq!(
        queue.iter().map(of).collect::<Vec<_>>(),
        [second, third].map(|id| (json!(id), json!("company"), json!(oldest)))
    );
    let proposed = queue[0]["candidates"].as_array().expect("candidates").iter().map(|one| one["company_id"].clone());
    assert_eq!(proposed.collect::<Vec<_>>(), [json!(oldest), json!(third)]);

    let wrong = resolve(&client, second, &json!({"assign": {"company_id": oldest}})).await;
    refused(&wrong, StatusCode::UNPROCESSABLE_ENTITY, "invalid_fields");
    refused(&resolve(&client, oldest, &json!({"leave": true})).await, StatusCode::CONFLICT, "not_in_review");
    let position = done(&resolve(&client, second, &json!({"merge": {"into": oldest}})).await);
    let moved = client.read(&format!("/v1/companies/{second}"), Some(position)).await;
    assert_eq!(moved.status, StatusCode::MOVED_PERMANENTLY, "{moved:?}");
    let position = done(&resolve(&client, third, &json!({"leave": true})).await);
    assert!(reviews(&client, position).await.is_empty());
    let unmerged = client.command(Method::POST, &format!("/v1/companies/{second}/unmerge"), &json!({})).await;
    assert!(reviews(&client, done(&unmerged)).await.is_empty(), "whoever takes it out again has looked at it");
    let again = import(&client, "", NAMESAKES).await;
    assert_eq!(again["rows"]["unchanged"], 3, "{again}");
    read_tables_equal_the_log(&test).await;
    test.finish().await;
}
