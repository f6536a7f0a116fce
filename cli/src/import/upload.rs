//! What is sent: a file or standard input as a stream, in front of it a mapping of one's own, and the parameters of the import.

use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{HeaderMap, HeaderValue, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use indicatif::ProgressBar;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::api::Body;

/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;
/// Largest file that is taken for a mapping; the service takes no larger one.
const MAPPING_BYTES_MAX: u64 = 256 << 10;

/// How a list is read.
#[derive(Debug, Clone, clap::Args)]
pub struct Reading {
    /// Name of the system that the list is from: ids are its own, and `source_rank` goes by it.
    #[arg(long)]
    pub source: Option<String>,
    /// A built-in mapping (customer, hubspot, salesforce) or a TOML file; without one it is guessed from the header.
    #[arg(long)]
    mapping: Option<String>,
    /// Only say what would become of the rows, and show the mapping.
    #[arg(long)]
    dry_run: bool,
    /// Which of two values of one field wins: newest, keep or `source_rank`.
    #[arg(long)]
    conflicts: Option<String>,
    /// For `source_rank`: names of sources, best first, comma-separated; `api` is what people entered.
    #[arg(long)]
    rank: Option<String>,
    /// What becomes of columns that the mapping does not name: ignore or attributes.
    #[arg(long)]
    unmapped: Option<String>,
    /// utf-8, iso-8859-1, windows-1252, utf-16le or utf-16be.
    #[arg(long)]
    charset: Option<String>,
    /// What stands between two cells: one character, or tab.
    #[arg(long)]
    delimiter: Option<String>,
    /// csv or ndjson.
    #[arg(long)]
    format: Option<String>,
}

impl Reading {
    /// The same list as NDJSON with the newest value winning, unless another rule is asked for.
    pub(super) fn of_rows(&self) -> Self {
        let conflicts = self.conflicts.clone().or_else(|| Some("newest".to_owned()));
        Self { format: Some("ndjson".to_owned()), charset: None, delimiter: None, conflicts, ..self.clone() }
    }

    /// The path with its parameters, and the text of the mapping where it is a file.
    ///
    /// # Errors
    /// If there is no source, or the mapping's file cannot be read.
    pub(super) fn path(&self) -> anyhow::Result<(String, Option<String>)> {
        let source = self.source.as_ref().context("--source is missing: name the system that the list is from")?;
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("source", source);
        let file = self.mapping.as_ref().filter(|name| is_file(name));
        for (name, value) in [
            ("mapping", if file.is_some() { &None } else { &self.mapping }),
            ("conflicts", &self.conflicts),
            ("rank", &self.rank),
            ("unmapped", &self.unmapped),
            ("charset", &self.charset),
            ("delimiter", &self.delimiter),
            ("format", &self.format),
        ] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        if self.dry_run {
            query.append_pair("dry_run", "true");
        }
        let mapping = file.map(|file| mapping_text(Path::new(file))).transpose()?;
        Ok((format!("/v1/imports?{}", query.finish()), mapping))
    }
}

/// Names of built-in mappings have neither dots nor slashes.
fn is_file(name: &str) -> bool {
    name.contains(['.', '/', '\\']) || Path::new(name).is_file()
}

fn mapping_text(file: &Path) -> anyhow::Result<String> {
    let about = || format!("the mapping {}", file.display());
    let bytes = std::fs::metadata(file).with_context(about)?.len();
    anyhow::ensure!(bytes <= MAPPING_BYTES_MAX, "{} has more than 256 KiB: it is no mapping", about());
    std::fs::read_to_string(file).with_context(about)
}

/// A list as a stream of bytes: a file, or standard input for `-`. Its length is told to the bar.
///
/// # Errors
/// If the file cannot be opened.
pub(super) async fn open(file: &PathBuf, bar: &ProgressBar) -> anyhow::Result<(Body, &'static str)> {
    let input: Box<dyn AsyncRead + Send + Unpin> = if file == Path::new("-") {
        Box::new(tokio::io::stdin())
    } else {
        let opened =
            tokio::fs::File::open(file).await.with_context(|| format!("{} cannot be opened", file.display()))?;
        let metadata = opened.metadata().await?;
        anyhow::ensure!(
            !metadata.is_dir(),
            "{} is a directory: name a file, or `-` for standard input",
            file.display()
        );
        if metadata.is_file() {
            bar.set_length(metadata.len());
        }
        Box::new(opened)
    };
    let bar = bar.clone();
    let pieces = stream::unfold(Some(input), move |input| {
        let bar = bar.clone();
        async move {
            let mut input = input?;
            let mut piece = Vec::with_capacity(READ_BYTES);
            match (&mut input).take(READ_BYTES as u64).read_to_end(&mut piece).await {
                Ok(0) => None,
                Ok(read) => {
                    bar.inc(read as u64);
                    Some((Ok(Frame::data(Bytes::from(piece))), Some(input)))
                }
                Err(error) => Some((Err(error), None)),
            }
        }
    });
    let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let media = match extension.to_ascii_lowercase().as_str() {
        "csv" | "tsv" => "text/csv",
        "ndjson" | "jsonl" => "application/x-ndjson",
        _ => "application/octet-stream",
    };
    Ok((StreamBody::new(pieces).boxed_unsync(), media))
}

/// Headers and body of a list, with a mapping in front of it where there is one.
pub(super) fn request(list: Body, media: &'static str, mapping: Option<&str>) -> (HeaderMap, Body) {
    let mut headers = HeaderMap::new();
    let Some(mapping) = mapping else {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        return (headers, list);
    };
    // Random, so that no list holds it.
    let boundary = format!("prospectus-{}", uuid::Uuid::new_v4().simple());
    let content_type = format!("multipart/form-data; boundary={boundary}");
    headers.insert(header::CONTENT_TYPE, HeaderValue::try_from(content_type).expect("letters, digits and dashes"));
    let before = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"mapping\"\r\n\r\n{mapping}\r\n--{boundary}\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"list\"\r\nContent-Type: {media}\r\n\r\n"
    );
    let after = format!("\r\n--{boundary}--\r\n");
    let piece = |text: String| stream::once(async move { Ok(Frame::data(Bytes::from(text))) });
    let list = http_body_util::BodyStream::new(list);
    (headers, StreamBody::new(piece(before).chain(list).chain(piece(after))).boxed_unsync())
}
