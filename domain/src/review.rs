//! What a person should decide on: the entries of the review queue, and how one is decided. A review is no record of its own: it is a
//! state of the prospect or company, whose id it has.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::company::{MergeInto, RegisterCompany};
use crate::field_error::{FieldError, FieldErrors, Invalid, pointer_to};
use crate::prospect::AssignProspect;
use crate::value::{Country, Line};

/// Why a record is in review.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum ReviewReason {
    /// A prospect whom nothing leads to a company: no address or website of one, and no id.
    NoCompany,
    /// A prospect whose company is known only by its name: that never decides.
    NameOnly,
    /// A prospect whose address looks like a mistyped mail host, or ends in what is no public suffix.
    SuspiciousDomain,
    /// A company that has the name of another one in the same country.
    LooksLike {
        /// The other one.
        company_id: Uuid,
    },
}

impl ReviewReason {
    /// Its name in answers and read tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoCompany => "no_company",
            Self::NameOnly => "name_only",
            Self::SuspiciousDomain => "suspicious_domain",
            Self::LooksLike { .. } => "looks_like",
        }
    }
}

/// What somebody decided about a prospect in review.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "resolution")]
pub enum ProspectResolution {
    /// It works at a company that was there.
    Assigned {
        /// That company.
        company_id: Uuid,
    },
    /// It works at a company that was made for it.
    Created {
        /// That company.
        company_id: Uuid,
    },
    /// It stays as it is, until it is given another company or none.
    LeftAlone,
}

/// What somebody decided about a company in review.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "resolution")]
pub enum CompanyResolution {
    /// It is the same as another one.
    Merged {
        /// The one that stands for both.
        into: Uuid,
    },
    /// It is a company of its own.
    LeftAlone,
}

/// How a client wants a review to be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolve {
    /// The prospect works at this company.
    Assign {
        /// A live company.
        company_id: Uuid,
    },
    /// The prospect works at a company that is to be made.
    Create(Box<RegisterCompany>),
    /// The company is the same as another one.
    Merge(MergeInto),
    /// The record stays as it is.
    Leave,
}

impl Resolve {
    /// Reads the body of a request: one of `{"assign": {company_id}}`, `{"create": {a company's fields}}`, `{"merge": {into}}` and
    /// `{"leave": true}`.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(body: Value) -> Result<Self, FieldErrors> {
        let Value::Object(members) = body else {
            return Err(FieldErrors::one("", Invalid::wrong_type("an object")));
        };
        let mut errors = FieldErrors::default();
        let mut resolves = Vec::new();
        for (name, value) in members.into_iter().filter(|(_, value)| !value.is_null()) {
            let read = match name.as_str() {
                "assign" => match AssignProspect::parse(value) {
                    Ok(AssignProspect { company_id: Some(company_id) }) => Ok(Self::Assign { company_id }),
                    Ok(_) => {
                        Err(FieldErrors::one("/company_id", Invalid::required("is required: the id of a company")))
                    }
                    Err(errors) => Err(errors),
                },
                "create" => RegisterCompany::parse(value).map(|register| Self::Create(Box::new(register))),
                "merge" => MergeInto::parse(value).map(Self::Merge),
                "leave" if value == Value::Bool(true) => Ok(Self::Leave),
                "leave" => Err(FieldErrors::one("", Invalid::wrong_type("true"))),
                _ => Err(FieldErrors::one("", Invalid::unknown_field())),
            };
            match read {
                Ok(resolve) => resolves.push(resolve),
                Err(FieldErrors(wrong)) => {
                    let within = pointer_to("", &name);
                    errors.0.extend(
                        wrong
                            .into_iter()
                            .map(|error| FieldError { pointer: format!("{within}{}", error.pointer), ..error }),
                    );
                }
            }
        }
        match resolves.pop() {
            Some(resolve) if resolves.is_empty() && errors.is_empty() => Ok(resolve),
            _ => {
                if errors.is_empty() {
                    errors.push("", Invalid::required("exactly one of assign, create, merge and leave is required"));
                }
                Err(errors)
            }
        }
    }
}

/// What a row said about the company that its person could not be given. Sealed with the person's data: the company of a free-mail
/// address may well be the person's own name.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CompanyHint {
    /// The company's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Line<255>>,
    /// Its country.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<Country>,
    /// The host that led to no company.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Line<255>>,
}

impl CompanyHint {
    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Debug for CompanyHint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CompanyHint(…)")
    }
}
