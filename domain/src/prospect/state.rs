//! What a prospect is after its events.

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{PersonalProfile, ProspectCommand, ProspectError, ProspectEvent, ProspectProfile};
use crate::claim::{Claim, ClaimKey, Match};
use crate::personal::Personal;
use crate::record::{Context, Record};
use crate::status::Status;
use crate::value::{ExternalRef, phone_number};

/// A prospect, its personal data in the clear.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prospect {
    /// Whether it is there.
    pub status: Status,
    /// The open fields.
    pub profile: ProspectProfile,
    /// The company that it was given, whatever became of that.
    pub company_id: Option<Uuid>,
    /// All that identifies the person; empty once the person was erased.
    pub personal: PersonalProfile,
    /// Whether the person was erased: what is missing in `personal` is not absent but forgotten.
    pub personal_erased: bool,
}

impl Prospect {
    /// What a person should look at.
    pub fn flags(&self) -> Vec<&'static str> {
        phone_number::flags(self.personal.fields.phone.as_ref(), self.personal.fields.mobile_phone.as_ref())
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

    /// Takes in a personal member. One that is still sealed says nothing: whoever loads events opens them first.
    fn take<T>(&mut self, member: &Personal<T>, apply: impl FnOnce(&mut PersonalProfile, &T)) {
        match member {
            Personal::Open(data) => apply(&mut self.personal, data),
            Personal::Sealed(_) => {}
            Personal::Erased => {
                self.personal = PersonalProfile::default();
                self.personal_erased = true;
            }
        }
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
        match event {
            ProspectEvent::ProspectRegistered(registered) => {
                *self = Self {
                    status: Status::Live,
                    profile: registered.profile.clone(),
                    company_id: registered.company_id,
                    ..Self::default()
                };
                self.take(&registered.personal, PersonalProfile::clone_from);
            }
            ProspectEvent::ProspectProfileUpdated(updated) => {
                self.profile.apply(&updated.changes);
                if let Some(personal) = &updated.personal {
                    self.take(personal, PersonalProfile::apply);
                }
            }
            ProspectEvent::ProspectAssigned(assigned) => self.company_id = assigned.company_id,
            ProspectEvent::ProspectDeleted(_) => self.status = Status::Deleted,
            ProspectEvent::ProspectRestored(_) => self.status = Status::Live,
        }
    }

    fn claims(&self, _id: Uuid) -> Vec<Claim> {
        if self.status != Status::Live {
            return Vec::new();
        }
        let claim = |key| Claim { kind: "prospect_ref", key: ClaimKey::Personal(key) };
        let mut claims: Vec<_> = self.personal.external_refs.iter().map(ExternalRef::key).map(claim).collect();
        claims.sort_unstable();
        claims
    }

    fn matches(&self, _id: Uuid) -> Vec<Match> {
        let email = self.personal.fields.email.as_ref().filter(|_| self.status == Status::Live);
        email.into_iter().map(|email| Match { kind: "email", key: ClaimKey::Personal(email.key()) }).collect()
    }

    fn weight_bytes(&self) -> usize {
        let refs = &self.personal.external_refs;
        size_of::<Self>()
            + self.profile.heap_bytes()
            + self.personal.fields.heap_bytes()
            + refs.iter().map(|reference| size_of::<ExternalRef>() + reference.heap_bytes()).sum::<usize>()
            + self.personal.attributes.heap_bytes()
    }
}
