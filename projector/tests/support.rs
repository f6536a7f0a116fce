//! A log and its projection on a database of the test's own: commands that write the one, and looks at the other.

pub mod gate;
pub mod process;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::company::{Merge, RegisterCompany, UpdateCompany, merge, unmerge};
use domain::prospect::{AssignProspect, RegisterProspect, UpdateProspect};
use domain::{Company, CompanyCommand, CompanyError, Prospect, ProspectCommand, Record, Status};
use event_store::store::StoreTask;
use event_store::{ExecuteError, Executor, Feed, Keyring, Metadata, Request, Store};
use futures_util::{StreamExt as _, stream};
use migrations::testing::TestDatabase;
use projector::projection::{Projection, STEP_EVENTS_MAX, StepError, Stepped};
use projector::verify::{Report, verify, verify_claims};
use serde_json::{Map, Value, json};
use service_kit::postgres::Database;
use tokio_postgres::Client;
use uuid::Uuid;

/// The tenant of most tests.
pub const TENANT: Uuid = Uuid::from_u128(0x7e57);
pub const OTHER_TENANT: Uuid = Uuid::from_u128(0x07e5_7000);

/// Nothing that a test waits for takes longer than this, or the test fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub const KEY_FILE: &str =
    "wrap one AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nindex AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n";

pub struct Opened {
    pub store: Store,
    pub companies: Executor<Company>,
    pub prospects: Executor<Prospect>,
    _task: StoreTask,
    /// A superuser's connection.
    pub client: Client,
    /// Dropped last.
    pub database: TestDatabase,
}

pub fn keyring() -> Arc<Keyring> {
    Arc::new(Keyring::parse(KEY_FILE).expect("a good key file"))
}

pub fn request(tenant_id: Uuid) -> Request {
    Request {
        tenant_id,
        metadata: Metadata {
            actor: "test".into(),
            actor_role: "writer".into(),
            correlation_id: "c".into(),
            causation_id: None,
            request_id: "r".into(),
            source: "test".into(),
            client_address: None,
        },
        receipt: None,
        if_match: None,
        deadline: Instant::now() + Duration::from_secs(120),
        patient: true,
    }
}

impl Opened {
    pub async fn new() -> Self {
        let database = TestDatabase::new().await;
        let client = database.superuser().await;
        let (store, task) = Store::open(&connect(&database.url_for("prospectus_appender")), keyring());
        let companies = Executor::new(store.clone(), 16 << 20);
        let prospects = Executor::new(store.clone(), 16 << 20);
        Self { store, companies, prospects, _task: task, client, database }
    }

    /// The database as the projector's role sees it.
    pub fn for_projector(&self) -> Database {
        connect(&self.database.url_for("prospectus_projector")).read_write()
    }

    pub async fn projection(&self) -> Projection {
        Projection::open(&self.for_projector(), keyring()).await.expect("the projection opens")
    }

    /// Registers a company of [`TENANT`]; gives its id.
    pub async fn company(&self, fields: Value) -> Uuid {
        let id = Uuid::now_v7();
        self.command_company(TENANT, id, register_company(fields)).await.expect("a good company");
        id
    }

    /// Registers a prospect of [`TENANT`]; gives its id.
    pub async fn prospect(&self, fields: Value) -> Uuid {
        let id = Uuid::now_v7();
        self.command_prospect(TENANT, id, register_prospect(fields)).await.expect("a good prospect");
        id
    }

    /// Gives a company of [`TENANT`] another name; gives the change's position.
    pub async fn rename(&self, company: Uuid, name: &str) -> i64 {
        self.rename_of(TENANT, company, name).await
    }

    pub async fn rename_of(&self, tenant: Uuid, company: Uuid, name: &str) -> i64 {
        let command = update_company(serde_json::json!({ "name": name }));
        self.command_company(tenant, company, command).await.expect("a good name")
    }

