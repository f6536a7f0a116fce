//! What can be asked of a company, and how a request becomes a command.

use std::collections::BTreeSet;

use serde_json::Value;
use uuid::Uuid;

use super::{ADDITIONAL_DOMAINS_MAX, CompanyChanges};
use crate::field_error::{FieldErrors, Invalid, pointer_to};
use crate::value::social_media::NewSocialMedia;
use crate::value::{AttributesPatch, Domain, DomainOfHost, ExternalRef};

/// The members of a company's answer that no request may send.
const READ_ONLY: &[&str] = &[
    "company_id",
    "id",
    "version",
    "position",
    "epoch",
    "created_at",
    "updated_at",
    "deleted_at",
    "merged_into",
    "flags",
    "tenant_id",
];

/// A command to a company.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompanyCommand {
    /// Make it.
    Register(RegisterCompany),
    /// Change fields.
    Update(UpdateCompany),
    /// Add a page on social media; one that it has already changes nothing.
    AddSocialMedia(AddSocialMedia),
    /// Remove a page on social media.
    RemoveSocialMedia {
        /// Which one.
        social_media_id: Uuid,
    },
    /// Delete it, softly.
    Delete,
    /// Undo the deletion; a live company stays as it is.
    Restore,
}

/// A company to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegisterCompany {
    /// Plain fields; one that is cleared is as one that is absent.
    pub profile: CompanyChanges,
    /// The domain, with the host that led to it.
    pub domain: Option<DomainOfHost>,
    /// Further domains.
    pub additional_domains: BTreeSet<Domain>,
    /// Ids in other systems.
    pub external_refs: BTreeSet<ExternalRef>,
    /// Pages on social media.
    pub social_media: Vec<NewSocialMedia>,
    /// What has no field of its own.
    pub attributes: AttributesPatch,
}

/// Changes to a company: none is "unchanged".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdateCompany {
    /// Plain fields.
    pub changes: CompanyChanges,
    /// The domain; inner none takes it away.
    pub domain: Option<Option<DomainOfHost>>,
    /// The further domains, as a whole.
    pub additional_domains: Option<BTreeSet<Domain>>,
    /// The ids in other systems, as a whole.
    pub external_refs: Option<BTreeSet<ExternalRef>>,
    /// Attributes, key by key.
    pub attributes: Option<AttributesPatch>,
}

/// A page on social media to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddSocialMedia {
    /// The page.
    pub entry: NewSocialMedia,
}

impl RegisterCompany {
    /// Reads the body of a request: an object of fields, null being the same as absent.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(body: Value) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::default();
        let mut social_media = Vec::new();
        let read = Request::read(body, &mut errors, |value, errors| {
            if !value.is_null() {
                social_media = NewSocialMedia::many_from_json(value, "/social_media", errors);
            }
        });
        let update = read.update;
        let named = update.changes.name.as_ref().is_some_and(Option::is_some);
        let has_domain = update.domain.as_ref().is_some_and(Option::is_some);
        if !named && !has_domain && !read.name_or_domain_wrong {
            errors.push("/name", Invalid::required("is required where no domain is given"));
        }
        errors.or_value(Self {
            profile: update.changes,
            domain: update.domain.flatten(),
            additional_domains: update.additional_domains.unwrap_or_default(),
            external_refs: update.external_refs.unwrap_or_default(),
            social_media,
            attributes: update.attributes.unwrap_or_default(),
        })
    }
}

impl UpdateCompany {
    /// Reads the body of a request, a JSON Merge Patch: null clears a field, `attributes` is merged key by key, lists are
    /// replaced as a whole. `social_media` is refused: its entries have ids, and endpoints of their own.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(body: Value) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::default();
        let read = Request::read(body, &mut errors, |_, errors| {
            let detail = "is changed with POST /v1/companies/{id}/social-media and DELETE /v1/companies/{id}/social-media/{social_media_id}";
            errors.push("/social_media", Invalid::new("use_endpoint", detail));
        });
        errors.or_value(read.update)
    }
}

impl AddSocialMedia {
    /// Reads `{platform, url}`.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(body: Value) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::default();
        match NewSocialMedia::from_json(body, "", &mut errors) {
            Some(entry) => errors.or_value(Self { entry }),
            None => Err(errors),
        }
    }
}

/// What registering and updating read alike.
pub(super) struct Request {
    pub(super) update: UpdateCompany,
    /// Whether a name or domain was sent that could not be read: then it is not missing as well.
    name_or_domain_wrong: bool,
}

impl Request {
    pub(super) fn read(
        body: Value,
        errors: &mut FieldErrors,
        mut social_media: impl FnMut(Value, &mut FieldErrors),
    ) -> Self {
        let mut update = UpdateCompany::default();
        let mut name_or_domain_wrong = false;
        let Value::Object(members) = body else {
            errors.push("", Invalid::wrong_type("an object"));
            return Self { update, name_or_domain_wrong: true };
        };
        for (name, value) in members {
            let errors_before = errors.0.len();
            let Some(value) = update.changes.read(&name, value, errors) else {
                name_or_domain_wrong |= name == "name" && errors.0.len() > errors_before;
                continue;
            };
            match name.as_str() {
                "domain" => match domain_or_null(value) {
                    Ok(domain) => update.domain = Some(domain),
                    Err(invalid) => {
                        name_or_domain_wrong = true;
                        errors.push("/domain", invalid);
                    }
                },
                "additional_domains" => update.additional_domains = Some(domains(value, errors)),
                "external_refs" => {
                    let refs = match value {
                        Value::Null => BTreeSet::new(),
                        value => ExternalRef::many_from_json(value, "/external_refs", errors),
                    };
                    update.external_refs = Some(refs);
                }
                "attributes" => update.attributes = Some(AttributesPatch::from_json(value, "/attributes", errors)),
                "social_media" => social_media(value, errors),
                name if READ_ONLY.contains(&name) => errors.push(pointer_to("", name), Invalid::read_only()),
                name => errors.push(pointer_to("", name), Invalid::unknown_field()),
            }
        }
        if let (Some(Some(min)), Some(Some(max))) = (update.changes.min_employee_size, update.changes.max_employee_size)
            && min > max
        {
            errors.push("/min_employee_size", super::decide::min_above_max());
        }
        Self { update, name_or_domain_wrong }
    }
}

fn domain_or_null(value: Value) -> Result<Option<DomainOfHost>, Invalid> {
    match value {
        Value::Null => Ok(None),
        Value::String(input) => DomainOfHost::of_company(&input).map(Some),
        _ => Err(Invalid::wrong_type("a string")),
    }
}

fn domains(value: Value, errors: &mut FieldErrors) -> BTreeSet<Domain> {
    let pointer = "/additional_domains";
    let entries = match value {
        Value::Null => Vec::new(),
        Value::Array(entries) => entries,
        _ => {
            errors.push(pointer, Invalid::wrong_type("a list of strings"));
            Vec::new()
        }
    };
    if entries.len() > ADDITIONAL_DOMAINS_MAX {
        errors.push(pointer, Invalid::too_many(ADDITIONAL_DOMAINS_MAX));
        return BTreeSet::new();
    }
    let mut domains = BTreeSet::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let domain = match &entry {
            Value::String(input) => DomainOfHost::of_company(input).map(|found| found.domain),
            _ => Err(Invalid::wrong_type("a string")),
        };
        match domain {
            Ok(domain) => {
                domains.insert(domain);
            }
            Err(invalid) => errors.push(pointer_to(pointer, &index.to_string()), invalid),
        }
    }
    domains
}
