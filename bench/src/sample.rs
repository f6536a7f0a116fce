//! What is written: events of about 400 bytes of payload.

use std::time::{Duration, Instant};

use domain::company::{RegisterCompany, UpdateCompany};
use event_store::append::{Append, KeyedValue, NewEvent, StreamAppend};
use event_store::{Answer, Metadata, Request};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// The tenant of the benchmark's own databases.
pub const TENANT: Uuid = Uuid::from_u128(0xbe4c);
/// How long one command may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A company's profile, 400 bytes as the log stores it.
pub fn company(number: u64) -> Value {
    json!({
        "name": format!("Benchmark Instruments {number}"),
        "industry": "Measuring Instruments",
        "short_description": "Makes instruments that measure how long other instruments take.",
        "country": "DE",
        "city": "Braunschweig",
        "founding_date": "1887",
        "employee_count": 1700,
        "revenue": 210_000_000,
        "revenue_currency": "EUR",
        "logo_url": "https://cdn.benchmark.example/logos/instruments.png",
    })
}

/// A text of about 370 characters that differs from event to event.
pub fn description(number: u64) -> String {
    format!(
        "Makes instruments that measure how long other instruments take, this being number {number} of its kind. They are sold \
         to laboratories and to people who like to know. Each is calibrated against the others, which is less of a circle \
         than it sounds, because they disagree in ways that are well understood, written down and looked at again once a year."
    )
}

/// What people and imports change of a company over the years, one thing after the other; a text like [`description`] is one of ten.
pub fn change(number: u64) -> Value {
    match number % 10 {
        0 => json!({ "short_description": description(number) }),
        1 => json!({ "employee_count": 1_000 + number }),
        2 => json!({ "phone": format!("+49 531 {}", 592_000 + number) }),
        3 => json!({ "revenue": 210_000_000 + number }),
        4 => json!({ "address": format!("Pendulum Street {number}"), "zip_code": format!("{}", 38_000 + number) }),
        5 => json!({ "name": format!("Benchmark Instruments {number}") }),
        6 => json!({ "logo_url": format!("https://cdn.benchmark.example/logos/{number}.png") }),
        7 => json!({ "industry": format!("Measuring Instruments {number}") }),
        8 => json!({ "city": format!("Braunschweig {number}") }),
        _ => json!({ "attributes": { "segment": format!("laboratories {number}") } }),
    }
}

/// The command that registers such a company.
///
/// # Errors
/// None for the sample, which is valid.
pub fn register(number: u64) -> anyhow::Result<RegisterCompany> {
    RegisterCompany::parse(company(number)).map_err(|errors| anyhow::anyhow!("{errors:?}"))
}

/// A command that changes one field to another text of about 370 characters.
///
/// # Errors
/// None for the sample, which is valid.
pub fn update(number: u64) -> anyhow::Result<UpdateCompany> {
    let body = json!({ "short_description": description(number) });
    UpdateCompany::parse(body).map_err(|errors| anyhow::anyhow!("{errors:?}"))
}

/// A person as a client sends one.
pub fn prospect(number: u64, company: &str) -> Value {
    json!({
        "company_id": company,
        "first_name": "Ada",
        "last_name": format!("Benchmark {number}"),
        "email": format!("ada.{number}@benchmark-instruments.example"),
        "job_title": "Head of Measurement",
        "job_title_level": "head",
        "department": "Operations",
        "country": "DE",
        "city": "Braunschweig",
        "phone": "+49 531 5920",
    })
}

/// One event of a new stream, with a claim if wanted; `payload` is JSON text.
pub fn append(payload: &str, metadata: &str, claim: bool) -> Append {
    let id = Uuid::now_v7();
    let take = if claim {
        vec![KeyedValue { kind: "domain", key: format!("{}.example", id.simple()), aggregate_id: id }]
    } else {
        Vec::new()
    };
    Append {
        tenant_id: TENANT,
        metadata: metadata.to_owned(),
        streams: vec![StreamAppend {
            aggregate_type: "company",
            aggregate_id: id,
            expected_version: 0,
            events: vec![event("CompanyRegistered", payload)],
            new_key: None,
        }],
        take,
        release: Vec::new(),
        require: Vec::new(),
        match_add: Vec::new(),
        match_remove: Vec::new(),
        forget: None,
        receipt: None,
        answer: Answer { id, version: 1, position: 0, epoch: String::new(), details: Map::new() },
        epoch: None,
        deadline: Instant::now() + DEADLINE,
    }
}

/// One event with this name and payload.
pub fn event(event_type: &'static str, payload: &str) -> NewEvent {
    NewEvent { event_id: Uuid::now_v7(), event_type, event_version: 1, payload: payload.to_owned() }
}

/// What the service writes beside each event.
pub fn metadata() -> Metadata {
    let request = Uuid::now_v7().to_string();
    Metadata {
        actor: "key:pk_benchmark".to_owned(),
        actor_role: "writer".to_owned(),
        correlation_id: request.clone(),
        causation_id: None,
        request_id: request,
        source: "api".to_owned(),
        client_address: Some("127.0.0.1".to_owned()),
    }
}

/// One command's surroundings.
pub fn request() -> Request {
    Request {
        tenant_id: TENANT,
        metadata: metadata(),
        receipt: None,
        if_match: None,
        deadline: Instant::now() + DEADLINE,
        patient: true,
    }
}
