//! One projection at work: a step takes the events after the checkpoint, folds them, and writes rows and checkpoint in one
//! transaction (decision 11).

use std::sync::Arc;
use std::time::Duration;

use cqrs_es::Aggregate as _;
use event_store::StoredEvent;
use event_store::epoch::Epoch;
use event_store::feed::{Feed, FeedError, PAGE_BYTES_MAX};
use event_store::keyring::{KeyError, Keyring};
use futures_util::join;
use migrations::{CODE_VERSION, COMPANY_PROSPECT};
use service_kit::postgres::Database;
use tokio::task::JoinSet;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

use crate::columns::{parameters, transpose};
use crate::connection::connect;
use crate::elsewhere::{self, Own};
use crate::fanout::{COMPANY_ROWS_MAX, Entry, Outcome, Plan, Queue, Turn};
use crate::memory::{Change, Memory};
use crate::pointers::Pointers;
use crate::record::ApplyError;
use crate::rows::{self, COMPANIES, PROSPECTS};
use crate::skips::Skips;
use crate::statements::Statements;

/// Most events of one step.
pub const STEP_EVENTS_MAX: i64 = 5_000;
/// Rows that a step's fan-out changes for each of its events, if that is more than one company's bound.
const FANOUT_ROWS_PER_EVENT: usize = 4;
/// Old steps are removed when there are so many; half stay.
const STEPS_KEPT: i64 = 200;

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The log cannot be read, or has a hole.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// The database is away or refuses.
    #[error("the database: {}", service_kit::postgres::describe(.0))]
    Database(#[from] Error),
    /// A person's key cannot be had: not an erasure.
    #[error("event at position {position}: {source}")]
    Key {
        /// The first event of that person in the step.
        position: i64,
        /// Why.
        source: KeyError,
    },
    /// An earlier event of a record cannot be applied.
    #[error("event at position {position}, for what is before it: {source}")]
    History {
        /// The first event of that record in the step.
        position: i64,
        /// Why.
        source: ApplyError,
    },
    /// An event cannot be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The read tables refuse what an event leads to.
    #[error("event at position {position}: the read tables refuse its rows: {}", refusal(source))]
    Rows {
        /// Which event.
        position: i64,
        /// What the server said; its text may hold values.
        source: Error,
    },
    /// Another projector has taken the step.
    #[error("another projector has taken this step")]
    Fenced,
    /// The log is not the one that the checkpoint was made on.
    #[error("the checkpoint is at position {checkpoint} in epoch {epoch}, but the log {log}")]
    OtherLog {
        /// Position of the checkpoint.
        checkpoint: i64,
        /// Its epoch.
        epoch: String,
        /// How the log differs.
        log: String,
    },
    /// The server does not answer.
    #[error("the database has not answered for {} s", .0.as_secs())]
    NoAnswer(Duration),
    /// There is no live generation.
    #[error("no live generation of the projection is known: run `prospectus migrate`")]
    NoGeneration,
    /// Another generation has gone live.
    #[error("another generation of the projection has gone live")]
    Superseded,
    /// The live generation was built by another version of the code: its rows are left as they are.
    #[error(
        "generation {generation} was built by version {found} of the projection's code, and this program has version {own}: a newer \
         program builds its own generation first, an older one leaves it alone; until then a projector of the other release keeps \
         generation {generation} up to date"
    )]
    OtherVersion {
        /// The live generation.
        generation: i32,
        /// What built it.
        found: i32,
        /// What this program has.
        own: i32,
    },
}

impl StepError {
    /// The event that cannot be applied, if it is for one that the step was not taken: nothing goes on until somebody has done something.
    pub fn position(&self) -> Option<i64> {
        match self {
            Self::Apply(error) => Some(error.position()),
            Self::Feed(FeedError::Hole(position))
            | Self::Key { position, .. }
            | Self::History { position, .. }
            | Self::Rows { position, .. } => Some(*position),
            _ => None,
        }
    }

    /// The event itself that cannot be applied: the one that the step stops at, or an earlier one of the same record.
    pub fn event_position(&self) -> Option<i64> {
        match self {
            Self::History { source, .. } => Some(source.position()),
            _ => self.position(),
        }
    }

