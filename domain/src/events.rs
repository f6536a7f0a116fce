//! What the events of every aggregate have alike: names, forms, and the way into the log and back.

/// Makes the event enum of an aggregate from the list of its events, each with its payload's type and the version of the
/// payload's form, and implements [`crate::RecordEvent`].
///
/// When a payload takes another form, the version becomes the next one, and the old one stays in the list with its upcaster, a function
/// from the stored text to today's payload: `Renamed(Renamed) = 2, from 1 by renamed_from_1,`. The log is never rewritten, so an
/// upcaster is never removed. `FORMS` has all of them, and a test wants a stored sample of each (`tests/contract.rs`).
///
/// The enum must have the methods `required_claim(&self)` and `personal_member(&mut self)`.
macro_rules! events {
    (
        $(#[$meta:meta])*
        pub enum $events:ident { $($(#[doc = $doc:literal])+ $event:ident($payload:ty) = $form:literal $(, from $old:literal by $upcast:path)*,)+ }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        pub enum $events {
            $($(#[doc = $doc])+ $event($payload),)+
        }

        impl $events {
            /// Name and version of every form of every event that was ever written, in the order of the list.
            pub const FORMS: &'static [(&'static str, i16)] =
                &[$($((stringify!($event), $old),)* (stringify!($event), $form),)+];
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
                    $($((stringify!($event), $old) => $upcast(payload).map(Self::$event),)*)+
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

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use crate::claim::Claim;
    use crate::personal::PersonalMember;
    use crate::{RecordEvent as _, StoredEventError};

    /// A payload in its third form: at first a name, then an object, then one with an hour.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct Met {
        name: String,
        hour: u8,
    }

    fn met_from_1(payload: &str) -> Result<Met, serde_json::Error> {
        Ok(Met { name: serde_json::from_str(payload)?, hour: 0 })
    }

    fn met_from_2(payload: &str) -> Result<Met, serde_json::Error> {
        #[derive(Deserialize)]
        struct Form2 {
            name: String,
        }
        let Form2 { name } = serde_json::from_str(payload)?;
        Ok(Met { name, hour: 0 })
    }

    events! {
        /// Events that have seen change.
        pub enum ToyEvent {
            /// Three forms.
            Met(Met) = 3, from 1 by met_from_1, from 2 by met_from_2,
            /// One form.
            Counted(u8) = 1,
        }
    }

    impl ToyEvent {
        #[expect(clippy::unused_self, reason = "as the aggregates' events have it")]
        fn required_claim(&self) -> Option<Claim> {
            None
        }

        #[expect(clippy::unused_self, reason = "as the aggregates' events have it")]
        fn personal_member(&mut self) -> Option<&mut dyn PersonalMember> {
            None
        }
    }

    #[test]
    fn an_old_form_is_read_as_today_s_and_written_as_today_s() {
        assert_eq!(ToyEvent::FORMS, [("Met", 1), ("Met", 2), ("Met", 3), ("Counted", 1)]);
        for (form, payload) in [(1, r#""Ada""#), (2, r#"{"name":"Ada"}"#), (3, r#"{"name":"Ada","hour":0}"#)] {
            let event = ToyEvent::from_stored("Met", form, payload).unwrap();
            assert_eq!(event, ToyEvent::Met(Met { name: "Ada".to_owned(), hour: 0 }), "{form}");
            assert_eq!((event.form(), event.payload().as_str()), (3, r#"{"name":"Ada","hour":0}"#));
        }
        // A form is not guessed from what its payload looks like.
        for (name, form, payload) in [("Met", 1, r#"{"name":"Ada"}"#), ("Met", 2, r#""Ada""#)] {
            let error = ToyEvent::from_stored(name, form, payload).unwrap_err();
            assert!(matches!(error, StoredEventError::Payload { .. }), "{form}");
        }
        assert!(matches!(ToyEvent::from_stored("Met", 4, "{}"), Err(StoredEventError::Unknown { .. })));
        assert!(matches!(ToyEvent::from_stored("Counted", 2, "1"), Err(StoredEventError::Unknown { .. })));
    }
}
