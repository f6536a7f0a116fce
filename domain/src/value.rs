//! Value types: each has a private field and a `parse` that refuses what the field must not hold, so that whoever has one
//! need not check it again. Reading one back from the log is trusted and never fails on what an older rule let in.

pub mod attributes;
pub mod company_domain;
pub mod company_name;
pub mod count;
pub mod country;
mod country_names;
pub mod currency;
pub mod domain_name;
pub mod email_address;
pub mod external_ref;
pub mod founding_date;
pub mod job_title_level;
pub mod line;
pub mod paragraph;
pub mod phone_number;
pub mod revenue;
pub mod set_changes;
pub mod social_media;
mod text;
pub mod url;

pub use attributes::{AttributeChanges, Attributes, AttributesPatch};
pub use count::Count;
pub use country::Country;
pub use currency::Currency;
pub use domain_name::{Domain, DomainOfHost};
pub use email_address::EmailAddress;
pub use external_ref::ExternalRef;
pub use founding_date::FoundingDate;
pub use job_title_level::JobTitleLevel;
pub use line::Line;
pub use paragraph::Paragraph;
pub use phone_number::PhoneNumber;
pub use revenue::Revenue;
pub use set_changes::SetChanges;
pub use social_media::SocialMedia;
pub use url::Url;

use serde_json::Value;

use crate::field_error::Invalid;

/// What every value type over one text has alike.
macro_rules! text_value {
    ($type:ident, $schema:expr) => {
        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl $crate::field::FieldValue for $type {
            const SCHEMA: $crate::field::Schema = $schema;

            fn from_json(value: serde_json::Value) -> Result<Self, $crate::field_error::Invalid> {
                Self::parse(&$crate::value::text_of(value)?)
            }

            fn heap_bytes(&self) -> usize {
                self.0.capacity()
            }
        }
    };
}
pub(crate) use text_value;

/// The text of a JSON string.
fn text_of(value: Value) -> Result<String, Invalid> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(Invalid::wrong_type("a string")),
    }
}
