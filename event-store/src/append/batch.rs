//! One batch: which commands may share it, and the columns of its rows.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use uuid::Uuid;

use super::{Append, Job, Refused};
use crate::json_text::JsonText;
use crate::receipt::Answer;

/// What is to be done with one command of a batch.
pub(super) enum Verdict {
    /// Its rows are written; the answer says where.
    Write(Answer),
    /// It is in the log already, or its receipt is: the first answer.
    There(Answer),
    /// Nothing of it is written.
    Refuse(Refused),
}

/// Keys in use by the commands of a batch and by those that wait. Hashes of keys: two keys with one hash only make a command wait.
#[derive(Default)]
pub(super) struct Conflicts {
    used: HashMap<u64, Use>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Several commands may require the same claim.
    Shared,
    /// Changed by one command.
    Exclusive,
}

impl Conflicts {
    /// Whether the command shares no key with an earlier one. Its keys count from now on either way.
    pub(super) fn admit(&mut self, append: &Append) -> bool {
        let tenant = append.tenant_id;
        let mut free = true;
        for stream in &append.streams {
            free &= self.take(&("record", tenant, stream.aggregate_id), Use::Exclusive);
        }
        for claim in append.take.iter().chain(&append.release) {
            free &= self.take(&("claim", tenant, claim.kind, &claim.key), Use::Exclusive);
        }
        for claim in &append.require {
            free &= self.take(&("claim", tenant, claim.kind, &claim.key), Use::Shared);
        }
        if let Some(receipt) = &append.receipt {
            free &= self.take(&("receipt", tenant, &receipt.key), Use::Exclusive);
        }
        free
    }

    fn take(&mut self, key: &impl Hash, wanted: Use) -> bool {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        match self.used.entry(hasher.finish()) {
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(wanted);
                true
            }
            std::collections::hash_map::Entry::Occupied(mut place) => {
                let both_shared = *place.get() == Use::Shared && wanted == Use::Shared;
                if !both_shared {
                    place.insert(Use::Exclusive);
                }
                both_shared
            }
        }
    }
}

/// Columns of the rows for `log.events`, in the order in which they are numbered.
#[derive(Default)]
pub(super) struct EventColumns<'a> {
    pub(super) tenant: Vec<Uuid>,
    pub(super) aggregate_type: Vec<&'a str>,
    pub(super) aggregate: Vec<Uuid>,
    pub(super) sequence: Vec<i64>,
    pub(super) event: Vec<Uuid>,
    pub(super) event_type: Vec<&'a str>,
    pub(super) event_version: Vec<i16>,
    pub(super) payload: Vec<JsonText<'a>>,
    pub(super) metadata: Vec<JsonText<'a>>,
}

/// Columns of rows that are a keyed value of a record.
#[derive(Default)]
pub(super) struct KeyedColumns<'a> {
    pub(super) tenant: Vec<Uuid>,
    pub(super) kind: Vec<&'a str>,
    pub(super) key: Vec<&'a str>,
    pub(super) aggregate: Vec<Uuid>,
}

impl<'a> KeyedColumns<'a> {
    pub(super) fn push(&mut self, tenant: Uuid, value: &'a super::KeyedValue) {
        self.tenant.push(tenant);
        self.kind.push(value.kind);
        self.key.push(&value.key);
        self.aggregate.push(value.aggregate_id);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tenant.is_empty()
    }
}

/// Columns of the rows for `log.person_keys`.
#[derive(Default)]
pub(super) struct KeyColumns<'a> {
    pub(super) tenant: Vec<Uuid>,
    pub(super) person: Vec<Uuid>,
    pub(super) wrapping_key: Vec<&'a str>,
    pub(super) wrapped: Vec<&'a [u8]>,
}

/// All rows of a batch but the receipts, which wait for the positions.
#[derive(Default)]
pub(super) struct Rows<'a> {
    pub(super) events: EventColumns<'a>,
    pub(super) keys: KeyColumns<'a>,
    pub(super) take: KeyedColumns<'a>,
    pub(super) release: KeyedColumns<'a>,
    pub(super) match_add: KeyedColumns<'a>,
    pub(super) match_remove: KeyedColumns<'a>,
}

impl<'a> Rows<'a> {
    /// The rows of the commands that `writes` says are written. Gives, for each command, how many events of the batch stand
    /// before the end of its first record's events, which is where its answer's position points.
    pub(super) fn collect(jobs: &'a [Job], writes: impl Fn(usize) -> bool) -> (Self, Vec<i64>) {
        let mut rows = Self::default();
        let mut ends = vec![0; jobs.len()];
        for (index, job) in jobs.iter().enumerate().filter(|(index, _)| writes(*index)) {
            let append = &job.append;
            let tenant = append.tenant_id;
            for (number, stream) in append.streams.iter().enumerate() {
                for (event, sequence) in stream.events.iter().zip(stream.expected_version + 1..) {
                    let columns = &mut rows.events;
                    columns.tenant.push(tenant);
                    columns.aggregate_type.push(stream.aggregate_type);
                    columns.aggregate.push(stream.aggregate_id);
                    columns.sequence.push(sequence);
                    columns.event.push(event.event_id);
                    columns.event_type.push(event.event_type);
                    columns.event_version.push(event.event_version);
                    columns.payload.push(JsonText(&event.payload));
                    columns.metadata.push(JsonText(&append.metadata));
                }
                if number == 0 {
                    ends[index] = i64::try_from(rows.events.tenant.len()).expect("a batch is bounded");
                }
                if let Some(key) = &stream.new_key {
                    rows.keys.tenant.push(tenant);
                    rows.keys.person.push(stream.aggregate_id);
                    rows.keys.wrapping_key.push(&key.wrapping_key_id);
                    rows.keys.wrapped.push(&key.wrapped);
                }
            }
            append.take.iter().for_each(|value| rows.take.push(tenant, value));
            append.release.iter().for_each(|value| rows.release.push(tenant, value));
            append.match_add.iter().for_each(|value| rows.match_add.push(tenant, value));
            append.match_remove.iter().for_each(|value| rows.match_remove.push(tenant, value));
        }
        (rows, ends)
    }
}
