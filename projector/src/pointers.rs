//! What a step changes in which company stands for which (decision 6): the arrays of its two statements.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::memory::Change;

/// Who stands for whom after a step, as arrays.
pub(crate) struct Pointers {
    pub(crate) merged: Vec<Uuid>,
    tenants_of_merged: Vec<Uuid>,
    primaries: Vec<Uuid>,
    pub(crate) unmerged: Vec<Uuid>,
    tenants_of_unmerged: Vec<Uuid>,
}

impl Pointers {
    pub(crate) fn of(change: &Change) -> Self {
        let merged = change.merged.iter().filter_map(|(place, primary)| Some((*place, (*primary)?)));
        let ((tenants_of_merged, merged), primaries) = merged.unzip();
        let unmerged = change.merged.iter().filter(|(_, primary)| primary.is_none());
        let (tenants_of_unmerged, unmerged) = unmerged.map(|(place, _)| *place).unzip();
        Self { merged, tenants_of_merged, primaries, unmerged, tenants_of_unmerged }
    }

    pub(crate) fn merge_parameters(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.tenants_of_merged, &self.merged, &self.primaries]
    }

    pub(crate) fn unmerge_parameters(&self) -> [&(dyn ToSql + Sync); 2] {
        [&self.tenants_of_unmerged, &self.unmerged]
    }
}
