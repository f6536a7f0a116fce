//! What becomes of one row.

use serde::Serialize;
use serde_json::{Map, Value};

/// What becomes of one row. Blank cells are absent.
#[derive(Clone, Default, PartialEq)]
pub struct Mapped {
    /// The members that `POST /v1/companies` takes, without `domain`.
    pub company: Map<String, Value>,
    /// The company's domain, as the row has it.
    pub domain: Option<String>,
    /// The company's website, as the row has it.
    pub website: Option<String>,
    /// The members that `POST /v1/prospects` takes, without `company_id`: one for each person in the row.
    pub prospects: Vec<Map<String, Value>>,
    /// The row's own time in microseconds since 1970, where the mapping names a column.
    pub updated_at: Option<i64>,
    /// Values that were left out because their column is lenient.
    pub dropped: Vec<Reason>,
}

/// Why a value, or its row, was left out. Never holds the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The column, as the file names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// A stable name.
    pub code: &'static str,
    /// What it should have been.
    pub detail: String,
}
