//! Carrying a command out: load the record, let it decide, append what it decided, and try again if the record changed meanwhile.

mod forgetting;

use std::sync::Arc;
use std::time::Instant;

use domain::{Context, Record, RecordEvent, claim};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::append::{Append, Forget, KeyedValue, NewEvent, Refused, StreamAppend};
use crate::keyring::KeyError;
use crate::load::{LoadError, Loaded, PersonKeyHeld};
use crate::receipt::{Answer, NewReceipt};
use crate::store::Store;

/// Attempts when a record changes between loading and appending.
const ATTEMPTS: usize = 20;
/// Locks that the commands on records are spread over; two records on one lock only wait for each other.
const TURNS: usize = 16_384;
/// What one kept record takes beside its state, in bytes.
const ENTRY_BYTES: u64 = 200;

/// One command's surroundings.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose record; from the authenticated key.
    pub tenant_id: Uuid,
    /// Metadata of the events.
    pub metadata: crate::event::Metadata,
    /// The receipt to leave, where the client sent an idempotency key.
    pub receipt: Option<NewReceipt>,
    /// The version that the client wants to change.
    pub if_match: Option<i64>,
    /// After this the command is given up.
    pub deadline: Instant,
    /// Wait for a place in a full queue instead of being refused.
    pub patient: bool,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError<E: std::error::Error> {
    /// A rule of the record forbids it.
    #[error(transparent)]
    Domain(E),
    /// The record is at another version than the client wants to change.
    #[error("the record is at version {0}")]
    Precondition(i64),
    /// The store refused it.
    #[error(transparent)]
    Refused(Refused),
    /// The record cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A key cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
}

pub use forgetting::{ForgetError, Forgotten};

/// Carries out the commands of one sort of record; keeps the records used lately in memory.
pub struct Executor<R: Record> {
    store: Store,
    kept: Cache<(Uuid, Uuid), Arc<Loaded<R>>, Weight>,
    /// Commands of this process on one record take turns: only another process's can be in conflict with them.
    turns: Box<[Mutex<()>]>,
}

#[derive(Clone)]
struct Weight;

impl<R: Record> Weighter<(Uuid, Uuid), Arc<Loaded<R>>> for Weight {
    fn weight(&self, _: &(Uuid, Uuid), kept: &Arc<Loaded<R>>) -> u64 {
        kept.state.weight_bytes() as u64 + ENTRY_BYTES
    }
}

/// What a decision led to, ready to be appended.
struct Decided<R: Record> {
    append: Append,
    state: R,
    key: Option<PersonKeyHeld>,
}

impl<R: Record> Executor<R> {
    /// An executor that keeps at most `cache_bytes` of records.
    pub fn new(store: Store, cache_bytes: u64) -> Self {
        let expected = usize::try_from(cache_bytes / 1_500).unwrap_or(usize::MAX).max(16);
        let turns = std::iter::repeat_with(|| Mutex::new(())).take(TURNS).collect();
        Self { store, kept: Cache::with_weighter(expected, cache_bytes, Weight), turns }
    }

    /// Carries a command out on record `id`; `details` makes what the answer tells beside version and position.
    ///
    /// # Errors
    /// Why it was not carried out. With [`Refused::OutcomeUnknown`] it may have been.
    pub async fn execute(
        &self,
        id: Uuid,
        command: R::Command,
        request: &Request,
        details: impl Fn(&[R::Event]) -> Map<String, Value>,
    ) -> Result<Answer, ExecuteError<R::Error>> {
        let decide = |state: &R, context: &Context| {
            let events = state.decide(command.clone(), context)?;
            let details = details(&events);
            Ok((events, details, ()))
        };
        match self.attempt(id, None, request, decide).await {
            Ok((answer, ())) => Ok(answer),
            Err(error @ (ExecuteError::Domain(_) | ExecuteError::Precondition(_))) => {
                self.first_answer(id, request, error).await
            }
            Err(error) => Err(error),
        }
    }

