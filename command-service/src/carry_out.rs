//! From an operation to its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::response::{IntoResponse, Response};
use domain::{Company, CompanyCommand, CompanyEvent, Import, Prospect};
use event_store::receipt::NewReceipt;
use event_store::{Answer, Executor, Metadata, Request, Store};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};
use service_kit::auth::{Permission, Principal};
use service_kit::http::RequestContext;
use service_kit::problem::{Code, Problem};
use service_kit::shutdown::Shutdown;
use uuid::Uuid;

use crate::erasures::ErasureList;
use crate::import::Imports;
use crate::operation::{Operation, Target};
use crate::problems::{company_error, incomplete, not_carried_out, prospect_error};

/// Longest idempotency key, and longest of the ids and names that a client may put into an event's metadata.
const LABEL_CHARACTERS_MAX: usize = 255;

/// Memory for imports used lately: they are few, and small without their rows.
const IMPORTS_BYTES: u64 = 1 << 20;

/// What the routes share.
pub struct Service {
    /// Those who carry out.
    pub executors: Arc<Executors>,
    /// Lists of many records.
    pub imports: Arc<Imports>,
    /// The list of erased persons outside the database.
    pub erasures: Arc<ErasureList>,
    /// How long one command may take.
    pub deadline: Duration,
    /// Tells batches that this process is to end.
    pub shutdown: Shutdown,
}

/// An executor for each sort of record.
pub struct Executors {
    pub(crate) store: Store,
    pub(crate) companies: Executor<Company>,
    pub(crate) prospects: Executor<Prospect>,
    pub(crate) imports: Executor<Import>,
}

impl Executors {
    /// Executors over one log that keep at most `cache_bytes` of records together.
    pub fn new(store: Store, cache_bytes: u64) -> Self {
        Self {
            companies: Executor::new(store.clone(), cache_bytes / 3 * 2),
            prospects: Executor::new(store.clone(), cache_bytes / 3),
            imports: Executor::new(store.clone(), IMPORTS_BYTES),
            store,
        }
    }
}

/// Who asks, and what they said beside the operation.
#[derive(Debug, Clone)]
pub struct Caller {
    principal: Principal,
    context: RequestContext,
    correlation_id: Option<String>,
    causation_id: Option<String>,
    source: Option<String>,
}

/// What belongs to one operation, beside who asks.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The command's name in the figures ([`crate::operation::name`]).
    pub name: &'static str,
    /// Against doing it twice.
    pub idempotency_key: Option<&'a str>,
    /// The version that is to be changed.
    pub if_match: Option<i64>,
    /// The request as it came, for recognising it again: method, path, body.
    pub request: [&'a [u8]; 3],
    /// Wait for a place in a full queue instead of being refused.
    pub patient: bool,
}

/// A command that was carried out, or had been before.
#[derive(Debug)]
pub struct Done {
    /// 201 for what is new, else 200.
    pub status: StatusCode,
    /// What the client is told.
    pub answer: Answer,
    /// Where the new thing is.
    pub location: Option<String>,
}

impl Caller {
    /// Reads the headers that say where a command comes from.
    ///
    /// # Errors
    /// `invalid_parameter` for a header that is too long or not text.
    pub fn new(principal: Principal, context: RequestContext, headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self {
            principal,
            context,
            correlation_id: label(headers, "x-correlation-id")?,
            causation_id: label(headers, "x-causation-id")?,
            source: label(headers, "prospectus-source")?,
        })
    }

    /// Which request this is.
    pub fn request_id(&self) -> Uuid {
        self.context.request_id
    }

    /// Whose records.
    pub fn tenant_id(&self) -> Uuid {
        self.principal.tenant_id
    }

    /// What stands beside the events of what is asked for.
    pub fn metadata(&self) -> Metadata {
        let request_id = self.context.request_id.to_string();
        Metadata {
            actor: format!("key:{}", self.principal.key_prefix),
            actor_role: self.principal.role.name().to_owned(),
            correlation_id: self.correlation_id.clone().unwrap_or_else(|| request_id.clone()),
            causation_id: self.causation_id.clone(),
            request_id,
            source: self.source.clone().unwrap_or_else(|| "api".to_owned()),
            client_address: Some(self.context.peer.ip().to_string()),
        }
    }
}

impl Service {
    /// Carries an operation out.
    ///
    /// # Errors
    /// What the client is to be told.
    pub async fn carry_out(&self, caller: &Caller, operation: Operation, terms: Terms<'_>) -> Result<Done, Problem> {
        let name = terms.name;
        let result = self.execute(caller, operation, terms).await;
        count(name, result.as_ref().err());
        result
    }

