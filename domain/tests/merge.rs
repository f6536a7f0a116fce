//! Merging two companies, and undoing it exactly.

use domain::company::{CompanyCommand, MergeInto, RegisterCompany, UpdateCompany, merge, unmerge};
use domain::{Claim, ClaimKey, Company, CompanyError, Record, RecordEvent, Status};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{codes, context};

const PRIMARY: Uuid = Uuid::from_u128(1);
const SECONDARY: Uuid = Uuid::from_u128(2);

fn company(body: Value) -> Company {
    let mut company = Company::default();
    carry_out(&mut company, CompanyCommand::Register(RegisterCompany::parse(body).unwrap()));
    company
}

fn carry_out(company: &mut Company, command: CompanyCommand) {
    for event in company.decide(command, &context()).unwrap() {
        company.evolve(&event);
    }
}

fn patch(company: &mut Company, body: Value) {
    carry_out(company, CompanyCommand::Update(UpdateCompany::parse(body).unwrap()));
}

/// Carries out what a merge or its undoing leads to, through the text that stands in the log.
fn evolve(company: &mut Company, events: &[domain::CompanyEvent]) {
    for event in events {
        company.evolve(&domain::CompanyEvent::from_stored(event.name(), event.form(), &event.payload()).unwrap());
    }
}

fn merged(primary: &mut Company, secondary: &mut Company) {
    let both = merge((PRIMARY, primary), (SECONDARY, secondary)).unwrap();
    evolve(primary, &both.primary);
    evolve(secondary, &both.secondary);
}

fn acme() -> Company {
    company(json!({"name": "Acme", "domain": "acme.com", "country": "GB", "attributes": {"tier": 1}}))
}

fn acme_labs() -> Company {
    company(json!({
        "name": "Acme Labs", "domain": "acme-labs.com", "additional_domains": ["acme.io"], "industry": "Robots", "country": "US",
        "external_refs": [{"source": "crm", "id": "7"}], "social_media": [{"platform": "X", "url": "https://x.com/acme"}],
        "attributes": {"tier": 2, "owner": "sales"}, "revenue": 5, "revenue_currency": "EUR",
    }))
}

#[test]
fn the_primarys_values_win_and_its_blanks_are_filled() {
    let (mut primary, mut secondary) = (acme(), acme_labs());
    merged(&mut primary, &mut secondary);
    let profile = serde_json::to_value(&primary.profile).unwrap();
    assert_eq!(
        profile,
        json!({"name": "Acme", "country": "GB", "industry": "Robots", "revenue": 5, "revenue_currency": "EUR"})
    );
    assert_eq!(primary.domain.as_ref().unwrap().as_str(), "acme.com");
    let domains: Vec<&str> = primary.additional_domains.iter().map(domain::value::Domain::as_str).collect();
    assert_eq!(domains, ["acme-labs.com", "acme.io"]);
    assert_eq!(primary.social_media, secondary.social_media);
    assert_eq!(serde_json::to_value(&primary.attributes).unwrap(), json!({"owner": "sales", "tier": 1}));
    assert_eq!(secondary.status, Status::Merged { into: PRIMARY });
}

#[test]
fn claims_move_to_the_primary_and_come_back() {
    let (mut primary, mut secondary) = (acme(), acme_labs());
    let mut before = [primary.claims(PRIMARY), secondary.claims(SECONDARY)].concat();
    merged(&mut primary, &mut secondary);
    assert_eq!(secondary.claims(SECONDARY), []);
    assert_eq!(secondary.matches(SECONDARY), []);
    let mut after = primary.claims(PRIMARY);
    after.push(Claim { kind: "live", key: ClaimKey::Plain(SECONDARY.to_string()) });
    before.sort();
    after.sort();
    assert_eq!(before, after);
}

#[test]
fn undoing_restores_both_exactly() {
    let (mut primary, mut secondary) = (acme(), acme_labs());
    merged(&mut primary, &mut secondary);
    let back = unmerge(&primary, (SECONDARY, &secondary)).unwrap();
    evolve(&mut primary, &back.primary);
    evolve(&mut secondary, &back.secondary);
    assert_eq!((primary, secondary), (acme(), acme_labs()));
}

#[test]
fn what_was_changed_elsewhere_meanwhile_stays() {
    let (mut primary, mut secondary) = (acme(), acme_labs());
    merged(&mut primary, &mut secondary);
    patch(&mut primary, json!({"city": "London", "name": "Acme Ltd"}));
    let back = unmerge(&primary, (SECONDARY, &secondary)).unwrap();
    evolve(&mut primary, &back.primary);
    let mut expected = acme();
    patch(&mut expected, json!({"city": "London", "name": "Acme Ltd"}));
    assert_eq!(primary, expected);
}

#[test]
fn what_was_changed_since_stands_in_the_way() {
    let (mut primary, mut secondary) = (acme(), acme_labs());
    merged(&mut primary, &mut secondary);
    patch(&mut primary, json!({"industry": "Toys", "additional_domains": ["acme.io"], "attributes": {"owner": null}}));
    let refused = unmerge(&primary, (SECONDARY, &secondary));
    assert_eq!(refused, Err(CompanyError::ChangedSinceMerge(vec!["industry", "additional_domains", "attributes"])));
}

#[test]
fn a_primary_that_would_be_left_without_name_and_domain_keeps_them() {
    let (mut primary, mut secondary) = (company(json!({"name": "Acme"})), acme_labs());
    merged(&mut primary, &mut secondary);
    assert_eq!(primary.domain.as_ref().unwrap().as_str(), "acme-labs.com");
    patch(&mut primary, json!({"name": null}));
    let refused = unmerge(&primary, (SECONDARY, &secondary));
    assert_eq!(refused, Err(CompanyError::ChangedSinceMerge(vec!["name"])));
}

