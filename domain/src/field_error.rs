//! What is wrong with a request's fields: all of it at once, each with a JSON Pointer, a code and a sentence.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

/// The most errors that one answer lists; a request can hold far more unknown fields than anyone would read.
pub const FIELD_ERRORS_MAX: usize = 100;

/// The longest name of a field, in characters, that a pointer repeats.
const POINTER_NAME_MAX: usize = 100;

/// One thing that is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Where: a JSON Pointer (RFC 6901) into the request's body; empty for the body as a whole.
    pub pointer: String,
    /// What, for programs.
    pub code: &'static str,
    /// What, for people. Never repeats the value: it may be personal.
    pub detail: String,
}

/// Everything that is wrong with a request's fields, at most [`FIELD_ERRORS_MAX`] of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct FieldErrors(pub Vec<FieldError>);

impl FieldErrors {
    /// One error.
    pub fn one(pointer: impl Into<String>, invalid: Invalid) -> Self {
        let mut errors = Self::default();
        errors.push(pointer, invalid);
        errors
    }

    /// Adds what is wrong at `pointer`, unless the list is full.
    pub fn push(&mut self, pointer: impl Into<String>, invalid: Invalid) {
        if self.0.len() < FIELD_ERRORS_MAX {
            self.0.push(FieldError {
                pointer: pointer.into(),
                code: invalid.code,
                detail: invalid.detail.into_owned(),
            });
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `value` if nothing is wrong.
    ///
    /// # Errors
    /// These errors, if there are any.
    pub fn or_value<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}{}: {}", error.pointer, error.code)?;
        }
        Ok(())
    }
}

/// Why a value is refused, before it is known in which field it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Invalid {
    /// For programs.
    pub code: &'static str,
    /// For people. Never repeats the value: it may be personal.
    pub detail: Cow<'static, str>,
}

impl Invalid {
    /// A refusal.
    pub fn new(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// The JSON value is not of the type that the field holds, such as "a string".
    pub fn wrong_type(expected: &str) -> Self {
        Self::new("wrong_type", format!("must be {expected}"))
    }

    /// Nothing but white space.
    pub fn empty() -> Self {
        Self::new("empty", "must not be empty; send null to clear it")
    }

    /// More than `max` characters.
    pub fn too_long(max: usize) -> Self {
        Self::new("too_long", format!("must be at most {max} characters"))
    }

    /// More than `max` entries.
    pub fn too_many(max: usize) -> Self {
        Self::new("too_many", format!("must hold at most {max} entries"))
    }

    /// A field that this request does not have.
    pub fn unknown_field() -> Self {
        Self::new("unknown_field", "there is no such field")
    }

    /// A field that is the system's own.
    pub fn read_only() -> Self {
        Self::new("read_only", "is set by the system and cannot be sent")
    }

    /// An id that is none.
    pub fn id() -> Self {
        Self::new("invalid_id", "must be a UUID such as 018f3c4e-7d2a-7b1c-9f00-0123456789ab")
    }

    /// A field that must be there.
    pub fn required(detail: &'static str) -> Self {
        Self::new("required", detail)
    }
}

/// The pointer of the member `name` of what stands at `parent`.
pub fn pointer_to(parent: &str, name: &str) -> String {
    let mut pointer = String::with_capacity(parent.len() + name.len() + 1);
    pointer.push_str(parent);
    pointer.push('/');
    for c in name.chars().take(POINTER_NAME_MAX) {
        match c {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            c => pointer.push(c),
        }
    }
    pointer
}
