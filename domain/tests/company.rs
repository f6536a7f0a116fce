//! The rules of a company: given events, when a command comes, then these events or this refusal.

use cqrs_es::Aggregate;
use cqrs_es::test::TestFramework;
use domain::company::{AddSocialMedia, RegisterCompany, UpdateCompany};
use domain::{Claim, ClaimKey, Company, CompanyCommand, CompanyError, CompanyEvent, Match, Record, RecordEvent};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{codes, context};

/// An event as the log holds it: its name and payload.
#[expect(clippy::needless_pass_by_value, reason = "every caller makes the payload on the spot")]
fn event(name: &str, payload: Value) -> CompanyEvent {
    CompanyEvent::from_stored(name, 1, &payload.to_string()).unwrap()
}

fn registered(payload: Value) -> Vec<CompanyEvent> {
    vec![event("CompanyRegistered", payload)]
}

fn acme() -> Vec<CompanyEvent> {
    registered(json!({"profile": {"name": "Acme"}, "domain": "acme.com"}))
}

fn company(events: Vec<CompanyEvent>) -> Company {
    let mut company = Company::default();
    for event in events {
        company.apply(event);
    }
    company
}

fn update(body: Value) -> CompanyCommand {
    CompanyCommand::Update(UpdateCompany::parse(body).unwrap())
}

fn register(body: Value) -> CompanyCommand {
    CompanyCommand::Register(RegisterCompany::parse(body).unwrap())
}

/// The events that the command leads to, as the log holds them.
fn stored(given: Vec<CompanyEvent>, command: CompanyCommand) -> Vec<(&'static str, Value)> {
    let events = company(given).decide(command, &context()).unwrap();
    events.iter().map(|event| (event.name(), serde_json::from_str(&event.payload()).unwrap())).collect()
}

fn refused(given: Vec<CompanyEvent>, command: CompanyCommand) -> Vec<String> {
    match company(given).decide(command, &context()) {
        Err(CompanyError::Fields(errors)) => codes(&errors),
        other => panic!("{other:?}"),
    }
}

fn when(given: Vec<CompanyEvent>) -> cqrs_es::test::AggregateTestExecutor<Company> {
    TestFramework::with(context()).given(given)
}

#[test]
fn registering_takes_every_field() {
    let body = json!({
        "name": " Acme Widgets ", "legal_name": "Acme Widgets Ltd", "company_type": "private", "industry": "Manufacturing",
        "founding_date": "1998-09", "short_description": "Widgets.", "long_description": "Widgets\r\nand gadgets.",
        "employee_count": 42, "min_employee_size": 11, "max_employee_size": 50,
        "employee_size_link": "https://example.com/size", "revenue": 1_200_000, "address": "1 High St\nUnit 2",
        "city": "London", "state": "England", "country": "United Kingdom", "zip_code": "N1 9GU",
        "phone": "020 7946 0958", "mobile_phone": "ask Bob on 5", "email_address": "Info@ACME.co.uk",
        "logo_url": "https://acme.co.uk/logo.png", "domain": "https://www.acme.co.uk/",
        "additional_domains": ["acme.com", "www.acme.com", "acme.co.uk"], "external_refs": [{"source": "crm", "id": "7"}],
        "social_media": [{"platform": "LinkedIn", "url": "https://linkedin.com/company/acme"},
                         {"platform": "linkedin", "url": "https://linkedin.com/company/acme"}],
        "attributes": {"stage": "A"},
    });
    let events = stored(vec![], register(body));
    let id = context().id(1).to_string();
    assert_eq!(
        events,
        [(
            "CompanyRegistered",
            json!({
                "profile": {
                    "name": "Acme Widgets", "legal_name": "Acme Widgets Ltd", "company_type": "private",
                    "industry": "Manufacturing", "founding_date": "1998-09", "short_description": "Widgets.",
                    "long_description": "Widgets\nand gadgets.", "employee_count": 42, "min_employee_size": 11,
                    "max_employee_size": 50, "employee_size_link": "https://example.com/size", "revenue": 1_200_000,
                    "revenue_currency": "USD", "address": "1 High St\nUnit 2", "city": "London", "state": "England",
                    "country": "GB", "zip_code": "N1 9GU", "phone": "+442079460958", "mobile_phone": {"as_given": "ask Bob on 5"},
                    "email_address": "Info@acme.co.uk", "logo_url": "https://acme.co.uk/logo.png",
                },
                "domain": "acme.co.uk", "additional_domains": ["acme.com"], "external_refs": [{"source": "crm", "id": "7"}],
                "social_media": [{"social_media_id": id, "platform": "LinkedIn", "url": "https://linkedin.com/company/acme"}],
                "attributes": {"stage": "A"},
            })
        )]
    );
    let company = company(registered(events[0].1.clone()));
    assert_eq!(company.flags(), ["mobile_phone_not_e164"]);
    assert_eq!(company.name_sort().as_deref(), Some("acme widgets"));
    let sent =
        domain::company::fields().filter(|field| events[0].1.pointer(&format!("/profile/{}", field.name)).is_some());
    assert_eq!(sent.count(), domain::company::CompanyProfile::FIELDS.len(), "every plain field is in this test");
}

