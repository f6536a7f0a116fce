//! The endpoints. Each handler parses its request into an operation and carries it out; its description stands with it.

mod batch;
mod companies;
mod domains;
mod imports;
mod prospects;
mod reviews;
mod schema;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, Uri};
use service_kit::auth::{Authenticator, Permission, Principal, protect};
use service_kit::http::{RequestContext, observe, read_body, read_json};
use service_kit::problem::{Code, Problem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::carry_out::{Caller, Service, Terms, count, idempotency_key, if_match};
use crate::operation::{self, Object, Operation};

/// Largest body of one command, and largest line of a batch.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;

/// The service's whole router.
///
/// # Errors
/// If the description of the endpoints cannot be written as JSON.
pub fn router(service: Arc<Service>, authenticator: Authenticator, health: Router) -> serde_json::Result<Router> {
    let (commands, mut description) = OpenApiRouter::with_openapi(schema::description())
        .routes(routes!(companies::register))
        .routes(routes!(companies::update, companies::delete))
        .routes(routes!(companies::restore))
        .routes(routes!(companies::merge))
        .routes(routes!(companies::unmerge))
        .routes(routes!(companies::add_social_media))
        .routes(routes!(companies::remove_social_media))
        .routes(routes!(prospects::register))
        .routes(routes!(prospects::update, prospects::delete))
        .routes(routes!(prospects::restore))
        .routes(routes!(prospects::assign))
        .routes(routes!(prospects::erase))
        .routes(routes!(reviews::resolve))
        .routes(routes!(batch::batch))
        .routes(routes!(domains::explain))
        .routes(routes!(imports::create, imports::list))
        .routes(routes!(imports::show))
        .routes(routes!(imports::rows))
        .routes(routes!(imports::left))
        .routes(routes!(imports::undo))
        .split_for_parts();
    service_kit::docs::describe_refusals(&mut description, schema::refusals);
    let commands: Router = protect(commands, authenticator).with_state(service);
    Ok(observe(commands.merge(health).merge(service_kit::docs::router(&description)?), "command-service"))
}

/// One command as it came in.
struct Incoming {
    caller: Caller,
    /// The command's name in the figures.
    name: &'static str,
    method: Method,
    path: Uri,
    idempotency_key: Option<String>,
    if_match: Option<i64>,
    headers: HeaderMap,
}

impl Incoming {
    /// Reads what stands in front of the body.
    fn new(
        principal: Principal,
        context: RequestContext,
        method: Method,
        path: Uri,
        headers: HeaderMap,
    ) -> Result<Self, Problem> {
        let name = operation::name(&method, path.path());
        counted(name, Self::read(name, principal, context, method, path, headers))
    }

    fn read(
        name: &'static str,
        principal: Principal,
        context: RequestContext,
        method: Method,
        path: Uri,
        headers: HeaderMap,
    ) -> Result<Self, Problem> {
        principal.require(Permission::SendCommands)?;
        if path.query().is_some() {
            return Err(Problem::new(Code::UnknownParameter, "this endpoint takes no query parameters"));
        }
        let caller = Caller::new(principal, context, &headers)?;
        let (idempotency_key, if_match) = (idempotency_key(&headers)?, if_match(&headers)?);
        Ok(Self { caller, name, method, path, idempotency_key, if_match, headers })
    }

    /// Reads the body, which is an object, and carries out what `parse` makes of it.
    async fn with_object(
        self,
        service: &Service,
        body: Body,
        parse: impl FnOnce(Object) -> Result<Operation, Problem>,
    ) -> Result<Response, Problem> {
        let body = counted(self.name, read_json(&self.headers, body, COMMAND_BYTES_MAX).await)?;
        let operation = counted(self.name, parse(body.object))?;
        self.carry_out(service, operation, &body.bytes).await
    }

    /// Carries out an operation that needs no body; what was sent as one is read and left.
    async fn without_body(
        self,
        service: &Service,
        body: Body,
        operation: Result<Operation, Problem>,
    ) -> Result<Response, Problem> {
        let bytes = read_body(&self.headers, body, COMMAND_BYTES_MAX, service_kit::http::BODY_TIMEOUT).await;
        let bytes = counted(self.name, bytes)?;
        let operation = counted(self.name, operation)?;
        self.carry_out(service, operation, &bytes).await
    }

    async fn carry_out(self, service: &Service, operation: Operation, body: &[u8]) -> Result<Response, Problem> {
        let terms = Terms {
            name: self.name,
            idempotency_key: self.idempotency_key.as_deref(),
            if_match: self.if_match,
            request: [self.method.as_str().as_bytes(), self.path.path().as_bytes(), body],
            patient: false,
        };
        Ok(service.carry_out(&self.caller, operation, terms).await?.into_response())
    }
}

/// Counts the command as refused if it is, before it is carried out, which counts too.
fn counted<T>(name: &'static str, read: Result<T, Problem>) -> Result<T, Problem> {
    read.inspect_err(|problem| count(name, Some(problem)))
}

/// What every command's handler is given, in the order in which axum takes it apart.
type Parts = (State<Arc<Service>>, Principal, RequestContext, Method, Uri, HeaderMap);
