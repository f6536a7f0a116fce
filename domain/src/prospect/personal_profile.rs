//! What identifies a person, as it is sealed in one piece, and what changes in it.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{PersonalFieldChanges, PersonalFields};
use crate::profile::Hidden;
use crate::review::CompanyHint;
use crate::value::{AttributeChanges, Attributes, ExternalRef, SetChanges};

/// All personal data of a prospect. `Debug` never shows it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PersonalProfile {
    /// The plain fields.
    pub fields: PersonalFields,
    /// Ids in other systems.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub external_refs: BTreeSet<ExternalRef>,
    /// What has no field of its own.
    #[serde(skip_serializing_if = "Attributes::is_empty")]
    pub attributes: Attributes,
    /// What a row of an import said about a company that it led not to.
    #[serde(skip_serializing_if = "CompanyHint::is_empty")]
    pub company_hint: CompanyHint,
}

/// What changed in a prospect's personal data. `Debug` never shows it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PersonalChanges {
    /// Plain fields.
    #[serde(skip_serializing_if = "PersonalFieldChanges::is_empty")]
    pub fields: PersonalFieldChanges,
    /// Ids in other systems.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_refs: Option<SetChanges<ExternalRef>>,
    /// Attributes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attributes: Option<AttributeChanges>,
}

impl PersonalProfile {
    /// Makes the changes.
    pub fn apply(&mut self, changes: &PersonalChanges) {
        self.fields.apply(&changes.fields);
        if let Some(changes) = &changes.external_refs {
            changes.apply_to(&mut self.external_refs);
        }
        if let Some(changes) = &changes.attributes {
            self.attributes.apply(changes);
        }
    }
}

impl PersonalChanges {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.external_refs.is_none() && self.attributes.is_none()
    }
}

impl fmt::Debug for PersonalProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("PersonalProfile");
        shown.field("fields", &self.fields);
        if !self.external_refs.is_empty() {
            shown.field("external_refs", &Hidden);
        }
        if !self.attributes.is_empty() {
            shown.field("attributes", &Hidden);
        }
        if !self.company_hint.is_empty() {
            shown.field("company_hint", &Hidden);
        }
        shown.finish()
    }
}

impl fmt::Debug for PersonalChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("PersonalChanges");
        shown.field("fields", &self.fields);
        if self.external_refs.is_some() {
            shown.field("external_refs", &Hidden);
        }
        if self.attributes.is_some() {
            shown.field("attributes", &Hidden);
        }
        shown.finish()
    }
}
