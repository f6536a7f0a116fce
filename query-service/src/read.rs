//! One read: choose a replica, ask in one transaction, and ask again where the answer cannot stand yet.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Object, Transaction};
use futures_util::TryStreamExt as _;
use service_kit::problem::Problem;
use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use tokio_postgres::{GenericClient, Row, Statement};
use uuid::Uuid;

use crate::connection::Connection;
use crate::freshness::Wanted;
use crate::problems::{ReadError, Remedy, unavailable};
use crate::replicas::{FANOUT_LOOK_EVERY, Replica, Replicas, Scope};
use crate::routes::PAGE_BYTES_MAX;

/// How often one replica is asked for one answer: a generation may change while it is read.
const ATTEMPTS_MAX: usize = 4;

/// What is asked of a replica, in one transaction.
pub(crate) trait Question: Sync {
    /// What comes out.
    type Data: Send;
    /// What a wanted position is compared with.
    const SCOPE: Scope;
    /// How long it waits between two looks where the position has come and the answer has not.
    const LOOK_EVERY: Duration = FANOUT_LOOK_EVERY;
    /// Asks, naming the tables of `generation`.
    fn ask(
        &self,
        client: &mut Object,
        generation: i32,
    ) -> impl Future<Output = Result<Snapshot<Self::Data>, ReadError>> + Send;

    /// Asks only how far an answer would be: what is asked again and again while somebody waits for one. For a question that costs
    /// no more, the question itself.
    fn ask_state(&self, client: &mut Object, generation: i32) -> impl Future<Output = Result<State, ReadError>> + Send {
        async move { Ok(self.ask(client, generation).await?.state) }
    }
}

/// How far the answer to a question would be, as a question of its own.
struct StateOf<'a, Q>(&'a Q);

impl<Q: Question> Question for StateOf<'_, Q> {
    type Data = ();
    const SCOPE: Scope = Q::SCOPE;
    const LOOK_EVERY: Duration = Q::LOOK_EVERY;

    async fn ask(&self, client: &mut Object, generation: i32) -> Result<Snapshot<()>, ReadError> {
        Ok(Snapshot { state: self.0.ask_state(client, generation).await?, data: () })
    }
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

