//! What the events of every aggregate have alike: names, forms, and the way into the log and back.

/// Makes the event enum of an aggregate from the list of its events, each with its payload's type and the version of the
/// payload's form, and implements [`crate::RecordEvent`]. An older form is read by an arm of its own, before the current one.
///
/// The enum must have the methods `required_claim(&self)` and `personal_member(&mut self)`.
macro_rules! events {
    (
        $(#[$meta:meta])*
        pub enum $events:ident { $($(#[doc = $doc:literal])+ $event:ident($payload:ty) = $form:literal,)+ }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        pub enum $events {
            $($(#[doc = $doc])+ $event($payload),)+
        }

        $(impl From<$payload> for $events {
            fn from(payload: $payload) -> Self {
                Self::$event(payload)
            }
        })+

        impl cqrs_es::DomainEvent for $events {
            fn event_type(&self) -> String {
                crate::RecordEvent::name(self).to_owned()
            }

            fn event_version(&self) -> String {
                crate::RecordEvent::form(self).to_string()
            }
        }

        impl crate::RecordEvent for $events {
            fn name(&self) -> &'static str {
                match self {
                    $(Self::$event(_) => stringify!($event),)+
                }
            }

            fn form(&self) -> i16 {
                match self {
                    $(Self::$event(_) => $form,)+
                }
            }

            fn payload(&self) -> String {
                match self {
                    $(Self::$event(payload) => serde_json::to_string(payload),)+
                }
                .expect("payloads are plain structs with string keys, which always serialise")
            }

            fn from_stored(name: &str, form: i16, payload: &str) -> Result<Self, crate::StoredEventError> {
                match (name, form) {
                    $((stringify!($event), $form) => serde_json::from_str(payload).map(Self::$event),)+
                    _ => return Err(crate::StoredEventError::Unknown { name: name.to_owned(), form }),
                }
                .map_err(|source| crate::StoredEventError::Payload { name: name.to_owned(), source })
            }

            fn requires(&self) -> Option<crate::Claim> {
                self.required_claim()
            }

            fn personal_mut(&mut self) -> Option<&mut dyn crate::PersonalMember> {
                self.personal_member()
            }
        }
    };
}
pub(crate) use events;
