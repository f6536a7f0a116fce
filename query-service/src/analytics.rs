//! What is counted (decision 0012): metrics, trends and reports, as tables. They are read from functions of the live generation that add the
//! tenant themselves, for materialized views have no row-level security, and say which position they include.
//!
//! How to add a report: its line in [`report::Report`], and what it reads.

pub(crate) mod filters;
pub(crate) mod metrics;
pub(crate) mod report;
pub(crate) mod table;
pub(crate) mod trends;

use std::time::Duration;

use deadpool_postgres::{Object, Transaction};
use service_kit::problem::{Code, Problem};
use time::OffsetDateTime;
use tokio_postgres::IsolationLevel;
use uuid::Uuid;

use crate::problems::ReadError;
use crate::read::{BIND_TENANT, Question, Snapshot, State, tenant_text};
use crate::replicas::Scope;
use filters::Filters;
use metrics::Metrics;
use report::Report;
use table::Table;
use trends::Trends;

/// Since when the numbers are known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AsOf {
    pub(crate) made_at: OffsetDateTime,
}

/// A table and when it was made, or what the client is told instead.
pub(crate) type Answer = Result<(AsOf, Table), Problem>;

/// What is asked for.
pub(crate) enum Wish {
    Metrics(Metrics),
    Trends(Trends),
    Report(Report),
}

/// Numbers of a tenant.
pub(crate) struct Numbers {
    pub(crate) tenant: Uuid,
    pub(crate) filters: Filters,
    pub(crate) wish: Wish,
}

impl Question for Numbers {
    type Data = Answer;
    const SCOPE: Scope = Scope::ReadTables;
    // They are refreshed every few seconds at most.
    const LOOK_EVERY: Duration = Duration::from_millis(500);

    async fn ask(&self, client: &mut Object, generation: i32) -> Result<Snapshot<Answer>, ReadError> {
        let schema = migrations::schema_name(generation);
        let transaction =
            client.build_transaction().read_only(true).isolation_level(IsolationLevel::RepeatableRead).start().await?;
        let bind = transaction.prepare_cached(BIND_TENANT).await?;
        transaction.query(&bind, &[&tenant_text(self.tenant)]).await?;
        let (state, as_of) = as_of(&transaction, &schema).await?;
        let data = match as_of {
            Ok(as_of) => self.table(&transaction, &schema, as_of).await?.map(|table| (as_of, table)),
            Err(problem) => Err(problem),
        };
        transaction.commit().await?;
        Ok(Snapshot { state, data })
    }

    async fn ask_state(&self, client: &mut Object, generation: i32) -> Result<State, ReadError> {
        let transaction = client.build_transaction().read_only(true).start().await?;
        let (state, _) = as_of(&transaction, &migrations::schema_name(generation)).await?;
        transaction.commit().await?;
        Ok(state)
    }
}

impl Numbers {
    async fn table(
        &self,
        transaction: &Transaction<'_>,
        schema: &str,
        as_of: AsOf,
    ) -> Result<Result<Table, Problem>, ReadError> {
        match &self.wish {
            Wish::Metrics(metrics) => metrics.ask(transaction, schema, &self.filters).await.map(Ok),
            Wish::Trends(trends) => trends.ask(transaction, schema, &self.filters, as_of).await,
            Wish::Report(report) => report.ask(transaction, schema, &self.filters).await.map(Ok),
        }
    }
}

/// How far the numbers are: the position that they include, which is not the one that the read tables have reached.
async fn as_of(transaction: &Transaction<'_>, schema: &str) -> Result<(State, Result<AsOf, Problem>), ReadError> {
    let sql = format!(
        "-- query_service::analytics::as_of
        SELECT l.generation, s.position, s.epoch, NULL::bigint, s.made_at,
               (SELECT c.position FROM read.checkpoint_steps AS c
                WHERE c.projection = l.projection AND c.generation = l.generation ORDER BY c.step DESC LIMIT 1)
        FROM read.live AS l LEFT JOIN {schema}.own_stats_as_of() AS s ON true WHERE l.projection = 'company_prospect'"
    );
    let statement = transaction.prepare_cached(&sql).await?;
    let row = transaction.query_opt(&statement, &[]).await?.ok_or(ReadError::NoGeneration)?;
    let state = State::from_row(&row)?;
    let made_at: Option<OffsetDateTime> = row.try_get(4)?;
    let applied = row.try_get::<_, Option<i64>>(5)?.unwrap_or(0);
    // Of tables that were filled and never counted no number would be right.
    let as_of = match made_at {
        Some(made_at) if state.position > 0 || applied == 0 => Ok(AsOf { made_at }),
        _ => Err(state.describe(Problem::new(
            Code::NotFresh,
            "nothing was counted yet; the projector does so within PROSPECTUS_REFRESH_SECONDS of the first event",
        ))),
    };
    Ok((state, as_of))
}
