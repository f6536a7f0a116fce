//! Random requests in random order, against a model that knows nothing of events: a map of fields that is merged.

use std::collections::BTreeSet;

use domain::company::{CompanyCommand, RegisterCompany, UpdateCompany, merge as merge_companies, unmerge};
use domain::prospect::{ProspectCommand, RegisterProspect, UpdateProspect};
use domain::{ClaimKey, Company, Prospect, Record, RecordEvent, Status};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::context;

/// Any JSON, names of fields and awkward texts often among it.
fn any_json(names: Vec<&'static str>) -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        "[ -~]{0,20}",
        prop::sample::select(vec![
            "acme.com",
            "+44 20 7946 0958",
            "a@b.com",
            "https://x.com",
            "US",
            "2024",
            "\0",
            "",
            "٣٣٣-٠١٢٣"
        ])
        .prop_map(str::to_owned),
        "\\+?[0-9 ()./-]{0,30}",
    ];
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|float| json!(float)),
        any::<u64>().prop_map(Value::from)
    ];
    let leaf =
        prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), number, text.clone().prop_map(Value::from)];
    let name = prop_oneof![4 => prop::sample::select(names).prop_map(str::to_owned), 1 => text];
    leaf.prop_recursive(3, 64, 12, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..12)
                .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

/// The event survives the log; gives the event that came back.
fn through_the_log<E: RecordEvent>(event: &E) -> E {
    let back = E::from_stored(event.name(), event.form(), &event.payload()).unwrap();
    assert_eq!(&back, event);
    back
}

/// What the next state holds: the events through the log and into it. The state itself survives JSON too.
fn evolved<R: Record + PartialEq + std::fmt::Debug>(state: &R, events: &[R::Event]) -> R {
    let mut after = state.clone();
    for event in events {
        after.evolve(&through_the_log(event));
    }
    assert_eq!(serde_json::from_value::<R>(serde_json::to_value(&after).unwrap()).unwrap(), after);
    for sorted in
        [after.claims(Uuid::nil()).windows(2).all(|pair| pair[0] < pair[1]), after.matches(Uuid::nil()).len() < 2]
    {
        assert!(sorted, "claims and matches are sorted, each once");
    }
    assert!(after.weight_bytes() >= size_of::<R>());
    after
}

fn company_names() -> Vec<&'static str> {
    let names = domain::company::fields().map(|field| field.name);
    names.chain(["source", "id", "platform", "url", "version"]).collect()
}

