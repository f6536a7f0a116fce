//! Reading and folding the whole log in parts, for those who build a generation and those who check one. A record belongs to a part by the
//! last bytes of its id, which are random in the ids that the services make. How many parts there are is planned; whoever has folded more
//! than its bound all the same lets half of its records go and leaves them for a later round.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use cqrs_es::Aggregate as _;
use domain::{Company, Prospect, Record};
use event_store::StoredEvent;
use event_store::feed::FeedError;
use event_store::keyring::{KeyError, Keyring};
use event_store::seal::PersonKeys;
use futures_util::TryStreamExt as _;
use service_kit::postgres::Database;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::connection::connect;
use crate::memory::WITHOUT_ROWS;
use crate::projection::StepError;
use crate::record::{ApplyError, Folded, Place, Records, Shown, apply};
use crate::skips::Skips;

/// Positions that one query looks at: no snapshot of the server's is kept for long.
const PAGE_POSITIONS: i64 = 50_000;
/// Events of a batch, which the keys are fetched for at a time, and their bytes.
const BATCH_EVENTS_MAX: usize = 2_000;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Batches that are read while others are folded.
const BATCHES_AHEAD: usize = 2;
/// After so many events others who share the processor have their turn.
const EVENTS_AT_A_TIME: usize = 64;
/// Rounds that are planned at most; parts that are too large all the same are halved.
const ROUNDS_MAX: usize = 1_000;

/// The records whose ids end in a range of numbers: an id's last four bytes, the last one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shard {
    first: u32,
    last: u32,
}

impl Shard {
    /// All records.
    pub(crate) const ALL: Self = Self { first: 0, last: u32::MAX };

    /// All records, in so many rounds of the workers that a part is likely to go into `bytes_max`: seven eighths of it are planned for.
    pub(crate) fn rounds(workers: usize, amount: Amount, bytes_max: usize) -> Vec<Self> {
        let planned = (bytes_max / 8 * 7).saturating_mul(workers).max(1);
        let rounds = amount.bytes.div_ceil(planned).min(amount.records.div_ceil(workers));
        Self::parts(workers * rounds.clamp(1, ROUNDS_MAX))
    }

    /// All records in so many parts.
    pub(crate) fn parts(count: usize) -> Vec<Self> {
        let count = u64::try_from(count).expect("some thousands");
        // Up to 2^32: where the part after the last one would begin.
        let begin = |part: u64| (part << 32) / count;
        let number = |number: u64| u32::try_from(number).expect("below 2^32");
        (0..count).map(|part| Self { first: number(begin(part)), last: number(begin(part + 1) - 1) }).collect()
    }

    /// Whether a record is in it.
    pub(crate) fn has(self, id: Uuid) -> bool {
        let [.., a, b, c, d] = *id.as_bytes();
        (self.first..=self.last).contains(&u32::from_le_bytes([a, b, c, d]))
    }

    /// Its halves, as long as there are two.
    pub(crate) fn halves(self) -> Option<[Self; 2]> {
        let middle = self.first.midpoint(self.last);
        (middle < self.last).then(|| [Self { last: middle, ..self }, Self { first: middle + 1, ..self }])
    }

    /// The condition by which the server finds its records, and some others where it is small: `column`'s last byte. Numbers only, so
    /// putting it into the text is safe.
    pub(crate) fn condition(self, column: &str) -> String {
        format!("get_byte(uuid_send({column}), 15) BETWEEN {} AND {}", self.first >> 24, self.last >> 24)
    }
}

/// The log up to a position, for whoever folds it.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) database: Database,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) head: i64,
    pub(crate) skips: Arc<Skips>,
}

/// What the log has, up to a position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) companies: Amount,
    pub(crate) prospects: Amount,
}

/// How much the log has of one sort of record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amount {
    /// Events.
    pub(crate) events: i64,
    /// Records.
    records: usize,
    /// Bytes that the records will take when they are folded, roughly.
    bytes: usize,
}

