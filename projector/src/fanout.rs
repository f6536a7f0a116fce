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
    /// The step in which it was last looked at; kept in memory only, 0 for what this projector has found in the queue.
    pub(crate) turn: i64,
}

/// The queue, as in `read.fanout`.
pub(crate) type Queue = BTreeMap<Place, Entry>;

/// What a step does for whom. What is new and what is queued get half of the rows each, within a half every tenant gets as much as
/// another, and so does every company of a tenant; what some of them leave is then given to those who have more. So neither new changes
/// nor a tenant with many hold up what others have queued.
pub(crate) struct Plan {
    turns: Vec<Turn>,
    /// Queued companies that changed again and that this step does not look at: they only get another pass.
    again: Vec<(Place, Entry)>,
    rows_max: usize,
}

/// A company that a step does something for.
pub(crate) struct Turn {
    pub(crate) place: Place,
    entry: Entry,
    /// Rows of it to look for, after those that are found already.
    rows_max: usize,
    rows: Vec<Uuid>,
    /// Whether there are, or may be, rows beyond those.
    more: bool,
}

impl Turn {
    fn new(place: Place, entry: Entry) -> Self {
        Self { place, entry, rows_max: 0, rows: Vec::new(), more: true }
    }

    /// The row after which to look.
    pub(crate) fn after(&self) -> Uuid {
        self.rows.last().copied().unwrap_or(self.entry.after)
    }

