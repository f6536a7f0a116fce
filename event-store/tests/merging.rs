//! Two records in one append: both or neither (decision 6).

use std::sync::Arc;

use domain::company::{RegisterCompany, merge, unmerge};
use domain::{Company, CompanyCommand, CompanyError, Status};
use event_store::append::Refused;
use event_store::receipt::NewReceipt;
use event_store::{Answer, ExecuteError, Executor, Request};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{self, TENANT, checked_log, request};

async fn register(companies: &Executor<Company>, body: Value) -> Uuid {
    let command = CompanyCommand::Register(RegisterCompany::parse(body).expect("a good company"));
    companies.create(Uuid::now_v7(), command, &request(None)).await.expect("it is registered").id
}

/// Merges the second into the first.
async fn merged(
    companies: &Executor<Company>,
    ids: [Uuid; 2],
    request: &Request,
) -> Result<Answer, ExecuteError<CompanyError>> {
    let decide = |[primary, secondary]: [&Company; 2]| {
        merge((ids[0], primary), (ids[1], secondary)).map(|both| [both.primary, both.secondary])
    };
    companies.execute_both(ids, request, decide).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_changes_both_in_one_append_and_moves_the_claims() {
    let opened = support::open().await;
    let companies = Executor::<Company>::new(opened.store.clone(), 1 << 20);
    let first = register(&companies, json!({"name": "One", "domain": "one.example"})).await;
    let second = register(&companies, json!({"name": "Two", "domain": "two.example"})).await;
    let once = request(Some(NewReceipt { key: "merge".into(), request_hmac: [1; 32] }));
    let answer = merged(&companies, [first, second], &once).await.expect("it is merged");
    assert_eq!((answer.id, answer.version, answer.position), (first, 2, 4), "the position includes both");
    assert_eq!(merged(&companies, [first, second], &once).await.expect("the first answer"), answer);
    // The domain of the second is the first's now.
    let command = RegisterCompany::parse(json!({"domain": "two.example"})).expect("a good company");
    let taken = companies.create(Uuid::now_v7(), CompanyCommand::Register(command), &request(None)).await;
    assert!(
        matches!(taken, Err(ExecuteError::Refused(Refused::ClaimTaken { kind: "domain", holder })) if holder == first),
        "{taken:?}"
    );
    let decide = |[primary, secondary]: [&Company; 2]| {
        unmerge(primary, (second, secondary)).map(|both| [both.primary, both.secondary])
    };
    companies.execute_both([first, second], &request(None), decide).await.expect("it is undone");
    for (id, domain) in [(first, "one.example"), (second, "two.example")] {
        let company = opened.store.loader().load::<Company>(TENANT, id).await.expect("it loads").state;
        assert_eq!(
            (company.status, company.domain.as_ref().map(domain::value::Domain::as_str)),
            (Status::Live, Some(domain))
        );
        assert!(company.additional_domains.is_empty());
    }
    assert_eq!(checked_log(&opened.database).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_merges_into_each_other_one_wins() {
    let opened = support::open().await;
    let (other_store, _task) = support::another(&opened.database);
    let here = Arc::new(Executor::<Company>::new(opened.store.clone(), 1 << 20));
    let there = Arc::new(Executor::<Company>::new(other_store, 1 << 20));
    for round in 0..30 {
        let one = register(&here, json!({"name": "One", "domain": format!("one{round}.example")})).await;
        let two = register(&there, json!({"name": "Two", "domain": format!("two{round}.example")})).await;
        let (request_one, request_two) = (request(None), request(None));
        let (first, second) =
            tokio::join!(merged(&here, [one, two], &request_one), merged(&there, [two, one], &request_two));
        let (refused, winner, loser) = match (&first, &second) {
            (Ok(_), Err(ExecuteError::Domain(refused))) => (refused, one, two),
            (Err(ExecuteError::Domain(refused)), Ok(_)) => (refused, two, one),
            other => panic!("{other:?}"),
        };
        let merged = Box::new(CompanyError::Merged { into: winner });
        assert_eq!(refused, &CompanyError::Primary { id: loser, why: merged }, "the loser is told into which");
    }
    checked_log(&opened.database).await;
}
