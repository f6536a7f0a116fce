//! A tree head: what is signed, to the byte, and how it is written as JSON.

use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use uuid::Uuid;

use super::hash::Hash;
use super::key::{PublicKey, SIGNATURE_BYTES, SealKeys};

/// What the signed bytes begin with; its last byte is the encoding's version.
pub const PREFIX: &[u8; 21] = b"prospectus tree head\x01";

/// What a head says: the log's first `tree_size` events are those under `root_hash`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Which log.
    pub log_id: Uuid,
    /// The name of the epoch that its last event is of.
    pub epoch: String,
    /// How many events it covers: positions 1 to this one.
    pub tree_size: u64,
    /// The root of the tree over them.
    pub root_hash: Hash,
    /// When it was signed, to the microsecond.
    #[serde(with = "instant")]
    pub time: OffsetDateTime,
}

/// A head with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    /// What it says.
    #[serde(flatten)]
    pub head: Head,
    /// The name of the key that signed it.
    pub key_id: String,
    /// The signature of [`Head::signed_bytes`].
    #[serde(with = "signature")]
    pub signature: [u8; SIGNATURE_BYTES],
}

impl Head {
    /// The bytes that a key signs, version 1: [`PREFIX`]; `log_id`, 16 bytes; the key's name and the epoch, each its length in bytes as
    /// `u32` and its UTF-8 bytes; `tree_size` as `u64`; `root_hash`, 32 bytes; `time` as `i64`, microseconds since
    /// 1970-01-01T00:00:00Z. Integers are big-endian.
    ///
    /// # Panics
    /// If the epoch's name is longer than 4 GiB, or the time is not of this geological epoch.
    pub fn signed_bytes(&self, key_id: &str) -> Vec<u8> {
        let mut out = PREFIX.to_vec();
        out.extend_from_slice(self.log_id.as_bytes());
        for text in [key_id, &self.epoch] {
            out.extend_from_slice(&u32::try_from(text.len()).expect("a name is short").to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(&self.tree_size.to_be_bytes());
        out.extend_from_slice(self.root_hash.as_bytes());
        let micros = i64::try_from(self.time.unix_timestamp_nanos() / 1000).expect("64 bits of microseconds");
        out.extend_from_slice(&micros.to_be_bytes());
        out
    }

    /// Signs it with the key that signs now.
    pub fn sign(self, keys: &SealKeys) -> SignedHead {
        let key_id = keys.signer().id();
        let signature = keys.sign(&self.signed_bytes(&key_id));
        SignedHead { head: self, key_id, signature }
    }

    /// The number in its epoch's name; none if it is not a name of an epoch.
    pub fn epoch_number(&self) -> Option<i64> {
        epoch_number(&self.epoch)
    }
}

/// The number in an epoch's name.
pub fn epoch_number(name: &str) -> Option<i64> {
    name.split_once('.')?.0.parse().ok()
}

impl SignedHead {
    /// Whether this key signed it, under its own name.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        self.key_id == key.id() && key.has_signed(&self.head.signed_bytes(&self.key_id), &self.signature)
    }
}

/// RFC 3339 in UTC with six digits of a second's fraction: what the signature covers can be read off.
mod instant {
    use time::format_description::BorrowedFormatItem;
    use time::format_description::well_known::Rfc3339;
    use time::macros::format_description;

    use super::{Deserialize, Deserializer, OffsetDateTime, Serializer};

    const FORM: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

    pub(super) fn serialize<S: Serializer>(time: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
        let text = time.to_offset(time::UtcOffset::UTC).format(FORM).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        OffsetDateTime::parse(&text, &Rfc3339).map_err(serde::de::Error::custom)
    }
}

mod signature {
    use base64::Engine as _;

    use super::{Deserialize, Deserializer, SIGNATURE_BYTES, STANDARD, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; SIGNATURE_BYTES], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<[u8; SIGNATURE_BYTES], D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        bytes.try_into().map_err(|_| serde::de::Error::custom("a signature is 64 bytes in base64"))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use time::macros::datetime;

    use super::*;

    fn head() -> Head {
        Head {
            log_id: Uuid::from_u128(1),
            epoch: "1.0a0b0c0d".to_owned(),
            tree_size: 258,
            root_hash: Hash::empty(),
            time: datetime!(1970-01-01 00:00:01.000002 UTC),
        }
    }

    #[test]
    fn what_is_signed_is_fixed_to_the_byte() {
        let mut expected = b"prospectus tree head\x01".to_vec();
        expected.extend([0; 15]);
        expected.push(1);
        expected.extend(b"\0\0\0\x100123456789abcdef");
        expected.extend(b"\0\0\0\x0a1.0a0b0c0d");
        expected.extend([0, 0, 0, 0, 0, 0, 1, 2]);
        expected.extend(Hash::empty().as_bytes());
        expected.extend([0, 0, 0, 0, 0, 0x0f, 0x42, 0x42]);
        assert_eq!(head().signed_bytes("0123456789abcdef"), expected);
    }

    #[test]
    fn a_head_survives_json_and_every_change_of_it_breaks_its_signature() {
        let seed = |byte: u8| format!("seal {}", STANDARD.encode([byte; 32]));
        let keys = SealKeys::parse(&seed(1)).expect("keys");
        let signed = head().sign(&keys);
        let json = serde_json::to_value(&signed).expect("JSON");
        assert_eq!(json["time"], "1970-01-01T00:00:01.000002Z");
        let read: SignedHead = serde_json::from_value(json).expect("a head");
        assert_eq!(read, signed);
        assert!(read.is_signed_by(&keys.signer()));
        let other = SealKeys::parse(&seed(2)).expect("keys").signer();
        assert!(!read.is_signed_by(&other));
        assert!(!SignedHead { key_id: other.id(), ..read.clone() }.is_signed_by(&other));
        let changes: [fn(&mut Head); 5] = [
            |head| head.log_id = Uuid::from_u128(2),
            |head| head.epoch.push('0'),
            |head| head.tree_size += 1,
            |head| head.root_hash = Hash::leaf(&[]),
            |head| head.time += time::Duration::MICROSECOND,
        ];
        for change in changes {
            let mut changed = read.clone();
            change(&mut changed.head);
            assert!(!changed.is_signed_by(&keys.signer()), "{changed:?}");
        }
    }
}