impl Amount {
    /// What so many records take that were registered with events of `first_bytes` in all and changed with events of `later_bytes`, as they
    /// are stored: each its own size, and half of what its events say, for it has little more than their values. Later events say more, up to
    /// as much again; then they replace what was there. What is sealed is stored in base64, four bytes for three. What the server has
    /// compressed takes more than this.
    fn of<R: Record>(events: i64, records: i64, first_bytes: i64, later_bytes: i64) -> Self {
        let stored_bytes = first_bytes.saturating_add(later_bytes.min(first_bytes));
        let said_bytes = if R::PERSONAL { stored_bytes / 4 * 3 } else { stored_bytes };
        let bytes = records.saturating_mul(Folded::<R>::BYTES).saturating_add(said_bytes / 2);
        let [records, bytes] = [records, bytes].map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        Self { events, records, bytes }
    }
}

impl Extent {
    /// Looks at the log up to `head`. It has no holes and no records of other sorts: whoever reads it in parts would not see them.
    ///
    /// # Errors
    /// If it has, or the database is away or refuses.
    pub(crate) async fn look(client: &Client, skips: &Skips, head: i64) -> Result<Self, StepError> {
        const COUNT: &str = "-- projector::shard::Extent::look
            SELECT count(*),
                   min(e.position) FILTER (WHERE e.aggregate_type <> ALL ($4 /* all sorts */) AND e.position <> ALL ($5 /* left out */)),
                   count(*) FILTER (WHERE e.aggregate_type = $2), count(*) FILTER (WHERE e.aggregate_type = $2 AND e.sequence = 1),
                   coalesce(sum(pg_column_size(e.payload)) FILTER (WHERE e.aggregate_type = $2 AND e.sequence = 1), 0),
                   coalesce(sum(pg_column_size(e.payload)) FILTER (WHERE e.aggregate_type = $2 AND e.sequence > 1), 0),
                   count(*) FILTER (WHERE e.aggregate_type = $3), count(*) FILTER (WHERE e.aggregate_type = $3 AND e.sequence = 1),
                   coalesce(sum(pg_column_size(e.payload)) FILTER (WHERE e.aggregate_type = $3 AND e.sequence = 1), 0),
                   coalesce(sum(pg_column_size(e.payload)) FILTER (WHERE e.aggregate_type = $3 AND e.sequence > 1), 0)
            FROM log.events AS e WHERE e.position <= $1";
        const HOLE: &str = "-- projector::shard::Extent::look, hole
            SELECT g.position FROM generate_series(1::bigint, $1::bigint) AS g (position)
            WHERE NOT EXISTS (SELECT FROM log.events AS e WHERE e.position = g.position) ORDER BY 1 LIMIT 1";
        const OTHER: &str = "-- projector::shard::Extent::look, other
            SELECT aggregate_type FROM log.events WHERE position = $1";
        let sorts: Vec<&str> = [Company::TYPE, Prospect::TYPE].into_iter().chain(WITHOUT_ROWS).collect();
        let parameters: [&(dyn ToSql + Sync); 5] = [&head, &Company::TYPE, &Prospect::TYPE, &sorts, &skips.positions()];
        let row = client.query_one(COUNT, &parameters).await?;
        if let Some(position) = row.get::<_, Option<i64>>(1) {
            let aggregate_type = client.query_one(OTHER, &[&position]).await?.get(0);
            return Err(ApplyError::Sort { position, aggregate_type }.into());
        }
        if row.get::<_, i64>(0) != head {
            let hole = client.query_opt(HOLE, &[&head]).await?.map_or(head, |row| row.get(0));
            return Err(FeedError::Hole(hole).into());
        }
        Ok(Self {
            companies: Amount::of::<Company>(row.get(2), row.get(3), row.get(4), row.get(5)),
            prospects: Amount::of::<Prospect>(row.get(6), row.get(7), row.get(8), row.get(9)),
        })
    }
}

/// Some events in their order, and the keys of the persons whose they are.
struct Batch {
    events: Vec<StoredEvent>,
    keys: PersonKeys,
}

/// Of so much memory, what folded records may take; the rest is for rows and what is on its way.
pub(crate) fn records_bytes(memory_bytes: usize) -> usize {
    memory_bytes / 4 * 3
}

