//! From the text of a cell to the value of a field: small conversions with names, each of which says what it cannot read.

use serde_json::Value;

/// What is done to a cell before it becomes a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conversion {
    /// Nothing.
    Text,
    /// A number: `1,234`, `2022.0`, `1 234`.
    Number,
    /// A number with a decimal comma: `1.234`, `2022,0`.
    NumberWithComma,
    /// Yes or no.
    Boolean,
    /// The year that the text holds: `2013 (1888)` is 2013.
    Year,
    /// A date in this order of `YYYY`, `MM` and `DD`; a time after it is left out.
    Date(String),
    /// The first entry of a list.
    FirstOf(Split),
    /// The entries of a list, with commas between them.
    Join(Split),
    /// This text, whatever stands there.
    Constant(String),
}

/// How a text is taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Split {
    /// At this text.
    At(String),
    /// It is a JSON list of texts.
    Json,
    /// It is a list of texts as Python prints it.
    Python,
}

/// Why a cell cannot be converted: what it should have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Unreadable {
    /// A stable name.
    pub code: &'static str,
    /// What it should have been.
    pub detail: &'static str,
}

const NOT_A_NUMBER: Unreadable = unreadable("not_a_number", "must be a number");
const NOT_A_LIST: Unreadable = unreadable("not_a_list", "must be a list of texts in the form that the mapping gives");

const fn unreadable(code: &'static str, detail: &'static str) -> Unreadable {
    Unreadable { code, detail }
}

impl Conversion {
    /// All names, for messages.
    pub const KNOWN: &'static str = "text, number, number_with_comma, boolean, country, year, date:DD.MM.YYYY (in any order), first_of:; and \
        join:; (or another separator, json or python_list), constant:TEXT";

    /// Reads a conversion's name.
    pub fn parse(name: &str) -> Option<Self> {
        match name.split_once(':') {
            // Names of countries, levels and the like are recognised by their fields.
            None if ["text", "country"].contains(&name) => Some(Self::Text),
            None if name == "number" => Some(Self::Number),
            None if name == "number_with_comma" => Some(Self::NumberWithComma),
            None if name == "boolean" => Some(Self::Boolean),
            None if name == "year" => Some(Self::Year),
            Some(("date", form)) => {
                let once = |part| form.matches(part).count() == 1;
                (once("YYYY") && once("MM") && once("DD")).then(|| Self::Date(form.to_owned()))
            }
            Some(("first_of", split)) => Split::parse(split).map(Self::FirstOf),
            Some(("join", split)) => Split::parse(split).map(Self::Join),
            Some(("constant", text)) if !text.trim().is_empty() => Some(Self::Constant(text.to_owned())),
            _ => None,
        }
    }

    /// Its name, which [`Conversion::parse`] reads.
    pub fn name(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Number => "number".to_owned(),
            Self::NumberWithComma => "number_with_comma".to_owned(),
            Self::Boolean => "boolean".to_owned(),
            Self::Year => "year".to_owned(),
            Self::Date(form) => format!("date:{form}"),
            Self::FirstOf(split) => format!("first_of:{}", split.name()),
            Self::Join(split) => format!("join:{}", split.name()),
            Self::Constant(text) => format!("constant:{text}"),
        }
    }

    /// The value of a cell that is not blank; null if nothing is in it.
    ///
    /// # Errors
    /// What it should have been.
    pub fn convert(&self, cell: &str) -> Result<Value, Unreadable> {
        match self {
            Self::Text => Ok(cell.into()),
            Self::Number => number(cell, ',', '.'),
            Self::NumberWithComma => number(cell, '.', ','),
            Self::Boolean => boolean(cell).map(Value::from),
            Self::Year => year(cell).map(Value::from),
            Self::Date(form) => date(cell, form).map(Value::from),
            Self::FirstOf(split) => Ok(split.parts(cell)?.into_iter().next().map_or(Value::Null, Value::from)),
            Self::Join(split) => {
                let parts = split.parts(cell)?;
                Ok(if parts.is_empty() { Value::Null } else { parts.join(", ").into() })
            }
            Self::Constant(text) => Ok(text.as_str().into()),
        }
    }
}

