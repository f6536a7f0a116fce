//! Taking an import back: every record that it touched is again what it was, by an event of its own, unless somebody has changed it
//! since. What it touched stands in the log, not in the outcomes, which expire.

use std::collections::HashSet;
use std::sync::Arc;

use domain::import::ImportUndone;
use domain::{CompanyEvent, Import, ImportCommand, ProspectEvent, Record, Undo};
use event_store::Executor;
use event_store::append::Refused;
use event_store::executor::ExecuteError;
use event_store::load::Loaded;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::run::Run;
use super::staging::StagingError;
use super::world::{Trouble, trouble_of};
use crate::carry_out::Executors;

/// Events of the log that are looked at together.
const PAGE: i64 = 2_000;
/// How often a record is looked at again that changes at that very moment.
const ATTEMPTS: usize = 5;

/// A record that was left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// `company` or `prospect`.
    pub kind: String,
    /// Which one.
    pub id: Uuid,
    /// `changed_since`; `claim_taken` where another record has what it had; `erased_person` where what it had names an erased person.
    pub reason: String,
}

/// What became of one record.
enum Undone {
    /// The import did not touch it, or it was met before.
    Nothing,
    /// It is what it was; the event's position, where this run appended it.
    Back(Option<i64>),
    Left(&'static str),
}

/// Takes an import back, prospects before companies, and says so in its history. Done again after a crash it goes on.
///
/// # Errors
/// [`Trouble::Passing`] if it is to be taken up again later.
pub(super) async fn run(run: &Arc<Run>, import: Loaded<Import>) -> Result<(), Trouble> {
    let mut undone =
        ImportUndone { companies: 0, prospects: 0, left: 0, position: 0, at: time::OffsetDateTime::UNIX_EPOCH };
    let mut left = Vec::new();
    let prospects = Pass {
        run: Arc::clone(run),
        executor: |executors| &executors.prospects,
        undo: domain::prospect::undo,
        head: import.position,
    };
    undone.prospects = prospects.run(&mut left, &mut undone.position, ProspectEvent::import_id).await?;
    let companies = Pass {
        run: Arc::clone(run),
        executor: |executors| &executors.companies,
        undo: domain::company::undo,
        head: import.position,
    };
    undone.companies = companies.run(&mut left, &mut undone.position, CompanyEvent::import_id).await?;
    undone.left = left.len() as u64;
    let file = match run.staging.find(run.tenant_id, run.import_id).await? {
        Some(file) => file,
        // Its bytes have expired; what was left is kept for as long again.
        None => run.staging.create(run.tenant_id, run.import_id).await?,
    };
    let text = serde_json::to_vec(&left).expect("plain structs always serialise");
    run.staging.put_outcomes(&file, LEFT_PART, &text).await?;
    run.command(ImportCommand::FinishUndo(undone)).await.map(|_| ())
}

/// Where the outcomes keep what was left.
pub const LEFT_PART: i32 = -1;

/// How an import is taken back from the record of some events.
type UndoOf<E> = fn(&[E], Uuid) -> Undo<E>;

/// All records of one sort that the import touched.
struct Pass<R: Record> {
    run: Arc<Run>,
    executor: fn(&Executors) -> &Executor<R>,
    undo: UndoOf<R::Event>,
    head: i64,
}

impl<R: Record> Clone for Pass<R> {
    fn clone(&self) -> Self {
        Self { run: Arc::clone(&self.run), ..*self }
    }
}

impl<R: Record<Error: Send>> Pass<R> {
    async fn run(
        &self,
        left: &mut Vec<Left>,
        position: &mut i64,
        import_id: fn(&R::Event) -> Option<Uuid>,
    ) -> Result<u64, Trouble> {
        const BEGIN: &str = "-- command_service::import::undo::begin
            SELECT position FROM log.events WHERE tenant_id = $1 AND aggregate_id = $2 ORDER BY sequence LIMIT 1";
        let Run { tenant_id, import_id: import, .. } = &*self.run;
        let client = self.run.staging.client().await?;
        let row = client.query_one(BEGIN, &[tenant_id, import]).await.map_err(StagingError::Database)?;
        drop(client);
        let mut after: i64 = row.get(0);
        let (mut back, mut resumed) = (0, false);
        while let Some((last, touched)) = self.touched(after).await? {
            let mut under_way = JoinSet::new();
            for (id, first) in touched {
                let pass = self.clone();
                under_way.spawn(async move { pass.take_back(id, first, import_id).await.map(|undone| (id, undone)) });
            }
            while let Some(undone) = under_way.join_next().await {
                match undone.map_err(|error| Trouble::Lasting(format!("taking a record back broke: {error}")))?? {
                    (_, Undone::Nothing) => {}
                    (_, Undone::Back(at)) => {
                        back += 1;
                        // Done before a crash: where is not known, so all that is there counts.
                        resumed |= at.is_none();
                        *position = (*position).max(at.unwrap_or_default());
                    }
                    (id, Undone::Left(reason)) => {
                        left.push(Left { kind: R::TYPE.to_owned(), id, reason: reason.to_owned() });
                    }
                }
            }
            after = last;
        }
        if resumed {
            *position = (*position).max(self.newest().await?);
        }
        left.sort_by_key(|left| left.id);
        Ok(back)
    }

