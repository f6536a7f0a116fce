//! Working through an import's rows, step by step: prepare, carry out, keep what became of each row, note that the step is done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::import::{ChunkFinished, ImportState};
use domain::{ImportCommand, ImportError};
use event_store::executor::ExecuteError;
use event_store::load::Loaded;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::bind::Bound;
use super::counted::Counted;
use super::intake::Chunk;
use super::mapping::Mapping;
use super::outcome::RowOutcome;
use super::reading::{Origin, Reading};
use super::rows::rows;
use super::staging::{File, Head, Staging, StagingError};
use super::step::{Already, Step};
use super::world::{Trouble, World};
use crate::carry_out::Executors;

/// A step ends with the chunk that makes it as long as this, in rows and in bytes of text.
const STEP_ROWS: usize = 1_500;
const STEP_BYTES: usize = 1 << 20;
/// Or in persons, of whom a row may have several.
const STEP_PERSONS: usize = 3_000;
/// How long a step waits before it is tried again: at first, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(3);

/// Works on one import, whose lease the caller holds.
pub struct Run {
    /// Whose.
    pub tenant_id: Uuid,
    /// Which.
    pub import_id: Uuid,
    /// Those who carry out.
    pub executors: Arc<Executors>,
    /// Where the rows are.
    pub staging: Staging,
    /// Places for commands.
    pub turns: Arc<Semaphore>,
}

/// A step's rows, read by the mapping.
struct Prepared {
    last: u32,
    readings: Vec<Reading>,
}

/// What is needed to read rows.
struct Reader {
    staging: Staging,
    file: File,
    head: Head,
    bound: Bound,
    origin: Origin,
    chunks: u32,
}

impl Run {
    /// Does what there is to do, until the import is at its end.
    ///
    /// # Errors
    /// [`Trouble::Passing`] if it is to be taken up again later; the import stands as it is.
    pub async fn run(self: &Arc<Self>) -> Result<(), Trouble> {
        let import = self.load().await?;
        match import.state.state {
            ImportState::Receiving => {
                self.fail("interrupted", "the service ended while the bytes came in: send them again").await
            }
            ImportState::Running => match self.rows(import).await {
                Err(Trouble::Lasting(why)) => {
                    tracing::error!(import_id = %self.import_id, why, "an import cannot go on");
                    // Why is not for the log: it may hold what a server said of a row.
                    let detail = "it cannot go on; the service's own log says why, beside the import's id; what it did until here can be undone";
                    self.fail("broken", detail).await
                }
                other => other,
            },
            ImportState::Undoing => super::undo::run(self, import).await,
            ImportState::Unknown | ImportState::Done | ImportState::Failed | ImportState::Undone => Ok(()),
        }
    }

    async fn rows(&self, import: Loaded<domain::Import>) -> Result<(), Trouble> {
        let (mut position, import) = (import.position, import.state);
        let (Some(opened), Some(received)) = (&import.opened, &import.received) else {
            return Err(Trouble::Lasting("the import does not say what came in".to_owned()));
        };
        if import.is_dry_run() && import.chunks_done > 0 {
            return self.fail("interrupted", "the service ended during the dry run: start it again").await;
        }
        let reader = Arc::new(self.reader(received.chunks, opened.source.clone()).await?);
        let world = Arc::new(self.world(import.is_dry_run(), opened.source.as_str()));
        let rule = Arc::new(opened.rule.clone());
        let mut counted = Counted::from(import.tally, import.position);
        if import.chunks_done > 0 {
            self.recall(&reader.file, import.chunks_done, &mut counted).await?;
        }
        let mut done = import.chunks_done;
        let mut next = ahead(&reader, done);
        while done < received.chunks && !world.is_full() {
            // Only the first step of this run can have been begun by another one.
            let begun = if done == import.chunks_done { self.already(position).await? } else { Already::new() };
            let mut already = Arc::new(begun);
            let waited = Instant::now();
            let mut prepared =
                next.await.map_err(|error| Trouble::Lasting(format!("reading rows broke: {error}")))??;
            let waited_ms = waited.elapsed().as_millis();
            let last = prepared.last;
            next = ahead(&reader, last);
            let mut wait = RETRY_FIRST;
            let outcomes = loop {
                let (world, rule) = (Arc::clone(&world), Arc::clone(&rule));
                let readings = std::mem::take(&mut prepared.readings);
                match Step::carry_out(world, self.import_id, rule, already, readings, &mut counted).await {
                    Ok(outcomes) => break outcomes,
                    Err(Trouble::Passing(why)) => {
                        tracing::info!(import_id = %self.import_id, why, "a step of an import is tried again");
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(RETRY_MOST);
                        already = Arc::new(self.already(position).await?);
                        prepared = reader.prepare(done).await?;
                    }
                    Err(trouble) => return Err(trouble),
                }
            };
            let carried_out = Instant::now();
            let part = i32::try_from(last).expect("far fewer chunks than i32::MAX");
            self.staging.put_outcomes(&reader.file, part, &lines(&outcomes)).await?;
            metrics::counter!("prospectus_import_rows_total").increment(outcomes.len() as u64);
            let finished = ChunkFinished { first: done + 1, last, tally: counted.tally, position: counted.position };
            position = self.command(ImportCommand::FinishChunk(finished)).await?;
            let kept_ms = carried_out.elapsed().as_millis();
            tracing::debug!(import_id = %self.import_id, waited_ms, kept_ms, "a step of an import is kept");
            done = last;
        }
        self.command(ImportCommand::Finish).await?;
        self.staging.remove_chunks(&reader.file).await?;
        Ok(())
    }

