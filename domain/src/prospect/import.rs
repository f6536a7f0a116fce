//! What the rows of an import say about a person, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::decide::{nameless, place_phones};
use super::{
    PersonalFieldChanges, PersonalProfile, Prospect, ProspectChanges, ProspectError, ProspectEvent, ProspectProfile,
    ProspectRegistered, RegisterProspect, UpdateProspect,
};
use crate::company::{Change, RowEffect, TakenIn};
use crate::field_error::FieldErrors;
use crate::personal::Personal;
use crate::profile::Hidden;
use crate::provenance::{Conflict, ConflictRule, Provenance, Said, Verdict, attribute_field};
use crate::record::Record as _;
use crate::review::{CompanyHint, ReviewReason};
use crate::status::Status;
use crate::undo::{self, Part, Traced, Undo};
use crate::value::{AttributesPatch, ExternalRef};

/// What one row says about a person. `Debug` shows nothing personal.
#[derive(Clone, PartialEq, Eq)]
pub struct ProspectSaid {
    /// Which row.
    pub said: Said,
    /// Open fields; only such as have a value.
    pub profile: ProspectChanges,
    /// Personal fields, likewise.
    pub fields: PersonalFieldChanges,
    /// Ids in other systems.
    pub external_refs: BTreeSet<ExternalRef>,
    /// What has no field of its own.
    pub attributes: AttributesPatch,
    /// The company that the row leads to.
    pub company_id: Option<Uuid>,
    /// The companies that were merged into that one: whoever is at one of them is at it.
    pub company_stands_for: Vec<Uuid>,
    /// What it said of a company that it does not lead to.
    pub hint: CompanyHint,
    /// Why a person should look at it.
    pub review: Option<ReviewReason>,
    /// Whether nobody else is known by the row's address at its company, so that this person may be.
    pub may_be_known: bool,
}

/// A row of an import said something new of the person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProspectImported {
    /// Which row.
    pub said: Said,
    /// Open fields that were blank, or whose new value prevailed.
    #[serde(default, skip_serializing_if = "ProspectChanges::is_empty")]
    pub changes: ProspectChanges,
    /// The company from now on, where that changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub company_id: Option<Uuid>,
    /// Of the open fields, what the row said and what did not prevail.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub declined: BTreeMap<String, Value>,
    /// What was said of the personal ones; absent if nothing new was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personal: Option<Personal<PersonalImported>>,
}

/// What a row said that is new and personal. `Debug` never shows it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PersonalImported {
    /// Plain fields that were blank, or whose new value prevailed.
    #[serde(skip_serializing_if = "PersonalFieldChanges::is_empty")]
    pub fields: PersonalFieldChanges,
    /// Ids in other systems that the person had not.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub external_refs: BTreeSet<ExternalRef>,
    /// Attributes that were not there, or whose new value prevailed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Value>,
    /// What the row said and what did not prevail.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub declined: BTreeMap<String, Value>,
    /// As whom imports know the person from now on; until now as nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_as: Option<KnownAs>,
}

/// The person is again what it was before an import.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProspectImportUndone {
    /// The import.
    pub import_id: Uuid,
    /// The open part of what it was; none if the import made it: then it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<ProspectBefore>,
    /// The personal part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personal: Option<Personal<PersonalBefore>>,
}

/// The open part of what a prospect was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProspectBefore {
    /// The open fields.
    #[serde(default)]
    pub profile: ProspectProfile,
    /// The company that it had.
    #[serde(default)]
    pub company_id: Option<Uuid>,
    /// Why someone should look at it.
    #[serde(default)]
    pub review: Option<ReviewReason>,
    /// Whether somebody looked at it and left it as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left_alone: bool,
}

/// The personal part of what a prospect was. `Debug` never shows it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PersonalBefore {
    /// All that identifies the person.
    pub profile: PersonalProfile,
    /// Where the values come from.
    pub provenance: Provenance,
    /// As whom imports know the person.
    pub known_as: Option<KnownAs>,
}

/// As whom imports know a person: by an address, at one company or at none. Unique among the tenant's live prospects, so that two
/// imports at the same time make one person of two rows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownAs {
    /// The company that the first row led to.
    pub company_id: Option<Uuid>,
    /// The address, as addresses are compared.
    pub email: String,
}

