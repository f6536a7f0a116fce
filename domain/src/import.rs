//! The aggregate import: a list that was sent, what was done of it so far, and how it ended. Its rows are not here: the bytes and
//! the outcomes expire, what an import did to companies and prospects stands in their own events.

mod event;
mod state;

pub use event::{ChunkFinished, ImportEvent, ImportFailed, ImportFinished, ImportOpened, ImportReceived, ImportUndone};
pub use event::{ImportUndoRequested, Tally};
pub use state::{Import, ImportCommand, ImportError, ImportState, OPEN};