#[test]
fn registering_says_all_that_is_wrong_at_once() {
    let body = json!({
        "name": "", "domain": "co.uk", "revenue": "much", "colour": "red", "min_employee_size": 9, "max_employee_size": 3,
        "logo_url": "nope", "version": 3, "company_id": "x", "social_media": [{"platform": "x"}, 5], "additional_domains": ["com", 5],
    });
    assert_eq!(
        codes(&RegisterCompany::parse(body).unwrap_err()),
        [
            "/additional_domains/0 public_suffix",
            "/additional_domains/1 wrong_type",
            "/colour unknown_field",
            "/company_id read_only",
            "/domain public_suffix",
            "/logo_url invalid_url",
            "/name empty",
            "/revenue wrong_type",
            "/social_media/0/url required",
            "/social_media/1 wrong_type",
            "/version read_only",
            "/min_employee_size min_above_max",
        ]
    );
}

#[test]
fn a_company_needs_a_name_or_a_domain() {
    let missing = |body| codes(&RegisterCompany::parse(body).unwrap_err());
    assert_eq!(missing(json!({})), ["/name required"]);
    assert_eq!(missing(json!({"name": null, "domain": null, "industry": "x"})), ["/name required"]);
    // What was sent and is wrong is not missing as well.
    assert_eq!(missing(json!({"domain": "com"})), ["/domain public_suffix"]);
    assert_eq!(missing(json!({"name": 5})), ["/name wrong_type"]);
    for body in [json!(null), json!([]), json!("x"), json!(5)] {
        assert_eq!(missing(body), [" wrong_type"]);
    }
    assert_eq!(stored(vec![], register(json!({"domain": "acme.com"}))).len(), 1);

    let named = || registered(json!({"profile": {"name": "Acme"}}));
    let keyed = || registered(json!({"profile": {}, "domain": "acme.com"}));
    assert_eq!(refused(named(), update(json!({"name": null}))), ["/name required"]);
    assert_eq!(refused(keyed(), update(json!({"domain": null}))), ["/domain required"]);
    assert_eq!(refused(acme(), update(json!({"name": null, "domain": null}))), ["/name required"]);
    assert_eq!(
        stored(acme(), update(json!({"name": null}))),
        [("CompanyProfileUpdated", json!({"changes": {"name": null}}))]
    );
    assert_eq!(stored(acme(), update(json!({"domain": null}))), [("CompanyDomainChanged", json!({"domain": null}))]);
}

