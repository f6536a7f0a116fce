//! Query parameters: each once, each known, each of its form. What is wrong with any of them, or with a header, is noted while they
//! are read, and refused all at once.

use domain::Invalid;
use service_kit::problem::{Code, FieldProblem, Problem};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::record::Column;

/// Values in one list.
const VALUES_MAX: usize = 100;
/// Parameters of one request.
const PARAMETERS_MAX: usize = 64;

/// The parameters of a request, and what is wrong with it as far as it was read.
#[derive(Debug)]
pub(crate) struct Parameters {
    given: Vec<(String, String)>,
    wrong: Vec<(Code, FieldProblem)>,
}

impl Parameters {
    /// Reads a query string. Unknown parameters and those that come twice are noted.
    ///
    /// # Errors
    /// For text that is not UTF-8, and for more parameters than any endpoint has.
    pub(crate) fn parse(query: Option<&str>, allowed: &[&str]) -> Result<Self, Problem> {
        let query = query.unwrap_or_default();
        if query.bytes().filter(|byte| *byte == b'&').count() >= PARAMETERS_MAX {
            let detail = format!("a query string has at most {PARAMETERS_MAX} parameters");
            return Err(Problem::new(Code::InvalidParameter, detail));
        }
        let mut parameters = Self { given: Vec::new(), wrong: Vec::new() };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if name.contains('\u{fffd}') || value.contains('\u{fffd}') {
                return Err(Problem::new(Code::InvalidUtf8, "the query string is not UTF-8 once it is decoded"));
            }
            if !allowed.contains(&&*name) {
                let name: String = name.chars().take(100).collect();
                parameters.note(Code::UnknownParameter, &name, format!("allowed here: {}", allowed.join(", ")));
            } else if parameters.text(&name).is_some() {
                parameters.note_value(&name, "must be given once; several values go into one, as a,b");
            } else if value.contains('\0') {
                parameters.note_value(&name, "must not contain the character NUL");
            } else {
                parameters.given.push((name.into_owned(), value.into_owned()));
            }
        }
        Ok(parameters)
    }

    /// Notes that something is wrong with a parameter or header.
    pub(crate) fn note(&mut self, code: Code, name: &str, detail: impl Into<String>) {
        let detail = detail.into();
        let error = FieldProblem { pointer: name.to_owned(), code: code.name().to_owned(), detail };
        self.wrong.push((code, error));
    }

    /// Notes that a parameter or header has a wrong value.
    pub(crate) fn note_value(&mut self, name: &str, detail: impl Into<String>) {
        self.note(Code::InvalidParameter, name, detail);
    }

    /// What was noted becomes a parameter's value, or none.
    pub(crate) fn noted<T>(&mut self, name: &str, read: Result<T, Invalid>) -> Option<T> {
        read.map_err(|invalid| self.note_value(name, invalid.detail)).ok()
    }

    /// Passes if nothing was noted.
    ///
    /// # Errors
    /// One problem with all that was; its code is that of what is unknown, if anything is, else of the first.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let unknown = self.wrong.iter().find(|(code, _)| *code == Code::UnknownParameter);
        let Some((code, error)) = unknown.or(self.wrong.first()) else { return Ok(()) };
        let detail = match &self.wrong[..] {
            [_] => format!("{}: {}", error.pointer, error.detail),
            several => format!("{} things are wrong; `errors` has them all", several.len()),
        };
        let errors = self.wrong.iter().map(|(_, error)| error.clone()).collect();
        Err(Problem::new(*code, detail).errors(errors))
    }

    /// A parameter's text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that is `true` or `false`; false where it is not given.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        match self.text(name) {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                self.note_value(name, "must be true or false");
                false
            }
        }
    }

    /// A whole number within bounds.
    pub(crate) fn number(&mut self, name: &str, least: i64, most: i64) -> Option<i64> {
        let number = self.text(name)?.parse::<i64>().ok().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.note_value(name, format!("must be a whole number from {least} to {most}"));
        }
        number
    }

    /// Which columns `fields` selects; none is all.
    pub(crate) fn fields(&mut self, columns: &[Column]) -> Option<Vec<bool>> {
        let names: Vec<&str> = self.text("fields")?.split(',').map(str::trim).collect();
        let selected: Vec<bool> = columns.iter().map(|column| names.contains(&column.name)).collect();
        if names.iter().any(|name| columns.iter().all(|column| column.name != *name)) {
            let known: Vec<&str> = columns.iter().map(|column| column.name).collect();
            self.note_value("fields", format!("must name fields of the record: {}", known.join(", ")));
        }
        Some(selected)
    }
}

/// The values of a list: separated by commas; `\,` is a comma inside a value.
pub(crate) fn split_values(text: &str) -> Result<Vec<String>, Invalid> {
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
        return Err(invalid(format!("takes at most {VALUES_MAX} values")));
    }
    if values.iter().any(String::is_empty) {
        return Err(invalid("has an empty value"));
    }
    Ok(values)
}

/// An id in a value.
pub(crate) fn uuid(text: &str) -> Result<Uuid, Invalid> {
    Uuid::try_parse(text).map_err(|_| invalid("must be an id (a UUID), or several: a,b"))
}

/// A whole number in a value.
pub(crate) fn integer(text: &str) -> Result<i64, Invalid> {
    text.parse().map_err(|_| invalid("must be a whole number of at most 64 bits"))
}

/// An instant in a value.
pub(crate) fn instant(text: &str) -> Result<OffsetDateTime, Invalid> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| invalid("must be a time as in RFC 3339: 2026-01-31T12:00:00Z (a + is written %2B)"))
}

fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> Invalid {
    Invalid::new(Code::InvalidParameter.name(), detail)
}
