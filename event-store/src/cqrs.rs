//! The log as a `cqrs_es::EventStore` (decision 4): a cqrs-es user's `CqrsFramework` runs on it as it stands.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cqrs_es::{AggregateContext, AggregateError, EventEnvelope, EventStore};
use domain::Record;
use uuid::Uuid;

use crate::append::Refused;
use crate::event::Metadata;
use crate::executor::{ExecuteError, Executor, Request};
use crate::load::{LoadError, Loaded};
use crate::store::Store;

/// How long a commit may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The records of one sort of one tenant.
pub struct CqrsStore<R: Record> {
    store: Store,
    executor: Arc<Executor<R>>,
    tenant_id: Uuid,
}

/// A loaded record on its way to a commit.
pub struct CqrsContext<R: Record> {
    id: Uuid,
    loaded: Loaded<R>,
}

impl<R: Record> CqrsStore<R> {
    /// The records of sort `R` of one tenant.
    pub fn new(store: Store, tenant_id: Uuid) -> Self {
        let executor = Arc::new(Executor::new(store.clone(), 0));
        Self { store, executor, tenant_id }
    }
}

impl<R: Record> AggregateContext<R> for CqrsContext<R> {
    fn aggregate(&mut self) -> &mut R {
        &mut self.loaded.state
    }
}

impl<R: Record> EventStore<R> for CqrsStore<R> {
    type AC = CqrsContext<R>;

    /// The events of one record. Their metadata is not loaded with them: it stands in `log.cqrs_events`.
    async fn load_events(&self, aggregate_id: &str) -> Result<Vec<EventEnvelope<R>>, AggregateError<R::Error>> {
        let id = parse(aggregate_id)?;
        let history = self.store.loader().history::<R>(self.tenant_id, id).await.map_err(unexpected)?;
        Ok(history
            .into_iter()
            .map(|(sequence, payload)| EventEnvelope {
                aggregate_id: aggregate_id.to_owned(),
                sequence: usize::try_from(sequence).expect("log.events checks that sequence is at least 1"),
                payload,
                metadata: HashMap::new(),
            })
            .collect())
    }

    async fn load_aggregate(&self, aggregate_id: &str) -> Result<CqrsContext<R>, AggregateError<R::Error>> {
        let id = parse(aggregate_id)?;
        let loaded = self.store.loader().load(self.tenant_id, id).await.map_err(unexpected)?;
        Ok(CqrsContext { id, loaded })
    }

    async fn commit(
        &self,
        events: Vec<R::Event>,
        context: CqrsContext<R>,
        metadata: HashMap<String, String>,
    ) -> Result<Vec<EventEnvelope<R>>, AggregateError<R::Error>> {
        let CqrsContext { id, loaded } = context;
        let from = |name: &str, otherwise: &str| metadata.get(name).map_or(otherwise, String::as_str).to_owned();
        let request_id = Uuid::now_v7().to_string();
        let request = Request {
            tenant_id: self.tenant_id,
            metadata: Metadata {
                actor: from("actor", "cqrs"),
                actor_role: from("actor_role", "writer"),
                correlation_id: from("correlation_id", &request_id),
                causation_id: metadata.get("causation_id").cloned(),
                request_id,
                source: from("source", "cqrs"),
                client_address: None,
            },
            receipt: None,
            if_match: None,
            deadline: Instant::now() + DEADLINE,
            patient: true,
        };
        let version = loaded.version;
        self.executor.append_decided(id, &loaded, events.clone(), &request).await.map_err(|error| match error {
            ExecuteError::Refused(Refused::Conflict) => AggregateError::AggregateConflict,
            ExecuteError::Domain(error) => AggregateError::UserError(error),
            other => AggregateError::UnexpectedError(other.to_string().into()),
        })?;
        Ok((version + 1..)
            .zip(events)
            .map(|(sequence, payload)| EventEnvelope {
                aggregate_id: id.to_string(),
                sequence: usize::try_from(sequence).expect("sequences count from 1"),
                payload,
                metadata: metadata.clone(),
            })
            .collect())
    }
}

fn parse<E: std::error::Error>(aggregate_id: &str) -> Result<Uuid, AggregateError<E>> {
    aggregate_id.parse().map_err(|error: uuid::Error| AggregateError::UnexpectedError(error.into()))
}

fn unexpected<E: std::error::Error>(error: LoadError) -> AggregateError<E> {
    match error {
        LoadError::Unavailable(_) => AggregateError::DatabaseConnectionError(error.into()),
        LoadError::Read(_) | LoadError::Key(_) => AggregateError::UnexpectedError(error.into()),
    }
}