#[test]
fn a_request_with_endless_errors_gets_a_short_answer() {
    let body: serde_json::Map<_, _> = (0..5000).map(|n| (format!("{}{n}", "x".repeat(5000)), json!(1))).collect();
    let errors = RegisterCompany::parse(body.into()).unwrap_err();
    assert_eq!(errors.0.len(), 100);
    assert!(errors.0.iter().all(|error| error.pointer.len() < 200));
}

#[test]
fn an_update_holds_only_what_differs() {
    let given = || registered(json!({"profile": {"name": "Acme", "industry": "Widgets", "city": "Bonn"}}));
    let body = json!({"name": "Acme", "industry": "Gadgets", "city": null, "state": null, "employee_count": 5});
    let changes = json!({"industry": "Gadgets", "city": null, "employee_count": 5});
    assert_eq!(stored(given(), update(body)), [("CompanyProfileUpdated", json!({"changes": changes}))]);
    when(given()).when(update(json!({"name": " Acme ", "city": "Bonn", "phone": null}))).then_expect_events(vec![]);
    when(given()).when(update(json!({}))).then_expect_events(vec![]);
}

#[test]
fn an_update_has_one_event_for_each_intent() {
    let given = registered(json!({
        "profile": {"name": "Acme"}, "domain": "acme.com", "additional_domains": ["acme.de", "acme.fr"],
        "external_refs": [{"source": "crm", "id": "1"}], "attributes": {"a": 1, "b": 2},
    }));
    let body = json!({
        "name": "Acme!", "domain": "acme.de", "additional_domains": ["acme.com", "acme.it", "acme.de"],
        "external_refs": [{"source": "crm", "id": "2"}], "attributes": {"a": null, "b": 2, "c": "x"},
    });
    assert_eq!(
        stored(given.clone(), update(body)),
        [
            ("CompanyProfileUpdated", json!({"changes": {"name": "Acme!"}})),
            ("CompanyDomainChanged", json!({"domain": "acme.de"})),
            ("CompanyAdditionalDomainsChanged", json!({"added": ["acme.com", "acme.it"], "removed": ["acme.fr"]})),
            (
                "CompanyExternalRefsChanged",
                json!({"added": [{"source": "crm", "id": "2"}], "removed": [{"source": "crm", "id": "1"}]}),
            ),
            ("CompanyAttributesChanged", json!({"set": {"c": "x"}, "removed": ["a"]})),
        ]
    );
    let cleared = stored(given, update(json!({"additional_domains": null, "external_refs": null, "attributes": null})));
    assert_eq!(cleared.len(), 3);
    assert_eq!(cleared[2], ("CompanyAttributesChanged", json!({"removed": ["a", "b"]})));
}

#[test]
fn the_kept_host_follows_the_domain() {
    let given =
        registered(json!({"profile": {}, "domain": "acme.com", "attributes": {"domain_host": "shop.acme.com"}}));
    assert_eq!(
        stored(given.clone(), update(json!({"domain": "www.acme.de"}))),
        [
            ("CompanyDomainChanged", json!({"domain": "acme.de"})),
            ("CompanyAttributesChanged", json!({"removed": ["domain_host"]})),
        ]
    );
    assert_eq!(stored(given, update(json!({"domain": "acme.com"}))), []);
}

#[test]
fn the_size_band_holds_against_what_is_there() {
    let given = || registered(json!({"profile": {"name": "Acme", "min_employee_size": 10, "max_employee_size": 20}}));
    assert_eq!(refused(given(), update(json!({"min_employee_size": 21}))), ["/min_employee_size min_above_max"]);
    assert_eq!(refused(given(), update(json!({"max_employee_size": 9}))), ["/max_employee_size min_above_max"]);
    assert_eq!(stored(given(), update(json!({"max_employee_size": 10}))).len(), 1);
    assert_eq!(stored(given(), update(json!({"min_employee_size": 30, "max_employee_size": null}))).len(), 1);
    let both = UpdateCompany::parse(json!({"min_employee_size": 2, "max_employee_size": 1})).unwrap_err();
    assert_eq!(codes(&both), ["/min_employee_size min_above_max"]);
}

