//! One process works on an import at a time, and whoever loses the right to it leaves it to another.

use bench::messy::{HEADER, MAPPING, Messy};
use local_stack::Part;
use serde_json::json;
use tests::{TestStack, eventually};

use super::{finished, get, import_mapped, records, send_mapped, tally};

const LINES: u64 = 12_000;
/// How often the right is taken away.
const LOSSES: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn an_import_whose_lock_is_lost_again_and_again_comes_to_the_same() {
    let test = TestStack::start_with(|options| options.command_services = 2).await;
    let list = [HEADER, &Messy::new(11, LINES).lines().collect::<String>()].concat();
    let undisturbed = test.client_with(&test.tenant_key("undisturbed", "admin").await);
    let expected = import_mapped(&undisturbed, "source=crm", MAPPING, list.as_bytes()).await;

    let client = test.client();
    let answer = send_mapped(&client, "source=crm", &[("prefer", "wait=0")], MAPPING, list.as_bytes()).await;
    let path = format!("/v1/imports/{}", answer.json["id"].as_str().expect("an id"));
    let superuser = test.superuser(Part::Primary).await;
    let mut lost = 0;
    for _ in 0..LOSSES {
        // Whichever process has it.
        lost += eventually("somebody works on it, or it is done", async || {
            const SQL: &str = "SELECT count(*) FROM (
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE query LIKE '-- command_service::import::lease::take%' AND pid <> pg_backend_pid()) AS ended";
            let ended: i64 = superuser.query_one(SQL, &[]).await.expect("the primary answers").get(0);
            let done = get(&client, &path).await.json["state"] == "done";
            (ended > 0 || done).then_some(ended)
        })
        .await;
    }
    assert!(lost > 0, "it was done before its lock was taken away once");
    let document = finished(&client, &answer).await;
    assert_eq!(document["state"], json!("done"), "{document}");
    assert_eq!(tally(&document), tally(&expected));
    for which in ["companies", "prospects"] {
        assert_eq!(records(&document, which), records(&expected, which), "{which}");
    }
    let again = import_mapped(&client, "source=crm", MAPPING, list.as_bytes()).await;
    assert_eq!(
        [records(&again, "companies"), records(&again, "prospects")].map(|[created, updated, _]| created + updated),
        [0, 0]
    );
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}
