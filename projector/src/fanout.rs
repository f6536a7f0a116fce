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
    /// The first of the changes that are being carried out: below it the projection is complete.
    pub(crate) position: i64,
    /// The first of the later changes, which came meanwhile.
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
    /// `changed` holds the companies with rows that this step's events changed, with the position of the first change.
    pub(crate) fn new(changed: &HashMap<Place, i64>, queue: &Queue, step: i64) -> Self {
        let mut entries = Vec::new();
        let mut again = Vec::new();
        for (place, position) in changed {
            match queue.get(place) {
                Some(queued) => {
                    let mut entry = queued.clone();
                    entry.next_position.get_or_insert(*position);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rows that a step may change in all, and companies of as few and as many rows as matter.
    const ROWS_MAX: usize = COMPANY_ROWS_MAX + 500;
    const ROWS: [u128; 6] = [0, 1, 700, 2_000, 2_001, 6_500];

    /// A company: the positions of its changes, and of each row the last change that it shows.
    struct Company {
        changes: Vec<i64>,
        rows: BTreeMap<Uuid, i64>,
    }

    /// What the statement `fanout_targets` finds.
    fn targets(plan: &Plan, companies: &BTreeMap<Place, Company>) -> Vec<(usize, Uuid)> {
        let of_entry = (1..).zip(&plan.entries).flat_map(|(number, (place, entry))| {
            let rows = companies[place].rows.keys().filter(|row| **row > entry.after);
            rows.take(COMPANY_ROWS_MAX + 1).map(move |row| (number, *row))
        });
        of_entry.take(ROWS_MAX + 1).collect()
    }

    /// One step, with the changes of these companies; one may change more than once.
    fn step(companies: &mut BTreeMap<Place, Company>, queue: &mut Queue, number: i64, changing: &[usize]) {
        let places: Vec<Place> = companies.keys().copied().collect();
        let mut changed = HashMap::new();
        for (position, index) in (number * 100..).zip(changing) {
            let place = places[*index];
            changed.entry(place).or_insert(position);
            companies.get_mut(&place).expect("it is one of them").changes.push(position);
        }
        let plan = Plan::new(&changed, queue, number);
        let found = targets(&plan, companies);
        let outcome = plan.outcome(&found, ROWS_MAX);
        assert!(outcome.rows.len() <= ROWS_MAX);
        let mut of_one: HashMap<Place, usize> = HashMap::new();
        for (tenant, company, row) in &outcome.rows {
            let place = (*tenant, *company);
            let company = companies.get_mut(&place).expect("it is one of them");
            let newest = *company.changes.last().expect("it has changed");
            company.rows.insert(*row, newest);
            let rows = of_one.entry(place).or_default();
            *rows += 1;
            assert!(*rows <= COMPANY_ROWS_MAX);
        }
        for place in &outcome.done {
            queue.remove(place);
        }
        queue.extend(outcome.keep);
        for (place, company) in &*companies {
            // As the query service reads it.
            let complete = queue.get(place).map_or(i64::MAX, |entry| entry.position - 1);
            let promised = company.changes.iter().rev().find(|change| **change <= complete).copied().unwrap_or(0);
            let shown = company.rows.values().min().copied().unwrap_or(i64::MAX);
            assert!(shown >= promised, "complete at {complete}, but a row shows {shown} and not {promised}: {queue:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// However companies change while others wait: a step has its bounds, the complete position promises nothing that a row does
        /// not show, and in the end every row shows the last change.
        #[test]
        fn every_change_reaches_every_row_and_is_not_said_to_before(
            sizes in prop::collection::vec(prop::sample::select(ROWS.to_vec()), 1..45),
            steps in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..6), 1..12),
        ) {
            let mut companies: BTreeMap<Place, Company> = (0..).zip(&sizes).map(|(number, size)| {
                let rows = (1..=*size).map(|row| (Uuid::from_u128(row), 0)).collect();
                ((Uuid::nil(), Uuid::from_u128(number)), Company { changes: Vec::new(), rows })
            }).collect();
            let mut queue = Queue::new();
            let mut number = 1;
            for changing in &steps {
                let changing: Vec<usize> = changing.iter().map(|index| index.index(sizes.len())).collect();
                step(&mut companies, &mut queue, number, &changing);
                number += 1;
            }
            let started = number;
            while !queue.is_empty() {
                step(&mut companies, &mut queue, number, &[]);
                number += 1;
                prop_assert!(number - started < 2_000, "it does not end: {:?}", queue);
            }
            for company in companies.values().filter(|company| !company.changes.is_empty()) {
                let last = company.changes.last();
                prop_assert!(company.rows.values().all(|shown| Some(shown) == last));
            }
        }

        /// A company that changes in every step gets on, and holds up nobody.
        #[test]
        fn a_company_that_never_stops_changing_gets_on(rows in prop::sample::select(ROWS.to_vec())) {
            let company = |rows| Company {
                changes: Vec::new(),
                rows: (1..=rows).map(|row| (Uuid::from_u128(row), 0)).collect(),
            };
            let (restless, other) = ((Uuid::nil(), Uuid::from_u128(1)), (Uuid::nil(), Uuid::from_u128(2)));
            let mut companies = BTreeMap::from([(restless, company(6_500)), (other, company(rows))]);
            let mut queue = Queue::new();
            step(&mut companies, &mut queue, 1, &[0, 1]);
            for number in 2..12 {
                step(&mut companies, &mut queue, number, &[0]);
            }
            prop_assert!(!queue.contains_key(&other), "{:?}", queue);
            prop_assert!(companies[&restless].rows.values().all(|shown| *shown > 0));
        }
    }
}
