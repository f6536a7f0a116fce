//! Epochs by hand.

use migrations::testing::TestDatabase;

use crate::program::prospectus;

#[tokio::test]
async fn a_new_epoch_begins_after_the_head() {
    let database = TestDatabase::new().await;
    let client = database.superuser().await;
    let first = prospectus(&database, &["log", "new-epoch", "--json"]).await.json();
    assert_eq!((first["number"].as_i64(), first["first_position"].as_i64()), (Some(1), Some(1)));
    client
        .batch_execute(
            "INSERT INTO log.events
             SELECT n, gen_random_uuid(), 'company', gen_random_uuid(), 1, gen_random_uuid(), 'CompanyRegistered', 1, '{}', '{}', now()
             FROM generate_series(1, 5) AS n",
        )
        .await
        .expect("events");
    let second = prospectus(&database, &["log", "new-epoch", "--json"]).await.json();
    assert_eq!((second["number"].as_i64(), second["first_position"].as_i64()), (Some(2), Some(6)));
    let row = client
        .query_one(
            "SELECT h.epoch, e.system_identifier = s.system_identifier, e.timeline = c.timeline_id
             FROM log.head AS h JOIN log.epochs AS e ON e.name = h.epoch, pg_control_system() AS s, pg_control_checkpoint() AS c",
            &[],
        )
        .await
        .expect("the newest epoch");
    assert_eq!(Some(row.get::<_, &str>(0)), second["epoch"].as_str());
    assert!(row.get::<_, bool>(1) && row.get::<_, bool>(2), "it names this server");
}