    /// Carries out on record `id` what `decide` makes of it, which is called again where the record has changed meanwhile. Gives what
    /// `decide` gave beside the events that were appended. If the record is thought to be `new`, nothing is loaded until the log
    /// knows it better.
    ///
    /// # Errors
    /// As [`Executor::execute`].
    pub async fn carry<T>(
        &self,
        id: Uuid,
        new: bool,
        request: &Request,
        decide: impl Fn(&R, &Context) -> Result<(Vec<R::Event>, T), R::Error>,
    ) -> Result<(Answer, T), ExecuteError<R::Error>> {
        let first = new.then(|| Arc::new(nothing()));
        let decide = |state: &R, context: &Context| {
            let (events, beside) = decide(state, context)?;
            Ok((events, Map::new(), beside))
        };
        self.attempt(id, first, request, decide).await
    }

    /// The record as it was lately: for choosing between records, not for deciding on one.
    ///
    /// # Errors
    /// If the record cannot be loaded.
    pub async fn glance(&self, id: Uuid, request: &Request) -> Result<Arc<Loaded<R>>, LoadError> {
        if let Some(kept) = self.kept.get(&(request.tenant_id, id)) {
            return Ok(kept);
        }
        self.load(id, request).await.map(Arc::new)
    }

    /// `first` is what to decide on first, where it is not what is kept in memory or in the log.
    async fn attempt<T>(
        &self,
        id: Uuid,
        first: Option<Arc<Loaded<R>>>,
        request: &Request,
        decide: impl Fn(&R, &Context) -> Result<(Vec<R::Event>, Map<String, Value>, T), R::Error>,
    ) -> Result<(Answer, T), ExecuteError<R::Error>> {
        let place = (request.tenant_id, id);
        let _turn = self.turn(id, request.deadline).await.map_err(ExecuteError::Refused)?;
        // Ids of one command stay the same through its attempts, so that an event is never in the log twice.
        let context = Context { now: OffsetDateTime::now_utc(), seed: Uuid::now_v7() };
        let epoch = self.store.epoch();
        let mut kept = first.or_else(|| self.kept.get(&place).filter(|kept| epoch.as_ref() == Some(&kept.epoch)));
        for _ in 0..ATTEMPTS {
            let from_memory = kept.is_some();
            let loaded = match kept.take() {
                Some(loaded) => loaded,
                None => Arc::new(self.load(id, request).await?),
            };
            let decided = check_if_match(&loaded, request).and_then(|()| {
                let (events, details, beside) = decide(&loaded.state, &context).map_err(ExecuteError::Domain)?;
                Ok((self.prepare(id, &loaded, events, details, request)?, beside))
            });
            let decided = match decided {
                Ok((mut decided, beside)) => {
                    if decided.append.forget.is_some() {
                        // On the heap: few commands take this way, and all would carry its room along.
                        Box::pin(self.add_past(id, &mut decided.append, request)).await?;
                    }
                    Ok((decided, beside))
                }
                refused => refused,
            };
            match decided {
                // What rests on a kept state is said only after a fresh load has confirmed it.
                Ok((Decided { append, .. }, _)) if append.streams.is_empty() && from_memory => {}
                Err(ExecuteError::Domain(_) | ExecuteError::Precondition(_)) if from_memory => {}
                Ok((Decided { append, .. }, beside)) if append.streams.is_empty() && append.receipt.is_none() => {
                    self.kept.insert(place, loaded);
                    return Ok((append.answer, beside));
                }
                Ok((decided, beside)) => match self.append(place, decided, request).await {
                    Err(Refused::Conflict) => {
                        metrics::counter!("prospectus_command_conflicts_total").increment(1);
                        self.kept.remove(&place);
                    }
                    // The record itself may be gone, or newer: that is told first.
                    Err(Refused::ClaimMissing { .. } | Refused::ClaimTaken { .. }) if from_memory => {
                        self.kept.remove(&place);
                    }
                    Err(refused) => {
                        self.kept.remove(&place);
                        return Err(ExecuteError::Refused(refused));
                    }
                    Ok(answer) => return Ok((answer, beside)),
                },
                Err(error) => {
                    if loaded.version > 0 {
                        self.kept.insert(place, loaded);
                    }
                    return Err(error);
                }
            }
            // A conflict with a command of this process has left the newer state in memory.
            kept = if from_memory { None } else { self.kept.get(&place).filter(|kept| kept.version > loaded.version) };
        }
        Err(ExecuteError::Refused(Refused::Overloaded))
    }

