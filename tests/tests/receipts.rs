//! What an idempotency key is answered with is as durable as the first answer was (decision 8).

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
use tests::TestStack;

/// The first answer may stand only on the primary so far. It is told again after a commit that wrote WAL, and so waited for whatever
/// commits wait for; one that writes nothing waits for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_answered_after_a_commit_that_wrote() {
    // Nobody else writes.
    let test = TestStack::start_with(|options| options.without = vec![Part::Projector, Part::Relay, Part::Nats]).await;
    let client = test.client();
    let superuser = test.superuser(Part::Primary).await;
    superuser.batch_execute("CREATE EXTENSION pg_walinspect").await.expect("PostgreSQL's own package has it");
    let end = async || -> String {
        let sql = "SELECT pg_current_wal_flush_lsn()::text";
        superuser.query_one(sql, &[]).await.expect("the write-ahead log's end").get(0)
    };
    let send = async || {
        let body = json!({"name": "Once"}).to_string();
        client
            .try_command(Method::POST, "/v1/companies", &[("idempotency-key", "once")], body)
            .await
            .expect("an answer")
    };
    let before = end().await;
    let first = send().await;
    assert_eq!(first.status, StatusCode::CREATED);
    let again = send().await;
    assert_eq!((again.status, again.json), (StatusCode::CREATED, first.json));
    // Neither the first command nor the attempt that met the receipt writes one; the commit after it does, flushed when the answer came.
    let sql = "SELECT count(*) FROM pg_get_wal_records_info($1::text::pg_lsn, $2::text::pg_lsn)
               WHERE resource_manager = 'LogicalMessage'";
    let confirmed: i64 = superuser.query_one(sql, &[&before, &end().await]).await.expect("the log's records").get(0);
    assert_eq!(confirmed, 1, "the answer waited for a commit that wrote nothing");
    test.finish().await;
}
