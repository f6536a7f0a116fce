//! Loading records, many at a time: requests that arrive while a query runs share the next one (decision 3).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{Record, RecordEvent as _};
use futures_util::join;
use service_kit::postgres::{Database, describe};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};
use uuid::Uuid;

use crate::json_text::JsonText;
use crate::keyring::{KeyError, Keyring, PersonKey};
use crate::seal::{self, PersonKeyState, ReadEventError};

/// Most records in one query.
const BATCH_RECORDS_MAX: usize = 128;
/// Requests that may wait; more wait at the door, within the command's deadline.
const QUEUE_MAX: usize = 1_024;
/// Connections that load.
const CONNECTIONS: usize = 2;
/// Attempts when a connection breaks.
const ATTEMPTS: usize = 3;
/// How often it is looked again because a person of the batch was erased meanwhile.
const LOOKS: usize = 5;
/// How long the server may take over one query, or to make a connection ready.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// A record as the log has it.
#[derive(Debug, Clone)]
pub struct Loaded<R> {
    /// Its state; the default where there is no such record.
    pub state: R,
    /// Sequence of its last event; 0 where there is none.
    pub version: i64,
    /// Position of its last event; 0 where there is none.
    pub position: i64,
    /// Name of the log's epoch when it was read.
    pub epoch: Arc<str>,
    pub(crate) key: Option<PersonKeyHeld>,
}

/// A person's key, kept out of debug output.
#[derive(Clone)]
pub(crate) struct PersonKeyHeld(pub(crate) PersonKey);

impl std::fmt::Debug for PersonKeyHeld {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("PersonKeyHeld")
    }
}

/// Why a record could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The database is away.
    #[error("the database cannot be reached: {0}")]
    Unavailable(String),
    /// An event cannot be read.
    #[error(transparent)]
    Read(#[from] ReadEventError),
    /// A person's key cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
}

const EVENTS: &str = "-- event_store::load, events
    SELECT n.ordinality, e.sequence, e.position, e.event_id, e.event_type, e.event_version, e.payload
    FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS n (tenant_id, aggregate_id, ordinality)
    CROSS JOIN LATERAL (
        SELECT * FROM log.events AS e
        WHERE e.tenant_id = n.tenant_id AND e.aggregate_id = n.aggregate_id
        ORDER BY e.sequence
    ) AS e
    WHERE e.aggregate_type = $3";

const KEYS: &str = "-- event_store::load, keys
    SELECT n.ordinality, k.wrapping_key_id, k.wrapped_key, k.erased_position
    FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS n (tenant_id, person_id, ordinality)
    JOIN log.person_keys AS k USING (tenant_id, person_id)";

const EPOCH: &str = "-- event_store::load, epoch
    SELECT name FROM log.epochs ORDER BY number DESC LIMIT 1";

struct Request {
    tenant: Uuid,
    aggregate: Uuid,
    aggregate_type: &'static str,
    personal: bool,
    reply: oneshot::Sender<Result<Raw, String>>,
}

/// The rows of one record.
struct Raw {
    events: Vec<Row>,
    key: Option<Row>,
    epoch: Arc<str>,
}

/// Loads records.
#[derive(Clone)]
pub struct Loader {
    queue: mpsc::Sender<Request>,
    keyring: Arc<Keyring>,
}