fn prospect_names() -> Vec<&'static str> {
    domain::prospect::fields().map(|field| field.name).chain(["source", "id", "version"]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_json_makes_a_company_panic(bodies in prop::collection::vec(any_json(company_names()), 1..6)) {
        let mut company = Company::default();
        for body in bodies {
            let mut commands = Vec::new();
            commands.extend(RegisterCompany::parse(body.clone()).map(CompanyCommand::Register));
            commands.extend(UpdateCompany::parse(body).map(CompanyCommand::Update));
            for command in commands {
                if let Ok(events) = company.decide(command.clone(), &context()) {
                    company = evolved(&company, &events);
                    // The same again changes nothing.
                    if let CompanyCommand::Update(_) = command {
                        prop_assert_eq!(company.decide(command, &context()), Ok(vec![]));
                    }
                }
            }
        }
    }

    #[test]
    fn no_json_makes_a_prospect_panic(bodies in prop::collection::vec(any_json(prospect_names()), 1..6)) {
        let mut prospect = Prospect::default();
        for body in bodies {
            let mut commands = Vec::new();
            commands.extend(RegisterProspect::parse(body.clone()).map(ProspectCommand::Register));
            commands.extend(UpdateProspect::parse(body).map(ProspectCommand::Update));
            for command in commands {
                if let Ok(events) = prospect.decide(command.clone(), &context()) {
                    prospect = evolved(&prospect, &events);
                    if let ProspectCommand::Update(_) = command {
                        prop_assert_eq!(prospect.decide(command, &context()), Ok(vec![]));
                    }
                }
            }
        }
    }

    #[test]
    fn a_company_is_the_merge_of_its_requests(requests in prop::collection::vec(request(company_patch()), 1..20)) {
        let (mut company, mut model) = (Company::default(), Model::default());
        for request in requests {
            let expected = model.after(&request, &complete_company);
            let decided = company_command(&request).and_then(|command| company.decide(command, &context()).ok());
            match (decided, expected) {
                (None, None) => {}
                (Some(events), Some(expected)) => {
                    prop_assert_eq!(events.is_empty(), expected == model, "{:?}", events);
                    company = evolved(&company, &events);
                    model = expected;
                }
                (decided, expected) => prop_assert!(false, "{decided:?} but {expected:?} after {request:?}"),
            }
            prop_assert_eq!(company_fields(&company), model.fields.clone());
            prop_assert_eq!(company.status, model.status);
            let mut claimed = BTreeSet::new();
            if model.status == Status::Live {
                claimed.insert(("live", Uuid::nil().to_string()));
                let domains = model.fields.get("additional_domains").and_then(Value::as_array).cloned().unwrap_or_default();
                for domain in model.fields.get("domain").into_iter().chain(&domains) {
                    claimed.insert(("domain", domain.as_str().unwrap().to_owned()));
                }
                for reference in model.fields.get("external_refs").and_then(Value::as_array).into_iter().flatten() {
                    claimed.insert(("company_ref", format!("crm\u{1f}{}", reference["id"].as_str().unwrap())));
                }
            }
            let found: BTreeSet<_> = company.claims(Uuid::nil()).into_iter().map(|claim| match claim.key {
                ClaimKey::Plain(key) | ClaimKey::Personal(key) => (claim.kind, key),
            }).collect();
            prop_assert_eq!(found, claimed);
        }
    }

    #[test]
    fn a_merge_is_undone_exactly_or_says_what_was_changed(
        ours in prop::collection::vec(request(company_patch()), 1..8),
        theirs in prop::collection::vec(request(company_patch()), 1..8),
        later in prop::collection::vec(request(company_patch()), 0..3),
    ) {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let carried_out = |mut company: Company, requests: &[Request]| {
            for command in requests.iter().filter_map(company_command) {
                if let Ok(events) = company.decide(command, &context()) {
                    company = evolved(&company, &events);
                }
            }
            company
        };
        let (before_one, before_two) = (carried_out(Company::default(), &ours), carried_out(Company::default(), &theirs));
        let Ok(both) = merge_companies((one, &before_one), (two, &before_two)) else { return Ok(()) };
        let (merged_one, merged_two) = (evolved(&before_one, &both.primary), evolved(&before_two, &both.secondary));
        let back = unmerge(&merged_one, (two, &merged_two)).unwrap();
        prop_assert_eq!(&evolved(&merged_one, &back.primary), &before_one);
        prop_assert_eq!(&evolved(&merged_two, &back.secondary), &before_two);
        // Changed in between, either what was changed stays, or the undoing names it.
        let changed = carried_out(merged_one.clone(), &later);
        match unmerge(&changed, (two, &merged_two)) {
            Ok(back) => {
                let after = evolved(&changed, &back.primary);
                prop_assert!(after.absorbed.is_empty());
                prop_assert!(after.profile.name.is_some() || after.domain.is_some());
                if changed == merged_one {
                    prop_assert_eq!(after, before_one);
                }
            }
            Err(_) => prop_assert!(changed != merged_one),
        }
    }

    #[test]
    fn a_prospect_is_the_merge_of_its_requests(requests in prop::collection::vec(request(prospect_patch()), 1..20)) {
        let (mut prospect, mut model) = (Prospect::default(), Model::default());
        for request in requests {
            let expected = model.after(&request, &complete_prospect);
            let decided = prospect_command(&request).and_then(|command| prospect.decide(command, &context()).ok());
            match (decided, expected) {
                (None, None) => {}
                (Some(events), Some(expected)) => {
                    prop_assert_eq!(events.is_empty(), expected == model, "{:?}", events);
                    prospect = evolved(&prospect, &events);
                    model = expected;
                }
                (decided, expected) => prop_assert!(false, "{decided:?} but {expected:?} after {request:?}"),
            }
            prop_assert_eq!(prospect_fields(&prospect), model.fields.clone());
            prop_assert_eq!(prospect.status, model.status);
        }
    }
}