#[test]
fn revenue_has_a_currency() {
    let given = || registered(json!({"profile": {"name": "Acme"}}));
    let changes = |given, body| stored(given, update(body))[0].1["changes"].clone();
    assert_eq!(changes(given(), json!({"revenue": 5})), json!({"revenue": 5, "revenue_currency": "USD"}));
    assert_eq!(
        changes(given(), json!({"revenue": 5, "revenue_currency": "eur"})),
        json!({"revenue": 5, "revenue_currency": "EUR"})
    );
    let rich = registered(json!({"profile": {"name": "Acme", "revenue": 5, "revenue_currency": "EUR"}}));
    assert_eq!(changes(rich.clone(), json!({"revenue": 6})), json!({"revenue": 6}));
    assert_eq!(changes(rich, json!({"revenue_currency": null})), json!({"revenue_currency": "USD"}));
}

#[test]
fn a_phone_number_is_read_with_the_countrys_help() {
    let given = registered(json!({"profile": {"name": "Acme", "country": "GB"}}));
    let changes = stored(given.clone(), update(json!({"phone": "020 7946 0958"})))[0].1["changes"].clone();
    assert_eq!(changes, json!({"phone": "+442079460958"}));
    let changes = stored(given, update(json!({"phone": "(202) 555-0134", "country": "US"})))[0].1["changes"].clone();
    assert_eq!(changes, json!({"phone": "+12025550134", "country": "US"}));
}

#[test]
fn social_media_come_and_go_one_by_one() {
    let add = |body| CompanyCommand::AddSocialMedia(AddSocialMedia::parse(body).unwrap());
    let x = || json!({"platform": "X", "url": "https://x.com/acme"});
    let id = context().id(1);
    let added = json!({"social_media_id": id, "platform": "X", "url": "https://x.com/acme"});
    assert_eq!(stored(acme(), add(x())), [("CompanySocialMediaAdded", added.clone())]);

    let given = [acme(), vec![event("CompanySocialMediaAdded", added)]].concat();
    when(given.clone()).when(add(x())).then_expect_events(vec![]);
    when(given.clone()).when(add(json!({"platform": "x", "url": "https://x.com/acme"}))).then_expect_events(vec![]);
    assert_eq!(stored(given.clone(), add(json!({"platform": "X", "url": "https://x.com/acme2"}))).len(), 1);

    let remove = |social_media_id| CompanyCommand::RemoveSocialMedia { social_media_id };
    assert_eq!(stored(given.clone(), remove(id)), [("CompanySocialMediaRemoved", json!({"social_media_id": id}))]);
    when(given.clone()).when(remove(Uuid::nil())).then_expect_error(CompanyError::SocialMediaNotFound);
    let gone = [given, vec![event("CompanySocialMediaRemoved", json!({"social_media_id": id}))]].concat();
    when(gone.clone()).when(remove(id)).then_expect_error(CompanyError::SocialMediaNotFound);
    assert_eq!(stored(gone, add(x())).len(), 1, "what is gone may come again");

    assert_eq!(
        codes(&AddSocialMedia::parse(json!({"platform": "X", "social_media_id": "y"})).unwrap_err()),
        ["/social_media_id read_only", "/url required"]
    );
    assert_eq!(codes(&UpdateCompany::parse(json!({"social_media": []})).unwrap_err()), ["/social_media use_endpoint"]);
}

