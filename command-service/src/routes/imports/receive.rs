//! From a request to an import whose bytes are stored.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use domain::ConflictRule;
use domain::value::Line;
use event_store::receipt::NewReceipt;
use http::{HeaderMap, Uri, header};
use http_body_util::BodyExt as _;
use service_kit::problem::{Code, FieldProblem, Problem};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::not_taken;
use crate::carry_out::{Caller, Service, idempotency_key};
use crate::import::{
    BUILTIN_NAMES, Begun, Charset, Choice, Compression, Declared, Format, Mapping, NotTaken, Receiving,
};
use crate::import::{Unmapped, Wanted};

/// How long a client may send nothing.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The most bytes of a mapping in a request.
const MAPPING_BYTES_MAX: u64 = 256 << 10;
/// After an answer that comes before all bytes do: how much of what the client still sends is thrown away, and for how long. A client that is cut off while it sends
/// sees no answer.
const DISCARDED_BYTES_MAX: usize = 16 << 20;
const DISCARD_WAIT: Duration = Duration::from_secs(5);
/// Sources that a rank may name.
const RANKS_MAX: usize = 100;

/// Takes a request's list in; gives the import that runs now.
pub(super) async fn receive(
    service: &Service,
    caller: &Caller,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Uuid, Problem> {
    let body = SharedBody(Arc::new(Mutex::new(body)));
    let taken = take_in(service, caller, uri, headers, body.clone()).await;
    // After a refusal, or where the list was sent before under the same key; else all of it was read.
    let discard = async {
        let mut discarded = 0;
        while let Some(Ok(bytes)) = body.next().await {
            discarded += bytes.len();
            if discarded > DISCARDED_BYTES_MAX {
                return;
            }
        }
    };
    // Whether all of it came or not, the client has had its chance to listen.
    let _ = tokio::time::timeout(DISCARD_WAIT, discard).await;
    taken
}

/// A body that is read by one and, where that one gives up, thrown away by another.
#[derive(Clone)]
struct SharedBody(Arc<Mutex<Body>>);

impl SharedBody {
    /// The next bytes; none at the end.
    async fn next(&self) -> Option<Result<Bytes, axum::Error>> {
        let mut body = self.0.lock().await;
        loop {
            match body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

async fn take_in(
    service: &Service,
    caller: &Caller,
    uri: &Uri,
    headers: &HeaderMap,
    body: SharedBody,
) -> Result<Uuid, Problem> {
    let mut wanted = parameters(uri, headers)?;
    let imports = &service.imports;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut multipart = match multer::parse_boundary(content_type) {
        Ok(boundary) => {
            let body = body.clone();
            let pieces = futures_util::stream::unfold(body, async |body| Some((body.next().await?, body)));
            Some(multer::Multipart::new(Box::pin(pieces), boundary))
        }
        // Without its boundary the parts would be read as lines of the list.
        Err(_) if content_type.trim_start().to_ascii_lowercase().starts_with("multipart/") => {
            return Err(Problem::new(
                Code::UnsupportedMediaType,
                "send multipart/form-data with its boundary, or the list alone as text/csv or application/x-ndjson",
            ));
        }
        Err(_) => None,
    };
    let mut file = None;
    if let Some(parts) = &mut multipart {
        if let Some(mapping) = mapping_part(parts).await? {
            wanted.mapping = Choice::Given(Box::new(mapping));
        }
        file = Some(file_part(parts).await?);
    }
    let receipt = match idempotency_key(headers)? {
        Some(key) => {
            let mapping = multipart.is_some().then(|| match &wanted.mapping {
                Choice::Given(mapping) => mapping.to_toml(),
                Choice::Named(_) | Choice::Guess => String::new(),
            });
            let request_hmac = request_hmac(service, caller.tenant_id(), uri, headers, mapping.as_deref());
            Some(NewReceipt { key, request_hmac })
        }
        None => None,
    };
    let begun = imports.begin(caller.tenant_id(), caller.metadata(), receipt, wanted).await;
    let mut receiving = match begun.map_err(|error| not_taken(error, None))? {
        Begun::Receiving(receiving) => receiving,
        Begun::Before(import_id) => return Ok(import_id),
    };
    let import_id = receiving.import_id;
    let bytes = match file {
        Some(part) => ListBytes::Part(Box::new(part)),
        None => ListBytes::Body(body),
    };
    match pour(&mut receiving, service, bytes).await {
        Ok(()) => Ok(import_id),
        Err(Stopped::Refused(why)) => {
            receiving.give_up(&why).await;
            Err(not_taken(why, Some(import_id)))
        }
        // Dropped, it is noted as interrupted.
        Err(Stopped::Client(problem)) => Err(problem.member("import_id", import_id.to_string())),
    }
}

/// What a request sent again with its idempotency key must have in common with the first: what is known before the list comes. Of a
/// plain body that is its length, of a multipart body, whose boundaries differ each time, its `mapping`.
fn request_hmac(service: &Service, tenant_id: Uuid, uri: &Uri, headers: &HeaderMap, mapping: Option<&str>) -> [u8; 32] {
    let of = |name| headers.get(name).map_or(&b""[..], header::HeaderValue::as_bytes);
    let query = uri.query().unwrap_or_default().as_bytes();
    let encoding = of(header::CONTENT_ENCODING);
    let keyring = service.executors.store.keyring();
    if let Some(mapping) = mapping {
        return keyring.tenant_hmac(tenant_id, &[b"import", &[0], query, &[0], encoding, &[0], mapping.as_bytes()]);
    }
    let (media, length) = (of(header::CONTENT_TYPE), of(header::CONTENT_LENGTH));
    keyring.tenant_hmac(tenant_id, &[b"import", &[0], query, &[0], encoding, &[0], media, &[0], length])
}

/// Where a list's bytes come from.
enum ListBytes {
    Body(SharedBody),
    Part(Box<multer::Field<'static>>),
}

impl ListBytes {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        match self {
            Self::Part(part) => part.chunk().await.map_err(|_| broken_off()),
            Self::Body(body) => body.next().await.transpose().map_err(|_| broken_off()),
        }
    }
}

enum Stopped {
    Refused(NotTaken),
    Client(Problem),
}

/// Hands all bytes on as they come.
async fn pour(receiving: &mut Receiving, service: &Service, mut list: ListBytes) -> Result<(), Stopped> {
    loop {
        let bytes = tokio::select! {
            () = service.shutdown.requested() => {
                return Err(Stopped::Client(Problem::new(Code::ShuttingDown, "the service is stopping; send the list again")));
            }
            bytes = tokio::time::timeout(SILENCE_MAX, list.next()) => bytes,
        };
        match bytes {
            Ok(Ok(Some(bytes))) => receiving.take(&bytes).await.map_err(Stopped::Refused)?,
            Ok(Ok(None)) => return receiving.finish().await.map_err(Stopped::Refused),
            Ok(Err(problem)) => return Err(Stopped::Client(problem)),
            Err(_) => {
                let detail = format!("nothing came for {} s; send the list again", SILENCE_MAX.as_secs());
                return Err(Stopped::Client(Problem::new(Code::RequestTimeout, detail)));
            }
        }
    }
}

fn broken_off() -> Problem {
    Problem::new(Code::InvalidParameter, "the body broke off; send the list again")
}

async fn mapping_part(parts: &mut multer::Multipart<'static>) -> Result<Option<Mapping>, Problem> {
    let part = next_part(parts).await?;
    if part.name() != Some("mapping") {
        let detail =
            "the first part of a multipart body must be `mapping`, a TOML text; the second is `file`, the list";
        return Err(Problem::new(Code::InvalidParameter, detail));
    }
    let mut part = part;
    let mut text = Vec::new();
    while let Some(chunk) =
        tokio::time::timeout(SILENCE_MAX, part.chunk()).await.map_err(|_| broken_off())?.map_err(|_| broken_off())?
    {
        text.extend_from_slice(&chunk);
        if text.len() as u64 > MAPPING_BYTES_MAX {
            return Err(Problem::new(Code::BodyTooLarge, format!("a mapping has at most {MAPPING_BYTES_MAX} bytes")));
        }
    }
    let text = String::from_utf8(text).map_err(|_| Problem::new(Code::InvalidUtf8, "the mapping is not UTF-8"))?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    Mapping::parse(&text).map(Some).map_err(|error| not_taken(NotTaken::Mapping(error), None))
}

async fn file_part(parts: &mut multer::Multipart<'static>) -> Result<multer::Field<'static>, Problem> {
    let part = next_part(parts).await?;
    if part.name() != Some("file") {
        return Err(Problem::new(
            Code::InvalidParameter,
            "the second part of a multipart body must be `file`, the list",
        ));
    }
    Ok(part)
}

async fn next_part(parts: &mut multer::Multipart<'static>) -> Result<multer::Field<'static>, Problem> {
    let next = tokio::time::timeout(SILENCE_MAX, parts.next_field()).await.map_err(|_| broken_off())?;
    next.map_err(|_| broken_off())?.ok_or_else(|| {
        Problem::new(
            Code::InvalidParameter,
            "a multipart body has two parts: `mapping`, a TOML text, and `file`, the list",
        )
    })
}

/// Reads the query, with what the headers say of the bytes.
#[expect(clippy::too_many_lines, reason = "a table of parameters")]
fn parameters(uri: &Uri, headers: &HeaderMap) -> Result<Wanted, Problem> {
    let mut errors = Vec::new();
    let mut wrong = |name: &str, code: &str, detail: String| {
        errors.push(FieldProblem { pointer: name.to_owned(), code: code.to_owned(), detail });
    };
    let mut declared = declared_by(headers);
    let (mut source, mut mapping, mut unmapped, mut dry_run) = (None, Choice::Guess, None, false);
    let (mut conflicts, mut ranks) = ("newest".to_owned(), Vec::new());
    for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        let known = match &*name {
            "source" => {
                source = Line::parse(&value).ok();
                source.is_some().then_some(()).ok_or("1 to 100 characters of text")
            }
            "mapping" => {
                let names = BUILTIN_NAMES;
                if value == "guess" {
                    Ok(())
                } else if names.contains(&&*value) {
                    mapping = Choice::Named(value.into_owned());
                    Ok(())
                } else {
                    Err(
                        "customer, hubspot, salesforce or guess; one of your own is sent as a part `mapping` of a multipart body",
                    )
                }
            }
            "dry_run" => match &*value {
                "true" | "1" | "" => {
                    dry_run = true;
                    Ok(())
                }
                "false" | "0" => Ok(()),
                _ => Err("true or false"),
            },
            "conflicts" => {
                conflicts = value.into_owned();
                ["newest", "keep", "source_rank"]
                    .contains(&&*conflicts)
                    .then_some(())
                    .ok_or("newest, keep or source_rank")
            }
            "rank" => match value.split(',').map(Line::parse).collect::<Result<Vec<_>, _>>() {
                Ok(names) if names.len() <= RANKS_MAX => {
                    ranks = names;
                    Ok(())
                }
                _ => Err("at most 100 names of sources, with commas between them"),
            },
            "unmapped" => match &*value {
                "ignore" => {
                    unmapped = Some(Unmapped::Ignore);
                    Ok(())
                }
                "attributes" => {
                    unmapped = Some(Unmapped::Attributes);
                    Ok(())
                }
                _ => Err("ignore or attributes"),
            },
            "format" => {
                declared.format = Format::parse(&value);
                declared.format.is_some().then_some(()).ok_or("csv or ndjson")
            }
            "charset" => {
                declared.charset = Charset::parse(&value);
                declared.charset.is_some().then_some(()).ok_or(Charset::KNOWN)
            }
            "compression" => {
                declared.compression = Compression::parse(&value);
                declared.compression.is_some().then_some(()).ok_or("gzip, zstd or none")
            }
            "delimiter" => {
                declared.delimiter = match value.as_bytes() {
                    b"tab" | b"\\t" => Some(b'\t'),
                    [one] if one.is_ascii() => Some(*one),
                    _ => None,
                };
                declared.delimiter.is_some().then_some(()).ok_or("one ASCII character, or tab")
            }
            other => {
                wrong(other, "unknown_parameter", "is no parameter of this endpoint".to_owned());
                Ok(())
            }
        };
        if let Err(takes) = known {
            wrong(&name, "invalid_parameter", format!("must be {takes}"));
        }
    }
    if source.is_none() && !uri.query().unwrap_or_default().contains("source=") {
        wrong("source", "required", "is required: the name of the system that the list is from".to_owned());
    }
    let rule = match conflicts.as_str() {
        "keep" => ConflictRule::Keep,
        "source_rank" => {
            if ranks.is_empty() {
                wrong("rank", "required", "is required with conflicts=source_rank: the sources, best first".to_owned());
            }
            ConflictRule::SourceRank(ranks)
        }
        _ => ConflictRule::Newest,
    };
    match source {
        Some(source) if errors.is_empty() => Ok(Wanted { source, mapping, unmapped, dry_run, rule, declared }),
        _ => {
            let unknown = errors.iter().all(|error| error.code == "unknown_parameter");
            let code = if unknown { Code::UnknownParameter } else { Code::InvalidParameter };
            Err(Problem::new(code, "parameters of the import are wrong").errors(errors))
        }
    }
}

/// What the headers say of the bytes.
fn declared_by(headers: &HeaderMap) -> Declared {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or_default();
    let mut parts = text(header::CONTENT_TYPE).split(';');
    let format = parts.next().and_then(Format::parse);
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| Charset::parse(value.trim().trim_matches('"')))?
    });
    Declared { format, charset, delimiter: None, compression: Compression::parse(text(header::CONTENT_ENCODING)) }
}
