//! Records as they were, and their histories, over random lives of companies and prospects: what is answered is compared with a fold of
//! the first events by `domain` alone, and with the read tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::company::{CompanySaid, RegisterCompany, Terms, UpdateCompany, merge, unmerge};
use domain::prospect::{AssignProspect, ProspectSaid, RegisterProspect, UpdateProspect};
use domain::value::Line;
use domain::{
    Company, CompanyCommand, CompanyError, CompanyEvent, ConflictRule, Context, Prospect, ProspectCommand,
    ProspectEvent, Record, Said, Status, Undo, company, prospect,
};
use event_store::append::Refused;
use event_store::{ExecuteError, Executor, Keyring, Metadata, Request, Store};
use projector::projection::{Projection, STEP_EVENTS_MAX};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Map, Value, json};
use service_kit::auth::ApiKey;
use service_kit::postgres::Database;
use uuid::Uuid;

use crate::support::{KEY_FILE, Stack};

const COMPANIES: usize = 3;
const PROSPECTS: usize = 2;
/// Imports that rows come from.
const IMPORTS: u128 = 2;

/// What happens next; what a record's rules forbid does not happen.
#[derive(Debug, Clone)]
enum Act {
    RegisterCompany(usize, Value),
    UpdateCompany(usize, Value),
    ImportCompany(usize, u128, Value),
    UndoCompany(usize, u128),
    DeleteCompany(usize),
    RestoreCompany(usize),
    Merge(usize, usize),
    Unmerge(usize),
    RegisterProspect(usize, Option<usize>, Value),
    UpdateProspect(usize, Value),
    ImportProspect(usize, u128, Value),
    UndoProspect(usize, u128),
    Assign(usize, Option<usize>),
    DeleteProspect(usize),
    RestoreProspect(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let company = || 0..COMPANIES;
    let person = || 0..PROSPECTS;
    let import = || 1..=IMPORTS;
    prop_oneof![
        3 => (company(), company_fields()).prop_map(|(one, fields)| Act::RegisterCompany(one, fields)),
        3 => (company(), company_fields()).prop_map(|(one, fields)| Act::UpdateCompany(one, fields)),
        3 => (company(), import(), company_fields()).prop_map(|(one, import, fields)| Act::ImportCompany(one, import, fields)),
        1 => (company(), import()).prop_map(|(one, import)| Act::UndoCompany(one, import)),
        1 => company().prop_map(Act::DeleteCompany),
        2 => company().prop_map(Act::RestoreCompany),
        2 => (company(), company()).prop_map(|(one, other)| Act::Merge(one, other)),
        2 => company().prop_map(Act::Unmerge),
        3 => (person(), prop::option::weighted(0.8, company()), prospect_fields())
            .prop_map(|(one, company, fields)| Act::RegisterProspect(one, company, fields)),
        3 => (person(), prospect_fields()).prop_map(|(one, fields)| Act::UpdateProspect(one, fields)),
        3 => (person(), import(), prospect_fields()).prop_map(|(one, import, fields)| Act::ImportProspect(one, import, fields)),
        1 => (person(), import()).prop_map(|(one, import)| Act::UndoProspect(one, import)),
        2 => (person(), prop::option::weighted(0.8, company())).prop_map(|(one, company)| Act::Assign(one, company)),
        1 => person().prop_map(Act::DeleteProspect),
        2 => person().prop_map(Act::RestoreProspect),
    ]
}

fn company_fields() -> impl Strategy<Value = Value> {
    some_of(vec![
        ("name", json!("Acme")),
        ("name", json!("ACME Ünited")),
        ("industry", json!("Software")),
        ("founding_date", json!("1999-12")),
        ("employee_count", json!(12)),
        ("min_employee_size", json!(10)),
        ("max_employee_size", json!(50)),
        ("revenue", json!(-7)),
        ("country", json!("France")),
        ("city", json!("Paris")),
        ("phone", json!("01 23 45 67 89")),
        ("phone", json!("ask 4 Bob")),
        ("long_description", json!("one\ntwo \"quoted\" \\ 🦀")),
        ("external_refs", json!([{"source": "crm", "id": "1"}])),
        ("external_refs", json!([{"source": "crm", "id": "2"}, {"source": "erp", "id": "1"}])),
        ("attributes", json!({"tier": "gold", "a.b/c": 0.5, "on": true})),
        ("attributes", json!({"tier": "silver", "whole": 2})),
        ("social_media", json!([{"platform": "LinkedIn", "url": "https://linkedin.com/acme"}])),
    ])
}

fn prospect_fields() -> impl Strategy<Value = Value> {
    some_of(vec![
        ("last_name", json!("Hopper")),
        ("last_name", json!("Lovelace")),
        ("email", json!("Grace.Hopper@Acme.com")),
        ("email", json!("ada@acme.com")),
        ("job_title", json!("Chief Executive Officer")),
        ("job_title_level", json!("C-Level")),
        ("country", json!("US")),
        ("phone", json!("(212) 555-0123")),
        ("city", json!("New York")),
        ("external_refs", json!([{"source": "crm", "id": "7"}])),
        ("attributes", json!({"a": "one", "b": -2.5})),
        ("attributes", json!({"a": "two"})),
    ])
}

fn some_of(choices: Vec<(&'static str, Value)>) -> impl Strategy<Value = Value> {
    let member = prop::sample::select(choices).prop_map(|(name, value)| (name.to_owned(), value));
    prop::collection::vec(member, 0..4).prop_map(|members| Value::Object(members.into_iter().collect()))
}

/// The write side beside the query service, on its database.
struct Log {
    stack: Stack,
    store: Store,
    companies: Executor<Company>,
    prospects: Executor<Prospect>,
    _task: event_store::store::StoreTask,
}

/// One tenant of it and its key.
struct Tenant<'a> {
    log: &'a Log,
    id: Uuid,
    key: String,
    companies: Vec<Uuid>,
    prospects: Vec<Uuid>,
}

fn keyring() -> Arc<Keyring> {
    Arc::new(Keyring::parse(KEY_FILE).expect("a good key file"))
}

impl Log {
    async fn new() -> Self {
        let stack = Stack::new().await;
        let (store, task) = Store::open(&stack.database("prospectus_appender"), keyring());
        let companies = Executor::new(store.clone(), 16 << 20);
        let prospects = Executor::new(store.clone(), 16 << 20);
        Self { stack, store, companies, prospects, _task: task }
    }