    async fn execute(&self, caller: &Caller, operation: Operation, terms: Terms<'_>) -> Result<Done, Problem> {
        let tenant_id = caller.principal.tenant_id;
        let executors = &self.executors;
        let erases = operation.erases();
        if erases {
            caller.principal.require(Permission::Administer)?;
        }
        let receipt = terms.idempotency_key.map(|key| {
            let [method, path, body] = terms.request;
            let parts: [&[u8]; 7] = [b"request", &[0], method, &[0], path, &[0], body];
            NewReceipt { key: key.to_owned(), request_hmac: executors.store.keyring().tenant_hmac(tenant_id, &parts) }
        });
        let request = Request {
            tenant_id,
            metadata: caller.metadata(),
            receipt,
            if_match: terms.if_match,
            deadline: Instant::now() + self.deadline,
            patient: terms.patient,
        };
        match operation {
            Operation::Company(Target::New, command) => {
                let created = executors.companies.create(Uuid::now_v7(), command, &request).await;
                let answer = created.map_err(|error| not_carried_out(error, company_error))?;
                Ok(Done::created(format!("/v1/companies/{}", answer.id), answer))
            }
            Operation::Company(Target::Existing(id), command) => {
                let adds = matches!(command, CompanyCommand::AddSocialMedia(_));
                let changed = executors.companies.execute(id, command, &request, new_social_media).await;
                let answer = match changed {
                    Ok(answer) => answer,
                    Err(error) => return Err(executors.company_problem(error, &request).await),
                };
                match answer.details.get("social_media_id").and_then(Value::as_str) {
                    Some(entry) if adds => {
                        Ok(Done::created(format!("/v1/companies/{id}/social-media/{entry}"), answer))
                    }
                    _ => Ok(Done::changed(answer)),
                }
            }
            // On the heap: rare, and of two records, whose room every command would carry along.
            Operation::MergeCompany(id, merge) => {
                Box::pin(executors.merge(id, merge.into, &request)).await.map(Done::changed)
            }
            Operation::UnmergeCompany(id) => Box::pin(executors.unmerge(id, &request)).await.map(Done::changed),
            Operation::Resolve(id, resolve) => {
                Box::pin(executors.resolve(id, resolve, &request)).await.map(Done::changed)
            }
            Operation::Prospect(Target::New, command) => {
                let created = executors.prospects.create(Uuid::now_v7(), command, &request).await;
                let answer = created.map_err(|error| not_carried_out(error, prospect_error))?;
                Ok(Done::created(format!("/v1/prospects/{}", answer.id), answer))
            }
            Operation::Prospect(Target::Existing(id), command) => {
                let changed = executors.prospects.execute(id, command, &request, |_| Map::new()).await;
                let answer = changed.map_err(|error| not_carried_out(error, prospect_error))?;
                if erases {
                    // The event is the record's last one. It counts as erased when no restored backup can bring it back unnoticed.
                    Box::pin(self.erasures.keep_up_to(answer.position)).await.map_err(|error| incomplete(&error))?;
                }
                Ok(Done::changed(answer))
            }
        }
    }
}

impl Done {
    fn created(location: String, answer: Answer) -> Self {
        Self { status: StatusCode::CREATED, answer, location: Some(location) }
    }

    fn changed(answer: Answer) -> Self {
        Self { status: StatusCode::OK, answer, location: None }
    }
}

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        let (version, position) = (self.answer.version, self.answer.position);
        let mut response = (self.status, Json(self.answer)).into_response();
        let headers = response.headers_mut();
        let mut put = |name: HeaderName, value: String| {
            headers.insert(name, HeaderValue::from_str(&value).expect("numbers and paths of ids are header text"));
        };
        put(header::ETAG, format!("\"{version}\""));
        put(HeaderName::from_static("prospectus-position"), position.to_string());
        if let Some(location) = self.location {
            put(header::LOCATION, location);
        }
        response
    }
}

/// The id of an added social media entry: the one thing of a company's command that the client cannot know.
fn new_social_media(events: &[CompanyEvent]) -> Map<String, Value> {
    let added = events.iter().find_map(|event| match event {
        CompanyEvent::CompanySocialMediaAdded(entry) => Some(entry.social_media_id.to_string()),
        _ => None,
    });
    added.map(|id| ("social_media_id".to_owned(), id.into())).into_iter().collect()
}

/// Counts a command that is answered, by its name and by what became of it: a problem's code, or done.
pub fn count(name: &'static str, problem: Option<&Problem>) {
    let outcome = problem.map_or("done", |problem| problem.code().name());
    metrics::counter!("prospectus_commands_total", "type" => name, "outcome" => outcome).increment(1);
}

/// The header `Idempotency-Key`.
///
/// # Errors
/// `invalid_parameter`
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    label(headers, "idempotency-key")
}

/// The version in the header `If-Match`: `"3"`, or `"3.…"` as reads of a prospect may show it. `*` asks for nothing, for only what
/// is there can be changed.
///
/// # Errors
/// `invalid_parameter`
pub fn if_match(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(given) = headers.get(header::IF_MATCH) else { return Ok(None) };
    if given.as_bytes() == b"*" {
        return Ok(None);
    }
    let version = given.to_str().ok().and_then(parse_etag);
    let wrong =
        || Problem::new(Code::InvalidParameter, "If-Match must be the version in quotes, as ETag gives it: \"3\"");
    version.map(Some).ok_or_else(wrong)
}

fn parse_etag(text: &str) -> Option<i64> {
    let text = text.trim().strip_prefix('"')?.strip_suffix('"')?;
    let version = text.split_once('.').map_or(text, |(version, _)| version);
    version.bytes().all(|byte| byte.is_ascii_digit()).then(|| version.parse().ok())?
}

fn label(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| (1..=LABEL_CHARACTERS_MAX).contains(&text.len()));
    let wrong = || {
        let detail = format!("the header {name} must be 1 to {LABEL_CHARACTERS_MAX} printable ASCII characters");
        Problem::new(Code::InvalidParameter, detail)
    };
    text.map(|text| Some(text.to_owned())).ok_or_else(wrong)
}

/// Checks an idempotency key that stands in a line of a batch.
///
/// # Errors
/// `invalid_parameter`
pub fn check_idempotency_key(key: &str) -> Result<(), Problem> {
    let good = (1..=LABEL_CHARACTERS_MAX).contains(&key.len()) && key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let detail = format!("idempotency_key must be 1 to {LABEL_CHARACTERS_MAX} printable ASCII characters");
    if good { Ok(()) } else { Err(Problem::new(Code::InvalidParameter, detail)) }
}
