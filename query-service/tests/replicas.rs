//! Servers that are away.

use migrations::testing::TestDatabase;

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
