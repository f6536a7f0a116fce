//! Two companies that turn out to be one (`fields.md`, "Merge"): the primary's values win, the secondary fills blanks, its domains,
//! references and social media move, and it answers with where to go. What moved stands in the event, so that it can be undone
//! exactly.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::decide::{DOMAIN_HOST, stands};
use super::{ADDITIONAL_DOMAINS_MAX, Company, CompanyChanges, CompanyError, CompanyEvent};
use crate::field_error::{FieldErrors, Invalid, pointer_to};
use crate::review::CompanyResolution;
use crate::status::Status;
use crate::value::{Attributes, Domain, ExternalRef, SocialMedia};

/// The most companies that one stands for beside itself, those included that were merged into one of them before. So whatever follows
/// from its changes is bounded, and so is the way from a merged company to the one that stands for it.
pub const STANDS_FOR_MAX: usize = 100;

/// What the primary got from the secondary, and only that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CompanyAbsorbed {
    /// The secondary.
    pub company_id: Uuid,
    /// Those that were merged into the secondary before: the primary stands for them too.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub brought: BTreeSet<Uuid>,
    /// Plain fields that were blank.
    #[serde(skip_serializing_if = "CompanyChanges::is_empty")]
    pub changes: CompanyChanges,
    /// Its domain, where the primary had none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    /// The other domains that moved.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub additional_domains: BTreeSet<Domain>,
    /// The ids in other systems that moved.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub external_refs: BTreeSet<ExternalRef>,
    /// The pages on social media that moved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub social_media: Vec<SocialMedia>,
    /// Attributes that were not there.
    #[serde(skip_serializing_if = "Attributes::is_empty")]
    pub attributes: Attributes,
}

/// The company stands no longer for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompanyMerged {
    /// The primary.
    pub into: Uuid,
}

/// The primary gave back what it had got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompanySeparated {
    /// The secondary.
    pub company_id: Uuid,
}

/// The company stands for itself again, as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompanyUnmerged {}

/// The events of both companies, to be appended together; none where nothing changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Merge {
    /// Of the one that stands for both, or stood.
    pub primary: Vec<CompanyEvent>,
    /// Of the one that is merged into it, or was.
    pub secondary: Vec<CompanyEvent>,
}

/// The company that another one is to be merged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergeInto {
    /// The primary.
    pub into: Uuid,
}

impl MergeInto {
    /// Reads the body of a request, `{into}`.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(body: Value) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::default();
        let Value::Object(mut members) = body else {
            return Err(FieldErrors::one("", Invalid::wrong_type("an object")));
        };
        let into = match members.remove("into") {
            None | Some(Value::Null) => Err(Invalid::required("is required: the id of the company that stays")),
            // Only the hyphenated form: the others would be a second way to write one id.
            Some(Value::String(text)) => Some(text)
                .filter(|text| text.len() == 36)
                .and_then(|text| Uuid::try_parse(&text).ok())
                .ok_or_else(Invalid::id),
            Some(_) => Err(Invalid::wrong_type("a string")),
        };
        let into = into.unwrap_or_else(|invalid| {
            errors.push("/into", invalid);
            Uuid::nil()
        });
        for name in members.keys() {
            errors.push(pointer_to("", name), Invalid::unknown_field());
        }
        errors.or_value(Self { into })
    }
}

/// Merges `secondary` into `primary`, each given as its id and state. Merged into the same one already, nothing changes.
///
/// # Errors
/// If one of them is not there or stands for itself no longer ([`CompanyError::Primary`] for the primary), or if the two together have
/// more than one company may have.
pub fn merge(primary: (Uuid, &Company), secondary: (Uuid, &Company)) -> Result<Merge, CompanyError> {
    let ((primary_id, primary), (secondary_id, secondary)) = (primary, secondary);
    if primary_id == secondary_id {
        return Err(refused(Invalid::new("itself", "a company cannot be merged into itself")));
    }
    if (secondary.status == Status::Merged { into: primary_id }) && primary.status == Status::Live {
        return Ok(Merge::default());
    }
    live(secondary)?;
    live(primary).map_err(|why| CompanyError::Primary { id: primary_id, why: Box::new(why) })?;
    let absorbed = CompanyAbsorbed::of(primary, secondary_id, secondary)?;
    Ok(Merge { primary: vec![absorbed.into()], secondary: vec![CompanyMerged { into: primary_id }.into()] })
}

