//! The appender's connection: one transaction a batch, its statements pipelined.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::join;
use service_kit::postgres::{Database, describe};
use tokio::task::JoinSet;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{AsyncMessage, Client, Error, Row, Statement};
use uuid::Uuid;

use super::batch::{Rows, ValueColumns, Verdict};
use super::forget;
use super::{Append, Job, Refused};
use crate::epoch::{self, Epoch};
use crate::receipt::{Answer, FoundAnswer};

/// Begins the transaction of a batch that is looked through, and takes the log's lock: an advisory one that ends with the transaction.
const BEGIN: &str = "BEGIN; SELECT log.take_lock()";

const HEAD: &str = "-- event_store::append::session, head
    SELECT coalesce((SELECT position FROM log.events ORDER BY position DESC LIMIT 1), 0),
           (SELECT name FROM log.epochs ORDER BY number DESC LIMIT 1)";

/// The whole of a batch; what it does is told beside the function, in `migrations/sql/0003_log.sql`.
const APPEND: &str = "-- event_store::append::session, append
    SELECT base, heirs, deleted_holders
    FROM log.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25)";

/// Who held a claim of a new record before, and is deleted.
const DELETED_HOLDERS: &str = "-- event_store::append::session, deleted holders
    SELECT heir, holder FROM log.deleted_holders($1, $2, $3, $4, $5)";

/// The event that stands where a record's next one would go. $1 tenants, $2 aggregates, $3 next sequences
const NEXT_EVENTS: &str = "-- event_store::append::session, events in the way
    SELECT e.aggregate_id, e.event_id, e.position
    FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS n (tenant_id, aggregate_id, sequence)
    JOIN log.events AS e USING (tenant_id, aggregate_id, sequence)";

const HOLDERS: &str = "-- event_store::append::session, claim holders
    SELECT n.ordinality, c.aggregate_id
    FROM unnest($1::uuid[], $2::text[], $3::text[]) WITH ORDINALITY AS n (tenant_id, kind, key, ordinality)
    JOIN log.claims AS c ON c.tenant_id = n.tenant_id AND c.kind = n.kind AND c.key = n.key AND NOT c.released";

const RECEIPTS: &str = "-- event_store::append::session, receipts
    SELECT r.tenant_id, r.idempotency_key, r.request_hmac, r.answer, r.position
    FROM unnest($1::uuid[], $2::text[]) AS n (tenant_id, idempotency_key)
    JOIN log.receipts AS r USING (tenant_id, idempotency_key)";

/// Writes WAL without changing anything, so that this commit waits for what earlier commits wait for (a synchronous standby).
const CONFIRM: &str = "-- event_store::append::session, confirm
    SELECT pg_logical_emit_message(true, 'prospectus', 'confirm')";

/// How thoroughly a batch is looked through before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// Only what constraints cannot tell: commands that may be there already, and receipts that are asked for.
    Needed,
    /// Every version and claim too.
    All,
}

/// Why a batch was not written, or is not known to be.
pub(super) enum Failure {
    /// It may have been committed.
    Lost(String),
    /// It was rolled back for a reason that passes: the server is going away, a lock was not to be had.
    Passing(String),
    /// It was rolled back because of what is in it.
    Rejected(String),
}

/// Why the appender has no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The server said no, or is away.
    #[error("{}", describe(.0))]
    Database(#[from] Error),
    /// Nothing was heard from the server.
    #[error("no answer in time")]
    TimedOut,
    /// The server brings back a past that was left: what was acknowledged since would be lost in silence.
    #[error("the server's log is in epoch {found}, older than {seen}, which was seen before")]
    OlderEpoch {
        /// The server's newest epoch.
        found: Arc<str>,
        /// The newest epoch seen by this process.
        seen: Arc<str>,
    },
}

/// What one batch did.
pub(super) struct Written {
    /// For each command.
    pub(super) verdicts: Vec<Verdict>,
    /// Events written.
    pub(super) events: usize,
    /// Highest position afterwards.
    pub(super) head: i64,
}

pub(super) struct Session {
    client: Client,
    /// Counts the server's warnings; one on COMMIT means that a synchronous wait was cut short.
    warnings: Arc<AtomicU64>,
    pub(super) epoch: Epoch,
    statements: Statements,
    /// What drives the connection; it ends with the session, also where an answer is still awaited.
    _connection: JoinSet<()>,
}