impl KnownAs {
    /// The kind of the claim that it is.
    pub const CLAIM: &'static str = "person";

    /// The claim's key.
    pub fn key(&self) -> String {
        let company = self.company_id.map(|id| id.to_string()).unwrap_or_default();
        format!("{company}\u{1f}{}", self.email)
    }
}

impl ProspectSaid {
    /// Reads the members that `POST /v1/prospects` takes, without a company.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn parse(said: Said, members: Map<String, Value>) -> Result<Self, FieldErrors> {
        let RegisterProspect(read) = RegisterProspect::parse(Value::Object(members))?;
        Ok(Self {
            said,
            profile: read.changes,
            fields: read.personal,
            external_refs: read.external_refs.unwrap_or_default(),
            attributes: read.attributes.unwrap_or_default(),
            company_id: None,
            company_stands_for: Vec::new(),
            hint: CompanyHint::default(),
            review: None,
            may_be_known: false,
        })
    }

    /// The address, as addresses are compared.
    pub fn email(&self) -> Option<String> {
        self.fields.email.as_ref()?.as_ref().map(crate::value::EmailAddress::key)
    }
}

/// Takes in what rows say about one person, in their order. A person that is not there yet is registered by the first.
///
/// # Errors
/// If the person is deleted, or if nothing would tell it from another.
pub fn take_in(
    prospect: &Prospect,
    rows: &[ProspectSaid],
    rule: &ConflictRule,
) -> Result<TakenIn<ProspectEvent>, ProspectError> {
    let mut after = prospect.clone();
    let mut taken = TakenIn { events: Vec::new(), rows: Vec::with_capacity(rows.len()), in_review: false };
    for row in rows {
        let mut effect = RowEffect::default();
        let event: Option<ProspectEvent> = match after.status {
            Status::Unregistered => {
                effect.change = Change::Created;
                Some(first(row)?.into())
            }
            Status::Live => after.heard(row, rule, &mut effect).map(Into::into),
            Status::Deleted if after.erased => return Err(ProspectError::Erased),
            Status::Deleted | Status::Merged { .. } => return Err(ProspectError::Deleted),
        };
        if let Some(event) = event {
            after.evolve(&event);
            taken.events.push(event);
        }
        taken.rows.push(effect);
    }
    taken.in_review = after.open_review().is_some();
    Ok(taken)
}

fn first(row: &ProspectSaid) -> Result<ProspectRegistered, ProspectError> {
    let register = RegisterProspect(UpdateProspect {
        changes: row.profile.clone(),
        personal: row.fields.clone(),
        company_id: Some(row.company_id),
        external_refs: Some(row.external_refs.clone()),
        attributes: Some(row.attributes.clone()),
    });
    let mut event = super::decide::registered(register)?;
    if let Personal::Open(personal) = &mut event.personal {
        personal.company_hint = row.hint.clone();
    }
    event.said = Some(row.said.clone());
    event.review = row.review;
    Ok(event)
}

