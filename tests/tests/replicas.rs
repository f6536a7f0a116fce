//! Reads go on from another replica when one goes away, however it goes, and say so clearly when none is left.

use std::process::Command;

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
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