impl Split {
    /// Reads the name of a way: `json`, `python_list`, or the separator itself.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "python_list" => Some(Self::Python),
            separator if (1..=2).contains(&separator.chars().count()) => Some(Self::At(separator.to_owned())),
            _ => None,
        }
    }

    /// Its name, which [`Split::parse`] reads.
    pub fn name(&self) -> &str {
        match self {
            Self::Json => "json",
            Self::Python => "python_list",
            Self::At(separator) => separator,
        }
    }

    /// The parts of a text that are not blank.
    ///
    /// # Errors
    /// If it is not of the form.
    pub fn parts(&self, text: &str) -> Result<Vec<String>, Unreadable> {
        let parts: Vec<String> = match self {
            Self::At(separator) => text.split(separator.as_str()).map(str::to_owned).collect(),
            Self::Json => serde_json::from_str(text).map_err(|_| NOT_A_LIST)?,
            Self::Python => python_list(text).ok_or(NOT_A_LIST)?,
        };
        Ok(parts.iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect())
    }
}

/// First and last name of one text: `Ada King Lovelace`, or `Lovelace, Ada`. One word is a last name.
pub fn full_name(text: &str) -> (Option<String>, Option<String>) {
    let some = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    if let Some((last, first)) = text.split_once(',') {
        return (some(first), some(last));
    }
    match text.trim().rsplit_once(char::is_whitespace) {
        Some((first, last)) => (some(first), some(last)),
        None => (None, some(text)),
    }
}

/// The bounds of a size: `11-50`, `1,001 – 5,000 employees`, `10000+`, `<10`, `7`.
///
/// # Errors
/// If there is no number, or more than two.
pub fn employee_range(text: &str) -> Result<(Option<i64>, Option<i64>), Unreadable> {
    let wrong = unreadable("not_a_range", "must be a range of employees such as 11-50 or 10,001+");
    let compact: String = text.chars().filter(|c| !matches!(c, ',' | '\'' | '\u{a0}' | '\u{202f}')).collect();
    let numbers: Vec<i64> = compact
        .split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().map_err(|_| wrong.clone()))
        .collect::<Result<_, _>>()?;
    match numbers[..] {
        [only] if compact.contains('+') || compact.contains('>') => Ok((Some(only), None)),
        [only] if compact.contains('<') => Ok((None, Some(only))),
        [only] => Ok((Some(only), Some(only))),
        [least, greatest] => Ok((Some(least), Some(greatest))),
        _ => Err(wrong),
    }
}

/// A number without its marks of thousands; a whole one as an integer.
fn number(cell: &str, thousands: char, decimal: char) -> Result<Value, Unreadable> {
    let plain: String = cell
        .trim()
        .trim_start_matches(['$', '€', '£', '¥'])
        .chars()
        .filter(|c| !c.is_whitespace() && *c != thousands && !matches!(c, '\'' | '_'))
        .map(|c| if c == decimal { '.' } else { c })
        .collect();
    let digits = plain.strip_prefix('-').unwrap_or(&plain);
    if digits.is_empty() || digits.bytes().any(|byte| !byte.is_ascii_digit() && byte != b'.') {
        return Err(NOT_A_NUMBER);
    }
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    if fraction.bytes().all(|byte| byte == b'0') {
        return whole.parse::<i64>().map(Value::from).map_err(|_| NOT_A_NUMBER);
    }
    plain.parse::<f64>().map(Value::from).map_err(|_| NOT_A_NUMBER)
}

fn boolean(cell: &str) -> Result<bool, Unreadable> {
    match cell.trim().to_lowercase().as_str() {
        "true" | "yes" | "y" | "1" | "ja" | "oui" | "sí" | "si" | "x" => Ok(true),
        "false" | "no" | "n" | "0" | "nein" | "non" => Ok(false),
        _ => Err(unreadable("not_a_boolean", "must be yes or no, true or false, 1 or 0")),
    }
}

/// The first number of four digits, as text.
fn year(cell: &str) -> Result<&str, Unreadable> {
    let mut numbers = cell.split(|c: char| !c.is_ascii_digit());
    let wrong = unreadable("not_a_year", "must hold a year of four digits");
    numbers.find(|digits| digits.len() == 4 && !digits.starts_with('0')).ok_or(wrong)
}