    /// What rows act on.
    pub fn world(&self, dry_run: bool, source: &str) -> World {
        let metadata = super::metadata(self.import_id, source);
        let (executors, staging) = (Arc::clone(&self.executors), self.staging.clone());
        World::new(self.tenant_id, executors, staging, metadata, Arc::clone(&self.turns), dry_run)
    }

    /// The import as the log has it.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub async fn load(&self) -> Result<Loaded<domain::Import>, Trouble> {
        Ok(self.executors.store.loader().load::<domain::Import>(self.tenant_id, self.import_id).await?)
    }

    /// Carries out a command on the import itself; gives its position.
    ///
    /// # Errors
    /// If it is not carried out.
    pub async fn command(&self, command: ImportCommand) -> Result<i64, Trouble> {
        let request = super::request(self.tenant_id, super::metadata(self.import_id, "import"));
        let done = self.executors.imports.execute(self.import_id, command, &request, |_| serde_json::Map::new()).await;
        match done {
            Ok(answer) => Ok(answer.position),
            // Another process has gone on with it: nothing here is to be noted as failed.
            Err(ExecuteError::Domain(error @ (ImportError::OtherChunk(_) | ImportError::NotNow(_)))) => {
                Err(Trouble::Passing(error.to_string()))
            }
            Err(error) => Err(super::world::trouble_of(error)),
        }
    }

    async fn fail(&self, code: &str, detail: &str) -> Result<(), Trouble> {
        let command = ImportCommand::Fail { code: code.to_owned(), detail: detail.to_owned() };
        self.command(command).await.map(|_| ())
    }

    async fn reader(&self, chunks: u32, source: domain::value::Line<100>) -> Result<Reader, Trouble> {
        let gone = || Trouble::Lasting("its bytes are gone: they are kept for seven days".to_owned());
        let file = self.staging.find(self.tenant_id, self.import_id).await?.ok_or_else(gone)?;
        let head = self.staging.head(&file).await?.ok_or_else(gone)?;
        let mapping = Mapping::parse(&head.mapping).map_err(|error| Trouble::Lasting(error.to_string()))?;
        let bound = mapping.bind(&head.form).map_err(|error| Trouble::Lasting(error.to_string()))?;
        let origin = Origin { import_id: self.import_id, source };
        Ok(Reader { staging: self.staging.clone(), file, head, bound, origin, chunks })
    }

    /// What the unfinished step did before it was interrupted: the import's events after that of its last finished step.
    async fn already(&self, position: i64) -> Result<Already, Trouble> {
        const SQL: &str = "-- command_service::import::run::already
            SELECT aggregate_id, min(sequence) FROM log.events
            WHERE tenant_id = $1 AND position > $2 AND payload -> 'said' ->> 'import_id' = $3
            GROUP BY aggregate_id";
        let client = self.staging.client().await?;
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&self.tenant_id, &position, &self.import_id.to_string()];
        let rows = client.query(SQL, &parameters).await.map_err(StagingError::Database)?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Which records the finished steps have met.
    async fn recall(&self, file: &File, chunks_done: u32, counted: &mut Counted) -> Result<(), Trouble> {
        let last = i32::try_from(chunks_done).expect("far fewer chunks than i32::MAX");
        let mut after = 0;
        while let Some((part, text)) = self.staging.outcomes_after(file, after, last).await? {
            after = part;
            read_lines(&text)?.iter().for_each(|row| counted.recall(row));
        }
        Ok(())
    }
}

/// Reads the next step's rows while this one is carried out.
fn ahead(reader: &Arc<Reader>, done: u32) -> JoinHandle<Result<Prepared, Trouble>> {
    let reader = Arc::clone(reader);
    tokio::spawn(async move { reader.prepare(done).await })
}

impl Reader {
    /// Reads the rows of the step after `done` chunks.
    async fn prepare(self: &Arc<Self>, done: u32) -> Result<Prepared, Trouble> {
        let mut readings: Vec<Reading> = Vec::new();
        let (mut persons, mut bytes) = (0, 0);
        let mut last = done;
        while last < self.chunks && readings.len() < STEP_ROWS && bytes < STEP_BYTES && persons < STEP_PERSONS {
            last += 1;
            let chunk = self.staging.chunk(&self.file, last).await?;
            bytes += chunk.text.len();
            let reader = Arc::clone(self);
            // Milliseconds of nothing but reckoning: not on a thread that others wait for.
            let read = tokio::task::spawn_blocking(move || reader.read(&chunk)).await;
            let read = read.map_err(|error| {
                tracing::error!(import_id = %self.file.import_id, %error, "reading rows broke");
                Trouble::Lasting("reading rows broke".to_owned())
            })?;
            persons += read.iter().map(|reading| reading.persons.len()).sum::<usize>();
            readings.extend(read);
        }
        Ok(Prepared { last, readings })
    }

    fn read(&self, chunk: &Chunk) -> Vec<Reading> {
        rows(&self.head.form, chunk).map(|row| Reading::of(row, &self.bound, &self.origin)).collect()
    }
}

/// A line of JSON a row.
fn lines(outcomes: &[RowOutcome]) -> Vec<u8> {
    let mut text = Vec::new();
    for outcome in outcomes {
        serde_json::to_writer(&mut text, outcome).expect("outcomes are plain structs with string keys");
        text.push(b'\n');
    }
    text
}

/// The outcomes that a part holds.
///
/// # Errors
/// If they are not of their form: a newer version wrote them.
pub fn read_lines(text: &[u8]) -> Result<Vec<RowOutcome>, StagingError> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let read = |line| serde_json::from_slice(line).map_err(|_| StagingError::Form("outcomes".to_owned()));
    lines.map(read).collect()
}
