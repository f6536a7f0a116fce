//! Sorts: a column with an index (tenant, column, id), forwards or backwards; rows without a value come last either way.

use service_kit::problem::Problem;

use crate::problems::invalid_parameter;

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
    /// Reads `sort=name` or `sort=-name`; without it the list is in the order of its ids.
    ///
    /// # Errors
    /// If there is no such sort.
    pub(crate) fn parse(sorts: &'static [Sort], text: Option<&str>) -> Result<Self, Problem> {
        let text = text.unwrap_or("id");
        let (name, descending) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
        sorts.iter().find(|sort| sort.name == name).map(|sort| Self { sort, descending }).ok_or_else(|| {
            let known: Vec<&str> = sorts.iter().map(|sort| sort.name).collect();
            invalid_parameter(
                "sort",
                format!("must be one of {}, with a - in front for the other direction", known.join(", ")),
            )
        })
    }
}
