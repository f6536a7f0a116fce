//! The projector as a process: it says that it is ready, and how far it is behind, only where that is so, and it ends where its work
//! has ended.

use std::sync::Arc;
use std::time::Duration;

use projector::live::{Live, Patience};
use serde_json::json;
use service_kit::shutdown::Shutdown;
use tokio::sync::Notify;

use crate::support::process::Process;
use crate::support::{DEADLINE, Opened, eventually, go_on, keyring};

#[tokio::test(flavor = "multi_thread")]
async fn a_projector_that_hangs_is_not_ready_and_its_lag_grows() {
    let opened = Opened::new().await;
    opened.company(json!({"name": "Before"})).await;
    let process = Process::start(&opened).await;
    process.ready(200).await;
    process.lag("everything is applied", |events, seconds| events == 0.0 && seconds == 0.0).await;
    let holder = opened.database.superuser().await;
    // First only the steps wait, then whoever measures how far they are waits too.
    for (mode, unknown) in [("SHARE", false), ("ACCESS EXCLUSIVE", true)] {
        holder
            .batch_execute(&format!("BEGIN; LOCK TABLE read.checkpoint_steps IN {mode} MODE"))
            .await
            .expect("the lock");
        opened.company(json!({"name": "Waits"})).await;
        process
            .lag(mode, |events, seconds| seconds > 0.0 && if unknown { events.is_nan() } else { events > 0.0 })
            .await;
        let why = process.ready(503).await;
        assert!(why.contains("lock timeout") || why.contains("no look at the log"), "{why}");
        holder.batch_execute("ROLLBACK").await.expect("the lock is let go");
        process.ready(200).await;
        process.lag("it has caught up", |events, seconds| events == 0.0 && seconds == 0.0).await;
    }
    opened.assert_projected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projector_whose_work_has_ended_ends() {
    let opened = Opened::new().await;
    opened.company(json!({"name": "Before"})).await;
    let mut process = Process::start(&opened).await;
    process.ready(200).await;
    // What no code of ours writes, and nobody expects: reading the checkpoint panics.
    opened.sql("ALTER TABLE read.checkpoint_steps ALTER COLUMN epoch DROP NOT NULL").await;
    opened.sql("UPDATE read.checkpoint_steps SET epoch = NULL").await;
    opened
        .sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND usename = 'prospectus_projector'",
        )
        .await;
    let status = process.ended().await;
    assert!(!status.success(), "{status}");
}

/// Without the role's own bounds, which the other tests rely on.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_does_not_end_is_told_and_given_up() {
    let opened = Opened::new().await;
    let limits = opened.database.client_for("prospectus_projector").await;
    for (name, wanted) in [("lock_timeout", "10s"), ("statement_timeout", "1min")] {
        let row = limits.query_one(&format!("SHOW {name}"), &[]).await.expect("a setting");
        assert_eq!(row.get::<_, &str>(0), wanted, "{name}");
    }
    let name: String = opened.client.query_one("SELECT current_database()", &[]).await.expect("a name").get(0);
    opened.sql(&format!("ALTER ROLE prospectus_projector IN DATABASE {name} SET lock_timeout = 0")).await;
    opened.company(json!({"name": "Before"})).await;
    go_on(&opened).await;
    let (short, long) = (Duration::from_secs(1), Duration::from_secs(3_600));
    for (patience, told) in [
        (Patience { look: short, step: long }, "no look at the log has ended"),
        (Patience { look: long, step: short }, "the database has not answered"),
    ] {
        let holder = opened.database.superuser().await;
        let (trigger, shutdown) = Shutdown::new();
        let (live, state) = Live::new(opened.for_projector(), keyring(), Arc::new(Notify::new()), patience);
        let running = tokio::spawn(live.run(shutdown));
        eventually("it works", async || state.check().ok()).await;
        holder.batch_execute("BEGIN; LOCK TABLE read.checkpoint_steps IN SHARE MODE").await.expect("the lock");
        opened.company(json!({"name": "Waits"})).await;
        eventually(told, async || state.check().err().filter(|said| said.contains(told))).await;
        holder.batch_execute("ROLLBACK").await.expect("the lock is let go");
        eventually("it works again", async || state.check().ok()).await;
        trigger.request();
        tokio::time::timeout(DEADLINE, running).await.expect("in time").expect("it ends cleanly");
    }
    go_on(&opened).await;
    opened.assert_projected().await;
}
