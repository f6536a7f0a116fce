//! Ids that follow from where a row stands: done again after a crash, a row makes the same record again, and of two records the one
//! of the earlier row has the lower id.

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// The id of the `slot`th new record of a row: a UUID v7 of the import's own time, then the row's number, then 42 bits of a hash.
pub fn record_id(import_id: Uuid, row: u64, slot: usize) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(import_id.as_bytes());
    hash.update(row.to_be_bytes());
    hash.update(slot.to_be_bytes());
    let digest = hash.finalize();
    let hash = u128::from_be_bytes(digest[..16].try_into().expect("a SHA-256 has 32 bytes")) & ((1 << 42) - 1);
    let number = (u128::from(row) & 0xffff_ffff) << 42 | hash;
    let time = import_id.as_u128() >> 80;
    let (high, low) = (number >> 62 & 0xfff, number & ((1 << 62) - 1));
    Uuid::from_u128(time << 80 | 7 << 76 | high << 64 | 0b10 << 62 | low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_the_order_of_the_rows_and_each_is_its_own() {
        let import = Uuid::parse_str("018f3c4e-7d2a-7b1c-9f00-0123456789ab").expect("a UUID");
        let ids: Vec<Uuid> = [1, 2, 3, 4_000, 4_000_000_000].map(|row| record_id(import, row, 0)).into();
        assert!(ids.is_sorted_by(|one, next| one < next), "{ids:?}");
        for id in ids {
            assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
            assert_eq!(id.as_bytes()[..6], import.as_bytes()[..6]);
        }
        assert_ne!(record_id(import, 1, 0), record_id(import, 1, 1));
        assert_ne!(record_id(import, 1, 0), record_id(Uuid::from_u128(import.as_u128() + 1), 1, 0));
        assert_eq!(record_id(import, 7, 2), record_id(import, 7, 2));
    }
}
