//! The words that the messy list is made of.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A word that no other number has.
pub(super) fn word(number: u64) -> String {
    let mut word = String::new();
    let mut rest = number;
    loop {
        let syllable = usize::try_from(rest % 70).expect("a small number");
        word.push(char::from(b"bdfgklmnprstvz"[syllable / 5]));
        word.push(char::from(b"aeiou"[syllable % 5]));
        rest /= 70;
        if rest == 0 {
            return word;
        }
    }
}

pub(super) fn capitalised(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

pub(super) fn ascii(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphabetic).collect()
}

/// A time as databases and people write it.
pub(super) fn time_of(at: u64, form: usize) -> String {
    let text = |at: u64| {
        let at = i64::try_from(at).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
        at.and_then(|at| at.format(&Rfc3339).ok()).expect("a time of this century")
    };
    match form {
        0 => text(at),
        1 => text(at).replace('T', " ").replace('Z', ""),
        2 => at.to_string(),
        3 => format!("{at}123"),
        _ => text(at + 7200).replace('Z', "+02:00"),
    }
}

pub(super) const FIRST_NAMES: &[&str] =
    &["Ada", "Grace", "José", "Zoë", "Nguyễn", "O'Neil", "Jean-Luc", "Søren", "Edsger", "Barbara"];
pub(super) const TITLES: &[&str] =
    &["CEO", "Head of Sales", "Buyer, Metals", "Engineer", "VP \"Special Projects\"", "Leiterin Einkauf"];
pub(super) const NOTES: &[&str] =
    &["said \"call later\"", "two lines:\nthe second", "commas, many, of them", "übermorgen\r\nwieder anrufen"];
pub(super) const LEGAL_FORMS: &[&str] = &["GmbH", "Ltd", "Inc.", "LLC", "Limited"];
pub(super) const INDUSTRIES: &[&str] = &["Software", "Retail", "Mining, Metals", "Public Administration", "\"Other\""];
pub(super) const CITIES: &[&str] = &["Berlin", "München", "São Paulo", "Leeds", "New York", "Saint-Étienne"];
pub(super) const COUNTRIES: &[[&str; 4]] = &[
    ["DE", "Germany", "DEU", "germany"],
    ["GB", "United Kingdom", "GBR", "gb"],
    ["US", "USA", "United States", "us"],
    ["FR", "France", "FRA", " fr "],
    ["BR", "Brazil", "BRA", "BRAZIL"],
];
/// Mail hosts that are nobody's company; the last is one whose addresses are thrown away.
pub(super) const PRIVATE: &[&str] = &["gmail.com", "web.de", "hotmail.com", "yahoo.co.uk", "mailinator.com"];
pub(super) const MISTYPED: &[&str] = &["gmial.com", "hotmial.com", "gmail.con", "acme.local"];
pub(super) const SHARED: &[&str] = &[
    "https://www.linkedin.com/company/acme",
    "github.com/acme",
    "https://acme.wordpress.com/",
    "http://acme.github.io",
];