    /// The log's highest position.
    async fn newest(&self) -> Result<i64, Trouble> {
        const SQL: &str = "-- command_service::import::undo::newest
            SELECT max(position) FROM log.events";
        let row = self.run.staging.client().await?.query_one(SQL, &[]).await.map_err(StagingError::Database)?;
        Ok(row.get::<_, Option<i64>>(0).unwrap_or_default())
    }

    /// The records that a page of the import's events speaks of, each with the first of these events' sequence; none at the end.
    async fn touched(&self, after: i64) -> Result<Option<(i64, Vec<(Uuid, i64)>)>, Trouble> {
        const SQL: &str = "-- command_service::import::undo::touched
            SELECT position, aggregate_id, sequence FROM log.events
            WHERE tenant_id = $1 AND position > $2 AND position <= $3 AND aggregate_type = $4
              AND payload -> 'said' ->> 'import_id' = $5
            ORDER BY position LIMIT $6";
        let client = self.run.staging.client().await?;
        let import = self.run.import_id.to_string();
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&self.run.tenant_id, &after, &self.head, &R::TYPE, &import, &PAGE];
        let rows = client.query(SQL, &parameters).await.map_err(StagingError::Database)?;
        let Some(last) = rows.last() else { return Ok(None) };
        let mut met = HashSet::new();
        let records = rows.iter().map(|row| (row.get::<_, Uuid>(1), row.get::<_, i64>(2)));
        let touched = records.filter(|(id, _)| met.insert(*id)).collect();
        Ok(Some((last.get(0), touched)))
    }

    async fn take_back(
        &self,
        id: Uuid,
        first: i64,
        import_id: fn(&R::Event) -> Option<Uuid>,
    ) -> Result<Undone, Trouble> {
        let run = &self.run;
        let _turn = run.turns.acquire().await.map_err(|_| Trouble::Passing("stopping".to_owned()))?;
        for _ in 0..ATTEMPTS {
            let history = run.executors.store.loader().history::<R>(run.tenant_id, id).await?;
            let begun = history.iter().find(|(_, event)| import_id(event) == Some(run.import_id));
            if begun.is_none_or(|(sequence, _)| *sequence != first) {
                // An earlier page has met it.
                return Ok(Undone::Nothing);
            }
            let version = history.last().map_or(0, |(sequence, _)| *sequence);
            let events: Vec<R::Event> = history.into_iter().map(|(_, event)| event).collect();
            let event = match (self.undo)(&events, run.import_id) {
                Undo::Nothing => return Ok(Undone::Nothing),
                Undo::Done => return Ok(Undone::Back(None)),
                Undo::ChangedSince => return Ok(Undone::Left("changed_since")),
                Undo::By(event) => event,
            };
            let mut request = super::request(run.tenant_id, super::metadata(run.import_id, "import"));
            request.if_match = Some(version);
            match (self.executor)(&run.executors).carry(id, false, &request, |_, _| Ok((vec![event.clone()], ()))).await
            {
                Ok((answer, ())) => return Ok(Undone::Back(Some(answer.position))),
                // It has changed since it was looked at.
                Err(ExecuteError::Precondition(_)) => {}
                Err(ExecuteError::Refused(Refused::ClaimTaken { .. })) => return Ok(Undone::Left("claim_taken")),
                // What it had before names somebody who was erased since.
                Err(ExecuteError::Refused(Refused::ErasedPerson)) => return Ok(Undone::Left("erased_person")),
                Err(error) => return Err(trouble_of(error)),
            }
        }
        Ok(Undone::Left("changed_since"))
    }
}