    /// A stable name for why, without anything of the event.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Apply(error) | Self::History { source: error, .. } => error.reason(),
            Self::Key { .. } => "key_missing",
            Self::Rows { .. } => "rows_refused",
            Self::Feed(FeedError::Hole(_)) => "event_missing",
            Self::Feed(FeedError::Database(_)) | Self::Database(_) => "database_error",
            Self::NoAnswer(_) => "database_no_answer",
            Self::OtherLog { .. } => "other_log",
            Self::Fenced => "fenced",
            Self::NoGeneration => "no_generation",
            Self::Superseded => "superseded",
            Self::OtherVersion { .. } => "other_version",
        }
    }
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stepped {
    /// Events applied.
    pub events: usize,
    /// Rows that companies' changes reached.
    pub fanout_rows: usize,
    /// Companies that wait in the queue.
    pub queued: usize,
    /// Every event up to here is applied.
    pub position: i64,
}

impl Stepped {
    /// Whether there was nothing to do.
    pub fn idle(&self) -> bool {
        self.events == 0 && self.fanout_rows == 0 && self.queued == 0
    }
}

/// The projection `company_prospect`, on connections of its own.
pub struct Projection {
    feed: Feed,
    client: Client,
    /// Both connections, which end with this value.
    _driven: JoinSet<()>,
    memory: Memory,
    statements: Statements,
    generation: i32,
    /// Whether it is to end where another generation goes live.
    follows_live: bool,
    code_version: i32,
    step: i64,
    position: i64,
    /// The position at which the statements' plans were made.
    planned: i64,
    epoch: String,
    queue: Queue,
    /// Events that were read already, while a large step was written or because that one had no room for them: the next step's, if it begins
    /// where they do.
    ahead: Vec<StoredEvent>,
}

/// Indexes are right for every statement of a step, looked into for one row after the other, also where a plan was made on small
/// tables; which of them, the plans of larger tables know (`plan_again`).
/// A projector that is paused within a step must not hold up another one for long.
pub(crate) const SETTINGS: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
    SET plan_cache_mode = force_generic_plan;
    SET idle_in_transaction_session_timeout = '5s'";

impl Projection {
    /// The live generation.
    ///
    /// # Errors
    /// If the database is away, the log is not the checkpoint's, or another version of the code built the generation.
    pub async fn open(database: &Database, keyring: Arc<Keyring>) -> Result<Self, StepError> {
        Self::open_live(database, keyring, CODE_VERSION).await
    }

    /// The live generation, for this version of the code.
    pub(crate) async fn open_live(
        database: &Database,
        keyring: Arc<Keyring>,
        code_version: i32,
    ) -> Result<Self, StepError> {
        let mut driven = JoinSet::new();
        let client = connect(database, &mut driven).await?;
        const LIVE: &str = "-- projector::projection::open_live
            SELECT l.generation, g.code_version
            FROM read.live AS l JOIN read.generations AS g USING (projection, generation) WHERE l.projection = $1";
        let live = client.query_opt(LIVE, &[&COMPANY_PROSPECT]).await?.ok_or(StepError::NoGeneration)?;
        let (generation, found): (i32, i32) = (live.get(0), live.get(1));
        if found != code_version {
            return Err(StepError::OtherVersion { generation, found, own: code_version });
        }
        Self::over(client, driven, database, keyring, (generation, true, code_version)).await
    }

    /// A generation that is not live, to catch it up.
    ///
    /// # Errors
    /// If the database is away, or the log is not the checkpoint's.
    pub(crate) async fn open_generation(
        database: &Database,
        keyring: Arc<Keyring>,
        generation: i32,
        code_version: i32,
    ) -> Result<Self, StepError> {
        let mut driven = JoinSet::new();
        let client = connect(database, &mut driven).await?;
        Self::over(client, driven, database, keyring, (generation, false, code_version)).await
    }

