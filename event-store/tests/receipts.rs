//! Idempotency keys: the first answer, for what was carried out and for what changed nothing; another request is refused.

use domain::{Company, CompanyCommand};
use event_store::append::Refused;
use event_store::receipt::{self, NewReceipt};
use event_store::{ExecuteError, Executor};
use serde_json::{Map, json};
use uuid::Uuid;

use crate::support::{self, append, checked_log, claim, request};

#[expect(clippy::unnecessary_wraps, reason = "the field that it is for is an option")]
fn receipt(key: &str, hmac: u8) -> Option<NewReceipt> {
    Some(NewReceipt { key: key.to_owned(), request_hmac: [hmac; 32] })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_gives_the_first_answer_also_when_sent_at_once() {
    let opened = support::open().await;
    let appender = opened.store.appender();
    let with_key = |hmac| {
        let id = Uuid::now_v7();
        let mut request = append(id, 0);
        request.take = vec![claim("domain", "once.example", id)];
        request.receipt = receipt("k", hmac);
        request
    };
    let answers = futures_util::future::join_all((0..8).map(|_| appender.append(with_key(1)))).await;
    let first = answers[0].as_ref().expect("it is carried out");
    assert!(answers.iter().all(|answer| answer.as_ref() == Ok(first)), "{answers:?}");
    assert_eq!(appender.append(with_key(2)).await, Err(Refused::KeyReused));
    assert_eq!(checked_log(&opened.database).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_would_be_refused_now_gets_its_first_answer() {
    let opened = support::open().await;
    let executor = Executor::<Company>::new(opened.store.clone(), 1 << 20);
    let id = Uuid::now_v7();
    let register = domain::company::RegisterCompany::parse(json!({"name": "Once"})).expect("good");
    executor.create(id, CompanyCommand::Register(register), &request(None)).await.expect("it is new");
    let delete =
        async |key: &str| executor.execute(id, CompanyCommand::Delete, &request(receipt(key, 1)), |_| Map::new()).await;
    let first = delete("d").await.expect("it is there");
    assert_eq!(delete("d").await.expect("the receipt stands"), first);
    assert!(matches!(delete("another").await, Err(ExecuteError::Domain(domain::CompanyError::Deleted))));
    // Changed nothing: a receipt stands too, and its answer stays what it was.
    let restore = async |key: &str| {
        executor.execute(id, CompanyCommand::Restore, &request(receipt(key, 2)), |_| Map::new()).await.expect("it goes")
    };
    let restored = restore("r1").await;
    let nothing = restore("r2").await;
    assert_eq!((restored.version, nothing.version, nothing.position), (3, 3, 3));
    delete("d2").await.expect("it is live");
    assert_eq!(restore("r2").await, nothing);
    assert_eq!(checked_log(&opened.database).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_older_than_seven_days_are_removed() {
    let opened = support::open().await;
    for key in ["old", "new"] {
        let mut request = append(Uuid::now_v7(), 0);
        request.receipt = receipt(key, 1);
        opened.store.appender().append(request).await.expect("it is new");
    }
    let superuser = opened.database.superuser().await;
    let aged = "UPDATE log.receipts SET created_at = now() - interval '8 days' WHERE idempotency_key = 'old'";
    superuser.execute(aged, &[]).await.expect("a superuser may");
    let appender = opened.database.client_for("prospectus_appender").await;
    assert_eq!(receipt::remove_expired(&appender).await.expect("the appender may"), 1);
    let left: String = superuser.query_one("SELECT idempotency_key FROM log.receipts", &[]).await.expect("one").get(0);
    assert_eq!(left, "new");
}