impl Prospect {
    /// What a row says that is news about a live person; none if nothing is.
    fn heard(&self, row: &ProspectSaid, rule: &ConflictRule, effect: &mut RowEffect) -> Option<ProspectImported> {
        let said = &row.said;
        let mut conflicts = Vec::new();
        let mut judge = |declined: &mut BTreeMap<String, Value>, field: &str, stands: &Value, new: &Value| {
            let verdict = self.provenance.judge(rule, said, field, stands, new);
            let wins = verdict == Verdict::Wins;
            let (kept, lost) = if wins { (new, stands) } else { (stands, new) };
            conflicts.push(Conflict { row: said.row, field: field.to_owned(), kept: kept.clone(), lost: lost.clone() });
            if verdict == Verdict::Loses {
                declined.insert(field.to_owned(), new.clone());
            }
            wins
        };
        let fills = |field: &str, new: &Value| !self.provenance.was_taken_away(said, field, new);
        let mut declined = BTreeMap::new();
        let changes = self
            .profile
            .settle(row.profile.clone(), fills, |field, stands, new| judge(&mut declined, field, stands, new));
        let company_id = match (self.company_id, row.company_id) {
            // By a pointer, the person is there already.
            (Some(stands), Some(_)) if row.company_stands_for.contains(&stands) => None,
            (Some(stands), Some(new)) if stands != new => {
                let wins = judge(&mut declined, "company_id", &stands.to_string().into(), &new.to_string().into());
                wins.then_some(new)
            }
            // Whom somebody took away from this company stays away, until the list says another one.
            (None, Some(new)) if self.provenance.was_taken_away(said, "company_id", &new.to_string().into()) => None,
            (None, new) => new,
            _ => None,
        };
        let mut fields = row.fields.clone();
        let country = row.profile.country.as_ref().unwrap_or(&self.profile.country).as_ref();
        place_phones(&mut fields, country);
        let mut personal = PersonalImported::default();
        let mut personally = BTreeMap::new();
        personal.fields =
            self.personal.fields.settle(fields, fills, |field, stands, new| judge(&mut personally, field, stands, new));
        let mut room = self.personal.attributes.clone();
        for (key, value) in row.attributes.values() {
            match self.personal.attributes.get(key) {
                Some(stands) if stands == value => {}
                Some(stands) => {
                    if judge(&mut personally, &attribute_field(key), stands, value) {
                        personal.attributes.insert(key.to_owned(), value.clone());
                    }
                }
                None if !fills(&attribute_field(key), value) => {}
                None if room.insert_if_room(key, value.clone()) => {
                    personal.attributes.insert(key.to_owned(), value.clone());
                }
                None => effect.left_out.push(attribute_field(key)),
            }
        }
        personal.declined = personally;
        if row.may_be_known && self.known_as.is_none() {
            personal.known_as = row.email().map(|email| KnownAs { company_id: row.company_id, email });
        }
        effect.conflicts = conflicts;
        let refs = &self.personal.external_refs;
        let new_refs = row.external_refs.difference(refs);
        personal.external_refs = new_refs.take(ExternalRef::MANY_MAX.saturating_sub(refs.len())).cloned().collect();
        if row.external_refs.iter().any(|one| !refs.contains(one) && !personal.external_refs.contains(one)) {
            effect.left_out.push("external_refs".to_owned());
        }
        // Where a person was forgotten there is nothing to add to.
        if self.personal_erased {
            personal = PersonalImported::default();
        }
        let changes_person = personal.changes_something();
        let changed = !changes.is_empty() || company_id.is_some() || changes_person;
        if changed {
            effect.change = Change::Updated;
        }
        if !changed && declined.is_empty() && personal.declined.is_empty() {
            return None;
        }
        let personal = (changes_person || !personal.declined.is_empty()).then_some(Personal::Open(personal));
        Some(ProspectImported { said: said.clone(), changes, company_id, declined, personal })
    }
}

impl ProspectImported {
    /// Whether the person is another one after it; else the row only said what did not prevail.
    pub fn changes_something(&self) -> bool {
        let personally = self
            .personal
            .as_ref()
            .is_some_and(|personal| personal.open().is_none_or(PersonalImported::changes_something));
        !self.changes.is_empty() || self.company_id.is_some() || personally
    }

    pub(super) fn apply_to(&self, prospect: &mut Prospect) {
        let said = &self.said;
        let Prospect { profile, provenance, .. } = prospect;
        let mut replaced = BTreeMap::new();
        profile.replaced(&self.changes, |field, stood| {
            replaced.insert(field, stood);
        });
        for field in self.changes.names() {
            provenance.replace(Some(said), field, replaced.get(field));
        }
        profile.apply(&self.changes);
        if let Some(company_id) = self.company_id {
            let stood = prospect.company_id.map(|id| Value::from(id.to_string()));
            prospect.provenance.replace(Some(said), "company_id", stood.as_ref());
            prospect.company_id = Some(company_id);
            prospect.left_alone = false;
        }
        for (field, value) in &self.declined {
            prospect.provenance.decline(said, field, value);
        }
        match &self.personal {
            Some(Personal::Open(personal)) => personal.apply_to(said, prospect),
            Some(Personal::Erased) => prospect.forget(),
            Some(Personal::Sealed(_)) | None => {}
        }
    }
}

impl PersonalImported {
    fn changes_something(&self) -> bool {
        !self.fields.is_empty() || !self.external_refs.is_empty() || !self.attributes.is_empty()
    }

