//! What each column of a list becomes.

use super::bind::Bound;
use super::form::Form;
use super::rows::Row;

/// Why a mapping cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// It is no TOML, or has members that no mapping has.
    #[error("the mapping cannot be read: {0}")]
    Toml(String),
    /// A column or constant leads to nothing.
    #[error("{0:?} is no field")]
    Field(String),
}

/// What becomes of a column that no rule names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unmapped {
    /// Nothing.
    #[default]
    Ignore,
    /// An attribute of the row's person, or of its company.
    Attributes,
}

/// What each column of a list becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {}

impl Mapping {
    /// Reads a mapping's file.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(_toml: &str) -> Result<Self, MappingError> {
        todo!()
    }

    /// A built-in mapping by its name, one of [`super::BUILTIN_NAMES`].
    pub fn builtin(_name: &str) -> Option<Self> {
        todo!()
    }

    /// A mapping guessed from the columns' names, and from the first rows where those do not tell.
    pub fn guess<'a>(_form: &Form, _sample: impl Iterator<Item = Row<'a>>) -> Self {
        todo!()
    }

    /// The mapping's file, for people to correct; reading it gives the same mapping.
    pub fn to_toml(&self) -> String {
        todo!()
    }

    /// Joins the mapping with a list's columns.
    ///
    /// # Errors
    /// If it names none of them.
    pub fn bind(&self, _form: &Form) -> Result<Bound, MappingError> {
        todo!()
    }
}
