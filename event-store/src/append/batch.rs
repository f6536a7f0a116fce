//! One batch: which commands may share it, and the columns of its rows.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use tokio_postgres::types::Json;
use uuid::Uuid;

use super::{Append, Job, Refused};
use crate::json_text::JsonText;
use crate::receipt::{Answer, KeptAnswer};

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
    /// Counts what another batch holds.
    pub(super) fn add(&mut self, other: &Self) {
        self.used.extend(other.used.iter().map(|(key, held)| (*key, *held)));
    }

    /// Whether the command shares no key with an earlier one. Its keys count from now on either way.
    pub(super) fn admit(&mut self, append: &Append) -> bool {
        let tenant = append.tenant_id;
        let mut keys = Vec::with_capacity(4);
        for stream in &append.streams {
            keys.push((hash(&("record", tenant, stream.aggregate_id)), Use::Exclusive));
        }
        for claim in append.take.iter().chain(&append.release) {
            keys.push((hash(&("claim", tenant, claim.kind, &claim.key)), Use::Exclusive));
        }
        for claim in &append.require {
            keys.push((hash(&("claim", tenant, claim.kind, &claim.key)), Use::Shared));
        }
        for value in append.forget.iter().flat_map(|forget| &forget.claims) {
            keys.push((hash(&("claim", tenant, value.kind, &value.key)), Use::Exclusive));
        }
        if let Some(receipt) = &append.receipt {
            keys.push((hash(&("receipt", tenant, &receipt.key)), Use::Exclusive));
        }
        // A command may name a claim twice: a merge releases and takes it. It is not in its own way.
        let free = keys
            .iter()
            .all(|(key, wanted)| self.used.get(key).is_none_or(|held| *held == Use::Shared && *wanted == Use::Shared));
        for (key, wanted) in keys {
            let held = self.used.entry(key).or_insert(wanted);
            if wanted == Use::Exclusive {
                *held = Use::Exclusive;
            }
        }
        free
    }
}

fn hash(key: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
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

/// Columns of claims and matches, each with what is to be done with it.
#[derive(Default)]
pub(super) struct ValueColumns<'a> {
    pub(super) act: Vec<&'static str>,
    pub(super) tenant: Vec<Uuid>,
    pub(super) kind: Vec<&'a str>,
    pub(super) key: Vec<&'a str>,
    pub(super) aggregate: Vec<Uuid>,
}

impl<'a> ValueColumns<'a> {
    fn push(&mut self, act: &'static str, tenant: Uuid, value: &'a super::KeyedValue) {
        self.act.push(act);
        self.tenant.push(tenant);
        self.kind.push(value.kind);
        self.key.push(&value.key);
        self.aggregate.push(value.aggregate_id);
    }

    /// What a command does with claims and matches, under the names that `log.append` knows.
    pub(super) fn push_all(&mut self, append: &'a Append) {
        let tenant = append.tenant_id;
        let new = append.streams.first().is_some_and(|stream| stream.expected_version == 0);
        // Only records that claim that they are alive can be seen to be deleted.
        let mortal = append.take.iter().any(|value| value.kind == domain::claim::LIVE);
        append.require.iter().for_each(|value| self.push("require", tenant, value));
        append.release.iter().for_each(|value| self.push("release", tenant, value));
        for value in &append.take {
            // Of a deleted record that had the same value is told where the record is new and the value its own.
            let inherits = new && mortal && value.kind != domain::claim::LIVE;
            self.push(if inherits { "inherit" } else { "take" }, tenant, value);
        }
        append.match_remove.iter().for_each(|value| self.push("unmatch", tenant, value));
        append.match_add.iter().for_each(|value| self.push("match", tenant, value));
    }
}

/// Columns of the rows for `log.receipts`.
#[derive(Default)]
pub(super) struct ReceiptColumns<'a> {
    pub(super) tenant: Vec<Uuid>,
    pub(super) key: Vec<&'a str>,
    pub(super) hmac: Vec<&'a [u8]>,
    pub(super) answer: Vec<Json<KeptAnswer<'a>>>,
    pub(super) position: Vec<i64>,
    /// Where the command's events end in the batch, from which the position follows; none where it has no events.
    pub(super) end: Vec<Option<i64>>,
}

/// Columns of the rows for `log.person_keys`.
#[derive(Default)]
pub(super) struct KeyColumns<'a> {
    pub(super) tenant: Vec<Uuid>,
    pub(super) person: Vec<Uuid>,
    pub(super) wrapping_key: Vec<&'a str>,
    pub(super) wrapped: Vec<&'a [u8]>,
}

/// All rows of a batch.
#[derive(Default)]
pub(super) struct Rows<'a> {
    pub(super) events: EventColumns<'a>,
    pub(super) keys: KeyColumns<'a>,
    pub(super) values: ValueColumns<'a>,
    pub(super) receipts: ReceiptColumns<'a>,
}

impl<'a> Rows<'a> {
    /// The rows of the commands that `answer` gives an answer for: the others write nothing. Gives beside them, for each command,
    /// how many events of the batch stand before the end of its own, which is where its position points.
    pub(super) fn collect<'j: 'a>(
        jobs: &'j [Job],
        epoch: &'a str,
        answer: impl Fn(usize) -> Option<&'a Answer>,
    ) -> (Self, Vec<i64>) {
        let mut rows = Self::default();
        let mut ends = vec![0; jobs.len()];
        for (index, job) in jobs.iter().enumerate() {
            let Some(answer) = answer(index) else { continue };
            let append = &job.append;
            let tenant = append.tenant_id;
            for stream in &append.streams {
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
                if let Some(key) = &stream.new_key {
                    rows.keys.tenant.push(tenant);
                    rows.keys.person.push(stream.aggregate_id);
                    rows.keys.wrapping_key.push(&key.wrapping_key_id);
                    rows.keys.wrapped.push(&key.wrapped);
                }
            }
            ends[index] = i64::try_from(rows.events.tenant.len()).expect("a batch is bounded");
            rows.values.push_all(append);
            if let Some(receipt) = &append.receipt {
                let columns = &mut rows.receipts;
                columns.tenant.push(tenant);
                columns.key.push(&receipt.key);
                columns.hmac.push(&receipt.request_hmac);
                columns.answer.push(Json(answer.kept(epoch)));
                columns.position.push(answer.position);
                columns.end.push((!append.streams.is_empty()).then_some(ends[index]));
            }
        }
        (rows, ends)
    }
}