#[test]
fn an_amount_goes_with_its_currency_and_a_band_holds() {
    let mut primary = company(json!({"name": "A", "revenue_currency": "USD", "min_employee_size": 100}));
    let mut secondary = company(json!({"name": "B", "revenue": 5, "revenue_currency": "EUR", "max_employee_size": 50}));
    merged(&mut primary, &mut secondary);
    assert_eq!(
        serde_json::to_value(&primary.profile).unwrap(),
        json!({"name": "A", "revenue_currency": "USD", "min_employee_size": 100})
    );
}

#[test]
fn the_same_again_changes_nothing() {
    let (mut primary, mut secondary) = (acme(), acme_labs());
    assert!(unmerge(&primary, (SECONDARY, &secondary)).unwrap().primary.is_empty());
    merged(&mut primary, &mut secondary);
    let again = merge((PRIMARY, &primary), (SECONDARY, &secondary)).unwrap();
    assert!(again.primary.is_empty() && again.secondary.is_empty());
}

#[test]
fn only_live_companies_are_merged_and_never_with_themselves() {
    let (mut primary, mut secondary) = (acme(), acme_labs());
    match merge((PRIMARY, &primary), (PRIMARY, &primary)) {
        Err(CompanyError::Fields(errors)) => assert_eq!(codes(&errors), ["/into itself"]),
        other => panic!("{other:?}"),
    }
    assert_eq!(merge((PRIMARY, &primary), (SECONDARY, &Company::default())), Err(CompanyError::NotFound));
    let mut deleted = acme_labs();
    carry_out(&mut deleted, CompanyCommand::Delete);
    assert_eq!(merge((PRIMARY, &primary), (SECONDARY, &deleted)), Err(CompanyError::Deleted));
    let of_primary = |why| Err(CompanyError::Primary { id: SECONDARY, why: Box::new(why) });
    assert_eq!(merge((SECONDARY, &deleted), (PRIMARY, &primary)), of_primary(CompanyError::Deleted));
    assert_eq!(merge((SECONDARY, &Company::default()), (PRIMARY, &primary)), of_primary(CompanyError::NotFound));
    merged(&mut primary, &mut secondary);
    let third = Uuid::from_u128(3);
    let into = CompanyError::Merged { into: PRIMARY };
    assert_eq!(merge((SECONDARY, &secondary), (third, &acme())), of_primary(into));
    assert_eq!(merge((third, &acme()), (SECONDARY, &secondary)), Err(CompanyError::Merged { into: PRIMARY }));
    assert_eq!(
        secondary.decide(CompanyCommand::Delete, &context()),
        Err(CompanyError::Merged { into: PRIMARY }),
        "what is asked of it is asked of the primary"
    );
}

#[test]
fn a_merge_brings_those_that_were_merged_before_and_takes_them_back() {
    let (mut first, mut middle, mut last) =
        (company(json!({"name": "First"})), company(json!({"name": "Middle"})), company(json!({"name": "Last"})));
    let (first_id, middle_id, last_id) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
    let both = merge((middle_id, &middle), (first_id, &first)).unwrap();
    evolve(&mut middle, &both.primary);
    evolve(&mut first, &both.secondary);
    let alone = last.clone();
    let both = merge((last_id, &last), (middle_id, &middle)).unwrap();
    evolve(&mut last, &both.primary);
    evolve(&mut middle, &both.secondary);
    assert_eq!(last.stands_for().collect::<Vec<_>>(), [middle_id, first_id]);
    // The first can only be taken out of the middle one while that stands for itself.
    let why = Box::new(CompanyError::Merged { into: last_id });
    assert_eq!(unmerge(&middle, (first_id, &first)), Err(CompanyError::Primary { id: middle_id, why }));
    let back = unmerge(&last, (middle_id, &middle)).unwrap();
    evolve(&mut last, &back.primary);
    evolve(&mut middle, &back.secondary);
    assert_eq!((last, middle.stands_for().collect::<Vec<_>>()), (alone, vec![first_id]));
}

#[test]
fn a_company_stands_for_a_hundred_others_at_most_counting_those_that_come_with_one() {
    let small = || company(json!({"name": "Small"}));
    let group = |id: u128, size: u128| {
        let mut primary = small();
        for number in 1..=size {
            let both = merge((Uuid::from_u128(id), &primary), (Uuid::from_u128(id + number), &small())).unwrap();
            evolve(&mut primary, &both.primary);
        }
        primary
    };
    let (one, other) = (group(1_000, 50), group(2_000, 50));
    let refused = |primary: &Company, secondary: &Company| match merge(
        (Uuid::from_u128(1_000), primary),
        (Uuid::from_u128(2_000), secondary),
    ) {
        Err(CompanyError::Fields(errors)) => codes(&errors) == ["/into too_many"],
        _ => false,
    };
    assert!(refused(&one, &other), "101 are too many");
    assert!(!refused(&one, &group(2_000, 49)), "100 are not");
}

#[test]
fn the_body_of_a_merge_names_a_company_and_nothing_else() {
    assert_eq!(MergeInto::parse(json!({"into": PRIMARY})), Ok(MergeInto { into: PRIMARY }));
    for (body, expected) in [
        (json!({}), vec!["/into required"]),
        (json!({"into": null}), vec!["/into required"]),
        (json!({"into": 7}), vec!["/into wrong_type"]),
        (json!({"into": "acme"}), vec!["/into invalid_id"]),
        (json!({"into": PRIMARY, "from": SECONDARY}), vec!["/from unknown_field"]),
        (json!([]), vec![" wrong_type"]),
    ] {
        assert_eq!(codes(&MergeInto::parse(body.clone()).unwrap_err()), expected, "{body}");
    }
}
