//! What an import is after its events, and what can be asked of it.

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{ChunkFinished, ImportEvent, ImportFailed, ImportFinished, ImportOpened, ImportReceived, ImportUndone};
use super::{ImportUndoRequested, Tally};
use crate::claim::{Claim, ClaimKey, Match};
use crate::provenance::ConflictRule;
use crate::record::{Context, Record};

/// The claim that an import holds while there is something to do for it: that is how it is found again after a crash.
pub const OPEN: &str = "import_open";

/// An import.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Import {
    /// Where it is.
    pub state: ImportState,
    /// How it began.
    pub opened: Option<ImportOpened>,
    /// What came in.
    pub received: Option<ImportReceived>,
    /// Chunks that are done.
    pub chunks_done: u32,
    /// What became of their rows.
    pub tally: Tally,
    /// Position of the last event that it led to; 0 if there is none.
    pub position: i64,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// Why it failed.
    pub failed: Option<ImportFailed>,
    /// What taking it back did.
    pub undone: Option<ImportUndone>,
}

/// Where an import is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportState {
    /// It has no events.
    #[default]
    Unknown,
    /// Bytes come in.
    Receiving,
    /// Rows are done.
    Running,
    /// All rows are done.
    Done,
    /// It was refused or given up.
    Failed,
    /// It is being taken back.
    Undoing,
    /// It was taken back.
    Undone,
}

/// What can be asked of an import. All but [`ImportCommand::Open`] and [`ImportCommand::RequestUndo`] come from the one who works on it.
#[derive(Debug, Clone, PartialEq)]
pub enum ImportCommand {
    /// Begin.
    Open(ImportOpened),
    /// All bytes are stored.
    Receive(ImportReceived),
    /// The next chunks are done.
    FinishChunk(ChunkFinished),
    /// All chunks are done.
    Finish,
    /// It cannot go on.
    Fail {
        /// A stable name for why.
        code: String,
        /// What to do about it.
        detail: String,
    },
    /// Take it back.
    RequestUndo,
    /// It was taken back; the time is set.
    FinishUndo(ImportUndone),
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// There is no such import.
    #[error("there is no such import")]
    NotFound,
    /// It is not where the command needs it to be.
    #[error("the import is {}", .0.name())]
    NotNow(ImportState),
    /// Another one works on it and has done this chunk.
    #[error("the next chunk is {0}")]
    OtherChunk(u32),
    /// A dry run wrote nothing that could be taken back.
    #[error("a dry run has nothing to undo")]
    DryRun,
}

impl ImportState {
    /// Its name in answers; taking back is running.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Receiving => "receiving",
            Self::Running | Self::Undoing => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Undone => "undone",
        }
    }

    /// Whether there is something to do for it.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Receiving | Self::Running | Self::Undoing)
    }
}

impl Import {
    /// Which of two values wins.
    pub fn rule(&self) -> &ConflictRule {
        self.opened.as_ref().map_or(&ConflictRule::Newest, |opened| &opened.rule)
    }

    /// Whether nothing is to be written.
    pub fn is_dry_run(&self) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.dry_run)
    }
}

impl Aggregate for Import {
    const TYPE: &'static str = "import";
    type Command = ImportCommand;
    type Event = ImportEvent;
    type Error = ImportError;
    type Services = Context;

    async fn handle(
        &mut self,
        command: ImportCommand,
        context: &Context,
        sink: &EventSink<Self>,
    ) -> Result<(), ImportError> {
        for event in self.decide(command, context)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: ImportEvent) {
        self.evolve(&event);
    }
}

impl Record for Import {
    fn decide(&self, command: ImportCommand, context: &Context) -> Result<Vec<ImportEvent>, ImportError> {
        use ImportState::{Done, Failed, Receiving, Running, Undoing, Undone, Unknown};
        let at = context.now;
        let event: ImportEvent = match (self.state, command) {
            (Unknown, ImportCommand::Open(opened)) => opened.into(),
            (Unknown, _) => return Err(ImportError::NotFound),
            (Receiving, ImportCommand::Receive(received)) => received.into(),
            (Running, ImportCommand::FinishChunk(finished)) if finished.first == self.chunks_done + 1 => {
                finished.into()
            }
            (Running, ImportCommand::FinishChunk(_)) => return Err(ImportError::OtherChunk(self.chunks_done + 1)),
            (Running, ImportCommand::Finish) => ImportFinished { at }.into(),
            (Receiving | Running, ImportCommand::Fail { code, detail }) => ImportFailed { code, detail, at }.into(),
            (Done | Failed, ImportCommand::RequestUndo) if self.is_dry_run() => return Err(ImportError::DryRun),
            (Done, ImportCommand::RequestUndo) => ImportUndoRequested {}.into(),
            // What was refused as it came in did nothing; what failed later may have.
            (Failed, ImportCommand::RequestUndo) if self.received.is_some() => ImportUndoRequested {}.into(),
            (Undoing | Undone, ImportCommand::RequestUndo) => return Ok(Vec::new()),
            (Undoing, ImportCommand::FinishUndo(undone)) => ImportUndone { at, ..undone }.into(),
            (state, _) => return Err(ImportError::NotNow(state)),
        };
        Ok(vec![event])
    }

    fn evolve(&mut self, event: &ImportEvent) {
        match event {
            ImportEvent::ImportOpened(opened) => {
                *self = Self { state: ImportState::Receiving, opened: Some(opened.clone()), ..Self::default() };
            }
            ImportEvent::ImportReceived(received) => {
                self.state = ImportState::Running;
                self.received = Some(received.clone());
            }
            ImportEvent::ImportChunkFinished(finished) => {
                self.chunks_done = finished.last;
                self.tally = finished.tally;
                self.position = self.position.max(finished.position);
            }
            ImportEvent::ImportFinished(finished) => {
                self.state = ImportState::Done;
                self.ended_at = Some(finished.at);
            }
            ImportEvent::ImportFailed(failed) => {
                self.state = ImportState::Failed;
                self.ended_at = Some(failed.at);
                self.failed = Some(failed.clone());
            }
            ImportEvent::ImportUndoRequested(_) => self.state = ImportState::Undoing,
            ImportEvent::ImportUndone(undone) => {
                self.state = ImportState::Undone;
                self.position = self.position.max(undone.position);
                self.undone = Some(undone.clone());
            }
        }
    }

    fn claims(&self, id: Uuid) -> Vec<Claim> {
        if self.state.is_open() { vec![Claim { kind: OPEN, key: ClaimKey::Plain(id.to_string()) }] } else { Vec::new() }
    }

    fn matches(&self, _id: Uuid) -> Vec<Match> {
        Vec::new()
    }

    fn weight_bytes(&self) -> usize {
        size_of::<Self>() + 512
    }
}
