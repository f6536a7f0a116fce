//! Reads go on from another replica when one goes away, however it goes, and say so clearly when none is left.

use std::process::Command;

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
use service_kit::auth::ApiKey;
use tests::{TestStack, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn reads_fall_over_to_another_replica_and_come_back() {
    let test = TestStack::start_with(|options| options.replicas = 2).await;
    let client = test.client();
    let company = client.command(Method::POST, "/v1/companies", &json!({"name": "Here"})).await;
    let path = format!("/v1/companies/{}", company.id());
    let reads = async |what: &str| {
        for _ in 0..20 {
            let answer = client.read(&path, Some(company.position())).await;
            assert_eq!(answer.status, StatusCode::OK, "{what}: {answer:?}");
        }
    };
    reads("both replicas").await;
    for victim in [Part::Replica(1), Part::Replica(2)] {
        test.stack.stop(victim).await.expect("it stops");
        reads("one stopped").await;
        test.stack.start_part(victim).await.expect("it starts");
        reads("both again").await;
    }
    // One that hangs instead of going away: its connections stay open and answer nothing.
    let frozen = Frozen::freeze(test.stack.pid(Part::Replica(1)).expect("it runs"));
    reads("one frozen").await;
    drop(frozen);
    reads("thawed").await;

    test.stack.stop(Part::Replica(1)).await.expect("it stops");
    test.stack.stop(Part::Replica(2)).await.expect("it stops");
    let none = eventually("no replica is left", async || {
        let answer = client.read(&path, None).await;
        (answer.status != StatusCode::OK).then_some(answer)
    })
    .await;
    assert_eq!(none.status, StatusCode::SERVICE_UNAVAILABLE, "{none:?}");
    assert_eq!(none.headers["content-type"], "application/problem+json");
    assert!(none.headers.contains_key("retry-after"), "{none:?}");
    for replica in [Part::Replica(1), Part::Replica(2)] {
        test.stack.start_part(replica).await.expect("it starts");
    }
    eventually("reads are answered again", async || {
        (client.read(&path, None).await.status == StatusCode::OK).then_some(())
    })
    .await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_replay_stands_still_is_told_and_others_answer_what_is_fresh() {
    let test = TestStack::start_with(|options| options.replicas = 2).await;
    let client = test.client();
    let company = client.command(Method::POST, "/v1/companies", &json!({"name": "Here"})).await;
    let path = format!("/v1/companies/{}", company.id());
    let primary = test.superuser(Part::Primary).await;
    let key = ApiKey::generate().expect("random bytes");
    primary
        .execute(
            "INSERT INTO access.api_keys (prefix, tenant_id, secret_sha256, role)
             SELECT $1, t.tenant_id, $2, 'reader' FROM access.tenants AS t",
            &[&key.prefix(), &key.secret_sha256().as_slice()],
        )
        .await
        .expect("a key");
    let holder = test.client_with(key.expose());
    let replica = test.superuser(Part::Replica(1)).await;
    eventually("the key is on the replica that will stand still", async || {
        let known = replica.query_opt("SELECT FROM access.api_keys WHERE prefix = $1", &[&key.prefix()]).await;
        known.expect("an answer").map(|_| ())
    })
    .await;
    replica.batch_execute("SELECT pg_wal_replay_pause()").await.expect("asked to stand still");
    eventually("replay stands still", async || {
        let state = replica.query_one("SELECT pg_get_wal_replay_pause_state()", &[]).await.expect("an answer");
        (state.get::<_, &str>(0) == "paused").then_some(())
    })
    .await;
    for number in 0..20 {
        let name = format!("Name {number}");
        let change = client.command(Method::PATCH, &path, &json!({"name": name})).await;
        let fresh = client.read(&path, Some(change.position())).await;
        assert_eq!((fresh.status, &fresh.json["name"]), (StatusCode::OK, &json!(name)), "{fresh:?}");
        let any = client.read(&path, None).await;
        assert_eq!(any.status, StatusCode::OK, "{any:?}");
    }
    let url = test.stack.url(Part::QueryService);
    let lags = async || {
        let text = client.get_from(&url, "/metrics").await.bytes;
        let text = String::from_utf8(text.to_vec()).expect("UTF-8");
        let lines = text.lines().filter(|line| line.starts_with("prospectus_replica_lag_events{"));
        let mut lags: Vec<f64> =
            lines.filter_map(|line| line.rsplit(' ').next().and_then(|lag| lag.parse().ok())).collect();
        lags.sort_by(f64::total_cmp);
        lags
    };
    eventually("the figures tell which one lags, and by how much", async || {
        (lags().await == [0.0, 20.0]).then_some(())
    })
    .await;

    // The key was still good when replay stopped, and there it stays so.
    assert_eq!(holder.read(&path, None).await.status, StatusCode::OK);
    let revoke = "UPDATE access.api_keys SET revoked_at = clock_timestamp() WHERE prefix = $1";
    primary.execute(revoke, &[&key.prefix()]).await.expect("revoked");
    eventually("the revoked key is refused although one replica still takes it", async || {
        (holder.read(&path, None).await.status == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;

    replica.batch_execute("SELECT pg_wal_replay_resume()").await.expect("it goes on");
    eventually("nobody lags", async || (lags().await == [0.0, 0.0]).then_some(())).await;
    test.finish().await;
}

/// A PostgreSQL server and its backends, stopped in their tracks until this is dropped.
struct Frozen(Vec<u32>);

impl Frozen {
    fn freeze(postmaster: u32) -> Self {
        let children = Command::new("ps")
            .args(["-o", "pid=", "--ppid", &postmaster.to_string()])
            .output()
            .expect("ps is part of every Debian");
        let text = String::from_utf8_lossy(&children.stdout).into_owned();
        let pids = text.split_whitespace().filter_map(|pid| pid.parse().ok()).chain([postmaster]).collect();
        let frozen = Self(pids);
        frozen.signal("-STOP");
        frozen
    }

    fn signal(&self, signal: &str) {
        for pid in &self.0 {
            // A backend that has ended meanwhile needs no signal.
            let _ = Command::new("kill").args([signal, &pid.to_string()]).status();
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}
