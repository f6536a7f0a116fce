//! I5 as a property: whatever happens to companies and prospects, and however it is cut into steps, the read tables are the fold of
//! the log, and their rows are those that the records' states ask for.

use std::collections::{BTreeMap, BTreeSet};

use domain::company::{AddSocialMedia, CompanyReviewRequested};
use domain::prospect::{ProspectSaid, ResolveProspect, take_in};
use domain::review::{ProspectResolution, ReviewReason};
use domain::value::{Country, Line};
use domain::{
    Company, CompanyCommand, CompanyError, ConflictRule, Context, Prospect, ProspectCommand, ProspectError, Said,
    Status,
};
use event_store::ExecuteError;
use event_store::append::Refused;
use projector::projection::STEP_EVENTS_MAX;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rebuilding::a_rebuild_gives_the_same_rows;
use crate::support::{
    Opened, assign, register_company, register_prospect, request, step_to_the_end, update_company, update_prospect,
};

/// How many records of each sort a history is about.
const COMPANIES: usize = 4;
const PROSPECTS: usize = 5;

/// What happens next. Companies and prospects go by their numbers; what a record's rules forbid does not happen.
#[derive(Debug, Clone)]
enum Act {
    Company(usize, CompanyAct),
    Prospect(usize, ProspectAct),
    /// The projection takes a step of so many events.
    Step(i64),
    /// Another projector takes over, which remembers nothing.
    TakeOver,
}

#[derive(Debug, Clone)]
enum CompanyAct {
    Register(Value),
    Update(Value),
    AddSocialMedia(u8),
    /// The first of those that it has.
    RemoveSocialMedia,
    Delete,
    Restore,
    MergeInto(usize),
    Unmerge,
    /// An import finds that it looks like another one.
    LooksLike(usize),
    LeaveAlone,
}

#[derive(Debug, Clone)]
enum ProspectAct {
    Register(Option<usize>, Value),
    Update(Value),
    Assign(Option<usize>),
    /// A row of an import that leads to no company registers it.
    Import(Option<ReviewReason>),
    Resolve(Option<usize>),
    Delete,
    Restore,
}

fn act() -> impl Strategy<Value = Act> {
    let company = prop_oneof![
        3 => company_fields().prop_map(|mut fields| {
            fields["name"] = json!("Registered");
            CompanyAct::Register(fields)
        }),
        3 => company_fields().prop_map(CompanyAct::Update),
        1 => (0..3_u8).prop_map(CompanyAct::AddSocialMedia),
        1 => Just(CompanyAct::RemoveSocialMedia),
        1 => Just(CompanyAct::Delete),
        2 => Just(CompanyAct::Restore),
        2 => (0..COMPANIES).prop_map(CompanyAct::MergeInto),
        2 => Just(CompanyAct::Unmerge),
        2 => (0..COMPANIES).prop_map(CompanyAct::LooksLike),
        1 => Just(CompanyAct::LeaveAlone),
    ];
    let assigned = || prop::option::weighted(0.8, 0..COMPANIES);
    let prospect = prop_oneof![
        3 => (assigned(), prospect_fields()).prop_map(|(company, mut fields)| {
            fields["first_name"] = json!("Ada");
            ProspectAct::Register(company, fields)
        }),
        3 => prospect_fields().prop_map(ProspectAct::Update),
        3 => assigned().prop_map(ProspectAct::Assign),
        2 => prop::sample::select(vec![None, Some(ReviewReason::NameOnly), Some(ReviewReason::SuspiciousDomain)])
            .prop_map(ProspectAct::Import),
        2 => prop::option::weighted(0.4, 0..COMPANIES).prop_map(ProspectAct::Resolve),
        1 => Just(ProspectAct::Delete),
        2 => Just(ProspectAct::Restore),
    ];
    prop_oneof![
        8 => (0..COMPANIES, company).prop_map(|(number, act)| Act::Company(number, act)),
        10 => (0..PROSPECTS, prospect).prop_map(|(number, act)| Act::Prospect(number, act)),
        4 => (1..6_i64).prop_map(Act::Step),
        1 => Just(Act::TakeOver),
    ]
}

