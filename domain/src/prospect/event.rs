//! What happens to a prospect.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::import::{ProspectImportUndone, ProspectImported};
use super::{PersonalChanges, PersonalProfile, ProspectChanges, ProspectProfile};
use crate::claim::{Claim, ClaimKey, LIVE};
use crate::events::events;
use crate::personal::{Personal, PersonalMember};
use crate::provenance::Said;
use crate::review::{ProspectResolution, ReviewReason};
use crate::value::Line;

events! {
    /// An event of a prospect.
    pub enum ProspectEvent {
        /// It came into being.
        ProspectRegistered(ProspectRegistered) = 1,
        /// Fields changed.
        ProspectProfileUpdated(ProspectProfileUpdated) = 1,
        /// It was given a company, or none.
        ProspectAssigned(ProspectAssigned) = 1,
        /// A row of an import said something new.
        ProspectImported(ProspectImported) = 1,
        /// An import was taken back from it.
        ProspectImportUndone(ProspectImportUndone) = 1,
        /// Somebody decided its review.
        ProspectReviewResolved(ProspectReviewResolved) = 1,
        /// It was deleted; its history stays.
        ProspectDeleted(ProspectDeleted) = 1,
        /// Its deletion was undone.
        ProspectRestored(ProspectRestored) = 1,
        /// The person was forgotten: the last event of the record.
        ProspectErased(ProspectErased) = 1,
    }
}

/// Everything that a prospect had when it was registered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProspectRegistered {
    /// The open fields.
    pub profile: ProspectProfile,
    /// The company that it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub company_id: Option<Uuid>,
    /// All that identifies the person.
    pub personal: Personal<PersonalProfile>,
    /// The row of an import that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Said>,
    /// Why someone should look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<ReviewReason>,
}

/// The fields that changed, and only those.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProspectProfileUpdated {
    /// What changed in the open fields.
    #[serde(default, skip_serializing_if = "ProspectChanges::is_empty")]
    pub changes: ProspectChanges,
    /// What changed in the personal ones; absent if nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personal: Option<Personal<PersonalChanges>>,
}

/// The prospect's company from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProspectAssigned {
    /// The company; null if it has none now.
    pub company_id: Option<Uuid>,
}

/// Somebody decided the prospect's review. With a company it is the prospect's company from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProspectReviewResolved {
    /// What was decided.
    #[serde(flatten)]
    pub resolution: ProspectResolution,
}

/// The prospect was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProspectDeleted {}

/// The prospect's deletion was undone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProspectRestored {}

/// The person was forgotten, for good: with this event the person's key is emptied. When and by whom stands beside every event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProspectErased {
    /// Why; never personal data.
    pub reason: Line<255>,
}

impl ProspectReviewResolved {
    /// The company that the prospect has from now on, where that was decided.
    pub fn company_id(&self) -> Option<Uuid> {
        match self.resolution {
            ProspectResolution::Assigned { company_id } | ProspectResolution::Created { company_id } => {
                Some(company_id)
            }
            ProspectResolution::LeftAlone => None,
        }
    }
}

impl ProspectEvent {
    /// A prospect is only ever given a live company.
    fn required_claim(&self) -> Option<Claim> {
        let company_id = match self {
            Self::ProspectRegistered(registered) => registered.company_id,
            Self::ProspectAssigned(assigned) => assigned.company_id,
            Self::ProspectImported(imported) => imported.company_id,
            Self::ProspectReviewResolved(resolved) => resolved.company_id(),
            Self::ProspectProfileUpdated(_)
            | Self::ProspectImportUndone(_)
            | Self::ProspectDeleted(_)
            | Self::ProspectRestored(_)
            | Self::ProspectErased(_) => None,
        };
        company_id.map(|id| Claim { kind: LIVE, key: ClaimKey::Plain(id.to_string()) })
    }

    fn personal_member(&mut self) -> Option<&mut dyn PersonalMember> {
        match self {
            Self::ProspectRegistered(registered) => Some(&mut registered.personal),
            Self::ProspectProfileUpdated(updated) => {
                updated.personal.as_mut().map(|member| member as &mut dyn PersonalMember)
            }
            Self::ProspectImported(imported) => {
                imported.personal.as_mut().map(|member| member as &mut dyn PersonalMember)
            }
            Self::ProspectImportUndone(undone) => {
                undone.personal.as_mut().map(|member| member as &mut dyn PersonalMember)
            }
            Self::ProspectAssigned(_)
            | Self::ProspectReviewResolved(_)
            | Self::ProspectDeleted(_)
            | Self::ProspectRestored(_)
            | Self::ProspectErased(_) => None,
        }
    }
}