/// Takes `secondary` out of `primary` again. A company that is not merged stays as it is.
///
/// # Errors
/// If the primary is not live ([`CompanyError::Primary`]), or has changed since in what it got by the merge: the names of those fields.
pub fn unmerge(primary: &Company, secondary: (Uuid, &Company)) -> Result<Merge, CompanyError> {
    let (secondary_id, secondary) = secondary;
    let primary_id = match secondary.status {
        Status::Merged { into } => into,
        Status::Live => return Ok(Merge::default()),
        Status::Unregistered => return Err(CompanyError::NotFound),
        Status::Deleted => return Err(CompanyError::Deleted),
    };
    live(primary).map_err(|why| CompanyError::Primary { id: primary_id, why: Box::new(why) })?;
    let absorbed = primary.absorbed.iter().find(|absorbed| absorbed.company_id == secondary_id);
    let absorbed = absorbed.ok_or(CompanyError::NotFound)?;
    let changed = absorbed.changed_since(primary);
    if !changed.is_empty() {
        return Err(CompanyError::ChangedSinceMerge(changed));
    }
    let separated = CompanySeparated { company_id: secondary_id };
    Ok(Merge { primary: vec![separated.into()], secondary: vec![CompanyUnmerged {}.into()] })
}

impl CompanyAbsorbed {
    fn of(primary: &Company, company_id: Uuid, secondary: &Company) -> Result<Self, CompanyError> {
        let mut changes = primary.profile.blanks_filled_from(&secondary.profile);
        // An amount goes with its currency, and a bound of the size with the other bound, or they stay where they are.
        let currency = primary.profile.revenue_currency.as_ref();
        if currency.is_some_and(|currency| secondary.profile.revenue_currency.as_ref() != Some(currency)) {
            changes.revenue = None;
        }
        if primary.profile.revenue.is_some() {
            changes.revenue_currency = None;
        }
        let mut filled = primary.profile.clone();
        filled.apply(&changes);
        if !stands(&filled, true) {
            changes.min_employee_size = None;
            changes.max_employee_size = None;
        }
        // Two live companies of a tenant have no domain or reference in common, but what the primary has already must stay its own.
        let has =
            |domain: &Domain| primary.domain.as_ref() == Some(domain) || primary.additional_domains.contains(domain);
        let domain = secondary.domain.clone().filter(|domain| primary.domain.is_none() && !has(domain));
        let others = secondary.domain.iter().chain(&secondary.additional_domains);
        let additional_domains: BTreeSet<Domain> =
            others.filter(|other| domain.as_ref() != Some(*other) && !has(other)).cloned().collect();
        let external_refs: BTreeSet<ExternalRef> =
            secondary.external_refs.difference(&primary.external_refs).cloned().collect();
        let pages = secondary.social_media.iter();
        let social_media: Vec<SocialMedia> = pages
            .filter(|page| !primary.social_media.iter().any(|known| known.is_at(&page.platform, &page.url)))
            .cloned()
            .collect();
        for (together, most) in [
            (primary.additional_domains.len() + additional_domains.len(), ADDITIONAL_DOMAINS_MAX),
            (primary.external_refs.len() + external_refs.len(), ExternalRef::MANY_MAX),
            (primary.social_media.len() + social_media.len(), SocialMedia::MANY_MAX),
            (primary.stands_for().count() + secondary.stands_for().count() + 1, STANDS_FOR_MAX),
        ] {
            if together > most {
                return Err(refused(Invalid::too_many(most)));
            }
        }
        let mut together = primary.attributes.clone();
        let mut attributes = Attributes::default();
        for (key, value) in secondary.attributes.iter() {
            // The host of a domain goes with the domain.
            if (key != DOMAIN_HOST || domain.is_some()) && together.insert_if_room(key, value.clone()) {
                attributes.insert_if_room(key, value.clone());
            }
        }
        let brought = secondary.stands_for().collect();
        Ok(Self { company_id, brought, changes, domain, additional_domains, external_refs, social_media, attributes })
    }

