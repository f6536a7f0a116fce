//! What an operator has decided to leave out is left out by the projection, by whoever folds the log anew, and by the verifier.

use std::sync::Arc;

use domain::Projection;
use domain::projection::{PositionSkipped, ProjectionCommand, SYSTEM_TENANT, record_id};
use domain::value::Line;
use event_store::Executor;
use migrations::COMPANY_PROSPECT;
use projector::live::{Live, Patience};
use projector::projection::{STEP_EVENTS_MAX, StepError};
use serde_json::{Map, json};
use service_kit::shutdown::Shutdown;
use tokio::sync::Notify;

use crate::rebuilding::a_rebuild_gives_the_same_rows;
use crate::support::{DEADLINE, Opened, TENANT, assign, eventually, go_on, keyring, refusal, request, step_to_the_end};

/// Records that an event is left out, as `prospectus projection skip` does.
async fn skip(opened: &Opened, position: i64) {
    let projections: Executor<Projection> = Executor::new(opened.store.clone(), 0);
    let command = ProjectionCommand::Skip(PositionSkipped {
        projection: Line::parse(COMPANY_PROSPECT).expect("a short name"),
        position,
        reason: Line::parse("a test").expect("a short reason"),
    });
    let request = request(SYSTEM_TENANT);
    projections.execute(record_id(COMPANY_PROSPECT), command, &request, |_| Map::new()).await.expect("it is recorded");
}

