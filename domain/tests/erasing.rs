//! Forgetting a person: what the record takes afterwards, and that nothing brings a personal value back.

use domain::prospect::{EraseProspect, PersonalProfile, ProspectSaid, RegisterProspect, UpdateProspect};
use domain::provenance::{Provenance, Said};
use domain::value::Line;
use domain::{ConflictRule, Personal, Prospect, ProspectCommand, ProspectError, ProspectEvent, Record, RecordEvent};
use domain::{Status, Undo};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{codes, context};

const IMPORT: Uuid = Uuid::from_u128(7);

fn erase() -> ProspectCommand {
    ProspectCommand::Erase(EraseProspect::parse(json!({"reason": "request 4711"})).expect("a reason"))
}

fn person(body: Value) -> ProspectCommand {
    ProspectCommand::Register(RegisterProspect::parse(body).expect("fields"))
}

fn update(body: Value) -> ProspectCommand {
    ProspectCommand::Update(UpdateProspect::parse(body).expect("fields"))
}

fn row(number: u64, fields: &Value) -> ProspectSaid {
    let said = Said { source: Line::parse("crm").expect("a line"), import_id: IMPORT, row: number, at: None };
    let Value::Object(members) = fields.clone() else { panic!("an object") };
    ProspectSaid { may_be_known: true, ..ProspectSaid::parse(said, members).expect("fields") }
}

fn fold(events: &[ProspectEvent]) -> Prospect {
    let mut prospect = Prospect::default();
    for event in events {
        prospect.evolve(event);
    }
    prospect
}

/// The events as they are read after the person's key was emptied.
fn as_read_afterwards(events: &[ProspectEvent]) -> Vec<ProspectEvent> {
    let mut events = events.to_vec();
    for event in &mut events {
        if let Some(member) = event.personal_mut() {
            member.erase();
        }
    }
    events
}

fn assert_forgotten(prospect: &Prospect) {
    assert!(prospect.erased && prospect.is_erased() && prospect.personal_erased);
    assert_eq!(prospect.status, Status::Deleted);
    assert_eq!(prospect.personal, PersonalProfile::default());
    assert_eq!(prospect.provenance, Provenance::default());
    assert_eq!(prospect.known_as.as_ref().map(|_| ()), None);
    assert_eq!((prospect.claims(Uuid::nil()), prospect.matches(Uuid::nil())), (vec![], vec![]));
    assert_eq!((prospect.flags(), prospect.name_sort()), (vec![], None));
}

#[test]
fn an_erased_person_takes_nothing_but_being_erased_again() {
    let body = json!({"first_name": "Ada", "email": "ada@acme.com", "job_title": "CTO",
                      "external_refs": [{"source": "crm", "id": "1"}]});
    for deleted_before in [false, true] {
        let mut events = Prospect::default().decide(person(body.clone()), &context()).expect("registered");
        if deleted_before {
            events.extend(fold(&events).decide(ProspectCommand::Delete, &context()).expect("deleted"));
        }
        let erased = fold(&events).decide(erase(), &context()).expect("erased");
        assert_eq!(
            (erased[0].name(), erased[0].payload().as_str()),
            ("ProspectErased", r#"{"reason":"request 4711"}"#)
        );
        events.extend(erased);
        let prospect = fold(&events);
        assert_forgotten(&prospect);
        assert_eq!(prospect.profile.job_title.as_ref().map(Line::as_str), Some("CTO"), "what identifies nobody stays");
        assert_eq!(prospect.decide(erase(), &context()), Ok(vec![]));
        for command in [
            update(json!({"first_name": "Ada"})),
            update(json!({"job_title": "CEO"})),
            ProspectCommand::Delete,
            ProspectCommand::Restore,
        ] {
            assert_eq!(prospect.decide(command, &context()), Err(ProspectError::Erased));
        }
        let taken = domain::prospect::take_in(&prospect, &[row(1, &body)], &ConflictRule::Newest);
        assert_eq!(taken.map(|taken| taken.events), Err(ProspectError::Erased));
    }
    assert_eq!(Prospect::default().decide(erase(), &context()), Err(ProspectError::NotFound));
}

#[test]
fn a_reason_is_needed_and_says_that_it_must_not_be_personal() {
    let refused = |body: Value| EraseProspect::parse(body).map(|_| ()).unwrap_err();
    assert_eq!(codes(&refused(json!({}))), ["/reason required"]);
    assert!(refused(json!({})).0[0].detail.contains("no personal data"));
    assert_eq!(codes(&refused(json!({"reason": 1, "x": 1}))), ["/reason wrong_type", "/x unknown_field"]);
    assert_eq!(codes(&refused(json!({"reason": "r".repeat(256)}))), ["/reason too_long"]);
    assert_eq!(codes(&refused(json!({"reason": null}))), ["/reason required"]);
}

#[test]
fn an_import_is_not_taken_back_from_an_erased_person() {
    let taken = domain::prospect::take_in(
        &Prospect::default(),
        &[row(1, &json!({"email": "ada@acme.com"}))],
        &ConflictRule::Newest,
    );
    let mut events = taken.expect("taken in").events;
    events.extend(fold(&events).decide(erase(), &context()).expect("erased"));
    assert_eq!(domain::prospect::undo(&events, IMPORT), Undo::ChangedSince);
}

fn bodies() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!({"first_name": "Ada", "email": "Ada@acme.com"}),
        json!({"first_name": "Augusta", "last_name": "King"}),
        json!({"email": "ada@home.example", "phone": "12", "attributes": {"a": "b"}}),
        json!({"external_refs": [{"source": "crm", "id": "1"}], "city": "London"}),
        json!({"job_title": "CTO", "country": "GB", "first_name": "Ada"}),
    ])
}

