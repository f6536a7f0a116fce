//! Taking imports back: every record that an import touched is again what it was, unless somebody has changed it since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::{Company, Prospect, Record, Status};
use event_store::{Keyring, Store};
use http::{Method, StatusCode};
use local_stack::Part;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use service_kit::postgres::Database;
use tests::{Client, TestStack, eventually};
use uuid::Uuid;

use super::{events_of_records, get, import, rows};

async fn undo(client: &Client, import: &Value) -> Value {
    let path = format!("/v1/imports/{}", import["id"].as_str().expect("an id"));
    let asked = client.command(Method::POST, &format!("{path}/undo"), &json!({})).await;
    assert!(asked.status.is_success(), "{asked:?}");
    eventually("the import is taken back", async || {
        let document = get(client, &path).await.json;
        (document["state"] == "undone").then_some(document)
    })
    .await
}

async fn left(client: &Client, import: &Value) -> BTreeSet<String> {
    let answer = get(client, &format!("/v1/imports/{}/left", import["id"].as_str().expect("an id"))).await;
    let items = answer.json["items"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
    items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_import_made_is_gone_what_it_changed_is_back_and_what_was_changed_since_is_left() {
    let test = TestStack::start().await;
    let client = test.client();
    let company = client
        .command(Method::POST, "/v1/companies", &json!({"name": "Acme", "domain": "acme.example", "city": "Ulm"}))
        .await
        .id();
    let person = json!({"email": "ada@acme.example", "first_name": "Ada", "company_id": company});
    let person = client.command(Method::POST, "/v1/prospects", &person).await.id();
    let shown = async |path: String, position: i64| {
        let mut answer = client.read(&path, Some(position)).await.json;
        // What says when and which, not what.
        for member in ["version", "updated_at", "position"] {
            answer.as_object_mut().expect("a record").remove(member);
        }
        answer
    };
    let paths = [format!("/v1/companies/{company}"), format!("/v1/prospects/{person}")];
    let before = [shown(paths[0].clone(), 2).await, shown(paths[1].clone(), 2).await];
    let list = "Email,Full Name,Company,City,Industry,Job Title\nada@acme.example,Ada King,Acme Group,Bonn,Steel,Countess\nbob@acme.example,Bob Ross,,,,Painter\ncarl@beta.example,Carl Orff,Beta,,,\n";
    let imported = import(&client, "source=crm", list).await;
    let outcomes = rows(&client, &imported).await;
    let bob = outcomes[1]["prospect_ids"][0].as_str().expect("an id").to_owned();
    let carl = outcomes[2]["prospect_ids"][0].as_str().expect("an id").to_owned();
    // Somebody works on with one of the new persons.
    client.command(Method::PATCH, &format!("/v1/prospects/{bob}"), &json!({"job_title": "Artist"})).await;
    let undone = undo(&client, &imported).await;
    assert_eq!(undone["undo"], json!({"companies": 2, "prospects": 2, "left": 1}), "{undone}");
    assert_eq!(left(&client, &imported).await, BTreeSet::from([bob.clone()]));
    let position = undone["position"].as_i64().expect("a position");
    assert_eq!([shown(paths[0].clone(), position).await, shown(paths[1].clone(), position).await], before);
    let gone = client.read(&format!("/v1/prospects/{carl}"), Some(position)).await;
    assert_eq!(gone.status, StatusCode::GONE);
    let kept = client.read(&format!("/v1/prospects/{bob}"), Some(position)).await;
    assert_eq!((&kept.json["job_title"], &kept.json["company_id"]), (&json!("Artist"), &json!(company)));
    // Asked again it stays as it is; and the list can be imported again as if it never had been.
    let events = events_of_records(&test).await;
    let again = client
        .command(Method::POST, &format!("/v1/imports/{}/undo", imported["id"].as_str().expect("an id")), &json!({}))
        .await;
    assert_eq!((again.status, events_of_records(&test).await), (StatusCode::OK, events), "{again:?}");
    let anew = import(&client, "source=crm", list).await;
    assert_eq!(anew["rows"]["refused"], 0);
    // But for whom somebody changed: what the list says of it again is no news.
    assert_eq!(super::records(&anew, "prospects"), [1, 1, 1], "{anew}");
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}

/// One thing that happens. Companies and persons are few, so that much happens to each.
#[derive(Debug, Clone)]
enum Step {
    /// A list: for each row the company, the person or none, and which values.
    Import(Vec<(u8, Option<u8>, u8)>),
    EditCompany(u8, u8),
    EditPerson(u8, u8),
    Merge(u8, u8),
    Unmerge(u8),
    /// Of the imports so far, one.
    Undo(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = (0..3_u8, prop::option::of(0..2_u8), 0..4_u8);
    let step = prop_oneof![
        4 => prop::collection::vec(row, 1..6).prop_map(Step::Import),
        1 => (0..3_u8, 0..4_u8).prop_map(|(company, value)| Step::EditCompany(company, value)),
        1 => (0..6_u8, 0..4_u8).prop_map(|(person, value)| Step::EditPerson(person, value)),
        1 => (0..3_u8, 0..3_u8).prop_map(|(one, other)| Step::Merge(one, other)),
        1 => (0..3_u8).prop_map(Step::Unmerge),
        3 => any::<prop::sample::Index>().prop_map(Step::Undo),
    ];
    prop::collection::vec(step, 3..14)
}

#[test]
fn random_imports_edits_merges_and_undos_hold_the_rules() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let test = runtime.block_on(TestStack::start());
    let mut runner =
        TestRunner::new(Config { cases: 12, max_shrink_iters: 60, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&steps(), |steps| {
        runtime.block_on(play(&test, steps));
        Ok(())
    });
    outcome.expect("the rules hold");
    runtime.block_on(async {
        tests::read_tables_equal_the_log(&test).await;
        test.finish().await;
    });
}

/// Plays the steps in a tenant of their own and checks what the undos did.
async fn play(test: &TestStack, steps: Vec<Step>) {
    let tenant = Uuid::new_v4().to_string();
    let client = test.client_with(&test.tenant_key(&tenant, "admin").await);
    let mut imports: Vec<Value> = Vec::new();
    let mut undone: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let (mut companies, mut persons) = (BTreeMap::new(), BTreeMap::new());
    for step in steps {
        match step {
            Step::Import(list) => {
                let mut text = "Email,Full Name,Company,Website,City,Job Title\n".to_owned();
                for (company, person, value) in &list {
                    let person =
                        person.map_or(",".to_owned(), |person| format!("p{person}@c{company}.example,Person {person}"));
                    text += &format!("{person},Company {company},c{company}.example,City {value},Title {value}\n");
                }
                let document = import(&client, "source=crm", text).await;
                assert_eq!(document["rows"]["refused"], 0, "{document}");
                for (row, (company, person, _)) in rows(&client, &document).await.iter().zip(&list) {
                    companies.insert(*company, row["company_id"].as_str().expect("an id").to_owned());
                    if let Some(person) = person {
                        persons
                            .insert(company * 2 + person, row["prospect_ids"][0].as_str().expect("an id").to_owned());
                    }
                }
                imports.push(document);
            }
            // Whether they are there, deleted or merged, these are refused or not: whatever, the rules hold.
            Step::EditCompany(company, value) => {
                if let Some(id) = companies.get(&company) {
                    client
                        .command(
                            Method::PATCH,
                            &format!("/v1/companies/{id}"),
                            &json!({"city": format!("City {value}")}),
                        )
                        .await;
                }
            }
            Step::EditPerson(person, value) => {
                if let Some(id) = persons.get(&person) {
                    client
                        .command(
                            Method::PATCH,
                            &format!("/v1/prospects/{id}"),
                            &json!({"job_title": format!("Title {value}")}),
                        )
                        .await;
                }
            }
            Step::Merge(one, other) => {
                if let (Some(one), Some(other)) = (companies.get(&one), companies.get(&other)) {
                    client
                        .command(Method::POST, &format!("/v1/companies/{one}/merge"), &json!({ "into": other }))
                        .await;
                }
            }
            Step::Unmerge(company) => {
                if let Some(id) = companies.get(&company) {
                    client.command(Method::POST, &format!("/v1/companies/{id}/unmerge"), &json!({})).await;
                }
            }
            Step::Undo(which) => {
                if !imports.is_empty() {
                    let document = which.get(&imports).clone();
                    undo(&client, &document).await;
                    let id = document["id"].as_str().expect("an id").to_owned();
                    // Asked again, what was left then is what counts.
                    let left = left(&client, &document).await;
                    undone.entry(id).or_insert(left);
                }
            }
        }
    }
    check(test, &tenant, &undone).await;
}

/// One event of the tenant, as far as the rules go.
struct Happened {
    position: i64,
    kind: String,
    record: Uuid,
    sequence: i64,
    event_type: String,
    import: Option<String>,
    /// Whether it takes an import back to what was before.
    back: bool,
}

/// The rules, read from the log alone: an undone import's record has nobody else's event between the import's first one and the undo, and
/// is then what it was before; or it has one, and is left.
async fn check(test: &TestStack, tenant: &str, undone: &BTreeMap<String, BTreeSet<String>>) {
    let primary = test.superuser(Part::Primary).await;
    let sql = "SELECT e.position, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type,
                      coalesce(e.payload -> 'said' ->> 'import_id', e.payload ->> 'import_id'), e.tenant_id, e.payload -> 'before' IS NOT NULL
               FROM log.events AS e JOIN access.tenants AS t USING (tenant_id) WHERE t.name = $1 ORDER BY e.position";
    let events = primary.query(sql, &[&tenant]).await.expect("the log");
    let Some(first) = events.first() else { return };
    let tenant_id: Uuid = first.get(6);
    let log: Vec<Happened> = events
        .iter()
        .map(|row| Happened {
            position: row.get(0),
            kind: row.get(1),
            record: row.get(2),
            sequence: row.get(3),
            event_type: row.get(4),
            import: row.get(5),
            back: row.get::<_, String>(4).ends_with("ImportUndone") && row.get(7),
        })
        .collect();
    let database =
        Database::parse(&test.stack.role_url("prospectus_appender", Part::Primary), "tests").expect("a good URL");
    let keys = std::fs::read_to_string(test.directory().join("keyring")).expect("the stack's keys");
    let (store, task) = Store::open(&database, Arc::new(Keyring::parse(&keys).expect("good keys")));
    for (import, left) in undone {
        let asked =
            log.iter().find(|event| event.event_type == "ImportUndoRequested" && event.record.to_string() == *import);
        let asked = asked.expect("it was asked for").position;
        let touched =
            |event: &&Happened| event.import.as_deref() == Some(import) && !event.event_type.ends_with("Undone");
        let records: BTreeMap<Uuid, &Happened> =
            log.iter().rev().filter(touched).map(|event| (event.record, event)).collect();
        for (record, begun) in records {
            // Of what was taken back by then to what was before, nothing counts.
            let of = |event: &&Happened| event.record == record && event.position < asked;
            let taken_back: BTreeSet<&String> =
                log.iter().filter(of).filter(|event| event.back).filter_map(|event| event.import.as_ref()).collect();
            let others = log.iter().filter(of).any(|event| {
                let counts = match &event.import {
                    None => true,
                    Some(other) => other != import && !taken_back.contains(other),
                };
                event.sequence > begun.sequence && counts
            });
            let back = log.iter().find(|event| {
                event.record == record
                    && event.event_type.ends_with("ImportUndone")
                    && event.import.as_deref() == Some(import)
            });
            let is_left = left.contains(&record.to_string());
            assert_eq!(
                (back.is_some(), is_left),
                (!others, others),
                "{} {record}: changed by others: {others}",
                begun.kind
            );
            let Some(back) = back else { continue };
            match begun.kind.as_str() {
                "company" => {
                    is_as_before::<Company>(&store, tenant_id, record, begun.sequence, back.sequence, |state| {
                        state.status
                    })
                    .await;
                }
                _ => {
                    is_as_before::<Prospect>(&store, tenant_id, record, begun.sequence, back.sequence, |state| {
                        state.status
                    })
                    .await;
                }
            }
        }
    }
    task.finish().await;
}

async fn is_as_before<R: Record + PartialEq + std::fmt::Debug>(
    store: &Store,
    tenant: Uuid,
    record: Uuid,
    begun: i64,
    back: i64,
    status: fn(&R) -> Status,
) {
    let history = store.loader().history::<R>(tenant, record).await.expect("the record's events");
    let until = |last: i64| {
        let mut state = R::default();
        for (_, event) in history.iter().take_while(|(sequence, _)| *sequence <= last) {
            state.evolve(event);
        }
        state
    };
    let (before, after) = (until(begun - 1), until(back));
    if begun == 1 {
        assert_eq!(status(&after), Status::Deleted, "it was made by the import");
    } else {
        assert_eq!(after, before, "it is what it was");
    }
}
