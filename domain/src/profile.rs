//! The plain optional fields of a record: one invocation of [`profile!`] lists them, and everything that must name each of
//! them (the record's values, what changed in them, reading them from JSON, the table for the documentation) is made from
//! that list.

/// Makes from a list of fields:
///
/// - the profile, with an `Option` for each field;
/// - its changes, with an `Option<Option<…>>` for each: outer none is "unchanged", inner none is "cleared" (in JSON: absent, null);
/// - `FIELDS`, the table of them.
///
/// The first word says whether the fields are `personal`. Those never show their values in `Debug`, so that no log line can
/// hold them.
macro_rules! profile {
    (
        $visibility:ident
        $(#[$profile_meta:meta])* $profile:ident,
        $(#[$changes_meta:meta])* $changes:ident
        { $(#[doc = $description:literal] $field:ident: $type:ty,)+ }
    ) => {
        $(#[$profile_meta])*
        #[derive(Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $profile {
            $(
                #[doc = $description]
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )+
        }

        $(#[$changes_meta])*
        #[derive(Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $changes {
            $(
                #[doc = $description]
                #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "crate::profile::present")]
                pub $field: Option<Option<$type>>,
            )+
        }

        impl $profile {
            /// The fields, in the order of the documentation.
            pub const FIELDS: &'static [crate::field::Field] = &[
                $(crate::field::Field {
                    name: stringify!($field),
                    schema: <$type as crate::field::FieldValue>::SCHEMA,
                    description: $description.trim_ascii(),
                    personal: profile!(@is_personal $visibility),
                },)+
            ];

            /// The value of the field with this name, as it stands in JSON; none where it has none, or there is no such field.
            pub fn get(&self, name: &str) -> Option<serde_json::Value> {
                match name {
                    $(stringify!($field) => self.$field.as_ref().map(crate::profile::as_json),)+
                    _ => None,
                }
            }

            /// Of the changes, those that differ from what is here.
            #[must_use]
            pub fn diff(&self, mut changes: $changes) -> $changes {
                $(if changes.$field.as_ref() == Some(&self.$field) {
                    changes.$field = None;
                })+
                changes
            }

            /// Makes the changes.
            pub fn apply(&mut self, changes: &$changes) {
                $(if let Some(value) = &changes.$field {
                    self.$field.clone_from(value);
                })+
            }

            /// Of the changes, those that fill a blank that `fills` lets be filled, and those that contradict what is here and of which
            /// `wins` says so, being given the field's name, the value here and the new one.
            #[must_use]
            pub fn settle(
                &self,
                mut changes: $changes,
                fills: impl Fn(&'static str, &serde_json::Value) -> bool,
                mut wins: impl FnMut(&'static str, &serde_json::Value, &serde_json::Value) -> bool,
            ) -> $changes {
                $(if changes.$field.as_ref() == Some(&self.$field) {
                    changes.$field = None;
                } else if let (None, Some(Some(new))) = (&self.$field, &changes.$field) {
                    if !fills(stringify!($field), &crate::profile::as_json(new)) {
                        changes.$field = None;
                    }
                } else if let (Some(here), Some(Some(new))) = (&self.$field, &changes.$field)
                    && !wins(stringify!($field), &crate::profile::as_json(here), &crate::profile::as_json(new))
                {
                    changes.$field = None;
                })+
                changes
            }

            /// Tells `each` the name and value of every field that the changes replace by another value, or clear.
            pub fn replaced(&self, changes: &$changes, mut each: impl FnMut(&'static str, serde_json::Value)) {
                $(if let (Some(here), Some(new)) = (&self.$field, &changes.$field)
                    && new.as_ref() != Some(here)
                {
                    each(stringify!($field), crate::profile::as_json(here));
                })+
            }

            /// What another profile has where this one has nothing.
            #[must_use]
            pub fn blanks_filled_from(&self, other: &Self) -> $changes {
                $changes { $($field: other.$field.clone().filter(|_| self.$field.is_none()).map(Some),)+ }
            }

            /// The names of the fields that do not hold what the changes made of them.
            pub fn changed_since(&self, changes: &$changes) -> Vec<&'static str> {
                let mut names = Vec::new();
                $(if changes.$field.as_ref().is_some_and(|value| *value != self.$field) {
                    names.push(stringify!($field));
                })+
                names
            }

            /// Bytes that it holds outside itself, roughly.
            pub fn heap_bytes(&self) -> usize {
                0 $(+ self.$field.as_ref().map_or(0, crate::field::FieldValue::heap_bytes))+
            }
        }

        impl $changes {
            /// Whether nothing changes.
            pub fn is_empty(&self) -> bool {
                true $(&& self.$field.is_none())+
            }

            /// The names of the fields that change.
            pub fn names(&self) -> impl Iterator<Item = &'static str> {
                [$(self.$field.as_ref().map(|_| stringify!($field))),+].into_iter().flatten()
            }

            /// Clears every field that these changes touch.
            #[must_use]
            pub fn cleared(&self) -> Self {
                Self { $($field: self.$field.as_ref().map(|_| None),)+ }
            }

            /// The values that are set, as a new profile.
            pub fn into_profile(self) -> $profile {
                $profile { $($field: self.$field.flatten(),)+ }
            }

            /// Reads one member of a request, null being "cleared"; what is wrong with it goes to `errors`.
            /// Gives the value back where no field has this name.
            pub(crate) fn read(
                &mut self,
                name: &str,
                value: serde_json::Value,
                errors: &mut crate::field_error::FieldErrors,
            ) -> Option<serde_json::Value> {
                match name {
                    $(stringify!($field) => match crate::profile::value_or_null(value) {
                        Ok(value) => self.$field = Some(value),
                        Err(invalid) => errors.push(concat!("/", stringify!($field)), invalid),
                    },)+
                    _ => return Some(value),
                }
                None
            }
        }

        impl std::fmt::Debug for $profile {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut shown = f.debug_struct(stringify!($profile));
                $(if let Some(value) = &self.$field {
                    shown.field(stringify!($field), profile!(@shown $visibility value));
                })+
                shown.finish()
            }
        }

        impl std::fmt::Debug for $changes {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut shown = f.debug_struct(stringify!($changes));
                $(if let Some(value) = &self.$field {
                    shown.field(stringify!($field), profile!(@shown $visibility value));
                })+
                shown.finish()
            }
        }
    };
    (@is_personal open) => { false };
    (@is_personal personal) => { true };
    (@shown open $value:ident) => { $value };
    (@shown personal $value:ident) => { { let _ = $value; &crate::profile::Hidden } };
}
pub(crate) use profile;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::field::FieldValue;
use crate::field_error::Invalid;

/// Stands in `Debug` output in the place of a personal value.
#[derive(Debug)]
pub(crate) struct Hidden;

/// A member that is there, null or not: without this serde takes null for absent.
#[expect(clippy::option_option, reason = "absent and null are two things in a JSON Merge Patch")]
pub(crate) fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// The value as it stands in JSON.
pub(crate) fn as_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("values of fields are texts and numbers, which always serialise")
}

/// The field's value; none for null.
pub(crate) fn value_or_null<T: FieldValue>(value: Value) -> Result<Option<T>, Invalid> {
    match value {
        Value::Null => Ok(None),
        value => T::from_json(value).map(Some),
    }
}