/// The records of a part, folded, and the part: smaller than what was asked for where that was too much; the rest is in `left`.
pub(crate) struct Part<R> {
    pub(crate) records: Records<R>,
    pub(crate) shard: Shard,
    /// Persons who were erased after the source's head: the log does not say any more what they were there.
    pub(crate) erased_since: HashSet<Place>,
    /// Events of its records, those without a row included.
    pub(crate) folded: i64,
    pub(crate) left: Vec<Shard>,
}

impl<R: Shown> Part<R> {
    /// Lets half of its records go, and half of those, until what is left goes into `bytes_max`; one record is kept whatever it weighs. Gives
    /// the bytes of what is left, and how many events are forgotten.
    fn keep_within(&mut self, bytes_max: usize) -> (usize, i64) {
        let mut forgotten = 0;
        loop {
            let bytes = self.records.values().map(|record| record.weight_bytes()).sum();
            if bytes <= bytes_max || self.records.len() <= 1 {
                self.folded -= forgotten;
                return (bytes, forgotten);
            }
            let Some([kept, left]) = self.shard.halves() else { return (bytes, forgotten) };
            forgotten +=
                self.records.iter().filter(|(place, _)| left.has(place.1)).map(|(_, one)| one.version).sum::<i64>();
            self.records.retain(|place, _| kept.has(place.1));
            self.records.shrink_to_fit();
            self.shard = kept;
            self.left.push(left);
        }
    }
}

/// Folds all records of a sort that are in `shard`, as far as they go into `bytes_max`. Adds to `folded` the events of those.
///
/// # Errors
/// If the log cannot be read, or an event cannot be applied.
pub(crate) async fn fold<R: Shown>(
    source: &Source,
    shard: Shard,
    bytes_max: usize,
    folded: &AtomicI64,
) -> Result<Part<R>, StepError> {
    let (sender, mut batches) = mpsc::channel(BATCHES_AHEAD);
    let mut reading = JoinSet::new();
    reading.spawn(read(source.clone(), shard, R::TYPE, sender));
    let mut part =
        Part { records: Records::<R>::new(), shard, erased_since: HashSet::new(), folded: 0, left: Vec::new() };
    let mut bytes = 0;
    while let Some(Batch { events, keys }) = batches.recv().await {
        part.erased_since.extend(keys.erased_after(source.head));
        let mut taken = 0;
        for (number, event) in events.iter().enumerate().filter(|(_, event)| part.shard.has(event.aggregate_id)) {
            let place = (event.tenant_id, event.aggregate_id);
            let before = part.records.get(&place).map_or(0, |record| record.weight_bytes());
            apply(&mut part.records, event, &keys, &source.skips)?;
            bytes = bytes + part.records.get(&place).map_or(0, |record| record.weight_bytes()) - before;
            taken += 1;
            if number % EVENTS_AT_A_TIME == 0 {
                tokio::task::yield_now().await;
            }
        }
        part.folded += taken;
        folded.fetch_add(taken, Ordering::Relaxed);
        if bytes > bytes_max {
            let forgotten;
            (bytes, forgotten) = part.keep_within(bytes_max);
            folded.fetch_sub(forgotten, Ordering::Relaxed);
        }
    }
    reading.join_next().await.expect("it was spawned").expect("reading does not panic")?;
    // Whose registration is left out has no row.
    part.records.retain(|_, record| record.is_registered());
    Ok(part)
}