    /// Gives the primary what it gets.
    pub(super) fn add_to(&self, primary: &mut Company) {
        primary.profile.apply(&self.changes);
        if let Some(domain) = &self.domain {
            primary.domain = Some(domain.clone());
        }
        primary.additional_domains.extend(self.additional_domains.iter().cloned());
        primary.external_refs.extend(self.external_refs.iter().cloned());
        primary.social_media.extend(self.social_media.iter().cloned());
        for (key, value) in self.attributes.iter() {
            primary.attributes.insert_if_room(key, value.clone());
        }
        primary.absorbed.push(self.clone());
    }

    /// Takes it away from the primary.
    fn take_from(&self, primary: &mut Company) {
        primary.profile.apply(&self.changes.cleared());
        if self.domain.is_some() {
            primary.domain = None;
        }
        primary.additional_domains.retain(|domain| !self.additional_domains.contains(domain));
        primary.external_refs.retain(|reference| !self.external_refs.contains(reference));
        let moved =
            |page: &SocialMedia| self.social_media.iter().any(|one| one.social_media_id == page.social_media_id);
        primary.social_media.retain(|page| !moved(page));
        for (key, _) in self.attributes.iter() {
            primary.attributes.remove(key);
        }
    }

    /// The fields of the primary that do not hold any more what they got, or without which it could not stand.
    fn changed_since(&self, primary: &Company) -> Vec<&'static str> {
        let mut changed = primary.profile.changed_since(&self.changes);
        let mut note = |name, holds: bool| {
            if !holds {
                changed.push(name);
            }
        };
        note("domain", self.domain.is_none() || self.domain == primary.domain);
        note("additional_domains", self.additional_domains.is_subset(&primary.additional_domains));
        note("external_refs", self.external_refs.is_subset(&primary.external_refs));
        note("social_media", self.social_media.iter().all(|page| primary.social_media.contains(page)));
        note("attributes", self.attributes.iter().all(|(key, value)| primary.attributes.get(key) == Some(value)));
        if changed.is_empty() {
            let mut without = primary.clone();
            self.take_from(&mut without);
            if !stands(&without.profile, without.domain.is_some()) {
                changed.push(if without.profile.name.is_none() { "name" } else { "min_employee_size" });
            }
        }
        changed
    }

    /// Bytes that it holds, roughly.
    pub(super) fn heap_bytes(&self) -> usize {
        let domains = self.domain.iter().chain(&self.additional_domains);
        size_of::<Self>()
            + self.brought.len() * size_of::<Uuid>()
            + self.changes.clone().into_profile().heap_bytes()
            + domains.map(|domain| 24 + domain.as_str().len()).sum::<usize>()
            + self.external_refs.iter().map(|one| size_of::<ExternalRef>() + one.heap_bytes()).sum::<usize>()
            + self.social_media.iter().map(|page| size_of::<SocialMedia>() + page.heap_bytes()).sum::<usize>()
            + self.attributes.heap_bytes()
    }
}

impl CompanySeparated {
    /// Takes away what the primary had got from the secondary.
    pub(super) fn apply_to(&self, primary: &mut Company) {
        if let Some(place) = primary.absorbed.iter().position(|absorbed| absorbed.company_id == self.company_id) {
            let absorbed = primary.absorbed.remove(place);
            absorbed.take_from(primary);
        }
    }
}

/// Merges as [`merge`] does, by which the review of `secondary` is decided.
///
/// # Errors
/// As [`merge`]; also if `secondary` is not in review.
pub fn merge_in_review(primary: (Uuid, &Company), secondary: (Uuid, &Company)) -> Result<Merge, CompanyError> {
    let resolved = secondary.1.resolve_review(CompanyResolution::Merged { into: primary.0 })?;
    let mut both = merge(primary, secondary)?;
    both.secondary.insert(0, resolved);
    Ok(both)
}

fn live(company: &Company) -> Result<(), CompanyError> {
    match company.status {
        Status::Live => Ok(()),
        Status::Unregistered => Err(CompanyError::NotFound),
        Status::Deleted => Err(CompanyError::Deleted),
        Status::Merged { into } => Err(CompanyError::Merged { into }),
    }
}

fn refused(invalid: Invalid) -> CompanyError {
    CompanyError::Fields(FieldErrors::one("/into", invalid))
}
