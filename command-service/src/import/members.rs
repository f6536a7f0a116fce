//! A record in the making.

use serde_json::{Map, Value, json};

use super::convert::{self, Unreadable};
use super::place::Place;
use super::rows::text_of;

/// The members of a record, as they are found.
#[derive(Clone, Default)]
pub(super) struct Members {
    pub fields: Map<String, Value>,
    social_media: Vec<Value>,
    pub attributes: Map<String, Value>,
}

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.social_media.is_empty() && self.attributes.is_empty()
    }

    /// Puts a value where nothing is yet.
    pub(super) fn put(&mut self, place: &Place, value: Value) -> Result<(), Unreadable> {
        if value.is_null() {
            return Ok(());
        }
        let fields = &mut self.fields;
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value.filter(|_| !fields.contains_key(name)) {
                fields.insert(name.to_owned(), value);
            }
        };
        match place {
            Place::Field(name, _) => put(name, Some(value)),
            Place::FullName => {
                let (first, last) = convert::full_name(&text_of(&value));
                put("first_name", first.map(Value::from));
                put("last_name", last.map(Value::from));
            }
            Place::EmployeeRange => {
                let (least, greatest) = convert::employee_range(&text_of(&value))?;
                put("min_employee_size", least.map(Value::from));
                put("max_employee_size", greatest.map(Value::from));
            }
            Place::SocialMedia(platform) => self.social_media.push(json!({"platform": platform, "url": value})),
            Place::Attribute(key) => {
                self.attributes.entry(key.as_str()).or_insert(value);
            }
            Place::Domain | Place::Website => {}
        }
        Ok(())
    }

    pub(super) fn into_members(self, external_refs: Option<Value>) -> Map<String, Value> {
        let mut members = self.fields;
        if !self.social_media.is_empty() {
            members.insert("social_media".to_owned(), self.social_media.into());
        }
        if !self.attributes.is_empty() {
            members.insert("attributes".to_owned(), self.attributes.into());
        }
        if let Some(refs) = external_refs {
            members.insert("external_refs".to_owned(), refs);
        }
        members
    }
}
