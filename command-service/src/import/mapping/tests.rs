//! Mapping files, what they make of rows, and what is guessed.

use serde_json::json;

use super::super::builtin::NAMES;
use super::super::form::Declared;
use super::super::intake::{Chunk, Intake};
use super::super::mapped::{Mapped, Reason};
use super::super::place::Side;
use super::super::rows::rows;
use super::*;

fn read(list: &[u8]) -> (Form, Vec<Chunk>) {
    let mut intake = Intake::new(Declared::default());
    let mut chunks = Vec::new();
    intake.push(list, &mut chunks).expect("a list");
    let taken = intake.finish(&mut chunks).expect("a list");
    (taken.form, chunks)
}

fn map(mapping: &Mapping, list: &str) -> Vec<Result<Mapped, Vec<Reason>>> {
    let (form, chunks) = read(list.as_bytes());
    let bound = mapping.bind(&form).expect("bound");
    let all = chunks.iter().flat_map(|chunk| rows(&form, chunk));
    all.map(|row| bound.map("list", &row.cells.expect("cells"))).collect()
}

fn mapped(toml: &str, list: &str) -> Mapped {
    map(&Mapping::parse(toml).expect("a mapping"), list).remove(0).unwrap_or_else(|reasons| panic!("{reasons:?}"))
}

fn guessed(list: &str) -> Mapping {
    let (form, chunks) = read(list.as_bytes());
    Mapping::guess(&form, chunks.iter().flat_map(|chunk| rows(&form, chunk)))
}

#[test]
fn every_target_and_conversion_reaches_its_member() {
    let row = mapped(
        r#"
        unmapped = "attributes"
        updated_at = { column = "Changed", as = "date:DD.MM.YYYY" }
        [columns]
        "name" = "prospect.full_name"
        "Mail" = "prospect.email"
        "Firm" = ["company.name", "company.attributes.firm"]
        "Site" = "company.website"
        "Host" = "company.domain"
        "Size" = "company.employee_range"
        "Staff" = "company.employee_count"
        "Revenue" = { to = "company.revenue", as = "number_with_comma" }
        "Founded" = { to = "company.founding_date", as = "date:MM/DD/YYYY" }
        "Page" = "company.social_media.LinkedIn"
        "Tags" = { to = "company.attributes.tags", as = "first_of:;" }
        "Blank" = "prospect.city"
        "City" = "prospect.city"
        [constants]
        "prospect.country" = "DE"
        "company.min_employee_size" = 5
        "company.employee_count" = "9"
        [ids]
        company = "c-{Firm Id}"
        company_source = "{Source}"
        prospect = "{No|Id}"
        "#,
        "NAME,Mail,Firm,Site,Host,Size,Staff,Revenue,Founded,Page,Tags,Blank,City,Firm Id,Source,Id,Changed,Extra\n\
         Ada King Lovelace,ada@acme.test,Acme,https://acme.test,acme.test,11-50,\"1,234.0\",\"1.234,00\",12/31/2024,https://l.test/a,\
         x;y, ,Bonn,7,crm,42,02.01.1970 00:00:01,more\n",
    );
    assert_eq!(
        serde_json::Value::from(row.company),
        json!({
            "name": "Acme", "min_employee_size": 11, "max_employee_size": 50, "employee_count": 1234, "revenue": 1234,
            "founding_date": "2024-12-31", "social_media": [{"platform": "LinkedIn", "url": "https://l.test/a"}],
            "attributes": {"firm": "Acme", "tags": "x"}, "external_refs": [{"source": "crm", "id": "c-7"}],
        })
    );
    assert_eq!((row.domain.as_deref(), row.website.as_deref()), (Some("acme.test"), Some("https://acme.test")));
    assert_eq!(
        json!(row.prospects),
        json!([{
            "first_name": "Ada King", "last_name": "Lovelace", "email": "ada@acme.test", "city": "Bonn", "country": "DE",
            "attributes": {"Extra": "more"}, "external_refs": [{"source": "list", "id": "42"}],
        }])
    );
    assert_eq!(row.updated_at, Some(86_401_000_000));
    assert_eq!(row.dropped, []);
}