/// `31.12.2024` in the form `DD.MM.YYYY` is `2024-12-31`.
fn date(cell: &str, form: &str) -> Result<String, Unreadable> {
    let read = || {
        let cell = cell.trim();
        let (date, rest) = (cell.get(..form.len())?, cell.get(form.len()..)?);
        let part = |name: &str| date.get(form.find(name)?..form.find(name)? + name.len());
        let (year, month, day) = (part("YYYY")?, part("MM")?, part("DD")?);
        let same = form.chars().zip(date.chars()).all(|(wanted, given)| match wanted {
            'Y' | 'M' | 'D' => given.is_ascii_digit(),
            other => other == given,
        });
        let ends = rest.is_empty() || rest.starts_with(['T', ' ']);
        (same && ends).then(|| format!("{year}-{month}-{day}"))
    };
    read().ok_or(unreadable("not_a_date", "must be a date in the form that the mapping gives"))
}

/// Microseconds since 1970 of a time as lists have it: RFC 3339, a date with or without a time (UTC unless it says otherwise), seconds,
/// milliseconds or microseconds since 1970.
///
/// # Errors
/// If it is none of them.
pub fn instant(cell: &str, conversion: Option<&Conversion>) -> Result<i64, Unreadable> {
    let wrong = unreadable("not_a_time", "must be a time such as 2024-12-31T23:59:59Z, or seconds since 1970");
    let cell = cell.trim();
    let text = match conversion {
        Some(Conversion::Date(form)) => {
            let rest = cell.get(form.len()..).unwrap_or_default();
            date(cell, form)? + rest
        }
        _ => cell.to_owned(),
    };
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i64 = text.parse().map_err(|_| wrong.clone())?;
        // Seconds, milliseconds and microseconds of the years 1973 to 5138 have so many digits each.
        let micros = match number {
            ..=99_999_999_999 => number * 1_000_000,
            100_000_000_000..=99_999_999_999_999 => number * 1_000,
            100_000_000_000_000..=99_999_999_999_999_999 => number,
            _ => return Err(wrong),
        };
        return Ok(micros);
    }
    let iso = text.replacen(' ', "T", 1);
    if let Ok(time) = time::OffsetDateTime::parse(&iso, &time::format_description::well_known::Rfc3339) {
        return Ok(micros(time));
    }
    // Without an offset, or without seconds, or a date alone.
    let filled = match iso.matches(':').count() {
        0 if !iso.contains('T') => format!("{iso}T00:00:00Z"),
        1 => format!("{iso}:00Z"),
        _ => format!("{iso}Z"),
    };
    let time = time::OffsetDateTime::parse(&filled, &time::format_description::well_known::Rfc3339);
    time.map(micros).map_err(|_| wrong)
}

fn micros(time: time::OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1_000).expect("years have four digits")
}

