//! What a record has no column for.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use super::Line;
use super::text::{Breaks, clean};
use crate::field_error::{FieldErrors, Invalid, pointer_to};

/// A flat object of strings, numbers and booleans, in the order of its keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attributes(BTreeMap<String, Value>);

/// What leads from attributes to others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeChanges {
    /// New and changed values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    set: BTreeMap<String, Value>,
    /// Keys that left.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    removed: BTreeSet<String>,
}

/// What a client wants of a record's attributes (JSON Merge Patch).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttributesPatch {
    /// Whether they begin anew: the client sent null in the place of all.
    clear: bool,
    /// What each key becomes; none removes it.
    values: BTreeMap<String, Option<Value>>,
}

impl Attributes {
    /// The most keys.
    pub const KEYS_MAX: usize = 64;
    /// The longest key in characters.
    pub const KEY_MAX: usize = 100;
    /// The greatest size as JSON, in bytes.
    pub const BYTES_MAX: usize = 16 * 1024;

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These attributes after the patch.
    ///
    /// # Errors
    /// `too_many` or `too_large` if that would be more than a record may have.
    pub fn patched(&self, patch: AttributesPatch) -> Result<Self, Invalid> {
        let mut values = if patch.clear { BTreeMap::new() } else { self.0.clone() };
        for (key, value) in patch.values {
            match value {
                Some(value) => values.insert(key, value),
                None => values.remove(&key),
            };
        }
        let patched = Self(values);
        patched.check_size()?;
        Ok(patched)
    }

    /// Adds a value if the key is free and there is room; whether it did.
    pub(crate) fn insert_if_room(&mut self, key: &str, value: Value) -> bool {
        if self.0.contains_key(key) {
            return false;
        }
        self.0.insert(key.to_owned(), value);
        let fits = self.check_size().is_ok();
        if !fits {
            self.0.remove(key);
        }
        fits
    }

    /// Sets a value, room or not: for events, whose command has seen to it.
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    /// Takes a value away.
    pub(crate) fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Makes the change.
    pub fn apply(&mut self, changes: &AttributeChanges) {
        for key in &changes.removed {
            self.0.remove(key);
        }
        self.0.extend(changes.set.iter().map(|(key, value)| (key.clone(), value.clone())));
    }

    /// Bytes that they hold, roughly.
    pub fn heap_bytes(&self) -> usize {
        let text = |value: &Value| value.as_str().map_or(0, str::len);
        let texts: usize = self.0.iter().map(|(key, value)| key.len() + text(value)).sum();
        crate::weight::of_tree::<String, Value>(self.0.len()) + texts
    }

    fn check_size(&self) -> Result<(), Invalid> {
        if self.0.len() > Self::KEYS_MAX {
            return Err(Invalid::too_many(Self::KEYS_MAX));
        }
        // Of what a clean text holds, JSON escapes only quotes and backslashes, so this is never less than the real size.
        let text = |value: &Value| value.as_str().map_or(32, |text| 2 * text.len() + 2);
        let bytes_at_most: usize = self.0.iter().map(|(key, value)| 2 * key.len() + 4 + text(value)).sum();
        if bytes_at_most + 2 > Self::BYTES_MAX
            && serde_json::to_vec(self).is_ok_and(|json| json.len() > Self::BYTES_MAX)
        {
            return Err(Invalid::new("too_large", "must be at most 16384 bytes of JSON in all"));
        }
        Ok(())
    }
}

impl AttributeChanges {
    /// What leads from some attributes to others; none if they are the same.
    pub fn between(before: &Attributes, after: &Attributes) -> Option<Self> {
        let new = after.0.iter().filter(|(key, value)| before.0.get(*key) != Some(*value));
        let removed = before.0.keys().filter(|key| !after.0.contains_key(*key));
        let changes = Self {
            set: new.map(|(key, value)| (key.clone(), value.clone())).collect(),
            removed: removed.cloned().collect(),
        };
        (changes != Self::default()).then_some(changes)
    }

    /// The keys that change.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.set.keys().chain(&self.removed).map(String::as_str)
    }
}

impl AttributesPatch {
    /// The keys that get a value, with it.
    pub fn values(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_ref()?)))
    }

    /// Reads an object of plain values, or null; what is wrong goes to `errors`, below `pointer`.
    pub(crate) fn from_json(value: Value, pointer: &str, errors: &mut FieldErrors) -> Self {
        match value {
            Value::Null => Self { clear: true, values: BTreeMap::new() },
            Value::Object(members) => Self { clear: false, values: Self::values_of(members, pointer, errors) },
            _ => {
                errors.push(pointer, Invalid::wrong_type("an object"));
                Self::default()
            }
        }
    }

    fn values_of(
        members: Map<String, Value>,
        pointer: &str,
        errors: &mut FieldErrors,
    ) -> BTreeMap<String, Option<Value>> {
        let mut values = BTreeMap::new();
        // Twice as many as fit: a patch may remove as many as it sets.
        if members.len() > 2 * Attributes::KEYS_MAX {
            errors.push(pointer, Invalid::too_many(2 * Attributes::KEYS_MAX));
            return values;
        }
        for (key, value) in members {
            let entry = Line::<{ Attributes::KEY_MAX }>::parse(&key).and_then(|key| Ok((key, plain(value)?)));
            match entry {
                Ok((clean_key, value)) => {
                    if values.insert(clean_key.as_str().to_owned(), value).is_some() {
                        errors.push(
                            pointer_to(pointer, &key),
                            Invalid::new("duplicate", "is there twice, but for white space"),
                        );
                    }
                }
                Err(invalid) => errors.push(pointer_to(pointer, &key), invalid),
            }
        }
        values
    }
}

/// The value as an attribute keeps it; none for null.
fn plain(value: Value) -> Result<Option<Value>, Invalid> {
    match value {
        Value::Null => Ok(None),
        // A negative zero comes back from a database as zero.
        Value::Number(number) if number.as_f64() == Some(0.0) => Ok(Some(Value::Number(Number::from(0)))),
        // And 1e18 comes back written out, as an integer: a whole number is kept as one where it fits.
        Value::Number(number) => Ok(Some(Value::Number(whole(&number).unwrap_or(number)))),
        Value::Bool(_) => Ok(Some(value)),
        Value::String(text) => clean(Cow::Owned(text), Breaks::Space).map(|text| Some(Value::String(text))),
        Value::Array(_) | Value::Object(_) => Err(Invalid::wrong_type("a string, a number, a boolean or null")),
    }
}

/// The integer that a float without a fraction is; none for any other number.
fn whole(number: &Number) -> Option<Number> {
    let float = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0)?;
    format!("{float:.0}").parse().ok()
}
