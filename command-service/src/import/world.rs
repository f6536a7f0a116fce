//! What an import acts on: the log, through the executors that single commands use, or, in a dry run, what would have become of it.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain::company::{CompanySaid, Terms};
use domain::prospect::ProspectSaid;
use domain::{
    Claim, ClaimKey, Company, CompanyError, ConflictRule, Context, Match, Prospect, ProspectError, Record, Status,
};
use event_store::append::Refused;
use event_store::executor::ExecuteError;
use event_store::{Executor, Metadata, Request, lookup};
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::staging::{Staging, StagingError};
use crate::carry_out::Executors;

/// How long one command of an import may take.
const COMMAND_WAIT: Duration = Duration::from_secs(30);
/// Commands of imports under way at the same time, in the whole process: enough for group commit, and room in the queue for those who
/// send single ones.
pub const IN_FLIGHT_MAX: usize = 512;
/// What a dry run may remember of what it would have written, in bytes; beyond it, it ends.
const REHEARSAL_BYTES_MAX: usize = 64 << 20;

/// A value and the text that stands in the database for it.
pub type Value = lookup::Value;

/// Where an import's commands go.
pub struct World {
    /// Whose.
    pub tenant_id: Uuid,
    executors: Arc<Executors>,
    staging: Staging,
    metadata: Metadata,
    turns: Arc<Semaphore>,
    rehearsal: Option<Mutex<Rehearsal>>,
}

/// Which record a command goes to, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The record.
    pub id: Uuid,
    /// Whether nobody knows it yet.
    pub new: bool,
    /// Sequence of the first event that these rows led to before the step was interrupted.
    pub since: Option<i64>,
}

/// What a dry run would have written.
#[derive(Default)]
struct Rehearsal {
    companies: HashMap<Uuid, Company>,
    prospects: HashMap<Uuid, Prospect>,
    holders: HashMap<Value, Uuid>,
    matches: HashMap<Value, Vec<Uuid>>,
    bytes: usize,
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Another one was faster: look again whose the row is.
    #[error("another one was faster")]
    Overtaken,
    /// The row makes no record: why.
    #[error("{0}")]
    Refused(domain::FieldErrors),
    /// The row names a person who was erased, and the tenant's rule lets nobody in again.
    #[error("the person was erased")]
    Erased,
    /// The record that was found was erased since.
    #[error("the record was erased")]
    ErasedRecord,
    /// It may go better in a while.
    #[error("{0}")]
    Passing(String),
    /// It will not go better by itself.
    #[error("{0}")]
    Lasting(String),
}

/// What rows did to one record.
pub struct Carried {
    /// What each row did.
    pub rows: Vec<domain::company::RowEffect>,
    /// Whether someone should look at the record.
    pub in_review: bool,
    /// The companies that were merged into the record.
    pub stands_for: Vec<Uuid>,
    /// Whether a row of the rows' source made the record.
    pub made_by_source: bool,
    /// Position of the last event that this led to; none if it led to none.
    pub position: Option<i64>,
}

impl World {
    /// Acts on the log, or, for a dry run, only remembers.
    /// `turns` are the places for [`IN_FLIGHT_MAX`] commands.
    pub fn new(
        tenant_id: Uuid,
        executors: Arc<Executors>,
        staging: Staging,
        metadata: Metadata,
        turns: Arc<Semaphore>,
        dry_run: bool,
    ) -> Self {
        Self { tenant_id, executors, staging, metadata, turns, rehearsal: dry_run.then(Mutex::default) }
    }

