//! Positions whose event is not the one under the stored leaf, and what became of them: changed, removed, inserted, moved.
//!
//! Bounded: some hundreds of events that nothing explains are kept to be compared with each other; past that, and for events that all
//! moved by the same distance, only runs of positions.

use super::super::hash::Hash;
use super::super::row::Row;
use super::super::{to_bigint, to_count};
use super::What;

/// Events that are kept.
const KEPT_MAX: usize = 512;
/// Bytes of them.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// Runs of positions that are kept.
const RUNS_MAX: usize = 10_000;
/// How far events are looked for that moved all together.
const SHIFT_MAX: i64 = 8;

/// What differs.
#[derive(Debug, Default)]
pub(super) struct Differences {
    /// Events that were sealed so far away from where they stand.
    moved: Vec<Run>,
    /// Positions without an event.
    missing: Vec<Run>,
    /// Positions whose event is another one, past what is kept.
    others: Vec<Run>,
    /// What nothing explains yet.
    kept: Vec<Kept>,
    kept_bytes: usize,
    /// How far the last one had moved.
    shift: i64,
}

/// Positions one after the other, and how much further the events that stand there were sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u64,
    last: u64,
    shift: i64,
}

#[derive(Debug)]
struct Kept {
    position: u64,
    /// What was sealed there.
    stored: Option<Hash>,
    /// What stands there now; none if nothing does.
    row: Option<Row>,
}

/// What became of some positions: what, the first, the last, and from where.
pub(super) type Became = (What, u64, u64, Option<u64>);

impl Differences {
    /// A position whose event is not the one under its stored leaf. `beside` gives the stored leaf so many positions away.
    pub(super) fn add(
        &mut self,
        position: u64,
        stored: Option<Hash>,
        row: Option<&Row>,
        beside: impl Fn(i64) -> Option<Hash>,
    ) {
        let Some(row) = row else {
            extend(&mut self.missing, position, 0);
            self.keep(Kept { position, stored, row: None });
            return;
        };
        let was_at = |shift: i64| beside(shift).is_some_and(|leaf| row.leaf_at(row.position + shift) == Some(leaf));
        let near = std::iter::once(self.shift).chain((1..=SHIFT_MAX).flat_map(|shift| [shift, -shift]));
        if let Some(shift) = near.filter(|shift| *shift != 0).find(|shift| was_at(*shift)) {
            self.shift = shift;
            extend(&mut self.moved, position, shift);
            return;
        }
        if !self.keep(Kept { position, stored, row: Some(row.detached()) }) {
            extend(&mut self.others, position, 0);
        }
    }

    /// Positions that have no event and were not looked at one by one.
    pub(super) fn add_missing(&mut self, first: u64, last: u64) {
        extend(&mut self.missing, first, 0);
        if let Some(run) = self.missing.last_mut() {
            run.last = last;
        }
    }

    fn keep(&mut self, kept: Kept) -> bool {
        let bytes = kept.row.as_ref().map_or(0, Row::bytes);
        if self.kept.len() >= KEPT_MAX || self.kept_bytes + bytes > KEPT_BYTES_MAX {
            return false;
        }
        self.kept_bytes += bytes;
        self.kept.push(kept);
        true
    }

    /// The events so far lead to a head: what differs is wrong in what was stored. Gives the first and the last such position.
    pub(super) fn forget(&mut self) -> Option<(u64, u64)> {
        let runs = self.moved.iter().chain(&self.missing).chain(&self.others).map(|run| (run.first, run.last));
        let all: Vec<(u64, u64)> = runs.chain(self.kept.iter().map(|kept| (kept.position, kept.position))).collect();
        *self = Self::default();
        Some((all.iter().map(|(first, _)| *first).min()?, all.iter().map(|(_, last)| *last).max()?))
    }

    /// What became of every position, in order; `end` is the last one that a head covers.
    pub(super) fn classify(mut self, end: u64) -> Vec<Became> {
        self.pair();
        let origins: Vec<Run> = self.moved.iter().map(|run| run.shifted()).collect();
        let mut became: Vec<Became> =
            self.moved.iter().map(|run| (What::Moved, run.first, run.last, Some(run.shifted().first))).collect();
        // An event that nothing explains: where the one that was sealed there has moved away, it came in between.
        for kept in self.kept.iter().filter(|kept| kept.row.is_some()) {
            let left = origins.iter().any(|run| run.first <= kept.position && kept.position <= run.last);
            became.push((if left { What::Inserted } else { What::Changed }, kept.position, kept.position, None));
        }
        became.extend(self.others.iter().map(|run| (What::Changed, run.first, run.last, None)));
        // Positions that hold a moved event, or none, and whose own event stands nowhere.
        for run in self.moved.iter().chain(&self.missing) {
            for (first, last) in without(*run, &origins) {
                let at_end =
                    last == end && self.missing.iter().any(|missing| missing.first <= first && missing.last == end);
                became.push((if at_end { What::Truncated } else { What::Removed }, first, last, None));
            }
        }
        became.sort_by_key(|(what, first, ..)| (*first, *what as u8));
        join(became)
    }

    /// Finds events that changed places with others, however far away.
    fn pair(&mut self) {
        let found: Vec<(usize, u64)> = self
            .kept
            .iter()
            .enumerate()
            .filter_map(|(place, kept)| {
                let row = kept.row.as_ref()?;
                let origin = self.kept.iter().find(|other| {
                    other.position != kept.position
                        && other.stored.is_some()
                        && row.leaf_at(to_bigint(other.position)) == other.stored
                })?;
                Some((place, origin.position))
            })
            .collect();
        for (place, origin) in found.iter().rev() {
            let position = self.kept.swap_remove(*place).position;
            let shift = to_bigint(*origin) - to_bigint(position);
            self.moved.push(Run { first: position, last: position, shift });
        }
    }
}

impl Run {
    /// Where its events were sealed.
    fn shifted(self) -> Self {
        let at = |position: u64| to_count(to_bigint(position) + self.shift);
        Self { first: at(self.first), last: at(self.last), shift: 0 }
    }
}

fn extend(runs: &mut Vec<Run>, position: u64, shift: i64) {
    let is_full = runs.len() >= RUNS_MAX;
    match runs.last_mut() {
        Some(run) if run.last + 1 == position && run.shift == shift => run.last = position,
        // Past the bound the last run takes everything in: what is said stays true, and less exact.
        Some(run) if is_full => run.last = position,
        _ => runs.push(Run { first: position, last: position, shift }),
    }
}

/// The parts of a run that none of the others covers.
fn without(run: Run, others: &[Run]) -> Vec<(u64, u64)> {
    let mut parts = vec![(run.first, run.last)];
    for other in others {
        parts = parts
            .into_iter()
            .flat_map(|(first, last)| {
                if other.last < first || last < other.first {
                    return vec![(first, last)];
                }
                let before = (first < other.first).then(|| (first, other.first - 1));
                let after = (other.last < last).then(|| (other.last + 1, last));
                before.into_iter().chain(after).collect()
            })
            .collect();
    }
    parts
}

/// Neighbours that became the same are told as one.
fn join(became: Vec<Became>) -> Vec<Became> {
    let mut joined: Vec<Became> = Vec::new();
    for next in became {
        match joined.last_mut() {
            Some(last) if last.0 == next.0 && last.2 + 1 == next.1 && last.3.is_none() && next.3.is_none() => {
                last.2 = next.2;
            }
            _ => joined.push(next),
        }
    }
    joined
}
