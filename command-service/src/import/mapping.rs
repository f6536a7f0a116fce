//! What each column of a list becomes: a TOML file, read into a [`Mapping`] that is checked as a whole. How one is written:
//! `docs/imports-mapping.md`.

use serde::Deserialize;
use toml::{Table, Value};

use super::bind::Bound;
use super::convert::{Conversion, Split};
use super::form::Form;
use super::header::fold;
use super::intake::COLUMNS_MAX;
use super::place::Target;
use super::rows::Row;
use super::template::Template;
use super::{builtin, guess};

/// Largest mapping, in bytes.
pub const BYTES_MAX: usize = 256 << 10;

/// Why a mapping cannot be used. Says what is known instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// It is no TOML, or has members that no mapping has.
    #[error("the mapping cannot be read: {0}")]
    Toml(String),
    /// A column or constant leads to nothing.
    #[error("{0:?} is no field; there are: {known}", known = Target::known())]
    Field(String),
    /// A conversion is none.
    #[error("{0:?} is no conversion; there are: {known}", known = Conversion::KNOWN)]
    Conversion(String),
    /// A way to take a text apart is none.
    #[error("{0:?} is no way to take a text apart: one or two characters, json or python_list")]
    Split(String),
    /// Only prospects are several in a row.
    #[error("{0:?} cannot be one of each: only fields of prospects can")]
    Each(String),
    /// The template of an id names nothing.
    #[error("the id {0:?} must name at least one column in braces, like \"{{Id}}\"")]
    Id(String),
    /// Several prospects of a row would have one id.
    #[error("with several prospects in a row their id must hold {{n}}, which counts them: {0:?}")]
    NotDistinct(String),
    /// A column is there twice.
    #[error("the column {0:?} is there twice, but for case or white space")]
    Duplicate(String),
    /// Too much of it.
    #[error("a mapping has at most {COLUMNS_MAX} columns and {BYTES_MAX} bytes")]
    TooLarge,
    /// Nothing would come of it.
    #[error("the mapping leads to no field of a company or prospect")]
    Empty,
    /// The list has none of its columns.
    #[error("the file has none of the mapping's columns: it has {file}; the mapping expects {expected}")]
    NoColumn {
        /// The file's columns.
        file: String,
        /// The mapping's.
        expected: String,
    },
}

/// What becomes of one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub target: Target,
    pub conversion: Option<Conversion>,
    /// How it is taken apart, one prospect for each part.
    pub each: Option<Split>,
    /// A value that cannot be taken is left out, not its row.
    pub lenient: bool,
}

/// What becomes of a column that no rule names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unmapped {
    /// Nothing.
    #[default]
    Ignore,
    /// An attribute of the row's person; of its company in a list of companies, or where there are several persons in a row.
    Attributes,
}

/// The row's own time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UpdatedAt {
    pub column: String,
    pub conversion: Option<Conversion>,
    pub lenient: bool,
}

/// What each column of a list becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Columns as the file names them, in its order: of two that lead to one field, the first that is not blank counts.
    pub(super) columns: Vec<(String, Vec<Rule>)>,
    pub(super) constants: Vec<(Target, String)>,
    pub(super) ids: Ids,
    pub(super) updated_at: Option<UpdatedAt>,
    pub(super) unmapped: Unmapped,
}

/// Ids in other systems.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ids {
    pub company: Option<Template>,
    pub company_source: Option<Template>,
    pub prospect: Option<Template>,
    pub prospect_source: Option<Template>,
}

