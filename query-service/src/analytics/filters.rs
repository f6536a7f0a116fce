//! Which records are counted.

use domain::value::{Country, Line};
use tokio_postgres::types::ToSql;

use crate::parameters::{Parameters, split_values};

/// Filters that every kind of number takes. A prospect's country is its own, its industry its company's.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    countries: Option<Vec<String>>,
    industries: Option<Vec<String>>,
}

/// Their parameters.
pub(crate) const FILTERS: &[&str] = &["country", "industry"];

impl Filters {
    /// Reads them; values that are not of their form are noted.
    pub(crate) fn parse(parameters: &mut Parameters) -> Self {
        let read = |parameters: &mut Parameters, name, parse: fn(&str) -> Result<String, domain::Invalid>| {
            let text = parameters.text(name)?;
            let values = split_values(text).and_then(|values| values.iter().map(|value| parse(value)).collect());
            parameters.noted(name, values)
        };
        Self {
            countries: read(parameters, "country", |text| Country::parse(text).map(|country| country.to_string())),
            industries: read(parameters, "industry", |text| {
                Line::<100>::parse(text).map(|line| line.as_str().to_owned())
            }),
        }
    }

    /// `$1` and `$2` of every statement.
    pub(crate) fn values(&self) -> [&(dyn ToSql + Sync); 2] {
        [&self.countries, &self.industries]
    }
}
