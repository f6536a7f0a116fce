//! What a prospect is after its events.

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::import::{KnownAs, ProspectImportUndone};
use super::{PersonalProfile, ProspectCommand, ProspectError, ProspectEvent, ProspectProfile, ProspectProfileUpdated};
use crate::claim::{Claim, ClaimKey, Match};
use crate::personal::Personal;
use crate::provenance::{Provenance, attribute_field};
use crate::record::{Context, Record};
use crate::review::ReviewReason;
use crate::status::Status;
use crate::value::{AttributeChanges, ExternalRef, phone_number};

/// A prospect, its personal data in the clear.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prospect {
    /// Whether it is there.
    pub status: Status,
    /// The open fields.
    pub profile: ProspectProfile,
    /// The company that it was given, whatever became of that.
    pub company_id: Option<Uuid>,
    /// All that identifies the person; empty once the person was erased.
    pub personal: PersonalProfile,
    /// Whether the person's data is gone: what is missing in `personal` is not absent but forgotten.
    pub personal_erased: bool,
    /// Whether the event that erased the person is there; it is the last one. Who reads an earlier part of the history after the person's
    /// key was emptied sees `personal_erased` without it.
    pub erased: bool,
    /// Where its values come from.
    pub provenance: Provenance,
    /// As whom imports know the person.
    pub known_as: Option<KnownAs>,
    /// Why someone should look at it.
    pub review: Option<ReviewReason>,
    /// Whether somebody looked at it and left it as it is. Holds until it is given another company, or none.
    pub left_alone: bool,
}

impl Prospect {
    /// What a person should look at.
    pub fn flags(&self) -> Vec<&'static str> {
        phone_number::flags(self.personal.fields.phone.as_ref(), self.personal.fields.mobile_phone.as_ref())
    }

    /// Why it is in review, while it is. Whether its company is still there is another record's matter.
    pub fn open_review(&self) -> Option<ReviewReason> {
        let reason = self.review.unwrap_or(ReviewReason::NoCompany);
        (self.status == Status::Live && self.company_id.is_none() && !self.left_alone).then_some(reason)
    }

    /// What lists of prospects are sorted by: last, then first name in lower case; none where there is neither.
    pub fn name_sort(&self) -> Option<String> {
        let fields = &self.personal.fields;
        match (&fields.last_name, &fields.first_name) {
            (Some(last), Some(first)) => Some(format!("{last} {first}").to_lowercase()),
            (Some(name), None) | (None, Some(name)) => Some(name.as_str().to_lowercase()),
            (None, None) => None,
        }
    }

    /// What a person changes is from no import any more.
    fn replaced_by_hand(&mut self, updated: &ProspectProfileUpdated) {
        let provenance = &mut self.provenance;
        self.profile.replaced(&updated.changes, |field, stood| provenance.replace(None, field, Some(&stood)));
        let Some(Personal::Open(changes)) = &updated.personal else { return };
        let personal = &self.personal;
        personal.fields.replaced(&changes.fields, |field, stood| provenance.replace(None, field, Some(&stood)));
        for key in changes.attributes.iter().flat_map(AttributeChanges::keys) {
            provenance.replace(None, &attribute_field(key), personal.attributes.get(key));
        }
    }

    fn assign_by_hand(&mut self, company_id: Option<Uuid>) {
        let stood = self.company_id.map(|id| id.to_string().into());
        self.provenance.replace(None, "company_id", stood.as_ref());
        self.company_id = company_id;
        self.left_alone = false;
    }

    fn go_back(&mut self, undone: &ProspectImportUndone) {
        let Some(before) = &undone.before else {
            self.status = Status::Deleted;
            return;
        };
        self.profile = before.profile.clone();
        self.company_id = before.company_id;
        self.review = before.review;
        self.left_alone = before.left_alone;
        match &undone.personal {
            Some(Personal::Open(personal)) => {
                self.personal = personal.profile.clone();
                self.provenance = personal.provenance.clone();
                self.known_as.clone_from(&personal.known_as);
            }
            Some(Personal::Erased) => self.forget(),
            Some(Personal::Sealed(_)) | None => {}
        }
    }

    /// Takes in a personal member. One that is still sealed says nothing: whoever loads events opens them first.
    fn take<T>(&mut self, member: &Personal<T>, apply: impl FnOnce(&mut PersonalProfile, &T)) {
        match member {
            Personal::Open(data) => apply(&mut self.personal, data),
            Personal::Sealed(_) => {}
            Personal::Erased => self.forget(),
        }
    }

    /// Nothing of the person is left: no value, nothing that it is known by, and no hash of a value that once stood here.
    pub(super) fn forget(&mut self) {
        self.personal = PersonalProfile::default();
        self.provenance = Provenance::default();
        self.known_as = None;
        self.personal_erased = true;
    }
}

