//! A mapping joined with a list's columns.

use super::mapped::{Mapped, Reason};
use super::place::Side;
use super::rows::Cells;

/// A mapping joined with a list's columns.
pub struct Bound {}

impl Bound {
    /// What becomes of a row of the source `source`.
    ///
    /// # Errors
    /// Why the row is refused: every value that cannot be converted and whose column is not lenient.
    pub fn map(&self, _source: &str, _cells: &Cells<'_>) -> Result<Mapped, Vec<Reason>> {
        todo!()
    }

    /// Which column a field came from, by the pointer of a field's error (`/email`, `/attributes/tier`).
    pub fn column_of(&self, _side: Side, _pointer: &str) -> Option<&str> {
        todo!()
    }

    /// Whether the field's column is lenient: a value that the field refuses is to be left out, not its row.
    pub fn is_lenient(&self, _side: Side, _pointer: &str) -> bool {
        todo!()
    }
}
