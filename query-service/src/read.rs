//! One read: choose a replica, ask in one transaction, and ask again where the answer cannot stand yet.

use std::future::Future;
use std::sync::Arc;

use deadpool_postgres::{Object, PoolError};
use service_kit::problem::Problem;
use tokio::time::Instant;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::freshness::Wanted;
use crate::problems::{ReadError, Remedy, unavailable};
use crate::replicas::{Replica, Replicas, Scope};

/// How often one replica is asked for one answer: a generation may change while it is read.
const ATTEMPTS_MAX: usize = 4;

/// What is asked of a replica, in one transaction.
pub(crate) trait Question: Sync {
    /// What comes out.
    type Data: Send;
    /// What a wanted position is compared with.
    const SCOPE: Scope;
    /// Asks, naming the tables of `generation`.
    fn ask(
        &self,
        client: &mut Object,
        generation: i32,
    ) -> impl Future<Output = Result<Snapshot<Self::Data>, ReadError>> + Send;
}

/// What one transaction saw.
#[derive(Debug)]
pub(crate) struct Snapshot<T> {
    /// How far what it saw was, and which generation was live.
    pub(crate) state: State,
    /// What was asked for.
    pub(crate) data: T,
}

/// How far a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    /// The live generation; none before there is one, or where no read table was read.
    pub(crate) generation: Option<i32>,
    /// Every event up to here is in the answer.
    pub(crate) position: i64,
    /// The epoch that this position is of; empty before the first append.
    pub(crate) epoch: String,
}

impl State {
    /// Reads the columns generation, position, epoch and least queued position, which a row begins with.
    pub(crate) fn from_row(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let applied = row.try_get::<_, Option<i64>>(1)?.unwrap_or(0);
        let queued: Option<i64> = row.try_get(3)?;
        Ok(Self {
            generation: row.try_get(0)?,
            position: queued.map_or(applied, |queued| applied.min(queued - 1)),
            epoch: row.try_get::<_, Option<String>>(2)?.unwrap_or_default(),
        })
    }
}

/// Binds the transaction to a tenant, for row-level security.
pub(crate) const BIND_TENANT: &str = "-- query_service::read::bind_tenant
    SELECT set_config('prospectus.tenant', $1 /* tenant */, true)";

/// Opens a transaction of one statement and binds it to a tenant, in one message: a setting has no parameters, and a UUID's text
/// can hold nothing but digits and hyphens. Cheaper than a statement of its own, on the path where that counts.
pub(crate) fn begin_bound(tenant: Uuid) -> String {
    format!("BEGIN READ ONLY; SET LOCAL prospectus.tenant = '{}'", tenant.hyphenated())
}

/// The tenant as the setting holds it.
pub(crate) fn tenant_text(tenant: Uuid) -> String {
    tenant.hyphenated().to_string()
}

impl Replicas {
    /// Asks until the answer includes what is wanted, within the time that the client gives.
    pub(crate) async fn read<Q: Question>(&self, question: &Q, wanted: &Wanted) -> Result<Snapshot<Q::Data>, Problem> {
        let deadline = Instant::now() + wanted.wait;
        let mut tried: Vec<Arc<Replica>> = Vec::new();
        loop {
            let Some(replica) = self.choose(&tried, Q::SCOPE, wanted.position) else {
                if Instant::now() >= deadline {
                    return Err(unavailable());
                }
                // One that is being started again, or taken over by another, is back within the time that clients wait.
                self.wait_for_any(deadline).await;
                tried.clear();
                continue;
            };
            let snapshot = match ask(&replica, question, wanted).await {
                Ok(snapshot) => snapshot?,
                Err(error) if error.remedy() == Remedy::OtherReplica => {
                    replica.mark_bad();
                    tried.push(replica);
                    continue;
                }
                Err(error) => return Err(error.into_problem()),
            };
            if snapshot.state.position >= wanted.position {
                return Ok(snapshot);
            }
            if Instant::now() >= deadline {
                return Err(wanted.not_fresh(snapshot.state.position));
            }
            self.wait_for(Q::SCOPE, wanted.position, deadline).await;
            // Whoever failed before may be well again.
            tried.clear();
        }
    }
}

/// Asks one replica, again where its live generation changed meanwhile. The inner error is the client's.
async fn ask<Q: Question>(
    replica: &Replica,
    question: &Q,
    wanted: &Wanted,
) -> Result<Result<Snapshot<Q::Data>, Problem>, ReadError> {
    let mut client = connection(replica).await?;
    let mut last = None;
    for _ in 0..ATTEMPTS_MAX {
        let generation = replica.generation();
        let asked = tokio::select! {
            asked = question.ask(&mut client, generation) => asked,
            () = replica.lost() => return Err(ReadError::Lost),
        };
        match asked {
            Ok(snapshot) if snapshot.state.generation.is_none_or(|live| live == generation) => {
                let reached = snapshot.state.position >= wanted.position;
                return Ok(wanted.check_epoch(&**client, reached).await?.map(|()| snapshot));
            }
            Ok(snapshot) => {
                replica.set_generation(snapshot.state.generation.unwrap_or(0));
                // A statement that names the old tables may fail at its next use; the pool's cache is of this connection only.
            }
            Err(error) => match error.remedy() {
                Remedy::Again => last = Some(error),
                Remedy::OtherGeneration => {
                    replica.set_generation(live_generation(&client).await?);
                    last = Some(error);
                }
                Remedy::OtherReplica | Remedy::GiveUp => return Err(error),
            },
        }
    }
    tracing::warn!(error = last.map(|error| error.to_string()), "a read found no generation that stayed live");
    Ok(Err(unavailable()))
}

async fn connection(replica: &Replica) -> Result<Object, ReadError> {
    replica.pool.get().await.map_err(|error| match error {
        PoolError::Timeout(deadpool_postgres::TimeoutType::Wait) => ReadError::Busy,
        PoolError::Backend(error) if error.code().is_some() => ReadError::Database(error),
        _ => ReadError::Lost,
    })
}

async fn live_generation(client: &Object) -> Result<i32, ReadError> {
    const SQL: &str = "-- query_service::read::live_generation
        SELECT l.generation FROM read.live AS l WHERE l.projection = 'company_prospect'";
    Ok(client.query_opt(SQL, &[]).await?.map_or(0, |row| row.get(0)))
}