impl Loader {
    /// Starts the loading tasks, which end when the last clone of the loader is dropped, or by a panic.
    pub fn start(database: &Database, keyring: Arc<Keyring>) -> (Self, JoinSet<()>) {
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let requests = Arc::new(Mutex::new(requests));
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let task = Task {
                database: database.clone().read_write().with_option("plan_cache_mode", "force_generic_plan"),
                requests: Arc::clone(&requests),
                session: None,
            };
            tasks.spawn(task.run());
        }
        (Self { queue, keyring }, tasks)
    }

    /// Loads one record of a tenant. A record that is not there comes back in its default state with version 0.
    ///
    /// # Errors
    /// If the database is away or slow, or what it holds cannot be read.
    pub async fn load<R: Record>(&self, tenant: Uuid, aggregate: Uuid) -> Result<Loaded<R>, LoadError> {
        let raw = self.raw::<R>(tenant, aggregate).await?;
        self.fold(tenant, aggregate, &raw)
    }

    /// The events of one record with their sequences, opened.
    ///
    /// # Errors
    /// If the database is away or what it holds cannot be read.
    pub async fn history<R: Record>(&self, tenant: Uuid, aggregate: Uuid) -> Result<Vec<(i64, R::Event)>, LoadError> {
        let raw = self.raw::<R>(tenant, aggregate).await?;
        let key = self.key(tenant, aggregate, &raw)?;
        raw.events.iter().map(|row| Ok((row.get(1), read::<R>(tenant, aggregate, row, key.as_ref())?))).collect()
    }

    async fn raw<R: Record>(&self, tenant: Uuid, aggregate: Uuid) -> Result<Raw, LoadError> {
        let (reply, answer) = oneshot::channel();
        let request = Request { tenant, aggregate, aggregate_type: R::TYPE, personal: R::PERSONAL, reply };
        let gone = || LoadError::Unavailable("the loader has stopped".to_owned());
        self.queue.send(request).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?.map_err(LoadError::Unavailable)
    }

    fn key(&self, tenant: Uuid, person: Uuid, raw: &Raw) -> Result<Option<PersonKeyState>, KeyError> {
        if raw.is_torn() {
            // Emptied, and no event says why: not an erasure.
            return Err(KeyError::Damaged(person));
        }
        let row = raw.key.as_ref();
        row.map(|row| seal::key_state(&self.keyring, tenant, person, row.get(1), row.get(2), row.get(3))).transpose()
    }

    fn fold<R: Record>(&self, tenant: Uuid, aggregate: Uuid, raw: &Raw) -> Result<Loaded<R>, LoadError> {
        let key = self.key(tenant, aggregate, raw)?;
        let mut state = R::default();
        let (mut version, mut position) = (0, 0);
        for row in &raw.events {
            (version, position) = (row.get(1), row.get(2));
            state.evolve(&read::<R>(tenant, aggregate, row, key.as_ref())?);
        }
        let key = match key {
            Some(PersonKeyState::Held(key)) if !state.is_erased() => Some(PersonKeyHeld(key)),
            Some(PersonKeyState::Held(_) | PersonKeyState::Erased(_)) | None => None,
        };
        Ok(Loaded { state, version, position, epoch: Arc::clone(&raw.epoch), key })
    }
}