    async fn over(
        client: Client,
        mut driven: JoinSet<()>,
        database: &Database,
        keyring: Arc<Keyring>,
        (generation, follows_live, code_version): (i32, bool, i32),
    ) -> Result<Self, StepError> {
        client.batch_execute(SETTINGS).await?;
        let statements = Statements::prepare(&client, &migrations::schema_name(generation)).await?;
        let feed = Feed::over(connect(database, &mut driven).await?).await?;
        let skips = Skips::read(feed.client(), COMPANY_PROSPECT).await?;
        let memory = Memory::new(feed.client(), keyring, skips).await?;
        let mut projection = Self {
            feed,
            memory,
            client,
            _driven: driven,
            statements,
            generation,
            follows_live,
            code_version,
            step: 0,
            position: 0,
            planned: 0,
            epoch: String::new(),
            queue: Queue::new(),
            ahead: Vec::new(),
        };
        projection.read_place().await?;
        projection.planned = projection.position;
        Ok(projection)
    }

    /// Reads checkpoint and queue.
    async fn read_place(&mut self) -> Result<(), StepError> {
        const CHECKPOINT: &str = "-- projector::projection::read_place, checkpoint
            SELECT step, position, epoch FROM read.checkpoint_steps
            WHERE projection = $1 AND generation = $2 ORDER BY step DESC LIMIT 1";
        const QUEUE: &str = "-- projector::projection::read_place, queue
            SELECT tenant_id, company_id, position, next_position, after_row_id FROM read.fanout
            WHERE projection = $1 AND generation = $2";
        // One snapshot, so that the queue belongs to the checkpoint.
        self.client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let row = self.client.query_opt(CHECKPOINT, &[&COMPANY_PROSPECT, &self.generation]).await?;
        let queue = self.client.query(QUEUE, &[&COMPANY_PROSPECT, &self.generation]).await?;
        self.client.batch_execute("COMMIT").await?;
        let row = row.ok_or(StepError::NoGeneration)?;
        (self.step, self.position, self.epoch) = (row.get(0), row.get(1), row.get(2));
        self.queue = queue
            .iter()
            .map(|row| {
                let after = row.get::<_, Option<Uuid>>(4).unwrap_or(rows::LEAST_ID);
                ((row.get(0), row.get(1)), Entry { position: row.get(2), next_position: row.get(3), after, turn: 0 })
            })
            .collect();
        let head = self.feed.head().await?;
        if head.position < self.position {
            return Err(self.other_log(format!("ends at position {}", head.position)));
        }
        if let Some(epoch) = head.epoch
            && epoch_number(&self.epoch) > epoch.number
        {
            return Err(self.other_log(format!("is in the older epoch {}", epoch.name)));
        }
        Ok(())
    }

    fn other_log(&self, log: String) -> StepError {
        StepError::OtherLog { checkpoint: self.position, epoch: self.epoch.clone(), log }
    }

    /// Every event up to here is applied.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Every event up to here shows in all rows.
    pub(crate) fn complete_position(&self) -> i64 {
        self.queue
            .values()
            .map(|entry| entry.position - 1)
            .min()
            .map_or(self.position, |queued| queued.min(self.position))
    }

    /// Whether it follows the live generation, and another one is that now.
    async fn is_superseded(&self) -> Result<bool, StepError> {
        const SQL: &str = "-- projector::projection::is_superseded
            SELECT generation FROM read.live WHERE projection = $1";
        let live = self.client.query_opt(SQL, &[&COMPANY_PROSPECT]).await?.ok_or(StepError::NoGeneration)?;
        Ok(self.follows_live && live.get::<_, i32>(0) != self.generation)
    }

    /// The generation that it writes.
    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    /// What its own erasures are to be cleared beside where it goes live: in every other generation.
    pub(crate) fn own_beside_live(&self) -> Own {
        Own { generation: self.generation, code_version: self.code_version, live: true }
    }

    /// The log's highest position.
    pub(crate) async fn head(&self) -> Result<i64, StepError> {
        Ok(self.feed.head().await?.position)
    }

    /// Records kept in memory.
    pub fn remembered(&self) -> usize {
        self.memory.len()
    }

