//! The rules of a company: which events a command leads to.

use super::event::CompanySocialMediaRemoved;
use super::{
    AddSocialMedia, Company, CompanyChanges, CompanyCommand, CompanyDeleted, CompanyDomainChanged, CompanyError,
    CompanyEvent, CompanyProfile, CompanyProfileUpdated, CompanyRegistered, CompanyRestored, RegisterCompany,
    UpdateCompany,
};
use crate::field_error::{FieldErrors, Invalid};
use crate::record::{Context, Record};
use crate::review::CompanyResolution;
use crate::status::Status;
use crate::value::{AttributeChanges, Attributes, Country, Currency, DomainOfHost, SetChanges, SocialMedia};

/// The attribute that keeps the host of which only the registrable domain became the company's domain.
pub(super) const DOMAIN_HOST: &str = "domain_host";

pub(super) fn decide(
    company: &Company,
    command: CompanyCommand,
    context: &Context,
) -> Result<Vec<CompanyEvent>, CompanyError> {
    match (company.status, command) {
        (Status::Unregistered, CompanyCommand::Register(register)) => Ok(vec![registered(register, context)?.into()]),
        (_, CompanyCommand::Register(_)) => Err(CompanyError::AlreadyRegistered),
        (Status::Unregistered, _) => Err(CompanyError::NotFound),
        (Status::Deleted, CompanyCommand::Restore) => Ok(vec![CompanyRestored {}.into()]),
        (Status::Deleted, _) => Err(CompanyError::Deleted),
        (Status::Merged { into }, _) => Err(CompanyError::Merged { into }),
        (Status::Live, CompanyCommand::Restore) => Ok(Vec::new()),
        (Status::Live, CompanyCommand::Delete) => Ok(vec![CompanyDeleted {}.into()]),
        (Status::Live, CompanyCommand::Update(update)) => update_events(company, update),
        (Status::Live, CompanyCommand::LeaveAlone) => Ok(vec![company.resolve_review(CompanyResolution::LeftAlone)?]),
        (Status::Live, CompanyCommand::AddSocialMedia(add)) => add_social_media(company, add, context),
        (Status::Live, CompanyCommand::RemoveSocialMedia { social_media_id }) => {
            if company.social_media.iter().any(|entry| entry.social_media_id == social_media_id) {
                Ok(vec![CompanySocialMediaRemoved { social_media_id }.into()])
            } else {
                Err(CompanyError::SocialMediaNotFound)
            }
        }
    }
}

/// Said of `min_employee_size` and `max_employee_size`.
pub(super) fn min_above_max() -> Invalid {
    Invalid::new("min_above_max", "min_employee_size must not be above max_employee_size")
}

pub(super) fn registered(register: RegisterCompany, context: &Context) -> Result<CompanyRegistered, CompanyError> {
    let mut changes = register.profile;
    complete(&CompanyProfile::default(), &mut changes);
    let mut attributes = match Attributes::default().patched(register.attributes) {
        Ok(attributes) => attributes,
        Err(invalid) => return Err(CompanyError::Fields(FieldErrors::one("/attributes", invalid))),
    };
    if let Some(found) = &register.domain {
        keep_host(found, &mut attributes);
    }
    let domain = register.domain.map(|found| found.domain);
    let mut additional_domains = register.additional_domains;
    if let Some(domain) = &domain {
        additional_domains.remove(domain);
    }
    // The ids count from 1: the seed itself may be the company's own id.
    let social_media = (1..).zip(register.social_media).map(|(n, entry)| entry.with_id(context.id(n))).collect();
    let profile = changes.into_profile();
    check(&profile, domain.is_some(), &UpdateCompany::default()).map_err(CompanyError::Fields)?;
    let external_refs = register.external_refs;
    Ok(CompanyRegistered { profile, domain, additional_domains, external_refs, social_media, attributes, said: None })
}

/// The company's size band holds and it has a name or a domain.
pub(super) fn stands(profile: &CompanyProfile, has_domain: bool) -> bool {
    check(profile, has_domain, &UpdateCompany::default()).is_ok()
}

