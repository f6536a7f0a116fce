//! Currencies.

use serde::{Deserialize, Serialize};

use super::text_value;
use crate::field::Schema;
use crate::field_error::Invalid;

/// An ISO 4217 currency code, upper case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Currency(String);

text_value!(Currency, Schema::formatted("iso-4217", 3));

impl Currency {
    /// What a revenue is in where nobody said otherwise.
    pub fn usd() -> Self {
        Self("USD".to_owned())
    }

    /// Reads a code in any case.
    ///
    /// # Errors
    /// `empty` or `unknown_currency`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let code = text.trim().to_ascii_uppercase();
        if code.is_empty() {
            return Err(Invalid::empty());
        }
        match iso_currency::Currency::from_code(&code) {
            Some(_) => Ok(Self(code)),
            None => Err(Invalid::new("unknown_currency", "must be a currency code of ISO 4217, such as EUR")),
        }
    }
}