/// `['Ada', "O'Brien"]`: texts in single or double quotes, with backslashes.
fn python_list(text: &str) -> Option<Vec<String>> {
    let inside = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    let mut parts = Vec::new();
    let mut rest = inside.trim_start();
    while !rest.is_empty() {
        let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let mut part = String::new();
        let mut characters = rest[1..].char_indices();
        let end = loop {
            match characters.next()? {
                (at, c) if c == quote => break at + 2,
                (_, '\\') => match characters.next()?.1 {
                    'n' => part.push('\n'),
                    't' => part.push('\t'),
                    'x' => {
                        let code: String = [characters.next()?.1, characters.next()?.1].iter().collect();
                        part.push(char::from(u8::from_str_radix(&code, 16).ok()?));
                    }
                    other => part.push(other),
                },
                (_, c) => part.push(c),
            }
        };
        parts.push(part);
        rest = rest[end..].trim_start();
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None if rest.is_empty() => {}
            None => return None,
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_lose_their_marks_and_nothing_else() {
        let read = |name: &str, cell: &str| Conversion::parse(name).expect("known").convert(cell).ok();
        for (cell, expected) in [
            ("1,234", Some(json!(1234))),
            ("2022.0", Some(json!(2022))),
            (" 1 234 567 ", Some(json!(1_234_567))),
            ("1'234", Some(json!(1234))),
            ("$5,000", Some(json!(5000))),
            ("-7", Some(json!(-7))),
            ("1.5", Some(json!(1.5))),
            ("", None),
            ("12a", None),
            ("1.2.3", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(read("number", cell), expected, "{cell}");
        }
        assert_eq!(read("number_with_comma", "1.234,00"), Some(json!(1234)));
        assert_eq!(read("date:DD.MM.YYYY", "31.12.2024"), Some(json!("2024-12-31")));
        assert_eq!(read("date:MM/DD/YYYY", "12/31/2024 10:00"), Some(json!("2024-12-31")));
        assert_eq!(read("date:YYYYMMDD", "2024-12-31"), None);
        assert_eq!(read("first_of:;", " ; a; b"), Some(json!("a")));
        assert_eq!(Conversion::parse("date:YYYY"), None);
        assert_eq!(read("year", "2013 (1888)"), Some(json!("2013")));
        assert_eq!(read("year", "2022.0"), Some(json!("2022")));
        assert_eq!(read("year", "unknown"), None);
        assert_eq!(read("boolean", "Ja"), Some(json!(true)));
        assert_eq!(read("boolean", "perhaps"), None);
        assert_eq!(read("join:python_list", "['a', 'b']"), Some(json!("a, b")));
        assert_eq!(read("join:python_list", "[]"), Some(json!(null)));
        assert_eq!(read("constant:list", "whatever"), Some(json!("list")));
        assert_eq!(Conversion::parse("magic"), None);
    }

    #[test]
    fn times_are_read_as_databases_print_them() {
        for (text, micros) in [
            ("2024-12-31T23:59:59Z", 1_735_689_599_000_000),
            ("2024-12-31 23:59:59.123", 1_735_689_599_123_000),
            ("2025-01-01T01:59:59.000001+02:00", 1_735_689_599_000_001),
            ("1735689599", 1_735_689_599_000_000),
            ("1735689599123", 1_735_689_599_123_000),
            ("1735689599123456", 1_735_689_599_123_456),
            ("2024-12-31 23:59", 1_735_689_540_000_000),
            ("2024-12-31", 1_735_603_200_000_000),
        ] {
            assert_eq!(instant(text, None), Ok(micros), "{text}");
        }
        let german = Conversion::parse("date:DD.MM.YYYY");
        assert_eq!(instant("31.12.2024 23:59:59", german.as_ref()), Ok(1_735_689_599_000_000));
        for text in ["yesterday", "31.12.2024", "2024-13-01", "", "173568959912345678", "9223372036854775807"] {
            assert!(instant(text, None).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_names_and_ranges_are_read_as_people_write_them() {
        let python = Split::Python.parts(r#"['Ada', "O'Brien", 'a\'b', 'caf\xe9', '']"#).expect("a list");
        assert_eq!(python, ["Ada", "O'Brien", "a'b", "café"]);
        for broken in ["", "[", "['a' 'b']", "['a", "[a]", "['a'] x"] {
            assert!(Split::Python.parts(broken).is_err(), "{broken}");
        }
        assert_eq!(Split::Json.parts(r#"["a"," b "]"#).expect("a list"), ["a", "b"]);
        assert_eq!(full_name("Ada King Lovelace"), (Some("Ada King".into()), Some("Lovelace".into())));
        assert_eq!(full_name("Lovelace, Ada"), (Some("Ada".into()), Some("Lovelace".into())));
        assert_eq!(full_name(" Plato "), (None, Some("Plato".into())));
        for (text, expected) in [
            ("11-50", Ok((Some(11), Some(50)))),
            ("1,001 – 5,000 employees", Ok((Some(1001), Some(5000)))),
            ("10,001+", Ok((Some(10_001), None))),
            ("<10", Ok((None, Some(10)))),
            ("7", Ok((Some(7), Some(7)))),
        ] {
            assert_eq!(employee_range(text), expected, "{text}");
        }
        assert!(employee_range("many").is_err() && employee_range("1-2-3").is_err());
    }
}
