//! The forms in which lists come, and how an import is asked for.

use std::io::Write as _;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tests::TestStack;

use super::{events_of_records, get, import, import_mapped, records, rows, send, tally};

const LIST: &str = "Email;Full Name;Company;City\nada@müller.example;\"King; Ada\";\"Müller\nSöhne\";Köln\n";

#[tokio::test(flavor = "multi_thread")]
async fn one_list_in_many_forms_is_one_list() {
    let test = TestStack::start().await;
    let client = test.client();
    let gzip = |bytes: &[u8]| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(bytes).expect("it packs");
        packed.finish().expect("it packs")
    };
    let utf_16: Vec<u8> = std::iter::once(0xfeff).chain(LIST.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let latin: Vec<u8> = LIST.chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect();
    let ndjson =
        json!({"Email": "ada@müller.example", "Full Name": "King; Ada", "Company": "Müller\nSöhne", "City": "Köln"})
            .to_string();
    let forms: [(&str, Vec<u8>); 7] = [
        ("", LIST.into()),
        ("", format!("\u{feff}{}", LIST.replace('\n', "\r\n")).into()),
        ("&charset=iso-8859-1", latin),
        ("", utf_16),
        ("", gzip(LIST.as_bytes())),
        ("&delimiter=;&format=csv", LIST.into()),
        ("&format=ndjson", (ndjson + "\n").into()),
    ];
    for (place, (query, bytes)) in forms.into_iter().enumerate() {
        let document = import(&client, &format!("source=crm{query}"), bytes).await;
        let expected = if place == 0 { [1, 1, 0, 0, 0, 0] } else { [1, 0, 0, 1, 0, 0] };
        assert_eq!(tally(&document), expected, "form {place}: {document}");
    }
    let companies = client.read("/v1/companies", Some(2)).await;
    let company = &companies.json["items"][0];
    assert_eq!(
        (&company["domain"], &company["name"]),
        (&json!("xn--mller-kva.example"), &json!("Müller Söhne")),
        "{company}"
    );
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_answers_at_once_or_waits_and_says_where_to_look() {
    let test = TestStack::start().await;
    let client = test.client();
    let list = "Email,Company\na@acme.example,Acme\nb@gmail.com,\nnonsense,Acme\n";
    let answer = send(&client, "source=crm", &[("prefer", "wait=0")], list).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let location = answer.headers["location"].to_str().expect("text").to_owned();
    assert_eq!(location, format!("/v1/imports/{}", answer.id()));
    let document = super::finished(&client, &answer).await;
    assert_eq!((document["state"].as_str(), tally(&document)), (Some("done"), [3, 1, 0, 0, 1, 1]), "{document}");
    assert_eq!((records(&document, "companies"), records(&document, "prospects")), ([1, 0, 0], [2, 0, 0]));
    assert_eq!((&document["source"], &document["dry_run"]), (&json!("crm"), &json!(false)));
    // The mapping that was guessed can be saved and corrected.
    let guessed = document["mapping_toml"].as_str().expect("a mapping");
    let again = import_mapped(&client, "source=crm", guessed, list.as_bytes()).await;
    assert_eq!(tally(&again), [3, 0, 0, 1, 1, 1], "{again}");

    let outcomes = rows(&client, &document).await;
    let told: Vec<_> =
        outcomes.iter().map(|row| (row["row"].as_u64(), row["line"].as_u64(), row["outcome"].as_str())).collect();
    assert_eq!(
        told,
        [
            (Some(1), Some(2), Some("created")),
            (Some(2), Some(3), Some("in_review")),
            (Some(3), Some(4), Some("refused"))
        ]
    );
    assert_eq!(outcomes[2]["text"], "nonsense,Acme");
    assert_eq!(outcomes[2]["reasons"][0]["column"], "Email", "{}", outcomes[2]);
    assert_eq!(outcomes[1]["reasons"][0]["code"], "free_mail");
    // The refused ones as a list that can be corrected and sent alone.
    let path = format!("{location}/rows?outcome=refused");
    let csv = client.try_command(Method::GET, &path, &[("accept", "text/csv")], "").await.expect("an answer");
    let text = String::from_utf8(csv.bytes.to_vec()).expect("text");
    let [header, row] = text.lines().collect::<Vec<_>>()[..] else { panic!("two lines: {text}") };
    assert!(header.ends_with("\"Email\",\"Company\"") && row.ends_with(",nonsense,Acme"), "{text}");
    let corrected = import(&client, "source=crm", text.replace("nonsense", "c@acme.example")).await;
    assert_eq!(tally(&corrected), [1, 1, 0, 0, 0, 0], "{corrected}");
    let listed = get(&client, "/v1/imports").await;
    assert_eq!(listed.json["items"].as_array().map(Vec::len), Some(3), "{listed:?}");
    assert_eq!(get(&client, &format!("{location}/rows?outcome=lost")).await.status, StatusCode::BAD_REQUEST);
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_become_of_the_rows_and_writes_nothing() {
    let test = TestStack::start().await;
    let client = test.client();
    let list = "Email,Full Name,Company,City\na@acme.example,Ada King,Acme,Ulm\nb@acme.example,Bob Ross,ACME Inc,Bonn\na@acme.example,Ada King,Acme,Ulm\nx@gmail.com,Eve,Acme,\nbad,,,\n";
    let dry = import(&client, "source=crm&dry_run=true", list).await;
    assert_eq!((&dry["dry_run"], &dry["state"], &dry["position"]), (&json!(true), &json!("done"), &json!(0)), "{dry}");
    assert_eq!(events_of_records(&test).await, 0);
    let real = import(&client, "source=crm", list).await;
    for part in ["rows", "companies", "prospects"] {
        assert_eq!(dry[part], real[part], "{part}: the dry run counts what the real one does");
    }
    let again = import(&client, "source=crm&dry_run=true", list).await;
    assert_eq!(records(&again, "prospects"), [0, 0, 3], "{again}");
    // The same on a state that is full: a person moved on, a company has another value, somebody is new.
    let id = rows(&client, &real).await[1]["prospect_ids"][0].as_str().expect("an id").to_owned();
    let moved =
        client.command(Method::PATCH, &format!("/v1/prospects/{id}"), &json!({"email": "bob@acme.example"})).await;
    assert_eq!(moved.status, StatusCode::OK, "{moved:?}");
    let later = "Email,Full Name,Company,City\nb@acme.example,Robert Ross,ACME,Bonn\nc@acme.example,Cleo,Acme,Ulm\nc@ACME.example,Cleo,Acme,Ulm\n";
    let dry_later = import(&client, "source=crm&dry_run=true", later).await;
    let real_later = import(&client, "source=crm", later).await;
    for part in ["rows", "companies", "prospects"] {
        assert_eq!(dry_later[part], real_later[part], "{part}: the dry run counts what the real one does");
    }
    assert_eq!(
        records(&real_later, "prospects"),
        [1, 1, 0],
        "the one who has another address now is known by the old one"
    );
    let undo = client
        .command(Method::POST, &format!("/v1/imports/{}/undo", dry["id"].as_str().expect("an id")), &json!({}))
        .await;
    assert_eq!(undo.status, StatusCode::CONFLICT, "{undo:?}");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_are_corrected_in_the_report_and_sent_alone() {
    let test = TestStack::start().await;
    let client = test.client();
    let list = "Email;Full Name;Notes\na@acme.example;Ada King;\"likes; semicolons\"\nbad;Bob Ross;late\n";
    let report = async |import: &Value| {
        let path = format!("/v1/imports/{}/rows?outcome=refused,created", import["id"].as_str().expect("an id"));
        let answer = client.try_command(Method::GET, &path, &[("accept", "text/csv")], "").await.expect("an answer");
        String::from_utf8(answer.bytes.to_vec()).expect("UTF-8")
    };
    let first = import(&client, "source=crm&unmapped=attributes", list).await;
    assert_eq!(tally(&first), [2, 1, 0, 0, 0, 1]);
    let refused = report(&first).await;
    assert_eq!(
        refused.lines().next(),
        Some("import_row;import_line;import_outcome;import_reasons;\"Email\";\"Full Name\";\"Notes\"")
    );
    let corrected = refused.replace(";bad;", ";bob@acme.example;");
    let second = import(&client, "source=crm&unmapped=attributes", corrected.as_str()).await;
    assert_eq!(tally(&second), [2, 1, 0, 1, 0, 0], "{corrected}");
    let bob = client.read("/v1/prospects?email=bob@acme.example", second["position"].as_i64()).await;
    assert_eq!(
        bob.json["items"][0]["attributes"],
        json!({"Notes": "late"}),
        "the report's own columns say nothing: {bob:?}"
    );
    // A report of that import has these columns twice.
    let third = import(&client, "source=crm&unmapped=attributes", report(&second).await).await;
    assert_eq!(tally(&third), [1, 0, 0, 1, 0, 0]);
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_idempotency_key_is_the_same_import_and_other_tenants_see_nothing_of_it() {
    let test = TestStack::start().await;
    let client = test.client();
    let key = [("idempotency-key", "monday")];
    let first = send(&client, "source=crm", &key, "Email\na@acme.example\n").await;
    let second = send(&client, "source=crm", &key, "Email\na@acme.example\n").await;
    assert_eq!((first.id(), second.status), (second.id(), StatusCode::OK), "{second:?}");
    let other = send(&client, "source=web", &key, "Email\na@acme.example\n").await;
    assert_eq!(
        (other.status, &other.json["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("idempotency_key_reused")),
        "{other:?}"
    );

    let path = format!("/v1/imports/{}", first.id());
    let stranger = test.client_with(&test.tenant_key("other", "admin").await);
    for path in [path.clone(), format!("{path}/rows"), format!("{path}/left")] {
        assert_eq!(get(&stranger, &path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(stranger.command(Method::POST, &format!("{path}/undo"), &json!({})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(get(&stranger, "/v1/imports").await.json["items"], json!([]));
    let missing: Value = get(&client, "/v1/imports/018f3c4e-7d2a-7b1c-9f00-0123456789ab").await.json;
    assert_eq!(missing["code"], "not_found");
    test.finish().await;
}