#[test]
fn what_cannot_be_converted_refuses_the_row_unless_its_column_is_lenient() {
    let toml = |lenient: bool| {
        format!(
            "[columns]\nname = \"company.name\"\nstaff = {{ to = \"company.employee_count\", lenient = {lenient} }}\n\
             size = {{ to = \"company.employee_range\", lenient = {lenient} }}"
        )
    };
    let list = "Name,Staff,Size\nAcme,secret,large\n";
    let refused = map(&Mapping::parse(&toml(false)).expect("a mapping"), list).remove(0).err().expect("refused");
    let found: Vec<_> = refused.iter().map(|reason| (reason.column.as_deref(), reason.code)).collect();
    assert_eq!(found, [(Some("Staff"), "not_a_number"), (Some("Size"), "not_a_range")]);
    assert!(!format!("{refused:?}").contains("secret"), "no value in a reason");
    let kept = mapped(&toml(true), list);
    assert_eq!((json!(kept.company), kept.dropped), (json!({"name": "Acme"}), refused));
    let empty = map(&Mapping::parse(&toml(true)).expect("a mapping"), "x,name\ny,\n").remove(0).err().expect("refused");
    assert_eq!(empty[0].code, "empty_row");
}

#[test]
fn several_people_in_a_row_are_several_prospects() {
    let toml = r#"
        [columns]
        "firm" = "company.name"
        "people" = { to = "prospect.full_name", each = "python_list" }
        "mails" = { to = "prospect.email", each = ";" }
        [constants]
        "prospect.job_title_level" = "founder"
        [ids]
        prospect = "{id}/{n}"
    "#;
    let list = "id,firm,people,mails\n1,Acme,\"['Ada L', \"\"Jo O'Brien\"\"]\",a@x.test; j@x.test;c@x.test\n2,B,[],\n";
    let all = map(&Mapping::parse(toml).expect("a mapping"), list);
    assert_eq!(
        json!(all[0].as_ref().expect("mapped").prospects),
        json!([
            {"first_name": "Ada", "last_name": "L", "email": "a@x.test", "job_title_level": "founder", "external_refs": [{"source": "list", "id": "1/1"}]},
            {"first_name": "Jo", "last_name": "O'Brien", "email": "j@x.test", "job_title_level": "founder", "external_refs": [{"source": "list", "id": "1/2"}]},
            {"email": "c@x.test", "job_title_level": "founder", "external_refs": [{"source": "list", "id": "1/3"}]},
        ])
    );
    assert!(all[1].as_ref().expect("mapped").prospects.is_empty());
    let many =
        map(&Mapping::parse(toml).expect("a mapping"), &format!("id,firm,mails\n1,Acme,{}\n", "a@x.test;".repeat(101)));
    assert_eq!(many[0].as_ref().err().expect("refused")[0].code, "too_many_people");
    let wrong = Mapping::parse(&toml.replace("/{n}", "")).expect("a mapping");
    let (form, _) = read(list.as_bytes());
    assert!(matches!(wrong.bind(&form), Err(MappingError::NotDistinct(_))));
}

#[test]
fn ndjson_is_mapped_by_its_keys() {
    let toml = r#"
        unmapped = "attributes"
        [columns]
        "company.name" = "company.name"
        "company.size" = "company.employee_count"
        "people" = { to = "prospect.last_name", each = ";" }
        [ids]
        company = "{company.id}"
    "#;
    let list =
        r#"{"company":{"name":"Acme","size":12,"id":7},"people":["Ada","Jo"],"vip":true,"tags":["a","b"],"none":null}"#;
    let row = mapped(toml, list);
    let expected = json!({"name": "Acme", "employee_count": 12, "external_refs": [{"source": "list", "id": "7"}],
        "attributes": {"vip": true, "tags": "a, b"}});
    assert_eq!(serde_json::Value::from(row.company), expected);
    assert_eq!(json!(row.prospects), json!([{"last_name": "Ada"}, {"last_name": "Jo"}]));
}

#[test]
fn a_wrong_file_says_what_is_known() {
    for (toml, says) in [
        ("[columns", "TOML"),
        ("[column]\na = \"company.name\"", "columns"),
        ("[columns]\na = \"company.nmae\"", "company.name"),
        ("[columns]\na = \"prospect.company_id\"", "prospect.email"),
        ("[columns]\na = \"name\"", "company.employee_range"),
        ("[columns]\na = { to = \"company.name\", as = \"magic\" }", "number_with_comma"),
        ("[columns]\na = { to = \"company.name\", form = \"magic\" }", "column \"a\""),
        ("[columns]\na = { to = \"company.name\", each = \";\" }", "prospects"),
        ("[columns]\na = { to = \"prospect.email\", each = \"long\" }", "python_list"),
        ("[columns]\na = \"company.name\"\n\"A \" = \"company.city\"", "twice"),
        ("[columns]\na = \"company.name\"\n[ids]\ncompany = \"x\"", "braces"),
        ("[columns]\na = \"company.name\"\n[constants]\n\"company.x\" = \"x\"", "company.country"),
        ("unmapped = \"all\"\n[columns]\na = \"company.name\"", "attributes"),
        ("[constants]\n\"company.name\" = \"x\"", "no field"),
    ] {
        let error = Mapping::parse(toml).expect_err(toml).to_string();
        assert!(error.contains(says) || says == "TOML", "{toml}: {error}");
    }
    assert_eq!(Mapping::parse(&" ".repeat(BYTES_MAX + 1)), Err(MappingError::TooLarge));
    let many = format!("[columns]\na = [{}]", "\"company.name\",".repeat(COLUMNS_MAX + 1));
    assert_eq!(Mapping::parse(&many), Err(MappingError::TooLarge));
    let (form, _) = read(b"x,y\n1,2\n");
    let error = Mapping::builtin("customer").expect("built in").bind(&form).expect_err("no column").to_string();
    assert!(error.contains("\"x\", \"y\"") && error.contains("\"firstName\""), "{error}");
}