fn update_events(company: &Company, mut update: UpdateCompany) -> Result<Vec<CompanyEvent>, CompanyError> {
    let mut errors = FieldErrors::default();
    let mut attributes = match update.attributes.take().map(|patch| company.attributes.patched(patch)) {
        None => company.attributes.clone(),
        Some(Ok(attributes)) => attributes,
        Some(Err(invalid)) => {
            errors.push("/attributes", invalid);
            company.attributes.clone()
        }
    };
    complete(&company.profile, &mut update.changes);
    let mut events: Vec<CompanyEvent> = Vec::new();
    let mut after = company.clone();

    let changes = company.profile.diff(update.changes.clone());
    if !changes.is_empty() {
        push(&mut events, &mut after, CompanyProfileUpdated { changes });
    }
    if let Some(domain) = &update.domain {
        let new = domain.as_ref().map(|found| &found.domain);
        if new != company.domain.as_ref() {
            if attributes.get(DOMAIN_HOST) == company.attributes.get(DOMAIN_HOST) {
                // It is the host of the domain before, or none.
                attributes.remove(DOMAIN_HOST);
            }
            push(&mut events, &mut after, CompanyDomainChanged { domain: new.cloned() });
        }
        if let Some(found) = domain {
            keep_host(found, &mut attributes);
        }
    }
    if let Some(mut domains) = update.additional_domains.take() {
        if let Some(domain) = &after.domain {
            domains.remove(domain);
        }
        if let Some(changes) = SetChanges::between(&after.additional_domains, &domains) {
            push(&mut events, &mut after, changes);
        }
    }
    if let Some(refs) = update.external_refs.take()
        && let Some(changes) = SetChanges::between(&company.external_refs, &refs)
    {
        push(&mut events, &mut after, changes);
    }
    if let Some(changes) = AttributeChanges::between(&company.attributes, &attributes) {
        push(&mut events, &mut after, changes);
    }
    if let Err(more) = check(&after.profile, after.domain.is_some(), &update) {
        errors.0.extend(more.0);
    }
    errors.or_value(events).map_err(CompanyError::Fields)
}

fn add_social_media(
    company: &Company,
    add: AddSocialMedia,
    context: &Context,
) -> Result<Vec<CompanyEvent>, CompanyError> {
    if company.social_media.iter().any(|entry| entry.is_at(&add.entry.platform, &add.entry.url)) {
        return Ok(Vec::new());
    }
    if company.social_media.len() >= SocialMedia::MANY_MAX {
        return Err(CompanyError::Fields(FieldErrors::one("", Invalid::too_many(SocialMedia::MANY_MAX))));
    }
    Ok(vec![add.entry.with_id(context.id(1)).into()])
}

/// Fills in what follows from the company as it will be: the default currency, and the country that a phone number is from.
pub(super) fn complete(profile: &CompanyProfile, changes: &mut CompanyChanges) {
    let has_revenue = changes.revenue.unwrap_or(profile.revenue).is_some();
    let has_currency = changes.revenue_currency.as_ref().unwrap_or(&profile.revenue_currency).is_some();
    if has_revenue && !has_currency {
        changes.revenue_currency = Some(Some(Currency::usd()));
    }
    let country: Option<Country> = changes.country.as_ref().unwrap_or(&profile.country).clone();
    for phone in [&mut changes.phone, &mut changes.mobile_phone].into_iter().flatten() {
        *phone = phone.take().map(|phone| phone.in_country(country.as_ref()));
    }
}

/// Keeps the original host as an attribute, unless there is a value already.
pub(super) fn keep_host(found: &DomainOfHost, attributes: &mut Attributes) {
    if found.is_sub_domain() {
        attributes.insert_if_room(DOMAIN_HOST, found.host.clone().into());
    }
}

/// The rules between fields, of the company as it will be; `update` says which field to blame.
fn check(profile: &CompanyProfile, has_domain: bool, update: &UpdateCompany) -> Result<(), FieldErrors> {
    let mut errors = FieldErrors::default();
    if profile.name.is_none() && !has_domain {
        let pointer = if update.domain.is_some() && update.changes.name.is_none() { "/domain" } else { "/name" };
        errors.push(pointer, Invalid::required("a company must have a name or a domain"));
    }
    if let (Some(min), Some(max)) = (profile.min_employee_size, profile.max_employee_size)
        && min > max
    {
        let blame_max = update.changes.min_employee_size.is_none() && update.changes.max_employee_size.is_some();
        let pointer = if blame_max { "/max_employee_size" } else { "/min_employee_size" };
        errors.push(pointer, min_above_max());
    }
    errors.or_value(())
}

fn push(events: &mut Vec<CompanyEvent>, after: &mut Company, event: impl Into<CompanyEvent>) {
    let event = event.into();
    after.evolve(&event);
    events.push(event);
}