#[test]
fn a_company_has_at_most_a_hundred_pages_on_social_media() {
    let entry =
        |n: usize| json!({"social_media_id": Uuid::nil(), "platform": "X", "url": format!("https://x.com/{n}")});
    let entries: Vec<Value> = (0..100).map(entry).collect();
    let given = registered(json!({"profile": {"name": "Acme"}, "social_media": entries}));
    let add = AddSocialMedia::parse(json!({"platform": "X", "url": "https://x.com/acme"})).unwrap();
    assert_eq!(refused(given, CompanyCommand::AddSocialMedia(add)), [" too_many"]);
    let many: Vec<Value> = (0..101).map(|n| json!({"platform": "X", "url": format!("https://x.com/{n}")})).collect();
    let body = json!({"name": "Acme", "social_media": many});
    assert_eq!(codes(&RegisterCompany::parse(body).unwrap_err()), ["/social_media too_many"]);
    let domains: Vec<String> = (0..51).map(|n| format!("acme{n}.com")).collect();
    let body = json!({"additional_domains": domains});
    assert_eq!(codes(&UpdateCompany::parse(body).unwrap_err()), ["/additional_domains too_many"]);
}

#[test]
fn a_merge_of_attributes_stays_within_the_bounds() {
    let attributes: serde_json::Map<_, _> = (0..64).map(|n| (n.to_string(), json!(1))).collect();
    let given = || registered(json!({"profile": {"name": "Acme"}, "attributes": attributes}));
    assert_eq!(refused(given(), update(json!({"attributes": {"one more": 1}}))), ["/attributes too_many"]);
    assert_eq!(stored(given(), update(json!({"attributes": {"one more": 1, "5": null}}))).len(), 1);
}

#[test]
fn a_company_is_registered_once_and_deleted_and_restored() {
    let deleted = || [acme(), vec![event("CompanyDeleted", json!({}))]].concat();
    let restored = || [deleted(), vec![event("CompanyRestored", json!({}))]].concat();
    let name = || update(json!({"name": "New"}));
    when(acme()).when(register(json!({"name": "Acme"}))).then_expect_error(CompanyError::AlreadyRegistered);
    when(deleted()).when(register(json!({"name": "Acme"}))).then_expect_error(CompanyError::AlreadyRegistered);
    for command in [name(), CompanyCommand::Delete, CompanyCommand::Restore] {
        when(vec![]).when(command).then_expect_error(CompanyError::NotFound);
    }
    for command in [name(), CompanyCommand::Delete, CompanyCommand::RemoveSocialMedia { social_media_id: Uuid::nil() }]
    {
        when(deleted()).when(command).then_expect_error(CompanyError::Deleted);
    }
    assert_eq!(stored(acme(), CompanyCommand::Delete), [("CompanyDeleted", json!({}))]);
    assert_eq!(stored(deleted(), CompanyCommand::Restore), [("CompanyRestored", json!({}))]);
    when(acme()).when(CompanyCommand::Restore).then_expect_events(vec![]);
    assert_eq!(company(restored()), company(acme()));
}

#[test]
fn only_a_live_company_claims_and_matches() {
    let id = Uuid::from_u128(7);
    let given = registered(json!({
        "profile": {"name": "Acme, Inc.", "country": "US"}, "domain": "acme.com", "additional_domains": ["acme.de"],
        "external_refs": [{"source": "crm", "id": "1"}],
    }));
    let claim = |kind, key: &str| Claim { kind, key: ClaimKey::Plain(key.to_owned()) };
    let live = company(given.clone());
    assert_eq!(
        live.claims(id),
        [
            claim("company_ref", "crm\u{1f}1"),
            claim("domain", "acme.com"),
            claim("domain", "acme.de"),
            claim("live", "00000000-0000-0000-0000-000000000007"),
        ]
    );
    assert_eq!(live.matches(id), [Match { kind: "name_country", key: ClaimKey::Plain("acme/US".to_owned()) }]);
    let deleted = company([given, vec![event("CompanyDeleted", json!({}))]].concat());
    assert_eq!((deleted.claims(id), deleted.matches(id)), (vec![], vec![]));
    assert_eq!(company(registered(json!({"profile": {}, "domain": "acme.com"}))).matches(id), []);
}
