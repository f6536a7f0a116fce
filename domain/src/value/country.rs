//! Countries.

use serde::{Deserialize, Serialize};

use super::country_names::code_of_name;
use super::text_value;
use crate::field::Schema;
use crate::field_error::Invalid;

/// An ISO 3166-1 alpha-2 code, upper case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Country(String);

text_value!(Country, Schema::formatted("iso-3166-1-alpha-2", 100));

impl Country {
    /// Reads an alpha-2 or alpha-3 code in any case, or the English name or a common one.
    ///
    /// # Errors
    /// `empty` or `unknown_country`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Invalid::empty());
        }
        let code = match text.len() {
            2 => rust_iso3166::from_alpha2(&text.to_ascii_uppercase()).map(|country| country.alpha2),
            3 => rust_iso3166::from_alpha3(&text.to_ascii_uppercase()).map(|country| country.alpha2),
            // No name is longer; the rest of the text is not looked at.
            0..=100 => None,
            _ => return Err(unknown()),
        };
        code.or_else(|| code_of_name(text)).map(|code| Self(code.to_owned())).ok_or_else(unknown)
    }
}

fn unknown() -> Invalid {
    Invalid::new("unknown_country", "must be a country: a code of ISO 3166-1 such as GB or GBR, or its English name")
}
