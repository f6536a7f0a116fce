//! Imports: a list of people and companies becomes commands, row by row, and every row is accounted for.
//!
//! The pure part, without database, HTTP and clock: [`Intake`] takes bytes as they are sent, undoes compression and charset and cuts
//! them into [`Chunk`]s of whole records, in bounded memory whatever comes, or says why not ([`Refusal`]). [`rows()`] takes a chunk apart
//! into [`Row`]s of cells. A [`Mapping`] says which column becomes which field; bound to the file's [`Form`] it makes a [`Mapped`] of
//! each row. `reading` says which company that leads to, and what it says of company and persons, checked.
//!
//! The rest: `receive` stores the chunks (`staging`); `work` takes imports up, one process each (`lease`); `run` goes through the rows
//! in steps; `step` finds out whose the records are and sends commands to the `world`, which is the executors or a dry run's memory;
//! `undo` takes it all back. Why it is so: `docs/decisions/0008-an-import-is-chunks-of-rows.md`.

mod bind;
mod builtin;
mod charset;
mod convert;
mod counted;
mod decompress;
mod fields;
mod form;
mod guess;
mod header;
mod ids;
mod intake;
mod lease;
mod mapped;
mod mapping;
mod members;
mod outcome;
mod place;
mod places;
mod reading;
mod receive;
mod refusal;
mod rows;
mod run;
mod sniff;
mod split;
mod staging;
mod step;
mod template;
mod text;
mod undo;
mod work;
mod world;
mod write;

pub use bind::Bound;
pub use builtin::NAMES as BUILTIN_NAMES;
pub use header::OF_REPORT;

pub use form::{Charset, Compression, Declared, Form, Format};
pub use intake::{Chunk, Intake, Taken};
pub use mapped::{Mapped, Reason};
pub use mapping::{Mapping, MappingError, Unmapped};
pub use place::Side;
pub use refusal::Refusal;
pub use rows::{BadRow, Cells, Row, rows};

pub use outcome::{Outcome, RowOutcome, RowReason};
pub use receive::{Begun, Choice, NotTaken, Receiving, Wanted};
pub use staging::{Staging, StagingError};
pub use undo::Left;
pub use work::work;

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{Import, ImportCommand, ImportError};
use event_store::executor::ExecuteError;
use event_store::load::{LoadError, Loaded};
use event_store::{Metadata, Request};
use service_kit::postgres::Database;
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use crate::carry_out::Executors;
use places::Places;

/// Lists that come in at the same time, in one process; one more is asked to come later.
const RECEIVING_MAX: usize = 8;
/// Imports that one process works on at the same time; more wait.
const RUNNING_MAX: usize = 4;
/// Of these, imports of one tenant: a place is left for others.
const RUNNING_OF_TENANT_MAX: usize = 3;
/// Of the lists that come in, those of one tenant.
const RECEIVING_OF_TENANT_MAX: usize = 6;
/// How long a command on an import itself may take.
const COMMAND_WAIT: Duration = Duration::from_secs(10);

/// Imports of one process.
pub struct Imports {
    executors: Arc<Executors>,
    staging: Staging,
    database: Database,
    /// The most text of one list, in bytes.
    text_bytes_max: u64,
    receiving: Arc<Places>,
    running: Arc<Places>,
    turns: Arc<Semaphore>,
    /// There is a new import to work on.
    wake: Notify,
    /// An import has come to its end.
    changed: Notify,
}

impl Imports {
    /// Imports that go through `executors`, keep their bytes in `staging` and their locks in `database`.
    pub fn new(executors: Arc<Executors>, staging: Staging, database: Database, text_bytes_max: u64) -> Self {
        Self {
            executors,
            staging,
            database,
            text_bytes_max,
            receiving: Places::new(RECEIVING_MAX, RECEIVING_OF_TENANT_MAX),
            running: Places::new(RUNNING_MAX, RUNNING_OF_TENANT_MAX),
            turns: Arc::new(Semaphore::new(world::IN_FLIGHT_MAX)),
            wake: Notify::new(),
            changed: Notify::new(),
        }
    }