/// Reads the events of a sort of record that are in `shard`, until the end or until nobody wants them.
async fn read(
    source: Source,
    shard: Shard,
    aggregate_type: &'static str,
    batches: mpsc::Sender<Batch>,
) -> Result<(), StepError> {
    let mut driven = JoinSet::new();
    let client = connect(&source.database, &mut driven).await?;
    // Prepared on an empty table the plan could be a scan; the index is always right. Long reading is what this is for.
    client.batch_execute("SET enable_seqscan = off; SET enable_sort = off; SET statement_timeout = 0").await?;
    let page = prepare(&client, shard).await?;
    // Keys are asked for while a page is under way.
    let keys_client = connect(&source.database, &mut driven).await?;
    let keyring = (aggregate_type == Prospect::TYPE).then_some(source.keyring);
    let mut after = 0;
    while after < source.head {
        let to = source.head.min(after + PAGE_POSITIONS);
        let parameters: [&(dyn ToSql + Sync); 3] = [&after, &to, &aggregate_type];
        let mut rows = pin!(client.query_raw(&page, parameters).await?);
        let (mut events, mut bytes): (Vec<StoredEvent>, usize) = (Vec::new(), 0);
        loop {
            let row = rows.try_next().await?;
            if let Some(row) = &row {
                let event = StoredEvent::from_row(row)?;
                if shard.has(event.aggregate_id) {
                    bytes += event.payload.len();
                    events.push(event);
                }
            }
            let ended = row.is_none();
            if events.is_empty() || !(ended || events.len() >= BATCH_EVENTS_MAX || bytes >= BATCH_BYTES_MAX) {
                if ended {
                    break;
                }
                continue;
            }
            let events = std::mem::take(&mut events);
            bytes = 0;
            let keys = match &keyring {
                Some(keyring) => keys(&keys_client, keyring, &source.skips, &events).await?,
                None => PersonKeys::default(),
            };
            if batches.send(Batch { events, keys }).await.is_err() || ended {
                break;
            }
        }
        after = to;
    }
    Ok(())
}

/// $1 the position before the page, $2 its last one, $3 the sort of record. Who acted is no part of a record's state.
async fn prepare(client: &Client, shard: Shard) -> Result<Statement, tokio_postgres::Error> {
    let condition = shard.condition("e.aggregate_id");
    client
        .prepare(&format!(
            "-- projector::shard::read
            SELECT e.position, e.tenant_id, e.aggregate_type, e.aggregate_id, e.sequence, e.event_id, e.event_type,
                   e.event_version, e.payload, '{{}}'::json, e.recorded_at
            FROM log.events AS e
            WHERE e.position > $1 AND e.position <= $2 AND e.aggregate_type = $3 AND {condition}
            ORDER BY e.position"
        ))
        .await
}

