//! Connections that break at the worst moment: a commit whose answer is lost ends as success, once (I2).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use event_store::Store;
use event_store::append::Refused;
use event_store::receipt::NewReceipt;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::support::{self, append, checked_log, claim};

/// What every event of these tests holds: whoever sends it appends.
const PAYLOAD: &[u8] = br#""name":"Test""#;
/// `ReadyForQuery`, outside a transaction: what was sent before is committed.
const COMMITTED: &[u8] = b"Z\0\0\0\x05I";

/// A proxy in front of the server. While armed it lets an append through, waits for the server's answer to its commit, and cuts the
/// connection instead of handing the answer on.
struct Proxy {
    url: String,
    armed: Arc<AtomicUsize>,
}

impl Proxy {
    async fn in_front_of(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (before, after) = url.split_once('@').expect("role and password");
        let (address, database) = after.split_once('/').expect("a database");
        let server = address.to_owned();
        let armed = Arc::new(AtomicUsize::new(0));
        let cuts = Arc::clone(&armed);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.expect("the server");
                tokio::spawn(pass_on(client, server, Arc::clone(&cuts)));
            }
        });
        Self { url: format!("{before}@127.0.0.1:{port}/{database}"), armed }
    }
}

async fn pass_on(mut client: TcpStream, mut server: TcpStream, armed: Arc<AtomicUsize>) {
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
                if client.write_all(&down[..count]).await.is_err() { return }
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
    let mut request = append(Uuid::now_v7(), 0);
    request.deadline = std::time::Instant::now() + std::time::Duration::from_millis(800);
    assert_eq!(store.appender().append(request).await, Err(Refused::OutcomeUnknown));
    assert_eq!(checked_log(&opened.database).await.len(), 2, "it was carried out after all, once");
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