    /// An import of a tenant as the log has it, in its default state where there is none.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub async fn find(&self, tenant_id: Uuid, import_id: Uuid) -> Result<Loaded<Import>, LoadError> {
        self.executors.store.loader().load(tenant_id, import_id).await
    }

    /// An import once it is at its end, or as it is when `wait` is over.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub async fn wait(&self, tenant_id: Uuid, import_id: Uuid, wait: Duration) -> Result<Loaded<Import>, LoadError> {
        let end = Instant::now() + wait;
        loop {
            // Another process may work on it, so it is looked at as well.
            let changed = tokio::time::timeout(Duration::from_millis(200), self.changed.notified());
            let import = self.find(tenant_id, import_id).await?;
            if !import.state.state.is_open() || Instant::now() >= end {
                return Ok(import);
            }
            // Whether it was told or the time is over, the import is looked at again.
            let _ = tokio::time::timeout_at(end.into(), changed).await;
        }
    }

    /// Asks for an import to be taken back.
    ///
    /// # Errors
    /// If it is not one that can be.
    pub async fn request_undo(
        &self,
        tenant_id: Uuid,
        import_id: Uuid,
        metadata: Metadata,
    ) -> Result<(), ExecuteError<ImportError>> {
        let request = request(tenant_id, metadata);
        let command = ImportCommand::RequestUndo;
        self.executors.imports.execute(import_id, command, &request, |_| serde_json::Map::new()).await?;
        self.wake.notify_one();
        Ok(())
    }

    /// The imports of a tenant whose outcomes are still kept, newest first.
    ///
    /// # Errors
    /// If the database cannot be had.
    pub async fn list(&self, tenant_id: Uuid) -> Result<Vec<Uuid>, StagingError> {
        self.staging.list(tenant_id).await
    }

    /// The records that taking an import back left as they were; none if that is not known any more.
    ///
    /// # Errors
    /// If the database cannot be had.
    pub async fn left(&self, tenant_id: Uuid, import_id: Uuid) -> Result<Option<Vec<Left>>, StagingError> {
        let Some(file) = self.staging.find(tenant_id, import_id).await? else { return Ok(None) };
        let Some((_, text)) = self.staging.outcomes_after(&file, undo::LEFT_PART - 1, undo::LEFT_PART).await? else {
            return Ok(None);
        };
        serde_json::from_slice(&text).map(Some).map_err(|_| StagingError::Form("left".to_owned()))
    }

    /// The outcomes of an import's rows, part by part; none if they have expired.
    ///
    /// # Errors
    /// If the database cannot be had.
    pub async fn outcomes(&self, tenant_id: Uuid, import_id: Uuid) -> Result<Option<Outcomes>, StagingError> {
        let Some(file) = self.staging.find(tenant_id, import_id).await? else { return Ok(None) };
        let head = self.staging.head(&file).await?;
        Ok(Some(Outcomes { staging: self.staging.clone(), file, form: head.map(|head| head.form), after: 0 }))
    }

    /// The mapping that an import goes by, as TOML; none where it is not known, or not any more.
    ///
    /// # Errors
    /// If the database cannot be had.
    pub async fn mapping(&self, tenant_id: Uuid, import_id: Uuid) -> Result<Option<String>, StagingError> {
        let Some(file) = self.staging.find(tenant_id, import_id).await? else { return Ok(None) };
        Ok(self.staging.head(&file).await?.map(|head| head.mapping))
    }
}

/// The outcomes of an import's rows, read part by part.
pub struct Outcomes {
    staging: Staging,
    file: staging::File,
    /// What the rows were, once all were there.
    pub form: Option<Form>,
    after: i32,
}

impl Outcomes {
    /// The next part's; none at the end.
    ///
    /// # Errors
    /// If the database cannot be had.
    pub async fn next(&mut self) -> Result<Option<Vec<RowOutcome>>, StagingError> {
        let Some((part, text)) = self.staging.outcomes_after(&self.file, self.after, i32::MAX).await? else {
            return Ok(None);
        };
        self.after = part;
        run::read_lines(&text).map(Some)
    }
}

/// What stands beside the events that an import leads to. Who sent it stands beside the import's own first event.
fn metadata(import_id: Uuid, source: &str) -> Metadata {
    let id = import_id.to_string();
    Metadata {
        actor: format!("import:{id}"),
        actor_role: "import".to_owned(),
        correlation_id: id.clone(),
        causation_id: None,
        request_id: id,
        source: source.to_owned(),
        client_address: None,
    }
}

/// A command on an import itself.
fn request(tenant_id: Uuid, metadata: Metadata) -> Request {
    let deadline = Instant::now() + COMMAND_WAIT;
    Request { tenant_id, metadata, receipt: None, if_match: None, deadline, patient: true }
}
