//! Countries, currencies, and names as they are compared.

use domain::value::company_name::normalise;
use domain::value::{Country, Currency};

use super::check;

#[test]
fn a_country_is_recognised_by_codes_and_names() {
    check::<Country>(&[
        ("GB", "GB"),
        ("gb", "GB"),
        ("gbr", "GB"),
        ("UK", "GB"),
        ("England", "GB"),
        ("United Kingdom", "GB"),
        ("USA", "US"),
        ("U.S.A.", "US"),
        ("u.s.", "US"),
        ("united states", "US"),
        ("The United States of America", "US"),
        ("South Korea", "KR"),
        ("Korea, Republic of", "KR"),
        ("North Korea", "KP"),
        ("Russia", "RU"),
        ("Vietnam", "VN"),
        ("Viet Nam", "VN"),
        ("Cote d'Ivoire", "CI"),
        ("Côte d’Ivoire", "CI"),
        ("Turkey", "TR"),
        ("Türkiye", "TR"),
        ("Trinidad & Tobago", "TT"),
        ("Bosnia and Herzegovina", "BA"),
        ("St. Lucia", "LC"),
        ("Réunion", "RE"),
        ("Czech Republic", "CZ"),
        ("Hong Kong", "HK"),
        ("UAE", "AE"),
        ("Netherlands", "NL"),
        ("Congo", "CG"),
        ("Democratic Republic of the Congo", "CD"),
        ("XX", "!unknown_country"),
        ("EU", "!unknown_country"),
        ("Europe", "!unknown_country"),
        ("é", "!unknown_country"),
        ("\u{301}", "!unknown_country"),
        ("826", "!unknown_country"),
        ("  ", "!empty"),
    ]);
    assert_eq!(Country::parse(&"x".repeat(1_000_000)).unwrap_err().code, "unknown_country");
}

#[test]
fn every_country_is_recognised_by_its_own_name_and_codes() {
    for country in rust_iso3166::ALL {
        for text in [country.name, country.alpha2, country.alpha3] {
            assert_eq!(Country::parse(text).unwrap().as_str(), country.alpha2, "{text}");
        }
    }
}

#[test]
fn a_currency_is_a_code_of_iso_4217() {
    check::<Currency>(&[
        ("usd", "USD"),
        (" EUR ", "EUR"),
        ("JPY", "JPY"),
        ("ZZZ", "!unknown_currency"),
        ("$", "!unknown_currency"),
        ("Dollar", "!unknown_currency"),
        ("", "!empty"),
    ]);
}

#[test]
fn company_names_are_compared_without_form_and_punctuation() {
    for (name, normalised) in [
        ("Acme, Inc.", "acme"),
        ("ACME Ltd", "acme"),
        ("Acme GmbH & Co. KG", "acme"),
        ("Acme S.A.", "acme"),
        ("Acme S.à r.l.", "acme s à r l"),
        ("Acme Sp. z o.o.", "acme"),
        ("Acme Pty Ltd", "acme"),
        ("Ａｃｍｅ　Ｃｏｒｐ", "acme"),
        ("Acme-Widgets  (UK) Limited", "acme widgets uk"),
        ("McDonald's Corporation", "mcdonalds"),
        ("Limited", "limited"),
        ("Inc. Magazine", "inc magazine"),
        ("Cisco", "cisco"),
        ("Müller AG", "müller"),
        ("株式会社リコー", "株式会社リコー"),
        ("!!!", ""),
    ] {
        assert_eq!(normalise(name), normalised, "{name}");
    }
}
