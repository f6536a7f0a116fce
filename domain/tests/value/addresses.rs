//! Domains, e-mail addresses, URLs, phone numbers.

use domain::FieldValue;
use domain::value::{Country, Domain, DomainOfHost, EmailAddress, PhoneNumber, Url, company_domain};
use serde_json::json;

use super::{check, read};

#[test]
fn a_domain_is_found_in_hosts_urls_and_addresses() {
    check::<Domain>(&[
        ("acme.co.uk", "acme.co.uk"),
        ("ACME.co.uk.", "acme.co.uk"),
        ("sales.acme.co.uk", "acme.co.uk"),
        ("https://www.Sales.Acme.co.uk/about", "acme.co.uk"),
        ("http://user:secret@www.acme.com:8080/a?b=c@d.org#e", "acme.com"),
        ("//acme.com/x", "acme.com"),
        ("ada@acme.com", "acme.com"),
        ("\"a@b.org\"@mail.acme.com", "acme.com"),
        ("a/b@acme.com", "acme.com"),
        ("Ada Lovelace <ada@acme.com>", "acme.com"),
        ("mailto:ada@acme.com?subject=me@you.org", "acme.com"),
        ("medium.com/@acme", "medium.com"),
        ("https://medium.com/@acme", "medium.com"),
        ("acme.com:443", "acme.com"),
        ("  acme.com\n", "acme.com"),
        ("www.acme.com", "acme.com"),
        ("münchen.de", "xn--mnchen-3ya.de"),
        ("MÜNCHEN.DE", "xn--mnchen-3ya.de"),
        ("例え。jp", "xn--r8jz45g.jp"),
        ("bücher.example.co.uk", "example.co.uk"),
        ("acme.github.io", "acme.github.io"),
        ("deep.acme.github.io", "acme.github.io"),
        // A suffix that no list knows is one label, by the list's own rule.
        ("www.acme.test", "acme.test"),
        ("co.uk", "!public_suffix"),
        ("github.io", "!public_suffix"),
        ("www.github.io", "!public_suffix"),
        ("com", "!public_suffix"),
        ("localhost", "!public_suffix"),
        ("127.0.0.1", "!ip_address"),
        ("http://10.0.0.1:80/", "!ip_address"),
        ("1.2.3", "!ip_address"),
        ("0x7f.0x1", "!ip_address"),
        ("[::1]", "!ip_address"),
        ("http://[2001:db8::1]:80/", "!ip_address"),
        ("2001:db8::1", "!ip_address"),
        ("", "!empty"),
        (" \t", "!empty"),
        ("acme..com", "!invalid_domain"),
        ("-acme.com", "!invalid_domain"),
        ("acme .com", "!invalid_domain"),
        ("acme,com", "!invalid_domain"),
        ("a\0cme.com", "!invalid_domain"),
        ("%61cme.com", "!invalid_domain"),
        ("acme.com:port", "!invalid_domain"),
        ("@", "!invalid_domain"),
        (".", "!invalid_domain"),
        ("https://", "!invalid_domain"),
        ("xn--a.com", "!invalid_domain"),
        ("n/a", "!invalid_domain"),
        ("none", "!public_suffix"),
    ]);
    let label = "a".repeat(64);
    assert_eq!(read::<Domain>(format!("{label}.com")), Err("invalid_domain"));
    assert_eq!(read::<Domain>(format!("{}com", "a.".repeat(126))), Err("invalid_domain"));
    assert_eq!(read::<Domain>("a".repeat(1_000_000)), Err("too_long"));
}

