//! One line of a batch, taken apart.

use std::ops::Range;

use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use service_kit::http::parse_json_object;
use service_kit::problem::{Code, Problem};

use crate::carry_out::check_idempotency_key;
use crate::operation::{self, Object, Operation};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    method: String,
    path: String,
    #[serde(borrow, default)]
    body: Option<&'a RawValue>,
    #[serde(default)]
    idempotency_key: Option<String>,
    #[serde(default)]
    if_match: Option<i64>,
}

/// A line taken apart.
pub(super) struct Parsed {
    pub(super) operation: Operation,
    /// The command's name in the figures.
    pub(super) name: &'static str,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) idempotency_key: Option<String>,
    pub(super) if_match: Option<i64>,
    /// Where in the line the body stands.
    pub(super) body: Range<usize>,
}

impl Parsed {
    /// Takes a line apart.
    ///
    /// # Errors
    /// What is wrong with it, and the name of the command that it would be, as far as it can be told.
    pub(super) fn new(line: &[u8]) -> Result<Self, (&'static str, Problem)> {
        let mut name = operation::UNKNOWN;
        Self::named(line, &mut name).map_err(|problem| (name, problem))
    }

    fn named(line: &[u8], name: &mut &'static str) -> Result<Self, Problem> {
        // For its good errors on what is not even JSON.
        parse_json_object(line)?;
        let parsed: Line<'_> = serde_json::from_slice(line).map_err(|_| {
            Problem::new(
                Code::InvalidJson,
                "a line is {\"method\", \"path\", \"body\", \"idempotency_key\"?, \"if_match\"?}",
            )
        })?;
        let method = Method::from_bytes(parsed.method.as_bytes())
            .map_err(|_| Problem::new(Code::MethodNotAllowed, "method must be POST, PATCH or DELETE"))?;
        *name = operation::name(&method, &parsed.path);
        if let Some(key) = &parsed.idempotency_key {
            check_idempotency_key(key)?;
        }
        let (object, body) = match parsed.body {
            Some(raw) if raw.get() != "null" => {
                let start = raw.get().as_ptr() as usize - line.as_ptr() as usize;
                (parse_json_object(raw.get().as_bytes())?, start..start + raw.get().len())
            }
            _ => (Object::new(), 0..0),
        };
        let operation = Operation::parse(&method, &parsed.path, object)?;
        let Line { path, idempotency_key, if_match, .. } = parsed;
        Ok(Self { operation, name: *name, method, path, idempotency_key, if_match, body })
    }
}