    /// Takes one step: the events that wait, at most `events_max`, and part of what is queued.
    ///
    /// # Errors
    /// Why it was not taken. After an error the connections are not used again, except after [`StepError::Fenced`], which has read the
    /// other projector's checkpoint. [`StepError::Superseded`] says that another generation is to be opened.
    pub async fn step(&mut self, events_max: i64) -> Result<Stepped, StepError> {
        let ahead = std::mem::take(&mut self.ahead);
        let is_next = ahead.first().is_some_and(|event| event.position == self.position + 1)
            && i64::try_from(ahead.len()).is_ok_and(|events| events <= events_max);
        let events = async { if is_next { Ok(ahead) } else { self.feed.after(self.position, events_max).await } };
        let (events, epoch) = join!(events, Epoch::newest(self.feed.client()));
        let (mut events, epoch) = (events?, epoch?);
        let mut ahead_max = is_large(&events, events_max).then_some(events_max);
        if events.is_empty() && self.queue.is_empty() {
            let position = self.position;
            return Ok(Stepped { events: 0, fanout_rows: 0, queued: 0, position });
        }
        let epoch = epoch.map_or_else(|| self.epoch.clone(), |epoch| epoch.name.to_string());
        if events.iter().any(|event| event.aggregate_type == domain::Projection::TYPE) {
            self.read_skips().await?;
        }
        loop {
            let (change, taken) = loop {
                match self.memory.fold(self.feed.client(), self.position, &events).await {
                    Ok(folded) => break folded,
                    Err(error) => match error.position().filter(|position| *position > self.position + 1) {
                        // What is before it is applied; the next step begins with it, and tells of it.
                        Some(position) => events.retain(|event| event.position < position),
                        None => return Err(error),
                    },
                }
            };
            let rest = events.split_off(taken);
            if !rest.is_empty() {
                ahead_max = None;
            }
            match Box::pin(self.take(&events, change, &epoch, ahead_max)).await {
                // Of many events one has rows that the tables refuse: half as many, until that one is alone.
                Err(StepError::Rows { .. }) if events.len() > 1 => {
                    events.truncate(events.len() / 2);
                    ahead_max = None;
                }
                Ok(stepped) => {
                    if !rest.is_empty() {
                        self.ahead = rest;
                    }
                    return Ok(stepped);
                }
                refused => return refused,
            }
        }
    }

    /// Reads again what is left out: others may have taken steps after a decision that this projector has not seen.
    async fn read_skips(&mut self) -> Result<(), StepError> {
        let skips = Skips::read(self.feed.client(), COMPANY_PROSPECT).await?;
        self.memory.leave_out(skips);
        Ok(())
    }