fn company_fields() -> impl Strategy<Value = Value> {
    some_of(vec![
        ("name", json!("Acme")),
        ("name", json!("ACME Ünited")),
        ("domain", json!("www.acme.com")),
        ("domain", json!(null)),
        ("additional_domains", json!(["acme.de", "acme.fr"])),
        ("additional_domains", json!([])),
        ("industry", json!("Software")),
        ("industry", json!(null)),
        ("founding_date", json!("1999-12")),
        ("employee_count", json!(12)),
        ("min_employee_size", json!(10)),
        ("max_employee_size", json!(50)),
        ("revenue", json!(-7)),
        ("country", json!("France")),
        ("city", json!("Paris")),
        ("phone", json!("01 23 45 67 89")),
        ("phone", json!("ask 4 Bob")),
        ("long_description", json!("one\ntwo\ttabbed \"quoted\" \\ 🦀")),
        ("external_refs", json!([{"source": "crm", "id": "1"}])),
        ("external_refs", json!([])),
        ("attributes", json!({"tier": "gold", "score": 0.1, "big": 1e18, "small": 1e-9, "on": true})),
        ("attributes", json!({"tier": null, "whole": 2.0})),
    ])
}

fn prospect_fields() -> impl Strategy<Value = Value> {
    some_of(vec![
        ("first_name", json!("Grace")),
        ("last_name", json!("Hopper")),
        ("last_name", json!(null)),
        ("email", json!("Grace.Hopper@Acme.com")),
        ("email", json!(null)),
        ("job_title", json!("Chief Executive Officer")),
        ("job_title_level", json!("C-Level")),
        ("department", json!("Research")),
        ("country", json!("US")),
        ("phone", json!("(212) 555-0123")),
        ("city", json!("New York")),
        ("external_refs", json!([{"source": "crm", "id": "7"}])),
        ("attributes", json!({"a": 1e17, "b": -2.5, "c": ""})),
        ("attributes", json!(null)),
    ])
}

