//! What changed in a set.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What came into a set and what left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "T: Ord + Deserialize<'de>"))]
pub struct SetChanges<T> {
    /// What came in.
    #[serde(default = "BTreeSet::new", skip_serializing_if = "BTreeSet::is_empty")]
    pub added: BTreeSet<T>,
    /// What left.
    #[serde(default = "BTreeSet::new", skip_serializing_if = "BTreeSet::is_empty")]
    pub removed: BTreeSet<T>,
}

impl<T: Ord + Clone> SetChanges<T> {
    /// What leads from one set to another; none if they are the same.
    pub fn between(before: &BTreeSet<T>, after: &BTreeSet<T>) -> Option<Self> {
        (before != after).then(|| Self {
            added: after.difference(before).cloned().collect(),
            removed: before.difference(after).cloned().collect(),
        })
    }

    /// Makes the change.
    pub fn apply_to(&self, set: &mut BTreeSet<T>) {
        for value in &self.removed {
            set.remove(value);
        }
        set.extend(self.added.iter().cloned());
    }
}