/// What is asked of a record.
#[derive(Debug, Clone)]
enum Request {
    Register(Map<String, Value>),
    Update(Map<String, Value>),
    Delete,
    Restore,
}

/// A record as a client thinks of it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    status: Status,
    fields: Map<String, Value>,
}

impl Model {
    /// The record after the request; none if it must be refused.
    fn after(&self, request: &Request, complete: &dyn Fn(&mut Map<String, Value>) -> bool) -> Option<Self> {
        let status = match (self.status, request) {
            (Status::Unregistered, Request::Register(_))
            | (Status::Live, Request::Update(_))
            | (Status::Live | Status::Deleted, Request::Restore) => Status::Live,
            (Status::Live, Request::Delete) => Status::Deleted,
            _ => return None,
        };
        let mut fields = self.fields.clone();
        if let Request::Register(patch) | Request::Update(patch) = request {
            merge(&mut fields, patch);
            if !complete(&mut fields) {
                return None;
            }
        }
        Some(Self { status, fields })
    }
}

/// JSON Merge Patch; an empty list or object is the same as none.
fn merge(fields: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        let mut value = value.clone();
        if let (Value::Object(entries), "attributes") = (&value, name.as_str()) {
            let mut attributes = fields.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
            for (key, value) in entries {
                attributes.insert(key.clone(), value.clone());
            }
            attributes.retain(|_, value| !value.is_null());
            value = attributes.into();
        }
        fields.insert(name.clone(), value);
    }
    remove_blank(fields);
}

fn remove_blank(fields: &mut Map<String, Value>) {
    fields.retain(|_, value| !(value.is_null() || *value == json!([]) || *value == json!({})));
}

/// A company's rules, said again: false if it may not be so.
fn complete_company(fields: &mut Map<String, Value>) -> bool {
    if fields.contains_key("revenue") {
        fields.entry("revenue_currency").or_insert_with(|| json!("USD"));
    }
    let domain = fields.get("domain").cloned();
    if let (Some(domain), Some(Value::Array(additional))) = (&domain, fields.get_mut("additional_domains")) {
        additional.retain(|other| other != domain);
    }
    remove_blank(fields);
    let size = |name: &str| fields.get(name).and_then(Value::as_i64);
    let band = size("min_employee_size").zip(size("max_employee_size"));
    (fields.contains_key("name") || domain.is_some()) && band.is_none_or(|(min, max)| min <= max)
}

/// A prospect's rules, said again.
fn complete_prospect(fields: &mut Map<String, Value>) -> bool {
    ["first_name", "last_name", "email", "phone", "mobile_phone", "external_refs"]
        .iter()
        .any(|name| fields.contains_key(*name))
}

fn request(patch: impl Strategy<Value = Map<String, Value>> + Clone) -> impl Strategy<Value = Request> {
    prop_oneof![
        2 => patch.clone().prop_map(Request::Register),
        8 => patch.prop_map(Request::Update),
        1 => Just(Request::Delete),
        1 => Just(Request::Restore),
    ]
}

