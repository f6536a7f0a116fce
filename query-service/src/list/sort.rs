//! Sorts: a column with an index (tenant, column, id), forwards or backwards; rows without a value come last either way.

use crate::parameters::Parameters;

/// One sort of a list.
#[derive(Debug)]
pub(crate) struct Sort {
    /// What the parameter calls it.
    pub(crate) name: &'static str,
    /// Its column.
    pub(crate) column: &'static str,
    /// Whether rows may have no value.
    pub(crate) nullable: bool,
}

/// The order of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    /// By what.
    pub(crate) sort: &'static Sort,
    /// Greatest first.
    pub(crate) descending: bool,
}

impl Order {
    /// Reads `sort=name` or `sort=-name`; without it the list is in the order of its ids. None, and a note, if there is no such sort.
    pub(crate) fn parse(sorts: &'static [Sort], parameters: &mut Parameters) -> Option<Self> {
        let text = parameters.text("sort").unwrap_or("id");
        let (name, descending) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
        let found = sorts.iter().find(|sort| sort.name == name).map(|sort| Self { sort, descending });
        if found.is_none() {
            let known: Vec<&str> = sorts.iter().map(|sort| sort.name).collect();
            let detail = format!("must be one of {}, with a - in front for the other direction", known.join(", "));
            parameters.note_value("sort", detail);
        }
        found
    }
}
