//! Whether a record is there.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

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
    /// It was merged into another, which can be undone. Only companies are.
    Merged {
        /// The one that stands for both now.
        into: Uuid,
    },
}
