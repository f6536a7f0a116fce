//! Which company, which person, and which of two values: the rules of the issue, one by one.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tests::{Client, TestStack};

use super::{events_of_records, import, import_mapped, reasons, records, rows, tally};

const MAPPING: &str = r#"
updated_at = { column = "Updated", as = "date:YYYY-MM-DD" }
[columns]
"Email" = "prospect.email"
"Name" = "prospect.full_name"
"Title" = "prospect.job_title"
"Company" = "company.name"
"Country" = "company.country"
"Industry" = "company.industry"
"Website" = "company.website"
[ids]
company = "{Company ID}"
prospect = "{ID}"
"#;

async fn company(client: &Client, id: &Value, position: Option<i64>) -> Value {
    let answer = client.read(&format!("/v1/companies/{}", id.as_str().expect("an id")), position).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json
}

#[tokio::test(flavor = "multi_thread")]
async fn the_company_is_the_address_s_then_the_website_s_then_the_id_s_and_never_the_name_s() {
    let test = TestStack::start().await;
    let client = test.client();
    let list = "ID,Email,Name,Company,Website,Company ID\n\
        1,ada@sales.acme.co.uk,Ada King,Acme,https://other.example/about,\n\
        2,bob@gmail.com,Bob Ross,Acme,https://www.acme.co.uk/team,\n\
        3,,Carl Orff,Acme Ltd,,A-1\n\
        4,,Dora Maar,ACME,,\n\
        5,eve@github.io,Eve,,https://github.com/eve,\n\
        6,fred@gmial.com,Fred,,,\n\
        7,gina@co.uk,Gina,,,\n\
        8,,,Nobody GmbH,,\n";
    let document = import_mapped(&client, "source=crm", MAPPING, list.as_bytes()).await;
    assert_eq!(tally(&document), [8, 3, 0, 0, 4, 1], "{document}");
    let position = document["position"].as_i64();
    let outcomes = rows(&client, &document).await;
    let of = |row: usize| &outcomes[row - 1];
    assert_eq!(of(1)["company_id"], of(2)["company_id"], "a free-mail address leads nowhere, the website does");
    let acme = company(&client, &of(1)["company_id"], position).await;
    assert_eq!((&acme["domain"], &acme["name"]), (&json!("acme.co.uk"), &json!("Acme")));
    let by_id = company(&client, &of(3)["company_id"], position).await;
    assert_eq!((&by_id["domain"], &by_id["external_refs"][0]["id"]), (&Value::Null, &json!("A-1")));
    assert_ne!(of(3)["company_id"], of(1)["company_id"]);
    for (row, code) in [(4, ""), (5, "shared_host"), (6, "suspicious_domain"), (7, "public_suffix")] {
        assert_eq!((&of(row)["outcome"], &of(row)["company_id"]), (&json!("in_review"), &Value::Null), "{}", of(row));
        assert!(of(row)["reasons"].to_string().contains(code), "{}", of(row));
        let person = &of(row)["prospect_ids"][0];
        let person = client.read(&format!("/v1/prospects/{}", person.as_str().expect("a person")), position).await;
        assert_eq!(person.json["company_id"], Value::Null, "{person:?}");
    }
    assert_eq!((&of(8)["outcome"], &of(8)["reasons"][0]["code"]), (&json!("refused"), &json!("no_company_key")));
    let before = events_of_records(&test).await;
    let again = import_mapped(&client, "source=crm", MAPPING, list.as_bytes()).await;
    assert_eq!((tally(&again), events_of_records(&test).await), ([8, 0, 0, 3, 4, 1], before), "{again}");
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_the_one_of_its_id_or_of_its_address_at_its_company() {
    let test = TestStack::start().await;
    let client = test.client();
    let first = import(
        &client,
        "source=crm",
        "Email,Full Name,Website\nada@acme.example,Ada King,\nada@gmail.com,Ada King,\n,Bob Ross,beta.example\n",
    )
    .await;
    assert_eq!(records(&first, "prospects"), [3, 0, 0]);
    // Case and place make no other person; another company does. Who has no address is known by the name.
    let second = import(&client, "source=web", "Email,Full Name,Website,Job Title\nADA@ACME.example,Ada King,,Countess\nada@gmail.com,Ada King,https://acme.example,\n").await;
    assert_eq!(records(&second, "prospects"), [1, 1, 0], "{second}");
    let third = import(&client, "source=crm", "Email,Full Name,Website\n,bob ROSS,www.beta.example\n").await;
    assert_eq!(
        records(&third, "prospects"),
        [0, 1, 0],
        "the same person, whose name is written in another way: {third}"
    );
    // By its id it is the same person wherever it goes.
    let with_id = |list: &str| format!("ID,Email,Name,Title\n{list}\n");
    let made =
        import_mapped(&client, "source=erp", MAPPING, with_id("7,carl@acme.example,Carl Orff,Composer").as_bytes())
            .await;
    let moved =
        import_mapped(&client, "source=erp", MAPPING, with_id("7,carl@beta.example,Carl Orff,Composer").as_bytes())
            .await;
    assert_eq!((records(&made, "prospects"), records(&moved, "prospects")), ([1, 0, 0], [0, 1, 0]));
    let outcomes = rows(&client, &moved).await;
    let person = client
        .read(
            &format!("/v1/prospects/{}", outcomes[0]["prospect_ids"][0].as_str().expect("an id")),
            moved["position"].as_i64(),
        )
        .await;
    assert_eq!(
        (&person.json["company_id"], &person.json["email"]),
        (&outcomes[0]["company_id"], &json!("carl@beta.example"))
    );
    // One that was entered by hand is found, too; and one that was moved by hand is not made again.
    let by_hand = client
        .command(
            Method::POST,
            "/v1/prospects",
            &json!({"email": "dora@acme.example", "company_id": rows(&client, &made).await[0]["company_id"]}),
        )
        .await;
    let found = import(&client, "source=crm", "Email,Full Name\ndora@acme.example,Dora Maar\n").await;
    assert_eq!(rows(&client, &found).await[0]["prospect_ids"], json!([by_hand.id()]));
    let ada = &rows(&client, &first).await[0]["prospect_ids"][0];
    client
        .command(
            Method::POST,
            &format!("/v1/prospects/{}/assign", ada.as_str().expect("an id")),
            &json!({"company_id": null}),
        )
        .await;
    let again = import(&client, "source=crm", "Email,Full Name\nada@acme.example,Ada King\n").await;
    assert_eq!(&rows(&client, &again).await[0]["prospect_ids"][0], ada);
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_alone_is_a_person_and_what_tells_nobody_from_another_is_told() {
    let test = TestStack::start().await;
    let client = test.client();
    let mapping = "unmapped = \"attributes\"\n[columns]\nCompany = \"company.name\"\nWebsite = \"company.website\"\nTown = \"prospect.city\"\n\
                   Name = \"prospect.full_name\"\n[ids]\nprospect = \"{Id}\"\n";
    let list = "Id,Name,Company,Website,Town,Hobby\n7,,Acme,acme.example,Ulm,chess\n,,Acme,acme.example,Bonn,go\n";
    let document = import_mapped(&client, "source=crm", mapping, list.as_bytes()).await;
    assert_eq!((tally(&document), records(&document, "prospects")), ([2, 1, 0, 1, 0, 0], [1, 0, 0]), "{document}");
    let rows = rows(&client, &document).await;
    assert_eq!(reasons(&rows), BTreeMap::from([("person_left_out".to_owned(), 1)]), "{rows:?}");
    let position = document["position"].as_i64();
    let person =
        client.read(&format!("/v1/prospects/{}", rows[0]["prospect_ids"][0].as_str().expect("an id")), position).await;
    assert_eq!(
        (&person.json["city"], &person.json["attributes"]),
        (&json!("Ulm"), &json!({"Hobby": "chess"})),
        "{person:?}"
    );
    let company = company(&client, &rows[0]["company_id"], position).await;
    assert!(
        company["attributes"].as_object().is_none_or(serde_json::Map::is_empty),
        "a person's columns are not the company's: {company}"
    );
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_values_the_rule_decides_and_the_loser_is_told_with_row_and_value() {
    let test = TestStack::start().await;
    let client = test.client();
    let list = |domain: &str| {
        format!(
            "Company,Website,Industry,Updated\nAcme,{domain},Steel,2024-05-01\nAcme,{domain},Shoes,2024-04-01\nAcme,{domain},Ships,2024-06-01\n"
        )
    };
    for (rule, domain, industry, lost) in
        [("newest", "one.example", "Ships", ["Shoes", "Steel"]), ("keep", "two.example", "Steel", ["Shoes", "Ships"])]
    {
        let query = format!("source=crm&conflicts={rule}");
        let document = import_mapped(&client, &query, MAPPING, list(domain).as_bytes()).await;
        let outcomes = rows(&client, &document).await;
        let shown = company(&client, &outcomes[0]["company_id"], document["position"].as_i64()).await;
        assert_eq!(shown["industry"], industry, "{rule}");
        let told: Vec<&str> = [1, 2].map(|row| outcomes[row]["reasons"][0]["lost"].as_str().expect("a loser")).into();
        assert_eq!((told, reasons(&outcomes)["conflict"]), (lost.to_vec(), 2), "{rule}: {outcomes:?}");
        let before = events_of_records(&test).await;
        import_mapped(&client, &query, MAPPING, list(domain).as_bytes()).await;
        assert_eq!(events_of_records(&test).await, before, "{rule}: the same file again");
    }
    // A source's rank: the better one wins whenever it comes, and people before all.
    let line = |industry: &str| format!("Company,Website,Industry\nAcme,three.example,{industry}\n");
    let send = async |source: &str, industry: &str| {
        let query = format!("source={source}&conflicts=source_rank&rank=crm,web");
        let document = import_mapped(&client, &query, MAPPING, line(industry).as_bytes()).await;
        let id = rows(&client, &document).await[0]["company_id"].clone();
        let position = document["position"].as_i64().filter(|position| *position > 0);
        (company(&client, &id, position).await["industry"].clone(), id)
    };
    assert_eq!(send("web", "Steel").await.0, "Steel");
    assert_eq!(send("crm", "Ships").await.0, "Ships");
    let (industry, id) = send("web", "Shoes").await;
    assert_eq!(industry, "Ships");
    let path = format!("/v1/companies/{}", id.as_str().expect("an id"));
    let edited = client.command(Method::PATCH, &path, &json!({"industry": "Sails"})).await;
    client.read(&path, Some(edited.position())).await;
    assert_eq!(send("crm", "Soap").await.0, "Sails");
    // Every value stands in the history.
    let primary = test.superuser(local_stack::Part::Primary).await;
    let row = primary.query_one("SELECT string_agg(payload::text, '') FROM log.events", &[]).await.expect("the log");
    let log: String = row.get(0);
    assert!(["Steel", "Shoes", "Ships", "Sails", "Soap"].iter().all(|value| log.contains(value)), "a loser is lost");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_company_that_was_merged_takes_its_primary_s_rows() {
    let test = TestStack::start().await;
    let client = test.client();
    let list = "Email,Full Name\nada@old.example,Ada King\n";
    let first = import(&client, "source=crm", list).await;
    let secondary = rows(&client, &first).await[0]["company_id"].as_str().expect("an id").to_owned();
    let primary =
        client.command(Method::POST, "/v1/companies", &json!({"name": "New", "domain": "new.example"})).await.id();
    let merged =
        client.command(Method::POST, &format!("/v1/companies/{secondary}/merge"), &json!({"into": primary})).await;
    assert_eq!(merged.status, StatusCode::OK, "{merged:?}");
    let before = events_of_records(&test).await;
    let again = import(&client, "source=crm", list).await;
    assert_eq!((tally(&again), events_of_records(&test).await), ([1, 0, 0, 1, 0, 0], before), "{again}");
    assert_eq!(rows(&client, &again).await[0]["company_id"], json!(primary));
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}