/// Few fields with few values each, so that requests often repeat, clear and contradict one another.
fn patch_of(choices: Vec<(&'static str, Value)>) -> impl Strategy<Value = Map<String, Value>> + Clone {
    let member = prop::sample::select(choices).prop_map(|(name, value)| (name.to_owned(), value));
    prop::collection::vec(member, 0..6).prop_map(|members| members.into_iter().collect())
}

fn company_patch() -> impl Strategy<Value = Map<String, Value>> + Clone {
    let reference = |id: &str| json!({"source": "crm", "id": id});
    patch_of(vec![
        ("name", json!("Acme")),
        ("name", json!("Acme 2")),
        ("name", json!(null)),
        ("domain", json!("acme.com")),
        ("domain", json!("acme.de")),
        ("domain", json!(null)),
        ("additional_domains", json!(["acme.com", "acme.fr"])),
        ("additional_domains", json!(["acme.de"])),
        ("additional_domains", json!([])),
        ("additional_domains", json!(null)),
        ("external_refs", json!([reference("1"), reference("2")])),
        ("external_refs", json!([reference("2")])),
        ("external_refs", json!(null)),
        ("attributes", json!({"a": 1, "b": "x"})),
        ("attributes", json!({"a": null, "c": 0.1})),
        ("attributes", json!(null)),
        ("min_employee_size", json!(10)),
        ("min_employee_size", json!(null)),
        ("max_employee_size", json!(5)),
        ("max_employee_size", json!(10)),
        ("revenue", json!(5)),
        ("revenue", json!(null)),
        ("revenue_currency", json!("EUR")),
        ("revenue_currency", json!(null)),
        ("phone", json!("+442079460958")),
        ("country", json!("US")),
        ("long_description", json!("one\ntwo")),
    ])
}

fn prospect_patch() -> impl Strategy<Value = Map<String, Value>> + Clone {
    patch_of(vec![
        ("first_name", json!("Ada")),
        ("first_name", json!(null)),
        ("email", json!("Ada@acme.com")),
        ("email", json!("ada@acme.com")),
        ("email", json!(null)),
        ("job_title", json!("CTO")),
        ("job_title", json!(null)),
        ("country", json!("GB")),
        ("city", json!("London")),
        ("city", json!(null)),
        ("company_id", json!("01900000-0000-7000-8000-00000000000a")),
        ("company_id", json!(null)),
        ("external_refs", json!([{"source": "crm", "id": "1"}])),
        ("external_refs", json!([])),
        ("attributes", json!({"a": 1, "b": null})),
        ("attributes", json!({"a": null, "b": true})),
        ("attributes", json!(null)),
    ])
}

fn company_command(request: &Request) -> Option<CompanyCommand> {
    Some(match request {
        Request::Register(body) => CompanyCommand::Register(RegisterCompany::parse(body.clone().into()).ok()?),
        Request::Update(body) => CompanyCommand::Update(UpdateCompany::parse(body.clone().into()).ok()?),
        Request::Delete => CompanyCommand::Delete,
        Request::Restore => CompanyCommand::Restore,
    })
}

fn prospect_command(request: &Request) -> Option<ProspectCommand> {
    Some(match request {
        Request::Register(body) => ProspectCommand::Register(RegisterProspect::parse(body.clone().into()).ok()?),
        Request::Update(body) => ProspectCommand::Update(UpdateProspect::parse(body.clone().into()).ok()?),
        Request::Delete => ProspectCommand::Delete,
        Request::Restore => ProspectCommand::Restore,
    })
}

/// The company's fields as a client would name them.
fn company_fields(company: &Company) -> Map<String, Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(&company.profile) else {
        panic!("a profile is an object")
    };
    fields.insert("domain".to_owned(), json!(company.domain));
    fields.insert("additional_domains".to_owned(), json!(company.additional_domains));
    fields.insert("external_refs".to_owned(), json!(company.external_refs));
    fields.insert("attributes".to_owned(), json!(company.attributes));
    remove_blank(&mut fields);
    fields
}

/// The prospect's fields as a client would name them.
fn prospect_fields(prospect: &Prospect) -> Map<String, Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(&prospect.profile) else {
        panic!("a profile is an object")
    };
    let Ok(Value::Object(personal)) = serde_json::to_value(&prospect.personal.fields) else {
        panic!("it is an object")
    };
    fields.extend(personal);
    fields.insert("company_id".to_owned(), json!(prospect.company_id));
    fields.insert("external_refs".to_owned(), json!(prospect.personal.external_refs));
    fields.insert("attributes".to_owned(), json!(prospect.personal.attributes));
    remove_blank(&mut fields);
    fields
}
