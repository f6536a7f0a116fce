//! A customer list of a million lines: how fast it is in the log, how fast on the replica, how fast when it comes again, and how much
//! memory the service takes meanwhile.

use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bench::messy::{HEADER, MAPPING, Messy};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use service_kit::postgres::Database;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::append;
use crate::client::Connection;
use crate::results::Results;
use crate::stack::BenchStack;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// How long one import may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// The body is sent in pieces of so many bytes.
const PIECE_BYTES: usize = 256 << 10;
const BOUNDARY: &str = "a-boundary-that-no-line-holds";

/// The limit, then: a list with the projector stopped, the same list again, and, with everything running, another list.
///
/// # Errors
/// If a list is not taken, or does not come to its end.
pub async fn run(stack: &BenchStack, length: Duration, lines: u64, results: &mut Results) -> anyhow::Result<()> {
    append::limit_of_imports(stack, length, results).await?;
    let lists = [ListFile::write(1, lines)?, ListFile::write(2, lines)?];
    stack.order("stop", "projector").await?;
    stack.forget_peak("command_service")?;
    let first = import(stack, &lists[0]).await?;
    results.add("import.log", "rows/s", first.rate());
    let again = import(stack, &lists[0]).await?;
    results.add("import.again", "rows/s", again.rate());
    stack.order("start", "projector").await?;
    let mut reader = Replica::open(stack).await?;
    reader.wait_for(again.position).await?;
    let visible = import(stack, &lists[1]).await?;
    results.add("import.log_beside_all", "rows/s", visible.rate());
    reader.wait_for(visible.position).await?;
    results.add("import.visible", "rows/s", per_second(visible.rows, visible.begun.elapsed()));
    results.add("import.memory", "MiB", stack.peak_mib("command_service")?);
    Ok(())
}

/// A list in a file, gone with it: made before, so that making it takes no time of what is measured.
pub struct ListFile(PathBuf);

impl ListFile {
    /// Writes a list of so many lines.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write(seed: u64, lines: u64) -> anyhow::Result<Self> {
        let list = Self(std::env::temp_dir().join(format!("prospectus-list-{}.csv", Uuid::new_v4().simple())));
        let mut file = BufWriter::new(File::create(&list.0)?);
        file.write_all(HEADER.as_bytes())?;
        for line in Messy::new(seed, lines).lines() {
            file.write_all(line.as_bytes())?;
        }
        file.flush()?;
        Ok(list)
    }
}

impl Drop for ListFile {
    fn drop(&mut self) {
        // A file that stays is an operator's nuisance, no wrong figure.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What became of one import.
pub struct Imported {
    rows: u64,
    position: i64,
    begun: Instant,
    took: Duration,
}

impl Imported {
    /// Rows a second, until the last event.
    pub fn rate(&self) -> f64 {
        per_second(self.rows, self.took)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn per_second(rows: u64, took: Duration) -> f64 {
    rows as f64 / took.as_secs_f64()
}

/// Sends a list and waits for its end, which is its last event.
///
/// # Errors
/// If it is not taken, or does not come to its end.
pub async fn import(stack: &BenchStack, list: &ListFile) -> anyhow::Result<Imported> {
    let begun = Instant::now();
    let import_id = send(stack, &list.0).await?;
    let mut connection = Connection::open(&stack.command, &stack.key).await?;
    loop {
        let document: Value = serde_json::from_slice(&connection.get(&format!("/v1/imports/{import_id}")).await?)?;
        match document["state"].as_str() {
            Some("done") => {
                let took = begun.elapsed();
                let rows = document["rows"]["read"].as_u64().context("no rows in the import's document")?;
                let position = document["position"].as_i64().context("no position in the import's document")?;
                return Ok(Imported { rows, position, begun, took });
            }
            Some("receiving" | "running") => {}
            _ => anyhow::bail!("the import did not come to its end: {document}"),
        }
        ensure!(begun.elapsed() < PATIENCE, "the import does not end");
        tokio::time::sleep(LOOK).await;
    }
}

/// Streams a file as a client would; gives the import that runs now.
async fn send(stack: &BenchStack, path: &Path) -> anyhow::Result<String> {
    let part = |name: &str| format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
    let before = [&part("mapping"), MAPPING, "\r\n", &part("file")].concat();
    let after = format!("\r\n--{BOUNDARY}--\r\n");
    let pieces = Pieces { file: Some(File::open(path)?), before: Some(before.into()), after: Some(after.into()) };
    let stream =
        futures_util::stream::unfold(pieces, async |mut pieces| Some((pieces.next()?.map(Frame::data), pieces)));
    let body = StreamBody::new(Box::pin(stream));
    let host = stack.command.strip_prefix("http://").context("the stack's addresses are http")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(TcpStream::connect(host).await?)).await?;
    // Ends when the sender is dropped; a broken connection shows in the request.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::POST)
        .uri("/v1/imports?source=bench")
        .header("host", host)
        .header("authorization", format!("Bearer {}", stack.key))
        .header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"))
        .body(body)?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let answer = answer.into_body().collect().await?.to_bytes();
    ensure!(status == StatusCode::ACCEPTED, "{status}: {}", String::from_utf8_lossy(&answer));
    let answer: Value = serde_json::from_slice(&answer)?;
    Ok(answer["id"].as_str().context("no id in the import's document")?.to_owned())
}

/// The pieces of a body.
struct Pieces {
    before: Option<Bytes>,
    file: Option<File>,
    after: Option<Bytes>,
}

impl Pieces {
    fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        if let Some(before) = self.before.take() {
            return Some(Ok(before));
        }
        if let Some(file) = &mut self.file {
            // The file was just written: it is read from memory.
            let mut piece = vec![0; PIECE_BYTES];
            match file.read(&mut piece) {
                Ok(0) => self.file = None,
                Ok(read) => {
                    piece.truncate(read);
                    return Some(Ok(piece.into()));
                }
                Err(error) => return Some(Err(error)),
            }
        }
        self.after.take().map(Ok)
    }
}

/// The replica's read tables.
struct Replica(tokio_postgres::Client);

impl Replica {
    async fn open(stack: &BenchStack) -> anyhow::Result<Self> {
        Ok(Self(Database::parse(&stack.replica, "bench")?.client().await?))
    }

    /// Waits until all up to a position is shown.
    async fn wait_for(&mut self, position: i64) -> anyhow::Result<()> {
        const DONE: &str = "
            SELECT EXISTS (SELECT FROM read.checkpoints WHERE position >= $1) AND NOT EXISTS (SELECT FROM read.fanout)";
        let begun = Instant::now();
        while !self.0.query_one(DONE, &[&position]).await?.get::<_, bool>(0) {
            ensure!(begun.elapsed() < PATIENCE, "the replica does not come to {position}");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}
