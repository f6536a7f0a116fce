//! Attributes and external references, through the commands that carry them.

use domain::FieldErrors;
use domain::company::{CompanyCommand, RegisterCompany};
use domain::{Company, CompanyError, CompanyEvent, Record};
use serde_json::{Map, Value, json};

use crate::{codes, context};

fn registered(mut body: Value) -> Result<Value, Vec<String>> {
    body["name"] = json!("Acme");
    let refused = |errors: FieldErrors| codes(&errors);
    let command = CompanyCommand::Register(RegisterCompany::parse(body).map_err(refused)?);
    match Company::default().decide(command, &context()) {
        Ok(events) => match &events[..] {
            [CompanyEvent::CompanyRegistered(registered)] => Ok(serde_json::to_value(registered).unwrap()),
            other => panic!("{other:?}"),
        },
        Err(CompanyError::Fields(errors)) => Err(refused(errors)),
        Err(error) => panic!("{error}"),
    }
}

fn many(count: usize, value: &Value) -> Value {
    let entries: Map<String, Value> = (0..count).map(|n| (format!("key{n}"), value.clone())).collect();
    Value::Object(entries)
}

#[test]
fn attributes_hold_plain_values_only() {
    let attributes = json!({"b": 1, "a": " x\ty ", "c": true, "d": null, "e": 0.1, "f": -0.0, "g": "", "h": "\"\\"});
    let found = registered(json!({"attributes": attributes})).unwrap();
    let expected = r#"{"a":"x y","b":1,"c":true,"e":0.1,"f":0,"g":"","h":"\"\\"}"#;
    assert_eq!(found["attributes"].to_string(), expected);

    let attributes = json!({"list": [1], "object": {}, "bell": "\u{7}", "": 1, "a/b": [], "x": 1, " x ": 2});
    assert_eq!(
        registered(json!({"attributes": attributes})).unwrap_err(),
        [
            "/attributes/ empty",
            "/attributes/a~1b wrong_type",
            "/attributes/bell control_character",
            "/attributes/list wrong_type",
            "/attributes/object wrong_type",
            "/attributes/x duplicate",
        ]
    );
    for wrong in [json!([]), json!("x"), json!(1)] {
        assert_eq!(registered(json!({"attributes": wrong})).unwrap_err(), ["/attributes wrong_type"]);
    }
}

/// As PostgreSQL gives them back, which writes no exponents.
#[test]
fn a_whole_number_is_an_integer_where_it_fits() {
    for (sent, kept) in [
        ("1e18", "1000000000000000000"),
        ("-1.2e17", "-120000000000000000"),
        ("18446744073709551615", "18446744073709551615"),
        ("1e19", "10000000000000000000"),
        ("2e19", "2e+19"),
        ("-1e19", "-1e+19"),
        ("1e300", "1e+300"),
        ("2.0", "2"),
        ("2.5", "2.5"),
        ("1e-9", "1e-9"),
    ] {
        let number: serde_json::Value = sent.parse().unwrap();
        let found = registered(json!({"attributes": {"n": number}})).unwrap();
        assert_eq!(found["attributes"]["n"].to_string(), kept, "{sent}");
    }
}

#[test]
fn attributes_are_bounded() {
    assert!(registered(json!({"attributes": many(64, &json!(1))})).is_ok());
    assert_eq!(registered(json!({"attributes": many(65, &json!(1))})).unwrap_err(), ["/attributes too_many"]);
    assert_eq!(registered(json!({"attributes": many(100_000, &json!(1))})).unwrap_err(), ["/attributes too_many"]);
    let long_key = Map::from_iter([("k".repeat(101), json!(1))]);
    let at = format!("/attributes/{} too_long", "k".repeat(100));
    assert_eq!(registered(json!({"attributes": long_key})).unwrap_err(), [at]);

    // {"a":"…"} is the text and 8 bytes.
    let of_size = |bytes: usize| json!({"attributes": {"a": "x".repeat(bytes - 8)}});
    assert!(registered(of_size(16 * 1024)).is_ok());
    assert_eq!(registered(of_size(16 * 1024 + 1)).unwrap_err(), ["/attributes too_large"]);
    // A quote takes two bytes in JSON.
    assert_eq!(registered(json!({"attributes": {"a": "\"".repeat(8200)}})).unwrap_err(), ["/attributes too_large"]);
}

#[test]
fn external_references_need_source_and_id() {
    let refs = json!([{"source": "crm", "id": "42"}, {"id": " 42 ", "source": "crm"}, {"source": "a", "id": "b"}]);
    let found = registered(json!({"external_refs": refs})).unwrap();
    assert_eq!(found["external_refs"], json!([{"source": "a", "id": "b"}, {"source": "crm", "id": "42"}]));

    let refs = json!([{"source": "crm"}, {"source": "", "id": 5}, "x", {"source": "a", "id": "b", "colour": "red"}]);
    assert_eq!(
        registered(json!({"external_refs": refs})).unwrap_err(),
        [
            "/external_refs/0 required",
            "/external_refs/1/id wrong_type",
            "/external_refs/1/source empty",
            "/external_refs/2 wrong_type",
            "/external_refs/3/colour unknown_field",
        ]
    );
    let too_many: Vec<Value> = (0..101).map(|n| json!({"source": "crm", "id": n.to_string()})).collect();
    assert_eq!(registered(json!({"external_refs": too_many})).unwrap_err(), ["/external_refs too_many"]);
    assert_eq!(registered(json!({"external_refs": {}})).unwrap_err(), ["/external_refs wrong_type"]);
}

#[test]
fn the_host_goes_to_the_attributes_if_there_is_room() {
    let found = registered(json!({"domain": "https://sales.acme.com/x"})).unwrap();
    assert_eq!(
        (&found["domain"], &found["attributes"]),
        (&json!("acme.com"), &json!({"domain_host": "sales.acme.com"}))
    );

    let found = registered(json!({"domain": "www.acme.com"})).unwrap();
    assert_eq!(found["attributes"], Value::Null);

    let given = json!({"domain": "sales.acme.com", "attributes": {"domain_host": "mine"}});
    assert_eq!(registered(given).unwrap()["attributes"], json!({"domain_host": "mine"}));

    let full = registered(json!({"domain": "sales.acme.com", "attributes": many(64, &json!(1))})).unwrap();
    assert_eq!(full["attributes"].get("domain_host"), None);
}