    /// Waits for a place for one command, taken before it is begun: what waits takes no memory then.
    ///
    /// # Errors
    /// [`Trouble::Passing`], if the process ends.
    pub async fn turn(&self) -> Result<OwnedSemaphorePermit, Trouble> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        turn.map_err(|_| Trouble::Passing("the service is stopping".to_owned()))
    }

    /// Whether nothing is written.
    pub fn is_dry_run(&self) -> bool {
        self.rehearsal.is_some()
    }

    /// Whether a dry run remembers as much as it may.
    pub fn is_full(&self) -> bool {
        self.remembered(|rehearsal| rehearsal.bytes >= REHEARSAL_BYTES_MAX).unwrap_or(false)
    }

    /// The text that stands in the database for a value.
    pub fn value(&self, kind: &'static str, key: &ClaimKey) -> Value {
        (kind, self.executors.store.keyring().claim_key(self.tenant_id, kind, key))
    }

    /// Who holds which of these claims.
    ///
    /// # Errors
    /// [`Trouble::Passing`]
    pub async fn holders(&self, values: &[Value]) -> Result<HashMap<Value, Uuid>, Trouble> {
        if values.is_empty() {
            return Ok(HashMap::new());
        }
        let client = self.staging.client().await?;
        let mut found = lookup::holders(&client, self.tenant_id, values).await.map_err(StagingError::Database)?;
        self.remembered(|rehearsal| {
            let known = values.iter().filter_map(|value| Some((value.clone(), *rehearsal.holders.get(value)?)));
            found.extend(known);
        });
        Ok(found)
    }

    /// Which records have which of these values, oldest first.
    ///
    /// # Errors
    /// [`Trouble::Passing`]
    pub async fn matches(&self, values: &[Value]) -> Result<HashMap<Value, Vec<Uuid>>, Trouble> {
        if values.is_empty() {
            return Ok(HashMap::new());
        }
        let client = self.staging.client().await?;
        let mut found = lookup::matches(&client, self.tenant_id, values).await.map_err(StagingError::Database)?;
        self.remembered(|rehearsal| {
            for value in values {
                for id in rehearsal.matches.get(value).into_iter().flatten() {
                    let ids = found.entry(value.clone()).or_default();
                    if !ids.contains(id) {
                        ids.push(*id);
                    }
                }
            }
        });
        Ok(found)
    }

    /// Which of these values name erased persons whom the tenant does not let in again.
    ///
    /// # Errors
    /// [`Trouble::Passing`]
    pub async fn erased(&self, values: &[Value]) -> Result<HashSet<Value>, Trouble> {
        if values.is_empty() {
            return Ok(HashSet::new());
        }
        let client = self.staging.client().await?;
        Ok(lookup::erased(&client, self.tenant_id, values).await.map_err(StagingError::Database)?)
    }

    /// Takes in what rows say of one company.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn company(
        &self,
        place: Place,
        rows: &[CompanySaid],
        rule: &ConflictRule,
        looks_like: Option<Uuid>,
        seed: Uuid,
    ) -> Result<Carried, Trouble> {
        let decide = |state: &Company, now: OffsetDateTime| {
            let terms = Terms { rule, looks_like };
            domain::company::take_in(state, rows, &terms, &Context { now, seed })
        };
        let known = |state: &Company| (state.stands_for().collect(), false);
        self.carry(&self.executors.companies, |rehearsal| &mut rehearsal.companies, place, decide, known).await.map_err(
            |error| match error {
                Failed::Domain(CompanyError::Fields(errors)) => Trouble::Refused(errors),
                // Its claims are given up with it, so the next look finds another one, or none.
                Failed::Domain(_) => Trouble::Overtaken,
                Failed::Store(trouble) => trouble,
            },
        )
    }

    /// Takes in what rows say of one person.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn prospect(&self, place: Place, rows: &[ProspectSaid], rule: &ConflictRule) -> Result<Carried, Trouble> {
        let decide = |state: &Prospect, _: OffsetDateTime| domain::prospect::take_in(state, rows, rule);
        let source = rows.first().map_or("", |row| row.said.source.as_str());
        let known = |state: &Prospect| {
            (Vec::new(), state.status == Status::Unregistered || state.provenance.begins_with(source))
        };
        self.carry(&self.executors.prospects, |rehearsal| &mut rehearsal.prospects, place, decide, known).await.map_err(
            |error| match error {
                Failed::Domain(ProspectError::Fields(errors)) => Trouble::Refused(errors),
                Failed::Domain(ProspectError::Erased) => Trouble::ErasedRecord,
                Failed::Domain(_) => Trouble::Overtaken,
                Failed::Store(trouble) => trouble,
            },
        )
    }

    /// Whether a person is at this company, or at one of those that were merged into it: for choosing between records.
    ///
    /// # Errors
    /// [`Trouble::Passing`]
    pub async fn is_at(&self, prospect: Uuid, company: Option<Uuid>, stands_for: &[Uuid]) -> Result<bool, Trouble> {
        let prospect = self.glance_at_prospect(prospect).await?;
        let by_pointer = prospect.company_id.is_some_and(|at| stands_for.contains(&at));
        Ok(prospect.status == Status::Live && (prospect.company_id == company || by_pointer))
    }

    /// A person as it was lately.
    async fn glance_at_prospect(&self, id: Uuid) -> Result<Prospect, Trouble> {
        match self.remembered(|rehearsal| rehearsal.prospects.get(&id).cloned()).flatten() {
            Some(state) => Ok(state),
            None => Ok(self.executors.prospects.glance(id, &self.request()).await?.state.clone()),
        }
    }

    async fn carry<R: Record>(
        &self,
        executor: &Executor<R>,
        remembered: impl Fn(&mut Rehearsal) -> &mut HashMap<Uuid, R>,
        place: Place,
        decide: impl Fn(&R, OffsetDateTime) -> Result<domain::company::TakenIn<R::Event>, R::Error>,
        known: impl Fn(&R) -> (Vec<Uuid>, bool),
    ) -> Result<Carried, Failed<R::Error>> {
        let carry = |state: &R, now: OffsetDateTime| {
            let taken = decide(state, now)?;
            let (stands_for, made_by_source) = known(state);
            let carried = Carried {
                rows: taken.rows,
                in_review: taken.in_review,
                stands_for,
                made_by_source,
                position: (!taken.events.is_empty()).then_some(0),
            };
            Ok((taken.events, carried))
        };
        let Place { id, new, since } = place;
        let request = self.request();
        let Some(rehearsal) = &self.rehearsal else {
            // The rows may have had their effect before: what it was follows from what the record was then. Worked out first, because what
            // was refused then is not to be carried out now.
            let had = match since {
                None => None,
                Some(first) => {
                    let loader = self.executors.store.loader();
                    let history = loader.history::<R>(self.tenant_id, id).await;
                    let mut then = R::default();
                    for (_, event) in
                        history.map_err(|error| Failed::Store(error.into()))?.iter().take_while(|(at, _)| *at < first)
                    {
                        then.evolve(event);
                    }
                    Some(carry(&then, OffsetDateTime::now_utc()).map_err(Failed::Domain)?.1)
                }
            };
            let done = executor.carry(id, new, &request, |state, context| carry(state, context.now)).await;
            let (answer, mut carried) = done.map_err(Failed::of)?;
            let position = carried.position.or(had.as_ref().and(Some(0))).map(|_| answer.position);
            let in_review = carried.in_review;
            let rows = had.map_or_else(|| std::mem::take(&mut carried.rows), |had| had.rows);
            return Ok(Carried { rows, in_review, position, ..carried });
        };
        let known = remembered(&mut rehearsal.lock().unwrap_or_else(PoisonError::into_inner)).get(&id).cloned();
        let mut state = match known {
            Some(state) => state,
            None if new => R::default(),
            None => executor.glance(id, &request).await.map_err(|error| Failed::Store(error.into()))?.state.clone(),
        };
        let (events, mut carried) = carry(&state, OffsetDateTime::now_utc()).map_err(Failed::Domain)?;
        carried.position = None;
        for event in &events {
            state.evolve(event);
        }
        let keys = (state.claims(id), state.matches(id));
        let mut rehearsal = rehearsal.lock().unwrap_or_else(PoisonError::into_inner);
        rehearsal.bytes += state.weight_bytes() + 300;
        remembered(&mut rehearsal).insert(id, state);
        for Claim { kind, key } in keys.0 {
            let value = self.value(kind, &key);
            rehearsal.holders.insert(value, id);
        }
        for Match { kind, key } in keys.1 {
            let ids = rehearsal.matches.entry(self.value(kind, &key)).or_default();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(carried)
    }

    fn request(&self) -> Request {
        Request {
            tenant_id: self.tenant_id,
            metadata: self.metadata.clone(),
            receipt: None,
            if_match: None,
            deadline: Instant::now() + COMMAND_WAIT,
            patient: true,
        }
    }

    fn remembered<T>(&self, look: impl FnOnce(&mut Rehearsal) -> T) -> Option<T> {
        let rehearsal = self.rehearsal.as_ref()?;
        Some(look(&mut rehearsal.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

enum Failed<E> {
    Domain(E),
    Store(Trouble),
}

impl<E: std::error::Error> Failed<E> {
    fn of(error: ExecuteError<E>) -> Self {
        match error {
            ExecuteError::Domain(error) => Self::Domain(error),
            other => Self::Store(trouble_of(other)),
        }
    }
}

/// What an executor's refusal means to whoever works on an import.
pub fn trouble_of<E: std::error::Error>(error: ExecuteError<E>) -> Trouble {
    match error {
        ExecuteError::Refused(Refused::ClaimTaken { .. } | Refused::ClaimMissing { .. } | Refused::Conflict) => {
            Trouble::Overtaken
        }
        ExecuteError::Refused(Refused::ErasedPerson) => Trouble::Erased,
        ExecuteError::Refused(Refused::Broken(why)) => Trouble::Lasting(why),
        ExecuteError::Refused(refused) => Trouble::Passing(refused.to_string()),
        ExecuteError::Load(error) => error.into(),
        ExecuteError::Key(error) => Trouble::Lasting(error.to_string()),
        ExecuteError::Precondition(_) => Trouble::Overtaken,
        ExecuteError::Domain(error) => Trouble::Lasting(error.to_string()),
    }
}

impl From<event_store::load::LoadError> for Trouble {
    fn from(error: event_store::load::LoadError) -> Self {
        match error {
            event_store::load::LoadError::Unavailable(why) => Self::Passing(why),
            other => Self::Lasting(other.to_string()),
        }
    }
}

impl From<StagingError> for Trouble {
    fn from(error: StagingError) -> Self {
        match error {
            StagingError::Pool(_) => Self::Passing(error.to_string()),
            StagingError::Database(ref failed) if failed.code().is_none() || failed.is_closed() => {
                Self::Passing(error.to_string())
            }
            // A server that stops, starts or has no room for a moment says so with codes of its own.
            StagingError::Database(ref failed) => {
                let code = failed.code().map_or("", tokio_postgres::error::SqlState::code);
                let passing = ["08", "40", "53", "55", "57"].iter().any(|class| code.starts_with(class));
                if passing { Self::Passing(error.to_string()) } else { Self::Lasting(error.to_string()) }
            }
            StagingError::Key(_) | StagingError::Form(_) | StagingError::Gone(_) => Self::Lasting(error.to_string()),
        }
    }
}

/// Groups of what belongs to one record, in the order in which the records were first spoken of.
pub struct Groups<K, V> {
    order: Vec<K>,
    of: HashMap<K, V>,
}

impl<K: Hash + Eq + Copy, V> Default for Groups<K, V> {
    fn default() -> Self {
        Self { order: Vec::new(), of: HashMap::new() }
    }
}

impl<K: Hash + Eq + Copy, V> Groups<K, V> {
    /// The group of a key, made where there is none.
    pub fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        self.of.entry(key).or_insert_with(|| {
            self.order.push(key);
            make()
        })
    }

    /// All groups, in their order.
    pub fn into_iter(mut self) -> impl Iterator<Item = (K, V)> {
        let order = std::mem::take(&mut self.order);
        order.into_iter().filter_map(move |key| Some((key, self.of.remove(&key)?)))
    }
}
