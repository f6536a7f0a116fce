//! Filters: a parameter becomes a condition on an indexed column.

use std::fmt::Write as _;

use service_kit::problem::Problem;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::parameters::{Parameters, instant, integer, split_values, uuid};

/// A value on its way to the server.
pub(crate) type Value = Box<dyn ToSql + Sync + Send>;

/// One filter of a list.
#[derive(Debug)]
pub(crate) struct Filter {
    /// The parameter.
    pub(crate) name: &'static str,
    /// The column that it compares.
    pub(crate) column: &'static str,
    pub(crate) kind: Kind,
}

/// How a parameter is read and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One of these ids.
    Id,
    /// One of these ids, in a prospect's row.
    ProspectId,
    /// One of these texts.
    Text,
    /// One of these texts, whatever their case: the column holds lower case.
    LowerCase,
    /// One of these texts, whatever their case: the column holds upper case.
    UpperCase,
    /// One of these numbers.
    Integer,
    /// At least this number.
    Least,
    /// At most this number.
    Most,
    /// After this instant.
    After,
}

impl Kind {
    /// What the parameter takes, for the documents.
    pub(crate) fn described(self) -> &'static str {
        match self {
            Self::Id | Self::ProspectId => "One of these ids: a,b",
            Self::Text => "One of these values: a,b; a comma in a value is written \\,",
            Self::LowerCase | Self::UpperCase => {
                "One of these values, whatever their case: a,b; a comma in a value is written \\,"
            }
            Self::Integer => "One of these whole numbers: 1,2",
            Self::Least => "At least this whole number",
            Self::Most => "At most this whole number",
            Self::After => "After this time (RFC 3339)",
        }
    }
}

/// The conditions of one request.
#[derive(Default)]
pub(crate) struct Conditions {
    /// SQL, each beginning with ` AND `.
    pub(crate) sql: String,
    /// What the numbered parameters stand for, from `$2` on; `$1` is the tenant.
    pub(crate) values: Vec<Value>,
    /// How many filters were given.
    pub(crate) count: usize,
    /// The companies that the list is narrowed to, where it is.
    pub(crate) companies: Option<Vec<Uuid>>,
}

impl Conditions {
    /// Reads the filters that were given.
    ///
    /// # Errors
    /// If a value is not of its form.
    pub(crate) fn parse(filters: &[Filter], parameters: &Parameters) -> Result<Self, Problem> {
        let mut conditions = Self::default();
        for filter in filters {
            if let Some(text) = parameters.text(filter.name) {
                conditions.add(filter, text)?;
            }
        }
        Ok(conditions)
    }

    fn add(&mut self, filter: &Filter, text: &str) -> Result<(), Problem> {
        let name = filter.name;
        self.count += 1;
        let texts = |change: fn(&str) -> String| -> Result<Vec<String>, Problem> {
            Ok(split_values(name, text)?.iter().map(|value| change(value)).collect())
        };
        match filter.kind {
            Kind::Id | Kind::ProspectId => {
                let ids =
                    split_values(name, text)?.iter().map(|value| uuid(name, value)).collect::<Result<Vec<_>, _>>()?;
                if matches!(name, "company_id" | "assigned_company_id") {
                    self.companies.get_or_insert_default().extend(&ids);
                }
                self.among(filter.column, ids);
                if filter.kind == Kind::ProspectId {
                    self.sql.push_str(" AND r.prospect_id IS NOT NULL");
                }
            }
            Kind::Text => self.among(filter.column, texts(str::to_owned)?),
            Kind::LowerCase => self.among(filter.column, texts(str::to_lowercase)?),
            Kind::UpperCase => self.among(filter.column, texts(str::to_uppercase)?),
            Kind::Integer => {
                let numbers = split_values(name, text)?
                    .iter()
                    .map(|value| integer(name, value))
                    .collect::<Result<Vec<_>, _>>()?;
                self.among(filter.column, numbers);
            }
            Kind::Least => self.compare(filter.column, ">=", integer(name, text)?),
            Kind::Most => self.compare(filter.column, "<=", integer(name, text)?),
            Kind::After => self.compare(filter.column, ">", instant(name, text)?),
        }
        Ok(())
    }

    /// One value keeps the index's order; several do not.
    fn among<T: ToSql + Sync + Send + 'static>(&mut self, column: &str, mut values: Vec<T>) {
        if values.len() == 1
            && let Some(value) = values.pop()
        {
            return self.compare(column, "=", value);
        }
        let number = self.number(values);
        let _ = write!(self.sql, " AND r.{column} = ANY(${number})");
    }

    fn compare(&mut self, column: &str, operator: &str, value: impl ToSql + Sync + Send + 'static) {
        let number = self.number(value);
        let _ = write!(self.sql, " AND r.{column} {operator} ${number}");
    }

    /// Keeps a value and gives its number.
    pub(crate) fn number(&mut self, value: impl ToSql + Sync + Send + 'static) -> usize {
        self.values.push(Box::new(value));
        self.values.len() + 1
    }
}
