//! What the rows of an import say about a company, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::command::Request;
use super::decide::{complete, keep_host, registered, stands};
use super::{ADDITIONAL_DOMAINS_MAX, Company, CompanyChanges, CompanyError, CompanyEvent, RegisterCompany};
use crate::field_error::FieldErrors;
use crate::provenance::{Conflict, ConflictRule, Said, Verdict, attribute_field};
use crate::record::{Context, Record as _};
use crate::review::ReviewReason;
use crate::status::Status;
use crate::undo::{self, Part, Traced, Undo};
use crate::value::social_media::NewSocialMedia;
use crate::value::{AttributesPatch, Domain, DomainOfHost, ExternalRef, SocialMedia};

/// What one row says about a company.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompanySaid {
    /// Which row.
    pub said: Said,
    /// Plain fields; only such as have a value.
    pub profile: CompanyChanges,
    /// The domain that the row leads to.
    pub domain: Option<DomainOfHost>,
    /// Ids in other systems.
    pub external_refs: BTreeSet<ExternalRef>,
    /// Pages on social media.
    pub social_media: Vec<NewSocialMedia>,
    /// What has no field of its own.
    pub attributes: AttributesPatch,
}

/// A row of an import said something new of the company.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompanyImported {
    /// Which row.
    pub said: Said,
    /// Plain fields that were blank, or whose new value prevailed.
    #[serde(default, skip_serializing_if = "CompanyChanges::is_empty")]
    pub changes: CompanyChanges,
    /// Its domain, where it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    /// Further domains that it had not.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub additional_domains: BTreeSet<Domain>,
    /// Ids in other systems that it had not.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub external_refs: BTreeSet<ExternalRef>,
    /// Pages on social media that it had not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub social_media: Vec<SocialMedia>,
    /// Attributes that were not there, or whose new value prevailed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Value>,
    /// What the row said and what did not prevail: it stands here and nowhere else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub declined: BTreeMap<String, Value>,
}

/// Someone should look at the company.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompanyReviewRequested {
    /// The import in which it showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import_id: Option<Uuid>,
    /// Why.
    #[serde(flatten)]
    pub reason: ReviewReason,
}

/// The company is again what it was before an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompanyImportUndone {
    /// The import.
    pub import_id: Uuid,
    /// What it was; none if the import made it: then it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Company>>,
}

/// What holds for all rows.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Which value wins.
    pub rule: &'a ConflictRule,
    /// An older company that has the same name in the same country; noted where the rows make the company.
    pub looks_like: Option<Uuid>,
}

/// What becomes of a company by what some rows say.
#[derive(Debug, Clone, PartialEq)]
pub struct TakenIn<E> {
    /// The events, at most one a row.
    pub events: Vec<E>,
    /// For each row, in their order, what it did.
    pub rows: Vec<RowEffect>,
    /// Whether someone should look at the record after it.
    pub in_review: bool,
}

/// What one row did to one record.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowEffect {
    /// What became of the record.
    pub change: Change,
    /// Contradictions between the row and the record.
    pub conflicts: Vec<Conflict>,
    /// Values for which the record has no room, by field.
    pub left_out: Vec<String>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It stays as it is.
    #[default]
    Unchanged,
    /// It changed.
    Updated,
    /// It came into being.
    Created,
}

impl CompanySaid {
    /// Reads the members that `POST /v1/companies` takes, without a domain, which is given beside them.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn parse(said: Said, members: Map<String, Value>, domain: Option<DomainOfHost>) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::default();
        let mut social_media = Vec::new();
        let read = Request::read(Value::Object(members), &mut errors, |value, errors| {
            social_media = NewSocialMedia::many_from_json(value, "/social_media", errors);
        });
        let update = read.update;
        errors.or_value(Self {
            said,
            profile: update.changes,
            domain,
            external_refs: update.external_refs.unwrap_or_default(),
            social_media,
            attributes: update.attributes.unwrap_or_default(),
        })
    }
}

