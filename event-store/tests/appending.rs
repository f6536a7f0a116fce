//! Dense positions in commit order (I1), versions, and what a foreign transaction may cost (I10).

use std::sync::Arc;
use std::time::Instant;

use domain::{Company, CompanyCommand};
use event_store::append::Refused;
use event_store::feed::Feed;
use event_store::{ExecuteError, Executor};
use serde_json::{Map, json};
use uuid::Uuid;

use crate::support::{self, TENANT, append, checked_log, claim, request};

#[tokio::test(flavor = "multi_thread")]
async fn one_event_gets_position_one_and_the_answer_says_so() {
    let opened = support::open().await;
    let id = Uuid::now_v7();
    let answer = opened.store.appender().append(append(id, 0)).await.expect("it is appended");
    assert_eq!((answer.id, answer.version, answer.position), (id, 1, 1));
    assert!(answer.epoch.starts_with("1."), "{}", answer.epoch);
    assert_eq!(checked_log(&opened.database).await.len(), 1);
}

/// Sixteen writers over two stores on one log, with overlapping claims, versions that conflict, commands that the server refuses,
/// and a foreign transaction with a snapshot open throughout; a reader follows and sees every position once, in order.
#[tokio::test(flavor = "multi_thread")]
async fn positions_are_dense_under_writers_that_disagree() {
    const WRITERS: u128 = 16;
    const COMMANDS: usize = 60;
    let opened = support::open().await;
    let (other, other_task) = support::another(&opened.database);
    let foreign = opened.database.superuser().await;
    foreign
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM log.events; SELECT txid_current()")
        .await
        .expect("a foreign transaction");

    let feed_database = support::database(&opened.database.url_for("prospectus_relay"));
    let (stop, stopped) = tokio::sync::watch::channel(0_i64);
    let reader = tokio::spawn(async move {
        let feed = Feed::open(&feed_database).await.expect("the feed opens");
        let mut position = 0;
        loop {
            let wanted = *stopped.borrow();
            let events = feed.after(position, 100).await.expect("no hole");
            position += i64::try_from(events.len()).expect("few");
            if wanted > 0 && position >= wanted {
                return position;
            }
            tokio::task::yield_now().await;
        }
    });

    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let appender = if writer % 2 == 0 { opened.store.appender().clone() } else { other.appender().clone() };
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            // Every writer also appends to one record that all of them share.
            let shared = Uuid::from_u128(0x5a5a);
            let mut shared_version = 0;
            for command in 0..COMMANDS {
                let own = Uuid::now_v7();
                let mut request = append(own, 0);
                match command % 20 {
                    // One in twenty is refused by the server: a statement that fails and rolls back.
                    0 => request.metadata = "not json".to_owned(),
                    // Overlapping pairs of claims, in either order.
                    1..=6 => {
                        let (one, two) = (format!("k{}", command % 7), format!("k{}", (command + 1) % 7));
                        let keys = if writer % 3 == 0 { [two, one] } else { [one, two] };
                        request.take = keys.iter().map(|key| claim("domain", key, own)).collect();
                    }
                    7..=12 => request = append(shared, shared_version),
                    _ => {}
                }
                let event = request.streams[0].events[0].event_id;
                match appender.append(request).await {
                    Ok(answer) => {
                        acknowledged.push((answer.position, event));
                        if answer.id == shared {
                            shared_version = answer.version;
                        }
                    }
                    Err(Refused::Conflict) => shared_version += 1,
                    Err(Refused::ClaimTaken { .. } | Refused::Broken(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            acknowledged
        });
    }
    let acknowledged = writers.join_all().await.concat();
    let log = checked_log(&opened.database).await;
    let head = i64::try_from(log.len()).expect("few");
    stop.send_replace(head);
    assert_eq!(reader.await.expect("the reader ends"), head);
    assert_eq!(log.len(), acknowledged.len(), "what was acknowledged is there, and nothing else");
    for (position, event) in acknowledged {
        assert_eq!(log[usize::try_from(position).expect("positive") - 1].3, event);
    }
    foreign.batch_execute("COMMIT").await.expect("the foreign transaction was open all the time");

    let held: i64 = opened
        .database
        .superuser()
        .await
        .query_one("SELECT count(*) FROM log.claims AS c JOIN log.events AS e ON e.aggregate_id = c.aggregate_id", &[])
        .await
        .expect("claims can be counted")
        .get(0);
    let claims: i64 = opened
        .database
        .superuser()
        .await
        .query_one("SELECT count(*) FROM log.claims", &[])
        .await
        .expect("claims can be counted")
        .get(0);
    assert_eq!(held, claims, "no claim without its event");
    assert_eq!(claims % 2, 0, "a command gets all its claims or none");
    opened.task.finish().await;
    other_task.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_version_is_a_conflict_and_the_others_of_its_batch_stand() {
    let opened = support::open().await;
    let appender = opened.store.appender();
    let id = Uuid::now_v7();
    appender.append(append(id, 0)).await.expect("it is new");
    let fresh: Vec<Uuid> = (0..20).map(|_| Uuid::now_v7()).collect();
    let (stale, others) = futures_util::join!(
        appender.append(append(id, 0)),
        futures_util::future::join_all(fresh.iter().map(|id| appender.append(append(*id, 0)))),
    );
    assert_eq!(stale, Err(Refused::Conflict));
    assert!(others.iter().all(Result::is_ok));
    assert_eq!(checked_log(&opened.database).await.len(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_at_fault_is_found_among_good_ones() {
    let opened = support::open().await;
    let appender = opened.store.appender();
    let outcomes = futures_util::future::join_all((0..50).map(|number| {
        let mut request = append(Uuid::now_v7(), 0);
        if number == 31 {
            request.metadata = "{".to_owned();
        }
        appender.append(request)
    }))
    .await;
    let broken: Vec<usize> = (0..50).filter(|number| outcomes[*number].is_err()).collect();
    assert_eq!(broken, [31]);
    assert!(matches!(&outcomes[31], Err(Refused::Broken(reason)) if reason.starts_with("22P02")));
    assert_eq!(checked_log(&opened.database).await.len(), 49);
}

/// Commands on one record from many tasks of two stores: every one takes effect once, whatever the others do meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_of_one_record_all_stand() {
    let opened = support::open().await;
    let (other, _other_task) = support::another(&opened.database);
    let executors = [opened.store.clone(), other].map(|store| Arc::new(Executor::<Company>::new(store, 1 << 20)));
    let id = Uuid::now_v7();
    let register = domain::company::RegisterCompany::parse(json!({"name": "Shared"})).expect("good");
    executors[0].create(id, CompanyCommand::Register(register), &request(None)).await.expect("it is new");
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..24_usize {
        let executor = Arc::clone(&executors[number % 2]);
        tasks.spawn(async move {
            let body = json!({"attributes": {format!("k{number}"): number}});
            let update = domain::company::UpdateCompany::parse(body).expect("good");
            executor
                .execute(id, CompanyCommand::Update(update), &request(None), |_| Map::new())
                .await
                .map(|answer| answer.version)
        });
    }
    let mut versions: Vec<i64> =
        tasks.join_all().await.into_iter().map(|done| done.expect("it is carried out")).collect();
    versions.sort_unstable();
    assert_eq!(versions, (2..=25).collect::<Vec<i64>>());
    let loaded = opened.store.loader().load::<Company>(TENANT, id).await.expect("it loads");
    assert_eq!((loaded.version, loaded.state.attributes.iter().count()), (25, 24));
}

/// A refusal and a "nothing to change" that rest on a kept state are given only after a fresh load.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_changed_is_seen_before_a_refusal() {
    let opened = support::open().await;
    let (other, _other_task) = support::another(&opened.database);
    let here = Executor::<Company>::new(opened.store.clone(), 1 << 20);
    let there = Executor::<Company>::new(other, 1 << 20);
    let id = Uuid::now_v7();
    let register = domain::company::RegisterCompany::parse(json!({"name": "Kept", "industry": "A"})).expect("good");
    here.create(id, CompanyCommand::Register(register), &request(None)).await.expect("it is new");
    let update = |industry: &str| {
        CompanyCommand::Update(domain::company::UpdateCompany::parse(json!({"industry": industry})).expect("good"))
    };
    there.execute(id, update("B"), &request(None), |_| Map::new()).await.expect("changed elsewhere");
    let answer = here.execute(id, update("A"), &request(None), |_| Map::new()).await.expect("it is a change");
    assert_eq!(answer.version, 3);
    there.execute(id, CompanyCommand::Delete, &request(None), |_| Map::new()).await.expect("deleted elsewhere");
    there.execute(id, CompanyCommand::Restore, &request(None), |_| Map::new()).await.expect("restored elsewhere");
    let mut precise = request(None);
    precise.if_match = Some(5);
    here.execute(id, update("C"), &precise, |_| Map::new()).await.expect("version 5 is the present one");
    precise.if_match = Some(5);
    let stale = here.execute(id, update("D"), &precise, |_| Map::new()).await;
    assert!(matches!(stale, Err(ExecuteError::Precondition(6))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_a_late_command_is_given_up() {
    let opened = support::open().await;
    let appender = opened.store.appender();
    appender.append(append(Uuid::now_v7(), 0)).await.expect("the way is good");
    let blocker = opened.database.superuser().await;
    blocker.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(5787213827046133840)").await.expect("the log's lock");
    let mut late = append(Uuid::now_v7(), 0);
    late.deadline = Instant::now();
    let mut waiting = tokio::task::JoinSet::new();
    for request in (0..2 * event_store::append::QUEUE_PLACES).map(|_| append(Uuid::now_v7(), 0)) {
        let appender = appender.clone();
        waiting.spawn(async move { appender.append(request).await });
    }
    let (mut refused, mut written) = (0, 1);
    let mut blocker = Some(blocker);
    while let Some(outcome) = waiting.join_next().await {
        match outcome.expect("no panic") {
            Err(Refused::Overloaded) => refused += 1,
            Ok(_) => written += 1,
            Err(other) => panic!("{other}"),
        }
        if let Some(blocker) = blocker.take() {
            blocker.batch_execute("COMMIT").await.expect("the lock is let go");
        }
    }
    assert_eq!(refused, event_store::append::QUEUE_PLACES, "what has no place is refused");
    assert_eq!(appender.append(late).await, Err(Refused::Overloaded));
    assert_eq!(checked_log(&opened.database).await.len(), written);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_position_is_read_from_the_index_whatever_the_plan_was_made_on() {
    let opened = support::open().await;
    let client = opened.database.client_for("prospectus_appender").await;
    let sql = "EXPLAIN SELECT coalesce((SELECT position FROM log.events ORDER BY position DESC LIMIT 1), 0)";
    let plan: Vec<String> = client.query(sql, &[]).await.expect("a plan").iter().map(|row| row.get(0)).collect();
    assert!(plan.iter().any(|line| line.contains("Index Only Scan Backward using events_pkey")), "{plan:#?}");
}