/// Some of these fields; of one that is there twice, the last.
fn some_of(choices: Vec<(&'static str, Value)>) -> impl Strategy<Value = Value> {
    let member = prop::sample::select(choices).prop_map(|(name, value)| (name.to_owned(), value));
    prop::collection::vec(member, 0..4).prop_map(|members| Value::Object(members.into_iter().collect()))
}

#[test]
fn random_histories_in_random_steps_are_the_fold_of_the_log() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let opened = runtime.block_on(Opened::new());
    // A history that fails stays in the log, and every later one would fail with it: there is nothing to shrink by.
    let config = Config { cases: 48, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let outcome = TestRunner::new(config)
        .run(&prop::collection::vec(act(), 5..60), |history| runtime.block_on(live_through(&opened, history)));
    if outcome.is_ok() {
        runtime.block_on(a_rebuild_gives_the_same_rows(&opened));
    }
    runtime.block_on(async move { drop(opened) });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// Plays a history as a tenant of its own, and looks at the tables once at its end.
async fn live_through(opened: &Opened, history: Vec<Act>) -> Result<(), TestCaseError> {
    let tenant = Uuid::now_v7();
    let companies: Vec<Uuid> = (0..COMPANIES).map(|_| Uuid::now_v7()).collect();
    let prospects: Vec<Uuid> = (0..PROSPECTS).map(|_| Uuid::now_v7()).collect();
    let mut projection = opened.projection().await;
    for act in history {
        match act {
            Act::Company(number, act) => {
                let id = companies[number];
                let outcome = match act {
                    CompanyAct::MergeInto(other) => opened.merge(tenant, id, companies[other]).await,
                    CompanyAct::Unmerge => opened.unmerge(tenant, id).await,
                    CompanyAct::LooksLike(other) => looks_like(opened, tenant, id, companies[other]).await,
                    act => {
                        let command = company_command(opened, tenant, id, act).await;
                        opened.command_company(tenant, id, command).await
                    }
                };
                refused_by_rules_only(outcome);
            }
            Act::Prospect(number, act) => {
                let id = prospects[number];
                let outcome = match act {
                    ProspectAct::Import(review) => import(opened, tenant, id, review).await,
                    ProspectAct::Resolve(company) => {
                        let command = resolution(opened, tenant, id, company.map(|number| companies[number])).await;
                        opened.command_prospect(tenant, id, command).await
                    }
                    act => opened.command_prospect(tenant, id, prospect_command(&companies, act)).await,
                };
                refused_by_rules_only(outcome);
            }
            Act::Step(events_max) => {
                let stepped = projection.step(events_max).await.expect("a step");
                prop_assert!(i64::try_from(stepped.events).is_ok_and(|events| events <= events_max));
                // Also where a step ends between the two events of a merge.
                let report = opened.verify().await;
                prop_assert_eq!(report.differences, 0, "{:#?}", report.first);
            }
            Act::TakeOver => projection = opened.projection().await,
        }
    }
    step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
    let report = opened.verify().await;
    prop_assert_eq!(report.differences, 0, "{:#?}", report.first);
    prop_assert_eq!(report.position, opened.head().await);
    let claims = opened.verify_claims().await;
    prop_assert_eq!(claims.differences, 0, "{:#?}", claims.first);
    prop_assert_eq!(in_review(opened, tenant).await, expected_in_review(opened, tenant, &companies, &prospects).await);
    prop_assert_eq!(seen(opened, tenant).await, expected(opened, tenant, &companies, &prospects).await);
    Ok(())
}

async fn company_command(opened: &Opened, tenant: Uuid, id: Uuid, act: CompanyAct) -> CompanyCommand {
    match act {
        CompanyAct::Register(fields) => register_company(fields),
        CompanyAct::Update(fields) => update_company(fields),
        CompanyAct::AddSocialMedia(page) => {
            let fields = json!({"platform": "LinkedIn", "url": format!("https://linkedin.com/{page}")});
            CompanyCommand::AddSocialMedia(AddSocialMedia::parse(fields).expect("good fields"))
        }
        CompanyAct::RemoveSocialMedia => {
            let company = opened.store.loader().load::<Company>(tenant, id).await.expect("it loads").state;
            let social_media_id = company.social_media.first().map_or(id, |entry| entry.social_media_id);
            CompanyCommand::RemoveSocialMedia { social_media_id }
        }
        CompanyAct::Delete => CompanyCommand::Delete,
        CompanyAct::Restore => CompanyCommand::Restore,
        CompanyAct::LeaveAlone => CompanyCommand::LeaveAlone,
        CompanyAct::MergeInto(_) | CompanyAct::Unmerge | CompanyAct::LooksLike(_) => {
            unreachable!("they are no commands")
        }
    }
}

fn prospect_command(companies: &[Uuid], act: ProspectAct) -> ProspectCommand {
    match act {
        ProspectAct::Register(company, mut fields) => {
            fields["company_id"] = json!(company.map(|number| companies[number]));
            register_prospect(fields)
        }
        ProspectAct::Update(fields) => update_prospect(fields),
        ProspectAct::Assign(company) => assign(company.map(|number| companies[number])),
        ProspectAct::Import(_) | ProspectAct::Resolve(_) => unreachable!("they rest on what is there"),
        ProspectAct::Delete => ProspectCommand::Delete,
        ProspectAct::Restore => ProspectCommand::Restore,
    }
}

/// An import finds that a company, if it is there and not in review, has the name of another one.
async fn looks_like(opened: &Opened, tenant: Uuid, id: Uuid, other: Uuid) -> Result<i64, ExecuteError<CompanyError>> {
    let decide = |company: &Company, _: &Context| {
        let reason = ReviewReason::LooksLike { company_id: other };
        let asked = company.status == Status::Live && company.review.is_none();
        let event = || CompanyReviewRequested { import_id: None, reason }.into();
        Ok((asked.then(event).into_iter().collect(), ()))
    };
    opened.companies.carry(id, false, &request(tenant), decide).await.map(|(answer, ())| answer.position)
}

async fn import(
    opened: &Opened,
    tenant: Uuid,
    id: Uuid,
    review: Option<ReviewReason>,
) -> Result<i64, ExecuteError<ProspectError>> {
    let source = Line::parse("list").expect("a line");
    let said = Said { source, import_id: Uuid::from_u128(1), row: 1, at: None };
    let Value::Object(members) = json!({"last_name": "Imported"}) else { unreachable!("it is an object") };
    let mut row = ProspectSaid::parse(said, members).expect("good fields");
    row.review = review;
    row.hint.name = review.map(|reason| Line::parse(reason.name()).expect("a line"));
    row.hint.country = review.map(|_| Country::parse("FR").expect("a country"));
    row.hint.host = review.map(|_| Line::parse("gmial.com").expect("a line"));
    let decide = |prospect: &Prospect, _: &Context| {
        take_in(prospect, std::slice::from_ref(&row), &ConflictRule::Newest).map(|taken| (taken.events, ()))
    };
    opened.prospects.carry(id, false, &request(tenant), decide).await.map(|(answer, ())| answer.position)
}

/// Somebody decides about a prospect, whom he takes to be in review.
async fn resolution(opened: &Opened, tenant: Uuid, id: Uuid, company: Option<Uuid>) -> ProspectCommand {
    let prospect = opened.store.loader().load::<Prospect>(tenant, id).await.expect("it loads").state;
    let resolution = match company {
        Some(company_id) => ProspectResolution::Assigned { company_id },
        None => ProspectResolution::LeftAlone,
    };
    ProspectCommand::Resolve(ResolveProspect { resolution, deleted_company: prospect.company_id })
}

fn refused_by_rules_only<E: std::error::Error>(outcome: Result<i64, ExecuteError<E>>) {
    match outcome {
        Ok(_)
        | Err(
            ExecuteError::Domain(_) | ExecuteError::Refused(Refused::ClaimTaken { .. } | Refused::ClaimMissing { .. }),
        ) => {}
        Err(error) => panic!("{error}"),
    }
}

/// What is in review: its id and why, as the review queue reads it.
async fn in_review(opened: &Opened, tenant: Uuid) -> BTreeSet<(Uuid, String)> {
    const SQL: &str = "SELECT row_id, coalesce(review, 'company_deleted') FROM read_1.company_prospect
        WHERE tenant_id = $1 AND prospect_id IS NOT NULL AND company_id IS NULL AND prospect_deleted_at IS NULL
          AND coalesce(review, 'company_deleted') <> 'left_alone'
        UNION ALL SELECT company_id, 'looks_like' FROM read_1.companies
        WHERE tenant_id = $1 AND looks_like_company_id IS NOT NULL";
    let rows = opened.client.query(SQL, &[&tenant]).await.expect("the rows");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// What should be in review by these records' states.
async fn expected_in_review(
    opened: &Opened,
    tenant: Uuid,
    companies: &[Uuid],
    prospects: &[Uuid],
) -> BTreeSet<(Uuid, String)> {
    let loader = opened.store.loader();
    let mut expected = BTreeSet::new();
    for id in companies {
        let company = loader.load::<Company>(tenant, *id).await.expect("it loads").state;
        if company.status == Status::Live && company.review.is_some() {
            expected.insert((*id, "looks_like".to_owned()));
        }
    }
    for id in prospects {
        let prospect = loader.load::<Prospect>(tenant, *id).await.expect("it loads").state;
        let mut end = prospect.company_id;
        let mut live = false;
        while let Some(company) = end {
            let status = loader.load::<Company>(tenant, company).await.expect("it loads").state.status;
            live = status == Status::Live;
            end = if let Status::Merged { into } = status { Some(into) } else { None };
        }
        if prospect.status == Status::Live && !prospect.left_alone && !live {
            let reason = match prospect.company_id {
                Some(_) => "company_deleted",
                None => prospect.review.map_or("no_company", ReviewReason::name),
            };
            expected.insert((*id, reason.to_owned()));
        }
    }
    expected
}

/// A row: its own id, the company and name that it shows, the prospect that it shows, and whether that is deleted.
type Seen = BTreeSet<(Uuid, Option<Uuid>, Option<String>, Option<Uuid>, bool)>;

async fn seen(opened: &Opened, tenant: Uuid) -> Seen {
    const SQL: &str = "SELECT row_id, company_id, company_name, prospect_id, prospect_deleted_at IS NOT NULL
        FROM read_1.company_prospect WHERE tenant_id = $1";
    let rows = opened.client.query(SQL, &[&tenant]).await.expect("the rows");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect()
}

/// The rows that these records should have, from their states as the write side has them.
async fn expected(opened: &Opened, tenant: Uuid, companies: &[Uuid], prospects: &[Uuid]) -> Seen {
    let loader = opened.store.loader();
    let mut live = BTreeMap::new();
    let mut merged = BTreeMap::new();
    for id in companies {
        let company = loader.load::<Company>(tenant, *id).await.expect("it loads").state;
        if company.status == Status::Live {
            live.insert(*id, company.profile.name.map(|name| name.as_str().to_owned()));
        }
        if let Status::Merged { into } = company.status {
            merged.insert(*id, into);
        }
    }
    let (mut rows, mut with_prospect) = (BTreeSet::new(), BTreeSet::new());
    for id in prospects {
        let prospect = loader.load::<Prospect>(tenant, *id).await.expect("it loads").state;
        if prospect.status == Status::Unregistered {
            continue;
        }
        let mut assigned = prospect.company_id;
        while let Some(into) = assigned.and_then(|company| merged.get(&company)) {
            assigned = Some(*into);
        }
        let shown = assigned.filter(|company| live.contains_key(company));
        let name = shown.and_then(|company| live[&company].clone());
        let deleted = prospect.status == Status::Deleted;
        if !deleted {
            with_prospect.extend(shown);
        }
        rows.insert((*id, shown, name, Some(*id), deleted));
    }
    live.retain(|company, _| !with_prospect.contains(company));
    rows.extend(live.into_iter().map(|(company, name)| (company, Some(company), name, None, false)));
    rows
}
