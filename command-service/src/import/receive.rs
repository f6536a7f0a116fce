//! Taking in a list: its bytes are read once for their form as they come, and stored as chunks of whole records.

use std::sync::Arc;

use domain::import::{ImportOpened, ImportReceived};
use domain::value::Line;
use domain::{ConflictRule, ImportCommand, ImportError};
use event_store::executor::ExecuteError;
use event_store::receipt::NewReceipt;
use event_store::{Metadata, Request};
use uuid::Uuid;

use super::form::Declared;
use super::intake::{Chunk, Intake};
use super::lease::{Lease, LeaseError};
use super::mapping::{Mapping, MappingError, Unmapped};
use super::places::Place;
use super::refusal::Refusal;
use super::rows::rows;
use super::staging::{File, Head, StagingError};
use super::world::{Trouble, trouble_of};
use super::{Imports, request};

/// Records of one import: their numbers take 32 bits of an id.
const ROWS_MAX: u64 = 4_000_000_000;

/// What is to be imported, and how.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The name of the list's source.
    pub source: Line<100>,
    /// Which column becomes which field.
    pub mapping: Choice,
    /// What becomes of other columns, where that is not left to the mapping.
    pub unmapped: Option<Unmapped>,
    /// Whether nothing is to be written.
    pub dry_run: bool,
    /// Which of two values wins.
    pub rule: ConflictRule,
    /// What is known of the bytes.
    pub declared: Declared,
}

/// Which mapping.
#[derive(Debug, Clone)]
pub enum Choice {
    /// One that is built in.
    Named(String),
    /// This one.
    Given(Box<Mapping>),
    /// One that the columns' names suggest.
    Guess,
}

