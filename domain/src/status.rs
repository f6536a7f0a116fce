//! Whether a record is there.

use serde::{Deserialize, Serialize};

/// Where a record is between its first event and its last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It has no events.
    #[default]
    Unregistered,
    /// It is there.
    Live,
    /// It was deleted, and can be restored.
    Deleted,
}
