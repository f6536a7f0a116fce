//! What is counted: the numbers are those of the log at the position that they tell, and they are made anew when it is time, by one
//! projector at a time, in nobody's way.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::prospect::EraseProspect;
use domain::{Company, CompanyCommand, Prospect, ProspectCommand, Status};
use migrations::COMPANY_PROSPECT;
use projector::projection::STEP_EVENTS_MAX;
use projector::refresh::{self, RefreshError, Refresher, Schedule};
use serde_json::json;
use service_kit::shutdown::Shutdown;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::support::{
    DEADLINE, OTHER_TENANT, Opened, TENANT, assign, eventually, go_on, refusal, register_company, register_prospect,
    step_to_the_end, update_company, update_prospect,
};

const HOUR: Duration = Duration::from_secs(3_600);

/// Whatever has changed is counted at once.
const AT_ONCE: Schedule = Schedule { events: 1, age: HOUR, lock_wait: Duration::from_secs(3), length: DEADLINE };

impl Opened {
    fn refresher(&self, schedule: Schedule) -> Refresher {
        Refresher::new(self.for_projector(), schedule)
    }

    /// Projects everything and counts it.
    async fn count(&self) {
        go_on(self).await;
        assert!(self.refresher(AT_ONCE).turn().await.expect("a turn").is_some(), "it was due");
    }

    async fn counted_position(&self) -> i64 {
        self.number("SELECT position FROM read_1.stats_as_of").await
    }

    /// Tenant, record, measure, value, country and industry, and how many.
    async fn counted(&self) -> BTreeMap<String, i64> {
        const SQL: &str = "
            SELECT concat_ws('|', tenant_id, 'company', measure, value, country, industry), records FROM read_1.company_stats
            UNION ALL
            SELECT concat_ws('|', tenant_id, 'prospect', measure, value, country, industry), records FROM read_1.prospect_stats
            UNION ALL
            SELECT concat_ws('|', tenant_id, record, 'created', '', country, industry), sum(created)::bigint FROM read_1.growth GROUP BY 1
            UNION ALL
            SELECT concat_ws('|', tenant_id, record, 'live', '', country, industry), sum(live)::bigint FROM read_1.growth GROUP BY 1";
        let rows = self.client.query(SQL, &[]).await.expect("the views");
        let counted: BTreeMap<String, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(counted.len(), rows.len(), "no row twice");
        counted
    }
}

fn erase() -> ProspectCommand {
    ProspectCommand::Erase(EraseProspect::parse(json!({"reason": "asked to"})).expect("a reason"))
}

/// The same numbers, counted from the records as the log says they are.
struct Expected<'a> {
    opened: &'a Opened,
    counts: BTreeMap<String, i64>,
}

impl Expected<'_> {
    fn add(&mut self, parts: [&str; 6]) {
        *self.counts.entry(parts.join("|")).or_default() += 1;
    }

    async fn company(&self, tenant: Uuid, id: Uuid) -> Company {
        self.opened.store.loader().load::<Company>(tenant, id).await.expect("it loads").state
    }

    /// The company that a prospect shows, if it is live.
    async fn shown(&self, tenant: Uuid, mut id: Uuid) -> Option<(Uuid, Company)> {
        loop {
            let company = self.company(tenant, id).await;
            match company.status {
                Status::Merged { into } => id = into,
                Status::Live => return Some((id, company)),
                _ => return None,
            }
        }
    }
}

fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

