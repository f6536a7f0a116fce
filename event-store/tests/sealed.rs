//! A log of the test's own with events and heads over them.

use base64::Engine as _;
use event_store::epoch;
use event_store::feed::Feed;
use event_store::proof::sealing::{LostTail, SealError, Sealing};
use event_store::proof::verify::{Anchors, Report, verify};
use event_store::proof::{SealKeys, SignedHead};
use migrations::testing::TestDatabase;
use time::OffsetDateTime;
use tokio_postgres::Client;

use crate::support::database;

pub struct Sealed {
    pub database: TestDatabase,
    /// A superuser.
    pub client: Client,
    pub keys: SealKeys,
}

pub fn keys(seed: u8) -> SealKeys {
    let seed = base64::engine::general_purpose::STANDARD.encode([seed; 32]);
    SealKeys::parse(&format!("seal {seed}")).expect("a key")
}

impl Sealed {
    /// An empty log in its first epoch.
    pub async fn new() -> Self {
        let database = TestDatabase::new().await;
        let mut client = database.superuser().await;
        begin_epoch(&mut client).await;
        Self { database, client, keys: keys(1) }
    }

    /// Appends so many events, by SQL: what is in them does not matter here.
    pub async fn append(&self, count: i64) {
        let sql = "INSERT INTO log.events
            SELECT h.position + n, ('00000000-0000-7000-8000-00000000000' || n % 3)::uuid, 'company', gen_random_uuid(), 1 + n % 7,
                   gen_random_uuid(), 'CompanyRegistered', 1, json_build_object('number', n, 'text', repeat('x', (n % 50)::int)),
                   json_build_object('actor', 'key:' || n % 5), now() + n * interval '1 microsecond'
            FROM log.head AS h, generate_series(1, $1::bigint) AS n";
        self.client.execute(sql, &[&count]).await.expect("events");
    }

    /// The log as the sealer reads it.
    pub async fn feed(&self) -> Feed {
        Feed::open(&database(&self.database.url_for("prospectus_sealer"))).await.expect("the sealer's role can read")
    }

    /// A sealer that goes on.
    pub async fn resume(
        &self,
        feed: &Feed,
        known: Option<&SignedHead>,
    ) -> Result<(Sealing, Option<LostTail>), SealError> {
        Sealing::resume(feed, &self.keys, known).await
    }

    /// Seals the log with a head at each of these positions, by a sealer that goes on; gives the last head.
    pub async fn seal(&self, positions: &[i64]) -> SignedHead {
        let feed = self.feed().await;
        let (mut sealing, lost) = self.resume(&feed, None).await.expect("it goes on");
        assert_eq!(lost, None);
        for position in positions {
            sealing
                .seal(&feed, &self.keys, *position, OffsetDateTime::now_utc())
                .await
                .expect("it seals")
                .expect("there is something to seal");
        }
        sealing.newest().expect("a head").signed.clone()
    }

    pub async fn sql(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    }

    /// Verifies the log in a transaction of its own.
    pub async fn verify(&self, anchors: &Anchors) -> Report {
        self.sql("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
        let report = verify(&self.client, anchors, |_, _| {}).await.expect("it can be read");
        self.sql("COMMIT").await;
        report
    }
}

/// Begins another life of the log.
pub async fn begin_epoch(client: &mut Client) {
    let transaction = client.transaction().await.expect("begun");
    epoch::begin(&transaction).await.expect("an epoch");
    transaction.commit().await.expect("committed");
}
