//! Query parameters: each once, each known, each of its form; whatever is wrong is named, all of it at once.

use service_kit::problem::{Code, FieldProblem, Problem};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::problems::invalid_parameter;
use crate::record::Column;

/// Values in one list.
const VALUES_MAX: usize = 100;
/// Parameters of one request.
const PARAMETERS_MAX: usize = 64;

/// The parameters of a request, taken out one by one.
#[derive(Debug)]
pub(crate) struct Parameters {
    given: Vec<(String, String)>,
}

impl Parameters {
    /// Reads a query string.
    ///
    /// # Errors
    /// For a parameter that is not in `allowed` or comes twice, and for text that is not UTF-8.
    pub(crate) fn parse(query: Option<&str>, allowed: &[&str]) -> Result<Self, Problem> {
        let mut given: Vec<(String, String)> = Vec::new();
        let mut unknown = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).take(PARAMETERS_MAX) {
            if name.contains('\u{fffd}') || value.contains('\u{fffd}') {
                return Err(Problem::new(Code::InvalidUtf8, "the query string is not UTF-8 once it is decoded"));
            }
            if value.contains('\0') {
                return Err(invalid_parameter(&name, "must not contain the character NUL"));
            }
            if !allowed.contains(&&*name) {
                let detail = format!("allowed here: {}", allowed.join(", "));
                unknown.push(FieldProblem {
                    pointer: name.chars().take(100).collect(),
                    code: Code::UnknownParameter.name().to_owned(),
                    detail,
                });
            } else if given.iter().any(|(known, _)| *known == name) {
                return Err(invalid_parameter(&name, "must be given once; several values go into one, as a,b"));
            }
            given.push((name.into_owned(), value.into_owned()));
        }
        if unknown.is_empty() {
            return Ok(Self { given });
        }
        Err(Problem::new(Code::UnknownParameter, format!("allowed here: {}", allowed.join(", "))).errors(unknown))
    }

    /// Takes a parameter's text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that is `true` or `false`; false where it is not given.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(invalid_parameter(name, "must be true or false")),
        }
    }

    /// A whole number within bounds.
    pub(crate) fn number(&self, name: &str, least: i64, most: i64) -> Result<Option<i64>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse::<i64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(invalid_parameter(name, format!("must be a whole number from {least} to {most}"))),
        }
    }

    /// Which columns `fields` selects; none is all.
    pub(crate) fn fields(&self, columns: &[Column]) -> Result<Option<Vec<bool>>, Problem> {
        let Some(text) = self.text("fields") else { return Ok(None) };
        let mut selected = vec![false; columns.len()];
        for name in text.split(',').map(str::trim) {
            let Some(place) = columns.iter().position(|column| column.name == name) else {
                let known: Vec<&str> = columns.iter().map(|column| column.name).collect();
                return Err(invalid_parameter(
                    "fields",
                    format!("must name fields of the record: {}", known.join(", ")),
                ));
            };
            selected[place] = true;
        }
        Ok(Some(selected))
    }
}

/// The values of a list: separated by commas; `\,` is a comma inside a value.
pub(crate) fn split_values(name: &str, text: &str) -> Result<Vec<String>, Problem> {
    let mut values = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if matches!(characters.peek(), Some(',' | '\\')) => {
                let escaped = characters.next().into_iter();
                values.iter_mut().next_back().into_iter().for_each(|value| value.extend(escaped.clone()));
            }
            ',' => values.push(String::new()),
            other => values.iter_mut().next_back().into_iter().for_each(|value| value.push(other)),
        }
    }
    let values: Vec<String> = values.into_iter().map(|value| value.trim().to_owned()).collect();
    if values.len() > VALUES_MAX {
        return Err(invalid_parameter(name, format!("takes at most {VALUES_MAX} values")));
    }
    if values.iter().any(String::is_empty) {
        return Err(invalid_parameter(name, "has an empty value"));
    }
    Ok(values)
}

/// An id in a value.
pub(crate) fn uuid(name: &str, text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| invalid_parameter(name, "must be an id (a UUID), or several: a,b"))
}

/// A whole number in a value.
pub(crate) fn integer(name: &str, text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| invalid_parameter(name, "must be a whole number of at most 64 bits"))
}

/// An instant in a value.
pub(crate) fn instant(name: &str, text: &str) -> Result<OffsetDateTime, Problem> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        invalid_parameter(name, "must be a time as in RFC 3339: 2026-01-31T12:00:00Z (a + is written %2B)")
    })
}