/// Takes in what rows say about one company, in their order. A company that is not there yet is registered by the first.
///
/// # Errors
/// If the company is deleted or merged, or if a row would make one without a name and a domain.
pub fn take_in(
    company: &Company,
    rows: &[CompanySaid],
    terms: &Terms<'_>,
    context: &Context,
) -> Result<TakenIn<CompanyEvent>, CompanyError> {
    let mut after = company.clone();
    let mut taken = TakenIn { events: Vec::new(), rows: Vec::with_capacity(rows.len()), in_review: false };
    let mut ids = (1..).map(|n| context.id(n));
    for row in rows {
        let mut effect = RowEffect::default();
        let event: Option<CompanyEvent> = match after.status {
            Status::Unregistered => {
                effect.change = Change::Created;
                Some(first(row, context)?.into())
            }
            Status::Live => after.heard(row, terms.rule, &mut ids, &mut effect).map(Into::into),
            Status::Deleted => return Err(CompanyError::Deleted),
            Status::Merged { into } => return Err(CompanyError::Merged { into }),
        };
        if let Some(event) = event {
            after.evolve(&event);
            taken.events.push(event);
        }
        taken.rows.push(effect);
    }
    if company.status == Status::Unregistered
        && let (Some(company_id), Some(row)) = (terms.looks_like, rows.first())
    {
        let reason = ReviewReason::LooksLike { company_id };
        let event: CompanyEvent = CompanyReviewRequested { import_id: Some(row.said.import_id), reason }.into();
        after.evolve(&event);
        taken.events.push(event);
    }
    taken.in_review = after.open_review().is_some();
    Ok(taken)
}

fn first(row: &CompanySaid, context: &Context) -> Result<super::CompanyRegistered, CompanyError> {
    let mut profile = row.profile.clone();
    complete(&super::CompanyProfile::default(), &mut profile);
    if !stands(&profile.clone().into_profile(), row.domain.is_some())
        && stands(&without_size(&profile), row.domain.is_some())
    {
        profile.min_employee_size = None;
        profile.max_employee_size = None;
    }
    let register = RegisterCompany {
        profile,
        domain: row.domain.clone(),
        additional_domains: BTreeSet::new(),
        external_refs: row.external_refs.clone(),
        social_media: row.social_media.clone(),
        attributes: row.attributes.clone(),
    };
    let mut event = registered(register, context)?;
    event.said = Some(row.said.clone());
    Ok(event)
}

fn without_size(changes: &CompanyChanges) -> super::CompanyProfile {
    let mut profile = changes.clone().into_profile();
    profile.min_employee_size = None;
    profile.max_employee_size = None;
    profile
}

impl Company {
    /// What a row says that is news to a live company; none if nothing is.
    fn heard(
        &self,
        row: &CompanySaid,
        rule: &ConflictRule,
        ids: &mut impl Iterator<Item = Uuid>,
        effect: &mut RowEffect,
    ) -> Option<CompanyImported> {
        let said = &row.said;
        let mut declined = BTreeMap::new();
        let mut conflicts = Vec::new();
        let mut profile = row.profile.clone();
        complete(&self.profile, &mut profile);
        let mut judge = |field: &str, stands: &Value, new: &Value| {
            let verdict = self.provenance.judge(rule, said, field, stands, new);
            let wins = verdict == Verdict::Wins;
            let (kept, lost) = if wins { (new, stands) } else { (stands, new) };
            let conflict = Conflict { row: said.row, field: field.to_owned(), kept: kept.clone(), lost: lost.clone() };
            conflicts.push(conflict);
            if verdict == Verdict::Loses {
                declined.insert(field.to_owned(), new.clone());
            }
            wins
        };
        let fills = |field: &str, new: &Value| !self.provenance.was_taken_away(said, field, new);
        let mut changes = self.profile.settle(profile, fills, &mut judge);
        let mut attributes = BTreeMap::new();
        let mut room = self.attributes.clone();
        for (key, value) in row.attributes.values() {
            match self.attributes.get(key) {
                Some(stands) if stands == value => {}
                Some(stands) => {
                    if judge(&attribute_field(key), stands, value) {
                        attributes.insert(key.to_owned(), value.clone());
                    }
                }
                None if !fills(&attribute_field(key), value) => {}
                None if room.insert_if_room(key, value.clone()) => {
                    attributes.insert(key.to_owned(), value.clone());
                }
                None => effect.left_out.push(attribute_field(key)),
            }
        }
        effect.conflicts = conflicts;
        // A band of sizes that does not fit together is no news, whichever row says half of it.
        let mut profile_after = self.profile.clone();
        profile_after.apply(&changes);
        if !stands(&profile_after, true) {
            changes.min_employee_size = None;
            changes.max_employee_size = None;
            effect.left_out.push("min_employee_size".to_owned());
        }
        let mut event = CompanyImported {
            said: said.clone(),
            changes,
            domain: None,
            additional_domains: BTreeSet::new(),
            external_refs: BTreeSet::new(),
            social_media: Vec::new(),
            attributes,
            declined,
        };
        if let Some(found) = &row.domain {
            self.heard_domain(found, &mut event, &mut room, effect);
        }
        let new_refs = row.external_refs.difference(&self.external_refs);
        event.external_refs =
            new_refs.take(ExternalRef::MANY_MAX.saturating_sub(self.external_refs.len())).cloned().collect();
        if row.external_refs.iter().any(|one| !self.external_refs.contains(one) && !event.external_refs.contains(one)) {
            effect.left_out.push("external_refs".to_owned());
        }
        for entry in &row.social_media {
            if self.social_media.iter().any(|known| known.is_at(&entry.platform, &entry.url)) {
                continue;
            }
            if self.social_media.len() + event.social_media.len() >= SocialMedia::MANY_MAX {
                effect.left_out.push("social_media".to_owned());
                break;
            }
            event.social_media.extend(ids.next().map(|id| entry.clone().with_id(id)));
        }
        if event.changes_something() {
            effect.change = Change::Updated;
        }
        (event.changes_something() || !event.declined.is_empty()).then_some(event)
    }

