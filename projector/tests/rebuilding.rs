//! Rebuilds and roll-backs: the rows of a rebuild are those of the incremental path (I6), what is live changes in one step that nobody
//! sees back from, and whatever dies or stands still on the way leaves nothing behind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use domain::ProspectCommand;
use domain::prospect::EraseProspect;
use projector::live::{Live, Patience};
use projector::projection::{Projection, STEP_EVENTS_MAX, StepError};
use projector::rebuild::Rebuilds;
use serde_json::json;
use service_kit::shutdown::{Shutdown, ShutdownTrigger};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::gate::Gate;
use crate::support::process::Process;
use crate::support::{Opened, TENANT, assign, eventually, go_on, keyring, refusal, step_to_the_end, update_prospect};

/// What does rebuilds, within the test.
struct Rebuilder {
    _trigger: ShutdownTrigger,
    tasks: JoinSet<()>,
}

impl Rebuilder {
    fn start(opened: &Opened, code_version: i32) -> Self {
        let (trigger, shutdown) = Shutdown::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(Rebuilds::new(opened.for_projector(), keyring()).with_version(code_version).run(shutdown));
        Self { _trigger: trigger, tasks }
    }

    /// With a projection that follows what is live.
    fn with_live(opened: &Opened, code_version: i32) -> Self {
        let mut rebuilder = Self::start(opened, code_version);
        let (trigger, shutdown) = Shutdown::new();
        let (live, _) = Live::new(opened.for_projector(), keyring(), Arc::new(Notify::new()), Patience::default());
        rebuilder.tasks.spawn(async move {
            live.with_version(code_version).run(shutdown).await;
            drop(trigger);
        });
        rebuilder
    }
}

async fn ask(opened: &Opened, kind: &str, memory: &str) -> i64 {
    opened
        .number(&format!(
            "INSERT INTO read.rebuilds (projection, kind, memory_bytes, room_from)
             VALUES ('company_prospect', '{kind}', {memory}, 'test') RETURNING rebuild_id"
        ))
        .await
}

/// Waits for the end of a request; gives outcome, error and differences.
async fn outcome(opened: &Opened, id: i64) -> (String, Option<String>, Option<i64>) {
    let sql = "SELECT outcome, error, differences FROM read.rebuilds WHERE rebuild_id = $1 AND finished_at IS NOT NULL";
    eventually("the end of the rebuild", async || {
        let row = opened.client.query_opt(sql, &[&id]).await.expect("the requests")?;
        Some((row.get(0), row.get(1), row.get(2)))
    })
    .await
}

async fn done(opened: &Opened, kind: &str) {
    let id = ask(opened, kind, "100000000").await;
    let (outcome, error, differences) = outcome(opened, id).await;
    assert_eq!((outcome.as_str(), &error), ("live", &None), "{kind}");
    assert_eq!(differences.unwrap_or(0), 0, "the check of a {kind}");
}

async fn live(opened: &Opened) -> i64 {
    opened.number("SELECT generation::bigint FROM read.live").await
}

/// All rows of a generation, as text.
async fn rows(opened: &Opened, generation: i64) -> Vec<String> {
    let sql = format!(
        "SELECT 'company ' || t::text FROM read_{generation}.companies AS t
         UNION ALL SELECT 'merged ' || t::text FROM read_{generation}.merged_companies AS t
         UNION ALL SELECT 'row ' || t::text FROM read_{generation}.company_prospect AS t ORDER BY 1"
    );
    opened.client.query(&sql, &[]).await.expect("the tables").iter().map(|row| row.get(0)).collect()
}

async fn schemas(opened: &Opened) -> Vec<String> {
    let sql = "SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^read_[0-9]+$' ORDER BY oid";
    opened.client.query(sql, &[]).await.expect("the catalogue").iter().map(|row| row.get(0)).collect()
}

