//! Two command services on one log: a domain has one owner, whoever is first.

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
use tests::TestStack;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_racing_registrations_one_wins_and_the_other_learns_its_id() {
    let test = TestStack::start_with(|options| options.command_services = 2).await;
    let one = test.client();
    let other = one.to(&test.stack, Part::CommandService(2));
    for number in 0..200 {
        let body = json!({"name": format!("Racer {number}"), "domain": format!("race{number}.example")});
        let (first, second) = futures_util::join!(
            one.command(Method::POST, "/v1/companies", &body),
            other.command(Method::POST, "/v1/companies", &body),
        );
        let (winner, loser) = if first.status == StatusCode::CREATED { (&first, &second) } else { (&second, &first) };
        assert_eq!(winner.status, StatusCode::CREATED, "{winner:?}");
        assert_eq!(loser.status, StatusCode::CONFLICT, "{loser:?}");
        assert_eq!(loser.json["claimed_by"], winner.id(), "{loser:?}");
    }
    let log = test.superuser(Part::Primary).await;
    let events: i64 = log.query_one("SELECT count(*) FROM log.events", &[]).await.expect("counted").get(0);
    assert_eq!(events, 200);
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}
