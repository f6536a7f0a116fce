//! Web addresses.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::text::{Breaks, clean_bounded};
use super::text_value;
use crate::field::Schema;
use crate::field_error::Invalid;

/// An `http` or `https` URL of at most [`Url::MAX`] characters, as it was given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Url(String);

text_value!(Url, Schema::formatted("uri", Url::MAX));

impl Url {
    /// The greatest length in characters.
    pub const MAX: usize = 2048;

    /// Checks the URL and keeps it as it is, trimmed.
    ///
    /// # Errors
    /// `empty`, `too_long`, `control_character` or `invalid_url`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = clean_bounded(Cow::Borrowed(text), Breaks::Keep, Self::MAX)?;
        // The URL standard's parser passes over white space in the middle; a field that has it was filled with something else.
        let valid = !text.contains(char::is_whitespace)
            && ::url::Url::parse(&text)
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some());
        if valid {
            Ok(Self(text))
        } else {
            Err(Invalid::new("invalid_url", "must be a URL that begins with http:// or https://"))
        }
    }
}
