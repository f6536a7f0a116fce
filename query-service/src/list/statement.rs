//! The statements of a list. Column names are ours and fixed; values are always parameters.

use domain::Invalid;

use super::Resource;
use super::cursor::{Last, invalid};
use super::filter::{Conditions, Value};
use super::sort::Order;
use crate::record::select_list;

/// Statements that a connection keeps prepared; with more, which are those of generations that are gone, it forgets all of them.
pub(crate) const STATEMENTS_MAX: usize = 200;

/// A list as it is asked for.
pub(crate) struct Selection {
    pub(crate) resource: &'static Resource,
    pub(crate) conditions: Conditions,
    pub(crate) order: Order,
    pub(crate) include_deleted: bool,
    /// Items on a page.
    pub(crate) limit: usize,
    /// Where the page before ended.
    pub(crate) after: Option<Last>,
}

impl Selection {
    /// Puts the cursor's values behind those of the filters.
    ///
    /// # Errors
    /// `invalid_cursor` if it does not fit the sort.
    pub(crate) fn cursor_values(&self) -> Result<Vec<Value>, Invalid> {
        let Some(Last { key, id }) = &self.after else { return Ok(Vec::new()) };
        match key {
            Some(key) if !key.fits(self.order.sort.name) => Err(invalid("that is no cursor")),
            Some(_) if self.order.sort.column == self.resource.id => Ok(vec![Box::new(*id)]),
            Some(key) => Ok(vec![key.value()?, Box::new(*id)]),
            None if self.order.sort.nullable => Ok(vec![Box::new(*id)]),
            None => Err(invalid("that is no cursor")),
        }
    }

    /// The page and one row more, which tells whether there is another page. Ends with the columns sort key and id.
    ///
    /// Rows that have a sort key and rows that have none are two ranges of the same index: each part reads one in order, and
    /// the second part runs only where the first does not fill the page.
    pub(crate) fn page_sql(&self, generation: i32) -> String {
        let Order { sort, descending } = self.order;
        let id = self.resource.id;
        let (direction, beyond) = if descending { (" DESC", "<") } else { ("", ">") };
        let rows = self.limit + 1;
        let key = sort.column;
        let columns = format!("{}, r.{key} AS sort_key, r.{id} AS sort_id", select_list(self.resource.columns));
        let from = self.rows_sql(generation);
        let next = self.conditions.values.len() + 2;
        let (with_key, without_key) = match &self.after {
            None => (Some(String::new()), String::new()),
            Some(Last { key: Some(_), .. }) if key == id => {
                (Some(format!(" AND r.{id} {beyond} ${next}")), String::new())
            }
            Some(Last { key: Some(_), .. }) => {
                (Some(format!(" AND (r.{key}, r.{id}) {beyond} (${next}, ${})", next + 1)), String::new())
            }
            Some(Last { key: None, .. }) => (None, format!(" AND r.{id} {beyond} ${next}")),
        };
        let ordered =
            if key == id { format!("r.{id}{direction}") } else { format!("r.{key}{direction}, r.{id}{direction}") };
        let mut parts = Vec::new();
        if let Some(beyond_cursor) = with_key {
            let has_key = if sort.nullable { format!(" AND r.{key} IS NOT NULL") } else { String::new() };
            parts.push(format!("SELECT {columns}\n{from}{has_key}{beyond_cursor}\nORDER BY {ordered} LIMIT {rows}"));
        }
        if sort.nullable {
            // The key is the same for all of them, but named in the order it lets the index give the rows in order.
            parts.push(format!(
                "SELECT {columns}\n{from} AND r.{key} IS NULL{without_key}\nORDER BY {ordered} LIMIT {rows}"
            ));
        }
        let sql = match &parts[..] {
            [one] => one.clone(),
            parts => format!("({})\nLIMIT {rows}", parts.join(")\nUNION ALL\n(")),
        };
        format!("-- query_service::list::page\n{sql}")
    }

    /// How many rows the filters leave, without cursor and limit.
    pub(crate) fn count_sql(&self, generation: i32) -> String {
        format!("-- query_service::list::count\nSELECT count(*) {}", self.rows_sql(generation))
    }

    /// The planner's estimate of the same.
    pub(crate) fn estimate_sql(&self, generation: i32) -> String {
        let (id, from) = (self.resource.id, self.rows_sql(generation));
        format!("-- query_service::list::estimate\nEXPLAIN (FORMAT JSON) SELECT r.{id} {from}")
    }

    /// Whether the statement is worth keeping prepared: it comes often, there are fewer than [`STATEMENTS_MAX`] like it, and no
    /// value of a filter decides how it is best carried out. One with filters is planned each time, for its own values: a plan for any
    /// value would walk through a tenant whose rows all have one country to look for another.
    pub(crate) fn is_common(&self) -> bool {
        self.limit == crate::routes::LIMIT_DEFAULT && !self.include_deleted && self.conditions.count == 0
    }

    fn rows_sql(&self, generation: i32) -> String {
        let Resource { table, always, live, .. } = self.resource;
        let live = if self.include_deleted { "" } else { live };
        let schema = migrations::schema_name(generation);
        format!("FROM {schema}.{table} AS r WHERE r.tenant_id = $1{}{always}{live}", self.conditions.sql)
    }
}
