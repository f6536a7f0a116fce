//! A connection while it is asked. One that is given up in the middle of a statement does not go back to the pool: the statement
//! would go on there, and whoever got the connection next would wait behind it.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Object, Pool, PoolError};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::problems::ReadError;
use crate::replicas::Replica;

/// How long one request to cancel may take, and after it the server's answer that the statement is over.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the cancelling is tried: a request that comes between two statements of a transaction cancels neither.
const CANCELS_MAX: usize = 3;

/// A connection of a pool, with a statement of ours in flight until it is given back.
pub(crate) struct Connection<'a> {
    replica: &'a Arc<Replica>,
    /// None once it was given back.
    object: Option<Object>,
}

impl<'a> Connection<'a> {
    /// Takes a connection from one of the replica's pools.
    pub(crate) async fn take(replica: &'a Arc<Replica>, pool: &Pool) -> Result<Self, ReadError> {
        match pool.get().await {
            Ok(object) => Ok(Self { replica, object: Some(object) }),
            Err(PoolError::Timeout(deadpool_postgres::TimeoutType::Wait)) => Err(ReadError::Busy),
            Err(PoolError::Backend(error)) if error.code().is_some() => Err(ReadError::Database(error)),
            Err(_) => Err(ReadError::Lost),
        }
    }

    pub(crate) fn client(&mut self) -> &mut Object {
        self.object.as_mut().expect("only giving it back takes it, and that consumes the connection")
    }

    /// Everything that was asked was answered: the next may have the connection.
    pub(crate) fn give_back(mut self) {
        self.object = None;
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        // Without a runtime the process is at its end, and its connections with it.
        if let (Some(object), Ok(runtime)) = (self.object.take(), Handle::try_current()) {
            runtime.spawn(end(object, Arc::clone(self.replica)));
        }
    }
}

/// Cancels what runs on a connection and closes it. Until then it keeps its place in the pool, so that a replica never has many more
/// connections than are configured, however many clients hang up.
async fn end(object: Object, replica: Arc<Replica>) {
    let token = object.cancel_token();
    for _ in 0..CANCELS_MAX {
        // Whether it worked shows in whether the connection answers.
        let _ = timeout(CANCEL_TIMEOUT, replica.database.cancel(&token)).await;
        if timeout(CANCEL_TIMEOUT, object.batch_execute("-- query_service::connection::end")).await.is_ok() {
            break;
        }
    }
    // A request to cancel that arrives late must not meet another's statement.
    drop(Object::take(object));
}
