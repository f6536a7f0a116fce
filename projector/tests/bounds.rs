//! What a step holds is bounded in bytes, however long the texts are that somebody has written.

use event_store::feed::PAGE_BYTES_MAX;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use projector::memory::{HISTORIES_MAX, STEP_RECORDS_BYTES_MAX};
use projector::projection::STEP_EVENTS_MAX;
use serde_json::json;
use uuid::Uuid;

use crate::support::{Opened, TENANT, register_company, step_to_the_end, update_company};

/// The longest text that a company may have: 20,000 characters of four bytes.
const TEXT_BYTES: usize = 80_000;
const COMPANIES: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_steps_are_bounded_in_bytes() {
    let opened = Opened::new().await;
    let text = "\u{1F680}".repeat(TEXT_BYTES / 4);
    let ids: Vec<Uuid> = (0..COMPANIES).map(|_| Uuid::now_v7()).collect();
    let command = register_company(json!({"name": "Long", "long_description": text}));
    let registered = stream::iter(&ids).map(|id| opened.command_company(TENANT, *id, command.clone()));
    let registered: Result<Vec<i64>, _> = registered.buffer_unordered(50).try_collect().await;
    registered.expect("good companies");

    let log = opened.log().await;
    let (mut position, mut pages) = (0, Vec::new());
    loop {
        let page = log.after(position, STEP_EVENTS_MAX).await.expect("no hole");
        let Some(last) = page.last() else { break };
        position = last.position;
        pages.push(page.iter().map(|event| event.payload.len() + event.metadata.len()).sum::<usize>());
    }
    assert_eq!(position, opened.head().await, "nothing is left out");
    assert!(pages.iter().all(|bytes| *bytes <= PAGE_BYTES_MAX), "{pages:?}");
    assert!(pages.len() <= 2 * COMPANIES * TEXT_BYTES / PAGE_BYTES_MAX, "they are not small either: {pages:?}");

    let mut projection = opened.projection().await;
    let steps = step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
    assert!(steps.iter().all(|step| step.events * TEXT_BYTES <= PAGE_BYTES_MAX), "{steps:?}");
    drop(projection);

    // Small events of large records: what is folded for them counts as well.
    let command = update_company(json!({"name": "Longer"}));
    let renamed = stream::iter(&ids).map(|id| opened.command_company(TENANT, *id, command.clone()));
    let renamed: Result<Vec<i64>, _> = renamed.buffer_unordered(50).try_collect().await;
    renamed.expect("good names");
    let mut projection = opened.projection().await;
    let steps = step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
    let most = STEP_RECORDS_BYTES_MAX / TEXT_BYTES + HISTORIES_MAX;
    assert!(steps.iter().all(|step| step.events <= most), "{steps:?}");
    assert_eq!(steps.iter().map(|step| step.events).sum::<usize>(), COMPANIES);
    opened.assert_projected().await;
}