#[derive(Debug, Clone)]
enum Step {
    Register(Value),
    Update(Value),
    Row(Value),
    Undo,
    Delete,
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => bodies().prop_map(Step::Register),
        4 => bodies().prop_map(Step::Update),
        4 => bodies().prop_map(Step::Row),
        1 => Just(Step::Undo),
        1 => Just(Step::Delete),
        1 => Just(Step::Restore),
    ]
}

/// What a step appends to a history; nothing where it is refused.
fn carried_out(history: &[ProspectEvent], step: &Step) -> Vec<ProspectEvent> {
    let prospect = fold(history);
    let decided = match step {
        Step::Register(body) => prospect.decide(person(body.clone()), &context()),
        Step::Update(body) => prospect.decide(update(body.clone()), &context()),
        Step::Row(body) => {
            domain::prospect::take_in(&prospect, &[row(1, body)], &ConflictRule::Newest).map(|taken| taken.events)
        }
        Step::Undo => Ok(match domain::prospect::undo(history, IMPORT) {
            Undo::By(event) => vec![event],
            _ => Vec::new(),
        }),
        Step::Delete => prospect.decide(ProspectCommand::Delete, &context()),
        Step::Restore => prospect.decide(ProspectCommand::Restore, &context()),
    };
    decided.unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_event_after_the_erasure_brings_a_value_back(
        before in prop::collection::vec(step(), 1..8),
        after in prop::collection::vec(step(), 0..8),
    ) {
        let mut history = Vec::new();
        for step in &before {
            history.extend(carried_out(&history, step));
        }
        prop_assume!(!history.is_empty());
        // What the steps would have led to without the erasure: events that a mistaken or hostile writer puts behind it.
        let mut elsewhere = history.clone();
        for step in &after {
            elsewhere.extend(carried_out(&elsewhere, step));
        }
        let follows = elsewhere.split_off(history.len());
        history.extend(fold(&history).decide(erase(), &context()).expect("whoever is registered can be erased"));
        let erased = fold(&history);
        assert_forgotten(&erased);
        for step in &after {
            prop_assert_eq!(carried_out(&history, step), vec![], "{:?}", step);
        }
        // Open, sealed or erased: the state stays as it is.
        for follows in [follows.clone(), as_read_afterwards(&follows)] {
            let mut state = erased.clone();
            for event in &follows {
                state.evolve(event);
                prop_assert_eq!(&state, &erased);
            }
        }
        // Read after the key was emptied, the history leads to the same record.
        prop_assert_eq!(&fold(&as_read_afterwards(&history)), &erased);
        // So does one of which a part was read before.
        for read_before in 0..history.len() {
            let mut mixed = history[..read_before].to_vec();
            mixed.extend(as_read_afterwards(&history[read_before..]));
            prop_assert_eq!(&fold(&mixed), &erased);
        }
    }
}

#[test]
fn an_erased_member_clears_what_was_read_before() {
    let mut events = Prospect::default().decide(person(json!({"first_name": "Ada"})), &context()).expect("registered");
    events.extend(carried_out(&events, &Step::Row(json!({"email": "ada@acme.com", "job_title": "CTO"}))));
    let Some(ProspectEvent::ProspectImported(imported)) = events.last_mut() else { panic!("{events:?}") };
    imported.personal = Some(Personal::Erased);
    let prospect = fold(&events);
    assert!(prospect.personal_erased && !prospect.erased);
    assert_eq!(prospect.personal, PersonalProfile::default());
}
