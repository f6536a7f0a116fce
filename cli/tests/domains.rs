//! Domains are explained without a server.

use crate::program::run;

#[test]
fn where_an_input_leads_is_shown_and_told_by_the_exit_code() {
    let explain = |arguments: &[&str]| {
        let arguments: Vec<String> = ["domains", "explain"].iter().chain(arguments).map(ToString::to_string).collect();
        run(None, &arguments)
    };
    let company = explain(&["Ada@Sales.Acme.co.uk"]);
    assert_eq!(company.code, 0, "{company:?}");
    assert!(company.stdout.contains("registrable_domain  acme.co.uk"), "{company:?}");
    assert!(company.stdout.ends_with("leads to the company domain acme.co.uk\n"), "{company:?}");
    let nobody = explain(&["https://github.com/acme", "--json"]);
    let told = nobody.json();
    assert_eq!(nobody.code, 1);
    assert_eq!((told["input"].as_str(), told["domain"].is_null()), (Some("https://github.com/acme"), true));
    assert_eq!(told["reason"]["code"], "shared_host");
    assert_eq!(explain(&["co.uk"]).code, 1);
}