#[test]
fn nobodys_own_domain_makes_no_company() {
    for (input, expected) in [
        ("ada@acme.com", Ok("acme.com")),
        ("jane@github.com", Ok("github.com")),
        ("https://github.com/", Ok("github.com")),
        ("https://www.github.com/acme", Err("shared_host")),
        ("linkedin.com/company/acme", Err("shared_host")),
        ("https://sites.google.com/view/acme", Err("shared_host")),
        ("https://about.google.com/acme", Ok("google.com")),
        ("https://acme.github.io", Err("shared_host")),
        ("acme.blogspot.com", Err("shared_host")),
        ("https://acme.wordpress.com", Err("shared_host")),
        ("https://www.acme.medium.com/", Err("shared_host")),
        ("https://www.wordpress.com", Ok("wordpress.com")),
        ("ada@mail.wordpress.com", Ok("wordpress.com")),
        ("acme.uk.com", Ok("acme.uk.com")),
        ("ada@gmail.com", Err("free_mail")),
        ("gmail.com", Err("free_mail")),
        ("ada@yahoo.co.uk", Err("free_mail")),
        ("hotmail.fr", Err("free_mail")),
        ("ada@mailinator.com", Err("disposable_mail")),
        ("co.uk", Err("public_suffix")),
        ("https://10.0.0.1", Err("ip_address")),
    ] {
        let found = DomainOfHost::of_company(input);
        let found = found.as_ref().map(|found| found.domain.as_str()).map_err(|invalid| invalid.code);
        assert_eq!(found, expected, "{input}");
        let explained = company_domain::explain(input);
        let outcome = explained.outcome.as_ref().map(Domain::as_str).map_err(|invalid| invalid.code);
        assert_eq!(outcome, expected, "{input} explained");
    }
}

#[test]
fn a_domain_is_explained_step_by_step() {
    let explained = company_domain::explain(" \"x@y\"@Sales.Bücher.CO.UK. ");
    let steps: Vec<(&str, &str)> = explained.steps.iter().map(|(step, result)| (*step, result.as_str())).collect();
    assert_eq!(
        steps,
        [
            ("trimmed", "\"x@y\"@Sales.Bücher.CO.UK."),
            ("after_last_at", "Sales.Bücher.CO.UK."),
            ("ascii_lower_case", "sales.xn--bcher-kva.co.uk"),
            ("without_www", "sales.xn--bcher-kva.co.uk"),
            ("registrable_domain", "xn--bcher-kva.co.uk"),
            ("owner", "company"),
        ]
    );
}