/// A bit of everything: merges on merges, deleted and unassigned ones, persons that were erased.
async fn populate(opened: &Opened) -> Vec<Uuid> {
    let mut companies = Vec::new();
    for number in 0..12 {
        companies.push(
            opened
                .company(json!({"name": format!("Company {number}"), "domain": format!("c{number}.example"),
            "attributes": {"score": 0.1, "big": 1e18, "number": number}, "revenue": number}))
                .await,
        );
    }
    let mut prospects = Vec::new();
    for number in 0..60 {
        let company = (number % 7 != 6).then(|| companies[number % 11]);
        prospects.push(
            opened
                .prospect(json!({"last_name": format!("P{number}"), "email": format!("p{number}@c.example"),
            "company_id": company, "attributes": {"x": 1e-9}}))
                .await,
        );
    }
    opened.merge(TENANT, companies[1], companies[2]).await.expect("merged");
    opened.merge(TENANT, companies[2], companies[3]).await.expect("merged on");
    opened.merge(TENANT, companies[4], companies[5]).await.expect("merged");
    opened.unmerge(TENANT, companies[4]).await.expect("unmerged");
    opened.command_company(TENANT, companies[6], domain::CompanyCommand::Delete).await.expect("deleted");
    for prospect in &prospects[..5] {
        opened.command_prospect(TENANT, *prospect, update_prospect(json!({"city": "Ulm"}))).await.expect("changed");
    }
    opened.command_prospect(TENANT, prospects[7], ProspectCommand::Delete).await.expect("deleted");
    opened.command_prospect(TENANT, prospects[8], assign(Some(companies[11]))).await.expect("assigned");
    opened.command_prospect(TENANT, prospects[9], assign(None)).await.expect("taken out");
    opened.command_prospect(TENANT, prospects[10], erase()).await.expect("erased");
    opened.rename(companies[3], "The end of the chain").await;
    prospects
}

fn erase() -> ProspectCommand {
    ProspectCommand::Erase(EraseProspect::parse(json!({"reason": "asked to"})).expect("a reason"))
}

