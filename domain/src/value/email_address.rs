//! E-mail addresses.

use std::borrow::Cow;

use email_address::EmailAddress as Syntax;
use serde::{Deserialize, Serialize};

use super::domain_name::ascii_host;
use super::text::{Breaks, clean_bounded};
use super::text_value;
use crate::field::Schema;
use crate::field_error::Invalid;

/// An address as it was given, its host lower case and in ASCII.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EmailAddress(String);

text_value!(EmailAddress, Schema::formatted("email", EmailAddress::MAX));

impl EmailAddress {
    /// The greatest length in characters and bytes (RFC 5321).
    pub const MAX: usize = 254;

    /// Reads one address without a display name.
    ///
    /// # Errors
    /// `empty`, `too_long`, `control_character` or `invalid_email`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = clean_bounded(Cow::Borrowed(text), Breaks::Space, Self::MAX)?;
        let (local, host) = text.rsplit_once('@').ok_or_else(invalid)?;
        let host = ascii_host(host).map_err(|_| invalid())?;
        if !host.contains('.') || !Syntax::is_valid_local_part(local) {
            return Err(invalid());
        }
        let address = format!("{local}@{host}");
        if address.len() > Self::MAX {
            return Err(Invalid::too_long(Self::MAX));
        }
        Ok(Self(address))
    }

    /// What it is compared by: the whole of it in lower case.
    pub fn key(&self) -> String {
        self.0.to_lowercase()
    }
}

fn invalid() -> Invalid {
    Invalid::new("invalid_email", "must be an e-mail address such as name@example.com")
}
