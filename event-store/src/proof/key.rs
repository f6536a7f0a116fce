//! The Ed25519 keys (RFC 8032) that heads are signed with.
//!
//! The key file has one line `seal <32 bytes in base64>` per private key (the seed of RFC 8032); the first one signs. `#` starts a
//! comment. A key's name is made from its public half, so it cannot be given to another key.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// The private keys of one deployment; they leave memory when dropped.
pub struct SealKeys(Vec<SigningKey>);

/// The half of a key that checks signatures. Written as 32 bytes in base64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// Why there are no keys.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealKeyError {
    /// A line is not of its form. Its content is not repeated.
    #[error("seal key file, line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No line has a key.
    #[error("the seal key file has no line `seal <32 bytes in base64>`; see ARCHITECTURE.md for its form")]
    Missing,
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.public().map(|key| key.id())).finish()
    }
}

impl SealKeys {
    /// Parses the text of a key file.
    ///
    /// # Errors
    /// With the line's number, never its content.
    pub fn parse(text: &str) -> Result<Self, SealKeyError> {
        let mut keys: Vec<SigningKey> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let problem = |problem| SealKeyError::Line { line: number + 1, problem };
            let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            match words[..] {
                [] => {}
                ["seal", key] => {
                    let bytes = Zeroizing::new(STANDARD.decode(key).unwrap_or_default());
                    let seed: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| problem("not 32 bytes in base64"))?;
                    keys.push(SigningKey::from_bytes(seed));
                }
                _ => return Err(problem("not `seal <32 bytes in base64>`")),
            }
        }
        if keys.is_empty() { Err(SealKeyError::Missing) } else { Ok(Self(keys)) }
    }

    /// The public halves, the one that signs first.
    pub fn public(&self) -> impl Iterator<Item = PublicKey> {
        self.0.iter().map(|key| PublicKey(key.verifying_key()))
    }

    /// The public half of the key that signs.
    pub fn signer(&self) -> PublicKey {
        PublicKey(self.0[0].verifying_key())
    }

    /// Signs with the first key.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0[0].sign(message).to_bytes()
    }
}

impl PublicKey {
    /// The key in these bytes, if they are one.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        VerifyingKey::from_bytes(bytes.try_into().ok()?).ok().map(Self)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Its name: the first 16 hexadecimal digits of the SHA-256 of its bytes.
    pub fn id(&self) -> String {
        let mut name = [0; 8];
        name.copy_from_slice(&Sha256::digest(self.as_bytes())[..8]);
        format!("{:016x}", u64::from_be_bytes(name))
    }

    /// Whether the signature is this key's of this message. Strict: signatures that only some verifiers would take are refused.
    pub fn has_signed(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&STANDARD.encode(self.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// The text is no public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a public key is 32 bytes in base64, as `GET /v1/log/heads` has them")]
pub struct NoPublicKey;

impl FromStr for PublicKey {
    type Err = NoPublicKey;

    fn from_str(text: &str) -> Result<Self, NoPublicKey> {
        STANDARD.decode(text.trim()).ok().and_then(|bytes| Self::from_slice(&bytes)).ok_or(NoPublicKey)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'a> Deserialize<'a> for PublicKey {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_test_of_rfc_8032_comes_out() {
        let seed = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
        let keys = SealKeys::parse(&format!("# mine\nseal {seed}\n\nseal {seed} # again\n")).expect("keys");
        assert_eq!(keys.signer().to_string(), "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
        let signature = keys.sign(b"");
        assert_eq!(
            STANDARD.encode(signature),
            "5VZDAMNgrHKQhuLMgG6CioSHfx645dl02HPgZSJJAVVfuIIVkKM7rMYeOXAc+bRr0lv18FlbviRlUUFDjnoQCw=="
        );
        assert!(keys.signer().has_signed(b"", &signature));
        assert!(!keys.signer().has_signed(b"x", &signature));
        assert_eq!(keys.public().count(), 2);
    }

    #[test]
    fn a_key_file_of_another_form_is_refused_without_repeating_it() {
        let line = |line, problem| Err(SealKeyError::Line { line, problem });
        assert_eq!(SealKeys::parse("# none\n").map(|_| ()), Err(SealKeyError::Missing));
        assert_eq!(SealKeys::parse("\nseal AAAA").map(|_| ()), line(2, "not 32 bytes in base64"));
        assert_eq!(SealKeys::parse("wrap one AAAA").map(|_| ()), line(1, "not `seal <32 bytes in base64>`"));
    }
}
