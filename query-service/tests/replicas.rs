//! Servers that are away.

use migrations::testing::TestDatabase;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{DEADLINE, Stack, dead_url, id};

#[tokio::test]
async fn another_replica_answers_for_one_that_is_away() {
    let database = TestDatabase::new().await;
    let (dead, alive) = (dead_url(), database.url_for("prospectus_query"));
    let stack = Stack::over(database, &[&dead, &alive], None).await;
    stack.company(&id(10), "domain", "'example.com'").await;
    for _ in 0..4 {
        assert_eq!(stack.get(&format!("/v1/companies/{}", id(10))).await.status, 200);
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_not_the_clients_trouble() {
    let database = TestDatabase::new().await;
    let url = database.url_for("prospectus_query");
    let stack = Stack::over(database, &[&url, &url], None).await;
    stack.company(&id(10), "domain", "'example.com'").await;
    let path = format!("/v1/companies/{}", id(10));
    assert_eq!(stack.get(&path).await.status, 200);
    stack.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'prospectus_query' AND datname = current_database()").await;
    // Both are found broken at most once; a look mends them.
    tokio::time::timeout(DEADLINE, async {
        while stack.get(&path).await.status != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it comes back");
}

/// Slow lists of one client: as many as the service has connections.
const SLOW: usize = 4;

#[tokio::test]
async fn a_read_that_is_given_up_ends_on_the_server_and_holds_up_nobody() {
    let database = TestDatabase::new().await;
    let client = database.superuser().await;
    // Only giving up ends a statement here.
    let endless = "DO $$ BEGIN EXECUTE format('ALTER ROLE prospectus_query IN DATABASE %I SET statement_timeout = 0', current_database()); END $$";
    client.batch_execute(endless).await.expect("altered");
    let url = database.url_for("prospectus_query");
    let stack = Stack::over(database, &[&url], None).await;
    stack.company(&id(10), "domain", "'example.com'").await;
    stack.prospect(&id(20), "first_name", "'Ada'").await;
    // Every read of companies is slow from now on.
    stack.sql("BEGIN; LOCK TABLE read_1.companies IN ACCESS EXCLUSIVE MODE").await;
    let head = format!("GET /v1/companies HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {}\r\n\r\n", stack.key);
    let mut open = Vec::new();
    for count in 1..=SLOW {
        let mut stream = TcpStream::connect(stack.address).await.expect("a connection");
        stream.write_all(head.as_bytes()).await.expect("sent");
        open.push(stream);
        waiting(&client, count).await;
    }
    drop(open);
    waiting(&client, 0).await;
    for _ in 0..=SLOW {
        assert_eq!(stack.get(&format!("/v1/prospects/{}", id(20))).await.status, 200);
    }
    stack.sql("ROLLBACK").await;
    assert_eq!(stack.get(&format!("/v1/companies/{}", id(10))).await.status, 200);
}

#[tokio::test]
async fn keys_and_readiness_do_not_wait_behind_slow_reads() {
    let stack = Stack::new().await;
    stack.sql("BEGIN; LOCK TABLE read_1.companies IN ACCESS EXCLUSIVE MODE").await;
    let slow = (0..SLOW).map(|_| stack.get("/v1/companies"));
    let quick = async {
        waiting(&stack.watcher, SLOW).await;
        // This key is looked up now for the first time.
        let answer = stack.request("POST", "/v1/companies", &stack.other_key, "").await;
        assert_eq!(answer.status, 405, "{}", answer.body);
        let answer = stack.request("GET", "/v1/events", &stack.reader, "").await;
        assert_eq!(answer.status, 403, "{}", answer.body);
        stack.replicas.check_schema().await.expect("the schema is right");
        stack.sql("ROLLBACK").await;
    };
    let (slow, ()) = tokio::join!(futures_util::future::join_all(slow), quick);
    assert!(slow.iter().all(|answer| answer.status == 200), "{slow:?}");
}

/// Returns once so many statements of the service wait for a lock.
async fn waiting(client: &tokio_postgres::Client, count: usize) {
    let sql = "SELECT count(*) FROM pg_stat_activity
        WHERE usename = 'prospectus_query' AND datname = current_database() AND wait_event_type = 'Lock'";
    let seen = async {
        loop {
            let row = client.query_one(sql, &[]).await.expect("the activity");
            if usize::try_from(row.get::<_, i64>(0)) == Ok(count) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, seen).await.unwrap_or_else(|_| panic!("never {count} waiting"));
}

#[tokio::test]
async fn without_a_live_generation_nothing_is_said_to_be_missing() {
    let stack = Stack::new().await;
    stack.company(&id(10), "domain", "'example.com'").await;
    stack.sql("DELETE FROM read.live").await;
    for path in [format!("/v1/companies/{}", id(10)), "/v1/companies".to_owned(), "/v1/prospects".to_owned()] {
        let answer = stack.get_with(&path, "Prefer: wait=0\r\n").await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "database_unavailable"), "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn the_primary_answers_only_where_it_may_and_nobody_is_503() {
    let database = TestDatabase::new().await;
    let (dead, alive) = (dead_url(), database.url_for("prospectus_query"));
    let stack = Stack::over(database, &[&dead], Some(&alive)).await;
    assert_eq!(stack.get("/v1/companies").await.status, 200);

    let database = TestDatabase::new().await;
    let stack = Stack::over(database, &[&dead], None).await;
    let answer = stack.get("/v1/companies").await;
    assert_eq!(
        (answer.status, answer.code().as_str(), answer.header("retry-after")),
        (503, "database_unavailable", "1")
    );
}