    /// Carries out the command that makes a new record with the fresh id `id`: nothing is loaded.
    ///
    /// # Errors
    /// As [`Executor::execute`].
    pub async fn create(
        &self,
        id: Uuid,
        command: R::Command,
        request: &Request,
    ) -> Result<Answer, ExecuteError<R::Error>> {
        let context = Context { now: OffsetDateTime::now_utc(), seed: Uuid::now_v7() };
        let events = R::default().decide(command, &context).map_err(ExecuteError::Domain)?;
        let decided = self.prepare(id, &nothing(), events, Map::new(), request)?;
        self.append((request.tenant_id, id), decided, request).await.map_err(ExecuteError::Refused)
    }

    /// Carries out what `decide` makes of two records, both or neither (decision 6); given the same one twice, nothing may come of it. The
    /// answer speaks of the first, with the position of the last event: the events of the second stand before those of the first.
    ///
    /// # Errors
    /// As [`Executor::execute`]; `if_match` counts for the first record.
    pub async fn execute_both(
        &self,
        ids: [Uuid; 2],
        request: &Request,
        decide: impl Fn([&R; 2]) -> Result<[Vec<R::Event>; 2], R::Error>,
    ) -> Result<Answer, ExecuteError<R::Error>> {
        match self.attempt_both(ids, request, decide).await {
            Err(error @ (ExecuteError::Domain(_) | ExecuteError::Precondition(_))) => {
                self.first_answer(ids[0], request, error).await
            }
            other => other,
        }
    }

    async fn attempt_both(
        &self,
        ids: [Uuid; 2],
        request: &Request,
        decide: impl Fn([&R; 2]) -> Result<[Vec<R::Event>; 2], R::Error>,
    ) -> Result<Answer, ExecuteError<R::Error>> {
        let _turns = self.turns_of(ids, request.deadline).await.map_err(ExecuteError::Refused)?;
        for _ in 0..ATTEMPTS {
            // Always from the log: a merge is rare, and what it rests on must be so.
            let (first, second) = tokio::join!(self.load(ids[0], request), self.load(ids[1], request));
            let loaded = [first?, second?];
            check_if_match(&loaded[0], request)?;
            let events = decide([&loaded[0].state, &loaded[1].state]).map_err(ExecuteError::Domain)?;
            let mut append = empty_append(ids[0], request);
            append.answer.version = version_after(&loaded[0], &events[0]);
            append.answer.position = loaded[0].position;
            append.answer.epoch = loaded[0].epoch.to_string();
            for ((id, loaded), events) in ids.into_iter().zip(&loaded).zip(events).rev() {
                self.add_record(&mut append, id, loaded, events, request)?;
            }
            if append.streams.is_empty() && append.receipt.is_none() {
                return Ok(append.answer);
            }
            let changed = !append.streams.is_empty();
            let outcome = self.hand_in(append, request).await;
            if changed {
                for id in ids {
                    self.kept.remove(&(request.tenant_id, id));
                }
            }
            match outcome {
                Err(Refused::Conflict) => metrics::counter!("prospectus_command_conflicts_total").increment(1),
                Err(refused) => return Err(ExecuteError::Refused(refused)),
                Ok(answer) => return Ok(answer),
            }
        }
        Err(ExecuteError::Refused(Refused::Overloaded))
    }

