//! What puts a prospect or company into review, and what takes it out.

use domain::company::{CompanyReviewRequested, RegisterCompany, merge_in_review, unmerge};
use domain::prospect::{AssignProspect, ProspectSaid, ResolveProspect, take_in, undo};
use domain::review::{CompanyHint, ProspectResolution, Resolve, ReviewReason};
use domain::value::Line;
use domain::{
    Company, CompanyCommand, CompanyError, ConflictRule, Prospect, ProspectCommand, ProspectError, ProspectEvent,
    Record, RecordEvent, Said,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{codes, context};

const COMPANY: Uuid = Uuid::from_u128(0xc);
const OTHER: Uuid = Uuid::from_u128(0xd);

/// A row without a company, as an import reads it.
fn row(import: u128) -> ProspectSaid {
    let source = Line::parse("list").unwrap();
    let said = Said { source, import_id: Uuid::from_u128(import), row: 1, at: None };
    let Value::Object(members) = json!({"first_name": "Ada", "email": "ada@gmail.com"}) else { unreachable!() };
    let mut row = ProspectSaid::parse(said, members).unwrap();
    row.hint = CompanyHint { name: Some(Line::parse("Acme Inc").unwrap()), ..CompanyHint::default() };
    row.review = Some(ReviewReason::NameOnly);
    row
}

/// Takes a row in; gives the events and whether it is in review after it.
fn said(prospect: &mut Prospect, row: &ProspectSaid) -> (Vec<ProspectEvent>, bool) {
    let taken = take_in(prospect, std::slice::from_ref(row), &ConflictRule::Newest).unwrap();
    evolve(prospect, &taken.events);
    (taken.events, taken.in_review)
}

/// Through the text that stands in the log.
fn evolve<R: Record>(record: &mut R, events: &[R::Event]) {
    for event in events {
        record.evolve(&R::Event::from_stored(event.name(), event.form(), &event.payload()).unwrap());
    }
}

fn carry_out(prospect: &mut Prospect, command: ProspectCommand) -> Vec<Value> {
    let events = prospect.decide(command, &context()).unwrap();
    evolve(prospect, &events);
    events.iter().map(|event| serde_json::from_str(&event.payload()).unwrap()).collect()
}

fn resolve(resolution: ProspectResolution) -> ProspectCommand {
    ProspectCommand::Resolve(ResolveProspect { resolution, deleted_company: None })
}

fn assign(company_id: Option<Uuid>) -> ProspectCommand {
    ProspectCommand::Assign(AssignProspect { company_id })
}

fn not_in_review(prospect: &Prospect, command: ProspectCommand) -> Option<Uuid> {
    match prospect.decide(command, &context()) {
        Err(ProspectError::NotInReview { company_id }) => company_id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_prospect_that_was_left_alone_is_asked_about_again_only_after_another_assignment() {
    let mut ada = Prospect::default();
    assert!(said(&mut ada, &row(1)).1, "a row without a company is in review");
    assert_eq!(ada.open_review(), Some(ReviewReason::NameOnly));
    assert_eq!(carry_out(&mut ada, resolve(ProspectResolution::LeftAlone)), [json!({"resolution": "left_alone"})]);
    assert_eq!(ada.open_review(), None);
    assert_eq!(said(&mut ada, &row(1)), (vec![], false), "the same row again is unchanged");
    assert_eq!(said(&mut ada, &row(2)), (vec![], false), "whichever import says it");
    assert_eq!(not_in_review(&ada, resolve(ProspectResolution::LeftAlone)), None);
    // Deleting and restoring is no assignment.
    carry_out(&mut ada, ProspectCommand::Delete);
    carry_out(&mut ada, ProspectCommand::Restore);
    assert_eq!(ada.open_review(), None);
    carry_out(&mut ada, assign(Some(COMPANY)));
    assert_eq!(ada.open_review(), None, "assigning by hand ends a review");
    carry_out(&mut ada, assign(None));
    assert_eq!(ada.open_review(), Some(ReviewReason::NameOnly));
}

#[test]
fn one_that_was_assigned_has_a_live_company_and_the_same_row_does_not_take_it_away() {
    for (resolution, name) in [
        (ProspectResolution::Assigned { company_id: COMPANY }, "assigned"),
        (ProspectResolution::Created { company_id: COMPANY }, "created"),
    ] {
        let mut ada = Prospect::default();
        said(&mut ada, &row(1));
        let events = ada.decide(resolve(resolution), &context()).unwrap();
        let claim = events[0].requires().expect("the company must be live");
        assert_eq!((claim.kind, claim.key), ("live", domain::ClaimKey::Plain(COMPANY.to_string())));
        assert_eq!(carry_out(&mut ada, resolve(resolution)), [json!({"resolution": name, "company_id": COMPANY})]);
        assert_eq!((ada.company_id, ada.open_review()), (Some(COMPANY), None));
        assert_eq!(said(&mut ada, &row(1)), (vec![], false));
        assert_eq!(not_in_review(&ada, resolve(ProspectResolution::Assigned { company_id: OTHER })), Some(COMPANY));
    }
}

#[test]
fn one_made_by_hand_is_in_review_and_so_is_one_whose_company_is_deleted() {
    let register = domain::prospect::RegisterProspect::parse(json!({"first_name": "Ada"})).unwrap();
    let mut ada = Prospect::default();
    carry_out(&mut ada, ProspectCommand::Register(register));
    assert_eq!(ada.open_review(), Some(ReviewReason::NoCompany));
    carry_out(&mut ada, assign(Some(COMPANY)));
    let seen_deleted = |company_id, resolution| {
        ProspectCommand::Resolve(ResolveProspect { resolution, deleted_company: Some(company_id) })
    };
    // It was seen with a company that it has no more: nobody knows whether that one is deleted.
    assert_eq!(not_in_review(&ada, seen_deleted(OTHER, ProspectResolution::LeftAlone)), Some(COMPANY));
    let mut left = ada.clone();
    carry_out(&mut left, seen_deleted(COMPANY, ProspectResolution::LeftAlone));
    assert!(left.left_alone && left.company_id == Some(COMPANY));
    carry_out(&mut ada, seen_deleted(COMPANY, ProspectResolution::Assigned { company_id: OTHER }));
    assert_eq!(ada.company_id, Some(OTHER));
    carry_out(&mut ada, ProspectCommand::Delete);
    assert_eq!(ada.decide(resolve(ProspectResolution::LeftAlone), &context()), Err(ProspectError::Deleted));
    let nobody = Prospect::default().decide(resolve(ProspectResolution::LeftAlone), &context());
    assert_eq!(nobody, Err(ProspectError::NotFound));
}

#[test]
fn undoing_an_import_brings_back_that_it_was_left_alone_and_leaves_what_was_decided_since() {
    let mut ada = Prospect::default();
    let mut events = said(&mut ada, &row(1)).0;
    let left = ada.decide(resolve(ProspectResolution::LeftAlone), &context()).unwrap();
    evolve(&mut ada, &left);
    events.extend(left);
    assert_eq!(undo(&events, Uuid::from_u128(1)), domain::company::Undo::ChangedSince);
    let before = ada.clone();
    let mut leads = row(2);
    leads.company_id = Some(COMPANY);
    events.extend(said(&mut ada, &leads).0);
    assert!(ada.company_id == Some(COMPANY) && !ada.left_alone);
    let domain::company::Undo::By(back) = undo(&events, Uuid::from_u128(2)) else { panic!("it can be undone") };
    evolve(&mut ada, &[back]);
    assert_eq!(ada, before);
}

fn in_review(name: &str) -> Company {
    let mut company = Company::default();
    let register = RegisterCompany::parse(json!({"name": name, "domain": format!("{name}.com")})).unwrap();
    let mut events = company.decide(CompanyCommand::Register(register), &context()).unwrap();
    events
        .push(CompanyReviewRequested { import_id: None, reason: ReviewReason::LooksLike { company_id: OTHER } }.into());
    evolve(&mut company, &events);
    company
}

#[test]
fn a_company_is_left_alone_or_merged_and_nobody_is_asked_again() {
    let mut acme = in_review("acme");
    assert_eq!(acme.open_review(), Some(ReviewReason::LooksLike { company_id: OTHER }));
    let events = acme.decide(CompanyCommand::LeaveAlone, &context()).unwrap();
    assert_eq!((events[0].name(), &*events[0].payload()), ("CompanyReviewResolved", r#"{"resolution":"left_alone"}"#));
    evolve(&mut acme, &events);
    assert_eq!(acme.open_review(), None);
    assert_eq!(acme.decide(CompanyCommand::LeaveAlone, &context()), Err(CompanyError::NotInReview));
    assert_eq!(Company::default().decide(CompanyCommand::LeaveAlone, &context()), Err(CompanyError::NotFound));
    let refused = merge_in_review((OTHER, &in_review("other")), (COMPANY, &acme));
    assert_eq!(refused, Err(CompanyError::NotInReview));

    let (mut acme, mut other) = (in_review("acme"), in_review("other"));
    let both = merge_in_review((OTHER, &other), (COMPANY, &acme)).unwrap();
    let names: Vec<&str> = both.secondary.iter().map(RecordEvent::name).collect();
    assert_eq!(names, ["CompanyReviewResolved", "CompanyMerged"]);
    evolve(&mut acme, &both.secondary);
    evolve(&mut other, &both.primary);
    let again = merge_in_review((OTHER, &other), (COMPANY, &acme));
    assert_eq!(again, Err(CompanyError::Merged { into: OTHER }));
    let apart = unmerge(&other, (COMPANY, &acme)).unwrap();
    evolve(&mut acme, &apart.secondary);
    assert_eq!(
        (acme.status, acme.open_review()),
        (domain::Status::Live, None),
        "who takes it out again has looked at it"
    );
}

#[test]
fn a_resolution_is_exactly_one_and_all_that_is_wrong_is_said_under_its_name() {
    let id = COMPANY.to_string();
    assert_eq!(Resolve::parse(json!({"leave": true, "assign": null})).unwrap(), Resolve::Leave);
    assert_eq!(Resolve::parse(json!({"assign": {"company_id": id}})).unwrap(), Resolve::Assign { company_id: COMPANY });
    assert!(matches!(Resolve::parse(json!({"create": {"name": "Acme"}})).unwrap(), Resolve::Create(_)));
    assert!(matches!(Resolve::parse(json!({"merge": {"into": id}})).unwrap(), Resolve::Merge(_)));
    for (body, expected) in [
        (json!([]), vec![" wrong_type"]),
        (json!({}), vec![" required"]),
        (json!({"leave": true, "assign": {"company_id": id}}), vec![" required"]),
        (json!({"leave": false}), vec!["/leave wrong_type"]),
        (json!({"assign": {}}), vec!["/assign/company_id required"]),
        (json!({"assign": {"company_id": null}}), vec!["/assign/company_id required"]),
        (json!({"assign": id}), vec!["/assign wrong_type"]),
        (json!({"merge": {"into": "x"}}), vec!["/merge/into invalid_id"]),
        (
            json!({"create": {"city": "Bonn", "colour": 1}}),
            vec!["/create/colour unknown_field", "/create/name required"],
        ),
        (json!({"keep": true}), vec!["/keep unknown_field"]),
    ] {
        let mut found = codes(&Resolve::parse(body.clone()).unwrap_err());
        found.sort();
        assert_eq!(found, expected, "{body}");
    }
}
