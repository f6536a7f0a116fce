//! `prospectus import` as people use it: a list goes in, its rows are accounted for, and it can be taken back.

use std::path::PathBuf;

use http::Method;
use serde_json::json;
use tests::{TestStack, prospectus, run_prospectus};
use tokio::io::AsyncWriteExt as _;

const LIST: &str = "firstName,lastName,email,company,externalSource,externalId\n\
    Ada,Lovelace,ada@acme.co.uk,Acme,crm,1\n\
    Bob,Builder,bob@sales.acme.co.uk,Acme,crm,2\n\
    Free,Mail,free@gmail.com,,crm,3\n\
    Bad,Mail,nobody,,crm,4\n";

fn file(test: &TestStack, name: &str, text: &str) -> PathBuf {
    let path = test.directory().join(name);
    std::fs::write(&path, text).expect("the test's directory takes files");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_imported_shown_and_taken_back() {
    let test = TestStack::start().await;
    let list = file(&test, "list.csv", LIST);
    let list = list.to_str().expect("UTF-8");
    let sent = ["import", list, "--source", "crm", "--mapping", "customer", "--json"];

    let dry = run_prospectus(&test, &[&sent[..], &["--dry-run"]].concat()).await;
    assert_eq!((dry.code, &dry.json()["dry_run"], &dry.json()["state"]), (0, &json!(true), &json!("done")), "{dry:?}");
    assert!(dry.json()["mapping_toml"].as_str().is_some_and(|mapping| mapping.contains("prospect.email")), "{dry:?}");

    let first = run_prospectus(&test, &sent).await;
    let document = first.json();
    assert_eq!((first.code, &document["state"]), (0, &json!("done")), "refused rows are no failure: {first:?}");
    let rows = &document["rows"];
    assert_eq!((&rows["read"], &rows["refused"]), (&json!(4), &json!(1)), "{document}");
    assert_eq!(document["companies"]["created"], 1, "{document}");
    assert_eq!(document["prospects"]["created"], 3, "{document}");

    let again = run_prospectus(&test, &sent).await.json();
    assert_eq!((&again["rows"]["created"], &again["rows"]["updated"]), (&json!(0), &json!(0)), "{again}");

    let id = document["id"].as_str().expect("an id");
    let shown = run_prospectus(&test, &["import", "--show", id]).await;
    assert!(shown.code == 0 && shown.stdout.contains("import --rows"), "{shown:?}");
    let listed = run_prospectus(&test, &["import", "--list", "--json"]).await.json();
    assert!(listed.as_array().is_some_and(|all| all.iter().any(|one| one["id"] == id)), "{listed}");
    let refused = run_prospectus(&test, &["import", "--rows", id, "--outcome", "refused", "--csv"]).await;
    assert_eq!(refused.code, 0, "{refused:?}");
    assert!(refused.stdout.contains("Bad,Mail,nobody") && !refused.stdout.contains("Lovelace"), "{refused:?}");

    let undone = run_prospectus(&test, &["import", "--undo", id, "--json"]).await;
    assert_eq!((undone.code, &undone.json()["state"]), (0, &json!("undone")), "{undone:?}");
    let report = run_prospectus(&test, &["integrity", "--json", "--wait", "60"]).await;
    assert_eq!(report.code, 0, "{report:?}");
    assert_eq!(report.json()["links"], json!({}), "no prospect is left: {report:?}");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_comes_from_standard_input_with_a_mapping_of_ones_own() {
    let test = TestStack::start().await;
    let mapping = "[columns]\n\"Mail\" = \"prospect.email\"\n\"Firma\" = \"company.name\"\n";
    let mapping = file(&test, "own.toml", mapping);
    let arguments = ["import", "-", "--source", "list", "--mapping", mapping.to_str().expect("UTF-8"), "--json"];
    let mut command = prospectus(&test, &arguments);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(b"Mail;Firma\nada@acme.co.uk;Acme\n").await.expect("written");
    drop(input);
    let output = child.wait_with_output().await.expect("it ends");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(output.status.success(), "{document}");
    assert_eq!(
        (&document["prospects"]["created"], &document["companies"]["created"]),
        (&json!(1), &json!(1)),
        "{document}"
    );
    let found = test.client().read("/v1/companies?domain=acme.co.uk", document["position"].as_i64()).await;
    assert_eq!(found.json["items"][0]["name"], "Acme", "{found:?}");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_as_a_whole_says_why() {
    let test = TestStack::start().await;
    let empty = file(&test, "empty.csv", "");
    let other = file(&test, "other.csv", "colour,size\nred,5\n");
    let list = file(&test, "list.csv", LIST);
    let as_text = |path: &PathBuf| path.to_str().expect("UTF-8").to_owned();
    let nowhere = test.directory().join("none.csv");
    let cases: Vec<(Vec<String>, &str)> = vec![
        (vec![as_text(&empty), "--source".into(), "crm".into()], ""),
        (vec![as_text(&other), "--source".into(), "crm".into(), "--mapping".into(), "customer".into()], "column"),
        (vec![as_text(&list)], "--source is missing"),
        (vec![as_text(&list), "--source".into(), "crm".into(), "--mapping".into(), "nothing".into()], "hubspot"),
        (vec![as_text(&list), "--source".into(), "crm".into(), "--mapping".into(), "none.toml".into()], "none.toml"),
        (vec![as_text(&nowhere), "--source".into(), "crm".into()], "cannot be opened"),
        (vec!["--show".into(), uuid::Uuid::nil().to_string()], "no such record"),
    ];
    for (arguments, said) in cases {
        let arguments: Vec<&str> = std::iter::once("import").chain(arguments.iter().map(String::as_str)).collect();
        let refused = run_prospectus(&test, &arguments).await;
        assert_eq!(refused.code, 1, "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains(said) && refused.stderr.len() > 30, "{arguments:?}: {refused:?}");
    }
    let nothing = test.client().command(Method::POST, "/v1/domains/explain", &json!({"input": "acme.co.uk"})).await;
    assert_eq!(nothing.status.as_u16(), 200, "the service is as well as before: {nothing:?}");
    test.finish().await;
}