async fn keys(
    client: &Client,
    keyring: &Keyring,
    skips: &Skips,
    events: &[StoredEvent],
) -> Result<PersonKeys, StepError> {
    // What is left out may be so because its key is missing.
    let read = events.iter().filter(|event| !skips.contains(event.position));
    let persons = read.map(|event| (event.tenant_id, event.aggregate_id));
    PersonKeys::fetch(client, keyring, persons).await.map_err(|source| match source {
        KeyError::Database(error) => error.into(),
        source => StepError::Key { position: events.first().map_or(0, |event| event.position), source },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::company::{RegisterCompany, UpdateCompany};
    use domain::prospect::RegisterProspect;
    use domain::{CompanyCommand, Context, ProspectCommand, RecordEvent as _};
    use serde_json::{Value, json};
    use time::OffsetDateTime;

    use super::*;

    fn ids(count: u128) -> impl Iterator<Item = Uuid> {
        (0..count).map(|number| Uuid::from_u128(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    #[test]
    fn every_id_is_in_one_part_however_often_parts_are_halved() {
        let ids: Vec<Uuid> = ids(5_000).collect();
        let amount = Amount { events: 5_000, records: 5_000, bytes: 1_000 };
        let mut parts = Shard::rounds(2, amount, 200);
        assert_eq!(parts.len(), 6, "three rounds of two");
        assert_eq!(Shard::rounds(2, Amount { records: 3, ..amount }, 1).len(), 4, "no more than there are records");
        for _ in 0..8 {
            let first = parts.remove(0);
            parts.extend(first.halves().expect("there are ids left"));
        }
        assert!(ids.iter().all(|id| parts.iter().filter(|part| part.has(*id)).count() == 1));
        assert_eq!(Shard { first: 7, last: 7 }.halves(), None);
        assert_eq!(Shard::parts(1), [Shard::ALL]);
        assert_eq!(
            Shard { first: 0x8000_0000, last: 0xbfff_ffff }.condition("x"),
            "get_byte(uuid_send(x), 15) BETWEEN 128 AND 191"
        );
    }

    /// A company or prospect after these commands, and the bytes of the first event and of the later ones.
    fn after<R: Shown>(commands: Vec<R::Command>) -> (Folded<R>, i64, i64) {
        let now = OffsetDateTime::UNIX_EPOCH;
        let (mut state, mut sizes) = (R::default(), Vec::new());
        for command in commands {
            for event in state.decide(command, &Context { now, seed: Uuid::nil() }).expect("accepted") {
                sizes.push(event.payload().len());
                state.evolve(&event);
            }
        }
        let record = Folded {
            state,
            version: i64::try_from(sizes.len()).expect("few"),
            position: 1,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            erased_at: None,
            review_since: None,
            added_at: BTreeMap::new(),
        };
        let bytes = |sizes: &[usize]| i64::try_from(sizes.iter().sum::<usize>()).expect("few");
        (record, bytes(&sizes[..1]), bytes(&sizes[1..]))
    }

    fn register(values: Value) -> CompanyCommand {
        CompanyCommand::Register(RegisterCompany::parse(values).expect("good values"))
    }

    fn update(values: Value) -> CompanyCommand {
        CompanyCommand::Update(UpdateCompany::parse(values).expect("good values"))
    }

    #[test]
    fn what_records_take_is_foreseen_however_often_they_change() {
        let full = json!({"name": "Carl Miller Optics", "domain": "miller.example", "industry": "Optical instruments", "country": "DE",
            "city": "Braunschweig", "address": "Salzdahlumer Straße 46", "zip_code": "38126", "phone": "+49 531 123456",
            "employee_count": 120, "revenue": 5_000_000, "short_description": "Lenses, prisms and what holds them",
            "social_media": [{"platform": "linkedin", "url": "https://www.linkedin.com/company/miller-optics"}]});
        let texts = |length: usize| {
            (0..30).map(move |number| json!({"long_description": format!("{number} {}", "x".repeat(length))}))
        };
        let histories = [
            vec![register(full.clone())],
            std::iter::once(register(full.clone())).chain(texts(200).map(update)).collect(),
            vec![register(json!({"name": "A", "long_description": "y".repeat(20_000)}))],
        ];
        for commands in histories {
            let events = commands.len();
            let (record, first, later) = after::<Company>(commands);
            let (bytes, weight) = (Amount::of::<Company>(1, 1, first, later).bytes, record.weight_bytes());
            assert!(bytes < 2 * weight && 2 * bytes > weight, "{events} events: {bytes} for {weight}");
        }
        let register = RegisterProspect::parse(
            json!({"first_name": "Ada", "last_name": "Miller", "email": "ada@miller.example",
            "phone": "+49 531 123457", "job_title": "Head of Lenses", "department": "Development", "city": "Braunschweig", "country": "DE"}),
        );
        let (record, first, _) = after::<Prospect>(vec![ProspectCommand::Register(register.expect("good values"))]);
        let (bytes, weight) = (Amount::of::<Prospect>(1, 1, first / 3 * 4, 0).bytes, record.weight_bytes());
        assert!(bytes < 2 * weight && 2 * bytes > weight, "{bytes} for {weight}");
    }

    #[test]
    fn a_part_that_is_too_large_keeps_what_goes_into_its_bound() {
        let (record, ..) = after::<Company>(vec![register(json!({"name": "A"}))]);
        let weight = record.weight_bytes();
        let mut part = Part {
            records: ids(1_000).map(|id| ((Uuid::nil(), id), Box::new(record.clone()))).collect(),
            shard: Shard::ALL,
            erased_since: HashSet::new(),
            folded: 1_000,
            left: Vec::new(),
        };
        let (bytes, forgotten) = part.keep_within(300 * weight);
        let kept = part.records.len();
        assert!((100..=300).contains(&kept), "{kept}");
        assert_eq!(bytes, kept * weight);
        assert_eq!((part.folded, forgotten), (i64::try_from(kept).unwrap(), 1_000 - i64::try_from(kept).unwrap()));
        let parts: Vec<Shard> = part.left.iter().copied().chain([part.shard]).collect();
        assert!(ids(1_000).all(|id| parts.iter().filter(|part| part.has(id)).count() == 1));
        assert!(part.records.keys().all(|place| part.shard.has(place.1)));
        assert_eq!(part.keep_within(0).0, weight, "one record is kept whatever it weighs");
    }
}
