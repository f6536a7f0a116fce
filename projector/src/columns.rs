//! Rows as columns: what a table's rows hold, as arrays for one set-based statement, or for comparing them one by one.

use bytes::BytesMut;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `uuid`
    Uuid,
    /// `text`
    Text,
    /// `bigint`
    Number,
    /// `timestamptz`
    Time,
    /// `jsonb`, as text on its way
    Json,
}

/// A table's columns, in the order of its cells.
pub type Columns = &'static [(&'static str, Kind)];

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// `uuid`
    Uuid(Option<Uuid>),
    /// `text`
    Text(Option<String>),
    /// `bigint`
    Number(Option<i64>),
    /// `timestamptz`
    Time(Option<OffsetDateTime>),
    /// `jsonb`
    Json(Value),
}

type BoxedError = Box<dyn std::error::Error + Sync + Send>;

impl ToSql for Cell {
    fn to_sql(&self, sql_type: &Type, out: &mut BytesMut) -> Result<IsNull, BoxedError> {
        match self {
            Self::Uuid(value) => value.to_sql(sql_type, out),
            Self::Text(value) => value.to_sql(sql_type, out),
            Self::Number(value) => value.to_sql(sql_type, out),
            Self::Time(value) => value.to_sql(sql_type, out),
            Self::Json(value) if *sql_type == Type::JSONB => value.to_sql(sql_type, out),
            Self::Json(value) => value.to_string().to_sql(sql_type, out),
        }
    }

    fn accepts(sql_type: &Type) -> bool {
        matches!(*sql_type, Type::UUID | Type::TEXT | Type::INT8 | Type::TIMESTAMPTZ | Type::JSONB)
    }

    to_sql_checked!();
}

impl Cell {
    /// Whether a row has this in a column of its kind.
    ///
    /// # Errors
    /// If the column is of another type.
    pub fn is_in(&self, row: &Row, index: usize) -> Result<bool, tokio_postgres::Error> {
        Ok(match self {
            Self::Uuid(value) => row.try_get::<_, Option<Uuid>>(index)? == *value,
            Self::Text(value) => row.try_get::<_, Option<&str>>(index)? == value.as_deref(),
            Self::Number(value) => row.try_get::<_, Option<i64>>(index)? == *value,
            Self::Time(value) => row.try_get::<_, Option<OffsetDateTime>>(index)? == *value,
            Self::Json(value) => row.try_get::<_, Value>(index)? == *value,
        })
    }
}

impl Kind {
    /// The type of an array of such values as a parameter.
    pub fn array(self) -> &'static str {
        match self {
            Self::Uuid => "uuid[]",
            Self::Text | Self::Json => "text[]",
            Self::Number => "bigint[]",
            Self::Time => "timestamptz[]",
        }
    }

    /// The type of such a column, for binary COPY.
    pub fn copied(self) -> Type {
        match self {
            Self::Uuid => Type::UUID,
            Self::Text => Type::TEXT,
            Self::Number => Type::INT8,
            Self::Time => Type::TIMESTAMPTZ,
            Self::Json => Type::JSONB,
        }
    }

    /// Nothing, as such a value.
    pub fn empty(self) -> Cell {
        match self {
            Self::Uuid => Cell::Uuid(None),
            Self::Text => Cell::Text(None),
            Self::Number => Cell::Number(None),
            Self::Time => Cell::Time(None),
            Self::Json => Cell::Json(Value::Null),
        }
    }

    /// Reads a value of a row.
    ///
    /// # Errors
    /// If the column is of another type.
    pub fn read(self, row: &Row, index: usize) -> Result<Cell, tokio_postgres::Error> {
        Ok(match self {
            Self::Uuid => Cell::Uuid(row.try_get(index)?),
            Self::Text => Cell::Text(row.try_get(index)?),
            Self::Number => Cell::Number(row.try_get(index)?),
            Self::Time => Cell::Time(row.try_get(index)?),
            Self::Json => Cell::Json(row.try_get(index)?),
        })
    }
}

/// Turns rows into one array per column.
pub fn transpose(columns: Columns, rows: Vec<Vec<Cell>>) -> Vec<Vec<Cell>> {
    let mut arrays: Vec<Vec<Cell>> = columns.iter().map(|_| Vec::with_capacity(rows.len())).collect();
    for row in rows {
        for (array, cell) in arrays.iter_mut().zip(row) {
            array.push(cell);
        }
    }
    arrays
}

/// The arrays as parameters.
pub fn parameters(arrays: &[Vec<Cell>]) -> Vec<&(dyn ToSql + Sync)> {
    arrays.iter().map(|array| array as &(dyn ToSql + Sync)).collect()
}

/// `unnest($1::uuid[], …)` over the columns, beginning with parameter 1.
pub fn unnest(columns: Columns) -> String {
    let arrays: Vec<String> =
        columns.iter().zip(1..).map(|((_, kind), number)| format!("${number}::{}", kind.array())).collect();
    format!("unnest({})", arrays.join(", "))
}

/// The columns' names.
pub fn names(columns: &[(&str, Kind)]) -> String {
    columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// The columns of the alias `alias`, JSON made of its text.
pub fn selected(columns: Columns, alias: &str) -> String {
    let selected = columns.iter().map(|(name, kind)| {
        let cast = if *kind == Kind::Json { "::jsonb" } else { "" };
        format!("{alias}.{name}{cast}")
    });
    selected.collect::<Vec<_>>().join(", ")
}