    async fn tenant(&self) -> Tenant<'_> {
        let (id, key) = (Uuid::now_v7(), ApiKey::generate().expect("random bytes"));
        let tenant = "INSERT INTO access.tenants (tenant_id, name) VALUES ($1, $2)";
        self.stack.client.execute(tenant, &[&id, &format!("t{}", id.simple())]).await.expect("a tenant");
        let sql = "INSERT INTO access.api_keys (prefix, tenant_id, secret_sha256, role) VALUES ($1, $2, $3, 'auditor')";
        self.stack.client.execute(sql, &[&key.prefix(), &id, &key.secret_sha256().as_slice()]).await.expect("a key");
        let ids = |count| (0..count).map(|_| Uuid::now_v7()).collect();
        Tenant { log: self, id, key: key.expose().to_owned(), companies: ids(COMPANIES), prospects: ids(PROSPECTS) }
    }

    async fn head(&self) -> i64 {
        self.stack.client.query_one("SELECT position FROM log.head", &[]).await.expect("the head").get(0)
    }

    async fn project(&self) {
        let database: Database = self.stack.database("prospectus_projector");
        let mut projection = Projection::open(&database.read_write(), keyring()).await.expect("it opens");
        while !projection.step(STEP_EVENTS_MAX).await.expect("a step").idle() {}
    }
}

fn happened<T, E: std::error::Error>(outcome: Result<T, ExecuteError<E>>) {
    match outcome {
        Ok(_)
        | Err(
            ExecuteError::Domain(_) | ExecuteError::Refused(Refused::ClaimTaken { .. } | Refused::ClaimMissing { .. }),
        ) => {}
        Err(error) => panic!("{error}"),
    }
}

fn said(import: u128, row: u64) -> Said {
    Said { source: Line::parse("list").expect("a line"), import_id: Uuid::from_u128(import), row, at: None }
}

