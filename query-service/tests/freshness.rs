//! Positions: what an answer includes, waiting for one, and giving up.

use insta::assert_snapshot;

use crate::support::{Stack, TENANT, id};

#[tokio::test]
async fn an_answer_waits_for_the_position_that_it_must_include() {
    let stack = Stack::new().await;
    stack.checkpoint(5).await;
    let path = format!("/v1/companies/{}", id(10));
    let waiting = stack.get_with(&path, "Prospectus-Min-Position: 7\r\nPrefer: wait=30\r\n");
    let arriving = async {
        stack.company(&id(10), "domain", "'example.com'").await;
        stack.checkpoint(7).await;
    };
    let (answer, ()) = tokio::join!(waiting, arriving);
    assert_eq!((answer.status, answer.header("prospectus-position")), (200, "7"), "{}", answer.body);
}

#[tokio::test]
async fn an_answer_that_would_be_stale_is_refused_with_the_lag() {
    let stack = Stack::new().await;
    stack.checkpoint(5).await;
    let answer = stack.get_with("/v1/companies", "Prospectus-Min-Position: 9\r\nPrefer: wait=0\r\n").await;
    assert_eq!((answer.header("retry-after"), answer.header("prospectus-position")), ("1", "5"));
    assert_eq!(
        (answer.header("prospectus-epoch"), answer.header("cache-control")),
        ("1.00000001", "private, no-cache")
    );
    assert_snapshot!(answer.shown(), @r##"
    503
    {
      "code": "not_fresh",
      "detail": "position 9 was asked for, 5 is what can be read now",
      "lag": {
        "events": 4,
        "reached": 5,
        "wanted": 9
      },
      "position": 5,
      "status": 503,
      "title": "The answer cannot include that position yet",
      "type": "/problems/not_fresh"
    }
    "##);
}

#[tokio::test]
async fn a_change_on_its_way_to_prospects_holds_their_answers_back_and_nobody_elses() {
    let stack = Stack::new().await;
    stack.checkpoint(9).await;
    stack.prospect(&id(20), "assigned_company_id", &format!("'{}'", id(10))).await;
    stack.prospect(&id(21), "assigned_company_id", &format!("'{}'", id(11))).await;
    stack
        .sql(&format!("INSERT INTO read.fanout (projection, generation, tenant_id, company_id, position) VALUES ('company_prospect', 1, '{TENANT}', '{}', 6)", id(10)))
        .await;
    for (path, position) in [
        (format!("/v1/prospects/{}", id(20)), "5"),
        (format!("/v1/prospects/{}", id(21)), "9"),
        ("/v1/prospects".to_owned(), "5"),
        (format!("/v1/company-prospects?company_id={}", id(10)), "5"),
        (format!("/v1/company-prospects?company_id={}", id(11)), "9"),
        ("/v1/companies".to_owned(), "9"),
    ] {
        assert_eq!(stack.get(&path).await.header("prospectus-position"), position, "{path}");
    }
    let other = stack.request("GET", "/v1/prospects", &stack.other_key, "").await;
    assert_eq!(other.header("prospectus-position"), "9", "another tenant's queue is not mine");

    let path = format!("/v1/prospects/{}", id(20));
    let waiting = stack.get_with(&path, "Prospectus-Min-Position: 9\r\nPrefer: wait=30\r\n");
    let (answer, ()) = tokio::join!(waiting, stack.sql("DELETE FROM read.fanout"));
    assert_eq!((answer.status, answer.header("prospectus-position")), (200, "9"));
}

#[tokio::test]
async fn a_position_of_a_life_that_was_lost_is_refused() {
    let stack = Stack::new().await;
    stack
        .sql(
            "INSERT INTO log.epochs (number, epoch_id, first_position, system_identifier, timeline) VALUES
                 (1, '00000001-0000-4000-8000-000000000000', 1, 1, 1), (2, '00000002-0000-4000-8000-000000000000', 5, 1, 2)",
        )
        .await;
    stack.checkpoint(9).await;
    for (position, status) in [
        ("1.00000001-4", 200),
        ("1.00000001-5", 409),
        ("2.00000002-9", 200),
        ("1.00000009-2", 409),
        ("3.00000003-2", 409),
        ("2.00000009-12", 409),
        ("3.00000003-12", 503),
    ] {
        let headers = format!("Prospectus-Min-Position: {position}\r\nPrefer: wait=0\r\n");
        let answer = stack.get_with("/v1/companies", &headers).await;
        assert_eq!(answer.status, status, "{position}: {}", answer.body);
        if status == 409 {
            assert_eq!(answer.code(), "epoch_mismatch");
        }
    }
}

#[tokio::test]
async fn another_generation_that_goes_live_is_read_at_once() {
    let mut stack = Stack::new().await;
    stack.company(&id(10), "domain", "'example.com'").await;
    let path = format!("/v1/companies/{}", id(10));
    assert_eq!(stack.get(&path).await.json()["domain"], "example.com");
    let transaction = stack.client.transaction().await.expect("a transaction");
    migrations::create_generation(&transaction, "company_prospect", 2, 1).await.expect("tables");
    migrations::create_indexes(&transaction, "company_prospect", 2).await.expect("indexes");
    transaction
        .batch_execute(
            "INSERT INTO read_2.companies SELECT * FROM read_1.companies; UPDATE read_2.companies SET domain = 'next.com';
             UPDATE read.live SET generation = 2;
             INSERT INTO read.checkpoint_steps (projection, generation, step, position, epoch) VALUES ('company_prospect', 2, 1, 70, '')"
        )
        .await
        .expect("live");
    transaction.commit().await.expect("committed");
    let answer = stack.get(&path).await;
    assert_eq!((answer.json()["domain"].as_str(), answer.header("prospectus-position")), (Some("next.com"), "70"));
    stack
        .sql("DROP VIEW read.companies, read.company_prospect, read.company_prospect_view; DROP SCHEMA read_1 CASCADE")
        .await;
    assert_eq!(stack.get(&path).await.status, 200);
    // Back to a generation whose tables the service has never seen, with the old ones gone.
    let transaction = stack.client.transaction().await.expect("a transaction");
    migrations::create_generation(&transaction, "company_prospect", 3, 1).await.expect("tables");
    migrations::create_indexes(&transaction, "company_prospect", 3).await.expect("indexes");
    transaction.batch_execute("UPDATE read.live SET generation = 3; DROP SCHEMA read_2 CASCADE").await.expect("live");
    transaction.commit().await.expect("committed");
    assert_eq!(stack.get("/v1/companies").await.body, "{\"items\":[]}");
}
