//! The projector as a process of the test's own.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::{DEADLINE, KEY_FILE, Opened, eventually};

/// A projector's process, killed at the end.
pub struct Process {
    child: Child,
    address: String,
    /// What it said last.
    said: Arc<Mutex<Vec<String>>>,
}

/// Lines that are kept.
const SAID_MAX: usize = 50;

impl Process {
    pub async fn start(opened: &Opened) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_projector"))
            .env("PROSPECTUS_DATABASE_URL", opened.database.url_for("prospectus_projector"))
            .env("PROSPECTUS_KEYRING", KEY_FILE)
            .env("PROSPECTUS_LISTEN", "127.0.0.1:0")
            .env("PROSPECTUS_LOG", "info")
            .env("PROSPECTUS_LOG_FORMAT", "json")
            .env_remove("PROSPECTUS_KEYRING_FILE")
            .env_remove("PROSPECTUS_NATS_URL")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the projector's program");
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let (told, address) = oneshot::channel();
        let said = Arc::new(Mutex::new(Vec::new()));
        let keeps = Arc::clone(&said);
        // Reads to the end, so that the process never waits for somebody to read.
        std::thread::spawn(move || {
            let mut told = Some(told);
            for line in lines.map_while(Result::ok) {
                let mut kept = keeps.lock().expect("nobody panics while holding it");
                if kept.len() == SAID_MAX {
                    kept.remove(0);
                }
                kept.push(line.clone());
                drop(kept);
                let line: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(address) = line["address"].as_str()
                    && let Some(told) = told.take()
                {
                    // The test may be over.
                    let _ = told.send(address.to_owned());
                }
            }
        });
        let address =
            tokio::time::timeout(DEADLINE, address).await.expect("in time").expect("it says where it listens");
        Self { child, address, said }
    }

    /// Status and body of a page.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    pub async fn figure(&self, name: &str) -> Option<f64> {
        let (_, figures) = self.get("/metrics").await;
        figures.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// Waits until the events and seconds of the lag are so.
    pub async fn lag(&self, what: &str, wanted: impl Fn(f64, f64) -> bool) {
        eventually(what, async || {
            let events = self.figure("prospectus_projection_lag_events").await?;
            let seconds = self.figure("prospectus_projection_lag_seconds").await?;
            wanted(events, seconds).then_some(())
        })
        .await;
    }

    pub async fn ready(&self, wanted: u16) -> String {
        eventually(&format!("{wanted}"), async || {
            let (status, body) = self.get("/readyz").await;
            (status == wanted).then_some(body)
        })
        .await
    }

    /// Kills it, as `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    /// Sends it a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill");
        assert!(sent.success(), "SIG{name}");
    }

    pub async fn ended(&mut self) -> ExitStatus {
        eventually("the process ends", async || self.child.try_wait().expect("it is ours")).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.said.lock().expect("nobody panics while holding it").join("\n");
            eprintln!("the projector {} ({:?}) said:\n{said}", self.child.id(), self.child.try_wait());
        }
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
