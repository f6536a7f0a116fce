//! A store on a database of the test's own, and appends to give it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use event_store::append::{Append, KeyedValue, NewEvent, StreamAppend};
use event_store::receipt::{Answer, NewReceipt};
use event_store::store::StoreTask;
use event_store::{Keyring, Metadata, Request, Store};
use migrations::testing::TestDatabase;
use service_kit::postgres::Database;
use uuid::Uuid;

/// The tenant of every test.
pub const TENANT: Uuid = Uuid::from_u128(0x7e57);

pub struct Opened {
    pub database: TestDatabase,
    pub store: Store,
    pub task: StoreTask,
}

pub fn keyring() -> Arc<Keyring> {
    let key = base64::engine::general_purpose::STANDARD.encode([7; 32]);
    Arc::new(Keyring::parse(&format!("wrap k1 {key}\nindex {key}")).expect("a good key file"))
}

pub fn database(url: &str) -> Database {
    Database::parse(url, "event-store tests").expect("a good URL")
}

pub async fn open() -> Opened {
    let database = TestDatabase::new().await;
    let (store, task) = another(&database);
    Opened { database, store, task }
}

/// One more store on the same log, as in another process.
pub fn another(on: &TestDatabase) -> (Store, StoreTask) {
    Store::open(&database(&on.url_for("prospectus_appender")), keyring())
}

/// Looks until it is so.
///
/// # Panics
/// If it is not so within a minute.
pub async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let looked = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looked).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

pub fn event() -> NewEvent {
    NewEvent {
        event_id: Uuid::now_v7(),
        event_type: "CompanyRegistered",
        event_version: 1,
        payload: r#"{"profile":{"name":"Test"}}"#.to_owned(),
    }
}

/// One event for a record at `version`.
pub fn append(aggregate_id: Uuid, version: i64) -> Append {
    Append {
        tenant_id: TENANT,
        metadata: "{}".to_owned(),
        streams: vec![StreamAppend {
            aggregate_type: "company",
            aggregate_id,
            expected_version: version,
            events: vec![event()],
            new_key: None,
        }],
        take: Vec::new(),
        release: Vec::new(),
        require: Vec::new(),
        match_add: Vec::new(),
        match_remove: Vec::new(),
        forget: None,
        receipt: None,
        answer: Answer {
            id: aggregate_id,
            version: version + 1,
            position: 0,
            epoch: String::new(),
            details: serde_json::Map::new(),
        },
        epoch: None,
        deadline: Instant::now() + Duration::from_secs(30),
    }
}

pub fn claim(kind: &'static str, key: &str, aggregate_id: Uuid) -> KeyedValue {
    KeyedValue { kind, key: key.to_owned(), aggregate_id }
}

pub fn request(receipt: Option<NewReceipt>) -> Request {
    Request {
        tenant_id: TENANT,
        metadata: Metadata {
            actor: "test".into(),
            actor_role: "writer".into(),
            correlation_id: "c".into(),
            causation_id: None,
            request_id: "r".into(),
            source: "test".into(),
            client_address: None,
        },
        receipt,
        if_match: None,
        deadline: Instant::now() + Duration::from_secs(30),
        patient: true,
    }
}

/// Positions, sequences and ids of the whole log, checked to be dense, in time order, and each event there once.
pub async fn checked_log(database: &TestDatabase) -> Vec<(i64, Uuid, i64, Uuid)> {
    let client = database.superuser().await;
    let rows = client
        .query("SELECT position, aggregate_id, sequence, event_id, recorded_at FROM log.events ORDER BY position", &[])
        .await
        .expect("the log can be read");
    let mut before = None;
    let mut ids = std::collections::HashSet::new();
    let events = rows.iter().zip(1..).map(|(row, expected)| {
        let position: i64 = row.get(0);
        assert_eq!(position, expected, "positions are dense");
        let recorded_at: time::OffsetDateTime = row.get(4);
        assert!(before.is_none_or(|before| before <= recorded_at), "time runs backwards at {position}");
        before = Some(recorded_at);
        assert!(ids.insert(row.get::<_, Uuid>(3)), "event {position} is in the log twice");
        (position, row.get(1), row.get(2), row.get(3))
    });
    events.collect()
}