fn read<R: Record>(
    tenant: Uuid,
    aggregate: Uuid,
    row: &Row,
    key: Option<&PersonKeyState>,
) -> Result<R::Event, ReadEventError> {
    let position = row.get(2);
    let mut event = R::Event::from_stored(row.get(4), row.get(5), row.get::<_, JsonText<'_>>(6).0)
        .map_err(|source| ReadEventError::Stored { position, source })?;
    seal::open(&mut event, tenant, aggregate, row.get(3), position, key)?;
    Ok(event)
}

struct Task {
    database: Database,
    requests: Arc<Mutex<mpsc::Receiver<Request>>>,
    session: Option<Session>,
}

struct Session {
    client: Client,
    /// What drives the connection; it ends with the session, also where an answer is still awaited.
    _connection: JoinSet<()>,
    events: Statement,
    keys: Statement,
    epoch: Statement,
}

impl Task {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_RECORDS_MAX);
        loop {
            let received = self.requests.lock().await.recv_many(&mut batch, BATCH_RECORDS_MAX).await;
            if received == 0 {
                return;
            }
            metrics::histogram!("prospectus_load_batch_size")
                .record(f64::from(u32::try_from(received).unwrap_or(u32::MAX)));
            // One query per type of record: the type is a parameter, so that an id of another type is no record of this one.
            while let Some(first) = batch.first() {
                let aggregate_type = first.aggregate_type;
                let (same, others) =
                    batch.drain(..).partition(|request: &Request| request.aggregate_type == aggregate_type);
                batch = others;
                self.answer(same).await;
            }
        }
    }

    async fn answer(&mut self, requests: Vec<Request>) {
        let mut last_error = String::new();
        for _ in 0..ATTEMPTS {
            let late = |_| Err("no answer in time".to_owned());
            match timeout(ANSWER_WAIT, self.query(&requests)).await.unwrap_or_else(late) {
                Ok(found) => {
                    for (request, raw) in requests.into_iter().zip(found) {
                        // Whoever has gone away does not want the answer.
                        let _ = request.reply.send(Ok(raw));
                    }
                    return;
                }
                Err(error) => {
                    self.session = None;
                    last_error = error;
                }
            }
        }
        tracing::debug!(error = last_error, "records cannot be loaded");
        for request in requests {
            let _ = request.reply.send(Err(last_error.clone()));
        }
    }

    async fn query(&mut self, requests: &[Request]) -> Result<Vec<Raw>, String> {
        let mut found = self.look(requests).await?;
        for _ in 0..LOOKS {
            // Events and keys are two looks: whoever was erased between them has the event in the next one.
            if !found.iter().any(Raw::is_torn) {
                break;
            }
            found = self.look(requests).await?;
        }
        Ok(found)
    }

    async fn look(&mut self, requests: &[Request]) -> Result<Vec<Raw>, String> {
        if self.session.is_none() {
            self.session = Some(Session::open(&self.database).await.map_err(|error| describe(&error))?);
        }
        let session = self.session.as_ref().expect("it was opened above where it was missing");
        let tenants: Vec<Uuid> = requests.iter().map(|request| request.tenant).collect();
        let aggregates: Vec<Uuid> = requests.iter().map(|request| request.aggregate).collect();
        let personal = requests.first().is_some_and(|request| request.personal);
        let aggregate_type = requests.first().map_or("", |request| request.aggregate_type);
        // The epoch first: an epoch that begins in between makes what follows look older than it is, never newer.
        let parameters: [&(dyn ToSql + Sync); 3] = [&tenants, &aggregates, &aggregate_type];
        let (epoch, events, keys) = join!(
            session.client.query_opt(&session.epoch, &[]),
            session.client.query(&session.events, &parameters),
            async {
                if personal {
                    session.client.query(&session.keys, &[&tenants, &aggregates]).await
                } else {
                    Ok(Vec::new())
                }
            },
        );
        let found = (|| Ok::<_, Error>((epoch?, events?, keys?)))();
        let (epoch, events, keys) = found.map_err(|error| describe(&error))?;
        let epoch: Arc<str> = epoch.map_or_else(|| "".into(), |row| row.get::<_, &str>(0).into());
        let mut keys: HashMap<i64, Row> = keys.into_iter().map(|row| (row.get(0), row)).collect();
        let mut found: Vec<Raw> = (1..)
            .zip(requests)
            .map(|(ordinality, _)| Raw { events: Vec::new(), key: keys.remove(&ordinality), epoch: Arc::clone(&epoch) })
            .collect();
        for row in events {
            let ordinality = usize::try_from(row.get::<_, i64>(0)).expect("ordinalities count from 1");
            found[ordinality - 1].events.push(row);
        }
        Ok(found)
    }
}

impl Raw {
    /// Whether the key was emptied by an event that is not among these.
    fn is_torn(&self) -> bool {
        let erased = self.key.as_ref().and_then(|key| key.get::<_, Option<i64>>(3));
        let last = self.events.last().map_or(0, |event| event.get::<_, i64>(2));
        erased.is_some_and(|erased| erased > last)
    }
}

impl Session {
    async fn open(database: &Database) -> Result<Self, Error> {
        let (client, connection) = database.connect().await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = describe(&error), "a loading connection ended");
            }
        });
        Ok(Self {
            events: client.prepare(EVENTS).await?,
            keys: client.prepare(KEYS).await?,
            epoch: client.prepare(EPOCH).await?,
            client,
            _connection: driver,
        })
    }
}