    /// Carries out a command on record `id` together with the one that makes a new record of another sort with the fresh id `new_id`: both
    /// or neither. The answer speaks of the record `id`, with `details`; the events of the new one stand before its own. What
    /// the record's events require of the new one needs nobody else's claim.
    ///
    /// # Errors
    /// As [`Executor::execute`]; the outer error is of the record `id`, `Err` inside it of the new one.
    pub async fn execute_and_create<S: Record>(
        &self,
        (id, command): (Uuid, R::Command),
        others: &Executor<S>,
        (new_id, new_command): (Uuid, S::Command),
        request: &Request,
        details: Map<String, Value>,
    ) -> Result<Result<Answer, S::Error>, ExecuteError<R::Error>> {
        let _turn = self.turn(id, request.deadline).await.map_err(ExecuteError::Refused)?;
        let context = Context { now: OffsetDateTime::now_utc(), seed: Uuid::now_v7() };
        for _ in 0..ATTEMPTS {
            // Always from the log, as for two records of one sort.
            let loaded = self.load(id, request).await?;
            let decided = check_if_match(&loaded, request)
                .and_then(|()| loaded.state.decide(command.clone(), &context).map_err(ExecuteError::Domain));
            let events = match decided {
                Ok(events) => events,
                Err(error) => return self.first_answer(id, request, error).await.map(Ok),
            };
            let new_events = match S::default().decide(new_command.clone(), &context) {
                Ok(new_events) => new_events,
                Err(error) => return Ok(Err(error)),
            };
            let mut append = empty_append(id, request);
            append.answer.version = version_after(&loaded, &events);
            append.answer.details = details.clone();
            others.add_record(&mut append, new_id, &nothing(), new_events, request)?;
            self.add_record(&mut append, id, &loaded, events, request)?;
            let Append { require, take, .. } = &mut append;
            require.retain(|required| !take.contains(required));
            let outcome = self.hand_in(append, request).await;
            self.kept.remove(&(request.tenant_id, id));
            match outcome {
                Err(Refused::Conflict) => metrics::counter!("prospectus_command_conflicts_total").increment(1),
                Err(refused) => return Err(ExecuteError::Refused(refused)),
                Ok(answer) => return Ok(Ok(answer)),
            }
        }
        Err(ExecuteError::Refused(Refused::Overloaded))
    }

    /// A command that was carried out before may be refused now; its receipt has the first answer.
    async fn first_answer(
        &self,
        id: Uuid,
        request: &Request,
        error: ExecuteError<R::Error>,
    ) -> Result<Answer, ExecuteError<R::Error>> {
        if request.receipt.is_none() {
            return Err(error);
        }
        match self.store.appender().receipt(empty_append(id, request)).await {
            Ok(answer) => Ok(answer),
            Err(Refused::NoReceipt) => Err(error),
            Err(refused) => Err(ExecuteError::Refused(refused)),
        }
    }

    async fn load(&self, id: Uuid, request: &Request) -> Result<Loaded<R>, LoadError> {
        let load = self.store.loader().load::<R>(request.tenant_id, id);
        let late = |_| Err(LoadError::Unavailable("no answer in time".to_owned()));
        tokio::time::timeout_at(request.deadline.into(), load).await.unwrap_or_else(late)
    }

    /// Waits for the turn of a command on both records: in the order of their locks, so that two commands never wait for each other.
    async fn turns_of(&self, ids: [Uuid; 2], deadline: Instant) -> Result<[Option<MutexGuard<'_, ()>>; 2], Refused> {
        let (low, high) = if turn_of(ids[0]) <= turn_of(ids[1]) { (ids[0], ids[1]) } else { (ids[1], ids[0]) };
        let first = self.turn(low, deadline).await?;
        let second = if turn_of(low) == turn_of(high) { None } else { Some(self.turn(high, deadline).await?) };
        Ok([Some(first), second])
    }