impl Tenant<'_> {
    fn request(&self) -> Request {
        let text = |text: &str| text.to_owned();
        Request {
            tenant_id: self.id,
            metadata: Metadata {
                actor: text("key:pk_test"),
                actor_role: text("writer"),
                correlation_id: text("c"),
                causation_id: None,
                request_id: text("r"),
                source: text("test"),
                client_address: None,
            },
            receipt: None,
            if_match: None,
            deadline: Instant::now() + Duration::from_secs(120),
            patient: true,
        }
    }

    async fn company(&self, one: usize, command: CompanyCommand) {
        let id = self.companies[one];
        happened(self.log.companies.execute(id, command, &self.request(), |_| Map::new()).await);
    }

    async fn prospect(&self, one: usize, command: ProspectCommand) {
        let id = self.prospects[one];
        happened(self.log.prospects.execute(id, command, &self.request(), |_| Map::new()).await);
    }

    async fn live(&self, act: Act) {
        let request = self.request();
        match act {
            Act::RegisterCompany(one, mut fields) => {
                fields["name"] = json!("Registered");
                self.company(one, CompanyCommand::Register(RegisterCompany::parse(fields).expect("good"))).await;
            }
            Act::UpdateCompany(one, mut fields) => {
                fields.as_object_mut().expect("an object").remove("social_media");
                self.company(one, CompanyCommand::Update(UpdateCompany::parse(fields).expect("good"))).await;
            }
            Act::ImportCompany(one, import, fields) => {
                let Value::Object(mut members) = fields else { unreachable!("it is an object") };
                members.entry("name").or_insert(json!("Imported"));
                let row = CompanySaid::parse(said(import, 7), members, None).expect("good fields");
                let decide = |company: &Company, context: &Context| {
                    let terms = Terms { rule: &ConflictRule::Newest, looks_like: None };
                    company::take_in(company, std::slice::from_ref(&row), &terms, context)
                        .map(|taken| (taken.events, ()))
                };
                happened(self.log.companies.carry(self.companies[one], false, &request, decide).await);
            }
            Act::UndoCompany(one, import) => self.undo_company(one, Uuid::from_u128(import)).await,
            Act::DeleteCompany(one) => self.company(one, CompanyCommand::Delete).await,
            Act::RestoreCompany(one) => self.company(one, CompanyCommand::Restore).await,
            Act::Merge(one, other) => {
                let ids = [self.companies[other], self.companies[one]];
                let decide = |[primary, secondary]: [&Company; 2]| {
                    merge((ids[0], primary), (ids[1], secondary)).map(|both| [both.primary, both.secondary])
                };
                happened(self.log.companies.execute_both(ids, &request, decide).await);
            }
            Act::Unmerge(one) => self.unmerge(self.companies[one]).await,
            Act::RegisterProspect(one, company, mut fields) => {
                fields["first_name"] = json!("Ada");
                fields["company_id"] = json!(company.map(|company| self.companies[company]));
                self.prospect(one, ProspectCommand::Register(RegisterProspect::parse(fields).expect("good"))).await;
            }
            Act::UpdateProspect(one, fields) => {
                self.prospect(one, ProspectCommand::Update(UpdateProspect::parse(fields).expect("good"))).await;
            }
            Act::ImportProspect(one, import, fields) => {
                let Value::Object(mut members) = fields else { unreachable!("it is an object") };
                // A row must name somebody.
                members.entry("first_name").or_insert_with(|| json!("Ada"));
                let row = ProspectSaid::parse(said(import, 9), members).expect("good fields");
                let decide = |prospect: &Prospect, _: &Context| {
                    prospect::take_in(prospect, std::slice::from_ref(&row), &ConflictRule::Newest)
                        .map(|taken| (taken.events, ()))
                };
                happened(self.log.prospects.carry(self.prospects[one], false, &request, decide).await);
            }
            Act::UndoProspect(one, import) => {
                let id = self.prospects[one];
                let events: Vec<ProspectEvent> = self.events::<Prospect>(id).await;
                if let Undo::By(event) = prospect::undo(&events, Uuid::from_u128(import)) {
                    let decide = |_: &Prospect, _: &Context| Ok((vec![event.clone()], ()));
                    happened(self.log.prospects.carry(id, false, &request, decide).await);
                }
            }
            Act::Assign(one, company) => {
                let company_id = company.map(|company| self.companies[company]);
                self.prospect(one, ProspectCommand::Assign(AssignProspect { company_id })).await;
            }
            Act::DeleteProspect(one) => self.prospect(one, ProspectCommand::Delete).await,
            Act::RestoreProspect(one) => self.prospect(one, ProspectCommand::Restore).await,
        }
    }

    async fn undo_company(&self, one: usize, import: Uuid) {
        let id = self.companies[one];
        let events: Vec<CompanyEvent> = self.events::<Company>(id).await;
        if let Undo::By(event) = company::undo(&events, import) {
            let decide = |_: &Company, _: &Context| Ok((vec![event.clone()], ()));
            happened(self.log.companies.carry(id, false, &self.request(), decide).await);
        }
    }

    async fn unmerge(&self, id: Uuid) {
        let company = self.log.store.loader().load::<Company>(self.id, id).await.expect("it loads").state;
        let Status::Merged { into } = company.status else { return };
        let decide = |[primary, secondary]: [&Company; 2]| -> Result<[Vec<CompanyEvent>; 2], CompanyError> {
            unmerge(primary, (id, secondary)).map(|both| [both.primary, both.secondary])
        };
        happened(self.log.companies.execute_both([into, id], &self.request(), decide).await);
    }

    async fn events<R: Record>(&self, id: Uuid) -> Vec<R::Event> {
        let events = self.log.store.loader().history::<R>(self.id, id).await.expect("it loads");
        events.into_iter().map(|(_, event)| event).collect()
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.log.stack.request("GET", path, &self.key, "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    /// All of a history, in pages of an odd size.
    async fn history(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut next = format!("{path}?limit=3");
        loop {
            let page = self.get(&next).await;
            items.extend(page["items"].as_array().expect("items").iter().cloned());
            let Some(cursor) = page["next_cursor"].as_str() else { return items };
            next = format!("{path}?limit=3&cursor={cursor}");
        }
    }
}

#[test]
fn the_past_is_the_fold_of_the_first_events_and_what_its_history_says() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let log = runtime.block_on(Log::new());
    let config = Config { cases: 24, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let outcome = TestRunner::new(config).run(&prop::collection::vec(act(), 5..60), |history| {
        runtime.block_on(async {
            let tenant = log.tenant().await;
            for act in history {
                tenant.live(act).await;
            }
            look_back(&tenant).await
        })
    });
    runtime.block_on(async move { drop(log) });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

async fn look_back(tenant: &Tenant<'_>) -> Result<(), TestCaseError> {
    tenant.log.project().await;
    let head = tenant.log.head().await;
    for id in &tenant.companies {
        let told = |company: &Company| {
            let merged = if let Status::Merged { into } = company.status { json!(into) } else { Value::Null };
            let mut told = plain(&company.profile);
            told.insert("domain".into(), json!(company.domain));
            told.insert("external_refs".into(), json!(company.external_refs));
            told.insert("attributes".into(), json!(company.attributes));
            told.insert("merged_into".into(), merged);
            told.insert("deleted".into(), json!(company.status == Status::Deleted));
            let pages: Vec<Uuid> = company.social_media.iter().map(|page| page.social_media_id).collect();
            told.insert("pages".into(), json!(pages));
            told
        };
        let states = compare::<Company>(tenant, "companies", *id, head, told).await?;
        // While others are merged into it, its history is theirs too.
        let Some(last) = states.last() else { continue };
        let mut expected: Vec<i64> = Vec::new();
        let others: Vec<Uuid> =
            if matches!(last.status, Status::Merged { .. }) { Vec::new() } else { last.stands_for().collect() };
        for one in others.iter().chain([id]) {
            let sql = "SELECT position FROM log.events WHERE tenant_id = $1 AND aggregate_id = $2";
            let rows = tenant.log.stack.client.query(sql, &[&tenant.id, one]).await.expect("the log");
            expected.extend(rows.iter().map(|row| row.get::<_, i64>(0)));
        }
        expected.sort_unstable();
        let items = tenant.history(&format!("/v1/companies/{id}/history")).await;
        let positions: Vec<i64> = items.iter().map(|item| item["position"].as_i64().expect("a position")).collect();
        prop_assert_eq!(positions, expected);
    }
    for id in &tenant.prospects {
        let told = |prospect: &Prospect| {
            let mut told = plain(&prospect.profile);
            told.extend(plain(&prospect.personal.fields));
            told.insert("external_refs".into(), json!(prospect.personal.external_refs));
            told.insert("attributes".into(), json!(prospect.personal.attributes));
            told.insert("assigned_company_id".into(), json!(prospect.company_id));
            told.insert("deleted".into(), json!(prospect.status == Status::Deleted));
            told
        };
        compare::<Prospect>(tenant, "prospects", *id, head, told).await?;
    }
    Ok(())
}

/// Plain fields as a record shows them.
fn plain(profile: &impl serde::Serialize) -> Map<String, Value> {
    let Ok(Value::Object(fields)) = serde_json::to_value(profile) else { unreachable!("profiles are structs") };
    let shown = |value: Value| if value["as_given"].is_string() { value["as_given"].clone() } else { value };
    fields.into_iter().map(|(name, value)| (name, shown(value))).collect()
}

/// Compares every version of a record, and its history, with the fold of its events; gives the states after each.
async fn compare<R: Record>(
    tenant: &Tenant<'_>,
    sort: &str,
    id: Uuid,
    head: i64,
    told: impl Fn(&R) -> Map<String, Value>,
) -> Result<Vec<R>, TestCaseError> {
    let events: Vec<R::Event> = tenant.events::<R>(id).await;
    let path = format!("/v1/{sort}/{id}");
    let mut states = Vec::new();
    if events.is_empty() {
        return Ok(states);
    }
    let own = id.to_string();
    let items = tenant.history(&format!("{path}/history")).await;
    let items: Vec<&Value> = items.iter().filter(|item| item["aggregate_id"] == own).collect();
    prop_assert_eq!(items.len(), events.len());
    let mut state = R::default();
    let mut applied: BTreeMap<String, Value> = BTreeMap::new();
    let mut at = String::new();
    for ((version, event), item) in (1..).zip(&events).zip(items) {
        state.evolve(event);
        states.push(state.clone());
        let record = tenant.get(&format!("{path}?as_of_version={version}&include_deleted=true")).await;
        prop_assert_eq!(&record["version"], &json!(version));
        for (name, expected) in told(&state) {
            let found = match name.as_str() {
                "deleted" => json!(!record["deleted_at"].is_null()),
                "pages" => {
                    let pages = record["social_media"].as_array().cloned().unwrap_or_default();
                    pages.iter().map(|page| page["social_media_id"].clone()).collect()
                }
                name => record[name].clone(),
            };
            prop_assert_eq!(found, expected, "{} of version {}: {}", name, version, record);
        }
        prop_assert_eq!(&item["sequence"], &json!(version));
        for change in item["changes"].as_array().expect("changes") {
            let field = change["field"].as_str().expect("a field").to_owned();
            let before = applied.get(&field).cloned().unwrap_or_default();
            prop_assert!(same(&before, &change["from"]), "{}: {} is {}", item, field, before);
            prop_assert!(!same(&change["from"], &change["to"]), "{}: no change", item);
            applied.insert(field, change["to"].clone());
        }
        prop_assert!(record_says(&record, &applied), "{}: {} is not {:?}", path, record, applied);
        // The same by the position of the event and by its time, whatever else has that.
        at = item["recorded_at"].as_str().expect("a time").to_owned();
        let by_position = tenant.get(&format!("{path}?as_of_position={}&include_deleted=true", item["position"])).await;
        prop_assert_eq!(&by_position, &record);
    }
    let by_time = tenant.get(&format!("{path}?as_of={at}&include_deleted=true")).await;
    prop_assert_eq!(&by_time["version"], &json!(events.len()));
    // The newest past is the present.
    let past = tenant.get(&format!("{path}?as_of_position={head}&include_deleted=true")).await;
    let present = tenant.get(&format!("{path}?include_deleted=true")).await;
    prop_assert_eq!(past, present);
    Ok(states)
}

/// Equal, no value being as good as an empty one.
fn same(one: &Value, other: &Value) -> bool {
    let empty = |value: &Value| {
        value.is_null() || value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
    };
    one == other || (empty(one) && empty(other))
}

/// Whether a record is what its changes say, in every member but those that every event changes and the company that follows from others.
fn record_says(record: &Value, applied: &BTreeMap<String, Value>) -> bool {
    let beside = ["company_id", "prospect_id", "version", "position", "created_at", "updated_at", "attributes"];
    let members = record.as_object().expect("a record");
    let plain = members
        .iter()
        .filter(|(name, _)| !beside.contains(&name.as_str()))
        .all(|(name, value)| same(value, applied.get(name).unwrap_or(&Value::Null)));
    let none = Map::new();
    let attributes = record["attributes"].as_object().unwrap_or(&none);
    let said = applied.iter().filter_map(|(field, value)| Some((field.strip_prefix("attributes.")?, value)));
    let said: BTreeMap<&str, &Value> = said.filter(|(_, value)| !value.is_null()).collect();
    plain && said.len() == attributes.len() && said.iter().all(|(key, value)| attributes.get(*key) == Some(*value))
}
