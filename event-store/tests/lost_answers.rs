//! Connections that break, or fall silent, at the worst moment: a commit whose answer is lost ends as success, once (I2).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use domain::{Company, CompanyCommand};
use event_store::append::Refused;
use event_store::load::LoadError;
use event_store::receipt::NewReceipt;
use event_store::{ExecuteError, Executor, Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::support::{self, append, checked_log, claim};

/// What every event of these tests holds: whoever sends it appends.
const PAYLOAD: &[u8] = br#""name":"Test""#;
/// `ReadyForQuery`, outside a transaction: what was sent before is committed.
const COMMITTED: &[u8] = b"Z\0\0\0\x05I";

/// A proxy in front of the server. While armed it lets an append through, waits for the server's answer to its commit, and cuts the
/// connection instead of handing the answer on. While silent it takes what is sent, and answers nothing, like a server that is frozen:
/// no connection breaks.
struct Proxy {
    url: String,
    armed: Arc<AtomicUsize>,
    silent: Arc<AtomicBool>,
}

impl Proxy {
    async fn in_front_of(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (before, after) = url.split_once('@').expect("role and password");
        let (address, database) = after.split_once('/').expect("a database");
        let server = address.to_owned();
        let armed = Arc::new(AtomicUsize::new(0));
        let silent = Arc::new(AtomicBool::new(false));
        let (cuts, silence) = (Arc::clone(&armed), Arc::clone(&silent));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.expect("the server");
                tokio::spawn(pass_on(client, server, Arc::clone(&cuts), Arc::clone(&silence)));
            }
        });
        Self { url: format!("{before}@127.0.0.1:{port}/{database}"), armed, silent }
    }
}

async fn pass_on(mut client: TcpStream, mut server: TcpStream, armed: Arc<AtomicUsize>, silent: Arc<AtomicBool>) {
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut cut = false;
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(count @ 1..) = read else { return };
                let appends = contains(&up[..count], PAYLOAD) || contains(&up[..count], b"COMMIT\0");
                cut |= appends && armed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
                if server.write_all(&up[..count]).await.is_err() { return }
            }
            read = server.read(&mut down) => {
                let Ok(count @ 1..) = read else { return };
                if cut && contains(&down[..count], COMMITTED) {
                    return;
                }
                if !silent.load(Ordering::SeqCst) && client.write_all(&down[..count]).await.is_err() { return }
            }
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_ends_as_success_once() {
    let opened = support::open().await;
    let proxy = Proxy::in_front_of(&opened.database.url_for("prospectus_appender")).await;
    let (store, _task) = Store::open(&support::database(&proxy.url), support::keyring());
    let appender = store.appender();
    appender.append(append(Uuid::now_v7(), 0)).await.expect("the way is good");
    for round in 0..10 {
        proxy.armed.store(1, Ordering::SeqCst);
        let outcomes = futures_util::future::join_all((0..12).map(|number| {
            let id = Uuid::now_v7();
            let mut request = append(id, 0);
            if number % 3 == 0 {
                request.take = vec![claim("domain", &format!("lost{round}-{number}.example"), id)];
            }
            if number % 4 == 0 {
                request.receipt = Some(NewReceipt { key: format!("lost{round}-{number}"), request_hmac: [1; 32] });
            }
            appender.append(request)
        }))
        .await;
        for outcome in &outcomes {
            assert!(outcome.is_ok(), "{outcome:?}");
        }
        assert_eq!(proxy.armed.load(Ordering::SeqCst), 0, "a connection was cut");
    }
    let log = checked_log(&opened.database).await;
    assert_eq!(log.len(), 121);
}

#[tokio::test(flavor = "multi_thread")]
async fn past_its_deadline_a_lost_commit_is_an_unknown_outcome() {
    let opened = support::open().await;
    let proxy = Proxy::in_front_of(&opened.database.url_for("prospectus_appender")).await;
    let (store, _task) = Store::open(&support::database(&proxy.url), support::keyring());
    store.appender().append(append(Uuid::now_v7(), 0)).await.expect("the way is good");
    // Every commit from now on is cut, those of the new connections too.
    proxy.armed.store(usize::MAX, Ordering::SeqCst);
    assert_eq!(store.appender().append(due(800)).await, Err(Refused::OutcomeUnknown));
    assert_eq!(checked_log(&opened.database).await.len(), 2, "it was carried out after all, once");
}

