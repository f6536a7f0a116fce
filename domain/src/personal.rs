//! The personal member of an event: open while it is decided on, sealed in the log, erased when the person was forgotten
//! (decision 17). Everything that handles events handles all three.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Ciphertext of a personal member, in base64 without padding: a version byte, the nonce, the ciphertext with its tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub String);

/// Personal data of one event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Personal<T> {
    /// In the clear: only in memory, never in the log.
    Open(T),
    /// As it stands in the log.
    Sealed(Sealed),
    /// The person was erased; nothing of it can be read again.
    Erased,
}

impl<T> Personal<T> {
    /// The data, where it is open.
    pub fn open(&self) -> Option<&T> {
        match self {
            Self::Open(data) => Some(data),
            Self::Sealed(_) | Self::Erased => None,
        }
    }
}

/// A personal member seen by those who seal and open without knowing what is in it.
pub trait PersonalMember {
    /// The JSON to seal, where the member is open.
    fn to_open_json(&self) -> Option<Vec<u8>>;
    /// Puts ciphertext in the place of the open data.
    fn seal(&mut self, sealed: Sealed);
    /// The ciphertext, where the member is sealed.
    fn sealed(&self) -> Option<&Sealed>;
    /// Puts the open data in the place of ciphertext.
    ///
    /// # Errors
    /// If the JSON is not what the member holds.
    fn unseal(&mut self, json: &[u8]) -> Result<(), serde_json::Error>;
    /// The person was erased.
    fn erase(&mut self);
}

impl<T: Serialize + DeserializeOwned> PersonalMember for Personal<T> {
    fn to_open_json(&self) -> Option<Vec<u8>> {
        self.open().map(|data| {
            serde_json::to_vec(data)
                .expect("personal members are plain structs with string keys, which always serialise")
        })
    }

    fn seal(&mut self, sealed: Sealed) {
        *self = Self::Sealed(sealed);
    }

    fn sealed(&self) -> Option<&Sealed> {
        match self {
            Self::Sealed(sealed) => Some(sealed),
            Self::Open(_) | Self::Erased => None,
        }
    }

    fn unseal(&mut self, json: &[u8]) -> Result<(), serde_json::Error> {
        *self = Self::Open(serde_json::from_slice(json)?);
        Ok(())
    }

    fn erase(&mut self) {
        *self = Self::Erased;
    }
}
