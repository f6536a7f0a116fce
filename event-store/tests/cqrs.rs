//! A cqrs-es user comes and goes: the framework on our store, and postgres-es's repository on our view.

use cqrs_es::CqrsFramework;
use cqrs_es::persist::PersistedEventRepository as _;
use domain::{Company, CompanyCommand, Context, Prospect, ProspectCommand};
use event_store::cqrs::CqrsStore;
use postgres_es::PostgresEventRepository;
use serde_json::json;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::support::{self, TENANT, checked_log};

#[tokio::test(flavor = "multi_thread")]
async fn the_framework_runs_on_the_store_and_postgres_es_replays_the_view() {
    let opened = support::open().await;
    let context = || Context { now: time::OffsetDateTime::now_utc(), seed: Uuid::now_v7() };
    let companies = CqrsFramework::new(CqrsStore::<Company>::new(opened.store.clone(), TENANT), vec![], context());
    let id = Uuid::now_v7();
    let register =
        domain::company::RegisterCompany::parse(json!({"name": "Framework", "domain": "framework.example.com"}));
    companies.execute(&id.to_string(), CompanyCommand::Register(register.expect("good"))).await.expect("it is new");
    companies.execute(&id.to_string(), CompanyCommand::Delete).await.expect("it is there");
    assert!(companies.execute(&id.to_string(), CompanyCommand::Delete).await.is_err(), "deleted already");
    let people = CqrsFramework::new(CqrsStore::<Prospect>::new(opened.store.clone(), TENANT), vec![], context());
    let register = domain::prospect::RegisterProspect::parse(json!({"first_name": "Ada"})).expect("good");
    people.execute(&Uuid::now_v7().to_string(), ProspectCommand::Register(register)).await.expect("it is new");
    assert_eq!(checked_log(&opened.database).await.len(), 3);

    let pool = PgPoolOptions::new().max_connections(1).connect(&opened.database.url()).await.expect("a pool");
    let repository = PostgresEventRepository::new(pool).with_tables("log.cqrs_events", "none");
    let mut stream = repository.stream_all_events::<Company>().await.expect("a stream");
    let mut replayed = Company::default();
    let mut count = 0;
    while let Some(event) = stream.next::<Company>(&[]).await {
        let event = event.expect("the view has what cqrs-es reads");
        cqrs_es::Aggregate::apply(&mut replayed, event.payload);
        count += 1;
    }
    let ours = opened.store.loader().load::<Company>(TENANT, id).await.expect("it loads");
    assert_eq!((count, replayed), (2, ours.state));
}
