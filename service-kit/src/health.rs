//! Whether a process is alive and whether it can do its job now: `/healthz`, `/readyz`, `/metrics`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use deadpool_postgres::Pool;
use futures_util::future::join_all;
use http::{HeaderValue, StatusCode, header};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// The path that says whether the service can do its job now.
pub(crate) const READINESS: &str = "/readyz";

/// How long one check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer is given again without asking, so that probes cannot load the database.
const KEPT_FOR: Duration = Duration::from_millis(250);

/// Each check's name, and why it failed if it did.
type Outcomes = Vec<(&'static str, Result<(), String>)>;

type Check = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// Named checks of a process.
#[derive(Default)]
pub struct Health {
    checks: Vec<(&'static str, Check)>,
    pools: Vec<(&'static str, Pool)>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(self.checks.iter().map(|(name, _)| name)).finish()
    }
}

impl Health {
    /// No checks: always ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check. Its error says in a sentence why the process cannot do its job; no secrets, no SQL.
    #[must_use]
    pub fn check<F, R>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks.push((name, Box::new(move || Box::pin(check()))));
        self
    }

    /// Adds the check that a pool's database answers, and the figure of how many of its connections are in use.
    #[must_use]
    pub fn check_pool(mut self, name: &'static str, pool: Pool) -> Self {
        self.pools.push((name, pool.clone()));
        self.check(name, move || {
            let pool = pool.clone();
            async move {
                let client = pool.get().await.map_err(|error| format!("no connection: {error}"))?;
                let answer = client.simple_query("-- service_kit::health::check_pool\nSELECT 1").await;
                answer.map(|_| ()).map_err(|error| format!("no answer: {error}"))
            }
        })
    }

    /// `/healthz`, `/readyz` and `/metrics`, to be merged into the service's router. A process that is ending is not ready.
    pub fn router<S: Clone + Send + Sync + 'static>(self, metrics: Metrics, shutdown: Shutdown) -> Router<S> {
        let pools: Arc<[(&'static str, Pool)]> = self.pools.into();
        let ready = Arc::new(Ready { checks: self.checks, shutdown, kept: Mutex::new(None) });
        Router::new()
            .route("/healthz", get(|| async { "alive\n" }))
            .route(READINESS, get(answer).with_state(ready))
            .route("/metrics", get(async move || prometheus(&metrics, &pools)))
    }
}

struct Ready {
    checks: Vec<(&'static str, Check)>,
    shutdown: Shutdown,
    kept: Mutex<Option<(Instant, Outcomes)>>,
}

impl Ready {
    async fn outcomes(&self) -> Outcomes {
        // Whoever comes while the checks run waits for them instead of running them too.
        let mut kept = self.kept.lock().await;
        if let Some((at, outcomes)) = &*kept
            && at.elapsed() < KEPT_FOR
        {
            return outcomes.clone();
        }
        let checks = self.checks.iter().map(|(name, check)| async move {
            let outcome = timeout(CHECK_TIMEOUT, check()).await;
            (*name, outcome.unwrap_or_else(|_| Err(format!("no answer within {} s", CHECK_TIMEOUT.as_secs()))))
        });
        let outcomes = join_all(checks).await;
        *kept = Some((Instant::now(), outcomes.clone()));
        outcomes
    }
}

async fn answer(State(ready): State<Arc<Ready>>) -> Response {
    let mut outcomes = ready.outcomes().await;
    if ready.shutdown.is_requested() {
        outcomes.push(("shutdown", Err("the process is ending".to_owned())));
    }
    let is_ready = outcomes.iter().all(|(_, outcome)| outcome.is_ok());
    let checks: serde_json::Map<String, serde_json::Value> = outcomes
        .into_iter()
        .map(|(name, outcome)| (name.to_owned(), outcome.err().unwrap_or_else(|| "ok".to_owned()).into()))
        .collect();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(serde_json::json!({"ready": is_ready, "checks": checks}))).into_response()
}

/// Sets the figures of a pool: connections that are in use now, how many there may be, and who waits for one.
#[expect(clippy::cast_precision_loss, reason = "a pool has few connections")]
pub fn report_pool(name: impl Into<String>, pool: &Pool) {
    let status = pool.status();
    let used = status.size.saturating_sub(status.available);
    let name = name.into();
    metrics::gauge!("prospectus_pool_connections_in_use", "pool" => name.clone()).set(used as f64);
    metrics::gauge!("prospectus_pool_connections_max", "pool" => name.clone()).set(status.max_size as f64);
    metrics::gauge!("prospectus_pool_waiting", "pool" => name).set(status.waiting as f64);
}

fn prometheus(metrics: &Metrics, pools: &[(&'static str, Pool)]) -> Response {
    for (name, pool) in pools {
        report_pool(*name, pool);
    }
    let mut response = metrics.render().into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}
