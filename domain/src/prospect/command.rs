//! What can be asked of a prospect, and how a request becomes a command.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;
use uuid::Uuid;

use super::{PersonalFieldChanges, ProspectChanges};
use crate::field_error::{FieldErrors, Invalid, pointer_to};
use crate::profile::Hidden;
use crate::review::ProspectResolution;
use crate::value::{AttributesPatch, ExternalRef, Line};

/// The members of a prospect's answer that no request may send.
const READ_ONLY: &[&str] = &[
    "prospect_id",
    "id",
    "version",
    "position",
    "epoch",
    "created_at",
    "updated_at",
    "deleted_at",
    "erased_at",
    "flags",
    "tenant_id",
];

/// A command to a prospect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProspectCommand {
    /// Make it.
    Register(RegisterProspect),
    /// Change fields.
    Update(UpdateProspect),
    /// Give it a company, or none.
    Assign(AssignProspect),
    /// Decide its review.
    Resolve(ResolveProspect),
    /// Delete it, softly.
    Delete,
    /// Undo the deletion; a live prospect stays as it is.
    Restore,
    /// Forget the person, for good; one that was erased stays as it is.
    Erase(EraseProspect),
}

/// A prospect to be: the same fields as an update's, of which one that is cleared is as one that is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegisterProspect(pub UpdateProspect);

/// Changes to a prospect: none is "unchanged". `Debug` shows nothing personal.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UpdateProspect {
    /// Open fields.
    pub changes: ProspectChanges,
    /// Personal fields.
    pub personal: PersonalFieldChanges,
    /// The company; inner none takes it away.
    pub company_id: Option<Option<Uuid>>,
    /// The ids in other systems, as a whole.
    pub external_refs: Option<BTreeSet<ExternalRef>>,
    /// Attributes, key by key.
    pub attributes: Option<AttributesPatch>,
}

/// The company that a prospect is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssignProspect {
    /// The company; none takes it away.
    pub company_id: Option<Uuid>,
}

/// Why a person is to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EraseProspect {
    /// A short text that stays in the log in the clear, for ever: it must hold no personal data (`request 4711`, `retention`).
    pub reason: Line<255>,
}

/// What is decided about a prospect in review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolveProspect {
    /// What.
    pub resolution: ProspectResolution,
    /// The company that it has and that was seen to be deleted: then it is in review although it has one.
    pub deleted_company: Option<Uuid>,
}

impl RegisterProspect {
    /// Reads the body of a request: an object of fields, null being the same as absent.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(body: Value) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::default();
        let register = UpdateProspect::read(body, &mut errors);
        if errors.is_empty() && !register.identifies() {
            errors.push("", super::decide::nameless());
        }
        errors.or_value(Self(register))
    }
}

impl UpdateProspect {
    /// Reads the body of a request, a JSON Merge Patch: null clears a field, `attributes` is merged key by key, lists are
    /// replaced as a whole; `company_id` assigns.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(body: Value) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::default();
        let update = Self::read(body, &mut errors);
        errors.or_value(update)
    }

    fn read(body: Value, errors: &mut FieldErrors) -> Self {
        let mut update = Self::default();
        let Value::Object(members) = body else {
            errors.push("", Invalid::wrong_type("an object"));
            return update;
        };
        for (name, value) in members {
            let Some(value) = update.changes.read(&name, value, errors) else { continue };
            let Some(value) = update.personal.read(&name, value, errors) else { continue };
            match name.as_str() {
                "company_id" => match company_id(&value) {
                    Ok(id) => update.company_id = Some(id),
                    Err(invalid) => errors.push("/company_id", invalid),
                },
                "external_refs" => {
                    let refs = match value {
                        Value::Null => BTreeSet::new(),
                        value => ExternalRef::many_from_json(value, "/external_refs", errors),
                    };
                    update.external_refs = Some(refs);
                }
                "attributes" => update.attributes = Some(AttributesPatch::from_json(value, "/attributes", errors)),
                name if READ_ONLY.contains(&name) => errors.push(pointer_to("", name), Invalid::read_only()),
                name => errors.push(pointer_to("", name), Invalid::unknown_field()),
            }
        }
        update
    }

    /// Whether a prospect of only these fields could be told from another.
    fn identifies(&self) -> bool {
        let fields = &self.personal;
        matches!(fields.first_name, Some(Some(_)))
            || matches!(fields.last_name, Some(Some(_)))
            || matches!(fields.email, Some(Some(_)))
            || matches!(fields.phone, Some(Some(_)))
            || matches!(fields.mobile_phone, Some(Some(_)))
            || self.external_refs.as_ref().is_some_and(|refs| !refs.is_empty())
    }
}