#[test]
fn built_in_and_guessed_mappings_come_back_from_their_file() {
    let mut all: Vec<Mapping> = NAMES.iter().map(|name| Mapping::builtin(name).expect("built in")).collect();
    all.push(guessed("Id,Name,E-Mail,Gründung,updated_at\n1,Ada,a@b.test,1999,2024-01-01\n"));
    let rich = r#"
        unmapped = "attributes"
        [columns]
        "Quote \" and \\ ü" = [{ to = "prospect.full_name", each = "; ", lenient = true }, "prospect.attributes.a b.c"]
        "z" = { to = "company.attributes.x", as = "constant:y \"z\"" }
        "a" = "company.social_media.X"
        [constants]
        "company.country" = "DE"
        [ids]
        company = "{a|z}-{z}"
        prospect = "{z}/{n}"
        company_source = "fixed"
        "#;
    all.push(Mapping::parse(rich).expect("a mapping"));
    for mapping in all {
        let text = mapping.to_toml();
        assert_eq!(Mapping::parse(&text).as_ref(), Ok(&mapping), "{text}");
    }
    assert!(Mapping::builtin("unknown").is_none());
}

#[test]
fn the_customer_mapping_reads_both_spellings() {
    let values = "Ms,Ada,L,a@acme.test,+49 1,+49 2,CTO,C-Level,R&D,https://l.test,Acme,IT,11,50,https://s.test,5000,Way 1,Bonn,NRW,DE,53111,7,crm,8,2024-01-01,2024-01-02 03:04:05";
    let camel = "salutation,firstName,lastName,email,phone,mobilePhone,jobTitle,jobTitleLevel,department,jobTitleLink,company,industry,minEmployeeSize,maxEmployeeSize,employeeSizeLink,revenue,address,city,state,country,zipCode,id,externalSource,externalId,createdAt,updatedAt";
    let snake: String = camel
        .chars()
        .flat_map(|c| if c.is_ascii_uppercase() { vec!['_', c.to_ascii_lowercase()] } else { vec![c] })
        .collect();
    let customer = Mapping::builtin("customer").expect("built in");
    let camel_row = map(&customer, &format!("{camel}\n{values}\n")).remove(0).unwrap_or_else(|r| panic!("{r:?}"));
    assert_eq!(
        json!(camel_row.company),
        json!({"name": "Acme", "industry": "IT", "min_employee_size": 11, "max_employee_size": 50, "employee_size_link": "https://s.test", "revenue": 5000})
    );
    let person = &camel_row.prospects[0];
    assert_eq!(
        (&person["phone"], &person["address"], &person["zip_code"]),
        (&json!("+49 1"), &json!("Way 1"), &json!("53111"))
    );
    assert_eq!(person["external_refs"], json!([{"source": "crm", "id": "8"}]));
    assert_eq!(camel_row.updated_at, Some(1_704_164_645_000_000));
    let snake_row = map(&customer, &format!("{snake}\n{values}\n")).remove(0).unwrap_or_else(|r| panic!("{r:?}"));
    assert_eq!(json!(snake_row.prospects), json!(camel_row.prospects));
    assert_eq!(json!(snake_row.company), json!(camel_row.company));
}