    fn heard_domain(
        &self,
        found: &DomainOfHost,
        event: &mut CompanyImported,
        room: &mut crate::value::Attributes,
        effect: &mut RowEffect,
    ) {
        if self.domain.as_ref() == Some(&found.domain) || self.additional_domains.contains(&found.domain) {
            return;
        }
        if self.domain.is_none() {
            event.domain = Some(found.domain.clone());
            let known = room.clone();
            keep_host(found, room);
            event.attributes.extend(
                room.iter()
                    .filter(|(key, _)| known.get(key).is_none())
                    .map(|(key, value)| (key.to_owned(), value.clone())),
            );
        } else if self.additional_domains.len() < ADDITIONAL_DOMAINS_MAX {
            event.additional_domains.insert(found.domain.clone());
        } else {
            effect.left_out.push("additional_domains".to_owned());
        }
    }
}

impl CompanyImported {
    /// Whether the company is another one after it; else the row only said what did not prevail.
    pub fn changes_something(&self) -> bool {
        !self.changes.is_empty()
            || self.domain.is_some()
            || !self.additional_domains.is_empty()
            || !self.external_refs.is_empty()
            || !self.social_media.is_empty()
            || !self.attributes.is_empty()
    }

    pub(super) fn apply_to(&self, company: &mut Company) {
        let said = &self.said;
        let mut replaced = BTreeMap::new();
        company.profile.replaced(&self.changes, |field, stood| {
            replaced.insert(field, stood);
        });
        for field in self.changes.names() {
            company.provenance.replace(Some(said), field, replaced.get(field));
        }
        company.profile.apply(&self.changes);
        for (key, value) in &self.attributes {
            let field = attribute_field(key);
            company.provenance.replace(Some(said), &field, company.attributes.get(key));
            company.attributes.set(key, value.clone());
        }
        for (field, value) in &self.declined {
            company.provenance.decline(said, field, value);
        }
        if let Some(domain) = &self.domain {
            company.domain = Some(domain.clone());
        }
        company.additional_domains.extend(self.additional_domains.iter().cloned());
        company.external_refs.extend(self.external_refs.iter().cloned());
        company.social_media.extend(self.social_media.iter().cloned());
    }
}

/// How `import_id` is taken back from the company of these events.
pub fn undo(events: &[CompanyEvent], import_id: Uuid) -> Undo<CompanyEvent> {
    let part = |event: &CompanyEvent| match event {
        CompanyEvent::CompanyImportUndone(undone) => Part::TakesBack(undone.import_id, undone.before.is_some()),
        event => event.import_id().map_or(Part::None, Part::Of),
    };
    match undo::begin(events, import_id, part) {
        Undo::By(begun) => {
            let mut before = Company::default();
            for event in &events[..begun] {
                before.evolve(event);
            }
            let before = (begun > 0).then(|| Box::new(before));
            Undo::By(CompanyImportUndone { import_id, before }.into())
        }
        Undo::Nothing => Undo::Nothing,
        Undo::Done => Undo::Done,
        Undo::ChangedSince => Undo::ChangedSince,
    }
}

impl CompanyEvent {
    /// The import that led to it.
    pub fn import_id(&self) -> Option<Uuid> {
        match self {
            Self::CompanyRegistered(registered) => registered.said.as_ref().map(|said| said.import_id),
            Self::CompanyImported(imported) => Some(imported.said.import_id),
            Self::CompanyReviewRequested(requested) => requested.import_id,
            _ => None,
        }
    }

    /// The import that led to it or was taken back by it, for its history.
    pub fn traced_to(&self) -> Option<Traced> {
        match self {
            Self::CompanyRegistered(registered) => registered.said.as_ref().map(Traced::to_row),
            Self::CompanyImported(imported) => Some(Traced::to_row(&imported.said)),
            Self::CompanyImportUndone(undone) => Some(Traced::to_undoing(undone.import_id)),
            event => event.import_id().map(Traced::to_import),
        }
    }
}
