//! One keep-alive connection to a service.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A connection, and the key that it uses.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    authorization: String,
}

impl Connection {
    /// Connects to a base address such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// If nobody listens there.
    pub async fn open(base: &str, key: &str) -> anyhow::Result<Self> {
        let host = base.strip_prefix("http://").context("the stack's addresses are http")?.to_owned();
        let stream = TcpStream::connect(&host).await.with_context(|| format!("no connection to {host}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends when the sender is dropped; a broken connection shows in the next request.
        tokio::spawn(connection);
        Ok(Self { sender, host, authorization: format!("Bearer {key}") })
    }

    /// Many connections.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn open_many(base: &str, key: &str, count: usize) -> anyhow::Result<Vec<Self>> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(Self::open(base, key).await?);
        }
        Ok(connections)
    }

    /// Sends a command and gives the body of its answer.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn post(&mut self, path: &str, body: String) -> anyhow::Result<Bytes> {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        self.send(request.body(Full::new(body.into()))?, StatusCode::CREATED).await
    }

    /// Sends a change of a record and gives the body of its answer.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn patch(&mut self, path: &str, body: String) -> anyhow::Result<Bytes> {
        let request = self.request(Method::PATCH, path).header("content-type", "application/json");
        self.send(request.body(Full::new(body.into()))?, StatusCode::OK).await
    }

    /// Sends lines of commands; every one must be carried out.
    ///
    /// # Errors
    /// If any of them is refused.
    pub async fn batch(&mut self, lines: String) -> anyhow::Result<()> {
        let request = self.request(Method::POST, "/v1/batch").header("content-type", "application/x-ndjson");
        let answer = self.send(request.body(Full::new(lines.into()))?, StatusCode::OK).await?;
        let refused = answer
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .find(|line| serde_json::from_slice::<Value>(line).map_or(true, |line| line["status"] != 201));
        ensure!(refused.is_none(), "{}", String::from_utf8_lossy(refused.unwrap_or_default()));
        Ok(())
    }

    /// Reads.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Bytes> {
        let request = self.request(Method::GET, path);
        self.send(request.body(Full::default())?, StatusCode::OK).await
    }

    /// Reads a stream to its end, holding nothing of it; gives its lines.
    ///
    /// # Errors
    /// If it is refused or breaks off.
    pub async fn count_lines(&mut self, path: &str) -> anyhow::Result<u64> {
        let request = self.request(Method::GET, path).header("accept", "application/x-ndjson");
        self.sender.ready().await?;
        let mut answer = self.sender.send_request(request.body(Full::default())?).await?;
        ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
        let mut lines = 0;
        while let Some(frame) = answer.body_mut().frame().await {
            let frame = frame?;
            let bytes = frame.data_ref().map_or(&[][..], |data| data);
            lines += bytes.split(|byte| *byte == b'\n').count() as u64 - 1;
        }
        Ok(lines)
    }

    /// Waits until what is read includes a position.
    ///
    /// # Errors
    /// If it does not come within a minute.
    pub async fn wait_for(&mut self, position: i64) -> anyhow::Result<()> {
        let mut last = Ok(Bytes::new());
        for _ in 0..2 {
            let request = self
                .request(Method::GET, "/v1/companies?limit=1")
                .header("prospectus-min-position", position)
                .header("prefer", "wait=30");
            last = self.send(request.body(Full::default())?, StatusCode::OK).await;
            if last.is_ok() {
                return Ok(());
            }
        }
        last.map(drop)
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let request = Request::builder().method(method).uri(path).header("host", &self.host);
        request.header("authorization", &self.authorization)
    }

    async fn send(&mut self, request: Request<Full<Bytes>>, expected: StatusCode) -> anyhow::Result<Bytes> {
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status == expected, "{status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }
}

/// The id of the record that a command made or changed, and the position that it got.
///
/// # Errors
/// If the answer is not that of a command.
pub fn made(answer: &[u8]) -> anyhow::Result<(uuid::Uuid, i64)> {
    let answer: Value = serde_json::from_slice(answer)?;
    let id = answer["id"].as_str().context("no id in a command's answer")?.parse()?;
    Ok((id, answer["position"].as_i64().context("no position in a command's answer")?))
}
