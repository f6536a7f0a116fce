//! What a person should decide on: the entries of the review queue.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

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