    /// Carries a command out; gives the position.
    pub async fn command_company(
        &self,
        tenant: Uuid,
        id: Uuid,
        command: CompanyCommand,
    ) -> Result<i64, ExecuteError<domain::CompanyError>> {
        command_on(&self.companies, tenant, id, command).await
    }

    /// Merges a company into another; gives the position.
    pub async fn merge(&self, tenant: Uuid, id: Uuid, into: Uuid) -> Result<i64, ExecuteError<CompanyError>> {
        let decide = |primary: &Company, secondary: &Company| merge((into, primary), (id, secondary));
        self.change_both(tenant, into, id, decide).await
    }

    /// Takes a merged company out of its primary again; gives the position. Of one that is not merged nothing changes.
    pub async fn unmerge(&self, tenant: Uuid, id: Uuid) -> Result<i64, ExecuteError<CompanyError>> {
        let company = self.store.loader().load::<Company>(tenant, id).await.expect("it loads").state;
        let Status::Merged { into } = company.status else { return Ok(0) };
        self.change_both(tenant, into, id, |primary, secondary| unmerge(primary, (id, secondary))).await
    }

    /// Which of the two has its event first is the one time so, the other time so: the rows must not depend on it.
    async fn change_both(
        &self,
        tenant: Uuid,
        primary: Uuid,
        secondary: Uuid,
        decide: impl Fn(&Company, &Company) -> Result<Merge, CompanyError>,
    ) -> Result<i64, ExecuteError<CompanyError>> {
        let answer = if (primary.as_u128() ^ secondary.as_u128()).is_multiple_of(2) {
            let decide = |[one, other]: [&Company; 2]| decide(one, other).map(|both| [both.primary, both.secondary]);
            self.companies.execute_both([primary, secondary], &request(tenant), decide).await
        } else {
            let decide = |[one, other]: [&Company; 2]| decide(other, one).map(|both| [both.secondary, both.primary]);
            self.companies.execute_both([secondary, primary], &request(tenant), decide).await
        };
        Ok(answer?.position)
    }

    pub async fn command_prospect(
        &self,
        tenant: Uuid,
        id: Uuid,
        command: ProspectCommand,
    ) -> Result<i64, ExecuteError<domain::ProspectError>> {
        command_on(&self.prospects, tenant, id, command).await
    }

    pub async fn head(&self) -> i64 {
        self.number("SELECT position FROM log.head").await
    }

    /// The one number that a query gives.
    pub async fn number(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{error:?}: {sql}")).get(0)
    }

    pub async fn sql(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    }

    /// The applied and the complete position, as the query service tells them to a tenant.
    pub async fn positions(&self, tenant: Uuid) -> (i64, i64) {
        const SQL: &str = "SELECT c.position, coalesce(
                (SELECT min(f.position) - 1 FROM read.fanout AS f WHERE f.tenant_id = $1), c.position)
            FROM read.checkpoints AS c";
        let row = self.client.query_one(SQL, &[&tenant]).await.expect("a checkpoint");
        (row.get(0), row.get(1))
    }

    /// All that the projection has written, but for when it did so and the steps before the last.
    pub async fn written(&self) -> Vec<String> {
        const SQL: &str = "
            SELECT 'company ' || t::text FROM read_1.companies AS t
            UNION ALL SELECT 'merged ' || t::text FROM read_1.merged_companies AS t
            UNION ALL SELECT 'row ' || t::text FROM read_1.company_prospect AS t
            UNION ALL SELECT 'queued ' || t::text FROM read.fanout AS t
            UNION ALL SELECT 'position ' || position FROM read.checkpoints
            ORDER BY 1";
        self.client.query(SQL, &[]).await.expect("the tables").iter().map(|row| row.get(0)).collect()
    }

    /// Compares the read tables with the log.
    pub async fn verify(&self) -> Report {
        let database = self.verifier();
        verify(&database, &database, &keyring(), Duration::ZERO).await.expect("both sides can be read")
    }

    /// Compares claims and matches with the log.
    pub async fn verify_claims(&self) -> Report {
        verify_claims(&self.verifier(), &keyring()).await.expect("the log can be read")
    }

    pub fn verifier(&self) -> Database {
        connect(&self.database.url_for("prospectus_verifier"))
    }

    pub async fn log(&self) -> Feed {
        Feed::open(&self.verifier()).await.expect("the log opens")
    }

    /// The read tables are the fold of the whole log. Waits until all of it is applied: what a projector says of its lag is as old as its
    /// last look.
    pub async fn assert_projected(&self) {
        const APPLIED: &str =
            "SELECT c.position FROM read.live AS l JOIN read.checkpoints AS c USING (projection, generation)";
        let head = self.head().await;
        eventually("everything is applied", async || (self.number(APPLIED).await == head).then_some(())).await;
        let report = self.verify().await;
        assert_eq!(report.differences, 0, "of {} rows: {:#?}", report.rows, report.first);
        assert_eq!(report.position, self.head().await, "everything is applied");
    }
}

