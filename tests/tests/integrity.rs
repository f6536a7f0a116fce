//! The integrity report: a system as it should be passes, and whatever somebody has changed behind its back is found and named.

use http::Method;
use local_stack::Part;
use serde_json::{Value, json};
use tests::{Client, TestStack, ran, run_prospectus};

/// Counts of what is off, by code; only what was found.
fn off(report: &Value) -> Vec<(String, u64)> {
    let findings = report["findings"].as_array().expect("findings");
    let count = |one: &Value| (one["code"].as_str().unwrap_or_default().to_owned(), one["count"].as_u64().unwrap_or(0));
    findings.iter().map(count).filter(|(_, count)| *count > 0).collect()
}

async fn made(client: &Client, path: &str, body: Value) -> String {
    let answer = client.command(Method::POST, path, &body).await;
    assert_eq!(answer.status.as_u16(), 201, "{answer:?}");
    answer.id()
}

/// Live companies, a deleted and a merged one, prospects of each and of none; ids of the live company and one prospect of it.
async fn population(client: &Client) -> (String, String) {
    let company = json!({"name": "Acme", "domain": "acme.example", "additional_domains": ["acme.co.uk"],
                         "external_refs": [{"source": "crm", "id": "c1"}]});
    let acme = made(client, "/v1/companies", company).await;
    made(client, "/v1/companies", json!({"name": "Other", "domain": "other.example"})).await;
    let gone = made(client, "/v1/companies", json!({"name": "Gone", "domain": "gone.example"})).await;
    let person = json!({"first_name": "Ada", "email": "ada@acme.example", "company_id": acme,
                        "external_refs": [{"source": "crm", "id": "p1"}]});
    let ada = made(client, "/v1/prospects", person).await;
    made(client, "/v1/prospects", json!({"first_name": "Of", "company_id": gone})).await;
    let twin = made(client, "/v1/companies", json!({"name": "Twin", "domain": "twin.example"})).await;
    made(client, "/v1/prospects", json!({"first_name": "Through", "company_id": twin})).await;
    let merged = client.command(Method::POST, &format!("/v1/companies/{twin}/merge"), &json!({"into": acme})).await;
    assert_eq!(merged.status.as_u16(), 200, "{merged:?}");
    made(client, "/v1/prospects", json!({"first_name": "Free", "email": "free@gmail.com"})).await;
    let left = made(client, "/v1/prospects", json!({"first_name": "Left"})).await;
    for path in [format!("/v1/companies/{gone}"), format!("/v1/prospects/{left}")] {
        assert_eq!(client.command(Method::DELETE, &path, &Value::Null).await.status.as_u16(), 200);
    }
    (acme, ada)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_as_it_should_be_passes_with_its_counts() {
    let test = TestStack::start().await;
    population(&test.client()).await;
    let report = run_prospectus(&test, &["integrity", "--json", "--wait", "60"]).await;
    let told = report.json();
    assert_eq!((report.code, off(&told)), (0, vec![]), "{report:?}");
    assert_eq!(told["position"], told["projected_position"]);
    for side in ["log", "read_tables"] {
        assert_eq!(told["counts"]["companies"][side], json!({"live": 2, "deleted": 1, "merged": 1}), "{told}");
        assert_eq!(told["counts"]["prospects"][side], json!({"live": 4, "deleted": 1}), "{told}");
    }
    assert_eq!(
        told["counts"]["claims"],
        json!({"company_ref": 1, "domain": 4, "live": 2, "prospect_ref": 1}),
        "{told}"
    );
    assert_eq!(told["links"], json!({"live": 1, "merged": 1, "deleted": 1, "none": 1}), "{told}");

    let text = run_prospectus(&test, &["integrity", "--tenant", "demo"]).await;
    assert!(text.code == 0 && text.stdout.contains("everything is as it should be"), "{text:?}");
    let nobody = run_prospectus(&test, &["integrity", "--tenant", "nobody"]).await;
    assert!(nobody.code == 1 && nobody.stderr.contains("no tenant"), "{nobody:?}");

    // Without the keys a person's claims are counted, and the report says so.
    let mut without = tests::prospectus(&test, &["integrity", "--json"]);
    without.env_remove("PROSPECTUS_KEYRING_FILE");
    let without = ran(without).await;
    assert_eq!((without.code, &without.json()["personal_claims_opened"]), (0, &json!(false)), "{without:?}");
    test.finish().await;
}

#[expect(clippy::too_many_lines, reason = "a table of what can be done to a database")]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_behind_the_systems_back_is_found() {
    let test = TestStack::start().await;
    let (acme, ada) = population(&test.client()).await;
    assert_eq!(run_prospectus(&test, &["integrity", "--wait", "60"]).await.code, 0);
    let superuser = test.superuser(Part::Primary).await;
    let nobody = "00000000-0000-7000-8000-000000000000";
    // What is done, what takes it back, what is found with the keys and, where that differs, without.
    type Tampering = (String, String, Vec<(&'static str, u64)>, Option<Vec<(&'static str, u64)>>);
    let cases: Vec<Tampering> = vec![
        (
            "UPDATE log.claims SET released = true WHERE kind = 'domain' AND key = 'acme.example'".into(),
            "UPDATE log.claims SET released = false WHERE kind = 'domain' AND key = 'acme.example'".into(),
            vec![("claim_missing", 1)],
            None,
        ),
        (
            "UPDATE log.claims SET released = true WHERE kind = 'prospect_ref'".into(),
            "UPDATE log.claims SET released = false WHERE kind = 'prospect_ref'".into(),
            vec![("claim_missing", 1)],
            None,
        ),
        (
            "UPDATE log.claims SET key = 'x' || key WHERE kind = 'prospect_ref'".into(),
            "UPDATE log.claims SET key = substr(key, 2) WHERE kind = 'prospect_ref'".into(),
            vec![("claim_missing", 1), ("claim_left", 1)],
            Some(vec![]), // an HMAC says nothing without the key
        ),
        (
            format!("INSERT INTO log.claims (tenant_id, kind, key, aggregate_id)
                     SELECT tenant_id, 'domain', 'squatted.example', '{nobody}' FROM access.tenants WHERE name = 'demo'"),
            format!("DELETE FROM log.claims WHERE aggregate_id = '{nobody}'"),
            vec![("claim_left", 1)],
            None,
        ),
        (
            "UPDATE log.claims SET released = false WHERE key = 'gone.example'".into(),
            "UPDATE log.claims SET released = true WHERE key = 'gone.example'".into(),
            vec![("claim_left", 1)],
            None,
        ),
        (
            format!("UPDATE read_1.company_prospect SET assigned_company_id = '{nobody}' WHERE row_id = '{ada}'"),
            format!("UPDATE read_1.company_prospect SET assigned_company_id = '{acme}' WHERE row_id = '{ada}'"),
            vec![("link_missing", 1), ("link_shown_wrong", 1), ("row_differs", 1)],
            None,
        ),
        (
            format!("UPDATE read_1.company_prospect SET company_id = (SELECT company_id FROM read_1.companies WHERE name = 'Other')
                     WHERE row_id = '{ada}'"),
            format!("UPDATE read_1.company_prospect SET company_id = '{acme}' WHERE row_id = '{ada}'"),
            vec![("link_shown_wrong", 1)],
            None,
        ),
        (
            "UPDATE read_1.companies SET domain = 'www.acme.example' WHERE domain = 'acme.example'".into(),
            "UPDATE read_1.companies SET domain = 'acme.example' WHERE domain = 'www.acme.example'".into(),
            vec![("link_shown_wrong", 2), ("domain_wrong", 1), ("row_differs", 1)], // Ada's row and that of the merged one's prospect
            None,
        ),
        (
            "UPDATE read_1.companies SET additional_domains = '[\"gmail.com\"]' WHERE domain = 'acme.example'".into(),
            "UPDATE read_1.companies SET additional_domains = '[\"acme.co.uk\", \"twin.example\"]' WHERE domain = 'acme.example'".into(),
            vec![("domain_of_no_company", 1), ("row_differs", 1)],
            None,
        ),
        (
            "UPDATE read_1.companies SET additional_domains = '[\"acme.example\"]' WHERE domain = 'other.example'".into(),
            "UPDATE read_1.companies SET additional_domains = '[]' WHERE domain = 'other.example'".into(),
            vec![("domain_twice", 1), ("row_differs", 1)],
            None,
        ),
        (
            format!("UPDATE read_1.company_prospect SET prospect_external_refs = '[{{\"id\": \"p1\", \"source\": \"crm\"}}]'
                     WHERE prospect_id <> '{ada}' AND first_name = 'Free'"),
            "UPDATE read_1.company_prospect SET prospect_external_refs = '[]' WHERE first_name = 'Free'".into(),
            vec![("reference_twice", 1), ("row_differs", 1)],
            Some(vec![("reference_twice", 1), ("claim_missing", 1)]),
        ),
        (
            format!("UPDATE read_1.companies SET merged_into = '{nobody}' WHERE name = 'Twin'"),
            format!("UPDATE read_1.companies SET merged_into = '{acme}' WHERE name = 'Twin'"),
            vec![("link_missing", 1), ("link_shown_wrong", 1), ("row_differs", 1)],
            None,
        ),
        (
            format!("CREATE TABLE public.kept AS SELECT * FROM read_1.company_prospect WHERE row_id = '{ada}';
                     DELETE FROM read_1.company_prospect WHERE row_id = '{ada}'"),
            "INSERT INTO read_1.company_prospect SELECT * FROM public.kept; DROP TABLE public.kept".into(),
            vec![("row_missing", 1)],
            None,
        ),
        (
            format!("INSERT INTO read_1.companies (tenant_id, company_id, version, position, name, name_sort, created_at, updated_at)
                     SELECT tenant_id, '{nobody}', 1, 1, 'Ghost', 'ghost', now(), now() FROM access.tenants WHERE name = 'demo'"),
            format!("DELETE FROM read_1.companies WHERE company_id = '{nobody}'"),
            vec![("row_left", 1)],
            None,
        ),
        (
            format!("UPDATE log.events SET sequence = 5 WHERE aggregate_id = '{ada}'"),
            format!("UPDATE log.events SET sequence = 1 WHERE aggregate_id = '{ada}'"),
            vec![("history_broken", 1), ("row_differs", 1)],
            None,
        ),
    ];
    for (done, undone, found, without_keys) in cases {
        superuser.batch_execute(&done).await.unwrap_or_else(|error| panic!("{done}: {error}"));
        let report = run_prospectus(&test, &["integrity", "--json"]).await;
        let expected =
            |found: &[(&str, u64)]| found.iter().map(|(code, n)| ((*code).to_owned(), *n)).collect::<Vec<_>>();
        assert_eq!((report.code, off(&report.json())), (1, expected(&found)), "{done}: {report:?}");
        assert!(!report.stdout.contains("p1"), "a person's reference is personal: {report:?}");
        let mut without = tests::prospectus(&test, &["integrity", "--json"]);
        without.env_remove("PROSPECTUS_KEYRING_FILE");
        let without = ran(without).await;
        let found = without_keys.unwrap_or(found);
        assert_eq!(off(&without.json()), expected(&found), "{done}, without keys: {without:?}");
        superuser.batch_execute(&undone).await.unwrap_or_else(|error| panic!("{undone}: {error}"));
        let text = run_prospectus(&test, &["integrity"]).await;
        assert_eq!(text.code, 0, "{undone}: {text:?}");
    }
    test.finish().await;
}
