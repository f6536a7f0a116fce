//! Bodies in bounds: their size, the time they take, their media type, UTF-8 and JSON.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::problem::{Code, Problem};

/// How long a client may take to send a body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of a body that is too large is still read: a client that is cut off while it sends sees no answer.
const DISCARDED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A body that is one JSON object.
#[derive(Debug, Clone)]
pub struct JsonBody {
    /// As it came.
    pub bytes: Bytes,
    /// What it says.
    pub object: Map<String, Value>,
}

/// The whole body, if it is no larger than `max_bytes` and arrives within `wait` (usually [`BODY_TIMEOUT`]).
///
/// # Errors
/// `body_too_large` with the limit, `request_timeout`, or `invalid_parameter` for a body that ends too early.
pub async fn read_body(headers: &HeaderMap, body: Body, max_bytes: usize, wait: Duration) -> Result<Bytes, Problem> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > max_bytes) && headers.contains_key(header::EXPECT) {
        // The client waits for a word before it sends, and this is it.
        return Err(too_large(max_bytes));
    }
    match tokio::time::timeout(wait, collect(body, announced.unwrap_or(0), max_bytes)).await {
        Ok(read) => read,
        Err(_) => {
            Err(Problem::new(Code::RequestTimeout, format!("the body did not arrive within {} s", wait.as_secs_f64())))
        }
    }
}

async fn collect(mut body: Body, announced: usize, max_bytes: usize) -> Result<Bytes, Problem> {
    let mut read = BytesMut::with_capacity(announced.min(max_bytes));
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            tracing::debug!(%error, "a body broke off");
            Problem::new(Code::InvalidParameter, "the body broke off")
        })?;
        let Ok(data) = frame.into_data() else { continue };
        total += data.len();
        if total <= max_bytes {
            read.extend_from_slice(&data);
        } else if total > max_bytes + DISCARDED_BYTES_MAX {
            break;
        }
    }
    if total > max_bytes { Err(too_large(max_bytes)) } else { Ok(read.freeze()) }
}

fn too_large(max_bytes: usize) -> Problem {
    Problem::new(Code::BodyTooLarge, format!("the body may have at most {max_bytes} bytes")).member("limit", max_bytes)
}

/// The body as one JSON object. A missing content type is taken for JSON; otherwise it is `application/json` or ends in `+json`.
///
/// # Errors
/// Those of [`read_body`] and [`parse_json_object`], and `unsupported_media_type`.
pub async fn read_json(headers: &HeaderMap, body: Body, max_bytes: usize) -> Result<JsonBody, Problem> {
    if let Some(given) = headers.get(header::CONTENT_TYPE)
        && !given.to_str().is_ok_and(is_json)
    {
        return Err(Problem::new(Code::UnsupportedMediaType, "send the body as application/json, in UTF-8"));
    }
    let bytes = read_body(headers, body, max_bytes, BODY_TIMEOUT).await?;
    let object = parse_json_object(&bytes)?;
    Ok(JsonBody { bytes, object })
}

fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(|part| part.trim().to_ascii_lowercase());
    let essence = parts.next().unwrap_or_default();
    let json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    json && parts.all(|parameter| match parameter.strip_prefix("charset=") {
        Some(charset) => matches!(charset.trim_matches('"'), "utf-8" | "utf8"),
        None => true,
    })
}

/// A JSON object from a body or a line of one.
///
/// # Errors
/// `invalid_utf8` or `invalid_json`, with the place; what stands there is not repeated, for it may be personal.
pub fn parse_json_object(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Problem::new(Code::InvalidUtf8, format!("byte {} of the body is not UTF-8", error.valid_up_to() + 1))
    })?;
    match serde_json::from_str(text) {
        Ok(Members { object, twice: false }) => Ok(object),
        // Whichever of the two were taken, the other would be lost in silence.
        Ok(_) => Err(Problem::new(Code::InvalidJson, "a member of the body stands there twice")),
        Err(error) if error.is_data() => Err(Problem::new(Code::InvalidJson, "the body must be a JSON object: {…}")),
        Err(error) if error.is_eof() && text.trim().is_empty() => {
            Err(Problem::new(Code::InvalidJson, "the body is empty; a JSON object is expected"))
        }
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            let cut = if error.is_eof() { ": it ends too early" } else { "" };
            let detail = format!("the body is not JSON at line {line}, column {column}{cut}");
            Err(Problem::new(Code::InvalidJson, detail).member("line", line).member("column", column))
        }
    }
}

/// The members of an object, and whether a name came twice.
struct Members {
    object: Map<String, Value>,
    twice: bool,
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Members, A::Error> {
                let mut members = Members { object: Map::new(), twice: false };
                while let Some((name, value)) = access.next_entry()? {
                    members.twice |= members.object.insert(name, value).is_some();
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_that_mean_json() {
        for accepted in [
            "application/json",
            "application/json; charset=UTF-8",
            "Application/Merge-Patch+JSON",
            "application/json;charset=\"utf-8\"",
        ] {
            assert!(is_json(accepted), "{accepted}");
        }
        for refused in
            ["text/plain", "", "application/x-www-form-urlencoded", "application/json; charset=latin1", "text/json"]
        {
            assert!(!is_json(refused), "{refused}");
        }
    }

    #[test]
    fn a_wrong_body_is_located_and_not_repeated() {
        let problem = parse_json_object(b"{\n  \"first_name\": Ada\n}").expect_err("not JSON").to_json();
        assert_eq!(problem["code"], "invalid_json");
        assert_eq!((problem["line"].as_u64(), problem["column"].as_u64()), (Some(2), Some(17)));
        assert!(!problem.to_string().contains("Ada"));
        for (body, code) in [
            (&b"\xff{}"[..], "invalid_utf8"),
            (b"[]", "invalid_json"),
            (b"", "invalid_json"),
            (b"{} {}", "invalid_json"),
        ] {
            assert_eq!(parse_json_object(body).expect_err("refused").code().name(), code);
        }
        assert!(parse_json_object(&b"[".repeat(100_000)).is_err(), "depth has a bound");
    }
}
