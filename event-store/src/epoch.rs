//! Epochs: each life of the log has a name (decision 9).

use std::sync::Arc;

use tokio_postgres::{GenericClient, Row, Transaction};

/// One life of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// 1, 2, 3, ...
    pub number: i64,
    /// What answers and consumers carry: the number, a dot, eight digits of a random id.
    pub name: Arc<str>,
    /// Positions from here on belong to it.
    pub first_position: i64,
}

impl Epoch {
    /// Reads a row of `number, name, first_position`.
    fn from_row(row: &Row) -> Self {
        Self { number: row.get(0), name: row.get::<_, &str>(1).into(), first_position: row.get(2) }
    }

    /// The newest epoch; none before the first append.
    ///
    /// # Errors
    /// What the database said.
    pub async fn newest(client: &impl GenericClient) -> Result<Option<Self>, tokio_postgres::Error> {
        const SQL: &str = "-- event_store::epoch::newest
            SELECT number, name, first_position FROM log.epochs ORDER BY number DESC LIMIT 1";
        Ok(client.query_opt(SQL, &[]).await?.as_ref().map(Self::from_row))
    }

    /// Whether `position` of the epoch called `name` is in this log's past or present: the epoch is one of the log's, and no later
    /// epoch has used the position again.
    ///
    /// # Errors
    /// What the database said.
    pub async fn is_past(
        client: &impl GenericClient,
        name: &str,
        position: i64,
    ) -> Result<bool, tokio_postgres::Error> {
        const SQL: &str = "-- event_store::epoch::is_past
            SELECT NOT EXISTS (SELECT FROM log.epochs AS later WHERE later.number > e.number AND later.first_position <= $2)
            FROM log.epochs AS e WHERE e.name = $1";
        Ok(client.query_opt(SQL, &[&name, &position]).await?.is_some_and(|row| row.get(0)))
    }
}

/// The newest epoch on the server that `client` is connected to, which must take writes; another life than the newest row's is
/// written down first. The caller holds the log's lock.
///
/// # Errors
/// What the database said.
pub(crate) async fn current(client: &impl GenericClient) -> Result<Epoch, tokio_postgres::Error> {
    const BEGIN: &str = "-- event_store::epoch::current
        WITH server AS (
            SELECT s.system_identifier,
                   ('x' || lpad(left(pg_walfile_name(pg_current_wal_lsn()), 8), 16, '0'))::bit(64)::bigint AS timeline
            FROM pg_control_system() AS s
        ), newest AS (
            SELECT number, system_identifier, timeline FROM log.epochs ORDER BY number DESC LIMIT 1
        )
        INSERT INTO log.epochs (number, epoch_id, first_position, system_identifier, timeline)
        SELECT coalesce(newest.number, 0) + 1, gen_random_uuid(),
               coalesce((SELECT position FROM log.events ORDER BY position DESC LIMIT 1), 0) + 1,
               server.system_identifier, server.timeline
        FROM server LEFT JOIN newest ON true
        WHERE newest.number IS NULL
           OR (newest.system_identifier, newest.timeline) <> (server.system_identifier, server.timeline)";
    client.execute(BEGIN, &[]).await?;
    Ok(Epoch::newest(client).await?.expect("the statement before has written one where there was none"))
}

/// Begins another life of the log on the server that `transaction` is on, under the log's lock, after what is appended already; for
/// a server whose disk went back in time, which nobody else can notice. The caller commits.
///
/// # Errors
/// What the database said.
pub async fn begin(transaction: &Transaction<'_>) -> Result<Epoch, tokio_postgres::Error> {
    const BEGIN: &str = "-- event_store::epoch::begin
        INSERT INTO log.epochs (number, epoch_id, first_position, system_identifier, timeline)
        SELECT coalesce((SELECT max(e.number) FROM log.epochs AS e), 0) + 1, gen_random_uuid(),
               coalesce((SELECT e.position FROM log.events AS e ORDER BY e.position DESC LIMIT 1), 0) + 1,
               s.system_identifier,
               ('x' || lpad(left(pg_walfile_name(pg_current_wal_lsn()), 8), 16, '0'))::bit(64)::bigint
        FROM pg_control_system() AS s
        RETURNING number, name, first_position";
    // Under the log's lock, and in a later statement, so that no append slips in between the position read and the row.
    transaction.batch_execute("SELECT log.take_lock()").await?;
    Ok(Epoch::from_row(&transaction.query_one(BEGIN, &[]).await?))
}
