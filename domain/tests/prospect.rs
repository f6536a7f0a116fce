//! The rules of a prospect, and the three forms of its personal data.

use cqrs_es::Aggregate;
use cqrs_es::test::TestFramework;
use domain::prospect::{AssignProspect, RegisterProspect, UpdateProspect};
use domain::{
    Claim, ClaimKey, Match, Prospect, ProspectCommand, ProspectError, ProspectEvent, Record, RecordEvent, Sealed,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{codes, context};

const COMPANY: &str = "01900000-0000-7000-8000-00000000000a";

#[expect(clippy::needless_pass_by_value, reason = "every caller makes the payload on the spot")]
fn event(name: &str, payload: Value) -> ProspectEvent {
    ProspectEvent::from_stored(name, 1, &payload.to_string()).unwrap()
}

fn ada() -> Vec<ProspectEvent> {
    let personal = json!({"open": {"fields": {"first_name": "Ada", "email": "Ada@acme.com"}}});
    vec![event("ProspectRegistered", json!({"profile": {"job_title": "CTO"}, "personal": personal}))]
}

fn prospect(events: Vec<ProspectEvent>) -> Prospect {
    let mut prospect = Prospect::default();
    for event in events {
        prospect.apply(event);
    }
    prospect
}

fn update(body: Value) -> ProspectCommand {
    ProspectCommand::Update(UpdateProspect::parse(body).unwrap())
}

fn register(body: Value) -> ProspectCommand {
    ProspectCommand::Register(RegisterProspect::parse(body).unwrap())
}

fn assign(company_id: Option<&str>) -> ProspectCommand {
    ProspectCommand::Assign(AssignProspect::parse(json!({"company_id": company_id})).unwrap())
}

fn stored(given: Vec<ProspectEvent>, command: ProspectCommand) -> Vec<(&'static str, Value)> {
    let events = prospect(given).decide(command, &context()).unwrap();
    events.iter().map(|event| (event.name(), serde_json::from_str(&event.payload()).unwrap())).collect()
}

fn refused(given: Vec<ProspectEvent>, command: ProspectCommand) -> Vec<String> {
    match prospect(given).decide(command, &context()) {
        Err(ProspectError::Fields(errors)) => codes(&errors),
        other => panic!("{other:?}"),
    }
}

fn when(given: Vec<ProspectEvent>) -> cqrs_es::test::AggregateTestExecutor<Prospect> {
    TestFramework::with(context()).given(given)
}

/// Every field of a prospect.
fn everything() -> Value {
    json!({
        "salutation": "Dr", "first_name": "Ada", "last_name": "Lovelace", "email": "Ada@ACME.co.uk", "phone": "020 7946 0958",
        "mobile_phone": "ring twice, 5", "address": "1 High St\r\nUnit 2", "city": "London", "state": "England",
        "zip_code": "N1 9GU", "country": "UK", "job_title": "CTO", "department": "R&D", "job_title_level": "C-Level",
        "job_title_link": "https://linkedin.com/in/ada", "company_id": COMPANY,
        "external_refs": [{"source": "crm", "id": "42"}], "attributes": {"hobby": "chess"},
    })
}

#[test]
fn registering_takes_every_field_and_seals_all_but_five() {
    let events = stored(vec![], register(everything()));
    assert_eq!(
        events,
        [(
            "ProspectRegistered",
            json!({
                "profile": {"country": "GB", "job_title": "CTO", "job_title_level": "c_suite", "department": "R&D"},
                "company_id": COMPANY,
                "personal": {"open": {
                    "fields": {
                        "salutation": "Dr", "first_name": "Ada", "last_name": "Lovelace", "email": "Ada@acme.co.uk",
                        "phone": "+442079460958", "mobile_phone": {"as_given": "ring twice, 5"},
                        "address": "1 High St\nUnit 2", "city": "London", "state": "England", "zip_code": "N1 9GU",
                        "job_title_link": "https://linkedin.com/in/ada",
                    },
                    "external_refs": [{"source": "crm", "id": "42"}], "attributes": {"hobby": "chess"},
                }},
            })
        )]
    );
    let sent = everything();
    for field in domain::prospect::fields() {
        assert!(sent.get(field.name).is_some(), "{} is in this test", field.name);
        let open = ["country", "job_title", "job_title_level", "department", "company_id"].contains(&field.name);
        assert_eq!(field.personal, !open, "{}", field.name);
    }
    let prospect = prospect(vec![event(events[0].0, events[0].1.clone())]);
    assert_eq!(prospect.flags(), ["mobile_phone_not_e164"]);
    assert_eq!(prospect.name_sort().as_deref(), Some("lovelace ada"));
}

#[test]
fn what_is_shown_for_debugging_is_not_personal() {
    let command = register(everything());
    let events = Prospect::default().decide(command.clone(), &context()).unwrap();
    let state = prospect(events.clone());
    let update = update(everything());
    let updated = prospect(ada()).decide(update.clone(), &context()).unwrap();
    let shown = format!("{command:?} {events:?} {state:?} {update:?} {updated:?}");
    for personal in
        ["Ada", "Lovelace", "acme", "7946", "ring", "High St", "London", "N1", "linkedin", "crm", "42\"", "chess"]
    {
        assert!(!shown.contains(personal), "{personal} in {shown}");
    }
    assert!(shown.contains("CTO"), "what is open is shown");
}

#[test]
fn what_is_wrong_is_said_without_repeating_it() {
    let body = json!({
        "first_name": "MARKER\u{0}", "email": "MARKER", "phone": "MARKER", "job_title_link": "MARKER", "city": 5, "country": "MARKER",
        "company_id": "MARKER", "colour": "MARKER", "prospect_id": "MARKER", "attributes": {"a": ["MARKER"]}, "last_name": "",
        "zip_code": "MARKER".repeat(50), "external_refs": [{"source": "MARKER"}],
    });
    let errors = RegisterProspect::parse(body).unwrap_err();
    assert_eq!(
        codes(&errors),
        [
            "/attributes/a wrong_type",
            "/city wrong_type",
            "/colour unknown_field",
            "/company_id invalid_id",
            "/country unknown_country",
            "/email invalid_email",
            "/external_refs/0 required",
            "/first_name control_character",
            "/job_title_link invalid_url",
            "/last_name empty",
            "/phone invalid_phone",
            "/prospect_id read_only",
            "/zip_code too_long",
        ]
    );
    assert!(!format!("{errors:?} {errors}").contains("MARKER"));
}

#[test]
fn a_prospect_must_be_someone() {
    for body in [json!({}), json!({"city": "London", "job_title": "CTO"}), json!({"email": null, "external_refs": []})]
    {
        assert_eq!(codes(&RegisterProspect::parse(body).unwrap_err()), [" required"]);
    }
    for body in [
        json!({"first_name": "Ada"}),
        json!({"last_name": "Lovelace"}),
        json!({"email": "ada@acme.com"}),
        json!({"phone": "1"}),
        json!({"mobile_phone": "1"}),
        json!({"external_refs": [{"source": "crm", "id": "1"}]}),
    ] {
        assert_eq!(stored(vec![], register(body)).len(), 1);
    }
    assert_eq!(refused(ada(), update(json!({"first_name": null, "email": null}))), [" required"]);
    assert_eq!(stored(ada(), update(json!({"first_name": null}))).len(), 1);
    assert_eq!(stored(ada(), update(json!({"first_name": null, "email": null, "phone": "1"}))).len(), 1);
}

#[test]
fn an_update_holds_only_what_differs() {
    when(ada()).when(update(json!({"first_name": "Ada", "job_title": "CTO", "city": null}))).then_expect_events(vec![]);
    assert_eq!(
        stored(ada(), update(json!({"job_title": "CEO", "first_name": "Ada"}))),
        [("ProspectProfileUpdated", json!({"changes": {"job_title": "CEO"}}))]
    );
    let refs = json!([{"source": "crm", "id": "1"}]);
    let body = json!({"city": "Bonn", "email": null, "external_refs": refs, "attributes": {"a": 1, "b": null}});
    let open = json!({
        "fields": {"city": "Bonn", "email": null}, "external_refs": {"added": refs}, "attributes": {"set": {"a": 1}}
    });
    assert_eq!(stored(ada(), update(body)), [("ProspectProfileUpdated", json!({"personal": {"open": open}}))]);
}

#[test]
fn assigning_requires_a_live_company() {
    let company: Uuid = COMPANY.parse().unwrap();
    let live = Claim { kind: "live", key: ClaimKey::Plain(COMPANY.to_owned()) };
    let events = prospect(ada()).decide(assign(Some(COMPANY)), &context()).unwrap();
    assert_eq!(events, [event("ProspectAssigned", json!({"company_id": COMPANY}))]);
    assert_eq!(events[0].requires(), Some(live.clone()));
    let assigned = [ada(), events].concat();
    assert_eq!(prospect(assigned.clone()).company_id, Some(company));

    when(assigned.clone()).when(assign(Some(COMPANY))).then_expect_events(vec![]);
    let unassigned = prospect(assigned.clone()).decide(assign(None), &context()).unwrap();
    assert_eq!(unassigned, [event("ProspectAssigned", json!({"company_id": null}))]);
    assert_eq!(unassigned[0].requires(), None);

    let registered = Prospect::default().decide(register(everything()), &context()).unwrap();
    assert_eq!(registered[0].requires(), Some(live));
    assert_eq!(ada()[0].requires(), None);
    // PATCH assigns too, as an intent of its own.
    assert_eq!(
        stored(ada(), update(json!({"company_id": COMPANY, "job_title": "CEO"}))),
        [
            ("ProspectProfileUpdated", json!({"changes": {"job_title": "CEO"}})),
            ("ProspectAssigned", json!({"company_id": COMPANY})),
        ]
    );
    // Restoring does not ask whether the company is still there.
    let deleted = [assigned, vec![event("ProspectDeleted", json!({}))]].concat();
    let restored = prospect(deleted).decide(ProspectCommand::Restore, &context()).unwrap();
    assert_eq!(restored[0].requires(), None);

    for (body, code) in [
        (json!({}), "/company_id required"),
        (json!({"company_id": 5}), "/company_id wrong_type"),
        (json!({"company_id": COMPANY.replace('-', "")}), "/company_id invalid_id"),
        (json!({"company_id": null, "x": 1}), "/x unknown_field"),
        (json!([]), " wrong_type"),
    ] {
        assert_eq!(codes(&AssignProspect::parse(body).unwrap_err()), [code]);
    }
}

#[test]
fn a_prospect_is_registered_once_and_deleted_and_restored() {
    let deleted = || [ada(), vec![event("ProspectDeleted", json!({}))]].concat();
    let restored = || [deleted(), vec![event("ProspectRestored", json!({}))]].concat();
    let city = || update(json!({"city": "Bonn"}));
    when(ada()).when(register(json!({"first_name": "A"}))).then_expect_error(ProspectError::AlreadyRegistered);
    for command in [city(), assign(None), ProspectCommand::Delete, ProspectCommand::Restore] {
        when(vec![]).when(command).then_expect_error(ProspectError::NotFound);
    }
    for command in [city(), assign(None), ProspectCommand::Delete] {
        when(deleted()).when(command).then_expect_error(ProspectError::Deleted);
    }
    when(ada()).when(ProspectCommand::Restore).then_expect_events(vec![]);
    assert_eq!(stored(deleted(), ProspectCommand::Restore), [("ProspectRestored", json!({}))]);
    assert_eq!(prospect(restored()), prospect(ada()));
}

#[test]
fn only_a_live_prospect_claims_and_matches() {
    let id = Uuid::nil();
    let given = Prospect::default().decide(register(everything()), &context()).unwrap();
    let live = prospect(given.clone());
    let personal = |key: &str| ClaimKey::Personal(key.to_owned());
    assert_eq!(live.claims(id), [Claim { kind: "prospect_ref", key: personal("crm\u{1f}42") }]);
    assert_eq!(live.matches(id), [Match { kind: "email", key: personal("ada@acme.co.uk") }]);
    let deleted = prospect([given, vec![event("ProspectDeleted", json!({}))]].concat());
    assert_eq!((deleted.claims(id), deleted.matches(id)), (vec![], vec![]));
}

#[test]
fn personal_data_is_sealed_opened_and_erased() {
    let mut events = Prospect::default().decide(register(everything()), &context()).unwrap();
    events.extend(prospect(events.clone()).decide(update(json!({"city": "Bonn"})), &context()).unwrap());
    let open = events.clone();
    let mut texts = Vec::new();
    for event in &mut events {
        let member = event.personal_mut().unwrap();
        texts.push(member.to_open_json().unwrap());
        member.seal(Sealed("c2VhbGVk".to_owned()));
        let payload = event.payload();
        assert!(payload.contains(r#""personal":{"sealed":"c2VhbGVk"}"#), "{payload}");
        assert!(!payload.contains("Ada") && !payload.contains("Bonn"));
        *event = ProspectEvent::from_stored(event.name(), event.form(), &payload).unwrap();
    }
    // Still sealed, it says nothing; opened, it is what it was.
    assert_eq!(prospect(events.clone()).personal, domain::prospect::PersonalProfile::default());
    for (event, text) in events.iter_mut().zip(&texts) {
        event.personal_mut().unwrap().unseal(text).unwrap();
    }
    assert_eq!(events, open);

    for event in &mut events {
        event.personal_mut().unwrap().erase();
        *event = ProspectEvent::from_stored(event.name(), event.form(), &event.payload()).unwrap();
    }
    let erased = prospect(events);
    assert!(erased.personal_erased);
    assert_eq!(erased.personal, domain::prospect::PersonalProfile::default());
    assert_eq!((erased.claims(Uuid::nil()), erased.matches(Uuid::nil())), (vec![], vec![]));
    assert_eq!(erased.profile.job_title.unwrap().as_str(), "CTO", "what is open stays");
    assert_eq!(event("ProspectDeleted", json!({})).personal_mut().map(|_| ()), None);
}
