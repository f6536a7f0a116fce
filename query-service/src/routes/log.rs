//! `/v1/log`: what the log is proven with. Heads and hashes are about the whole log, of all tenants, and tell nothing of an event; the
//! event itself comes with its proof only where it is the asking tenant's own.

pub(super) mod consistency;
pub(super) mod heads;
pub(super) mod inclusion;

use deadpool_postgres::{Object, Transaction};
use event_store::proof::SignedHead;
use event_store::proof::heads::{HeadsError, Life, lives, newest, of_size, successor};
use event_store::proof::stored::StoredError;
use service_kit::problem::{Code, Problem};
use tokio_postgres::IsolationLevel;

use crate::problems::ReadError;
use crate::read::State;

/// What a question about the tree came to: an answer, or what the client is told instead.
type Answer<T> = Result<T, Problem>;

impl From<HeadsError> for ReadError {
    fn from(error: HeadsError) -> Self {
        match error {
            HeadsError::Database(error) => Self::Database(error),
            HeadsError::Form(number) => Self::Proof(format!("the signed head {number} is not of its form")),
        }
    }
}

impl From<StoredError> for ReadError {
    fn from(error: StoredError) -> Self {
        match error {
            StoredError::Database(error) => Self::Database(error),
            missing @ StoredError::Missing { .. } => Self::Proof(missing.to_string()),
        }
    }
}

/// One snapshot, and how far the log is in it.
async fn snapshot(client: &mut Object) -> Result<(Transaction<'_>, State), ReadError> {
    const HEAD: &str = "-- query_service::routes::log::snapshot
        SELECT h.position, h.epoch FROM log.head AS h";
    let transaction =
        client.build_transaction().read_only(true).isolation_level(IsolationLevel::RepeatableRead).start().await?;
    let head = transaction.query_one(&transaction.prepare_cached(HEAD).await?, &[]).await?;
    let epoch = head.try_get::<_, Option<String>>(1)?.unwrap_or_default();
    let state = State { generation: None, position: head.try_get(0)?, epoch };
    Ok((transaction, state))
}

/// The size that is asked for, else the newest head's, and the head of that size, if there is one over this life of the log.
async fn tree(
    transaction: &Transaction<'_>,
    size: Option<i64>,
) -> Result<Answer<(u64, Option<SignedHead>)>, ReadError> {
    let Some(newest) = newest(&**transaction).await? else {
        return Ok(Err(Problem::new(Code::NotFound, "no head is signed yet, so nothing can be proven; try again")));
    };
    let newest = newest.signed;
    let lives = lives(&**transaction).await?;
    if let Some(life) = successor(&lives, &newest.head) {
        let detail = format!(
            "the tail that the newest head covers was lost with epoch {}, and none is signed over this one yet; try again",
            life.name
        );
        return Ok(Err(Problem::new(Code::NotFound, detail)));
    }
    let largest = newest.head.tree_size;
    let Some(size) = size.and_then(|size| u64::try_from(size).ok()) else { return Ok(Ok((largest, Some(newest)))) };
    if size > largest {
        let detail = format!("the newest head covers {largest} events, not {size} yet; try again");
        return Ok(Err(Problem::new(Code::NotFound, detail)));
    }
    Ok(Ok((size, head_of(transaction, size, &lives).await?)))
}

/// The newest head of exactly this size over this life of the log: hashes are given of this life alone, and lead to no other's root.
async fn head_of(transaction: &Transaction<'_>, size: u64, lives: &[Life]) -> Result<Option<SignedHead>, ReadError> {
    let head = of_size(&**transaction, size).await?.map(|head| head.signed);
    Ok(head.filter(|head| successor(lives, &head.head).is_none()))
}
