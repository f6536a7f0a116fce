//! One process works on an import at a time: it holds a lock of the database, over a connection that is used for nothing else and
//! whose end is the lock's end.

use std::time::Duration;

use service_kit::postgres::Database;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use uuid::Uuid;

/// How long the server may take to give the lock or to say that somebody has it.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// The right to work on one import; given up when dropped.
pub struct Lease {
    _client: Client,
    connection: JoinHandle<()>,
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another process works on it.
    #[error("another process works on it")]
    Held,
    /// The database cannot be reached, or is slow.
    #[error("no connection to the database: {0}")]
    Unavailable(String),
}

impl Lease {
    /// Takes the lease, if nobody has it.
    ///
    /// # Errors
    /// [`LeaseError::Held`], or what kept it from asking.
    pub async fn take(database: &Database, import_id: Uuid) -> Result<Self, LeaseError> {
        const SQL: &str = "-- command_service::import::lease::take
            SELECT pg_try_advisory_lock(hashtextextended('import ' || $1, 0))";
        let failed = |error: tokio_postgres::Error| LeaseError::Unavailable(service_kit::postgres::describe(&error));
        let take = async {
            let (client, connection) = database.connect().await.map_err(failed)?;
            let connection = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error = service_kit::postgres::describe(&error), "an import's lock is lost");
                }
            });
            let row = client.query_one(SQL, &[&import_id.to_string()]).await.map_err(failed)?;
            if row.get(0) { Ok(Self { _client: client, connection }) } else { Err(LeaseError::Held) }
        };
        let late = |_| Err(LeaseError::Unavailable("no answer in time".to_owned()));
        tokio::time::timeout(ANSWER_WAIT, take).await.unwrap_or_else(late)
    }

    /// Returns when the lock is lost.
    pub async fn lost(&mut self) {
        // Whether the connection's task ended or broke, the lock is gone.
        let _ = (&mut self.connection).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
