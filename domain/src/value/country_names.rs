//! The names by which countries are recognised beside their codes.

use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization;

/// Names that ISO 3166-1 does not list, as people and their CRMs write them.
const COMMON_NAMES: &[(&str, &str)] = &[
    ("America", "US"),
    ("Bolivia", "BO"),
    ("Bosnia", "BA"),
    ("Britain", "GB"),
    ("British Virgin Islands", "VG"),
    ("Brunei", "BN"),
    ("Burma", "MM"),
    ("Cape Verde", "CV"),
    ("Congo-Brazzaville", "CG"),
    ("Congo-Kinshasa", "CD"),
    ("Czech Republic", "CZ"),
    ("Democratic Republic of the Congo", "CD"),
    ("Deutschland", "DE"),
    ("DR Congo", "CD"),
    ("DRC", "CD"),
    ("East Timor", "TL"),
    ("England", "GB"),
    ("España", "ES"),
    ("Falkland Islands", "FK"),
    ("Great Britain", "GB"),
    ("Holland", "NL"),
    ("Hong Kong SAR", "HK"),
    ("Iran", "IR"),
    ("Islamic Republic of Iran", "IR"),
    ("Ivory Coast", "CI"),
    ("Korea", "KR"),
    ("Korea, Republic of", "KR"),
    ("Korea, South", "KR"),
    ("Laos", "LA"),
    ("Macau", "MO"),
    ("Macedonia", "MK"),
    ("Micronesia", "FM"),
    ("Moldova", "MD"),
    ("Netherlands", "NL"),
    ("North Korea", "KP"),
    ("Northern Ireland", "GB"),
    ("Österreich", "AT"),
    ("Palestine", "PS"),
    ("People's Republic of China", "CN"),
    ("PRC", "CN"),
    ("Republic of China", "TW"),
    ("Republic of Ireland", "IE"),
    ("Republic of Korea", "KR"),
    ("Republic of the Congo", "CG"),
    ("Russia", "RU"),
    ("Schweiz", "CH"),
    ("Scotland", "GB"),
    ("South Korea", "KR"),
    ("St Lucia", "LC"),
    ("St Kitts and Nevis", "KN"),
    ("St Vincent and the Grenadines", "VC"),
    ("Suisse", "CH"),
    ("Swaziland", "SZ"),
    ("Syria", "SY"),
    ("Taiwan", "TW"),
    ("Tanzania", "TZ"),
    ("Turkey", "TR"),
    ("UAE", "AE"),
    ("UK", "GB"),
    ("United Kingdom", "GB"),
    ("United States", "US"),
    ("US", "US"),
    ("US Virgin Islands", "VI"),
    ("USA", "US"),
    ("Vatican", "VA"),
    ("Vatican City", "VA"),
    ("Venezuela", "VE"),
    ("Vietnam", "VN"),
    ("Wales", "GB"),
];

/// Normalised names in order, each with its alpha-2 code.
static NAMES: LazyLock<Vec<(String, &'static str)>> = LazyLock::new(|| {
    let official = rust_iso3166::ALL.iter().map(|country| (country.name, country.alpha2));
    let mut names: Vec<_> =
        official.chain(COMMON_NAMES.iter().copied()).map(|(name, code)| (normalise(name), code)).collect();
    names.sort_unstable();
    names
});

/// The alpha-2 code of the country with this name.
pub(super) fn code_of_name(name: &str) -> Option<&'static str> {
    let name = normalise(name);
    let found = NAMES.binary_search_by(|(known, _)| known.as_str().cmp(&name)).ok()?;
    Some(NAMES[found].1)
}

/// Letters in lower case without accents; `the` and `and` say nothing, `saint` is also written `st`.
fn normalise(name: &str) -> String {
    let letters: String = name
        .nfkd()
        .flat_map(char::to_lowercase)
        .filter(|c| !unicode_normalization::char::is_combining_mark(*c) && !matches!(c, '.' | '\'' | '’'))
        .map(|c| if c.is_alphanumeric() { c } else { ' ' })
        .collect();
    let words = letters.split_whitespace().filter(|word| !matches!(*word, "the" | "and"));
    words.map(|word| if word == "saint" { "st" } else { word }).collect::<Vec<_>>().join(" ")
}