/// A mapping as its file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    unmapped: Unmapped,
    #[serde(default)]
    columns: Table,
    #[serde(default)]
    constants: Table,
    #[serde(default)]
    ids: IdTexts,
    updated_at: Option<UpdatedAtText>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct IdTexts {
    company: Option<String>,
    company_source: Option<String>,
    prospect: Option<String>,
    prospect_source: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdatedAtText {
    column: String,
    #[serde(rename = "as")]
    conversion: Option<String>,
    #[serde(default)]
    lenient: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    to: String,
    #[serde(rename = "as")]
    conversion: Option<String>,
    each: Option<String>,
    #[serde(default)]
    lenient: bool,
}

impl Mapping {
    /// Reads a mapping's file.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(toml: &str) -> Result<Self, MappingError> {
        if toml.len() > BYTES_MAX {
            return Err(MappingError::TooLarge);
        }
        let file: File = toml::from_str(toml).map_err(|error| MappingError::Toml(error.to_string()))?;
        if file.columns.len() > COLUMNS_MAX || file.constants.len() > COLUMNS_MAX {
            return Err(MappingError::TooLarge);
        }
        let mut columns: Vec<(String, Vec<Rule>)> = Vec::with_capacity(file.columns.len());
        let mut seen = std::collections::HashSet::new();
        for (name, value) in file.columns {
            if !seen.insert(fold(&name)) {
                return Err(MappingError::Duplicate(name));
            }
            let rules = match value {
                Value::Array(rules) => {
                    rules.into_iter().map(|rule| Rule::parse(&name, rule)).collect::<Result<_, _>>()?
                }
                rule => vec![Rule::parse(&name, rule)?],
            };
            columns.push((name, rules));
        }
        if columns.iter().map(|(_, rules)| rules.len()).sum::<usize>() > COLUMNS_MAX {
            return Err(MappingError::TooLarge);
        }
        let constants = file.constants.into_iter().map(|(to, value)| {
            let target = Target::parse(&to).ok_or(MappingError::Field(to))?;
            Ok((target, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        });
        let template = |text: &Option<String>, with_column| {
            text.as_deref().map(|text| Template::parse(text, with_column)).transpose()
        };
        let updated_at = file.updated_at.map(|text| {
            let conversion = conversion(text.conversion)?;
            Ok(UpdatedAt { column: text.column, conversion, lenient: text.lenient })
        });
        let mapping = Self {
            columns,
            constants: constants.collect::<Result<_, MappingError>>()?,
            ids: Ids {
                company: template(&file.ids.company, true)?,
                company_source: template(&file.ids.company_source, false)?,
                prospect: template(&file.ids.prospect, true)?,
                prospect_source: template(&file.ids.prospect_source, false)?,
            },
            updated_at: updated_at.transpose()?,
            unmapped: file.unmapped,
        };
        if mapping.columns.iter().all(|(_, rules)| rules.is_empty()) && mapping.unmapped == Unmapped::Ignore {
            return Err(MappingError::Empty);
        }
        Ok(mapping)
    }

    /// A built-in mapping by its name, one of [`super::BUILTIN_NAMES`].
    pub fn builtin(name: &str) -> Option<Self> {
        Self::parse(builtin::text(name)?).ok()
    }

    /// A mapping guessed from the columns' names, and from the first rows where those do not tell. May be one that leads to nothing:
    /// then [`Mapping::bind`] says so.
    pub fn guess<'a>(form: &Form, sample: impl Iterator<Item = Row<'a>>) -> Self {
        guess::guess(form, sample)
    }

    /// The mapping's file, for people to correct; reading it gives the same mapping.
    pub fn to_toml(&self) -> String {
        super::write::to_toml(self)
    }

    /// Joins the mapping with a list's columns.
    ///
    /// # Errors
    /// If it names none of them.
    pub fn bind(&self, form: &Form) -> Result<Bound, MappingError> {
        Bound::new(self, form)
    }
}

impl Rule {
    fn parse(column: &str, value: Value) -> Result<Self, MappingError> {
        let text = match value {
            Value::String(to) => RuleText { to, conversion: None, each: None, lenient: false },
            value => value
                .try_into::<RuleText>()
                .map_err(|error| MappingError::Toml(format!("column {column:?}: {}", error.message())))?,
        };
        let target = Target::parse(&text.to).ok_or_else(|| MappingError::Field(text.to.clone()))?;
        let each = text.each.map(|split| Split::parse(&split).ok_or(MappingError::Split(split))).transpose()?;
        if each.is_some() && target.side != super::place::Side::Prospect {
            return Err(MappingError::Each(text.to));
        }
        Ok(Self { target, conversion: conversion(text.conversion)?, each, lenient: text.lenient })
    }
}

fn conversion(name: Option<String>) -> Result<Option<Conversion>, MappingError> {
    name.map(|name| Conversion::parse(&name).ok_or(MappingError::Conversion(name))).transpose()
}

#[cfg(test)]
mod tests;
