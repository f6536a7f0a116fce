//! Decision 12: a company's change reaches a bounded number of rows in each step, and holds up nobody else.

use projector::projection::STEP_EVENTS_MAX;
use serde_json::json;
use uuid::Uuid;

use crate::support::{
    OTHER_TENANT, Opened, TENANT, eventually, register_company, register_many, register_many_of, step_to_the_end,
};

/// What decision 12 says of a step, where it reads few events.
const STEP_ROWS_MAX: usize = 2_000;

/// How many rows of a company show the name.
async fn shown(opened: &Opened, company: Uuid, name: &str) -> usize {
    let sql = format!(
        "SELECT count(*) FROM read.company_prospect_view WHERE company_id = '{company}' AND company_name = '{name}'"
    );
    usize::try_from(opened.number(&sql).await).expect("a count")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_100_000_rows_holds_up_nobody() {
    const MANY: usize = 100_000;
    let opened = Opened::new().await;
    let big = opened.company(json!({"name": "Big 1"})).await;
    let small = opened.company(json!({"name": "Small 0"})).await;
    opened.prospect(json!({"last_name": "One", "company_id": small})).await;
    let lonely = opened.company(json!({"name": "Lonely 0"})).await;
    let foreign = Uuid::now_v7();
    let registered =
        opened.command_company(OTHER_TENANT, foreign, register_company(json!({"name": "Foreign 0"}))).await;
    registered.expect("a good company");
    register_many(&opened, big, MANY).await;
    let mut projection = opened.projection().await;
    step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
    assert_eq!(shown(&opened, big, "Big 1").await, MANY);

    let renamed = opened.rename(big, "Big 2").await;
    let first = projection.step(STEP_EVENTS_MAX).await.expect("a step");
    assert_eq!((first.events, first.fanout_rows, first.queued, first.position), (1, STEP_ROWS_MAX, 1, renamed));
    let mut reached = first.fanout_rows;
    let mut steps = 1;
    while reached < MANY {
        assert_eq!(opened.positions(TENANT).await, (projection.position(), renamed - 1), "its change is not complete");
        assert_eq!(opened.positions(OTHER_TENANT).await, (projection.position(), projection.position()));
        // Every few steps others change, and show it after the step that reads the change.
        let mut others = Vec::new();
        if steps % 10 == 0 {
            assert_eq!(shown(&opened, big, "Big 2").await, reached, "step {steps}");
            others = vec![(TENANT, small), (TENANT, lonely), (OTHER_TENANT, foreign)];
        }
        let name = format!("Other {steps}");
        for (tenant, company) in &others {
            opened.rename_of(*tenant, *company, &name).await;
        }
        let step = projection.step(STEP_EVENTS_MAX).await.expect("a step");
        assert_eq!((step.events, step.fanout_rows), (others.len(), STEP_ROWS_MAX.min(MANY - reached + others.len())));
        for (_, company) in &others {
            assert_eq!(shown(&opened, *company, &name).await, 1, "it waits for nobody");
        }
        reached += step.fanout_rows - others.len();
        assert_eq!(step.queued, usize::from(reached < MANY), "step {steps}");
        steps += 1;
        assert!(steps <= 60, "each step takes its part");
    }
    assert!(projection.step(STEP_EVENTS_MAX).await.expect("a step").idle());
    let head = opened.head().await;
    assert_eq!(opened.positions(TENANT).await, (head, head));
    assert_eq!(shown(&opened, big, "Big 2").await, MANY);
    opened.assert_projected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_company_that_changes_again_while_it_is_queued_ends_with_its_last_name() {
    const MANY: usize = 5_000;
    let opened = Opened::new().await;
    let company = opened.company(json!({"name": "Name 1"})).await;
    register_many(&opened, company, MANY).await;
    let mut projection = opened.projection().await;
    step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;

    let second = opened.rename(company, "Name 2").await;
    let step = projection.step(STEP_EVENTS_MAX).await.expect("a step");
    assert_eq!((step.fanout_rows, step.queued), (STEP_ROWS_MAX, 1));
    let third = opened.rename(company, "Name 3").await;
    let step = projection.step(STEP_EVENTS_MAX).await.expect("a step");
    assert_eq!((step.fanout_rows, step.queued), (STEP_ROWS_MAX, 1));
    // The first pass has gone on, with the newest name; the rows before it still have the second.
    assert_eq!(shown(&opened, company, "Name 2").await, STEP_ROWS_MAX);
    assert_eq!(shown(&opened, company, "Name 3").await, STEP_ROWS_MAX);
    assert_eq!(opened.positions(TENANT).await, (third, second - 1));
    // Deleted and restored again while it is queued.
    opened.command_company(TENANT, company, domain::CompanyCommand::Delete).await.expect("it is live");
    projection.step(STEP_EVENTS_MAX).await.expect("a step");
    opened.command_company(TENANT, company, domain::CompanyCommand::Restore).await.expect("it is deleted");
    let last = opened.rename(company, "Name 4").await;
    // A projector that starts in the middle goes on with the queue.
    let mut projection = opened.projection().await;
    let steps = step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
    assert!(steps.iter().all(|step| step.fanout_rows <= STEP_ROWS_MAX), "{steps:?}");
    assert_eq!(shown(&opened, company, "Name 4").await, MANY);
    assert_eq!(opened.positions(TENANT).await, (last, last));
    opened.assert_projected().await;
}

/// Whoever wrote a change and asks for its position must not be shown rows without it.
#[tokio::test(flavor = "multi_thread")]
async fn the_complete_position_stays_below_the_first_of_several_changes() {
    const MANY: usize = 4_500;
    let opened = Opened::new().await;
    let company = opened.company(json!({"name": "Name 1"})).await;
    register_many(&opened, company, MANY).await;
    let mut projection = opened.projection().await;
    step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;

    // Two changes in one step: rows that the step did not reach have neither.
    let first = opened.rename(company, "Name 2").await;
    opened.rename(company, "Name 3").await;
    assert_eq!(projection.step(STEP_EVENTS_MAX).await.expect("a step").events, 2);
    let (_, complete) = opened.positions(TENANT).await;
    assert!(complete < first, "{complete} is said to be complete, but rows show the name before {first}");
    // Two more, each in a step of its own, while the first pass goes on: rows that it has passed have neither.
    let again = opened.rename(company, "Name 4").await;
    projection.step(STEP_EVENTS_MAX).await.expect("a step");
    opened.rename(company, "Name 5").await;
    projection.step(STEP_EVENTS_MAX).await.expect("a step");
    assert!(shown(&opened, company, "Name 3").await > 0, "the second pass has not reached all of them");
    let (_, complete) = opened.positions(TENANT).await;
    assert!(complete < again, "{complete} is said to be complete, but rows show the name before {again}");
    step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
    assert_eq!(shown(&opened, company, "Name 5").await, MANY);
    opened.assert_projected().await;
}

/// Decision 12 for the queue: a tenant that changes another big company in every step keeps nobody's queued change waiting.
#[tokio::test(flavor = "multi_thread")]
async fn new_changes_of_one_tenant_do_not_hold_up_what_another_has_queued() {
    const MANY: usize = 2_100;
    const STEPS: usize = 8;
    let opened = Opened::new().await;
    let waiting = Uuid::now_v7();
    let registered = opened.command_company(OTHER_TENANT, waiting, register_company(json!({"name": "Waits 1"}))).await;
    registered.expect("a good company");
    register_many_of(&opened, OTHER_TENANT, waiting, 2 * MANY).await;
    let mut restless = Vec::new();
    for _ in 0..STEPS {
        let company = opened.company(json!({"name": "Restless 1"})).await;
        register_many(&opened, company, MANY).await;
        restless.push(company);
    }
    let mut projection = opened.projection().await;
    step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;

    let renamed = opened.rename_of(OTHER_TENANT, waiting, "Waits 2").await;
    projection.step(STEP_EVENTS_MAX).await.expect("a step");
    assert_eq!(opened.positions(OTHER_TENANT).await.1, renamed - 1, "it is queued");
    for (number, company) in restless.into_iter().enumerate() {
        opened.rename(company, "Restless 2").await;
        let step = projection.step(STEP_EVENTS_MAX).await.expect("a step");
        assert_eq!((step.events, step.fanout_rows), (1, STEP_ROWS_MAX), "step {number}");
    }
    assert_eq!(shown(&opened, waiting, "Waits 2").await, 2 * MANY);
    assert_eq!(opened.positions(OTHER_TENANT).await.1, projection.position(), "its change is complete");
    step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
    opened.assert_projected().await;
}

/// A projector that has started on empty tables must not keep the plans of then: any index of the tenant would do for them.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_of_grown_tables_is_what_a_step_needs() {
    const MANY: usize = 10_000;
    const SMALL: usize = 40;
    let opened = Opened::new().await;
    // Nobody tells the planner what is in the tables.
    opened.sql("ALTER TABLE read_1.company_prospect SET (autovacuum_enabled = off)").await;
    let mut projection = opened.projection().await;
    let big = opened.company(json!({"name": "Big"})).await;
    opened.prospect(json!({"last_name": "First", "company_id": big})).await;
    step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
    register_many(&opened, big, MANY).await;
    let mut small = Vec::new();
    for _ in 0..SMALL {
        let company = opened.company(json!({"name": "Small"})).await;
        opened.prospect(json!({"last_name": "One", "company_id": company})).await;
        small.push(company);
    }
    step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
    for company in small {
        opened.rename(company, "Small again").await;
        step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
    }
    opened.rename(big, "Big again").await;
    step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
    drop(projection);
    // A backend's counts are there once it has ended.
    const ENDED: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND usename = 'prospectus_projector'";
    eventually("its backends end", async || (opened.number(ENDED).await == 0).then_some(())).await;
    const READ: &str = "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE relname = 'company_prospect'";
    let read = opened.number(READ).await;
    // Each row of the big company was looked for and changed; all of them for each small company would be four times the limit.
    assert!(read < 10 * i64::try_from(MANY).expect("a small number"), "{read} rows were read");
}
