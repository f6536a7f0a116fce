//! Merging two companies, and undoing it exactly.

use domain::company::{CompanyCommand, RegisterCompany, UpdateCompany, merge, unmerge};
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
    merged(&mut primary, &mut secondary);
    let third = Uuid::from_u128(3);
    assert_eq!(merge((third, &acme()), (SECONDARY, &secondary)), Err(CompanyError::Merged { into: PRIMARY }));
    assert_eq!(
        secondary.decide(CompanyCommand::Delete, &context()),
        Err(CompanyError::Merged { into: PRIMARY }),
        "what is asked of it is asked of the primary"
    );
}