    fn apply_to(&self, said: &Said, prospect: &mut Prospect) {
        let Prospect { personal, provenance, .. } = prospect;
        let mut replaced = BTreeMap::new();
        personal.fields.replaced(&self.fields, |field, stood| {
            replaced.insert(field, stood);
        });
        for field in self.fields.names() {
            provenance.replace(Some(said), field, replaced.get(field));
        }
        personal.fields.apply(&self.fields);
        personal.external_refs.extend(self.external_refs.iter().cloned());
        for (key, value) in &self.attributes {
            provenance.replace(Some(said), &attribute_field(key), personal.attributes.get(key));
            personal.attributes.set(key, value.clone());
        }
        for (field, value) in &self.declined {
            provenance.decline(said, field, value);
        }
        if self.known_as.is_some() {
            prospect.known_as.clone_from(&self.known_as);
        }
    }
}

impl Prospect {
    /// An import has made this person: it knows it by its address.
    pub(super) fn get_known(&mut self) {
        let email = self.personal.fields.email.as_ref().map(crate::value::EmailAddress::key);
        self.known_as = email.map(|email| KnownAs { company_id: self.company_id, email });
    }
}

/// How `import_id` is taken back from the prospect of these events.
pub fn undo(events: &[ProspectEvent], import_id: Uuid) -> Undo<ProspectEvent> {
    let part = |event: &ProspectEvent| match event {
        ProspectEvent::ProspectImportUndone(undone) => Part::TakesBack(undone.import_id, undone.before.is_some()),
        event => event.import_id().map_or(Part::None, Part::Of),
    };
    match undo::begin(events, import_id, part) {
        Undo::By(begun) => Undo::By(back_to(&events[..begun], import_id).into()),
        Undo::Nothing => Undo::Nothing,
        Undo::Done => Undo::Done,
        Undo::ChangedSince => Undo::ChangedSince,
    }
}

/// The event that makes the person again what these events made of it.
fn back_to(events: &[ProspectEvent], import_id: Uuid) -> ProspectImportUndone {
    let mut event = ProspectImportUndone { import_id, before: None, personal: None };
    if events.is_empty() {
        return event;
    }
    let mut before = Prospect::default();
    for event in events {
        before.evolve(event);
    }
    let Prospect { profile, company_id, review, left_alone, personal, provenance, known_as, personal_erased, .. } =
        before;
    event.before = Some(ProspectBefore { profile, company_id, review, left_alone });
    if !personal_erased {
        event.personal = Some(Personal::Open(PersonalBefore { profile: personal, provenance, known_as }));
    }
    event
}

impl ProspectEvent {
    /// The import that led to it.
    pub fn import_id(&self) -> Option<Uuid> {
        match self {
            Self::ProspectRegistered(registered) => registered.said.as_ref().map(|said| said.import_id),
            Self::ProspectImported(imported) => Some(imported.said.import_id),
            _ => None,
        }
    }

    /// The import that led to it or was taken back by it, for its history.
    pub fn traced_to(&self) -> Option<Traced> {
        match self {
            Self::ProspectRegistered(registered) => registered.said.as_ref().map(Traced::to_row),
            Self::ProspectImported(imported) => Some(Traced::to_row(&imported.said)),
            Self::ProspectImportUndone(undone) => Some(Traced::to_undoing(undone.import_id)),
            event => event.import_id().map(Traced::to_import),
        }
    }
}

/// Whether anything in the members that `POST /v1/prospects` takes tells one person from another.
pub fn identifies(members: &Map<String, Value>) -> bool {
    ["first_name", "last_name", "email", "phone", "mobile_phone", "external_refs"]
        .iter()
        .any(|name| members.get(*name).is_some_and(|value| !value.is_null()))
}

/// Said of a row that has fields of a person and nothing that tells it from another.
pub fn unidentified() -> crate::field_error::Invalid {
    nameless()
}

impl fmt::Debug for ProspectSaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProspectSaid")
            .field("said", &self.said)
            .field("company_id", &self.company_id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PersonalImported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PersonalImported").field(&Hidden).finish()
    }
}

impl fmt::Debug for PersonalBefore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PersonalBefore").field(&Hidden).finish()
    }
}

impl fmt::Debug for KnownAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KnownAs").field(&Hidden).finish()
    }
}