pub fn connect(url: &str) -> Database {
    Database::parse(url, "projector tests").expect("a good URL")
}

pub fn register_company(fields: Value) -> CompanyCommand {
    CompanyCommand::Register(RegisterCompany::parse(fields).expect("good fields"))
}

pub fn update_company(fields: Value) -> CompanyCommand {
    CompanyCommand::Update(UpdateCompany::parse(fields).expect("good fields"))
}

pub fn register_prospect(fields: Value) -> ProspectCommand {
    ProspectCommand::Register(RegisterProspect::parse(fields).expect("good fields"))
}

pub fn update_prospect(fields: Value) -> ProspectCommand {
    ProspectCommand::Update(UpdateProspect::parse(fields).expect("good fields"))
}

pub fn assign(company_id: Option<Uuid>) -> ProspectCommand {
    ProspectCommand::Assign(AssignProspect { company_id })
}

async fn command_on<R: Record>(
    executor: &Executor<R>,
    tenant: Uuid,
    id: Uuid,
    command: R::Command,
) -> Result<i64, ExecuteError<R::Error>> {
    Ok(executor.execute(id, command, &request(tenant), |_| Map::new()).await?.position)
}

/// Steps until nothing is left to do; gives the steps. Each must be taken.
pub async fn step_to_the_end(projection: &mut Projection, events_max: i64) -> Vec<Stepped> {
    let mut steps = Vec::new();
    loop {
        let stepped = projection.step(events_max).await.expect("a step");
        if stepped.idle() {
            return steps;
        }
        steps.push(stepped);
        assert!(steps.len() < 10_000, "there is no end");
    }
}

/// Like a projector that has been started: takes every step, going on behind another one where that was first.
pub async fn go_on(opened: &Opened) {
    let mut projection = opened.projection().await;
    for _ in 0..1_000 {
        match projection.step(STEP_EVENTS_MAX).await {
            Ok(stepped) if stepped.idle() => return,
            Ok(_) | Err(StepError::Fenced) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("there is no end");
}

/// Looks again and again until `look` finds something.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "it did not come: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Says what an outcome was where it should have been an error.
pub fn refusal<T: Debug, E: std::error::Error>(outcome: Result<T, E>) -> E {
    match outcome {
        Ok(done) => panic!("it should have been refused, but gave {done:?}"),
        Err(error) => error,
    }
}

/// Registers so many prospects of a company.
pub async fn register_many(opened: &Opened, company: Uuid, count: usize) {
    register_many_of(opened, TENANT, company, count).await;
}

pub async fn register_many_of(opened: &Opened, tenant: Uuid, company: Uuid, count: usize) {
    let command = register_prospect(json!({"last_name": "Many", "company_id": company}));
    let registered = stream::iter(0..count).map(|_| async {
        opened.command_prospect(tenant, Uuid::now_v7(), command.clone()).await.expect("a good prospect")
    });
    let registered = registered.buffer_unordered(1_000).count().await;
    assert_eq!(registered, count);
}
