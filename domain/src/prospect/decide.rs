//! The rules of a prospect: which events a command leads to.

use uuid::Uuid;

use super::{
    EraseProspect, PersonalChanges, PersonalFieldChanges, PersonalFields, PersonalProfile, Prospect, ProspectAssigned,
    ProspectCommand, ProspectDeleted, ProspectErased, ProspectError, ProspectEvent, ProspectProfileUpdated,
    ProspectRegistered, ProspectRestored, ProspectReviewResolved, RegisterProspect, ResolveProspect, UpdateProspect,
};
use crate::field_error::{FieldErrors, Invalid};
use crate::personal::Personal;
use crate::review::CompanyHint;
use crate::status::Status;
use crate::value::{AttributeChanges, Attributes, Country, SetChanges};

pub(super) fn decide(prospect: &Prospect, command: ProspectCommand) -> Result<Vec<ProspectEvent>, ProspectError> {
    match (prospect.status, command) {
        (Status::Unregistered, ProspectCommand::Register(register)) => Ok(vec![registered(register)?.into()]),
        (_, ProspectCommand::Register(_)) => Err(ProspectError::AlreadyRegistered),
        // No event of a prospect merges it.
        (Status::Unregistered | Status::Merged { .. }, _) => Err(ProspectError::NotFound),
        (Status::Live | Status::Deleted, ProspectCommand::Erase(_)) if prospect.erased => Ok(Vec::new()),
        (_, _) if prospect.erased => Err(ProspectError::Erased),
        (Status::Live | Status::Deleted, ProspectCommand::Erase(EraseProspect { reason })) => {
            Ok(vec![ProspectErased { reason }.into()])
        }
        (Status::Deleted, ProspectCommand::Restore) => Ok(vec![ProspectRestored {}.into()]),
        (Status::Deleted, _) => Err(ProspectError::Deleted),
        (Status::Live, ProspectCommand::Restore) => Ok(Vec::new()),
        (Status::Live, ProspectCommand::Delete) => Ok(vec![ProspectDeleted {}.into()]),
        (Status::Live, ProspectCommand::Assign(assign)) => {
            Ok(assigned(prospect, assign.company_id).into_iter().collect())
        }
        (Status::Live, ProspectCommand::Update(update)) => update_events(prospect, update),
        (Status::Live, ProspectCommand::Resolve(resolve)) => resolved(prospect, resolve),
    }
}

/// Said of a prospect whom nothing tells from another.
pub(super) fn nameless() -> Invalid {
    Invalid::required(
        "a prospect must have a first or last name, an email, a phone, a mobile_phone or an external reference",
    )
}

pub(super) fn registered(register: RegisterProspect) -> Result<ProspectRegistered, ProspectError> {
    let mut fields = register.0;
    place_phones(&mut fields.personal, fields.changes.country.as_ref().and_then(Option::as_ref));
    let attributes = Attributes::default().patched(fields.attributes.unwrap_or_default());
    let personal = PersonalProfile {
        fields: fields.personal.into_profile(),
        external_refs: fields.external_refs.unwrap_or_default(),
        attributes: attributes.map_err(|invalid| ProspectError::Fields(FieldErrors::one("/attributes", invalid)))?,
        company_hint: CompanyHint::default(),
    };
    if !identifies(&personal) {
        return Err(ProspectError::Fields(FieldErrors::one("", nameless())));
    }
    Ok(ProspectRegistered {
        profile: fields.changes.into_profile(),
        company_id: fields.company_id.flatten(),
        personal: Personal::Open(personal),
        said: None,
        review: None,
    })
}

fn update_events(prospect: &Prospect, mut update: UpdateProspect) -> Result<Vec<ProspectEvent>, ProspectError> {
    let country = update.changes.country.as_ref().unwrap_or(&prospect.profile.country).as_ref();
    place_phones(&mut update.personal, country);
    let before = &prospect.personal;
    let attributes = match update.attributes.map(|patch| before.attributes.patched(patch)).transpose() {
        Ok(after) => after.and_then(|after| AttributeChanges::between(&before.attributes, &after)),
        Err(invalid) => return Err(ProspectError::Fields(FieldErrors::one("/attributes", invalid))),
    };
    let personal = PersonalChanges {
        fields: before.fields.diff(update.personal),
        external_refs: update.external_refs.and_then(|after| SetChanges::between(&before.external_refs, &after)),
        attributes,
    };
    let personal = (!personal.is_empty()).then_some(personal);
    if let Some(changes) = &personal
        && !prospect.personal_erased
    {
        let mut after = before.clone();
        after.apply(changes);
        if !identifies(&after) {
            return Err(ProspectError::Fields(FieldErrors::one("", nameless())));
        }
    }
    let changes = prospect.profile.diff(update.changes);
    let mut events = Vec::new();
    if !changes.is_empty() || personal.is_some() {
        events.push(ProspectProfileUpdated { changes, personal: personal.map(Personal::Open) }.into());
    }
    events.extend(update.company_id.and_then(|company_id| assigned(prospect, company_id)));
    Ok(events)
}

fn resolved(prospect: &Prospect, resolve: ResolveProspect) -> Result<Vec<ProspectEvent>, ProspectError> {
    let company_id = prospect.company_id;
    let without_company = company_id.is_none() || company_id == resolve.deleted_company;
    if prospect.left_alone || !without_company {
        return Err(ProspectError::NotInReview { company_id });
    }
    Ok(vec![ProspectReviewResolved { resolution: resolve.resolution }.into()])
}

fn assigned(prospect: &Prospect, company_id: Option<Uuid>) -> Option<ProspectEvent> {
    (company_id != prospect.company_id).then(|| ProspectAssigned { company_id }.into())
}

/// Reads the phone numbers as ones of the prospect's country.
pub(super) fn place_phones(fields: &mut PersonalFieldChanges, country: Option<&Country>) {
    for phone in [&mut fields.phone, &mut fields.mobile_phone].into_iter().flatten() {
        *phone = phone.take().map(|phone| phone.in_country(country));
    }
}

/// Whether anything tells this person from another.
fn identifies(personal: &PersonalProfile) -> bool {
    let PersonalFields { first_name, last_name, email, phone, mobile_phone, .. } = &personal.fields;
    first_name.is_some()
        || last_name.is_some()
        || email.is_some()
        || phone.is_some()
        || mobile_phone.is_some()
        || !personal.external_refs.is_empty()
}
