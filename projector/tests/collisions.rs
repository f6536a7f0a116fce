//! Decision 11: two projectors on one projection never take the same step, and one that was paused changes nothing when it wakes up.

use std::time::{Duration, Instant};

use futures_util::join;
use projector::projection::{Projection, STEP_EVENTS_MAX, StepError};
use serde_json::json;
use uuid::Uuid;

use crate::support::gate::Gate;
use crate::support::process::Process;
use crate::support::{Opened, TENANT, assign, keyring, refusal, step_to_the_end};

/// Companies with prospects, some of them without.
async fn companies(opened: &Opened, count: usize) -> (Vec<Uuid>, Vec<Uuid>) {
    let (mut companies, mut prospects) = (Vec::new(), Vec::new());
    for number in 0..count {
        let company = opened.company(json!({"name": format!("Company {number}")})).await;
        for _ in 0..number % 3 {
            prospects.push(opened.prospect(json!({"last_name": "Person", "company_id": company})).await);
        }
        companies.push(company);
    }
    (companies, prospects)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_projectors_at_one_step_one_is_fenced() {
    let opened = Opened::new().await;
    let (companies, prospects) = companies(&opened, 30).await;
    let (mut one, mut other) = (opened.projection().await, opened.projection().await);
    let (mut applied, mut fenced) = (0, 0);
    for round in 0..40 {
        for number in 0..10 {
            let company = companies[(round * 7 + number * 11) % companies.len()];
            opened.rename(company, &format!("Round {round}, {number}")).await;
            let prospect = prospects[(round + number * 5) % prospects.len()];
            opened.command_prospect(TENANT, prospect, assign(Some(company))).await.expect("a live company");
        }
        // Not always the same events: one reads fewer than the other.
        let fewer = if round % 2 == 0 { STEP_EVENTS_MAX } else { 7 };
        let (this, that) = join!(one.step(STEP_EVENTS_MAX), other.step(fewer));
        assert!(this.is_ok() || that.is_ok(), "one of them gets on: {this:?}, {that:?}");
        for outcome in [this, that] {
            match outcome {
                Ok(stepped) => applied += stepped.events,
                Err(StepError::Fenced) => fenced += 1,
                Err(error) => panic!("neither done nor fenced: {error:?}"),
            }
        }
    }
    applied += step_to_the_end(&mut one, STEP_EVENTS_MAX).await.iter().map(|step| step.events).sum::<usize>();
    assert!(fenced > 0, "they have never collided");
    assert_eq!(i64::try_from(applied).expect("few"), opened.head().await, "every event was applied once");
    opened.assert_projected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projector_that_was_paused_changes_nothing_when_it_wakes_up() {
    let opened = Opened::new().await;
    let (companies, prospects) = companies(&opened, 6).await;
    // Paused for one step, for some, and for so many that the steps which it would take are forgotten.
    for steps in [1, 20, 320] {
        let mut paused = opened.projection().await;
        let at = paused.position();
        let mut awake = opened.projection().await;
        step_to_the_end(&mut awake, STEP_EVENTS_MAX).await;
        for number in 0..steps {
            opened.rename(companies[1], &format!("Name {number} of {steps}")).await;
            let company = companies[number % companies.len()];
            opened.command_prospect(TENANT, prospects[0], assign(Some(company))).await.expect("a live company");
        }
        step_to_the_end(&mut awake, 1).await;
        let written = opened.written().await;
        let kept = opened.number("SELECT count(*) FROM read.checkpoint_steps").await;
        assert!(kept <= 201, "{kept} old steps are kept");
        for _ in 0..2 {
            match paused.step(STEP_EVENTS_MAX).await {
                Err(StepError::Fenced) => {}
                Ok(stepped) if stepped.idle() => {}
                outcome => panic!("after {steps} steps of another, from {at}: {outcome:?}"),
            }
            assert_eq!(opened.written().await, written, "after {steps} steps of another");
        }
        assert_eq!(paused.position(), opened.head().await, "it has read the other's checkpoint");
        opened.assert_projected().await;
        // And it can take over.
        opened.rename(companies[2], &format!("After {steps}")).await;
        assert_eq!(paused.step(STEP_EVENTS_MAX).await.expect("it is at the head").events, 1);
        opened.assert_projected().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_behind_the_checkpoint_is_refused() {
    let opened = Opened::new().await;
    companies(&opened, 2).await;
    step_to_the_end(&mut opened.projection().await, STEP_EVENTS_MAX).await;
    let step = "INSERT INTO read.checkpoint_steps (projection, generation, step, position, epoch)
        SELECT projection, generation, step + 1";
    let newest = "FROM read.checkpoint_steps ORDER BY step DESC LIMIT 1";
    let open = async || refusal(Projection::open(&opened.for_projector(), keyring()).await.map(|_| ())).to_string();
    opened.sql(&format!("{step}, position, '2.0000abcd' {newest}")).await;
    let error = open().await;
    assert!(error.contains("in epoch 2.0000abcd, but the log is in the older epoch 1."), "{error}");
    opened.sql(&format!("{step}, position + 1, epoch {newest}")).await;
    let error = open().await;
    assert!(error.contains(&format!("but the log ends at position {}", opened.head().await)), "{error}");
}

/// In the middle of a step: its transaction is open, and what it has written is locked.
#[tokio::test(flavor = "multi_thread")]
async fn the_active_one_stands_still_for_half_a_minute_and_the_other_takes_over() {
    const STILL: Duration = Duration::from_secs(30);
    let opened = Opened::new().await;
    let first = Process::start(&opened).await;
    opened.company(json!({"name": "Before"})).await;
    first.lag("it is active", |events, _| events == 0.0).await;
    let gate = Gate::at_rows_of(&opened, "read_1.companies").await;
    opened.company(json!({"name": "In the middle"})).await;
    gate.reached(&opened).await;
    first.signal("STOP");
    gate.open().await;
    let second = Process::start(&opened).await;
    let (began, mut number) = (Instant::now(), 0);
    while began.elapsed() < STILL {
        number += 1;
        opened.company(json!({"name": format!("Meanwhile {number}")})).await;
    }
    second.lag("the other one has taken over", |events, _| events == 0.0).await;
    opened.assert_projected().await;
    first.signal("CONT");
    for number in 0..100 {
        opened.company(json!({"name": format!("Afterwards {number}")})).await;
    }
    for one in [&first, &second] {
        one.lag("both go on", |events, _| events == 0.0).await;
    }
    opened.assert_projected().await;
}
