//! The pages that explain the API and its refusals.

use http::StatusCode;
use service_kit::http::Limits;
use service_kit::problem::{Code, FieldProblem, Problem};
use utoipa::OpenApi;

use crate::client::start;

/// Registers a company.
#[utoipa::path(
    post,
    path = "/v1/companies",
    params(("Idempotency-Key" = Option<String>, Header, description = "At most 255 <characters>")),
    request_body(content = NewCompany, example = json!({"domain": "example.com"})),
    responses((status = 201, description = "Registered", body = NewCompany))
)]
#[expect(dead_code, reason = "only its description is used")]
fn register() {}

/// What a company starts with.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only its description is used")]
struct NewCompany {
    /// Registrable domain.
    domain: String,
}

#[derive(OpenApi)]
#[openapi(info(title = "Commands", description = "Changes."), paths(register))]
struct Description;

#[tokio::test]
async fn the_description_and_its_page_are_served() {
    let router = service_kit::docs::router(&Description::openapi()).expect("JSON");
    let server = start(router, Limits::default()).await;
    let json = server.request("GET", "/openapi.json", "", b"").await;
    assert_eq!(json.header("content-type"), "application/json");
    assert!(json.json()["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    let page = server.request("GET", "/docs", "", b"").await;
    assert!(page.header("content-type").starts_with("text/html"));
    for wanted in [
        "POST /v1/companies",
        "Registers a company",
        "Idempotency-Key",
        "At most 255 &lt;characters&gt;",
        "id=\"schema-NewCompany\"",
        "Registrable domain",
        "example.com",
        "Registered",
    ] {
        assert!(page.body.contains(wanted), "{wanted} is missing: {}", page.body);
    }
    for external in ["<script", "http://", "https://"] {
        assert!(!page.body.contains(external), "{external}");
    }
}

#[tokio::test]
async fn refusals_are_described_for_every_endpoint() {
    let mut description = Description::openapi();
    service_kit::docs::describe_refusals(&mut description, |_| {
        vec![(StatusCode::CREATED, "not this one"), (StatusCode::SERVICE_UNAVAILABLE, "Full")]
    });
    let description = serde_json::to_value(&description).expect("JSON");
    let responses = &description["paths"]["/v1/companies"]["post"]["responses"];
    assert_eq!(responses["201"]["description"], "Registered", "what an endpoint says itself stays");
    assert_eq!(responses["503"]["description"], "Full");
    let document = &responses["503"]["content"]["application/problem+json"]["schema"]["$ref"];
    assert_eq!(document, "#/components/schemas/Problem");
    assert!(responses["503"]["headers"]["Retry-After"].is_object());
    // The schema names what a problem has.
    let problem = Problem::new(Code::InvalidFields, "one field is wrong")
        .instance(uuid::Uuid::nil())
        .errors(vec![FieldProblem { pointer: "/a".into(), code: "b".into(), detail: "c".into() }])
        .to_json();
    let schemas = &description["components"]["schemas"];
    for name in problem.as_object().expect("an object").keys() {
        assert!(schemas["Problem"]["properties"][name].is_object(), "{name}: {schemas}");
    }
    for name in problem["errors"][0].as_object().expect("an object").keys() {
        assert!(schemas["FieldProblem"]["properties"][name].is_object(), "{name}: {schemas}");
    }
}

#[tokio::test]
async fn every_problem_has_a_page_behind_its_type() {
    let server = start(service_kit::docs::router(&Description::openapi()).expect("JSON"), Limits::default()).await;
    let all = server.request("GET", "/problems", "", b"").await.body;
    for code in Code::all() {
        let page = server.request("GET", &format!("/problems/{}", code.name()), "", b"").await;
        assert_eq!(page.status, 200);
        assert!(page.body.contains(code.title()), "{}", code.name());
        assert!(all.contains(code.name()));
    }
    assert_eq!(server.request("GET", "/problems/none", "", b"").await.status, 404);
}
