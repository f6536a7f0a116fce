//! Connections that end with whoever opened them.

use service_kit::postgres::Database;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Error};

/// One connection, driven by `driven`. Where a server does not answer any more a connection would outlive its client, waiting for what
/// was asked; dropping `driven` ends it.
///
/// # Errors
/// What the server or the network said.
pub(crate) async fn connect(database: &Database, driven: &mut JoinSet<()>) -> Result<Client, Error> {
    let (client, connection) = database.connect().await?;
    driven.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to PostgreSQL ended");
        }
    });
    Ok(client)
}
