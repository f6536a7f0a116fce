//! What a field of a record is: its name, its form and how a JSON value becomes one. The OpenAPI document and the field
//! reference are made from these tables.

use serde_json::Value;

use crate::field_error::Invalid;

/// One field as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name in JSON, SQL and CSV.
    pub name: &'static str,
    /// What values it takes.
    pub schema: Schema,
    /// What it means, in one sentence.
    pub description: &'static str,
    /// Whether it identifies a person, and so is sealed in the log.
    pub personal: bool,
}

/// What values a field takes, in the words of JSON Schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// The JSON type.
    pub json_type: JsonType,
    /// The `format`, where there is a name for it.
    pub format: Option<&'static str>,
    /// The greatest length in characters.
    pub max_length: Option<usize>,
    /// The least number.
    pub minimum: Option<i64>,
    /// The greatest number.
    pub maximum: Option<i64>,
    /// The most entries of a list or object.
    pub max_items: Option<usize>,
}

/// A JSON type, and what stands in it where it is a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonType {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A flat object of strings, numbers and booleans.
    Attributes,
    /// A list of strings without repetition.
    Strings,
    /// A list of objects `{source, id}`.
    ExternalRefs,
    /// A list of objects `{platform, url}`, which come back with `social_media_id`.
    SocialMedia,
}

impl Schema {
    /// Any value of the type.
    pub const fn of(json_type: JsonType) -> Self {
        Self { json_type, format: None, max_length: None, minimum: None, maximum: None, max_items: None }
    }

    /// Text of at most `max` characters.
    pub const fn text(max: usize) -> Self {
        let mut schema = Self::of(JsonType::String);
        schema.max_length = Some(max);
        schema
    }

    /// Text of at most `max` characters in a form that has a name.
    pub const fn formatted(format: &'static str, max: usize) -> Self {
        let mut schema = Self::text(max);
        schema.format = Some(format);
        schema
    }

    /// A whole number between two bounds, both included.
    pub const fn integer(minimum: i64, maximum: i64) -> Self {
        let mut schema = Self::of(JsonType::Integer);
        schema.minimum = Some(minimum);
        schema.maximum = Some(maximum);
        schema
    }

    /// A list or object of at most `max` entries.
    pub const fn many(json_type: JsonType, max: usize) -> Self {
        let mut schema = Self::of(json_type);
        schema.max_items = Some(max);
        schema
    }
}

/// A type that a plain field can hold.
pub trait FieldValue: Sized {
    /// What values it takes.
    const SCHEMA: Schema;

    /// Reads what a client sent.
    ///
    /// # Errors
    /// Why the value is refused; never with the value in it.
    fn from_json(value: Value) -> Result<Self, Invalid>;

    /// Bytes that it holds outside itself, roughly.
    fn heap_bytes(&self) -> usize;
}