#[test]
fn an_explanation_is_told_with_its_reason() {
    let told = |input: &str| company_domain::explain(input).to_json(input);
    let company = told("https://www.Acme.co.uk/about");
    assert_eq!(
        (company["input"].as_str(), company["domain"].as_str()),
        (Some("https://www.Acme.co.uk/about"), Some("acme.co.uk"))
    );
    assert!(company.get("reason").is_none(), "{company}");
    assert_eq!(company["steps"][1], serde_json::json!({"step": "host_of_url", "result": "www.Acme.co.uk"}));
    let nobody = told("ada@gmail.com");
    assert_eq!((nobody["domain"].is_null(), nobody["reason"]["code"].as_str()), (true, Some("free_mail")));
    assert!(nobody["reason"]["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
}

#[test]
fn the_host_is_kept_beside_its_domain() {
    for (input, host, says_more) in [
        ("https://www.Sales.Acme.co.uk/", "www.sales.acme.co.uk", true),
        ("ada@mail.acme.com", "mail.acme.com", true),
        ("www.acme.com", "www.acme.com", false),
        ("acme.com", "acme.com", false),
        ("www.com", "www.com", false),
    ] {
        let found = DomainOfHost::parse(input).unwrap();
        assert_eq!((found.host.as_str(), found.is_sub_domain()), (host, says_more), "{input}");
    }
}

#[test]
fn an_address_is_kept_with_its_host_in_ascii() {
    check::<EmailAddress>(&[
        ("Ada@Acme.CO.UK", "Ada@acme.co.uk"),
        (" ada+crm@acme.com ", "ada+crm@acme.com"),
        ("o'brien@acme.com", "o'brien@acme.com"),
        ("ada@münchen.de", "ada@xn--mnchen-3ya.de"),
        ("用户@例子.中国", "用户@xn--fsqu00a.xn--fiqs8s"),
        ("ada", "!invalid_email"),
        ("ada@", "!invalid_email"),
        ("@acme.com", "!invalid_email"),
        ("ada@localhost", "!invalid_email"),
        ("ada@1.2.3.4", "!invalid_email"),
        ("ada@[1.2.3.4]", "!invalid_email"),
        ("a b@acme.com", "!invalid_email"),
        ("ada@acme.com, bob@acme.com", "!invalid_email"),
        ("Ada <ada@acme.com>", "!invalid_email"),
        (".ada@acme.com", "!invalid_email"),
        ("ada..l@acme.com", "!invalid_email"),
        ("ada@acme..com", "!invalid_email"),
        ("ada\0@acme.com", "!control_character"),
        ("", "!empty"),
    ]);
    assert_eq!(read::<EmailAddress>(format!("{}@acme.com", "a".repeat(65))), Err("invalid_email"));
    assert_eq!(read::<EmailAddress>(format!("a@{}.com", "b.".repeat(130))), Err("too_long"));
    assert_eq!(EmailAddress::parse("Ada@ACME.com").unwrap().key(), "ada@acme.com");
}

#[test]
fn a_url_is_kept_as_it_is() {
    check::<Url>(&[
        ("https://acme.com", "https://acme.com"),
        (" HTTP://Acme.com/A?b=C#d ", "HTTP://Acme.com/A?b=C#d"),
        ("https://acme.com/ü", "https://acme.com/ü"),
        ("nope", "!invalid_url"),
        ("acme.com", "!invalid_url"),
        ("ftp://acme.com", "!invalid_url"),
        ("javascript:alert(1)", "!invalid_url"),
        ("https://", "!invalid_url"),
        ("https://a b.com", "!invalid_url"),
        ("https://acme.com/a b", "!invalid_url"),
        ("https://acme.com/\nx", "!invalid_url"),
        ("https://acme.com/\u{1}", "!control_character"),
        ("", "!empty"),
    ]);
    assert!(read::<Url>(format!("https://acme.com/{}", "a".repeat(2031))).is_ok());
    assert_eq!(read::<Url>(format!("https://acme.com/{}", "a".repeat(2032))), Err("too_long"));
}

#[test]
fn a_phone_number_is_e164_or_kept_as_given() {
    let country = |code: &str| Country::parse(code).unwrap();
    for (input, from, expected) in [
        ("+44 20 7946 0958", None, json!("+442079460958")),
        ("+1 (202) 555-0134", None, json!("+12025550134")),
        ("(+1) 202.555.0134", None, json!("+12025550134")),
        ("020 7946 0958", Some("GB"), json!("+442079460958")),
        ("(202) 555-0134", Some("US"), json!("+12025550134")),
        ("+44 20 7946 0958", Some("US"), json!("+442079460958")),
        ("020 7946 0958", None, json!({"as_given": "020 7946 0958"})),
        ("202-555-0134 ext. 5", Some("US"), json!({"as_given": "202-555-0134 ext. 5"})),
        ("+1 555", None, json!({"as_given": "+1 555"})),
        ("+999 12345678", None, json!({"as_given": "+999 12345678"})),
        ("1-800-FLOWERS", Some("US"), json!({"as_given": "1-800-FLOWERS"})),
        ("0", Some("US"), json!({"as_given": "0"})),
        ("+", None, json!("!invalid_phone")),
        ("call me", None, json!("!invalid_phone")),
        ("", None, json!("!empty")),
    ] {
        let number = PhoneNumber::from_json(input.into());
        let found = match number.map(|number| number.in_country(from.map(country).as_ref())) {
            Ok(number) => {
                let stored = serde_json::to_value(&number).unwrap();
                assert_eq!(serde_json::from_value::<PhoneNumber>(stored.clone()).unwrap(), number);
                assert_eq!(number.is_e164(), stored.is_string(), "{input}");
                stored
            }
            Err(invalid) => json!(format!("!{}", invalid.code)),
        };
        assert_eq!(found, expected, "{input} from {from:?}");
    }
    assert_eq!(read::<PhoneNumber>("5".repeat(51)), Err("too_long"));
    assert_eq!(read::<PhoneNumber>(5), Err("wrong_type"));
}
