//! Keyset cursors: where the page before ended, bound to the list, its filters, its sort and the tenant.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::Invalid;
use serde::{Deserialize, Serialize};
use service_kit::problem::Code;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::filter::Value;

/// The last row of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Last {
    /// Its sort key; none where the rows without one have begun.
    #[serde(rename = "k")]
    pub(crate) key: Option<Key>,
    /// Its id.
    #[serde(rename = "i")]
    pub(crate) id: Uuid,
}

/// A sort key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Key {
    #[serde(rename = "s")]
    Text(String),
    #[serde(rename = "n")]
    Integer(i64),
    /// Microseconds since 1970: what PostgreSQL holds.
    #[serde(rename = "t")]
    Instant(i64),
    #[serde(rename = "u")]
    Id(Uuid),
}

#[derive(Serialize, Deserialize)]
struct Content {
    #[serde(rename = "f")]
    fingerprint: String,
    #[serde(flatten)]
    last: Last,
}

/// What a cursor is bound to: nothing secret, for a cursor opens nothing that the key does not open anyway.
pub(crate) fn fingerprint(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    URL_SAFE_NO_PAD.encode(&hash.finalize()[..12])
}

impl Last {
    /// The opaque text.
    pub(crate) fn encode(self, fingerprint: &str) -> String {
        let content = Content { fingerprint: fingerprint.to_owned(), last: self };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&content).expect("texts and numbers always serialise"))
    }

    /// Reads a cursor that this list gave.
    ///
    /// # Errors
    /// `invalid_cursor` for anything else.
    pub(crate) fn decode(text: &str, fingerprint: &str) -> Result<Self, Invalid> {
        let content: Option<Content> =
            URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        match content {
            Some(content) if content.fingerprint == fingerprint => Ok(content.last),
            Some(_) => {
                Err(invalid("the cursor is of another list, or of other filters or another sort; start without one"))
            }
            None => Err(invalid("that is no cursor; send next_cursor exactly as it came")),
        }
    }

    /// Reads the last two columns of a row: sort key and id.
    pub(crate) fn from_row(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let (key, id) = (row.len() - 2, row.len() - 1);
        let kind = row.columns()[key].type_();
        let key = if *kind == Type::INT8 {
            row.try_get::<_, Option<i64>>(key)?.map(Key::Integer)
        } else if *kind == Type::TIMESTAMPTZ {
            row.try_get::<_, Option<OffsetDateTime>>(key)?.map(|instant| {
                // A timestamptz has 64 bits of microseconds, so this loses nothing.
                Key::Instant(i64::try_from(instant.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX))
            })
        } else if *kind == Type::UUID {
            row.try_get::<_, Option<Uuid>>(key)?.map(Key::Id)
        } else {
            row.try_get::<_, Option<String>>(key)?.map(Key::Text)
        };
        Ok(Self { key, id: row.try_get(id)? })
    }
}

impl Key {
    /// Whether this is what the sort's column holds; a cursor that somebody made up may hold anything.
    pub(crate) fn fits(&self, sort: &str) -> bool {
        match self {
            Self::Text(_) => matches!(sort, "name" | "domain"),
            Self::Integer(_) => matches!(sort, "revenue" | "employee_count"),
            Self::Instant(_) => matches!(sort, "created_at" | "updated_at"),
            Self::Id(_) => sort == "id",
        }
    }

    /// The value for the server.
    ///
    /// # Errors
    /// `invalid_cursor` for an instant that is none.
    pub(crate) fn value(&self) -> Result<Value, Invalid> {
        Ok(match self {
            Self::Text(text) if text.contains('\0') => return Err(invalid("that is no cursor")),
            Self::Text(text) => Box::new(text.clone()),
            Self::Integer(number) => Box::new(*number),
            Self::Instant(micros) => Box::new(
                OffsetDateTime::from_unix_timestamp_nanos(i128::from(*micros) * 1000)
                    .map_err(|_| invalid("that is no cursor"))?,
            ),
            Self::Id(id) => Box::new(*id),
        })
    }
}

/// The refusal `invalid_cursor`.
pub(crate) fn invalid(detail: &'static str) -> Invalid {
    Invalid::new(Code::InvalidCursor.name(), detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_only_to_its_own_list() {
        for key in [
            None,
            Some(Key::Text("é\"".to_owned())),
            Some(Key::Integer(-5)),
            Some(Key::Instant(1)),
            Some(Key::Id(Uuid::nil())),
        ] {
            let last = Last { key, id: Uuid::max() };
            let text = last.clone().encode("one");
            assert_eq!(Last::decode(&text, "one").expect("its own"), last);
            assert!(Last::decode(&text, "other").is_err());
            assert!(Last::decode(&text[1..], "one").is_err());
        }
        assert_ne!(fingerprint(&["a", "bc"]), fingerprint(&["ab", "c"]));
    }
}