impl State {
    /// How far the log is, in this transaction's snapshot.
    pub(crate) async fn of_log(transaction: &Transaction<'_>) -> Result<Self, tokio_postgres::Error> {
        const SQL: &str = "-- query_service::read::State::of_log
            SELECT h.position, h.epoch FROM log.head AS h";
        let head = transaction.query_one(&transaction.prepare_cached(SQL).await?, &[]).await?;
        let epoch = head.try_get::<_, Option<String>>(1)?.unwrap_or_default();
        Ok(Self { generation: None, position: head.try_get(0)?, epoch })
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

/// The rows of a page as far as its bytes go, and whether there were more. What follows is thrown away as it comes, so that a page of
/// large records takes no more memory than one of small ones.
pub(crate) async fn query_bounded(
    client: &impl GenericClient,
    statement: &Statement,
    values: &[&(dyn ToSql + Sync)],
) -> Result<(Vec<Row>, bool), tokio_postgres::Error> {
    let stream = client.query_raw(statement, values.iter().copied()).await?;
    let mut stream = pin!(stream);
    let mut rows: Vec<Row> = Vec::new();
    let mut bytes = 0;
    while let Some(row) = stream.try_next().await? {
        bytes += row.raw_size_bytes();
        if bytes > PAGE_BYTES_MAX && !rows.is_empty() {
            return Ok((rows, true));
        }
        rows.push(row);
    }
    Ok((rows, false))
}

impl Replicas {
    /// Asks until the answer includes what is wanted, within the time that the client gives.
    pub(crate) async fn read<Q: Question>(&self, question: &Q, wanted: &Wanted) -> Result<Snapshot<Q::Data>, Problem> {
        let deadline = Instant::now() + wanted.wait;
        let mut tried: Vec<Arc<Replica>> = Vec::new();
        // Once an answer was too old, only how far the next one would be is asked for, until it is far enough.
        let mut only_state = false;
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
            let asked = if only_state {
                ask(&replica, &StateOf(question), wanted).await.map(|answer| answer.map(|saw| (saw.state, None)))
            } else {
                ask(&replica, question, wanted).await.map(|answer| answer.map(|saw| (saw.state, Some(saw.data))))
            };
            let (state, data) = match asked {
                Ok(answer) => answer?,
                Err(error) if error.remedy() == Remedy::OtherReplica => {
                    replica.mark_bad();
                    tried.push(replica);
                    continue;
                }
                Err(error) => return Err(error.into_problem()),
            };
            if state.position >= wanted.position {
                match data {
                    Some(data) => return Ok(Snapshot { state, data }),
                    None => only_state = false,
                }
                continue;
            }
            if Instant::now() >= deadline {
                return Err(wanted.not_fresh(&state));
            }
            only_state = true;
            self.wait_for(Q::SCOPE, wanted.position, Q::LOOK_EVERY, deadline).await;
            // Whoever failed before may be well again.
            tried.clear();
        }
    }
}

/// Asks one replica. The inner error is the client's.
async fn ask<Q: Question>(
    replica: &Arc<Replica>,
    question: &Q,
    wanted: &Wanted,
) -> Result<Result<Snapshot<Q::Data>, Problem>, ReadError> {
    let mut connection = Connection::take(replica, &replica.pool).await?;
    // Given up while it is asked, by the client or because the replica is lost, the connection ends what runs on it.
    let asked = tokio::select! {
        asked = ask_over(connection.client(), replica, question, wanted) => asked,
        () = replica.lost() => return Err(ReadError::Lost),
    };
    connection.give_back();
    asked
}

/// Asks over one connection, again where the live generation changed meanwhile.
async fn ask_over<Q: Question>(
    client: &mut Object,
    replica: &Replica,
    question: &Q,
    wanted: &Wanted,
) -> Result<Result<Snapshot<Q::Data>, Problem>, ReadError> {
    let mut last = None;
    for _ in 0..ATTEMPTS_MAX {
        let generation = replica.generation();
        match question.ask(client, generation).await {
            Ok(snapshot) if snapshot.state.generation.is_none_or(|live| live == generation) => {
                let reached = snapshot.state.position >= wanted.position;
                return Ok(wanted.check_epoch(&***client, reached).await?.map(|()| snapshot));
            }
            Ok(snapshot) => {
                replica.set_generation(snapshot.state.generation.unwrap_or(0));
                // A statement that names the old tables may fail at its next use; the pool's cache is of this connection only.
            }
            Err(error) => match error.remedy() {
                Remedy::Again => last = Some(error),
                Remedy::OtherGeneration => {
                    replica.set_generation(live_generation(client).await?);
                    last = Some(error);
                }
                Remedy::OtherReplica | Remedy::GiveUp => return Err(error),
            },
        }
    }
    tracing::warn!(error = last.map(|error| error.to_string()), "a read found no generation that stayed live");
    Ok(Err(unavailable()))
}

async fn live_generation(client: &Object) -> Result<i32, ReadError> {
    const SQL: &str = "-- query_service::read::live_generation
        SELECT l.generation FROM read.live AS l WHERE l.projection = 'company_prospect'";
    client.query_opt(SQL, &[]).await?.map(|row| row.get(0)).ok_or(ReadError::NoGeneration)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use migrations::testing::TestDatabase;
    use service_kit::shutdown::Shutdown;

    use super::*;

    /// A question whose answers have a change on its way until it was looked at often enough.
    #[derive(Default)]
    struct OnItsWay {
        asked: AtomicUsize,
        looked: AtomicUsize,
    }

    const LOOKS: usize = 5;

    impl OnItsWay {
        fn state(&self) -> State {
            let position = if self.looked.load(Ordering::Relaxed) < LOOKS { 5 } else { 9 };
            State { generation: None, position, epoch: String::new() }
        }
    }

    impl Question for OnItsWay {
        type Data = ();
        const SCOPE: Scope = Scope::ReadTables;

        async fn ask(&self, _: &mut Object, _: i32) -> Result<Snapshot<()>, ReadError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Ok(Snapshot { state: self.state(), data: () })
        }

        async fn ask_state(&self, _: &mut Object, _: i32) -> Result<State, ReadError> {
            self.looked.fetch_add(1, Ordering::Relaxed);
            Ok(self.state())
        }
    }

    #[tokio::test]
    async fn who_waits_asks_the_whole_question_only_before_and_after() {
        let database = TestDatabase::new().await;
        let applied = "INSERT INTO read.checkpoint_steps (projection, generation, step, position, epoch)
            SELECT 'company_prospect', 1, max(step) + 1, 9, '' FROM read.checkpoint_steps";
        database.superuser().await.batch_execute(applied).await.expect("a step");
        let (_trigger, shutdown) = Shutdown::new();
        let url = database.url_for("prospectus_query");
        let replicas = Replicas::open(&[&url], None, false, 1, &shutdown).await.expect("a URL");
        let question = OnItsWay::default();
        let wanted = Wanted { position: 9, epoch: None, wait: Duration::from_secs(30) };
        let answer = replicas.read(&question, &wanted).await.expect("it comes");
        assert_eq!(answer.state.position, 9);
        assert_eq!(question.asked.load(Ordering::Relaxed), 2);
        assert_eq!(question.looked.load(Ordering::Relaxed), LOOKS);
    }
}
