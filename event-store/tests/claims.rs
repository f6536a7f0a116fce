//! Claims: all or none, the holder's id, released ones remembered, required ones required.

use event_store::append::Refused;
use uuid::Uuid;

use crate::support::{self, append, claim};

#[tokio::test(flavor = "multi_thread")]
async fn two_racing_registrations_have_one_winner_whose_id_the_other_learns() {
    let opened = support::open().await;
    let (other, _task) = support::another(&opened.database);
    for round in 0..200 {
        let key = format!("race{round}.example");
        let racer = |id: Uuid| {
            let mut request = append(id, 0);
            request.take = vec![claim("domain", &key, id), claim("live", &id.to_string(), id)];
            request
        };
        let (one, two) = (Uuid::now_v7(), Uuid::now_v7());
        let second = if round % 2 == 0 { &other } else { &opened.store };
        let outcomes =
            futures_util::join!(opened.store.appender().append(racer(one)), second.appender().append(racer(two)));
        match outcomes {
            (Ok(_), Err(refused)) => assert_eq!(refused, Refused::ClaimTaken { kind: "domain", holder: one }),
            (Err(refused), Ok(_)) => assert_eq!(refused, Refused::ClaimTaken { kind: "domain", holder: two }),
            both => panic!("{both:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_claim_tells_of_a_deleted_holder() {
    let opened = support::open().await;
    let appender = opened.store.appender();
    let (first, second, third) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let live = |id: Uuid| claim("live", &id.to_string(), id);
    let mut register = append(first, 0);
    register.take = vec![claim("domain", "a.example", first), live(first)];
    appender.append(register).await.expect("it is free");
    let mut delete = append(first, 1);
    delete.release = vec![claim("domain", "a.example", first), live(first)];
    appender.append(delete).await.expect("it holds them");
    let mut again = append(second, 0);
    again.take = vec![claim("domain", "a.example", second), live(second)];
    let answer = appender.append(again).await.expect("it is free again");
    assert_eq!(answer.details["deleted_holder"], first.to_string());
    // Given up by a record that lives on: nothing is deleted.
    let mut moved = append(second, 1);
    moved.release = vec![claim("domain", "a.example", second)];
    appender.append(moved).await.expect("it holds it");
    let mut last = append(third, 0);
    last.take = vec![claim("domain", "a.example", third), live(third)];
    let answer = appender.append(last).await.expect("it is free");
    assert_eq!(answer.details["deleted_holder"], first.to_string(), "the first is still deleted, the second lives on");
    // A sort of record that never claims to be alive cannot be told to be deleted.
    let (fourth, fifth) = (Uuid::now_v7(), Uuid::now_v7());
    let mut register = append(fourth, 0);
    register.take = vec![claim("ref", "crm:1", fourth)];
    appender.append(register).await.expect("it is free");
    let mut give_up = append(fourth, 1);
    give_up.release = vec![claim("ref", "crm:1", fourth)];
    appender.append(give_up).await.expect("it holds it");
    let mut take = append(fifth, 0);
    take.take = vec![claim("ref", "crm:1", fifth)];
    assert!(appender.append(take).await.expect("it is free").details.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_deleted_holders_the_newest_is_told() {
    let opened = support::open().await;
    let appender = opened.store.appender();
    let live = |id: Uuid| claim("live", &id.to_string(), id);
    let mut last = None;
    for _ in 0..4 {
        let id = Uuid::now_v7();
        let mut register = append(id, 0);
        register.take = vec![claim("domain", "a.example", id), live(id)];
        let answer = appender.append(register).await.expect("it is free");
        let told = answer.details.get("deleted_holder").map(|holder| holder.as_str().expect("a text").to_owned());
        assert_eq!(told, last);
        let mut delete = append(id, 1);
        delete.release = vec![claim("domain", "a.example", id), live(id)];
        appender.append(delete).await.expect("it holds them");
        last = Some(id.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_claim_must_be_held_and_may_be_required_by_many_at_once() {
    let opened = support::open().await;
    let appender = opened.store.appender();
    let company = Uuid::now_v7();
    let requiring = || {
        let mut request = append(Uuid::now_v7(), 0);
        request.require = vec![claim("live", &company.to_string(), company)];
        request
    };
    let refused = appender.append(requiring()).await;
    assert_eq!(refused, Err(Refused::ClaimMissing { kind: "live", aggregate_id: company }));
    let mut register = append(company, 0);
    register.take = vec![claim("live", &company.to_string(), company)];
    // In the queue behind the registration, ahead of the deletion: order decides, not luck.
    let mut delete = append(company, 1);
    delete.release = vec![claim("live", &company.to_string(), company)];
    let (registered, assigned, deleted, late) = futures_util::join!(
        appender.append(register),
        futures_util::future::join_all((0..10).map(|_| appender.append(requiring()))),
        appender.append(delete),
        appender.append(requiring()),
    );
    registered.expect("it is new");
    assert!(assigned.iter().all(Result::is_ok), "{assigned:?}");
    deleted.expect("it is there");
    assert_eq!(late, Err(Refused::ClaimMissing { kind: "live", aggregate_id: company }));
}