async fn expected(opened: &Opened, companies: &[(Uuid, Uuid)], prospects: &[(Uuid, Uuid)]) -> BTreeMap<String, i64> {
    let mut expected = Expected { opened, counts: BTreeMap::new() };
    let mut with_prospects = Vec::new();
    for (tenant, id) in prospects {
        let prospect = opened.store.loader().load::<Prospect>(*tenant, *id).await.expect("it loads").state;
        let company = match prospect.company_id {
            Some(id) => expected.shown(*tenant, id).await,
            None => None,
        };
        let owner = tenant.to_string();
        let country = text(prospect.profile.country.as_ref());
        let industry = text(
            company
                .as_ref()
                .and_then(|(_, company)| company.profile.industry.as_ref().map(domain::value::Line::as_str)),
        );
        let mut add = |measure: &str, value: &str| {
            expected.add([&owner, "prospect", measure, value, &country, &industry]);
        };
        add("created", "");
        if prospect.status != Status::Live {
            continue;
        }
        add("live", "");
        add("total", "");
        add("job_level", &text(prospect.profile.job_title_level.as_ref()));
        add("department", &text(prospect.profile.department.as_ref().map(domain::value::Line::as_str)));
        if prospect.personal.fields.email.is_some() {
            add("filled", "email");
        }
        if let Some((company, _)) = company {
            add("filled", "company");
            with_prospects.push((*tenant, company));
        }
    }
    for (tenant, id) in companies {
        let company = expected.company(*tenant, *id).await;
        let owner = tenant.to_string();
        let country = text(company.profile.country.as_ref());
        let industry = text(company.profile.industry.as_ref().map(domain::value::Line::as_str));
        let mut add =
            |measure: &str, value: &str| expected.add([&owner, "company", measure, value, &country, &industry]);
        add("created", "");
        if company.status != Status::Live {
            continue;
        }
        add("live", "");
        add("total", "");
        add("state", &text(company.profile.state.as_ref().map(domain::value::Line::as_str)));
        if with_prospects.contains(&(*tenant, *id)) {
            add("filled", "prospects");
        }
    }
    expected.counts
}

