//! What the rows of a company and of a prospect show, written out: each field in its own column.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::support::{Opened, go_on};

/// The row as JSON, without columns that hold null, ids of the test, places in the log and times.
async fn shown(opened: &Opened, table: &str, condition: &str) -> Value {
    let sql = format!("SELECT to_jsonb(t) FROM {table} AS t WHERE {condition}");
    let row: Value = opened.client.query_one(&sql, &[]).await.expect("one row").get(0);
    let Value::Object(cells) = row else { panic!("a row is an object") };
    let varies = |name: &str| name == "position" || name.ends_with("_at") || name.ends_with("_id");
    let cells: Map<String, Value> = cells.into_iter().filter(|(name, cell)| !cell.is_null() && !varies(name)).collect();
    Value::Object(cells)
}

fn company() -> Value {
    json!({
        "name": "ACME Corp", "legal_name": "Acme Corporation", "company_type": "private", "industry": "Rockets",
        "founding_date": "1949-09", "short_description": "Short", "long_description": "Long", "employee_count": 11,
        "min_employee_size": 10, "max_employee_size": 50, "employee_size_link": "https://size.example.com/",
        "revenue": 1_000_000, "revenue_currency": "EUR", "address": "1 Desert Road", "city": "Tucson",
        "state": "Arizona", "country": "US", "zip_code": "85701", "phone": "+15205550123",
        "mobile_phone": "+15205550124", "email_address": "Info@acme.com", "logo_url": "https://acme.com/logo.png",
        "domain": "acme.com", "additional_domains": ["acme.de", "acme.fr"],
        "external_refs": [{"source": "crm", "id": "1"}], "attributes": {"tier": "gold"},
    })
}

fn prospect(company: Uuid) -> Value {
    json!({
        "company_id": company, "country": "FR", "job_title": "Head of Road Runners", "job_title_level": "head",
        "department": "Research", "salutation": "Mr", "first_name": "Wile", "last_name": "Coyote",
        "email": "Wile@acme.com", "phone": "+33123456789", "mobile_phone": "call 4 me", "address": "2 Cliff",
        "city": "Lyon", "state": "Rhône", "zip_code": "69001", "job_title_link": "https://acme.com/wile",
        "external_refs": [{"source": "crm", "id": "2"}], "attributes": {"fast": false},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_stands_in_its_column() {
    let opened = Opened::new().await;
    let mut fields = company();
    fields["social_media"] = json!([{"platform": "X", "url": "https://x.com/acme"}]);
    let company_id = opened.company(fields).await;
    go_on(&opened).await;
    let mut expected = company();
    for (name, value) in
        [("name_sort", json!("acme corp")), ("name_key", json!("acme")), ("version", json!(1)), ("flags", json!([]))]
    {
        expected[name] = value;
    }
    let mut seen = shown(&opened, "read.companies", "true").await;
    let social_media = seen.as_object_mut().and_then(|cells| cells.remove("social_media")).expect("a list");
    assert_eq!(seen, expected);
    let pages = social_media.as_array().expect("a list");
    assert_eq!((pages.len(), &pages[0]["platform"], &pages[0]["url"]), (1, &json!("X"), &json!("https://x.com/acme")));

    // What every row of the company shows of it.
    let of_company = json!({
        "domain": "acme.com", "company_name": "ACME Corp", "company_name_sort": "acme corp", "industry": "Rockets",
        "employee_count": 11, "min_employee_size": 10, "max_employee_size": 50, "revenue": 1_000_000,
        "company_address": "1 Desert Road", "company_city": "Tucson", "company_state": "Arizona",
        "company_country": "US", "company_zip_code": "85701", "company_phone": "+15205550123",
        "company_mobile_phone": "+15205550124", "company_version": 1,
    });
    let mut expected = of_company.clone();
    for (name, value) in [("external_refs", json!([])), ("attributes", json!({})), ("flags", json!([]))] {
        expected[format!("prospect_{name}")] = value;
    }
    assert_eq!(shown(&opened, "read.company_prospect", "prospect_id IS NULL").await, expected);

    let prospect_id = opened.prospect(prospect(company_id)).await;
    go_on(&opened).await;
    let mut expected = of_company;
    let own = json!({
        "prospect_country": "FR", "job_title": "Head of Road Runners", "job_title_level": "head",
        "department": "Research", "salutation": "Mr", "first_name": "Wile", "last_name": "Coyote",
        "prospect_name_sort": "coyote wile", "email": "Wile@acme.com", "email_key": "wile@acme.com",
        "prospect_phone": "+33123456789", "prospect_mobile_phone": "call 4 me", "prospect_address": "2 Cliff", "prospect_city": "Lyon",
        "prospect_state": "Rhône", "prospect_zip_code": "69001", "job_title_link": "https://acme.com/wile",
        "prospect_external_refs": [{"source": "crm", "id": "2"}], "prospect_attributes": {"fast": false},
        "prospect_flags": ["mobile_phone_not_e164"], "prospect_version": 1, "prospect_position": 2,
    });
    expected.as_object_mut().expect("an object").extend(own.as_object().expect("an object").clone());
    let by_id = format!("row_id = '{prospect_id}' AND prospect_id = row_id AND company_id = '{company_id}'");
    assert_eq!(shown(&opened, "read.company_prospect", &by_id).await, expected);
    assert_eq!(opened.number("SELECT count(*) FROM read.company_prospect").await, 1, "the company's own row is gone");
    opened.assert_projected().await;
}

/// A value that the write side takes and a table refuses would stop the projection for ever.
#[tokio::test(flavor = "multi_thread")]
async fn the_longest_values_fit() {
    let opened = Opened::new().await;
    // In lower case this letter is longer.
    let longest = |field: &domain::Field| match (field.schema.json_type, field.schema.format) {
        (domain::JsonType::String, None) => Some(json!("İ𐐀".repeat(field.schema.max_length? / 2))),
        (domain::JsonType::Integer, _) => Some(json!(field.schema.maximum?)),
        (domain::JsonType::String, Some("uri")) => {
            let start = "https://example.com/";
            Some(json!(format!("{start}{}", "x".repeat(field.schema.max_length? - start.len()))))
        }
        _ => None,
    };
    let fields = |all: &mut dyn Iterator<Item = &'static domain::Field>| -> Value {
        let longest = all.filter_map(|field| Some((field.name.to_owned(), longest(field)?)));
        Value::Object(longest.collect())
    };
    let company_id = opened.company(fields(&mut domain::company::fields())).await;
    let mut prospect = fields(&mut domain::prospect::fields());
    prospect["company_id"] = json!(company_id);
    opened.prospect(prospect).await;
    go_on(&opened).await;
    opened.assert_projected().await;
}
