//! What an import has counted so far: rows, and each record once.

use std::collections::HashSet;

use domain::company::Change;
use domain::import::Tally;
use uuid::Uuid;

use super::outcome::RowOutcome;

/// Companies, and prospects, that one import remembers: as many as fit a table of two million places. Those beyond are counted each time
/// that a step speaks of them.
const MET_MAX: usize = (1 << 21) / 8 * 7;

/// What an import has counted so far.
pub struct Counted {
    /// The sums.
    pub tally: Tally,
    /// Position of the last event; 0 if there is none.
    pub position: i64,
    /// The companies and prospects that were met: most of the bits of each id's half, and in the lowest two what became of it.
    met: [HashSet<u64>; 2],
}

/// Every change, and its place in the sums.
const CHANGES: [(Change, usize); 3] = [(Change::Created, 0), (Change::Updated, 1), (Change::Unchanged, 2)];

impl Counted {
    /// Goes on from what was counted before; the records are to be recalled.
    pub fn from(tally: Tally, position: i64) -> Self {
        Self { tally, position, met: Default::default() }
    }

    /// Remembers what a finished step's row did to its records, which is counted already.
    pub fn recall(&mut self, row: &RowOutcome) {
        for (id, is_prospect, change) in row.records() {
            self.meet(id, is_prospect, change);
        }
    }

    /// Counts what became of a record; one that was met before counts as the most that became of it.
    pub fn count(&mut self, id: Uuid, is_prospect: bool, change: Change) {
        let before = self.meet(id, is_prospect, change);
        let sums = if is_prospect { &mut self.tally.prospects } else { &mut self.tally.companies };
        let place = |change: Change| CHANGES.iter().find(|(one, _)| *one == change).map_or(2, |(_, place)| *place);
        match before {
            Some(before) if before >= change => {}
            Some(before) => {
                sums[place(before)] = sums[place(before)].saturating_sub(1);
                sums[place(change)] += 1;
            }
            None => sums[place(change)] += 1,
        }
    }

    /// Remembers a record; gives what was remembered of it.
    fn meet(&mut self, id: Uuid, is_prospect: bool, change: Change) -> Option<Change> {
        let met = &mut self.met[usize::from(is_prospect)];
        let entry = |place: usize| half(id) & !3 | place as u64;
        let before = CHANGES.into_iter().find(|(_, place)| met.contains(&entry(*place)));
        let (change, place) = CHANGES.into_iter().find(|(one, _)| *one == change)?;
        match before {
            Some((before, _)) if before >= change => {}
            Some((_, before)) => {
                met.remove(&entry(before));
                met.insert(entry(place));
            }
            None if met.len() < MET_MAX => {
                met.insert(entry(place));
            }
            None => {}
        }
        before.map(|(before, _)| before)
    }
}

/// 64 bits of an id, of its time and row as well as of what is random in it.
fn half(id: Uuid) -> u64 {
    let (high, low) = id.as_u64_pair();
    (low ^ high.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_once_as_the_most_that_became_of_it() {
        let mut counted = Counted::from(Tally::default(), 0);
        let [one, two] = [Uuid::from_u128(1), Uuid::from_u128(2)];
        for (id, change) in [
            (one, Change::Unchanged),
            (one, Change::Updated),
            (one, Change::Unchanged),
            (two, Change::Created),
            (two, Change::Updated),
        ] {
            counted.count(id, false, change);
        }
        counted.count(one, true, Change::Unchanged);
        assert_eq!((counted.tally.companies, counted.tally.prospects), ([1, 1, 0], [0, 0, 1]));
        // Another run goes on from there, and knows them by what the rows did.
        let mut again = Counted::from(counted.tally, 7);
        let row = RowOutcome {
            row: 1,
            line: 2,
            outcome: super::super::Outcome::Created,
            text: String::new(),
            company_id: Some(two),
            company_change: Some(Change::Created),
            prospect_ids: vec![one],
            prospect_changes: vec![Change::Unchanged],
            prospect_made_by_source: vec![false],
            reasons: Vec::new(),
        };
        again.recall(&row);
        again.count(two, false, Change::Updated);
        again.count(one, true, Change::Updated);
        assert_eq!((again.tally.companies, again.tally.prospects), ([1, 1, 0], [0, 1, 0]));
    }
}