/// Only the measures that [`expected`] counts. A live count of nothing is no row there.
fn comparable(counted: BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    const MEASURES: &[&str] = &[
        "company|created",
        "company|live",
        "company|total",
        "company|state",
        "company|filled|prospects",
        "prospect|created",
        "prospect|live",
        "prospect|total",
        "prospect|job_level",
        "prospect|department",
        "prospect|filled|email",
        "prospect|filled|company",
    ];
    let wanted = |key: &str| {
        let measure = key.split_once('|').expect("a tenant first").1;
        MEASURES.iter().any(|wanted| measure.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('|')))
    };
    counted.into_iter().filter(|(key, count)| wanted(key) && *count > 0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_numbers_are_those_of_the_log() {
    let opened = Opened::new().await;
    let (mut companies, mut prospects) = (Vec::new(), Vec::new());
    let (industries, countries) = (["Steel", "Wool"], ["GB", "DE", "FR"]);
    for number in 0..12_usize {
        let tenant = if number % 4 == 3 { OTHER_TENANT } else { TENANT };
        let mut fields = json!({"name": format!("Company {number}"), "state": format!("S{}", number % 2)});
        fields["country"] = json!(countries[number % 3]);
        if number % 5 != 0 {
            fields["industry"] = json!(industries[number % 2]);
        }
        let id = Uuid::now_v7();
        opened.command_company(tenant, id, register_company(fields)).await.expect("a good company");
        companies.push((tenant, id));
    }
    for number in 0..40_usize {
        let (tenant, company) = companies[number % 12];
        let level = if number % 2 == 0 { "vp" } else { "manager" };
        let mut fields = json!({"last_name": format!("L{number}"), "job_title_level": level, "department": "Sales"});
        if number % 3 != 0 {
            fields["company_id"] = json!(company);
            fields["email"] = json!(format!("p{number}@mail.example"));
        }
        if number % 4 != 0 {
            fields["country"] = json!(countries[number % 3]);
        }
        let id = Uuid::now_v7();
        opened.command_prospect(tenant, id, register_prospect(fields)).await.expect("a good prospect");
        prospects.push((tenant, id));
    }
    opened.count().await;
    assert_eq!(comparable(opened.counted().await), expected(&opened, &companies, &prospects).await);

    // Companies that are deleted, brought back, merged in a chain and changed; prospects that move, change, are deleted and erased.
    let of = |number: usize| companies[number].1;
    for (number, command) in [(0, CompanyCommand::Delete), (1, CompanyCommand::Delete), (1, CompanyCommand::Restore)] {
        opened.command_company(companies[number].0, of(number), command).await.expect("changed");
    }
    opened.merge(TENANT, of(4), of(5)).await.expect("merged");
    opened.merge(TENANT, of(5), of(6)).await.expect("merged");
    opened.merge(TENANT, of(8), of(2)).await.expect("merged");
    opened.unmerge(TENANT, of(8)).await.expect("unmerged");
    let silk = update_company(json!({"industry": "Silk", "country": "US", "state": null}));
    opened.command_company(TENANT, of(6), silk).await.expect("changed");
    opened.command_prospect(TENANT, prospects[0].1, assign(Some(of(6)))).await.expect("assigned");
    let changed = update_prospect(json!({"email": null, "country": "US"}));
    opened.command_prospect(TENANT, prospects[1].1, changed).await.expect("changed");
    opened.command_prospect(TENANT, prospects[2].1, ProspectCommand::Delete).await.expect("deleted");
    opened.command_prospect(TENANT, prospects[4].1, erase()).await.expect("erased");
    opened.count().await;
    assert_eq!(opened.counted_position().await, opened.head().await);
    let expected = expected(&opened, &companies, &prospects).await;
    assert!(expected.keys().any(|key| key.ends_with("|Silk")), "{expected:#?}");
    assert_eq!(comparable(opened.counted().await), expected);

    // What a company's change has not reached yet is not what is counted.
    opened.sql("UPDATE read_1.company_prospect SET industry = 'Stale', prospect_version = prospect_version").await;
    opened.sql("INSERT INTO read.checkpoint_steps SELECT projection, generation, step + 1, position + 1, epoch FROM read.checkpoint_steps ORDER BY step DESC LIMIT 1").await;
    assert!(opened.refresher(AT_ONCE).refresh(1).await.expect("refreshed"));
    assert_eq!(comparable(opened.counted().await), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_position_is_exactly_what_is_counted_while_everything_changes() {
    const EVENTS: i64 = 300;
    let opened = Opened::new().await;
    let mut projection = opened.projection().await;
    let mut refresher = opened.refresher(AT_ONCE);
    let (end, ended) = tokio::sync::watch::channel(false);
    // One event a company, so at every position there are as many companies.
    let projecting = async {
        for number in 0..EVENTS {
            opened.company(json!({"name": format!("Company {number}")})).await;
            projection.step(1).await.expect("a step");
        }
        end.send_replace(true);
    };
    let counting = async {
        let mut positions = Vec::new();
        loop {
            let last = *ended.borrow();
            refresher.turn().await.expect("a turn");
            const SQL: &str = "SELECT s.position, coalesce((SELECT sum(records)::bigint FROM read_1.company_stats WHERE measure = 'total'), 0),
                coalesce((SELECT sum(created)::bigint FROM read_1.growth WHERE record = 'company'), 0), s.epoch FROM read_1.stats_as_of AS s";
            let row = opened.client.query_one(SQL, &[]).await.expect("the views");
            let (position, companies, created): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
            assert_eq!((companies, created), (position, position));
            positions.push(position);
            if last {
                assert!(row.get::<_, String>(3).starts_with("1."), "the epoch of that position");
                return positions;
            }
        }
    };
    let (positions, ()) = tokio::join!(counting, projecting);
    assert_eq!(positions.last(), Some(&EVENTS));
    assert!(positions.iter().any(|position| (1..EVENTS).contains(position)), "it was counted meanwhile: {positions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_counted_anew_after_enough_changes_after_the_time_and_after_an_erasure() {
    let opened = Opened::new().await;
    let mut refresher = opened.refresher(Schedule { events: 3, ..AT_ONCE });
    let mut projection = opened.projection().await;
    assert!(refresher.turn().await.expect("a turn").is_none(), "nothing has happened");
    let mut positions = Vec::new();
    for number in 0..5 {
        opened.prospect(json!({"last_name": format!("L{number}")})).await;
        step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
        refresher.turn().await.expect("a turn");
        positions.push(opened.counted_position().await);
    }
    assert_eq!(positions, [0, 0, 3, 3, 3], "after three events");
    // What was applied counts, not what was appended.
    opened.prospect(json!({"last_name": "Not applied"})).await;
    assert!(refresher.turn().await.expect("a turn").is_none());
    // The oldest change that is not counted becomes old; one before it is no matter.
    opened.sql("UPDATE log.events SET recorded_at = recorded_at - interval '2 hours' WHERE position <= 3").await;
    assert!(refresher.turn().await.expect("a turn").is_none());
    opened.sql("UPDATE log.events SET recorded_at = recorded_at - interval '2 hours' WHERE position = 4").await;
    assert!(refresher.turn().await.expect("a turn").is_some());
    assert_eq!(opened.counted_position().await, 5);
    assert!(refresher.turn().await.expect("a turn").is_none(), "nothing is left");
    // An erasure is not waited with, once it is applied.
    let mut refresher = opened.refresher(Schedule { events: 1_000, ..AT_ONCE });
    let prospect = opened.prospect(json!({"last_name": "Erased"})).await;
    step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
    assert!(refresher.turn().await.expect("a turn").is_none());
    opened.command_prospect(TENANT, prospect, erase()).await.expect("erased");
    assert!(refresher.turn().await.expect("a turn").is_none());
    step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
    assert!(refresher.turn().await.expect("a turn").is_some());
    assert_eq!(opened.counted_position().await, opened.head().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_projectors_never_count_at_the_same_time() {
    let opened = Opened::new().await;
    opened.company(json!({"name": "Acme"})).await;
    go_on(&opened).await;
    // One that is at it: it holds the lock of its transaction, and neither waits for the other.
    let busy = opened.database.client_for("prospectus_projector").await;
    busy.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT read_1.refresh_stats()")
        .await
        .expect("it counts");
    let mut refresher = opened.refresher(AT_ONCE);
    assert!(refresher.turn().await.expect("a turn").is_none());
    assert_eq!(opened.counted_position().await, 0);
    busy.batch_execute("COMMIT").await.expect("it has counted");
    assert_eq!(opened.counted_position().await, 1);
    assert!(refresher.turn().await.expect("a turn").is_none(), "it has been done");
    // One whose snapshot is from before another's refresh changes nothing.
    opened.company(json!({"name": "Other"})).await;
    busy.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await.expect("a snapshot");
    opened.count().await;
    let error = refusal(busy.batch_execute("SELECT read_1.refresh_stats()").await);
    assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{error:?}");
    busy.batch_execute("ROLLBACK").await.expect("it has lost");
    assert_eq!(opened.counted_position().await, 2);
    // In a snapshot for each view it is refused.
    let error = refusal(busy.batch_execute("SELECT read_1.refresh_stats()").await);
    assert_eq!(error.code(), Some(&SqlState::ACTIVE_SQL_TRANSACTION), "{error:?}");
    // Many at once: each does it or does not, and none fails.
    let many = (0..4).map(|_| async {
        let mut refresher = opened.refresher(AT_ONCE);
        let mut done = 0;
        for _ in 0..5 {
            done += u32::from(refresher.refresh(1).await.expect("done, or left to another"));
        }
        done
    });
    let done: u32 = futures_util::future::join_all(many).await.into_iter().sum();
    assert!(done >= 1, "somebody did it");
    assert_eq!(opened.counted_position().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_gives_up_rather_than_block_and_readers_never_block_it() {
    let opened = Opened::new().await;
    opened.company(json!({"name": "Acme"})).await;
    go_on(&opened).await;
    let holder = opened.database.superuser().await;
    let quick = Duration::from_millis(100);
    let code = |error: RefreshError| match error {
        RefreshError::Database(error) => error.code().cloned(),
        RefreshError::NoAnswer(_) => None,
    };
    // The last of the four: what was done before it is undone. (LOCK TABLE takes no materialized views.)
    holder.batch_execute("BEGIN; COMMENT ON MATERIALIZED VIEW read_1.growth IS 'held'").await.expect("the lock");
    let mut refresher = opened.refresher(Schedule { lock_wait: quick, ..AT_ONCE });
    assert_eq!(code(refusal(refresher.turn().await)), Some(SqlState::LOCK_NOT_AVAILABLE));
    refresher.forget().await;
    let mut refresher = opened.refresher(Schedule { lock_wait: DEADLINE, length: quick, ..AT_ONCE });
    assert_eq!(code(refusal(refresher.turn().await)), Some(SqlState::QUERY_CANCELED), "it took too long");
    refresher.forget().await;
    assert_eq!(opened.counted_position().await, 0);
    assert!(opened.counted().await.is_empty());
    holder.batch_execute("ROLLBACK").await.expect("let go");
    // A reader in a long transaction is in nobody's way, and goes on seeing what it saw.
    let old = "SELECT count(*) FROM read_1.company_stats";
    holder.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.expect("a transaction");
    assert_eq!(holder.query_one(old, &[]).await.expect("a count").get::<_, i64>(0), 0);
    let mut refresher = opened.refresher(Schedule { lock_wait: quick, ..AT_ONCE });
    assert!(refresher.turn().await.expect("a turn").is_some());
    assert_eq!(holder.query_one(old, &[]).await.expect("a count").get::<_, i64>(0), 0);
    assert_eq!(opened.counted_position().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_task_goes_on_after_it_was_blocked_and_leaves_nothing_running_at_its_end() {
    let opened = Opened::new().await;
    let (trigger, shutdown) = Shutdown::new();
    let schedule = Schedule { lock_wait: Duration::from_millis(50), ..AT_ONCE };
    let task = tokio::spawn(refresh::run(opened.for_projector(), schedule, shutdown));
    let counted = async |wanted: i64| {
        eventually("it is counted", async || (opened.counted_position().await == wanted).then_some(())).await;
    };
    opened.company(json!({"name": "Acme"})).await;
    go_on(&opened).await;
    counted(1).await;
    let holder = opened.database.superuser().await;
    holder.batch_execute("BEGIN; COMMENT ON MATERIALIZED VIEW read_1.stats_as_of IS 'held'").await.expect("the lock");
    opened.company(json!({"name": "Other"})).await;
    go_on(&opened).await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
        AND query LIKE '%refresh_stats%' AND pid <> pg_backend_pid()";
    eventually("it is tried", async || (opened.number(waits).await > 0).then_some(())).await;
    holder.batch_execute("ROLLBACK").await.expect("let go");
    counted(2).await;
    trigger.request();
    tokio::time::timeout(DEADLINE, task).await.expect("in time").expect("it ends");

    // One that waits for long is cancelled when the end is asked for.
    let (trigger, shutdown) = Shutdown::new();
    let schedule = Schedule { lock_wait: HOUR, length: HOUR, ..AT_ONCE };
    holder.batch_execute("BEGIN; COMMENT ON MATERIALIZED VIEW read_1.stats_as_of IS 'held'").await.expect("the lock");
    opened.company(json!({"name": "Third"})).await;
    go_on(&opened).await;
    let task = tokio::spawn(refresh::run(opened.for_projector(), schedule, shutdown));
    eventually("it waits", async || (opened.number(waits).await > 0).then_some(())).await;
    trigger.request();
    tokio::time::timeout(DEADLINE, task).await.expect("in time").expect("it ends");
    eventually("nothing runs", async || (opened.number(waits).await == 0).then_some(())).await;
    assert_eq!(opened.number("SELECT position FROM read_1.stats_as_of").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_generation_has_its_own_numbers_from_when_it_is_live() {
    let mut opened = Opened::new().await;
    opened.company(json!({"name": "Acme", "industry": "Steel"})).await;
    opened.count().await;
    let before = opened.counted().await;
    let transaction = opened.client.transaction().await.expect("a transaction");
    migrations::create_generation(&transaction, COMPANY_PROSPECT, 2, 1).await.expect("another generation");
    migrations::create_indexes(&transaction, COMPANY_PROSPECT, 2).await.expect("its indexes");
    transaction.commit().await.expect("made");
    assert_eq!(opened.number("SELECT position FROM read_2.stats_as_of").await, 0, "made filled, with nothing");
    opened
        .sql(
            "INSERT INTO read_2.companies SELECT * FROM read_1.companies;
             INSERT INTO read_2.company_prospect SELECT * FROM read_1.company_prospect;
             UPDATE read_2.companies SET industry = 'Wool';
             INSERT INTO read.checkpoint_steps (projection, generation, step, position, epoch)
             SELECT projection, 2, 1, position, epoch FROM read.checkpoints WHERE generation = 1",
        )
        .await;
    // What a rebuild does before its generation goes live.
    let mut refresher = opened.refresher(AT_ONCE);
    assert!(refresher.turn().await.expect("a turn").is_none(), "the live one has nothing new");
    assert!(refresher.refresh(2).await.expect("counted"));
    let industry = "SELECT count(*) FROM read_2.company_stats WHERE measure = 'total' AND industry = 'Wool'";
    assert_eq!(opened.number(industry).await, 1);
    assert_eq!(opened.number("SELECT position FROM read_2.stats_as_of").await, 1);
    // And what becomes of one that goes live without: it is due at once.
    opened.sql("UPDATE read_2.companies SET industry = 'Silk'; UPDATE read.live SET generation = 2").await;
    opened
        .sql("INSERT INTO read.checkpoint_steps (projection, generation, step, position, epoch) SELECT projection, 2, 2, 7, epoch FROM read.checkpoints WHERE generation = 1")
        .await;
    assert!(refresher.turn().await.expect("a turn").is_some());
    assert_eq!(opened.number(&industry.replace("Wool", "Silk")).await, 1);
    assert_eq!(opened.number("SELECT position FROM read_2.stats_as_of").await, 7);
    assert_eq!(opened.counted().await, before, "the other's are as they were");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_table_is_read_again_for_every_row_of_another_though_nobody_has_counted_them() {
    let opened = Opened::new().await;
    let session = opened.database.superuser().await;
    let rows = format!(
        "INSERT INTO read_1.companies (tenant_id, company_id, version, position, name, name_sort, created_at, updated_at)
         SELECT '{TENANT}', gen_random_uuid(), 1, n, 'x', 'x', now(), now() FROM generate_series(1, 3000) AS n;
         INSERT INTO read_1.company_prospect (tenant_id, row_id, position, assigned_company_id, prospect_id, prospect_version,
             prospect_created_at, prospect_updated_at, created_at, updated_at)
         SELECT c.tenant_id, p.id, c.position, c.company_id, p.id, 1, now(), now(), now(), now()
         FROM read_1.companies AS c CROSS JOIN LATERAL (SELECT gen_random_uuid() AS id WHERE c.position > 0) AS p"
    );
    session.batch_execute(&rows).await.expect("rows that nobody has counted");
    let settings = "SELECT set_config(split_part(s.one, '=', 1), split_part(s.one, '=', 2), false)
        FROM pg_proc AS p CROSS JOIN LATERAL unnest(p.proconfig) AS s (one) WHERE p.oid = 'read_1.refresh_stats'::regproc";
    assert!(session.query(settings, &[]).await.expect("settings").len() > 1);
    for view in ["company_stats", "prospect_stats", "growth"] {
        let definition = "SELECT definition FROM pg_matviews WHERE schemaname = 'read_1' AND matviewname = $1";
        let definition: String = session.query_one(definition, &[&view]).await.expect("a view").get(0);
        let plan = session.query(&format!("EXPLAIN {definition}"), &[]).await.expect("a plan");
        let plan: Vec<&str> = plan.iter().map(|row| row.get(0)).collect();
        // What one row's list holds is looked at for each row, which is another sort of loop.
        assert!(!plan.iter().any(|line| line.contains("Nested Loop Left Join")), "{view}: {}", plan.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_says_something_of_a_person_is_told_only_where_five_share_it() {
    let opened = Opened::new().await;
    let mut ids = Vec::new();
    for number in 0..5 {
        let country = (number < 2).then_some("GB");
        let fields = json!({"last_name": "L", "state": "Shared", "country": country,
            "external_refs": [{"source": "crm", "id": format!("{number}")}, {"source": "crm", "id": format!("{number}b")}]});
        ids.push(opened.prospect(fields).await);
    }
    for number in 0..4 {
        let fields = json!({"last_name": "L", "state": "Rare", "external_refs": [{"source": "list", "id": format!("{number}")}]});
        opened.prospect(fields).await;
    }
    // Another tenant's persons do not make a value less telling.
    let fields = json!({"last_name": "L", "state": "Rare"});
    opened.command_prospect(OTHER_TENANT, Uuid::now_v7(), register_prospect(fields)).await.expect("a good prospect");
    let told = async || {
        const SQL: &str = "SELECT measure || ' ' || value, sum(records)::bigint FROM read_1.prospect_stats
            WHERE tenant_id = $1 AND measure ~ 'state|source' GROUP BY 1 ORDER BY 1";
        let rows = opened.client.query(SQL, &[&TENANT]).await.expect("the view");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect::<Vec<(String, i64)>>()
    };
    let of = |expected: &[(&str, i64)]| -> Vec<(String, i64)> {
        expected.iter().map(|(value, count)| ((*value).to_owned(), *count)).collect()
    };
    opened.count().await;
    assert_eq!(told().await, of(&[("rare_source ", 4), ("rare_state ", 4), ("source crm", 5), ("state Shared", 5)]));
    opened.command_prospect(TENANT, ids[0], erase()).await.expect("erased");
    opened.count().await;
    assert_eq!(told().await, of(&[("rare_source ", 8), ("rare_state ", 8)]), "one of the five is gone");
    let named = "SELECT count(*) FROM read_1.prospect_stats AS t WHERE t::text ~ 'Shared|Rare|crm|list'";
    assert_eq!(opened.number(named).await, 0);
}