struct Statements {
    head: Statement,
    append: Statement,
    deleted_holders: Statement,
    next_events: Statement,
    holders: Statement,
    receipts: Statement,
    confirm: Statement,
    forget: forget::Statements,
}

impl Session {
    /// Connects and names the epoch, writing a new one if this server's life of the log has none. Gives the log's head.
    pub(super) async fn open(database: &Database, seen: Option<&Epoch>) -> Result<(Self, i64), OpenError> {
        let (client, mut connection) = database.connect().await?;
        let warnings = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&warnings);
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notice(notice) = message
                    && notice.severity() == "WARNING"
                {
                    tracing::warn!(message = notice.message(), "the server warns the appender");
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        client.batch_execute(BEGIN).await?;
        let epoch = epoch::current(&client).await?;
        client.batch_execute("COMMIT").await?;
        if let Some(seen) = seen
            && epoch.number < seen.number
        {
            return Err(OpenError::OlderEpoch { found: epoch.name, seen: seen.name.clone() });
        }
        let statements = Statements {
            head: client.prepare(HEAD).await?,
            append: client.prepare(APPEND).await?,
            deleted_holders: client.prepare(DELETED_HOLDERS).await?,
            next_events: client.prepare(NEXT_EVENTS).await?,
            holders: client.prepare(HOLDERS).await?,
            receipts: client.prepare(RECEIPTS).await?,
            confirm: client.prepare(CONFIRM).await?,
            forget: forget::Statements::prepare(&client).await?,
        };
        let head = client.query_one(&statements.head, &[]).await?.get(0);
        Ok((Self { client, warnings, epoch, statements, _connection: driver }, head))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Writes a batch in one round trip, a transaction of its own: the constraints decide.
    pub(super) async fn write(&self, jobs: &[Job]) -> Result<Written, Failure> {
        let (rows, ends) = self.rows(jobs);
        let warnings = self.warnings.load(Ordering::SeqCst);
        let row = match self.append(&rows).await {
            Ok(row) => row,
            // What ended the connection, or warned, may have come after the commit.
            Err(error) => match error.as_db_error() {
                Some(told) if told.parsed_severity() == Some(Severity::Error) => return Err(failure(&error)),
                _ => return Err(Failure::Lost(describe(&error))),
            },
        };
        self.told_nothing_since(warnings)?;
        Ok(self.written(jobs, &row, &ends))
    }

    /// The rows of all commands whose versions were read in this epoch.
    fn rows<'a>(&'a self, jobs: &'a [Job]) -> (Rows<'a>, Vec<i64>) {
        let epoch = &*self.epoch.name;
        Rows::collect(jobs, epoch, |index| in_epoch(&jobs[index].append, epoch).then_some(&jobs[index].append.answer))
    }

    fn written(&self, jobs: &[Job], row: &Row, ends: &[i64]) -> Written {
        let epoch = &*self.epoch.name;
        let base: i64 = row.get(0);
        let heirs: Option<Vec<Uuid>> = row.get(1);
        let holders: Option<Vec<Uuid>> = row.get(2);
        let deleted = heirs.into_iter().flatten().zip(holders.into_iter().flatten()).collect();
        let mut events = 0;
        let verdicts = jobs.iter().zip(ends).map(|(job, end)| {
            if !in_epoch(&job.append, epoch) {
                return Verdict::Refuse(Refused::Conflict);
            }
            events += job.append.size().0;
            Verdict::Write(job.append.answered(base + end, epoch, deleted_holder(&deleted, job)))
        });
        let verdicts = verdicts.collect();
        Written { verdicts, events, head: base + i64::try_from(events).expect("a batch is bounded") }
    }

