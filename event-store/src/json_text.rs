//! JSON columns as the text that they hold: no parsing, no change of a byte.

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

type BoxedError = Box<dyn std::error::Error + Sync + Send>;

/// The text of a `json` column or parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonText<'a>(pub &'a str);

impl<'a> FromSql<'a> for JsonText<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, BoxedError> {
        Ok(Self(std::str::from_utf8(raw)?))
    }

    fn accepts(column: &Type) -> bool {
        *column == Type::JSON
    }
}

impl ToSql for JsonText<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxedError> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(parameter: &Type) -> bool {
        *parameter == Type::JSON
    }

    to_sql_checked!();
}
