//! An event that cannot be applied stops the projection right before it: nothing is skipped, nothing after it is shown.

use std::sync::Arc;

use event_store::feed::FeedError;
use projector::live::{Live, Patience};
use projector::projection::{STEP_EVENTS_MAX, StepError};
use serde_json::json;
use service_kit::shutdown::Shutdown;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::support::{DEADLINE, Opened, eventually, go_on, keyring, refusal, step_to_the_end};

/// Records before and after the position that is tampered with; gives that position, which is a company's second event.
async fn history(opened: &Opened) -> (i64, Uuid) {
    let victim = opened.company(json!({"name": "Victim"})).await;
    opened.company(json!({"name": "Before"})).await;
    let position = opened.rename(victim, "Changed").await;
    opened.company(json!({"name": "After"})).await;
    opened.rename(victim, "Changed again").await;
    (position, victim)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_applied_stops_the_projection_right_before_it() {
    for (tamper, repair, why) in [
        ("event_type = 'CompanyVanished'", "event_type = 'CompanyProfileUpdated'", "CompanyVanished"),
        ("event_version = 99", "event_version = 1", "form 99"),
        ("aggregate_type = 'spaceship'", "aggregate_type = 'company'", "unknown sort of record, spaceship"),
        ("aggregate_type = 'prospect'", "aggregate_type = 'company'", "sequence 2, but its record is at version 0"),
        ("sequence = 22", "sequence = 2", "sequence 22, but its record is at version 1"),
    ] {
        for at_once in [true, false] {
            let opened = Opened::new().await;
            let (bad, _) = history(&opened).await;
            opened.sql(&format!("UPDATE log.events SET {tamper} WHERE position = {bad}")).await;
            let mut projection = opened.projection().await;
            // In one step with what is before it, or as the first of a step.
            let events_max = if at_once { STEP_EVENTS_MAX } else { bad - 1 };
            let before = projection.step(events_max).await.expect("what is before it is applied");
            assert_eq!((before.position, projection.position()), (bad - 1, bad - 1), "{why}");
            let written = opened.written().await;
            for _ in 0..2 {
                let error = refusal(projection.step(STEP_EVENTS_MAX).await);
                assert!(matches!(error, StepError::Apply(_)), "{error:?}");
                let said = error.to_string();
                assert!(said.contains(&format!("position {bad}")) && said.contains(why), "{said}");
                assert_eq!(opened.written().await, written, "{why}");
                assert_eq!(projection.position(), bad - 1);
            }
            // Neither does another projector get past it, nor one that takes small steps.
            let mut another = opened.projection().await;
            refusal(another.step(1).await);
            assert_eq!(opened.written().await, written, "{why}");
            // Once the log is as it was, everything is applied.
            opened.sql(&format!("UPDATE log.events SET {repair} WHERE position = {bad}")).await;
            go_on(&opened).await;
            opened.assert_projected().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_the_log_stops_the_projection_right_before_it() {
    let opened = Opened::new().await;
    let (bad, _) = history(&opened).await;
    opened.sql(&format!("CREATE TABLE kept AS SELECT * FROM log.events WHERE position = {bad}")).await;
    opened.sql(&format!("DELETE FROM log.events WHERE position = {bad}")).await;
    let mut projection = opened.projection().await;
    assert_eq!(projection.step(STEP_EVENTS_MAX).await.expect("what is before it is applied").position, bad - 1);
    let written = opened.written().await;
    let error = refusal(projection.step(STEP_EVENTS_MAX).await);
    assert!(matches!(error, StepError::Feed(FeedError::Hole(position)) if position == bad), "{error:?}");
    assert_eq!(opened.written().await, written);
    opened.sql("INSERT INTO log.events SELECT * FROM kept").await;
    go_on(&opened).await;
    opened.assert_projected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_without_a_key_stops_the_projection_and_is_not_blanked() {
    let opened = Opened::new().await;
    let company = opened.company(json!({"name": "Before"})).await;
    let person = opened.prospect(json!({"last_name": "Keyless", "company_id": company})).await;
    opened.sql(&format!("CREATE TABLE kept AS SELECT * FROM log.person_keys WHERE person_id = '{person}'")).await;
    opened.sql("DELETE FROM log.person_keys").await;
    let mut projection = opened.projection().await;
    assert_eq!(projection.step(STEP_EVENTS_MAX).await.expect("the company is applied").position, 1);
    let said = refusal(projection.step(STEP_EVENTS_MAX).await).to_string();
    assert!(said.contains("position 2"), "{said}");
    assert_eq!(opened.number("SELECT count(*) FROM read.company_prospect WHERE prospect_id IS NOT NULL").await, 0);
    opened.sql("INSERT INTO log.person_keys SELECT * FROM kept").await;
    step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
    opened.assert_projected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_key_holds_back_only_what_is_after_its_person() {
    for tamper in ["wrapping_key_id = 'nobody'", "wrapped_key = decode('00', 'hex') || wrapped_key"] {
        let opened = Opened::new().await;
        let company = opened.company(json!({"name": "Before"})).await;
        for number in 1..=5 {
            opened.prospect(json!({"last_name": format!("Before {number}"), "company_id": company})).await;
        }
        let person = opened.prospect(json!({"last_name": "Damaged", "company_id": company})).await;
        let bad = opened.head().await;
        for number in 1..=5 {
            opened.prospect(json!({"last_name": format!("After {number}"), "company_id": company})).await;
        }
        opened.sql("CREATE TABLE kept AS SELECT * FROM log.person_keys").await;
        opened.sql(&format!("UPDATE log.person_keys SET {tamper} WHERE person_id = '{person}'")).await;
        let mut projection = opened.projection().await;
        assert_eq!(projection.step(STEP_EVENTS_MAX).await.expect("what is before it is applied").position, bad - 1);
        let error = refusal(projection.step(STEP_EVENTS_MAX).await);
        assert!(matches!(error, StepError::Key { position, .. } if position == bad), "{error:?}");
        assert!(error.to_string().contains(&format!("position {bad}")), "{error}");
        opened.sql(&format!("DELETE FROM log.person_keys WHERE person_id = '{person}'")).await;
        opened.sql(&format!("INSERT INTO log.person_keys SELECT * FROM kept WHERE person_id = '{person}'")).await;
        step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
        opened.assert_projected().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_history_cannot_be_read_holds_back_only_what_is_after_its_event() {
    let opened = Opened::new().await;
    let victim = opened.company(json!({"name": "Victim"})).await;
    let other = opened.company(json!({"name": "Other"})).await;
    go_on(&opened).await;
    opened.rename(other, "Other again").await;
    let bad = opened.rename(victim, "Changed").await;
    opened.sql("UPDATE log.events SET event_type = 'CompanyVanished' WHERE position = 1").await;
    // One that remembers nothing, and so folds the history.
    let mut projection = opened.projection().await;
    assert_eq!(projection.step(STEP_EVENTS_MAX).await.expect("what is before it is applied").position, bad - 1);
    let error = refusal(projection.step(STEP_EVENTS_MAX).await).to_string();
    assert!(error.contains(&format!("position {bad}")) && error.contains("position 1:"), "{error}");
    opened.sql("UPDATE log.events SET event_type = 'CompanyRegistered' WHERE position = 1").await;
    step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
    opened.assert_projected().await;
}

/// The process that keeps the projection up to date says where it has stopped, and goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_live_projection_says_where_it_has_stopped_and_goes_on_by_itself() {
    let opened = Opened::new().await;
    let (bad, _) = history(&opened).await;
    opened.sql(&format!("UPDATE log.events SET event_type = 'CompanyVanished' WHERE position = {bad}")).await;
    let (trigger, shutdown) = Shutdown::new();
    // Nobody ever notifies: the log is polled.
    let (live, state) = Live::new(opened.for_projector(), keyring(), Arc::new(Notify::new()), Patience::default());
    let running = tokio::spawn(live.run(shutdown));
    let place = format!("position {bad}");
    eventually("it says where", async || state.check().err().filter(|said| said.contains(&place))).await;
    opened.sql(&format!("UPDATE log.events SET event_type = 'CompanyProfileUpdated' WHERE position = {bad}")).await;
    eventually("it goes on", async || state.check().ok()).await;
    trigger.request();
    tokio::time::timeout(DEADLINE, running).await.expect("in time").expect("it ends cleanly");
    go_on(&opened).await;
    opened.assert_projected().await;
}