    /// Two round trips under the lock: what is there, then what passes.
    pub(super) async fn look_and_write(&mut self, jobs: &[Job], care: Care) -> Result<Written, Failure> {
        let warnings = self.warnings.load(Ordering::SeqCst);
        let (begun, head, deleted, events, holders, erased, receipts) = join!(
            self.client.batch_execute(BEGIN),
            self.client.query_one(&self.statements.head, &[]),
            self.deleted_holders(jobs),
            self.events_in_the_way(jobs, care),
            self.holders(jobs, care),
            async {
                if care == Care::Needed {
                    return Ok(HashSet::new());
                }
                self.statements.forget.name_the_erased(&self.client, jobs).await
            },
            self.receipts(jobs),
        );
        let looked = (|| {
            begun?;
            Ok((head?, deleted?, events?, holders?, erased?, receipts?))
        })();
        let (head, deleted, events, holders, erased, receipts) = match looked {
            Ok(found) => found,
            Err(error) => {
                self.roll_back().await;
                return Err(failure(&error));
            }
        };
        let base: i64 = head.get(0);
        let epoch = self.note_epoch(&head).await?;
        let mut verdicts: Vec<Verdict> = jobs
            .iter()
            .enumerate()
            .map(|(place, job)| {
                if let Some((hmac, answer)) = job
                    .append
                    .receipt
                    .as_ref()
                    .and_then(|receipt| receipts.get(&(job.append.tenant_id, receipt.key.as_str())))
                {
                    let same = job.append.receipt.as_ref().is_some_and(|receipt| receipt.request_hmac == hmac[..]);
                    return if same { Verdict::There(answer.clone()) } else { Verdict::Refuse(Refused::KeyReused) };
                }
                if job.lookup {
                    return Verdict::Refuse(Refused::NoReceipt);
                }
                let deleted = deleted_holder(&deleted, job);
                for stream in &job.append.streams {
                    let Some((event, position)) = events.get(&stream.aggregate_id) else { continue };
                    if stream.events.first().is_some_and(|first| first.event_id == *event) {
                        // An append whose answer was lost: all of it is there, from its first record's first event on.
                        let first = &job.append.streams[0];
                        let position = events.get(&first.aggregate_id).map_or(*position, |(_, position)| *position);
                        let end = position + i64::try_from(job.append.size().0).expect("a command has few events") - 1;
                        return Verdict::There(job.append.answered(end, &epoch, deleted));
                    }
                    return Verdict::Refuse(Refused::Conflict);
                }
                if !in_epoch(&job.append, &epoch) {
                    return Verdict::Refuse(Refused::Conflict);
                }
                if let Some(refused) = refused_by_claims(&job.append, &holders) {
                    return Verdict::Refuse(refused);
                }
                if erased.contains(&place) {
                    return Verdict::Refuse(Refused::ErasedPerson);
                }
                Verdict::Write(job.append.answered(0, &epoch, deleted))
            })
            .collect();
        let told = |index: usize| match &verdicts[index] {
            Verdict::Write(answer) => Some(answer),
            Verdict::There(_) | Verdict::Refuse(_) => None,
        };
        let (mut rows, ends) = Rows::collect(jobs, &epoch, told);
        // The answers tell already of whom a record inherits from.
        rows.values.act.iter_mut().filter(|act| **act == "inherit").for_each(|act| *act = "take");
        let events = rows.events.tenant.len();
        let written = verdicts.iter().zip(jobs).filter(|(verdict, _)| matches!(verdict, Verdict::Write(_)));
        let forgotten = forget::Columns::of(written.map(|(_, job)| &job.append));
        // What was found may stand only locally so far: it is told after a commit of our own that wrote WAL.
        let confirm = events == 0 && verdicts.iter().any(|verdict| matches!(verdict, Verdict::There(_)));
        let (wrote, forgot, confirmed, committed) = join!(
            self.append(&rows),
            self.statements.forget.forget(&self.client, &forgotten),
            async { if confirm { self.client.execute(&self.statements.confirm, &[]).await } else { Ok(0) } },
            self.client.batch_execute("COMMIT"),
        );
        wrote.map(drop).and(forgot).and(confirmed).map_err(|error| failure(&error))?;
        committed.map_err(|error| Failure::Lost(describe(&error)))?;
        self.told_nothing_since(warnings)?;
        for ((verdict, end), job) in verdicts.iter_mut().zip(&ends).zip(jobs) {
            if let Verdict::Write(answer) = verdict
                && !job.append.streams.is_empty()
            {
                answer.position = base + end;
            }
        }
        Ok(Written { verdicts, events, head: base + i64::try_from(events).expect("a batch is bounded") })
    }

