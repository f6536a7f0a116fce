//! The queue of companies whose change has not reached all of its rows yet (decision 12), and how much of it a step does.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::record::Place;
use crate::rows::LEAST_ID;

/// Most rows of one company that a step changes.
pub const COMPANY_ROWS_MAX: usize = 2_000;
/// Companies from the queue that a step looks at.
const QUEUED_MAX: usize = 32;

/// A company whose rows are behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The change that is being carried out.
    pub(crate) position: i64,
    /// A later change that came meanwhile.
    pub(crate) next_position: Option<i64>,
    /// Rows up to here are done in this pass.
    pub(crate) after: Uuid,
}

/// The queue, as in `read.fanout`.
pub(crate) type Queue = BTreeMap<Place, Entry>;

/// What a step wants to do, in order: what is new, then some of the queue, beginning somewhere else each time.
pub(crate) struct Plan {
    pub(crate) entries: Vec<(Place, Entry)>,
    /// Queued companies that changed again: they only get another pass.
    again: Vec<(Place, Entry)>,
}

/// What a step did, as far as the queue is concerned.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Rows to change: tenant, company, row.
    pub(crate) rows: Vec<(Uuid, Uuid, Uuid)>,
    /// Entries that are done.
    pub(crate) done: Vec<Place>,
    /// Entries to write down.
    pub(crate) keep: Vec<(Place, Entry)>,
}

impl Plan {
    /// `changed` holds the companies with rows that this step's events changed, with the position of the last change.
    pub(crate) fn new(changed: &HashMap<Place, i64>, queue: &Queue, step: i64) -> Self {
        let mut entries = Vec::new();
        let mut again = Vec::new();
        for (place, position) in changed {
            match queue.get(place) {
                Some(queued) => {
                    let mut entry = queued.clone();
                    entry.next_position = Some(*position);
                    again.push((*place, entry));
                }
                None => entries.push((*place, Entry { position: *position, next_position: None, after: LEAST_ID })),
            }
        }
        entries.sort_by_key(|(_, entry)| entry.position);
        let waiting: Vec<(Place, Entry)> = queue
            .iter()
            .filter(|(place, _)| !changed.contains_key(place))
            .map(|(place, entry)| (*place, entry.clone()))
            .collect();
        if !waiting.is_empty() {
            let start = usize::try_from(step).unwrap_or(0) % waiting.len();
            entries.extend(waiting.iter().cycle().skip(start).take(waiting.len().min(QUEUED_MAX)).cloned());
        }
        // A company that changes in every step still gets on: its pass goes on where it was.
        entries.extend(again.iter().take(QUEUED_MAX).cloned());
        Self { entries, again }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// `found` holds (number of the entry from 1, row), at most [`COMPANY_ROWS_MAX`] + 1 of each and `rows_max` + 1 of all, in order.
    pub(crate) fn outcome(self, found: &[(usize, Uuid)], rows_max: usize) -> Outcome {
        let mut outcome = Outcome::default();
        let cut = found.len() > rows_max;
        let taken = &found[..found.len().min(rows_max)];
        // Entries from here on may have more rows than were looked at.
        let cut_from = if cut { found[rows_max].0 } else { usize::MAX };
        let mut rows_of: HashMap<usize, Vec<Uuid>> = HashMap::new();
        for (number, row) in taken {
            rows_of.entry(*number).or_default().push(*row);
        }
        let mut settled: HashMap<Place, Option<Entry>> =
            self.again.into_iter().map(|(place, entry)| (place, Some(entry))).collect();
        for (number, (place, mut entry)) in (1..).zip(self.entries) {
            let mut rows = rows_of.remove(&number).unwrap_or_default();
            let more = number >= cut_from || rows.len() > COMPANY_ROWS_MAX;
            rows.truncate(COMPANY_ROWS_MAX);
            if let Some(last) = rows.last() {
                entry.after = *last;
            }
            outcome.rows.extend(rows.into_iter().map(|row| (place.0, place.1, row)));
            let left = match (more, entry.next_position) {
                (true, _) => Some(entry),
                (false, Some(next)) => Some(Entry { position: next, next_position: None, after: LEAST_ID }),
                (false, None) => None,
            };
            settled.insert(place, left);
        }
        for (place, left) in settled {
            match left {
                Some(entry) => outcome.keep.push((place, entry)),
                None => outcome.done.push(place),
            }
        }
        outcome
    }
}