    /// Waits for the turn of a command on this record, at most until its deadline.
    async fn turn(&self, id: Uuid, deadline: Instant) -> Result<MutexGuard<'_, ()>, Refused> {
        let turn = &self.turns[turn_of(id)];
        if let Ok(free) = turn.try_lock() {
            return Ok(free);
        }
        tokio::time::timeout_at(deadline.into(), turn.lock()).await.map_err(|_| Refused::Overloaded)
    }

    async fn append(&self, place: (Uuid, Uuid), decided: Decided<R>, request: &Request) -> Result<Answer, Refused> {
        let Decided { append, state, key } = decided;
        let written = !append.streams.is_empty();
        let answer = self.hand_in(append, request).await?;
        // A receipt's answer speaks of the record as it was then.
        if written && answer.id == place.1 {
            let (version, position) = (answer.version, answer.position);
            let loaded = Loaded { state, version, position, epoch: answer.epoch.as_str().into(), key };
            self.kept.insert(place, Arc::new(loaded));
        }
        Ok(answer)
    }

    async fn hand_in(&self, append: Append, request: &Request) -> Result<Answer, Refused> {
        let appender = self.store.appender();
        if request.patient { appender.append_patiently(append).await } else { appender.append(append).await }
    }

    /// Appends events that were decided on elsewhere, by cqrs-es's framework.
    pub(crate) async fn append_decided(
        &self,
        id: Uuid,
        loaded: &Loaded<R>,
        events: Vec<R::Event>,
        request: &Request,
    ) -> Result<Answer, ExecuteError<R::Error>> {
        let mut decided = self.prepare(id, loaded, events, Map::new(), request)?;
        if decided.append.forget.is_some() {
            Box::pin(self.add_past(id, &mut decided.append, request)).await?;
        }
        self.append((request.tenant_id, id), decided, request).await.map_err(ExecuteError::Refused)
    }

    /// The append of what was decided for one record.
    fn prepare(
        &self,
        id: Uuid,
        loaded: &Loaded<R>,
        events: Vec<R::Event>,
        details: Map<String, Value>,
        request: &Request,
    ) -> Result<Decided<R>, ExecuteError<R::Error>> {
        let mut append = empty_append(id, request);
        append.answer.version = version_after(loaded, &events);
        append.answer.position = loaded.position;
        append.answer.epoch = loaded.epoch.to_string();
        append.answer.details = details;
        let (state, key) = self.add_record(&mut append, id, loaded, events, request)?;
        Ok(Decided { append, state, key })
    }

    /// Adds to an append the claims, matches, keys and sealed events of what was decided for one record. Gives what becomes of it.
    fn add_record(
        &self,
        append: &mut Append,
        id: Uuid,
        loaded: &Loaded<R>,
        mut events: Vec<R::Event>,
        request: &Request,
    ) -> Result<(R, Option<PersonKeyHeld>), KeyError> {
        if events.is_empty() {
            return Ok((loaded.state.clone(), loaded.key.clone()));
        }
        let mut state = loaded.state.clone();
        for event in &events {
            state.evolve(event);
        }
        let keyring = self.store.keyring();
        let value = |kind, key: &domain::ClaimKey| KeyedValue {
            kind,
            key: keyring.claim_key(request.tenant_id, kind, key),
            aggregate_id: id,
        };
        let (before, after) = (loaded.state.claims(id), state.claims(id));
        append.take.extend(only_in(&after, &before).map(|claim| value(claim.kind, &claim.key)));
        append.release.extend(only_in(&before, &after).map(|claim| value(claim.kind, &claim.key)));
        let (before, after) = (loaded.state.matches(id), state.matches(id));
        append.match_add.extend(only_in(&after, &before).map(|found| value(found.kind, &found.key)));
        append.match_remove.extend(only_in(&before, &after).map(|found| value(found.kind, &found.key)));
        for claim in events.iter().filter_map(RecordEvent::requires) {
            let mut required = value(claim.kind, &claim.key);
            if claim.kind == claim::LIVE {
                required.aggregate_id = required.key.parse().unwrap_or_default();
            }
            append.require.push(required);
        }
        let (key, new_key) = match &loaded.key {
            Some(key) => (Some(key.clone()), None),
            None if R::PERSONAL && loaded.version == 0 => {
                let (key, wrapped) = keyring.new_person_key(request.tenant_id, id)?;
                (Some(PersonKeyHeld(key)), Some(wrapped))
            }
            None => (None, None),
        };
        let mut new_events = Vec::with_capacity(events.len());
        for event in &mut events {
            let event_id = Uuid::now_v7();
            if let Some(member) = event.personal_mut()
                && let Some(json) = member.to_open_json()
            {
                // Without a key there is nowhere to put personal data: an erased person's record takes none.
                let key = key.as_ref().ok_or(KeyError::NoKeyRow(id))?;
                member.seal(key.0.seal(request.tenant_id, id, event_id, &json)?);
            }
            new_events.push(NewEvent {
                event_id,
                event_type: event.name(),
                event_version: event.form(),
                payload: event.payload(),
            });
        }
        let erases = state.is_erased() && !loaded.state.is_erased();
        if erases {
            let sequence = version_after(loaded, &events);
            append.forget = Some(Forget { person: id, sequence, claims: Vec::new(), matches: Vec::new() });
        }
        append.metadata = serde_json::to_string(&request.metadata).expect("metadata is a flat struct of strings");
        if loaded.version > 0 {
            append.epoch = Some(Arc::clone(&loaded.epoch));
        }
        append.streams.push(StreamAppend {
            aggregate_type: R::TYPE,
            aggregate_id: id,
            expected_version: loaded.version,
            events: new_events,
            new_key,
        });
        // What is kept of an erased person opens nothing.
        let key = key.filter(|_| !state.is_erased());
        Ok((state, key))
    }

    /// Records kept in memory, and the bytes that they are reckoned to take.
    pub fn kept(&self) -> (usize, u64) {
        (self.kept.len(), self.kept.weight())
    }

    /// Forgets what is kept of one record: another process has erased it.
    pub fn forget(&self, tenant_id: Uuid, id: Uuid) {
        self.kept.remove(&(tenant_id, id));
    }

    /// Forgets everything that is kept.
    pub fn forget_all(&self) {
        self.kept.clear();
    }
}

