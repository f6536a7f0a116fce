//! Phone numbers.

use std::borrow::Cow;
use std::fmt;

use phonenumber::Mode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Country;
use super::text::{Breaks, clean_bounded};
use super::text_of;
use crate::field::{FieldValue, Schema};
use crate::field_error::Invalid;

/// A number in E.164 where it is one, else as it was given. In JSON of the log the first is a string and the second
/// `{"as_given": "…"}`, so that reading it back needs no rule that may have changed since.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PhoneNumber(Form);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    E164(String),
    AsGiven { as_given: String },
}

impl PhoneNumber {
    /// The greatest length in characters.
    pub const MAX: usize = 50;

    /// Reads a number. One with a country code becomes E.164 if it is a valid number there; every other is kept as given,
    /// until [`PhoneNumber::in_country`] says where it is from. One with an extension is kept as given too: E.164 has none.
    ///
    /// # Errors
    /// `empty`, `too_long`, `control_character`, or `invalid_phone` if there is no digit in it.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = clean_bounded(Cow::Borrowed(text), Breaks::Space, Self::MAX)?;
        if !text.contains(|c: char| c.is_numeric()) {
            return Err(Invalid::new("invalid_phone", "must be a phone number"));
        }
        Ok(Self(match e164(&text, None) {
            Some(number) => Form::E164(number),
            None => Form::AsGiven { as_given: text },
        }))
    }

    /// The same number, in E.164 if it can be read as one of this country.
    #[must_use]
    pub fn in_country(self, country: Option<&Country>) -> Self {
        match (&self.0, country) {
            (Form::AsGiven { as_given }, Some(country)) => match e164(as_given, Some(country)) {
                Some(number) => Self(Form::E164(number)),
                None => self,
            },
            _ => self,
        }
    }

    /// The number, in E.164 or as given.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Form::E164(number) => number,
            Form::AsGiven { as_given } => as_given,
        }
    }

    /// Whether it is in E.164.
    pub fn is_e164(&self) -> bool {
        matches!(self.0, Form::E164(_))
    }
}

impl fmt::Display for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FieldValue for PhoneNumber {
    const SCHEMA: Schema = Schema::formatted("phone", Self::MAX);

    fn from_json(value: Value) -> Result<Self, Invalid> {
        Self::parse(&text_of(value)?)
    }

    fn heap_bytes(&self) -> usize {
        self.as_str().len()
    }
}

/// What a person should look at in a record's two numbers.
pub(crate) fn flags(phone: Option<&PhoneNumber>, mobile_phone: Option<&PhoneNumber>) -> Vec<&'static str> {
    let flag = |phone: Option<&PhoneNumber>, flag| phone.filter(|phone| !phone.is_e164()).map(|_| flag);
    [flag(phone, "phone_not_e164"), flag(mobile_phone, "mobile_phone_not_e164")].into_iter().flatten().collect()
}

/// The number in E.164, if it is valid: with its own country code, or as one that is dialled within `country`.
fn e164(text: &str, country: Option<&Country>) -> Option<String> {
    // What else a number may hold (extensions, letters, tel: parameters) has no place in E.164.
    let plain = |c: char| {
        c.is_ascii_digit() || matches!(c, ' ' | '\u{a0}' | '(' | ')' | '-' | '.' | '/' | '+' | '\u{2010}'..='\u{2015}')
    };
    if !text.chars().all(plain) {
        return None;
    }
    let has_code = text.starts_with('+') || text.starts_with("(+");
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let (region, dialled) =
        if has_code { (None, format!("+{digits}")) } else { (Some(country?.as_str().parse().ok()?), digits) };
    let number = phonenumber::parse(region, dialled).ok()?;
    phonenumber::is_valid(&number).then(|| number.format().mode(Mode::E164).to_string())
}
