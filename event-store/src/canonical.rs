//! The canonical bytes of an event: what proofs hash. Fixed for ever per version byte; `docs/log-encoding.md` has it to the byte.

use crate::event::StoredEvent;

/// First byte of the encoding below.
pub const VERSION: u8 = 1;

/// The canonical bytes of one event, version 1.
///
/// Integers are big-endian. A text is its length in bytes as `u32`, then its UTF-8 bytes. In this order: the version byte (1);
/// `position` as `u64`; `tenant_id`, 16 bytes; `aggregate_type`, text; `aggregate_id`, 16 bytes; `sequence` as `u64`; `event_id`,
/// 16 bytes; `event_type`, text; `event_version` as `u16`; `payload`, text, the stored bytes of the `json` column; `metadata`, text,
/// likewise; `recorded_at` as `i64`, microseconds since 1970-01-01T00:00:00Z.
///
/// # Panics
/// If a text is longer than 4 GiB or a number of the log is negative, which the table's types and checks exclude.
pub fn bytes(event: &StoredEvent) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + event.payload.len() + event.metadata.len());
    out.push(VERSION);
    out.extend_from_slice(&unsigned(event.position).to_be_bytes());
    out.extend_from_slice(event.tenant_id.as_bytes());
    text(&mut out, &event.aggregate_type);
    out.extend_from_slice(event.aggregate_id.as_bytes());
    out.extend_from_slice(&unsigned(event.sequence).to_be_bytes());
    out.extend_from_slice(event.event_id.as_bytes());
    text(&mut out, &event.event_type);
    let form = u16::try_from(event.event_version).expect("log.events checks that event_version is at least 1");
    out.extend_from_slice(&form.to_be_bytes());
    text(&mut out, &event.payload);
    text(&mut out, &event.metadata);
    let micros = i64::try_from(event.recorded_at.unix_timestamp_nanos() / 1000)
        .expect("a PostgreSQL timestamp is 64 bits of microseconds");
    out.extend_from_slice(&micros.to_be_bytes());
    out
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).expect("log.events checks that position and sequence are at least 1")
}

fn text(out: &mut Vec<u8>, text: &str) {
    let length = u32::try_from(text.len()).expect("a PostgreSQL value is at most 1 GiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_encoding_is_fixed_to_the_byte() {
        let event = StoredEvent {
            position: 258,
            tenant_id: Uuid::from_u128(1),
            aggregate_type: "account".into(),
            aggregate_id: Uuid::from_u128(2),
            sequence: 3,
            event_id: Uuid::from_u128(4),
            event_type: "AccountDeleted".into(),
            event_version: 1,
            payload: "{\"a\": \"é\"}".into(),
            metadata: "{}".into(),
            recorded_at: datetime!(1970-01-01 00:00:01.000002 UTC),
        };
        let mut expected = vec![1, 0, 0, 0, 0, 0, 0, 1, 2];
        expected.extend([0; 15]);
        expected.push(1);
        expected.extend(b"\0\0\0\x07account");
        expected.extend([0; 15]);
        expected.push(2);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 3]);
        expected.extend([0; 15]);
        expected.push(4);
        expected.extend(b"\0\0\0\x0eAccountDeleted");
        expected.extend([0, 1]);
        expected.extend(b"\0\0\0\x0b{\"a\": \"\xc3\xa9\"}");
        expected.extend(b"\0\0\0\x02{}");
        expected.extend([0, 0, 0, 0, 0, 0x0f, 0x42, 0x42]);
        assert_eq!(bytes(&event), expected);
    }
}