/// Steps until the projection stops; gives the error.
async fn stopped(opened: &Opened) -> StepError {
    let mut projection = opened.projection().await;
    for _ in 0..1_000 {
        match projection.step(STEP_EVENTS_MAX).await {
            Ok(stepped) => assert!(!stepped.idle(), "it has stopped at nothing"),
            Err(error) => return error,
        }
    }
    panic!("there is no end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_loses_an_event_goes_on_with_the_next() {
    for tamper in ["event_type = 'CompanyVanished'", "event_version = 99"] {
        let opened = Opened::new().await;
        let victim = opened.company(json!({"name": "Victim", "industry": "Mining"})).await;
        let person = opened.prospect(json!({"last_name": "Person", "company_id": victim})).await;
        let bad = opened.rename(victim, "Lost").await;
        opened.sql(&format!("UPDATE log.events SET {tamper} WHERE position = {bad}")).await;
        let error = stopped(&opened).await;
        assert_eq!((error.position(), error.event_position()), (Some(bad), Some(bad)), "{error}");
        skip(&opened, bad).await;
        go_on(&opened).await;
        opened.assert_projected().await;
        let name = format!(
            "SELECT count(*) FROM read.companies WHERE company_id = '{victim}' AND name = 'Victim' AND version = 2"
        );
        assert_eq!(opened.number(&name).await, 1, "{tamper}: it says what it said before");
        // A projection that remembers nothing, and so folds the history.
        let mut kept = opened.projection().await;
        let next = next_event(&opened, victim, "Found").await;
        step_to_the_end(&mut kept, STEP_EVENTS_MAX).await;
        assert_eq!(kept.position(), next);
        opened.assert_projected().await;
        let shown =
            format!("SELECT count(*) FROM read.company_prospect WHERE row_id = '{person}' AND company_name = 'Found'");
        assert_eq!(opened.number(&shown).await, 1, "{tamper}: the next event is applied");
        a_rebuild_gives_the_same_rows(&opened).await;
    }
}

/// The appender cannot read such a record either, so its next event is written here; gives its position.
async fn next_event(opened: &Opened, company: uuid::Uuid, name: &str) -> i64 {
    opened
        .sql(&format!(
            "INSERT INTO log.events SELECT (SELECT max(position) + 1 FROM log.events), e.tenant_id, 'company', e.aggregate_id, 3,
                 gen_random_uuid(), 'CompanyProfileUpdated', 1, '{{\"changes\": {{\"name\": \"{name}\"}}}}', e.metadata, now()
             FROM log.events AS e WHERE e.aggregate_id = '{company}' AND e.sequence = 1"
        ))
        .await;
    opened.head().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_loses_its_first_event_is_not_shown_at_all() {
    let opened = Opened::new().await;
    let victim = opened.company(json!({"name": "Victim"})).await;
    let bad = opened.head().await;
    let person = opened.prospect(json!({"last_name": "Person", "company_id": victim})).await;
    opened.rename(victim, "Again").await;
    opened.sql(&format!("UPDATE log.events SET event_version = 99 WHERE position = {bad}")).await;
    stopped(&opened).await;
    skip(&opened, bad).await;
    go_on(&opened).await;
    opened.assert_projected().await;
    assert_eq!(opened.number("SELECT count(*) FROM read.companies").await, 0);
    let alone = format!("SELECT count(*) FROM read.company_prospect WHERE row_id = '{person}' AND company_id IS NULL");
    assert_eq!(opened.number(&alone).await, 1, "its prospect shows no company");
    assert_eq!(opened.number("SELECT count(*) FROM read.company_prospect").await, 1);
    a_rebuild_gives_the_same_rows(&opened).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_whose_key_is_gone_can_be_left_out() {
    let opened = Opened::new().await;
    let company = opened.company(json!({"name": "Stays"})).await;
    let person = opened.prospect(json!({"last_name": "Keyless", "company_id": company})).await;
    let bad = opened.head().await;
    opened.command_prospect(TENANT, person, assign(None)).await.expect("it may leave");
    let other = opened.prospect(json!({"last_name": "Other", "company_id": company})).await;
    opened.sql(&format!("DELETE FROM log.person_keys WHERE person_id = '{person}'")).await;
    let error = stopped(&opened).await;
    assert_eq!((error.event_position(), error.reason()), (Some(bad), "key_missing"), "{error}");
    skip(&opened, bad).await;
    go_on(&opened).await;
    opened.assert_projected().await;
    let rows = format!("SELECT count(*) FROM read.company_prospect WHERE row_id = '{other}'");
    assert_eq!((opened.number(&rows).await, opened.number("SELECT count(*) FROM read.company_prospect").await), (1, 1));
    a_rebuild_gives_the_same_rows(&opened).await;
}

/// Where the tables refuse a step, it is found out which of its events it is.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_tables_refuse_stop_the_projection_right_before_their_event() {
    let opened = Opened::new().await;
    let victim = opened.company(json!({"name": "Victim"})).await;
    for number in 0..9 {
        opened.company(json!({"name": format!("Before {number}")})).await;
    }
    let bad = opened.rename(victim, "Poison").await;
    for number in 0..9 {
        opened.company(json!({"name": format!("After {number}")})).await;
    }
    opened.sql("ALTER TABLE read_1.companies ADD CONSTRAINT provoked CHECK (name <> 'Poison')").await;
    let error = stopped(&opened).await;
    assert_eq!((error.event_position(), error.reason()), (Some(bad), "rows_refused"), "{error}");
    let said = error.to_string();
    assert!(said.contains("provoked") && said.contains("23514") && !said.contains("Poison"), "{said}");
    assert_eq!(opened.projection().await.position(), bad - 1);
    assert_eq!(opened.number("SELECT count(*) FROM read.companies").await, 10);
    skip(&opened, bad).await;
    go_on(&opened).await;
    opened.assert_projected().await;
    assert_eq!(opened.number("SELECT count(*) FROM read.companies WHERE name = 'Victim' AND version = 2").await, 1);
    a_rebuild_gives_the_same_rows(&opened).await;
}

/// What was applied when it came and cannot be read any more is named where its record's next event comes.
#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_event_of_a_record_is_the_one_that_is_named() {
    let opened = Opened::new().await;
    let victim = opened.company(json!({"name": "Victim"})).await;
    let bad = opened.rename(victim, "Unreadable").await;
    go_on(&opened).await;
    let next = opened.rename(victim, "Readable").await;
    opened.sql(&format!("UPDATE log.events SET event_version = 99 WHERE position = {bad}")).await;
    let error = stopped(&opened).await;
    assert_eq!((error.position(), error.event_position()), (Some(next), Some(bad)), "{error}");
    skip(&opened, bad).await;
    go_on(&opened).await;
    opened.assert_projected().await;
    assert_eq!(opened.number("SELECT count(*) FROM read.companies WHERE name = 'Readable' AND version = 3").await, 1);
}

/// The process writes down where it has stopped, and goes on by itself once that is skipped.
#[tokio::test(flavor = "multi_thread")]
async fn where_it_has_stopped_is_written_down_until_it_is_past() {
    let opened = Opened::new().await;
    opened.company(json!({"name": "Before"})).await;
    let victim = opened.company(json!({"name": "Victim"})).await;
    let bad = opened.rename(victim, "Lost").await;
    opened.sql(&format!("UPDATE log.events SET event_version = 99 WHERE position = {bad}")).await;
    let (trigger, shutdown) = Shutdown::new();
    let (live, state) = Live::new(opened.for_projector(), keyring(), Arc::new(Notify::new()), Patience::default());
    let running = tokio::spawn(live.run(shutdown));
    let stands =
        "SELECT count(*) FROM read.projection_states() WHERE error_stands AND error_reason = 'event_unreadable'";
    eventually("it is written down", async || (opened.number(stands).await == 1).then_some(())).await;
    assert_eq!(state.stopped_at(), Some(bad));
    let text =
        format!("SELECT count(*) FROM read.projection_errors WHERE event_position = {bad} AND error LIKE '%form 99%'");
    assert_eq!(opened.number(&text).await, 1);
    skip(&opened, bad).await;
    let head = opened.head().await;
    eventually("it goes on", async || {
        (state.check().is_ok() && opened.positions(TENANT).await.0 == head).then_some(())
    })
    .await;
    assert_eq!((state.stopped_at(), opened.number(stands).await), (None, 0));
    let last =
        format!("SELECT count(*) FROM read.projection_states() WHERE error_position = {bad} AND NOT error_stands");
    assert_eq!(opened.number(&last).await, 1, "the last error stays to be seen");
    trigger.request();
    tokio::time::timeout(DEADLINE, running).await.expect("in time").expect("it ends cleanly");
    opened.assert_projected().await;
    // Only those are refused that nobody has skipped.
    opened.rename(opened.company(json!({"name": "Next"})).await, "Also lost").await;
    let bad = opened.head().await;
    opened.sql(&format!("UPDATE log.events SET event_version = 99 WHERE position = {bad}")).await;
    let mut projection = opened.projection().await;
    projection.step(STEP_EVENTS_MAX).await.expect("what is before it is applied");
    refusal(projection.step(STEP_EVENTS_MAX).await);
}