/// An append with a deadline in so many milliseconds.
fn due(milliseconds: u64) -> event_store::append::Append {
    let mut request = append(Uuid::now_v7(), 0);
    request.deadline = Instant::now() + Duration::from_millis(milliseconds);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_keeps_nobody_waiting_past_the_deadline() {
    let opened = support::open().await;
    let proxy = Proxy::in_front_of(&opened.database.url_for("prospectus_appender")).await;
    let (store, task) = Store::open(&support::database(&proxy.url), support::keyring());
    let id = store.appender().append(append(Uuid::now_v7(), 0)).await.expect("the way is good").id;
    // Each lane has a batch, which the server has begun on when it falls silent.
    let superuser = opened.database.superuser().await;
    superuser.batch_execute("BEGIN; SELECT log.take_lock()").await.expect("the log's lock");
    let mut lanes = Vec::new();
    for waiting in 1..=2_i64 {
        let appender = store.appender().clone();
        lanes.push(tokio::spawn(async move { appender.append(due(2_000)).await }));
        let wait = "SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
                    WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted";
        let waits = async || superuser.query_one(wait, &[]).await.expect("the locks").get::<_, i64>(0) == waiting;
        support::eventually("a batch to wait for the lock", waits).await;
    }
    proxy.silent.store(true, Ordering::SeqCst);
    superuser.batch_execute("COMMIT").await.expect("the lock is let go");
    // No lane is free for this one: it was never sent, and nothing of it is in doubt.
    assert_eq!(store.appender().append(due(300)).await, Err(Refused::Overloaded));
    for lane in lanes {
        assert_eq!(lane.await.expect("no panic"), Err(Refused::OutcomeUnknown));
    }
    // Loading waits no longer either.
    let mut late = support::request(None);
    late.deadline = Instant::now() + Duration::from_millis(300);
    let executor: Executor<Company> = Executor::new(store.clone(), 0);
    let loaded = executor.execute(id, CompanyCommand::Delete, &late, |_| serde_json::Map::new()).await;
    assert!(matches!(loaded, Err(ExecuteError::Load(LoadError::Unavailable(_)))), "{loaded:?}");
    // The silence does not hold up the end.
    task.finish().await;
    assert_eq!(checked_log(&opened.database).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_beside_which_the_server_warns_is_looked_for_again() {
    let opened = support::open().await;
    let appender = opened.store.appender();
    appender.append(append(Uuid::now_v7(), 0)).await.expect("the way is good");
    let superuser = opened.database.superuser().await;
    let connections = async || -> Vec<i32> {
        let sql =
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = 'prospectus_appender'
                   AND query LIKE '%event_store::append::session%'";
        superuser.query(sql, &[]).await.expect("the activity").iter().map(|row| row.get(0)).collect()
    };
    let before = connections().await;
    // As when the wait for a synchronous standby was cut short.
    let warn = "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'cut short'; RETURN NULL; END $$;
                CREATE TRIGGER warn AFTER INSERT ON log.events FOR EACH ROW EXECUTE FUNCTION warn()";
    superuser.batch_execute(warn).await.expect("a superuser may");
    let answer = appender.append(append(Uuid::now_v7(), 0)).await.expect("it was carried out");
    assert_eq!(answer.position, 2);
    assert_eq!(checked_log(&opened.database).await.len(), 2, "once");
    let given_up = async || {
        let now = connections().await;
        before.iter().any(|one| !now.contains(one))
    };
    support::eventually("the connection that was warned to be given up", given_up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_makes_the_server_fail_ends_up_alone() {
    let opened = support::open().await;
    let superuser = opened.database.superuser().await;
    // As from a damaged page: an error that looks like one of the server's, and comes with this record only.
    let fail = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
                    BEGIN RAISE EXCEPTION 'a damaged page' USING ERRCODE = 'XX001'; END $$;
                CREATE TRIGGER fail BEFORE INSERT ON log.events FOR EACH ROW
                    WHEN (new.payload::text LIKE '%poison%') EXECUTE FUNCTION fail()";
    superuser.batch_execute(fail).await.expect("a superuser may");
    let appender = opened.store.appender();
    let mut poison = due(4_000);
    poison.streams[0].events[0].payload = r#"{"profile":{"name":"poison"}}"#.to_owned();
    let poisoned = tokio::spawn({
        let appender = appender.clone();
        async move { appender.append(poison).await }
    });
    let others = futures_util::future::join_all((0..200).map(|_| appender.append(append(Uuid::now_v7(), 0)))).await;
    assert!(others.iter().all(Result::is_ok), "{others:?}");
    assert_eq!(poisoned.await.expect("no panic"), Err(Refused::Unavailable));
    assert_eq!(checked_log(&opened.database).await.len(), 200);
}

/// Versions and answers belong to a life of the log.
#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_begins_on_a_server_that_is_not_the_newest_epochs() {
    let opened = support::open().await;
    let before = opened.store.appender().append(append(Uuid::now_v7(), 0)).await.expect("it is new").epoch;
    let superuser = opened.database.superuser().await;
    // As after a restore to another server: the newest epoch names another system.
    superuser.execute("UPDATE log.epochs SET system_identifier = 1", &[]).await.expect("a superuser may");
    let (other, _task) = support::another(&opened.database);
    let after = other.appender().append(append(Uuid::now_v7(), 0)).await.expect("it is new");
    assert!(before.starts_with("1.") && after.epoch.starts_with("2."), "{before} {}", after.epoch);
    let row =
        superuser.query_one("SELECT first_position FROM log.epochs WHERE number = 2", &[]).await.expect("epoch 2");
    assert_eq!(row.get::<_, i64>(0), 2);
    // The other store hears of it with its next batch.
    let answer = opened.store.appender().append(append(Uuid::now_v7(), 0)).await.expect("it is new");
    assert_eq!(answer.epoch, after.epoch);
    // A version read in the epoch before says nothing about this one.
    let mut stale = append(Uuid::now_v7(), 3);
    stale.epoch = Some(before.as_str().into());
    assert_eq!(opened.store.appender().append(stale).await, Err(Refused::Conflict));
}
