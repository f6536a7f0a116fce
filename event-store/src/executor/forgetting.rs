//! Forgetting a person: what goes with the event that erases one, and erasing again whom a restored backup or a promotion brings back.

use std::collections::BTreeSet;

use domain::Record;
use serde_json::Map;
use tokio_postgres::Client;
use uuid::Uuid;

use super::{ExecuteError, Executor, Request};
use crate::append::{self, Append, Forget, KeyedValue};
use crate::load::LoadError;

/// Why a person could not be forgotten once more.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError<E: std::error::Error> {
    /// The record cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The event cannot be appended.
    #[error(transparent)]
    Execute(#[from] ExecuteError<E>),
    /// The database is away or refuses.
    #[error("the database: {}", service_kit::postgres::describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// Without the key row nobody can say what the person's data were sealed under: never taken for an erasure.
    #[error("person {0} has events but no key row: restore log.person_keys first")]
    NoKeyRow(Uuid),
    /// Likewise.
    #[error("the key of person {0} is emptied, but no event says so: restore log.person_keys first")]
    NoEvent(Uuid),
}

/// What became of a person who was erased before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten {
    /// Erased now, by an event of its own.
    Erased,
    /// The event was there, and the key too: emptied once more.
    Emptied,
    /// Erased already.
    Already,
    /// Not in this log.
    Unknown,
}

impl<R: Record> Executor<R> {
    /// Adds to the append that erases a person all that the person ever held or was found by: what was released or replaced long ago is an
    /// HMAC of the person's own as well. It stands in the history, which is read while that can still be opened.
    pub(super) async fn add_past(&self, id: Uuid, append: &mut Append, request: &Request) -> Result<(), LoadError> {
        let Some(forget) = &mut append.forget else { return Ok(()) };
        (_, forget.claims, forget.matches) = self.past(id, request).await?;
        Ok(())
    }

    /// Erases a person again who was erased before, in another life of the log perhaps: by the command `erase` where no event says so, and
    /// by emptying the key where the event is there and the key has come back from a backup. `client` is the appender's, or a superuser's.
    ///
    /// # Errors
    /// See [`ForgetError`]; done again it goes on.
    pub async fn erase_again(
        &self,
        client: &Client,
        id: Uuid,
        erase: R::Command,
        request: &Request,
    ) -> Result<Forgotten, ForgetError<R::Error>> {
        const LOOK: &str = "-- event_store::executor::forgetting::erase_again
            SELECT (SELECT k.erased_position IS NOT NULL FROM log.person_keys AS k WHERE k.tenant_id = $1 AND k.person_id = $2),
                   EXISTS (SELECT FROM log.events AS e WHERE e.tenant_id = $1 AND e.aggregate_id = $2)";
        let row = client.query_one(LOOK, &[&request.tenant_id, &id]).await?;
        let (emptied, known): (Option<bool>, bool) = (row.get(0), row.get(1));
        let emptied = match (emptied, known) {
            (None, false) => return Ok(Forgotten::Unknown),
            (None, true) => return Err(ForgetError::NoKeyRow(id)),
            (Some(emptied), _) => emptied,
        };
        // From the log: what is kept in memory may be of another life of it.
        self.forget(request.tenant_id, id);
        let loaded = self.load(id, request).await?;
        match (emptied, loaded.state.is_erased()) {
            (true, true) => Ok(Forgotten::Already),
            (true, false) => Err(ForgetError::NoEvent(id)),
            (false, false) => {
                self.execute(id, erase, request, |_| Map::new()).await?;
                Ok(Forgotten::Erased)
            }
            (false, true) => {
                let (_, claims, matches) = self.past(id, request).await?;
                let forget = Forget { person: id, sequence: loaded.version, claims, matches };
                append::forget_again(client, request.tenant_id, &forget).await?;
                self.forget(request.tenant_id, id);
                Ok(Forgotten::Emptied)
            }
        }
    }

    /// What a record is, and all that it ever held and was found by.
    async fn past(&self, id: Uuid, request: &Request) -> Result<(R, Vec<KeyedValue>, Vec<KeyedValue>), LoadError> {
        let load = self.store.loader().history::<R>(request.tenant_id, id);
        let late = |_| Err(LoadError::Unavailable("no answer in time".to_owned()));
        let history = tokio::time::timeout_at(request.deadline.into(), load).await.unwrap_or_else(late)?;
        let keyring = self.store.keyring();
        let value = |kind, key: &domain::ClaimKey| KeyedValue {
            kind,
            key: keyring.claim_key(request.tenant_id, kind, key),
            aggregate_id: id,
        };
        let (mut state, mut claims, mut matches) = (R::default(), BTreeSet::new(), BTreeSet::new());
        for (_, event) in &history {
            state.evolve(event);
            claims.extend(state.claims(id));
            matches.extend(state.matches(id));
        }
        let claims = claims.iter().map(|claim| value(claim.kind, &claim.key)).collect();
        let matches = matches.iter().map(|found| value(found.kind, &found.key)).collect();
        Ok((state, claims, matches))
    }
}
