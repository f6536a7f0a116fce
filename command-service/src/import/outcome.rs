//! What became of one row, as it is kept and told.

use domain::company::Change;
use domain::import::Tally;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::mapped::Reason;

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It said nothing new.
    Unchanged,
    /// It changed a record.
    Updated,
    /// It made a record.
    Created,
    /// A person should look at its person, or, where it has none, at its company.
    InReview,
    /// It was left out.
    Refused,
}

/// The whole story of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowOutcome {
    /// Its number, from 1.
    pub row: u64,
    /// The line of the file that it begins in.
    pub line: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// As it stood.
    pub text: String,
    /// The company that it speaks of.
    pub company_id: Option<Uuid>,
    /// What it did to it.
    pub company_change: Option<Change>,
    /// The persons that it speaks of.
    pub prospect_ids: Vec<Uuid>,
    /// What it did to each of them.
    pub prospect_changes: Vec<Change>,
    /// Whether each of them was made by this list or an earlier one of the same source: it was not there before.
    #[serde(default)]
    pub prospect_made_by_source: Vec<bool>,
    /// Why it was left out or should be looked at, and what of it lost.
    pub reasons: Vec<RowReason>,
}

/// One thing to say about a row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RowReason {
    /// A stable name.
    pub code: String,
    /// What it means, and what to do.
    pub detail: String,
    /// The column, as the file names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The field of the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Of two values, the one that stands now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Value>,
    /// Of two values, the one that does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Value>,
}

impl Outcome {
    /// Reads its name.
    pub fn parse(name: &str) -> Option<Self> {
        serde_json::from_value(name.into()).ok()
    }

    /// Of what a row did to a record.
    pub fn of(change: Change) -> Self {
        match change {
            Change::Unchanged => Self::Unchanged,
            Change::Updated => Self::Updated,
            Change::Created => Self::Created,
        }
    }

    /// Counts a row of this outcome.
    pub fn count(self, tally: &mut Tally) {
        tally.read += 1;
        match self {
            Self::Unchanged => tally.unchanged += 1,
            Self::Updated => tally.updated += 1,
            Self::Created => tally.created += 1,
            Self::InReview => tally.in_review += 1,
            Self::Refused => tally.refused += 1,
        }
    }
}

impl RowOutcome {
    /// The records that the row speaks of, each with whether it is a prospect and what the row did to it.
    pub fn records(&self) -> impl Iterator<Item = (Uuid, bool, Change)> {
        let company = self.company_id.zip(self.company_change).map(|(id, change)| (id, false, change));
        let prospects = self.prospect_ids.iter().zip(&self.prospect_changes);
        company.into_iter().chain(prospects.map(|(id, change)| (*id, true, *change)))
    }
}

impl RowReason {
    /// A reason without more.
    pub fn new(code: &str, detail: impl Into<String>) -> Self {
        Self { code: code.to_owned(), detail: detail.into(), ..Self::default() }
    }

    /// The same, about a column.
    #[must_use]
    pub fn column(mut self, column: Option<&str>) -> Self {
        self.column = column.map(str::to_owned);
        self
    }
}

impl From<Reason> for RowReason {
    fn from(reason: Reason) -> Self {
        Self::new(reason.code, reason.detail).column(reason.column.as_deref())
    }
}
