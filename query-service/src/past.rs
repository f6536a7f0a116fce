//! What was: records folded from the log as of any time, version or position, and what each event changed. Nothing is read from a
//! read table, and no event's payload is read by hand: `domain` evolves the record, the projector's own fold gives its times
//! ([`projector::record`]) and its own rows say what clients see ([`projector::rows`]), so every sort of event comes out as it does there.

pub(crate) mod as_of;
pub(crate) mod changes;
pub(crate) mod fold;
pub(crate) mod history;
pub(crate) mod sort;

pub(crate) use as_of::{AsOf, RecordAsOf, Then};
pub(crate) use history::HistoryOf;
pub(crate) use sort::Past;