    /// Takes the step that leads to these changes. While it is written, so many events after it are read.
    async fn take(
        &mut self,
        events: &[StoredEvent],
        change: Change,
        epoch: &str,
        ahead_max: Option<i64>,
    ) -> Result<Stepped, StepError> {
        let position = events.last().map_or(self.position, |event| event.position);
        let own = Own { generation: self.generation, code_version: self.code_version, live: self.follows_live };
        elsewhere::clear(&self.client, own, elsewhere::erased(&change.prospects)).await?;
        let fanout_rows_max = COMPANY_ROWS_MAX.max(FANOUT_ROWS_PER_EVENT * events.len());
        let ahead = async {
            match ahead_max {
                Some(events_max) => self.feed.after(position, events_max).await,
                None => Ok(Vec::new()),
            }
        };
        let (written, ahead) = join!(self.write(&change, position, epoch, fanout_rows_max), ahead);
        match written {
            Ok(outcome) => {
                (self.step, self.position) = (self.step + 1, position);
                epoch.clone_into(&mut self.epoch);
                for place in outcome.done {
                    self.queue.remove(&place);
                }
                self.queue.extend(outcome.keep);
                self.memory.keep(change);
                self.plan_again().await?;
                if self.step % STEPS_KEPT == 0 {
                    self.forget_steps().await?;
                }
                // The step is taken, whatever became of these: the next one hears of it.
                self.ahead = ahead.unwrap_or_default();
                Ok(Stepped {
                    events: events.len(),
                    fanout_rows: outcome.rows.len(),
                    queued: self.queue.len(),
                    position,
                })
            }
            Err(error) if is_fenced(&error) => {
                self.client.batch_execute("ROLLBACK").await?;
                self.memory.forget();
                if self.is_superseded().await? {
                    return Err(StepError::Superseded);
                }
                self.read_skips().await?;
                self.read_place().await?;
                Err(StepError::Fenced)
            }
            Err(source) if is_refused(&source) && !events.is_empty() => {
                self.client.batch_execute("ROLLBACK").await?;
                Err(StepError::Rows { position, source })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a step in one transaction: one flush, or two if companies' changes have to reach rows.
    async fn write(
        &self,
        change: &Change,
        position: i64,
        epoch: &str,
        fanout_rows_max: usize,
    ) -> Result<Outcome, Error> {
        // Whose registration is left out has no row.
        let companies = change.companies.iter().filter(|(_, record)| record.is_registered());
        let companies = companies.map(|(place, record)| rows::company(*place, record)).collect();
        let prospects = change.prospects.iter().filter(|(_, record)| record.is_registered());
        let prospects = prospects.map(|(place, record)| rows::prospect(*place, record)).collect();
        let (companies, prospects) = (transpose(COMPANIES, companies), transpose(PROSPECTS, prospects));
        let step = self.step + 1;
        let checkpoint: [&(dyn ToSql + Sync); 5] = [&COMPANY_PROSPECT, &self.generation, &step, &position, &epoch];
        let (touched_tenants, touched): (Vec<Uuid>, Vec<Uuid>) = change.touched.iter().copied().unzip();
        let own: [&(dyn ToSql + Sync); 2] = [&touched_tenants, &touched];
        let pointers = Pointers::of(change);
        let (merged, unmerged) = (pointers.merge_parameters(), pointers.unmerge_parameters());
        let statements = &self.statements;
        let run = async |wanted: bool, statement, parameters: &[&(dyn ToSql + Sync)]| {
            if wanted { self.client.execute(statement, parameters).await } else { Ok(0) }
        };
        let company_cells = parameters(&companies);
        let prospect_cells = parameters(&prospects);
        let rows = async {
            let (begun, fenced, companies, merged, unmerged, prospects, removed, added) = join!(
                self.client.batch_execute("BEGIN"),
                // Before any row is locked: of two projectors at one step the second waits here, and then has lost nothing.
                self.client.execute(&statements.checkpoint, &checkpoint),
                run(!change.companies.is_empty(), &statements.companies, &company_cells),
                run(!pointers.merged.is_empty(), &statements.merge, &merged),
                run(!pointers.unmerged.is_empty(), &statements.unmerge, &unmerged),
                run(!change.prospects.is_empty(), &statements.prospects, &prospect_cells),
                run(!touched.is_empty(), &statements.remove_own_rows, &own),
                run(!touched.is_empty(), &statements.add_own_rows, &own),
            );
            begun?;
            fenced.and(companies).and(merged).and(unmerged).and(prospects).and(removed).and(added)
        };
        let mut plan = Plan::new(&change.changed, &self.queue, step, fanout_rows_max);
        if plan.is_empty() {
            let nothing = Outcome::default();
            let (rows, committed) = join!(rows, self.commit(&nothing));
            rows?;
            committed?;
            return Ok(nothing);
        }
        let (rows, found) = join!(rows, self.fanout_targets(&plan));
        rows?;
        plan.take(&found?);
        if plan.fill_up() {
            let found = self.fanout_targets(&plan).await?;
            plan.take(&found);
        }
        let outcome = plan.outcome();
        self.commit(&outcome).await?;
        Ok(outcome)
    }

    /// The rows that the plan wants to know, with the numbers of their companies in it.
    async fn fanout_targets(&self, plan: &Plan) -> Result<Vec<(usize, Uuid)>, Error> {
        let (tenants, ids): (Vec<Uuid>, Vec<Uuid>) = plan.wanted().map(|turn| turn.place).unzip();
        let after: Vec<Uuid> = plan.wanted().map(Turn::after).collect();
        let rows_max: Vec<i64> = plan.wanted().map(|turn| bound(turn.look_for())).collect();
        let found = self.client.query(&self.statements.fanout_targets, &[&tenants, &ids, &after, &rows_max]).await?;
        let number = |row: &Row| usize::try_from(row.get::<_, i64>(0)).expect("ordinalities count from 1");
        Ok(found.iter().map(|row| (number(row), row.get(1))).collect())
    }

    /// The second half of a step: what companies' changes reach, and the queue.
    async fn commit(&self, outcome: &Outcome) -> Result<(), Error> {
        let statements = &self.statements;
        let (mut tenants, mut companies, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (tenant, company, row) in &outcome.rows {
            tenants.push(*tenant);
            companies.push(*company);
            rows.push(*row);
        }
        let reached: [&(dyn ToSql + Sync); 3] = [&tenants, &companies, &rows];
        let (done_tenants, done): (Vec<Uuid>, Vec<Uuid>) = outcome.done.iter().copied().unzip();
        let done_parameters: [&(dyn ToSql + Sync); 4] = [&COMPANY_PROSPECT, &self.generation, &done_tenants, &done];
        let keep = &outcome.keep;
        let keep_tenants: Vec<Uuid> = keep.iter().map(|(place, _)| place.0).collect();
        let keep_companies: Vec<Uuid> = keep.iter().map(|(place, _)| place.1).collect();
        let positions: Vec<i64> = keep.iter().map(|(_, entry)| entry.position).collect();
        let next: Vec<Option<i64>> = keep.iter().map(|(_, entry)| entry.next_position).collect();
        let after: Vec<Uuid> = keep.iter().map(|(_, entry)| entry.after).collect();
        let kept: [&(dyn ToSql + Sync); 7] =
            [&COMPANY_PROSPECT, &self.generation, &keep_tenants, &keep_companies, &positions, &next, &after];
        let run = async |wanted: bool, statement, parameters: &[&(dyn ToSql + Sync)]| {
            if wanted { self.client.execute(statement, parameters).await } else { Ok(0) }
        };
        let (fanned, unqueued, queued, committed) = join!(
            run(!rows.is_empty(), &statements.fanout, &reached),
            run(!done.is_empty(), &statements.unqueue, &done_parameters),
            run(!keep.is_empty(), &statements.queue, &kept),
            self.client.batch_execute("COMMIT"),
        );
        fanned.and(unqueued).and(queued)?;
        committed
    }

    /// Has the statements planned again whenever the log has doubled: on empty tables every index looks as good as another, and a
    /// plan of then would read all of a tenant's rows to find one company's.
    async fn plan_again(&mut self) -> Result<(), Error> {
        if self.position >= 2 * self.planned.max(1) {
            self.client.batch_execute("DISCARD PLANS").await?;
            self.planned = self.position;
        }
        Ok(())
    }

    async fn forget_steps(&self) -> Result<(), StepError> {
        let oldest = self.step - STEPS_KEPT / 2;
        self.client.execute(&self.statements.forget_steps, &[&COMPANY_PROSPECT, &self.generation, &oldest]).await?;
        Ok(())
    }
}

/// Whether these are so many events, or so many bytes of them, that others may be waiting.
fn is_large(events: &[StoredEvent], events_max: i64) -> bool {
    let bytes: usize = events.iter().map(|event| event.payload.len() + event.metadata.len()).sum();
    i64::try_from(events.len()).is_ok_and(|events| events >= events_max / 2) || bytes >= PAGE_BYTES_MAX / 2
}

/// Whether another projector has taken the step: its checkpoint stands there. Any other duplicate is an error.
fn is_fenced(error: &Error) -> bool {
    let constraint = error.as_db_error().and_then(DbError::constraint).unwrap_or_default();
    error.code() == Some(&SqlState::UNIQUE_VIOLATION) && constraint.starts_with("checkpoint_steps_")
}

/// Whether the server refuses what rows hold, as it will the next time: a value that does not fit, a constraint, an index entry that is too
/// large.
fn is_refused(error: &Error) -> bool {
    error.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.code().starts_with(class)))
}

/// What the server said of rows that it refuses, without its text, which may hold values.
fn refusal(error: &Error) -> String {
    let Some(said) = error.as_db_error() else { return "no answer".to_owned() };
    let place = [said.table(), said.column(), said.constraint()].into_iter().flatten().collect::<Vec<_>>().join(", ");
    format!("{} ({place})", said.code().code())
}

/// The number in front of an epoch's name; 0 where there was none yet.
fn epoch_number(name: &str) -> i64 {
    name.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn bound(rows: usize) -> i64 {
    i64::try_from(rows).expect("bounds of a step are small")
}