    /// A warning beside a commit leaves the outcome unknown: a synchronous wait was cut short.
    fn told_nothing_since(&self, warnings: u64) -> Result<(), Failure> {
        if self.warnings.load(Ordering::SeqCst) == warnings {
            Ok(())
        } else {
            Err(Failure::Lost("the server warned while committing".to_owned()))
        }
    }

    /// An operator may have begun another epoch under a living connection (`prospectus log new-epoch`).
    async fn note_epoch(&mut self, head: &Row) -> Result<Arc<str>, Failure> {
        let name: &str = head.get(1);
        if name != &*self.epoch.name {
            let newest = Epoch::newest(&self.client).await.map_err(|error| failure(&error))?;
            self.epoch = newest.expect("an epoch was written when this session was opened, and none is ever removed");
        }
        Ok(self.epoch.name.clone())
    }

    async fn roll_back(&self) {
        // If this fails too, the connection is gone and the server rolls back by itself.
        let _ = self.client.batch_execute("ROLLBACK").await;
    }

    async fn append(&self, rows: &Rows<'_>) -> Result<Row, Error> {
        let Rows { events: e, keys: k, values: v, receipts: r } = rows;
        let parameters: [&(dyn ToSql + Sync); 25] = [
            &&*self.epoch.name,
            &e.tenant,
            &e.aggregate_type,
            &e.aggregate,
            &e.sequence,
            &e.event,
            &e.event_type,
            &e.event_version,
            &e.payload,
            &e.metadata,
            &k.tenant,
            &k.person,
            &k.wrapping_key,
            &k.wrapped,
            &v.act,
            &v.tenant,
            &v.kind,
            &v.key,
            &v.aggregate,
            &r.tenant,
            &r.key,
            &r.hmac,
            &r.answer,
            &r.position,
            &r.end,
        ];
        self.client.query_one(&self.statements.append, &parameters).await
    }

    /// For each new record that takes a claim which a deleted one had: (new record, deleted one).
    async fn deleted_holders(&self, jobs: &[Job]) -> Result<HashMap<Uuid, Uuid>, Error> {
        let mut values = ValueColumns::default();
        for job in jobs {
            values.push_all(&job.append);
        }
        if !values.act.contains(&"inherit") {
            return Ok(HashMap::new());
        }
        let parameters: [&(dyn ToSql + Sync); 5] =
            [&values.act, &values.tenant, &values.kind, &values.key, &values.aggregate];
        let rows = self.client.query(&self.statements.deleted_holders, &parameters).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// What stands where the records' next events would go: (record, (event id, position)).
    async fn events_in_the_way(&self, jobs: &[Job], care: Care) -> Result<HashMap<Uuid, (Uuid, i64)>, Error> {
        let (mut tenants, mut aggregates, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs.iter().filter(|job| care == Care::All || job.uncertain) {
            for stream in &job.append.streams {
                tenants.push(job.append.tenant_id);
                aggregates.push(stream.aggregate_id);
                sequences.push(stream.expected_version + 1);
            }
        }
        if tenants.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = self.client.query(&self.statements.next_events, &[&tenants, &aggregates, &sequences]).await?;
        Ok(rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect())
    }

    /// Who holds the claims that are required, and those that are to be taken if all are looked at.
    async fn holders<'a>(&self, jobs: &'a [Job], care: Care) -> Result<Holders<'a>, Error> {
        let mut wanted = Vec::new();
        for append in jobs.iter().map(|job| &job.append) {
            let take = append.take.iter().filter(|_| care == Care::All);
            wanted.extend(
                append.require.iter().chain(take).map(|claim| (append.tenant_id, claim.kind, claim.key.as_str())),
            );
        }
        if wanted.is_empty() {
            return Ok(Holders::new());
        }
        let tenants: Vec<Uuid> = wanted.iter().map(|(tenant, _, _)| *tenant).collect();
        let kinds: Vec<&str> = wanted.iter().map(|(_, kind, _)| *kind).collect();
        let keys: Vec<&str> = wanted.iter().map(|(_, _, key)| *key).collect();
        let rows = self.client.query(&self.statements.holders, &[&tenants, &kinds, &keys]).await?;
        Ok(rows
            .iter()
            .map(|row| {
                let ordinality = usize::try_from(row.get::<_, i64>(0)).expect("ordinalities count from 1");
                (wanted[ordinality - 1], row.get(1))
            })
            .collect())
    }