/// A record of which the log knows nothing.
fn nothing<R: Record>() -> Loaded<R> {
    Loaded { state: R::default(), version: 0, position: 0, epoch: "".into(), key: None }
}

/// Which lock the commands on a record share.
fn turn_of(id: Uuid) -> usize {
    // The last bits of a UUID v7 are random.
    usize::try_from(id.as_u128() % TURNS as u128).expect("less than TURNS")
}

fn check_if_match<R, E: std::error::Error>(loaded: &Loaded<R>, request: &Request) -> Result<(), ExecuteError<E>> {
    match request.if_match {
        Some(wanted) if loaded.version > 0 && wanted != loaded.version => {
            Err(ExecuteError::Precondition(loaded.version))
        }
        _ => Ok(()),
    }
}

fn version_after<R: Record>(loaded: &Loaded<R>, events: &[R::Event]) -> i64 {
    loaded.version + i64::try_from(events.len()).expect("a command has few events")
}

/// An append that writes nothing but, where there is one, the receipt.
fn empty_append(id: Uuid, request: &Request) -> Append {
    Append {
        tenant_id: request.tenant_id,
        metadata: String::new(),
        streams: Vec::new(),
        take: Vec::new(),
        release: Vec::new(),
        require: Vec::new(),
        match_add: Vec::new(),
        match_remove: Vec::new(),
        forget: None,
        receipt: request.receipt.clone(),
        answer: Answer { id, version: 0, position: 0, epoch: String::new(), details: Map::new() },
        epoch: None,
        deadline: request.deadline,
    }
}

/// What is in `these`, sorted, and not in `those`, sorted.
fn only_in<'a, T: Ord>(these: &'a [T], those: &'a [T]) -> impl Iterator<Item = &'a T> {
    these.iter().filter(|item| those.binary_search(item).is_err())
}
