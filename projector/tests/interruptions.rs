//! Decision 11: rows and checkpoint commit together, so a step that is cut off anywhere has happened or has not.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;

use projector::projection::{Projection, STEP_EVENTS_MAX, StepError};
use serde_json::json;
use uuid::Uuid;

use crate::support::{DEADLINE, Opened, TENANT, assign, eventually, go_on, refusal, step_to_the_end};

/// The projector's backends that wait for a lock.
const WAITING: &str = "SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND usename = 'prospectus_projector' AND wait_event_type = 'Lock'";

/// A log whose last events are not applied yet, and whose step changes every sort of row, in two flushes.
async fn half_projected(opened: &Opened) -> (Uuid, Uuid) {
    let company = opened.company(json!({"name": "First"})).await;
    let left = opened.company(json!({"name": "Left"})).await;
    let stays = opened.prospect(json!({"last_name": "Stays", "company_id": company})).await;
    let moves = opened.prospect(json!({"last_name": "Moves", "company_id": left})).await;
    go_on(opened).await;
    opened.rename(company, "Second").await;
    opened.command_prospect(TENANT, moves, assign(Some(company))).await.expect("a live company");
    (company, stays)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_whose_backend_is_killed_has_not_happened() {
    let opened = Opened::new().await;
    // Wherever it is: at its company's row, at a row that the company's change reaches, at the checkpoint.
    for held in [
        "SELECT FROM read_1.companies WHERE company_id = '{company}' FOR UPDATE",
        "SELECT FROM read_1.company_prospect WHERE row_id = '{stays}' FOR UPDATE",
        "LOCK TABLE read.checkpoint_steps IN SHARE MODE",
    ] {
        let (company, stays) = half_projected(&opened).await;
        let held = held.replace("{company}", &company.to_string()).replace("{stays}", &stays.to_string());
        let written = opened.written().await;
        let mut projection = opened.projection().await;
        let other = opened.database.superuser().await;
        other.batch_execute(&format!("BEGIN; {held}")).await.expect("the lock");
        let step = tokio::spawn(async move { projection.step(STEP_EVENTS_MAX).await });
        let pid: i32 = eventually("the step waits", async || {
            opened.client.query_opt(WAITING, &[]).await.expect("the activity").map(|row| row.get(0))
        })
        .await;
        opened.client.query_one("SELECT pg_terminate_backend($1)", &[&pid]).await.expect("it can be killed");
        let error = refusal(step.await.expect("it does not panic"));
        assert!(matches!(error, StepError::Database(_)), "{error:?}");
        other.batch_execute("ROLLBACK").await.expect("the lock is let go");
        assert_eq!(opened.written().await, written, "held: {held}");
        go_on(&opened).await;
        opened.assert_projected().await;
    }
}

/// A process that is stopped between the two halves of a step keeps its transaction open.
#[tokio::test(flavor = "multi_thread")]
async fn a_projector_that_is_paused_within_a_step_does_not_hold_up_another_for_ever() {
    let opened = Opened::new().await;
    let (company, _) = half_projected(&opened).await;
    let (mut paused, mut other) = (opened.projection().await, opened.projection().await);
    let mut step = pin!(paused.step(STEP_EVENTS_MAX));
    // The first half is sent, and waits for a lock; then nobody looks at the step any more.
    let held = format!("BEGIN; SELECT FROM read_1.companies WHERE company_id = '{company}' FOR UPDATE");
    let holder = opened.database.superuser().await;
    holder.batch_execute(&held).await.expect("the lock");
    tokio::select! {
        outcome = &mut step => panic!("it does not wait: {outcome:?}"),
        () = eventually("the step waits", async || {
            opened.client.query_opt(WAITING, &[]).await.expect("the activity").map(|_| ())
        }) => {}
    }
    holder.batch_execute("ROLLBACK").await.expect("the lock is let go");
    let stepped = tokio::time::timeout(DEADLINE, other.step(STEP_EVENTS_MAX)).await.expect("in time");
    assert_eq!(stepped.expect("the paused one has lost").position, opened.head().await);
    let written = opened.written().await;
    let error = refusal(step.await);
    assert!(matches!(error, StepError::Database(_)), "{error:?}");
    assert_eq!(opened.written().await, written);
    opened.assert_projected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_dropped_anywhere_has_happened_or_has_not() {
    let opened = Opened::new().await;
    let (company, _) = half_projected(&opened).await;
    go_on(&opened).await;
    let mut completed = false;
    // One more look at the future each time, so that it is dropped at every place where it waits.
    for polls_max in 1..200 {
        opened.rename(company, &format!("Name {polls_max}")).await;
        let before = opened.written().await;
        let mut projection = opened.projection().await;
        completed = polled(&mut projection, polls_max).await;
        // One time it is used again, the next time another projector goes on.
        if polls_max % 2 == 0 {
            drop(projection);
            go_on(&opened).await;
        } else {
            match projection.step(STEP_EVENTS_MAX).await {
                Ok(_) | Err(StepError::Fenced) => step_to_the_end(&mut projection, STEP_EVENTS_MAX).await,
                Err(error) => panic!("after {polls_max} polls: {error:?}"),
            };
        }
        assert_ne!(opened.written().await, before);
        opened.assert_projected().await;
        if completed {
            break;
        }
    }
    assert!(completed, "a step is done at some time");
}

/// Begins a step and drops it when it has been polled so often; whether it was done before.
async fn polled(projection: &mut Projection, polls_max: usize) -> bool {
    let mut step = pin!(projection.step(STEP_EVENTS_MAX));
    let mut polls = 0;
    poll_fn(|context| {
        polls += 1;
        if polls > polls_max {
            return Poll::Ready(false);
        }
        step.as_mut().poll(context).map(|outcome| outcome.is_ok())
    })
    .await
}