impl AssignProspect {
    /// Reads `{company_id}`, which must be there, be it null.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(body: Value) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::default();
        let Value::Object(members) = body else {
            return Err(FieldErrors::one("", Invalid::wrong_type("an object {company_id}")));
        };
        let mut assigned = None;
        if !members.contains_key("company_id") {
            errors.push("/company_id", Invalid::required("is required; null takes the company away"));
        }
        for (name, value) in members {
            if name != "company_id" {
                errors.push(pointer_to("", &name), Invalid::unknown_field());
                continue;
            }
            match company_id(&value) {
                Ok(id) => assigned = id,
                Err(invalid) => errors.push("/company_id", invalid),
            }
        }
        errors.or_value(Self { company_id: assigned })
    }
}

impl EraseProspect {
    /// The command that erases a person again who was erased before, in another life of the log.
    ///
    /// # Panics
    /// Never: the reason is a short line.
    pub fn again() -> ProspectCommand {
        let reason = Line::parse("erased before, reapplied").expect("a short line");
        ProspectCommand::Erase(Self { reason })
    }

    /// Reads `{reason}`.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(body: Value) -> Result<Self, FieldErrors> {
        const REQUIRED: &str = "is required: why the person is erased, such as \"request 4711\"; it stays in the log for ever, so it must hold \
                                no personal data";
        let mut errors = FieldErrors::default();
        let Value::Object(members) = body else {
            return Err(FieldErrors::one("", Invalid::wrong_type("an object {reason}")));
        };
        let mut reason = None;
        for (name, value) in members {
            match (name.as_str(), value) {
                ("reason", Value::Null) => {}
                ("reason", Value::String(text)) => match Line::parse(&text) {
                    Ok(line) => reason = Some(line),
                    Err(invalid) => errors.push("/reason", invalid),
                },
                ("reason", _) => errors.push("/reason", Invalid::wrong_type("a string")),
                (name, _) => errors.push(pointer_to("", name), Invalid::unknown_field()),
            }
        }
        if let Some(reason) = reason {
            return errors.or_value(Self { reason });
        }
        if !errors.0.iter().any(|error| error.pointer == "/reason") {
            errors.push("/reason", Invalid::required(REQUIRED));
        }
        Err(errors)
    }
}

impl fmt::Debug for UpdateProspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdateProspect")
            .field("changes", &self.changes)
            .field("personal", &self.personal)
            .field("company_id", &self.company_id)
            .field("external_refs", &self.external_refs.as_ref().map(|_| Hidden))
            .field("attributes", &self.attributes.as_ref().map(|_| Hidden))
            .finish()
    }
}

fn company_id(value: &Value) -> Result<Option<Uuid>, Invalid> {
    match value {
        Value::Null => Ok(None),
        // Only the hyphenated form: the others would be a second way to write one id.
        Value::String(text) if text.len() == 36 => Uuid::try_parse(text).map(Some).map_err(|_| Invalid::id()),
        Value::String(_) => Err(Invalid::id()),
        _ => Err(Invalid::wrong_type("a string")),
    }
}