    async fn receipts<'a>(&self, jobs: &'a [Job]) -> Result<HashMap<(Uuid, &'a str), (Vec<u8>, Answer)>, Error> {
        let (mut tenants, mut keys) = (Vec::new(), Vec::new());
        for job in jobs {
            if let Some(receipt) = &job.append.receipt {
                tenants.push(job.append.tenant_id);
                keys.push(receipt.key.as_str());
            }
        }
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = self.client.query(&self.statements.receipts, &[&tenants, &keys]).await?;
        let mut found: HashMap<(Uuid, String), (Vec<u8>, Answer)> = HashMap::with_capacity(rows.len());
        for row in &rows {
            let answer = row.try_get::<_, Json<FoundAnswer>>(3)?.0.at(row.get(4));
            found.insert((row.get(0), row.get(1)), (row.get(2), answer));
        }
        Ok(tenants
            .into_iter()
            .zip(keys)
            .filter_map(|(tenant, key)| Some(((tenant, key), found.remove(&(tenant, key.to_owned()))?)))
            .collect())
    }
}

/// (tenant, kind, key) to who holds it.
type Holders<'a> = HashMap<(Uuid, &'a str, &'a str), Uuid>;

impl Job {
    /// Whether constraints alone can refuse it, and one call writes all of it.
    pub(super) fn takes_its_chance(&self) -> bool {
        !self.uncertain && !self.lookup && self.append.forget.is_none()
    }
}

impl Append {
    fn answered(&self, position: i64, epoch: &str, deleted_holder: Option<Uuid>) -> Answer {
        let mut answer = self.answer.clone();
        if !self.streams.is_empty() {
            answer.position = position;
        }
        epoch.clone_into(&mut answer.epoch);
        if let Some(holder) = deleted_holder {
            answer.details.insert("deleted_holder".to_owned(), holder.to_string().into());
        }
        answer
    }
}

/// Versions read in another life of the log say nothing about this one.
fn in_epoch(append: &Append, epoch: &str) -> bool {
    append.epoch.as_ref().is_none_or(|read_in| **read_in == *epoch)
}

fn deleted_holder(found: &HashMap<Uuid, Uuid>, job: &Job) -> Option<Uuid> {
    found.get(&job.append.streams.first()?.aggregate_id).copied()
}

fn refused_by_claims(append: &Append, holders: &Holders<'_>) -> Option<Refused> {
    for claim in &append.require {
        if !holders.contains_key(&(append.tenant_id, claim.kind, claim.key.as_str())) {
            return Some(Refused::ClaimMissing { kind: claim.kind, aggregate_id: claim.aggregate_id });
        }
    }
    let released = |claim: &super::KeyedValue| append.release.contains(claim);
    append.take.iter().filter(|claim| !released(claim)).find_map(|claim| {
        let holder = *holders.get(&(append.tenant_id, claim.kind, claim.key.as_str()))?;
        // A merge hands claims over: given up by one of the command's own records, taken by another.
        let handed_over = append
            .release
            .iter()
            .any(|given| given.kind == claim.kind && given.key == claim.key && given.aggregate_id == holder);
        (!handed_over).then_some(Refused::ClaimTaken { kind: claim.kind, holder })
    })
}

/// Sorts an error of a statement before COMMIT: the transaction is rolled back in any case, unless nobody knows.
fn failure(error: &Error) -> Failure {
    let Some(code) = error.code() else { return Failure::Lost(describe(error)) };
    if code == &SqlState::READ_ONLY_SQL_TRANSACTION {
        return Failure::Passing(describe(error));
    }
    // Classes of SQLSTATE: 08 connection, 25 transaction state (time-outs, read-only), 40 rollback, 53 resources, 55 object not
    // available, 57 operator, 58 and XX system.
    match &code.code()[..2] {
        "08" | "25" | "40" | "53" | "55" | "57" | "58" | "XX" => Failure::Passing(describe(error)),
        _ => Failure::Rejected(describe(error)),
    }
}
