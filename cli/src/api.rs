//! The services' HTTP APIs, as this program uses them.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use service_kit::config::Secret;
use service_kit::tls::{Roots, client_config};

/// How long the service may take to answer a question.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// The largest answer that is held in memory: an import's document has a mapping of at most 256 KiB, a page of a history some 4 MiB of
/// events, each with values twice.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A body that is sent piece by piece.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Where commands and imports are sent.
#[derive(clap::Args)]
pub struct CommandService {
    /// The command service.
    #[arg(long, env = "PROSPECTUS_COMMAND_URL", default_value = "http://127.0.0.1:8080")]
    command_url: String,
    /// A key of role writer or admin.
    #[arg(long, env = "PROSPECTUS_API_KEY", hide_env_values = true)]
    api_key: Option<Secret>,
}

/// Where records, histories and the log are read.
#[derive(clap::Args)]
pub struct QueryService {
    /// The query service.
    #[arg(long, env = "PROSPECTUS_QUERY_URL", default_value = "http://127.0.0.1:8081")]
    query_url: String,
    /// A key of role auditor or admin.
    #[arg(long, env = "PROSPECTUS_API_KEY", hide_env_values = true)]
    api_key: Option<Secret>,
}

impl std::fmt::Debug for CommandService {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "CommandService({})", self.command_url)
    }
}

impl std::fmt::Debug for QueryService {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "QueryService({})", self.query_url)
    }
}

/// A client of one of them.
pub(crate) struct Api {
    /// Which one, for messages.
    service: &'static str,
    client: Client<HttpsConnector<HttpConnector>, Body>,
    base: String,
    authorization: header::HeaderValue,
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The service refuses; another attempt would be refused too.
    #[error("{}", told(.0))]
    Refused(Value),
    /// It cannot be reached, is overloaded, or the connection broke.
    #[error("{0}")]
    Away(String),
}

/// What a problem document says, with all that is wrong.
fn told(problem: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut said = text(&problem["detail"]);
    if said.is_empty() {
        said = text(&problem["title"]);
    }
    for error in problem["errors"].as_array().into_iter().flatten() {
        said.push_str(&format!("\n  {}: {}", text(&error["pointer"]), text(&error["detail"])));
    }
    if let Some(id) = problem["import_id"].as_str() {
        said.push_str(&format!("\n  the import is {id}: prospectus import --show {id}"));
    }
    said
}

impl Api {
    /// A client of the command service with the address and key of the arguments.
    ///
    /// # Errors
    /// If there is no key, or the address is none.
    pub(crate) fn of_commands(args: &CommandService) -> anyhow::Result<Self> {
        let key = args.api_key.as_ref().context(
            "PROSPECTUS_API_KEY is not set: `prospectus keys create --tenant NAME --role writer` makes a key",
        )?;
        Self::open("command service", &args.command_url, key).context("PROSPECTUS_COMMAND_URL")
    }

    /// A client of the query service with the address and key of the arguments.
    ///
    /// # Errors
    /// If there is no key, or the address is none.
    pub(crate) fn of_reads(args: &QueryService) -> anyhow::Result<Self> {
        let key = args.api_key.as_ref().context(
            "PROSPECTUS_API_KEY is not set: `prospectus keys create --tenant NAME --role auditor` makes a key",
        )?;
        Self::open("query service", &args.query_url, key).context("PROSPECTUS_QUERY_URL")
    }

    fn open(service: &'static str, base: &str, key: &Secret) -> anyhow::Result<Self> {
        let base = base.trim_end_matches('/').to_owned();
        let url: http::Uri = base.parse().context("not a URL")?;
        let roots = if url.scheme_str() == Some("https") { Roots::FileOrSystem } else { Roots::OnlyFile };
        let connector = HttpsConnectorBuilder::new().with_tls_config(client_config(roots)?).https_or_http();
        let mut authorization = header::HeaderValue::try_from(format!("Bearer {}", key.expose()))
            .map_err(|_| anyhow::anyhow!("PROSPECTUS_API_KEY holds what no key has"))?;
        authorization.set_sensitive(true);
        Ok(Self {
            service,
            client: Client::builder(TokioExecutor::new()).build(connector.enable_http1().build()),
            base,
            authorization,
        })
    }

    /// Asks for a document.
    ///
    /// # Errors
    /// If it is refused or does not come.
    pub(crate) async fn ask(&self, method: Method, path: &str) -> Result<Value, ApiError> {
        let asked = async {
            let answer = self.send(method, path, HeaderMap::new(), empty()).await?;
            json_of(answer).await
        };
        tokio::time::timeout(ANSWER_WAIT, asked)
            .await
            .unwrap_or_else(|_| Err(ApiError::Away(format!("no answer within {} s", ANSWER_WAIT.as_secs()))))
    }

    /// Sends a list; its document. How long that takes is the sender's affair.
    ///
    /// # Errors
    /// If it is refused, or the connection breaks.
    pub(crate) async fn upload(&self, path: &str, headers: HeaderMap, body: Body) -> Result<Value, ApiError> {
        json_of(self.send(Method::POST, path, headers, body).await?).await
    }

    /// Asks for what is too long to be held: the pieces of the answer go to `take`.
    ///
    /// # Errors
    /// If it is refused or breaks off, or what `take` says.
    pub(crate) async fn stream(
        &self,
        path: &str,
        accept: &'static str,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, header::HeaderValue::from_static(accept));
        let answer = self.send(Method::GET, path, headers, empty()).await?;
        if !answer.status().is_success() {
            json_of(answer).await?;
            anyhow::bail!("the service gave no rows");
        }
        let mut body = answer.into_body();
        let silent = |_| ApiError::Away(format!("the rows stopped for {} s", ANSWER_WAIT.as_secs()));
        while let Some(frame) = tokio::time::timeout(ANSWER_WAIT, body.frame()).await.map_err(silent)? {
            let frame = frame.map_err(|error| ApiError::Away(format!("the rows broke off: {error}")))?;
            if let Some(data) = frame.data_ref() {
                take(data)?;
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<http::Response<hyper::body::Incoming>, ApiError> {
        let uri = format!("{}{path}", self.base);
        let mut request =
            Request::builder().method(method).uri(uri).body(body).map_err(|error| ApiError::Away(error.to_string()))?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(header::AUTHORIZATION, self.authorization.clone());
        self.client.request(request).await.map_err(|error| {
            let cause = std::iter::successors(std::error::Error::source(&error), |cause| cause.source()).last();
            let cause = cause.map_or_else(|| error.to_string(), ToString::to_string);
            ApiError::Away(format!("the {} at {} cannot be reached: {cause}", self.service, self.base))
        })
    }
}

fn empty() -> Body {
    whole(Bytes::new())
}

/// A body that is there already.
pub(crate) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// The document of an answer, if it is a good one.
async fn json_of(answer: http::Response<hyper::body::Incoming>) -> Result<Value, ApiError> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let bytes = body.map_err(|error| ApiError::Away(format!("the answer broke off: {error}")))?.to_bytes();
    let json: Value = serde_json::from_slice(&bytes).unwrap_or_else(|_| {
        serde_json::json!({"status": status.as_u16(), "detail": format!("the service answered {status} and no JSON")})
    });
    if status.is_success() {
        return Ok(json);
    }
    let passes =
        status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT || status == StatusCode::TOO_MANY_REQUESTS;
    if passes { Err(ApiError::Away(told(&json))) } else { Err(ApiError::Refused(json)) }
}