impl Aggregate for Prospect {
    const TYPE: &'static str = "prospect";
    type Command = ProspectCommand;
    type Event = ProspectEvent;
    type Error = ProspectError;
    type Services = Context;

    async fn handle(
        &mut self,
        command: ProspectCommand,
        context: &Context,
        sink: &EventSink<Self>,
    ) -> Result<(), ProspectError> {
        for event in self.decide(command, context)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: ProspectEvent) {
        self.evolve(&event);
    }
}

impl Record for Prospect {
    const PERSONAL: bool = true;

    fn decide(&self, command: ProspectCommand, _context: &Context) -> Result<Vec<ProspectEvent>, ProspectError> {
        super::decide::decide(self, command)
    }

    fn evolve(&mut self, event: &ProspectEvent) {
        // Nothing follows the event that erases; whatever is said to brings nobody back.
        if self.erased {
            return;
        }
        match event {
            ProspectEvent::ProspectRegistered(registered) => {
                *self = Self {
                    status: Status::Live,
                    profile: registered.profile.clone(),
                    company_id: registered.company_id,
                    provenance: Provenance::of(registered.said.as_ref()),
                    review: registered.review,
                    ..Self::default()
                };
                self.take(&registered.personal, PersonalProfile::clone_from);
                if registered.said.is_some() {
                    self.get_known();
                }
            }
            ProspectEvent::ProspectProfileUpdated(updated) => {
                self.replaced_by_hand(updated);
                self.profile.apply(&updated.changes);
                if let Some(personal) = &updated.personal {
                    self.take(personal, PersonalProfile::apply);
                }
            }
            ProspectEvent::ProspectAssigned(assigned) => {
                self.assign_by_hand(assigned.company_id);
            }
            ProspectEvent::ProspectReviewResolved(resolved) => match resolved.company_id() {
                None => self.left_alone = true,
                company_id => self.assign_by_hand(company_id),
            },
            ProspectEvent::ProspectImported(imported) => imported.apply_to(self),
            ProspectEvent::ProspectImportUndone(undone) => self.go_back(undone),
            ProspectEvent::ProspectDeleted(_) => self.status = Status::Deleted,
            ProspectEvent::ProspectRestored(_) => self.status = Status::Live,
            ProspectEvent::ProspectErased(_) => {
                self.forget();
                self.erased = true;
                self.status = Status::Deleted;
                self.review = None;
            }
        }
    }

    fn claims(&self, _id: Uuid) -> Vec<Claim> {
        if self.status != Status::Live {
            return Vec::new();
        }
        let claim = |kind, key| Claim { kind, key: ClaimKey::Personal(key) };
        let refs = self.personal.external_refs.iter();
        let mut claims: Vec<_> = refs.map(|reference| claim("prospect_ref", reference.key())).collect();
        claims.extend(self.known_as.iter().map(|known_as| claim(KnownAs::CLAIM, known_as.key())));
        claims.sort_unstable();
        claims
    }

    fn matches(&self, _id: Uuid) -> Vec<Match> {
        let email = self.personal.fields.email.as_ref().filter(|_| self.status == Status::Live);
        email.into_iter().map(|email| Match { kind: "email", key: ClaimKey::Personal(email.key()) }).collect()
    }

    fn is_erased(&self) -> bool {
        self.erased
    }

    fn weight_bytes(&self) -> usize {
        let refs = &self.personal.external_refs;
        size_of::<Self>()
            + self.profile.heap_bytes()
            + self.personal.fields.heap_bytes()
            + refs.iter().map(|reference| size_of::<ExternalRef>() + reference.heap_bytes()).sum::<usize>()
            + self.personal.attributes.heap_bytes()
            + self.provenance.heap_bytes()
            + self.known_as.as_ref().map_or(0, |known_as| known_as.email.len())
    }
}
