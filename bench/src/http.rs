//! Commands over HTTP: how many a second, and how long one takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::client::{Connection, made};
use crate::clock::{median_ms, rate};
use crate::results::Results;
use crate::sample;
use crate::stack::BenchStack;

/// Keep-alive connections.
pub const CONNECTIONS: usize = 64;
/// Companies that the prospects are spread over.
const COMPANIES: u64 = 200;

/// Numbers the prospects of all rounds, so that each is another person.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Bodies of registrations that name one of some companies.
pub struct Prospects {
    companies: Vec<String>,
}

impl Prospects {
    /// Registers the companies.
    ///
    /// # Errors
    /// If a command is refused.
    pub async fn new(stack: &BenchStack) -> anyhow::Result<Arc<Self>> {
        let mut connection = Connection::open(&stack.command, &stack.key).await?;
        let mut companies = Vec::new();
        for number in 0..COMPANIES {
            let answer = connection.post("/v1/companies", sample::company(number).to_string()).await?;
            companies.push(made(&answer)?.0.to_string());
        }
        Ok(Arc::new(Self { companies }))
    }

    /// One more person.
    pub fn body(&self) -> String {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let company = usize::try_from(number % COMPANIES).expect("a small number");
        sample::prospect(number, &self.companies[company]).to_string()
    }
}

/// Registrations a second on [`CONNECTIONS`] connections, with whatever else runs.
///
/// # Errors
/// If anything is refused.
pub async fn full(stack: &BenchStack, length: Duration, prospects: &Arc<Prospects>) -> anyhow::Result<f64> {
    let connections = Connection::open_many(&stack.command, &stack.key, CONNECTIONS).await?;
    rate(connections, length, |mut connection, mut turns| {
        let prospects = Arc::clone(prospects);
        async move {
            while turns.next() {
                connection.post("/v1/prospects", prospects.body()).await?;
            }
            Ok(turns)
        }
    })
    .await
}

/// Commands a second with the projector and the relay stopped, then one client's latency with everything running.
///
/// # Errors
/// If anything is refused.
pub async fn round(stack: &BenchStack, length: Duration, results: &mut Results) -> anyhow::Result<()> {
    stack.order("stop", "projector").await?;
    stack.order("stop", "relay").await?;
    let prospects = Prospects::new(stack).await?;
    let full = full(stack, length, &prospects).await?;
    results.add("append.http", "commands/s", full);
    stack.order("start", "relay").await?;
    stack.order("start", "projector").await?;

    let mut connection = Connection::open(&stack.command, &stack.key).await?;
    let (_, position) = made(&connection.post("/v1/prospects", prospects.body()).await?)?;
    Connection::open(&stack.query, &stack.key).await?.wait_for(position).await?;
    let p50 =
        median_ms(length, Duration::ZERO, async || connection.post("/v1/prospects", prospects.body()).await.map(drop))
            .await?;
    results.add("latency.http_p50", "ms", p50);
    Ok(())
}