#[test]
fn headers_are_guessed() {
    let targets = |list: &str| -> Vec<(String, String)> {
        let columns = guessed(list).columns;
        columns.into_iter().map(|(name, rules)| (name, rules[0].target.to_string())).collect()
    };
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, target)| ((*name).to_owned(), (*target).to_owned())).collect()
    };
    assert_eq!(
        targets("Vorname;Nachname;E-Mail;Firma;Straße;PLZ;Ort\na;b;c@d.test;e;f;g;h\n"),
        pairs(&[
            ("Vorname", "prospect.first_name"),
            ("Nachname", "prospect.last_name"),
            ("E-Mail", "prospect.email"),
            ("Firma", "company.name"),
            ("Straße", "prospect.address"),
            ("PLZ", "prospect.zip_code"),
            ("Ort", "prospect.city"),
        ])
    );
    assert_eq!(
        targets("Prénom,Société,Pays\na,b,c\n"),
        pairs(&[("Prénom", "prospect.first_name"), ("Société", "company.name"), ("Pays", "prospect.country")])
    );
    assert_eq!(
        targets("Name,Website,City\nAcme,acme.test,Bonn\n"),
        pairs(&[("Name", "company.name"), ("Website", "company.website"), ("City", "company.city")])
    );
    assert_eq!(
        targets("Name,Company\nAda,Acme\n"),
        pairs(&[("Name", "prospect.full_name"), ("Company", "company.name")])
    );
    // What the names do not tell, the values do.
    assert_eq!(
        targets("a,b,c\nx@y.test,https://y.test,1\n,,\n"),
        pairs(&[("a", "prospect.email"), ("b", "company.website")])
    );
    assert_eq!(targets("{\"who\":\"x@y.test\",\"firm\":1}\n"), pairs(&[("who", "prospect.email")]));
    for name in NAMES {
        // What the built-in mappings say of a column is what is guessed, for most of them.
        let built_in = Mapping::builtin(name).expect("built in");
        let header: Vec<_> = built_in.columns.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let guessed = guessed(&format!("{}\nx\n", header.join(",")));
        let same = guessed.columns.iter().filter(|column| built_in.columns.contains(column)).count();
        assert!(same * 4 >= built_in.columns.len() * 3, "{name}: {same} of {}", built_in.columns.len());
    }
}

#[test]
fn errors_of_fields_find_their_column() {
    let mapping = Mapping::parse(
        "unmapped = \"attributes\"\n[columns]\nWho = \"prospect.full_name\"\nLast = \"prospect.last_name\"\n\
         Mail = { to = \"prospect.email\", lenient = true }\nSite = \"company.website\"\n\
         Link = \"company.social_media.X\"\nTier = \"company.attributes.a/b\"\n[ids]\ncompany = \"{Key}\"",
    )
    .expect("a mapping");
    let (form, _) = read(b"WHO,last,Mail,Site,Link,Tier,KEY,Extra\nx\n");
    let bound = mapping.bind(&form).expect("bound");
    for (side, pointer, column) in [
        (Side::Prospect, "/first_name", Some("WHO")),
        (Side::Prospect, "/last_name", Some("last")),
        (Side::Prospect, "/email", Some("Mail")),
        (Side::Prospect, "/attributes/Extra", Some("Extra")),
        (Side::Company, "/domain", Some("Site")),
        (Side::Company, "/social_media/0/url", Some("Link")),
        (Side::Company, "/attributes/a~1b", Some("Tier")),
        (Side::Company, "/external_refs/0/id", Some("KEY")),
        (Side::Company, "/email", None),
        (Side::Company, "", None),
    ] {
        assert_eq!(bound.column_of(side, pointer), column, "{pointer}");
    }
    assert!(bound.is_lenient(Side::Prospect, "/email") && !bound.is_lenient(Side::Prospect, "/last_name"));
}

/// The real lists through the mappings that are kept for them; left out where they are not there.
#[test]
fn real_lists_are_mapped_to_the_last_row() {
    let root = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let beside = root.join("../shared/data");
    let data = std::env::var_os("PROSPECTUS_TEST_DATA").map_or(beside, std::path::PathBuf::from);
    for (name, row_count, prospect_count) in [("yc-companies", 4663, 9172), ("sp500-constituents", 503, 0)] {
        let toml = std::fs::read_to_string(root.join(format!("deploy/local/mappings/{name}.toml"))).expect("a mapping");
        let mapping = Mapping::parse(&toml).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(Mapping::parse(&mapping.to_toml()).as_ref(), Ok(&mapping));
        let file = data.join(format!("{name}.csv"));
        if !file.is_file() {
            println!("no real data: {} is not there (PROSPECTUS_TEST_DATA names its folder)", file.display());
            continue;
        }
        let (form, chunks) = read(&std::fs::read(&file).expect("the list"));
        let bound = mapping.bind(&form).expect("bound");
        let all: Vec<Mapped> = chunks
            .iter()
            .flat_map(|chunk| rows(&form, chunk))
            .map(|row| {
                bound
                    .map(name, &row.cells.expect("cells"))
                    .unwrap_or_else(|reasons| panic!("{}: {reasons:?}", row.line))
            })
            .collect();
        assert_eq!(all.len(), row_count, "{name}");
        assert_eq!(all.iter().map(|row| row.prospects.len()).sum::<usize>(), prospect_count, "{name}");
        assert!(all.iter().all(|row| row.company.contains_key("name") && row.company.contains_key("external_refs")));
        let dropped: Vec<_> = all.iter().flat_map(|row| &row.dropped).collect();
        assert!(dropped.is_empty(), "{dropped:?}");
    }
}
