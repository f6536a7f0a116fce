//! Filters: a parameter becomes a condition on an indexed column.

use std::fmt::Write as _;

use domain::Invalid;
use domain::value::{Country, Domain, EmailAddress, JobTitleLevel, Line};
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
    /// What else must hold for the column's index to be of use.
    pub(crate) also: &'static str,
    pub(crate) kind: Kind,
}

/// How a parameter is read and compared. Texts are read by the value types that made the stored ones, so that whatever spelling of
/// a value is taken in a command finds it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One of these ids.
    Id,
    /// One of these texts.
    Text,
    /// One of these names, whatever their case.
    Name,
    /// One of these domains, or of what leads to them.
    Domain,
    /// One of these e-mail addresses, whatever their case.
    Email,
    /// One of these countries, by code or name.
    Country,
    /// One of these levels, in any of their known spellings.
    JobTitleLevel,
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
            Self::Id => "One of these ids: a,b",
            Self::Text | Self::JobTitleLevel => "One of these values: a,b; a comma in a value is written \\,",
            Self::Name => "One of these names, whatever their case: a,b; a comma in a name is written \\,",
            Self::Domain => "One of these domains, hosts or URLs: a,b",
            Self::Email => "One of these addresses, whatever their case: a,b",
            Self::Country => "One of these countries, by code of ISO 3166-1 or name: GB,France",
            Self::Integer => "One of these whole numbers: 1,2",
            Self::Least => "At least this whole number",
            Self::Most => "At most this whole number",
            Self::After => "After this time (RFC 3339)",
        }
    }
}

/// Characters of a text or name that is compared: more than any column holds.
const TEXT_MAX: usize = 1_000;

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
    /// Reads the filters that were given; a value that is not of its form is noted.
    pub(crate) fn parse(filters: &[Filter], parameters: &mut Parameters) -> Self {
        let mut conditions = Self::default();
        for filter in filters {
            if let Some(text) = parameters.text(filter.name) {
                let added = conditions.add(filter, text);
                parameters.noted(filter.name, added);
            }
        }
        conditions
    }

    fn add(&mut self, filter: &Filter, text: &str) -> Result<(), Invalid> {
        self.count += 1;
        let texts = |parse: fn(&str) -> Result<String, Invalid>| -> Result<Vec<String>, Invalid> {
            split_values(text)?.iter().map(|value| parse(value)).collect()
        };
        let line = |value: &str| Line::<TEXT_MAX>::parse(value).map(|line| line.as_str().to_owned());
        let column = filter.column;
        match filter.kind {
            Kind::Id => {
                let ids = split_values(text)?.iter().map(|value| uuid(value)).collect::<Result<Vec<_>, _>>()?;
                if matches!(filter.name, "company_id" | "assigned_company_id") {
                    self.companies.get_or_insert_default().extend(&ids);
                }
                self.among(column, ids);
            }
            Kind::Text => self.among(column, texts(line)?),
            Kind::Name => self
                .among(column, texts(|value| Line::<TEXT_MAX>::parse(value).map(|line| line.as_str().to_lowercase()))?),
            Kind::Domain => self.among(column, texts(|value| Domain::parse(value).map(|domain| domain.to_string()))?),
            Kind::Email => self.among(column, texts(|value| EmailAddress::parse(value).map(|address| address.key()))?),
            Kind::Country => {
                self.among(column, texts(|value| Country::parse(value).map(|country| country.to_string()))?);
            }
            Kind::JobTitleLevel => {
                self.among(column, texts(|value| JobTitleLevel::parse(value).map(|level| level.to_string()))?);
            }
            Kind::Integer => {
                let numbers = split_values(text)?.iter().map(|value| integer(value)).collect::<Result<Vec<_>, _>>()?;
                self.among(column, numbers);
            }
            Kind::Least => self.compare(column, ">=", integer(text)?),
            Kind::Most => self.compare(column, "<=", integer(text)?),
            Kind::After => self.compare(column, ">", instant(text)?),
        }
        self.sql.push_str(filter.also);
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