/// I6, for whatever is in the log: the rows of a rebuild are those that the steps have made.
pub async fn a_rebuild_gives_the_same_rows(opened: &Opened) {
    let _rebuilder = Rebuilder::start(opened, 1);
    let before = live(opened).await;
    done(opened, "rebuild").await;
    let after = live(opened).await;
    assert_ne!(after, before);
    assert_eq!(rows(opened, after).await, rows(opened, before).await, "byte for byte");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_gives_the_rows_of_the_incremental_path_also_in_rounds() {
    let opened = Opened::new().await;
    populate(&opened).await;
    go_on(&opened).await;
    // What a generation has is what the first one had: indexes, policies, grants, functions.
    let shape = async |schema: &str| -> Vec<String> {
        let sql = format!(
            "SELECT replace(indexdef, '{schema}', 's') FROM pg_indexes WHERE schemaname = '{schema}'
             UNION ALL SELECT tablename || policyname || roles::text || cmd || coalesce(qual, '') || coalesce(with_check, '')
                 FROM pg_policies WHERE schemaname = '{schema}'
             UNION ALL SELECT relname || relrowsecurity || relforcerowsecurity || coalesce(relacl::text, '')
                 FROM pg_class WHERE relnamespace = to_regnamespace('{schema}') AND relkind = 'r'
             UNION ALL SELECT proname || coalesce(proacl::text, '') || pg_get_userbyid(proowner) FROM pg_proc WHERE pronamespace = to_regnamespace('{schema}')
             ORDER BY 1"
        );
        opened.client.query(&sql, &[]).await.expect("the catalogue").iter().map(|row| row.get(0)).collect()
    };
    let first = shape("read_1").await;
    let _rebuilder = Rebuilder::start(&opened, 1);
    // A memory that no two records go into: every record is folded in a round of its own.
    for (memory, generation) in [("100000000", 2), ("1", 3)] {
        let before = rows(&opened, live(&opened).await).await;
        let id = ask(&opened, "rebuild", memory).await;
        assert_eq!(outcome(&opened, id).await, ("live".to_owned(), None, Some(0)), "{memory}");
        assert_eq!(live(&opened).await, generation);
        assert_eq!(rows(&opened, generation).await, before, "byte for byte");
        opened.assert_projected().await;
        let counted = format!("SELECT position FROM read_{generation}.stats_as_of");
        assert_eq!(opened.number(&counted).await, opened.head().await, "numbers are there when it goes live");
    }
    // The views follow, and of the generations two are left.
    eventually("the views and the tables", async || {
        let view = "SELECT count(*) FROM information_schema.view_table_usage
            WHERE view_schema = 'read' AND table_schema = 'read_3'";
        (opened.number(view).await == 3 && schemas(&opened).await == ["read_2", "read_3"]).then_some(())
    })
    .await;
    // Who serves a tenant sees it there, and nobody else's.
    let request = opened.database.client_for("prospectus_query").await;
    for (tenant, sees) in [(TENANT, true), (Uuid::nil(), false)] {
        request.batch_execute(&format!("SET prospectus.tenant = '{tenant}'")).await.expect("a setting");
        let count: i64 =
            request.query_one("SELECT count(*) FROM read_3.company_prospect", &[]).await.expect("rows").get(0);
        assert_eq!(count > 0, sees);
    }
    assert_eq!(shape("read_3").await, first);
    let mut client = opened.database.superuser().await;
    let transaction = client.transaction().await.expect("a transaction");
    migrations::create_generation(&transaction, "company_prospect", 99, 1).await.expect("tables");
    migrations::create_indexes(&transaction, "company_prospect", 99).await.expect("indexes");
    transaction.commit().await.expect("made");
    eventually("what is nobody's is removed", async || {
        (!schemas(&opened).await.contains(&"read_99".to_owned())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_live_generation_has_otherwise_is_told_and_stops_nothing() {
    let opened = Opened::new().await;
    let prospects = populate(&opened).await;
    go_on(&opened).await;
    let _rebuilder = Rebuilder::start(&opened, 1);
    let superuser = opened.database.superuser().await;
    let beside = async |id: i64| -> (Option<i64>, Vec<String>) {
        let sql = "SELECT live_differences, first_live_differences FROM read.rebuilds WHERE rebuild_id = $1";
        let row = superuser.query_one(sql, &[&id]).await.expect("the request");
        (row.get(0), row.get(1))
    };
    let id = ask(&opened, "rebuild", "100000000").await;
    assert_eq!(outcome(&opened, id).await, ("live".to_owned(), None, Some(0)));
    assert_eq!(beside(id).await, (Some(0), Vec::new()), "nothing has happened to what is live");
    // Whatever spoilt it: that is why one rebuilds.
    let sql = "UPDATE read_2.companies SET legal_name = 'Spoilt' WHERE name = 'Company 0' RETURNING company_id";
    let company: Uuid = superuser.query_one(sql, &[]).await.expect("one company").get(0);
    let sql = "DELETE FROM read_2.company_prospect WHERE prospect_id = $1";
    assert_eq!(superuser.execute(sql, &[&prospects[20]]).await.expect("one row"), 1);
    let id = ask(&opened, "rebuild", "100000000").await;
    assert_eq!(outcome(&opened, id).await, ("live".to_owned(), None, Some(0)), "the new one is the fold of the log");
    let told = vec![
        format!("companies {company}: legal_name"),
        format!("company_prospect {}: only in the new one", prospects[20]),
    ];
    assert_eq!(beside(id).await, (Some(2), told));
    opened.assert_projected().await;

    // What only one of them has taken in is no difference.
    opened.rename(company, "Since then").await;
    opened.command_prospect(TENANT, prospects[21], update_prospect(json!({"city": "Bonn"}))).await.expect("changed");
    opened.prospect(json!({"last_name": "Since then", "company_id": company})).await;
    opened.company(json!({"name": "Since then too"})).await;
    let id = ask(&opened, "rebuild", "100000000").await;
    assert_eq!(outcome(&opened, id).await, ("live".to_owned(), None, Some(0)));
    assert_eq!(beside(id).await, (Some(0), Vec::new()), "the live one was behind");

    // All differences are counted, the first ones told.
    let generation = live(&opened).await;
    let strangers: Vec<Uuid> = (0..25).map(|_| Uuid::now_v7()).collect();
    for stranger in &strangers {
        opened
            .sql(&format!(
                "INSERT INTO read_{generation}.merged_companies VALUES ('{TENANT}', '{stranger}', '{company}');
                 INSERT INTO read_{generation}.companies (tenant_id, company_id, version, position, name, name_sort, created_at, updated_at)
                 VALUES ('{TENANT}', '{stranger}', 1, 1, 'x', 'x', now(), now())"
            ))
            .await;
    }
    opened.sql(&format!("DELETE FROM read_{generation}.company_prospect WHERE prospect_id IS NULL")).await;
    let id = ask(&opened, "rebuild", "100000000").await;
    assert_eq!(outcome(&opened, id).await, ("live".to_owned(), None, Some(0)));
    let (count, first) = beside(id).await;
    let own_rows =
        format!("SELECT count(*) FROM read_{}.company_prospect WHERE prospect_id IS NULL", live(&opened).await);
    assert_eq!(count, Some(50 + opened.number(&own_rows).await));
    assert_eq!(first.len(), 20);
    let told: BTreeSet<String> = strangers.iter().map(|id| format!("companies {id}: only in the live one")).collect();
    assert!(first.iter().all(|one| told.contains(one)), "{first:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_it_is_checked_is_counted_before_it_goes_live() {
    let opened = Opened::new().await;
    populate(&opened).await;
    go_on(&opened).await;
    let gate = Gate::at(&opened, "counting").await;
    let _rebuilder = Rebuilder::with_live(&opened, 1);
    let id = ask(&opened, "rebuild", "100000000").await;
    gate.reached(&opened).await;
    // It is counted beside the check. Whoever asks for numbers of the live generation may have had newer ones since.
    opened.company(json!({"name": "Late"})).await;
    let late = opened.head().await;
    gate.open().await;
    assert_eq!(outcome(&opened, id).await, ("live".to_owned(), None, Some(0)));
    let counted = format!("SELECT position FROM read_{}.stats_as_of", live(&opened).await);
    assert_eq!(opened.number(&counted).await, late);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_nobody_sees_a_hole_or_goes_back_and_a_roll_back_catches_up() {
    let opened = Arc::new(Opened::new().await);
    let prospects = populate(&opened).await;
    go_on(&opened).await;
    let _rebuilder = Rebuilder::with_live(&opened, 1);
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    {
        let (opened, stop) = (Arc::clone(&opened), Arc::clone(&stop));
        let known = prospects[0];
        load.spawn(async move {
            let mut number = 0;
            while !stop.load(Ordering::SeqCst) {
                number += 1;
                let company = opened.company(json!({"name": format!("Under load {number}")})).await;
                opened.prospect(json!({"last_name": "Load", "company_id": company})).await;
                let change = update_prospect(json!({"city": format!("City {number}")}));
                opened.command_prospect(TENANT, known, change).await.expect("changed");
            }
            number
        });
    }
    {
        let (stop, known) = (Arc::clone(&stop), prospects[1]);
        let client = opened.database.client_for("prospectus_query").await;
        load.spawn(async move { read_on(&client, known, &stop).await });
    }
    for kind in ["rebuild", "rebuild", "rollback", "rollback", "rebuild"] {
        done(&opened, kind).await;
    }
    stop.store(true, Ordering::SeqCst);
    let counts = load.join_all().await;
    assert!(counts.iter().all(|count| *count > 10), "there was load: {counts:?}");
    eventually("everything is applied", async || {
        let report = opened.verify().await;
        assert_eq!(report.differences, 0, "{:#?}", report.first);
        (report.position == opened.head().await).then_some(())
    })
    .await;
}

/// Reads as the query service does, until it is stopped; gives how often.
async fn read_on(client: &Client, known: Uuid, stop: &AtomicBool) -> i32 {
    const STATE: &str = "SELECT l.generation, least(c.position, q.position - 1)
        FROM read.live AS l JOIN read.checkpoints AS c USING (projection, generation)
        CROSS JOIN LATERAL (SELECT min(f.position) AS position FROM read.fanout AS f
            WHERE f.projection = l.projection AND f.generation = l.generation) AS q";
    client.batch_execute(&format!("SET prospectus.tenant = '{TENANT}'")).await.expect("a setting");
    let (mut complete, mut rows, mut number) = (0_i64, 0_i64, 0);
    while !stop.load(Ordering::SeqCst) {
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.expect("a snapshot");
        let row = client.query_one(STATE, &[]).await.expect("what is live");
        let (generation, position): (i32, i64) = (row.get(0), row.get(1));
        let sql = format!(
            "SELECT count(*), count(*) FILTER (WHERE row_id = '{known}') FROM read_{generation}.company_prospect
             WHERE prospect_id IS NOT NULL"
        );
        let row = client.query_one(&sql, &[]).await.expect("the live tables are there");
        let (found, there): (i64, i64) = (row.get(0), row.get(1));
        client.batch_execute("COMMIT").await.expect("over");
        assert!(position >= complete, "generation {generation} is complete up to {position}, after {complete}");
        assert!(found >= rows && there == 1, "generation {generation} has {found} rows, after {rows}");
        (complete, rows, number) = (position, found, number + 1);
    }
    number
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_of_the_code_rebuilds_at_its_start_and_leaves_the_live_generation_alone() {
    let opened = Opened::new().await;
    let prospects = populate(&opened).await;
    go_on(&opened).await;
    // Whoever has the newer version does not touch what the older one has built.
    let old = rows(&opened, 1).await;
    opened.prospect(json!({"last_name": "Later"})).await;
    opened.command_prospect(TENANT, prospects[20], erase()).await.expect("erased");
    opened.sql("UPDATE read.generations SET code_version = 2").await;
    let opening = Projection::open(&opened.for_projector(), keyring()).await.map(|_| ());
    assert!(matches!(refusal(opening), StepError::OtherVersion { generation: 1, found: 2, own: 1 }));
    opened.sql("UPDATE read.generations SET code_version = 1").await;

    let rebuilder = Rebuilder::with_live(&opened, 2);
    eventually("the new generation", async || (live(&opened).await == 2).then_some(())).await;
    let version = "SELECT code_version::bigint FROM read.generations WHERE generation = 2";
    assert_eq!(opened.number(version).await, 2);
    // The live tables kept their rows, but for the erased person's.
    let personal =
        format!("SELECT count(*) FROM read_1.company_prospect WHERE row_id = '{}' AND email IS NULL", prospects[20]);
    assert_eq!(opened.number(&personal).await, 1);
    assert_eq!(rows(&opened, 1).await.len(), old.len());
    opened.rename(opened.company(json!({"name": "New"})).await, "Newer").await;
    eventually("the new version follows", async || {
        (opened.verify().await.position == opened.head().await).then_some(())
    })
    .await;
    opened.assert_projected().await;
    // Back only with the release that built it.
    let id = ask(&opened, "rollback", "1").await;
    let (said, error, _) = outcome(&opened, id).await;
    assert!(said == "failed" && error.expect("an error").contains("run the release that built it"));
    drop(rebuilder);
    let _rebuilder = Rebuilder::with_live(&opened, 1);
    done(&opened, "rollback").await;
    assert_eq!(live(&opened).await, 1);
    eventually("the old version follows", async || {
        (opened.verify().await.position == opened.head().await).then_some(())
    })
    .await;
    opened.assert_projected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_says_why_and_leaves_what_is_live() {
    let opened = Opened::new().await;
    let prospects = populate(&opened).await;
    go_on(&opened).await;
    let _rebuilder = Rebuilder::start(&opened, 1);
    let fails = async |kind: &str, change: &str, says: &str| {
        opened.sql(change).await;
        let id = ask(&opened, kind, "100000000").await;
        let (said, error, _) = outcome(&opened, id).await;
        let error = error.expect("an error");
        assert!(said == "failed" && error.contains(says), "{error}");
        assert_eq!(live(&opened).await, 1);
        eventually("nothing is left behind", async || (schemas(&opened).await == ["read_1"]).then_some(())).await;
    };
    fails("rollback", "SELECT 1", "there is no previous generation").await;
    // A key that is missing is no erasure.
    let key = format!(
        "CREATE TABLE kept (LIKE log.person_keys);
         WITH gone AS (DELETE FROM log.person_keys WHERE person_id = '{}' RETURNING *) INSERT INTO kept SELECT * FROM gone",
        prospects[3]
    );
    fails("rebuild", &key, "key").await;
    opened.sql("INSERT INTO log.person_keys SELECT * FROM kept").await;
    fails(
        "rebuild",
        "ALTER TABLE log.events DISABLE TRIGGER ALL; UPDATE log.events SET aggregate_type = 'ghost' WHERE position = 5",
        "unknown sort of record, ghost",
    )
    .await;
    opened.sql("UPDATE log.events SET aggregate_type = 'company' WHERE position = 5").await;
    opened.sql("CREATE TABLE event AS SELECT * FROM log.events WHERE position = 9").await;
    fails("rebuild", "DELETE FROM log.events WHERE position = 9", "position 9 is missing").await;
    opened.sql("INSERT INTO log.events SELECT * FROM event").await;
    // Too little room.
    let id = opened
        .number(
            "INSERT INTO read.rebuilds (projection, kind, memory_bytes, room_bytes, room_from)
             VALUES ('company_prospect', 'rebuild', 1000000, 1000, 'test') RETURNING rebuild_id",
        )
        .await;
    let (said, error, _) = outcome(&opened, id).await;
    assert!(said == "failed" && error.expect("an error").contains("there is room for 1000"));
    // What differs is told, without values, and does not stop it.
    opened.sql("UPDATE read_1.company_prospect SET email = 'not@this.example'").await;
    done(&opened, "rebuild").await;
    opened.assert_projected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_rebuild_ends_and_leaves_nothing() {
    let opened = Opened::new().await;
    populate(&opened).await;
    go_on(&opened).await;
    let gate = Gate::at(&opened, "indexes").await;
    let _rebuilder = Rebuilder::start(&opened, 1);
    let id = ask(&opened, "rebuild", "100000000").await;
    gate.reached(&opened).await;
    // The indexes cannot be made while somebody writes to the table, so the rebuild is in the middle when it is asked to end.
    let mut writer = opened.database.superuser().await;
    let writing = writer.transaction().await.expect("a transaction");
    writing.batch_execute("LOCK TABLE read_2.company_prospect IN ROW EXCLUSIVE MODE").await.expect("the lock");
    gate.open().await;
    opened.sql(&format!("UPDATE read.rebuilds SET cancel = true WHERE rebuild_id = {id}")).await;
    let (said, _, _) = outcome(&opened, id).await;
    assert_eq!(said, "cancelled");
    assert_eq!(live(&opened).await, 1);
    writing.rollback().await.expect("the end");
    eventually("nothing is left behind", async || (schemas(&opened).await == ["read_1"]).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_any_phase_it_is_taken_up_again_at_the_next_start() {
    let opened = Opened::new().await;
    populate(&opened).await;
    go_on(&opened).await;
    let before = rows(&opened, 1).await;
    let mut expected = 1;
    for phase in ["preparing", "companies", "prospects", "indexes", "catching_up", "checking", "counting", "swapping"] {
        let gate = Gate::at(&opened, phase).await;
        let mut process = Process::start(&opened).await;
        let id = ask(&opened, "rebuild", "100000000").await;
        gate.reached(&opened).await;
        process.kill();
        gate.open().await;
        assert_eq!(live(&opened).await, expected, "{phase}: nothing went live");
        let _process = Process::start(&opened).await;
        let (said, error, differences) = outcome(&opened, id).await;
        assert_eq!((said.as_str(), differences), ("live", Some(0)), "{phase}: {error:?}");
        let attempts = format!("SELECT attempts::bigint FROM read.rebuilds WHERE rebuild_id = {id}");
        assert_eq!(opened.number(&attempts).await, 2, "{phase}");
        let now = live(&opened).await;
        assert_eq!(rows(&opened, now).await, before, "{phase}");
        eventually("nothing is left behind", async || {
            (schemas(&opened).await == [format!("read_{expected}"), format!("read_{now}")]).then_some(())
        })
        .await;
        expected = now;
    }
    // In the middle of a COPY.
    let gate = Gate::at(&opened, "companies").await;
    let mut process = Process::start(&opened).await;
    let id = ask(&opened, "rebuild", "100000000").await;
    gate.reached(&opened).await;
    let generation =
        opened.number(&format!("SELECT generation::bigint FROM read.rebuilds WHERE rebuild_id = {id}")).await;
    let rows_gate = Gate::at_rows_of(&opened, &format!("read_{generation}.company_prospect")).await;
    gate.open().await;
    rows_gate.reached(&opened).await;
    process.kill();
    rows_gate.open().await;
    let mut process = Process::start(&opened).await;
    assert_eq!(outcome(&opened, id).await.0, "live");
    assert_eq!(rows(&opened, live(&opened).await).await, before);
    process.kill();
    // In the middle of a roll-back.
    let rebuilt = live(&opened).await;
    let gate = Gate::at(&opened, "counting").await;
    let mut process = Process::start(&opened).await;
    let id = ask(&opened, "rollback", "100000000").await;
    gate.reached(&opened).await;
    process.kill();
    gate.open().await;
    assert_eq!(live(&opened).await, rebuilt, "nothing went live");
    let _process = Process::start(&opened).await;
    assert_eq!(outcome(&opened, id).await.0, "live");
    assert_eq!(live(&opened).await, expected, "the one before");
    assert_eq!(rows(&opened, expected).await, before);
    opened.assert_projected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_projectors_one_rebuilds_and_the_other_takes_over_where_it_stands_still() {
    let opened = Opened::new().await;
    populate(&opened).await;
    go_on(&opened).await;
    let before = rows(&opened, 1).await;
    let gate = Gate::at(&opened, "prospects").await;
    let first = Process::start(&opened).await;
    let id = ask(&opened, "rebuild", "100000000").await;
    gate.reached(&opened).await;
    // The one that is at it stands still: its connections stay.
    first.signal("STOP");
    gate.open().await;
    let second = Process::start(&opened).await;
    let (said, error, differences) = outcome(&opened, id).await;
    assert_eq!((said.as_str(), differences), ("live", Some(0)), "{error:?}");
    let generation = live(&opened).await;
    assert_eq!(rows(&opened, generation).await, before);
    opened.company(json!({"name": "While one stands still"})).await;
    second.lag("the other one goes on", |events, _| events == 0.0).await;
    // It wakes up, finds that all of it is somebody else's now, and is of use again.
    first.signal("CONT");
    first.ready(200).await;
    opened.company(json!({"name": "Afterwards"})).await;
    first.lag("both go on", |events, _| events == 0.0).await;
    assert_eq!(live(&opened).await, generation, "what was started before changes nothing");
    eventually("nothing is left behind", async || (schemas(&opened).await.len() == 2).then_some(())).await;
    opened.assert_projected().await;
    assert_eq!(rows(&opened, 1).await, before, "the generation that it came from stays as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_while_it_is_built_reaches_every_generation() {
    let opened = Opened::new().await;
    let prospects = populate(&opened).await;
    go_on(&opened).await;
    let gate = Gate::at(&opened, "indexes").await;
    let _rebuilder = Rebuilder::with_live(&opened, 1);
    let id = ask(&opened, "rebuild", "100000000").await;
    gate.reached(&opened).await;
    // Its rows are loaded, from keys that were there.
    let erased = prospects[30];
    opened.command_prospect(TENANT, erased, erase()).await.expect("erased");
    gate.open().await;
    assert_eq!(outcome(&opened, id).await.0, "live");
    // And one that the previous generation does not catch up with.
    let later = prospects[31];
    opened.command_prospect(TENANT, later, erase()).await.expect("erased");
    eventually("all generations have forgotten", async || {
        let mut left = 0;
        for schema in schemas(&opened).await {
            let sql = format!(
                "SELECT count(*) FROM {schema}.company_prospect WHERE row_id IN ('{erased}', '{later}') AND num_nonnulls(email, last_name) > 0"
            );
            left += opened.number(&sql).await;
        }
        (left == 0).then_some(())
    })
    .await;
    done(&opened, "rollback").await;
    eventually("everything is applied", async || (opened.verify().await.position == opened.head().await).then_some(()))
        .await;
    opened.assert_projected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_the_live_projection_has_not_come_to_reaches_its_rows_too() {
    let opened = Opened::new().await;
    let prospects = populate(&opened).await;
    go_on(&opened).await;
    // Nobody takes the live generation on from here.
    opened.command_prospect(TENANT, prospects[20], erase()).await.expect("erased");
    let there = format!("SELECT count(email) FROM read_1.company_prospect WHERE row_id = '{}'", prospects[20]);
    assert_eq!(opened.number(&there).await, 1);
    let _rebuilder = Rebuilder::start(&opened, 1);
    done(&opened, "rebuild").await;
    assert_eq!(opened.number(&there).await, 0, "it is kept for a roll-back, without the person");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_is_not_the_fold_of_the_log_does_not_go_live() {
    let opened = Opened::new().await;
    let prospects = populate(&opened).await;
    go_on(&opened).await;
    let _rebuilder = Rebuilder::start(&opened, 1);
    let gate = Gate::at(&opened, "checking").await;
    let id = ask(&opened, "rebuild", "100000000").await;
    gate.reached(&opened).await;
    opened
        .sql(&format!(
            "UPDATE read_2.company_prospect SET email = 'other@b.example' WHERE row_id = '{}'",
            prospects[20]
        ))
        .await;
    gate.open().await;
    let (said, error, differences) = outcome(&opened, id).await;
    assert_eq!((said.as_str(), differences), ("failed", Some(1)));
    assert!(error.expect("an error").contains("does not go live"));
    assert_eq!(live(&opened).await, 1);
    let first = format!(
        "SELECT count(*) FROM read.rebuilds WHERE first_differences = ARRAY['company_prospect {}, email']",
        prospects[20]
    );
    assert_eq!(opened.number(&first).await, 1, "which row and column, without the values");
    eventually("it is removed", async || (schemas(&opened).await == ["read_1"]).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_whose_generation_was_replaced_opens_the_new_one() {
    let opened = Opened::new().await;
    let company = opened.company(json!({"name": "Acme"})).await;
    let mut projection = opened.projection().await;
    step_to_the_end(&mut projection, 100).await;
    let _rebuilder = Rebuilder::start(&opened, 1);
    done(&opened, "rebuild").await;
    opened.rename(company, "Acme again").await;
    assert!(matches!(refusal(projection.step(STEP_EVENTS_MAX).await), StepError::Superseded));
    go_on(&opened).await;
    opened.assert_projected().await;
    let old = opened.number("SELECT count(*) FROM read_1.companies WHERE name = 'Acme'").await;
    assert_eq!(old, 1, "what is kept for a roll-back stays where it was");
}