    /// How many rows to look for: one more than are taken, to know whether there are more.
    pub(crate) fn look_for(&self) -> usize {
        self.rows_max + 1
    }
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
    /// `changed` holds the companies with rows that this step's events changed, with the position of the first change. The step
    /// changes at most `rows_max` rows.
    pub(crate) fn new(changed: &HashMap<Place, i64>, queue: &Queue, step: i64, rows_max: usize) -> Self {
        let mut new: Vec<Turn> = changed
            .iter()
            .filter(|(place, _)| !queue.contains_key(place))
            .map(|(place, position)| {
                Turn::new(*place, Entry { position: *position, next_position: None, after: LEAST_ID, turn: step })
            })
            .collect();
        new.sort_by_key(|turn| turn.entry.position);
        let with_change = |place: &Place, entry: &Entry| {
            let next_position = entry.next_position.or_else(|| changed.get(place).copied());
            Entry { next_position, ..entry.clone() }
        };
        let in_turn = in_turn(queue);
        let (looked_at, left) = in_turn.split_at(in_turn.len().min(QUEUED_MAX));
        let mut queued: Vec<Turn> = looked_at
            .iter()
            .map(|(place, entry)| Turn::new(**place, Entry { turn: step, ..with_change(place, entry) }))
            .collect();
        let again = left
            .iter()
            .filter(|(place, _)| changed.contains_key(place))
            .map(|(place, entry)| (**place, with_change(place, entry)))
            .collect();
        let for_new = if queued.is_empty() { rows_max } else { rows_max / 2 };
        let for_queued = if new.is_empty() { rows_max } else { rows_max - for_new };
        share(queued.iter_mut().collect(), for_queued);
        share(new.iter_mut().collect(), for_new);
        queued.append(&mut new);
        Self { turns: queued, again, rows_max }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Whose rows are to be looked for now.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &Turn> {
        self.turns.iter().filter(|turn| turn.rows_max > 0)
    }

    /// Takes what was found: the number of the wanted one, from 1, and a row, at most [`Turn::look_for`] of each and in their order.
    pub(crate) fn take(&mut self, found: &[(usize, Uuid)]) {
        let mut rows_of: HashMap<usize, Vec<Uuid>> = HashMap::new();
        for (number, row) in found {
            rows_of.entry(*number).or_default().push(*row);
        }
        for (number, turn) in (1..).zip(self.turns.iter_mut().filter(|turn| turn.rows_max > 0)) {
            let mut rows = rows_of.remove(&number).unwrap_or_default();
            turn.more = rows.len() > turn.rows_max;
            rows.truncate(turn.rows_max);
            turn.rows.append(&mut rows);
            turn.rows_max = 0;
        }
    }

    /// Gives what is left of the step's rows to those who have more; whether there is anything to look for.
    pub(crate) fn fill_up(&mut self) -> bool {
        let taken: usize = self.turns.iter().map(|turn| turn.rows.len()).sum();
        share(self.turns.iter_mut().filter(|turn| turn.more).collect(), self.rows_max - taken);
        self.wanted().next().is_some()
    }

    pub(crate) fn outcome(self) -> Outcome {
        let mut outcome = Outcome { keep: self.again, ..Outcome::default() };
        for Turn { place, mut entry, rows, more, .. } in self.turns {
            if let Some(last) = rows.last() {
                entry.after = *last;
            }
            outcome.rows.extend(rows.into_iter().map(|row| (place.0, place.1, row)));
            match (more, entry.next_position) {
                (true, _) => outcome.keep.push((place, entry)),
                (false, Some(next)) => {
                    let entry = Entry { position: next, next_position: None, after: LEAST_ID, turn: entry.turn };
                    outcome.keep.push((place, entry));
                }
                (false, None) => outcome.done.push(place),
            }
        }
        outcome
    }
}

/// The queue in the order in which it is looked at: of each tenant the company that has waited longest, then of each the next one.
fn in_turn(queue: &Queue) -> Vec<(&Place, &Entry)> {
    let mut queued: Vec<(&Place, &Entry)> = queue.iter().collect();
    queued.sort_by_key(|(place, entry)| (place.0, entry.turn, entry.position));
    let mut before_it = 0;
    let mut tenant = None;
    let mut ranked: Vec<(usize, &Place, &Entry)> = queued
        .into_iter()
        .map(|(place, entry)| {
            before_it = if tenant.replace(place.0) == Some(place.0) { before_it + 1 } else { 0 };
            (before_it, place, entry)
        })
        .collect();
    ranked.sort_by_key(|(before_it, _, entry)| (*before_it, entry.turn, entry.position));
    ranked.into_iter().map(|(_, place, entry)| (place, entry)).collect()
}

/// Shares rows out: as many to each tenant, and of a tenant's to each of its companies, as far as a company may have them.
fn share(turns: Vec<&mut Turn>, rows: usize) {
    let mut tenants: BTreeMap<Uuid, Vec<&mut Turn>> = BTreeMap::new();
    for turn in turns {
        tenants.entry(turn.place.0).or_default().push(turn);
    }
    let (mut left, mut tenants_left) = (rows, tenants.len());
    for turns in tenants.into_values() {
        let (mut of_tenant, mut turns_left) = (left / tenants_left, turns.len());
        left -= of_tenant;
        for turn in turns {
            turn.rows_max = (of_tenant / turns_left).min(COMPANY_ROWS_MAX - turn.rows.len());
            of_tenant -= turn.rows_max;
            turns_left -= 1;
        }
        left += of_tenant;
        tenants_left -= 1;
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
        let wanted = (1..).zip(plan.wanted());
        let found = wanted.flat_map(|(number, turn)| {
            let rows = companies[&turn.place].rows.keys().filter(|row| **row > turn.after());
            rows.take(turn.look_for()).map(move |row| (number, *row))
        });
        found.collect()
    }

    /// One step, with the changes of these companies; one may change more than once. Gives the rows that it reached of each.
    fn step(
        companies: &mut BTreeMap<Place, Company>,
        queue: &mut Queue,
        number: i64,
        changing: &[usize],
    ) -> HashMap<Place, usize> {
        let places: Vec<Place> = companies.keys().copied().collect();
        let mut changed = HashMap::new();
        for (position, index) in (number * 100..).zip(changing) {
            let place = places[*index];
            changed.entry(place).or_insert(position);
            companies.get_mut(&place).expect("it is one of them").changes.push(position);
        }
        let mut plan = Plan::new(&changed, queue, number, ROWS_MAX);
        plan.take(&targets(&plan, companies));
        if plan.fill_up() {
            plan.take(&targets(&plan, companies));
        }
        let outcome = plan.outcome();
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
        of_one
    }

    fn company(rows: u128) -> Company {
        Company { changes: Vec::new(), rows: (1..=rows).map(|row| (Uuid::from_u128(row), 0)).collect() }
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
                ((Uuid::from_u128(number % 3), Uuid::from_u128(number)), company(*size))
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

        /// A tenant that changes other big companies in every step: what others have queued gets its share of each step, and what it
        /// has queued itself has a turn as often as there are such.
        #[test]
        fn no_stream_of_new_changes_keeps_a_queued_company_waiting(
            others in 1_u128..40,
            new in 1_usize..4,
            steps in 20_usize..60,
        ) {
            let restless = Uuid::nil();
            let mut companies: BTreeMap<Place, Company> =
                (0..steps * new).map(|number| ((restless, Uuid::from_u128(number as u128)), company(2_100))).collect();
            companies.extend((1..=others).map(|tenant| ((Uuid::from_u128(tenant), Uuid::nil()), company(6_500))));
            let mut queue = Queue::new();
            let first: Vec<usize> = (steps * new..companies.len()).collect();
            step(&mut companies, &mut queue, 1, &first);
            // Of each company the last step that did something for it, and how many of its tenant were before it then.
            let mut waited: HashMap<Place, (usize, usize)> = HashMap::new();
            for number in 0..steps {
                let tenants = queue.keys().map(|place| place.0).collect::<std::collections::BTreeSet<_>>().len();
                let changing: Vec<usize> = (number * new..(number + 1) * new).collect();
                let reached = step(&mut companies, &mut queue, i64::try_from(number).unwrap() + 2, &changing);
                let of_queue: usize = reached.iter().filter(|(place, _)| place.0 != restless).map(|(_, rows)| rows).sum();
                let still_queued = queue.keys().any(|place| place.0 != restless);
                let share = ROWS_MAX / 2 * tenants.min(QUEUED_MAX).saturating_sub(1) / tenants.min(QUEUED_MAX);
                prop_assert!(of_queue + QUEUED_MAX >= share || !still_queued, "{of_queue} rows of {share}");
                waited.retain(|place, _| queue.contains_key(place));
                for place in queue.keys() {
                    let of_tenant = queue.keys().filter(|other| other.0 == place.0).count();
                    let (last, before) = waited.entry(*place).or_insert((number, of_tenant));
                    if reached.contains_key(place) {
                        (*last, *before) = (number, of_tenant);
                    }
                    let most = *before * tenants.div_ceil(QUEUED_MAX) + 1;
                    prop_assert!(number - *last <= most, "{place:?} waits {} steps and not {most}", number - *last);
                }
            }
        }
    }
}