/// Why a list is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// There is something wrong with it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The mapping does not fit it.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// It is larger than lists may be.
    #[error("the list is larger than the {0} that this service takes: cut it into several")]
    TooLarge(String),
    /// Too many lists come in at this moment.
    #[error("too many lists are coming in at this moment")]
    Busy,
    /// It cannot be stored.
    #[error("it cannot be stored: {0}")]
    Storage(#[from] StagingError),
    /// The command that begins it is refused: an idempotency key used otherwise, a full queue.
    #[error(transparent)]
    Command(Box<ExecuteError<ImportError>>),
    /// The import itself cannot be noted.
    #[error("{0}")]
    Trouble(#[from] Trouble),
}

/// How an import began.
pub enum Begun {
    /// Its bytes may come.
    Receiving(Box<Receiving>),
    /// It began before, with the same idempotency key.
    Before(Uuid),
}

/// A list that comes in. Dropped before its end it is noted as interrupted.
pub struct Receiving {
    imports: Arc<Imports>,
    tenant_id: Uuid,
    /// The import.
    pub import_id: Uuid,
    metadata: Metadata,
    wanted: Wanted,
    file: File,
    intake: Intake,
    mapping: Option<Mapping>,
    chunks: u32,
    text_bytes: u64,
    lease: Option<Lease>,
    ended: bool,
    _place: Place,
}

impl Imports {
    /// Begins an import of a tenant, in whose events `metadata` says who sent it.
    ///
    /// # Errors
    /// If it cannot be begun.
    pub async fn begin(
        self: &Arc<Self>,
        tenant_id: Uuid,
        metadata: Metadata,
        receipt: Option<NewReceipt>,
        wanted: Wanted,
    ) -> Result<Begun, NotTaken> {
        let place = self.receiving.take(tenant_id).ok_or(NotTaken::Busy)?;
        let import_id = Uuid::now_v7();
        let lease = Lease::take(&self.database, import_id).await.map_err(|error| match error {
            LeaseError::Held => Trouble::Lasting("a new import's lock is held".to_owned()),
            LeaseError::Unavailable(why) => Trouble::Passing(why),
        })?;
        let opened = ImportOpened {
            source: wanted.source.clone(),
            mapping: match &wanted.mapping {
                Choice::Named(name) => Some(name.clone()),
                Choice::Given(_) | Choice::Guess => None,
            },
            dry_run: wanted.dry_run,
            rule: wanted.rule.clone(),
            at: time::OffsetDateTime::now_utc(),
        };
        let request = Request { receipt, ..request(tenant_id, metadata.clone()) };
        let answer = self.executors.imports.create(import_id, ImportCommand::Open(opened), &request).await;
        let answer = answer.map_err(|error| NotTaken::Command(Box::new(error)))?;
        if answer.id != import_id {
            return Ok(Begun::Before(answer.id));
        }
        let file = match self.staging.create(tenant_id, import_id).await {
            Ok(file) => file,
            Err(error) => {
                self.note_failed(tenant_id, import_id, metadata, "not_stored", "it could not be stored: send it again")
                    .await;
                return Err(error.into());
            }
        };
        let intake = Intake::new(wanted.declared);
        Ok(Begun::Receiving(Box::new(Receiving {
            imports: Arc::clone(self),
            tenant_id,
            import_id,
            metadata,
            wanted,
            file,
            intake,
            mapping: None,
            chunks: 0,
            text_bytes: 0,
            lease: Some(lease),
            ended: false,
            _place: place,
        })))
    }

    /// Notes that an import failed before it ran, and removes its bytes.
    async fn note_failed(&self, tenant_id: Uuid, import_id: Uuid, metadata: Metadata, code: &str, detail: &str) {
        let command = ImportCommand::Fail { code: code.to_owned(), detail: detail.to_owned() };
        let request = request(tenant_id, metadata);
        let noted = self.executors.imports.execute(import_id, command, &request, |_| serde_json::Map::new()).await;
        if let Err(error) = noted {
            // Whoever takes it up next finds that it was interrupted, and notes that.
            tracing::warn!(%import_id, error = %trouble_of(error), "a failed import could not be noted");
        }
        if let Err(error) = self.staging.remove(tenant_id, import_id).await {
            tracing::warn!(%import_id, %error, "the bytes of a failed import stay until they expire");
        }
    }
}

impl Receiving {
    /// Takes bytes, and stores the chunks that they complete.
    ///
    /// # Errors
    /// Why the list is refused, or not stored: nothing more is taken.
    pub async fn take(&mut self, bytes: &[u8]) -> Result<(), NotTaken> {
        let mut rest = bytes;
        let mut chunks = Vec::new();
        loop {
            let more = self.intake.step(&mut rest, &mut chunks)?;
            self.store(&mut chunks).await?;
            if !more {
                return Ok(());
            }
        }
    }

    /// All bytes are there: the import runs from here on.
    ///
    /// # Errors
    /// As [`Receiving::take`].
    pub async fn finish(&mut self) -> Result<(), NotTaken> {
        let mut chunks = Vec::new();
        let taken = self.intake.finish(&mut chunks)?;
        self.store(&mut chunks).await?;
        let mapping = self.mapping.as_ref().map(Mapping::to_toml).unwrap_or_default();
        self.imports.staging.put_head(&self.file, &Head { form: taken.form, mapping }).await?;
        let received = ImportReceived { rows: taken.rows, chunks: self.chunks, bytes: taken.bytes };
        let request = request(self.tenant_id, self.metadata.clone());
        let command = ImportCommand::Receive(received);
        let imports = &self.imports.executors.imports;
        let done = imports.execute(self.import_id, command, &request, |_| serde_json::Map::new()).await;
        done.map_err(trouble_of)?;
        self.ended = true;
        self.lease = None;
        self.imports.wake.notify_one();
        Ok(())
    }

    /// Notes that the list was not taken, and why.
    pub async fn give_up(mut self, why: &NotTaken) {
        self.ended = true;
        let (code, detail) = why.noted();
        let metadata = self.metadata.clone();
        self.imports.note_failed(self.tenant_id, self.import_id, metadata, code, &detail).await;
    }

    async fn store(&mut self, chunks: &mut Vec<Chunk>) -> Result<(), NotTaken> {
        for chunk in chunks.drain(..) {
            if self.mapping.is_none() {
                self.mapping = Some(self.fitting(&chunk)?);
            }
            self.text_bytes += chunk.text.len() as u64;
            let most = self.imports.text_bytes_max;
            if self.text_bytes > most {
                return Err(NotTaken::TooLarge(format!("{} GiB of text", most >> 30)));
            }
            if chunk.first_row + u64::from(chunk.rows) > ROWS_MAX {
                return Err(NotTaken::TooLarge(format!("{ROWS_MAX} rows")));
            }
            self.chunks += 1;
            self.imports.staging.put_chunk(&self.file, self.chunks, &chunk).await?;
        }
        Ok(())
    }

    /// The mapping, if it fits the list: known as soon as there are records.
    fn fitting(&self, first: &Chunk) -> Result<Mapping, NotTaken> {
        let form = self.intake.form().ok_or(Refusal::Empty)?;
        let mut mapping = match &self.wanted.mapping {
            Choice::Named(name) => Mapping::builtin(name).ok_or_else(|| MappingError::Field(name.clone()))?,
            Choice::Given(mapping) => (**mapping).clone(),
            Choice::Guess => Mapping::guess(form, rows(form, first)),
        };
        if let Some(unmapped) = self.wanted.unmapped {
            mapping.unmapped = unmapped;
        }
        mapping.bind(form)?;
        Ok(mapping)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (imports, tenant_id, import_id) = (Arc::clone(&self.imports), self.tenant_id, self.import_id);
        let (metadata, lease) = (self.metadata.clone(), self.lease.take());
        // If the process ends first, the next one to take it up notes it.
        tokio::spawn(async move {
            imports
                .note_failed(tenant_id, import_id, metadata, "interrupted", "the bytes broke off: send them again")
                .await;
            drop(lease);
        });
    }
}

impl NotTaken {
    /// The same for the import's history, which stands in the log in the clear: a header that is none holds somebody's data, so nothing
    /// of it is repeated there.
    fn noted(&self) -> (&'static str, String) {
        let (code, detail) = self.told();
        match self {
            Self::Mapping(_) => (code, "the mapping cannot be used with this list".to_owned()),
            Self::Refused(Refusal::DuplicateColumn { .. }) => (code, "the header has a column twice".to_owned()),
            _ => (code, detail),
        }
    }

    /// A stable name, and what to do.
    pub fn told(&self) -> (&'static str, String) {
        let code = match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Mapping(_) => "invalid_mapping",
            Self::TooLarge(_) => "too_large",
            Self::Busy => "busy",
            Self::Storage(_) | Self::Trouble(_) | Self::Command(_) => "not_stored",
        };
        let detail = match self {
            // What a server said is not for clients.
            Self::Storage(_) | Self::Trouble(_) | Self::Command(_) => {
                "it could not be stored: send it again in a while".to_owned()
            }
            other => other.to_string(),
        };
        (code, detail)
    }
}
