//! Forgetting a person: the key and what the person was found by go with the event, other processes forget, and what is missing or cannot
//! be had is an error, never an erasure.

use std::sync::Arc;

use base64::Engine as _;
use domain::prospect::{EraseProspect, RegisterProspect, UpdateProspect};
use domain::{Prospect, ProspectCommand, ProspectError};
use event_store::append::Refused;
use event_store::erasures::{Follower, Place};
use event_store::keyring::KeyError;
use event_store::load::LoadError;
use event_store::rewrap::{RetireError, retire, rewrap, wrapped};
use event_store::seal::PersonKeys;
use event_store::{Answer, ExecuteError, Executor, Feed, Keyring, Store};
use migrations::testing::TestDatabase;
use serde_json::{Map, Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::{self, Opened, TENANT, another, keyring, request};

const CACHE: u64 = 1 << 20;

fn register(fields: Value) -> ProspectCommand {
    ProspectCommand::Register(RegisterProspect::parse(fields).expect("good fields"))
}

fn update(fields: Value) -> ProspectCommand {
    ProspectCommand::Update(UpdateProspect::parse(fields).expect("good fields"))
}

fn erase() -> ProspectCommand {
    ProspectCommand::Erase(EraseProspect::parse(json!({"reason": "asked to"})).expect("a reason"))
}

async fn execute(
    prospects: &Executor<Prospect>,
    id: Uuid,
    command: ProspectCommand,
) -> Result<Answer, ExecuteError<ProspectError>> {
    prospects.execute(id, command, &request(None), |_| Map::new()).await
}

async fn person(prospects: &Executor<Prospect>, fields: Value) -> Uuid {
    prospects.create(Uuid::now_v7(), register(fields), &request(None)).await.expect("it is registered").id
}

/// A store whose tenant is there, with the rule that refuses erased persons.
async fn open() -> (Opened, Client, Executor<Prospect>) {
    let opened = support::open().await;
    let client = opened.database.superuser().await;
    client
        .execute("INSERT INTO access.tenants (tenant_id, name) VALUES ($1, 'test')", &[&TENANT])
        .await
        .expect("a tenant");
    let prospects = Executor::new(opened.store.clone(), CACHE);
    (opened, client, prospects)
}

async fn count(client: &Client, sql: &str) -> i64 {
    client
        .query_one(&format!("SELECT count(*) FROM {sql}"), &[])
        .await
        .unwrap_or_else(|error| panic!("{error}: {sql}"))
        .get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_event_the_key_and_all_that_the_person_was_ever_found_by_go() {
    let (opened, client, prospects) = open().await;
    let reference = |id: &str| json!([{"source": "crm", "id": id}]);
    let ada = person(&prospects, json!({"email": "ada@one.example", "external_refs": reference("1")})).await;
    execute(&prospects, ada, update(json!({"email": "ada@two.example", "external_refs": reference("2")})))
        .await
        .expect("changed");
    execute(&prospects, ada, ProspectCommand::Delete).await.expect("deleted");
    let other = person(&prospects, json!({"email": "ada@two.example", "external_refs": reference("2")})).await;
    assert_eq!((count(&client, "log.claims").await, count(&client, "log.matches").await), (3, 1));

    let answer = execute(&prospects, ada, erase()).await.expect("erased");
    let row = client
        .query_one(
            "SELECT wrapped_key, wrapping_key_id, erased_position FROM log.person_keys WHERE person_id = $1",
            &[&ada],
        )
        .await
        .expect("the row stays");
    assert_eq!(
        (row.get::<_, Option<Vec<u8>>>(0), row.get::<_, Option<String>>(1), row.get::<_, Option<i64>>(2)),
        (None, None, Some(answer.position))
    );
    let of_others = "log.claims WHERE aggregate_id <> (SELECT person_id FROM log.erasures)";
    assert_eq!((count(&client, "log.claims").await, count(&client, of_others).await), (1, 1), "released ones went too");
    assert_eq!(count(&client, "log.matches").await, 1, "the other one's");
    assert_eq!(count(&client, "log.erased_values").await, 2, "both addresses are remembered");
    assert_eq!(count(&client, "log.person_keys WHERE wrapped_key IS NOT NULL").await, 1, "the other one's");
    // Again, and from another process: nothing changes.
    let (elsewhere, _task) = another(&opened.database);
    let elsewhere = Executor::<Prospect>::new(elsewhere, CACHE);
    for prospects in [&prospects, &elsewhere] {
        assert_eq!(execute(prospects, ada, erase()).await.expect("nothing to do").position, answer.position);
        let refused = execute(prospects, ada, update(json!({"first_name": "Ada"}))).await;
        assert!(matches!(refused, Err(ExecuteError::Domain(ProspectError::Erased))), "{refused:?}");
    }
    let loaded = opened.store.loader().load::<Prospect>(TENANT, ada).await.expect("it loads");
    assert!(forgotten(&loaded.state));
    assert!(!opened.store.loader().load::<Prospect>(TENANT, other).await.expect("it loads").state.erased);
    // No event but the one that says so empties a key, whoever asks.
    let appender = opened.database.client_for("prospectus_appender").await;
    let forget = "SELECT log.forget(ARRAY[$1::uuid], ARRAY[$2::uuid], ARRAY[1::bigint], '{}', '{}', '{}', '{}', '{}')";
    let error = appender.execute(forget, &[&TENANT, &other]).await.expect_err("the first event erases nobody");
    assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("PR006"), "{error}");
}

fn forgotten(person: &Prospect) -> bool {
    person.erased && person.personal == domain::prospect::PersonalProfile::default() && person.known_as.is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_forgets_what_it_kept_and_what_it_loaded_meanwhile() {
    let (opened, client, prospects) = open().await;
    let ada = person(&prospects, json!({"first_name": "Ada"})).await;
    let (store, _task) = another(&opened.database);
    let elsewhere = Executor::<Prospect>::new(store, CACHE);
    let mut follower = Follower::begin(&client).await.expect("the list is there");
    let keep = async || {
        elsewhere.glance(ada, &request(None)).await.expect("it loads");
        execute(&elsewhere, ada, ProspectCommand::Restore).await.expect("nothing to do, and kept");
    };
    keep().await;
    assert_eq!(elsewhere.kept().0, 1);
    assert!(follower.look(&client).await.expect("a look").is_empty());
    execute(&prospects, ada, erase()).await.expect("erased");
    for round in 0..3 {
        let told = follower.look(&client).await.expect("a look");
        assert_eq!(told.into_iter().collect::<Vec<_>>(), [(TENANT, ada)], "told again, round {round}");
        elsewhere.forget(TENANT, ada);
        assert_eq!(elsewhere.kept().0, 0);
    }
    // In another life of the log the same positions mean others: the list is read again from where it parted.
    let bob = person(&prospects, json!({"first_name": "Bob"})).await;
    client
        .batch_execute(
            "INSERT INTO log.epochs (number, epoch_id, first_position, system_identifier, timeline)
        SELECT number + 1, gen_random_uuid(), 1, system_identifier, timeline FROM log.epochs",
        )
        .await
        .expect("an epoch");
    execute(&prospects, bob, erase()).await.expect("erased");
    let told = follower.look(&client).await.expect("a look");
    assert!(told.contains(&(TENANT, bob)) && told.contains(&(TENANT, ada)), "{told:?}");
    // So it is where a backup was brought back without another life: the list is shorter than it was.
    let place = Place::end(&client).await.expect("the end");
    assert_eq!(place.next(&client).await.expect("a look").0, []);
    client.execute("DELETE FROM log.erasures WHERE person_id = $1", &[&bob]).await.expect("brought back");
    let (again, after) = place.next(&client).await.expect("a look");
    assert_eq!(again.iter().map(|erasure| erasure.person_id).collect::<Vec<_>>(), [ada]);
    assert!(after.position < place.position && after.epoch == place.epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_erased_comes_back_only_where_the_tenant_lets_it() {
    let (opened, client, prospects) = open().await;
    let ada = person(&prospects, json!({"email": "ada@acme.com"})).await;
    let bob = person(&prospects, json!({"email": "bob@acme.com"})).await;
    execute(&prospects, ada, erase()).await.expect("erased");
    let create = async |fields: Value| {
        let done = prospects.create(Uuid::now_v7(), register(fields), &request(None)).await;
        done.map_err(|error| assert!(matches!(error, ExecuteError::Refused(Refused::ErasedPerson)), "{error:?}"))
    };
    // One batch: only the command that names the person is refused.
    let (refused, taken, changed) = tokio::join!(
        create(json!({"email": "ADA@acme.com"})),
        create(json!({"email": "carl@acme.com"})),
        execute(&prospects, bob, update(json!({"email": "ada@acme.com"}))),
    );
    assert!(refused.is_err() && taken.is_ok(), "{refused:?} {taken:?}");
    assert!(matches!(changed, Err(ExecuteError::Refused(Refused::ErasedPerson))), "{changed:?}");
    // Somebody else with another of the person's values, and another tenant, are not meant.
    assert!(create(json!({"first_name": "Ada", "email": "ada@home.example"})).await.is_ok());
    let mut of_other = request(None);
    of_other.tenant_id = Uuid::from_u128(5);
    prospects.create(Uuid::now_v7(), register(json!({"email": "ada@acme.com"})), &of_other).await.expect("let in");

    client.batch_execute("UPDATE access.tenants SET erased_persons = 'admit'").await.expect("the rule");
    let again = person(&prospects, json!({"email": "ada@acme.com"})).await;
    assert_ne!(again, ada);
    assert_eq!(support::checked_log(&opened.database).await.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_and_erasing_at_once_never_leaves_a_person_behind() {
    let (opened, client, prospects) = open().await;
    let (store, _task) = another(&opened.database);
    let elsewhere = Arc::new(Executor::<Prospect>::new(store, CACHE));
    for round in 0..40 {
        let email = format!("person{round}@acme.com");
        let id = person(&prospects, json!({"email": email, "city": "Ulm"})).await;
        // Both processes know the person, and write at the same moment.
        let elsewhere_task = {
            let (elsewhere, email) = (Arc::clone(&elsewhere), email.clone());
            tokio::spawn(async move {
                for city in ["Bonn", "Köln"] {
                    let changed = execute(&elsewhere, id, update(json!({"city": city}))).await;
                    assert!(matches!(changed, Ok(_) | Err(ExecuteError::Domain(ProspectError::Erased))), "{changed:?}");
                }
                let again = register(json!({"email": email}));
                elsewhere.create(Uuid::now_v7(), again, &request(None)).await.map(|answer| answer.position)
            })
        };
        let erased = execute(&prospects, id, erase()).await.expect("erased").position;
        match elsewhere_task.await.expect("it ran") {
            Ok(position) => assert!(position < erased, "registered at {position}, after the erasure at {erased}"),
            Err(error) => assert!(matches!(error, ExecuteError::Refused(Refused::ErasedPerson)), "{error:?}"),
        }
        let loaded = opened.store.loader().load::<Prospect>(TENANT, id).await.expect("it loads");
        assert!(forgotten(&loaded.state));
    }
    let left = "log.claims AS c JOIN log.erasures AS e ON e.person_id = c.aggregate_id";
    assert_eq!(count(&client, left).await, 0);
    let left = "log.matches AS m JOIN log.erasures AS e ON e.person_id = m.aggregate_id";
    assert_eq!(count(&client, left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_row_or_wrapping_key_is_an_error_and_never_an_erasure() {
    let (opened, client, prospects) = open().await;
    keyring().verify(&client, true).await.expect("the key is known");
    let ids = [
        person(&prospects, json!({"first_name": "Gone"})).await,
        person(&prospects, json!({"first_name": "Emptied"})).await,
        person(&prospects, json!({"first_name": "Ada"})).await,
    ];
    client.execute("DELETE FROM log.person_keys WHERE person_id = $1", &[&ids[0]]).await.expect("removed");
    let empty = "UPDATE log.person_keys SET wrapped_key = NULL, wrapping_key_id = NULL, erased_position = 99 WHERE person_id = $1";
    client.execute(empty, &[&ids[1]]).await.expect("emptied by nobody of ours");
    prospects.forget_all();
    for (id, what) in [(ids[0], "no key row"), (ids[1], "cannot be opened")] {
        for command in [erase(), update(json!({"first_name": "X"})), ProspectCommand::Delete] {
            let error = execute(&prospects, id, command).await.expect_err("an error").to_string();
            assert!(error.contains(what), "{error}");
        }
    }
    execute(&prospects, ids[2], update(json!({"first_name": "Augusta"}))).await.expect("others are not held back");

    // Another key file, whose wrapping key of that name is another key, or that lacks it.
    let key = |fill: u8| base64::engine::general_purpose::STANDARD.encode([fill; 32]);
    for (file, wrong_key) in [
        (format!("wrap k1 {}\nindex {}", key(8), key(7)), true),
        (format!("wrap k2 {}\nindex {}", key(7), key(7)), false),
    ] {
        let other = Arc::new(Keyring::parse(&file).expect("a good key file"));
        let verified = other.verify(&client, true).await;
        let at_start = match &verified {
            Err(KeyError::WrongKey(_)) => wrong_key,
            Err(KeyError::UnknownWrappingKey(_)) => !wrong_key,
            _ => false,
        };
        assert!(at_start, "{verified:?}");
        let (store, _task) =
            Store::open(&support::database(&opened.database.url_for("prospectus_appender")), Arc::clone(&other));
        let loaded = store.loader().load::<Prospect>(TENANT, ids[2]).await;
        let loads = match &loaded {
            Err(LoadError::Key(KeyError::Damaged(_))) => wrong_key,
            Err(LoadError::Key(KeyError::UnknownWrappingKey(_))) => !wrong_key,
            _ => false,
        };
        assert!(loads, "{loaded:?}");
        let prospects = Executor::<Prospect>::new(store, CACHE);
        assert!(matches!(execute(&prospects, ids[2], erase()).await, Err(ExecuteError::Load(LoadError::Key(_)))));
    }
    let feed = Feed::open(&support::database(&opened.database.url_for("prospectus_verifier"))).await.expect("a feed");
    let events = feed.after(0, 100).await.expect("events");
    let keys = PersonKeys::fetch(&client, &keyring(), [(TENANT, ids[0])]).await.expect("keys");
    let error = keys.read::<domain::ProspectEvent>(&events[0]).expect_err("an error").to_string();
    assert!(error.contains("no key row"), "{error}");
    assert_eq!(count(&client, "log.erasures").await, 0, "nobody was erased");
}

fn rotated(first: &str) -> Arc<Keyring> {
    let key = |fill: u8| base64::engine::general_purpose::STANDARD.encode([fill; 32]);
    let (k1, k2) = (format!("wrap k1 {}", key(7)), format!("wrap k2 {}", key(9)));
    let wraps = match first {
        "k1" => format!("{k1}\n{k2}"),
        "k2" => format!("{k2}\n{k1}"),
        _ => k2,
    };
    Arc::new(Keyring::parse(&format!("{wraps}\nindex {}", key(7))).expect("a good key file"))
}

fn store_with(database: &TestDatabase, keys: &Arc<Keyring>) -> (Store, event_store::store::StoreTask) {
    Store::open(&support::database(&database.url_for("prospectus_appender")), Arc::clone(keys))
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_wrapped_anew_while_commands_run_and_the_old_one_goes() {
    let (opened, mut client, before) = open().await;
    keyring().verify(&client, true).await.expect("the first key is known");
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(person(&before, json!({"first_name": format!("Person {number}")})).await);
    }
    let erased = person(&before, json!({"first_name": "Erased"})).await;
    execute(&before, erased, erase()).await.expect("erased");
    // Still the old key first: both keys are known everywhere before the new one wraps anything.
    let (old, new) = (rotated("k1"), rotated("k2"));
    old.verify(&client, true).await.expect("both keys are known");
    let (old_store, _old) = store_with(&opened.database, &old);
    let (new_store, _new) = store_with(&opened.database, &new);
    let (in_old, in_new) = (Executor::<Prospect>::new(old_store, 0), Executor::<Prospect>::new(new_store, 0));
    let worker = opened.database.superuser().await;
    worker.batch_execute("SET ROLE prospectus_rewrapper").await.expect("the role");
    let commands = async {
        for (number, id) in ids.iter().cycle().take(120).enumerate() {
            let prospects = if number % 2 == 0 { &in_old } else { &in_new };
            execute(prospects, *id, update(json!({"city": format!("City {number}")}))).await.expect("changed");
            if number % 10 == 0 {
                person(prospects, json!({"first_name": "New"})).await;
            }
        }
        execute(&in_old, ids[0], erase()).await.expect("erased while keys are wrapped anew");
    };
    let rewrapping = async {
        for _ in 0..10 {
            rewrap(&worker, &new, |_| {}).await.expect("wrapped anew");
        }
    };
    tokio::join!(commands, rewrapping);
    rewrap(&worker, &new, |_| {}).await.expect("wrapped anew");
    assert_eq!(rewrap(&worker, &new, |_| {}).await.expect("nothing is left"), 0);
    assert_eq!(count(&client, "log.person_keys WHERE wrapped_key IS NULL").await, 2, "the erased stay erased");
    for sql in
        ["UPDATE log.person_keys SET erased_position = NULL", "DELETE FROM log.person_keys", "SELECT * FROM log.events"]
    {
        let error = worker.batch_execute(sql).await.expect_err(sql);
        assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE), "{sql}: {error}");
    }

    assert!(matches!(retire(&mut client, &new, "k2").await, Err(RetireError::Current(_))));
    assert!(matches!(retire(&mut client, &new, "k9").await, Err(RetireError::Unknown(_))));
    person(&in_old, json!({"first_name": "Late"})).await;
    let refused = retire(&mut client, &new, "k1").await;
    assert!(matches!(refused, Err(RetireError::InUse { keys: 1, .. })), "{refused:?}");
    // Without the old key nobody starts, until it is retired.
    let without = rotated("only k2");
    assert!(matches!(without.verify(&client, true).await, Err(KeyError::UnknownWrappingKey(_))));
    assert_eq!(rewrap(&worker, &new, |_| {}).await.expect("wrapped anew"), 1);
    retire(&mut client, &new, "k1").await.expect("nothing is wrapped by it");
    let states = wrapped(&client).await.expect("a count");
    assert_eq!(
        states.iter().map(|one| (one.wrapping_key_id.as_str(), one.retired)).collect::<Vec<_>>(),
        [("k1", true), ("k2", false)]
    );
    without.verify(&client, true).await.expect("the key file may do without it");
    assert!(matches!(old.verify(&client, true).await, Err(KeyError::Retired(_))), "a key file with the old key first");
    let late = in_old.create(Uuid::now_v7(), register(json!({"first_name": "Too late"})), &request(None)).await;
    assert!(matches!(&late, Err(ExecuteError::Refused(Refused::Broken(why))) if why.contains("retired")), "{late:?}");
    // A re-wrapping with the old key file wraps nothing by the retired key.
    let refused = rewrap(&worker, &rotated("k1"), |_| {}).await.expect_err("the key is retired");
    assert!(refused.to_string().contains("retired"), "{refused}");
    assert_eq!(wrapped(&client).await.expect("a count"), states);
    let (store, _task) = store_with(&opened.database, &without);
    for id in &ids[1..] {
        let loaded = store.loader().load::<Prospect>(TENANT, *id).await.expect("it opens with the new key");
        assert!(loaded.state.personal.fields.first_name.is_some());
    }
}
