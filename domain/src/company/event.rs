//! What happens to a company.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::import::{CompanyImportUndone, CompanyImported, CompanyReviewRequested};
use super::merge::{CompanyAbsorbed, CompanyMerged, CompanySeparated, CompanyUnmerged};
use super::{CompanyChanges, CompanyProfile};
use crate::claim::Claim;
use crate::events::events;
use crate::personal::PersonalMember;
use crate::provenance::Said;
use crate::review::CompanyResolution;
use crate::value::{AttributeChanges, Attributes, Domain, ExternalRef, SetChanges, SocialMedia};

events! {
    /// An event of a company.
    pub enum CompanyEvent {
        /// It came into being.
        CompanyRegistered(CompanyRegistered) = 1,
        /// Plain fields changed.
        CompanyProfileUpdated(CompanyProfileUpdated) = 1,
        /// It got another domain, or lost it.
        CompanyDomainChanged(CompanyDomainChanged) = 1,
        /// Further domains came or went.
        CompanyAdditionalDomainsChanged(SetChanges<Domain>) = 1,
        /// Ids in other systems came or went.
        CompanyExternalRefsChanged(SetChanges<ExternalRef>) = 1,
        /// Attributes changed.
        CompanyAttributesChanged(AttributeChanges) = 1,
        /// A page on social media was added.
        CompanySocialMediaAdded(SocialMedia) = 1,
        /// A page on social media was removed.
        CompanySocialMediaRemoved(CompanySocialMediaRemoved) = 1,
        /// A row of an import said something new.
        CompanyImported(CompanyImported) = 1,
        /// An import was taken back from it.
        CompanyImportUndone(CompanyImportUndone) = 1,
        /// Someone should look at it.
        CompanyReviewRequested(CompanyReviewRequested) = 1,
        /// Somebody decided its review.
        CompanyReviewResolved(CompanyReviewResolved) = 1,
        /// It was deleted; its history stays.
        CompanyDeleted(CompanyDeleted) = 1,
        /// Its deletion was undone.
        CompanyRestored(CompanyRestored) = 1,
        /// Another company was merged into it.
        CompanyAbsorbed(CompanyAbsorbed) = 1,
        /// It was merged into another company.
        CompanyMerged(CompanyMerged) = 1,
        /// Another company was taken out of it again.
        CompanySeparated(CompanySeparated) = 1,
        /// Its merge into another company was undone.
        CompanyUnmerged(CompanyUnmerged) = 1,
    }
}

/// Everything that a company had when it was registered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CompanyRegistered {
    /// Its plain fields.
    pub profile: CompanyProfile,
    /// Its domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    /// Its further domains.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub additional_domains: BTreeSet<Domain>,
    /// Its ids in other systems.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub external_refs: BTreeSet<ExternalRef>,
    /// Its pages on social media.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub social_media: Vec<SocialMedia>,
    /// What has no field of its own.
    #[serde(skip_serializing_if = "Attributes::is_empty")]
    pub attributes: Attributes,
    /// The row of an import that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<Said>,
}

/// The plain fields that changed, and only those.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompanyProfileUpdated {
    /// What changed.
    pub changes: CompanyChanges,
}

/// The company's domain from now on. If it was one of the additional domains, it is none of them any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompanyDomainChanged {
    /// The new domain; null if it has none now.
    pub domain: Option<Domain>,
}

/// A page on social media that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompanySocialMediaRemoved {
    /// Which one.
    pub social_media_id: Uuid,
}

/// Somebody decided the company's review: nobody is asked again, also where a merge that it led to is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompanyReviewResolved {
    /// What was decided.
    #[serde(flatten)]
    pub resolution: CompanyResolution,
}

/// The company was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompanyDeleted {}

/// The company's deletion was undone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompanyRestored {}

impl CompanyEvent {
    #[expect(
        clippy::unused_self,
        reason = "the events of every aggregate are asked; none of a company's requires a claim"
    )]
    fn required_claim(&self) -> Option<Claim> {
        None
    }

    #[expect(
        clippy::unused_self,
        reason = "the events of every aggregate are asked; nothing about a company is personal"
    )]
    fn personal_member(&mut self) -> Option<&mut dyn PersonalMember> {
        None
    }
}
