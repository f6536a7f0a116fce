//! Every code that a problem can have, with what its page says.

use http::StatusCode;

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The body is not JSON, or not an object.
    InvalidJson,
    /// The body or a parameter is not UTF-8.
    InvalidUtf8,
    /// A cursor that this list did not give.
    InvalidCursor,
    /// A query parameter that the endpoint does not have.
    UnknownParameter,
    /// A query parameter, path segment or header with a wrong value.
    InvalidParameter,
    /// No key, or one that is not valid.
    Unauthenticated,
    /// The key's role may not.
    Forbidden,
    /// Not there, or another tenant's.
    NotFound,
    /// The path has no such method.
    MethodNotAllowed,
    /// The client was too slow.
    RequestTimeout,
    /// Another record has what is unique.
    ClaimTaken,
    /// The record is deleted.
    Deleted,
    /// The record was merged into another.
    Merged,
    /// The person was erased: the record takes nothing any more.
    Erased,
    /// What was sent names a person who was erased, and the tenant does not let such persons in again.
    ErasedPerson,
    /// Nobody has to decide about the record.
    NotInReview,
    /// Others changed the record at the same moment, again and again, or its state does not allow the command.
    Conflict,
    /// The position asked for is of another life of the log.
    EpochMismatch,
    /// The record is gone from lists, and reading it needs `include_deleted`.
    Gone,
    /// `If-Match` is not the current version.
    PreconditionFailed,
    /// The body is larger than the endpoint takes.
    BodyTooLarge,
    /// The body is of another media type.
    UnsupportedMediaType,
    /// A field is wrong or unknown.
    InvalidFields,
    /// A list that cannot be imported, or a mapping that cannot be used.
    InvalidList,
    /// The idempotency key came with another request before.
    IdempotencyKeyReused,
    /// The headers are larger than the service takes.
    HeadersTooLarge,
    /// A failure of the service itself.
    Internal,
    /// The queue is full.
    Overloaded,
    /// The database cannot be reached.
    DatabaseUnavailable,
    /// No replica has what was asked for yet.
    NotFresh,
    /// Whether the command took effect is not known.
    OutcomeUnknown,
    /// The person is erased in the database, but not in the list outside it.
    ErasureIncomplete,
    /// The service is ending.
    ShuttingDown,
}

struct Entry {
    code: Code,
    name: &'static str,
    status: StatusCode,
    title: &'static str,
    explanation: &'static str,
}

const fn entry(
    code: Code,
    name: &'static str,
    status: StatusCode,
    title: &'static str,
    explanation: &'static str,
) -> Entry {
    Entry { code, name, status, title, explanation }
}

#[rustfmt::skip] // One row a code.
const CATALOGUE: &[Entry] = &[
    entry(Code::InvalidJson, "invalid_json", StatusCode::BAD_REQUEST, "The body is not valid JSON",
        "The detail names line and column. Commands take one JSON object; check quotes, commas and that nothing follows the last brace."),
    entry(Code::InvalidUtf8, "invalid_utf8", StatusCode::BAD_REQUEST, "The text is not UTF-8",
        "Bodies and parameters are UTF-8. A file in another encoding (often Latin-1 or UTF-16) must be converted first."),
    entry(Code::InvalidCursor, "invalid_cursor", StatusCode::BAD_REQUEST, "The cursor does not belong to this list",
        "Send next_cursor exactly as it came, with the filters and the sort that it came with. To change those, start without a cursor."),
    entry(Code::UnknownParameter, "unknown_parameter", StatusCode::BAD_REQUEST, "There is no such parameter",
        "The errors name each unknown parameter. The endpoint's parameters stand in /docs; nothing that is misspelt is silently ignored."),
    entry(Code::InvalidParameter, "invalid_parameter", StatusCode::BAD_REQUEST, "A parameter has a wrong value",
        "The errors name each wrong parameter and what it takes."),
    entry(Code::Unauthenticated, "unauthenticated", StatusCode::UNAUTHORIZED, "No valid API key",
        "Send `Authorization: Bearer <key>`. The key may be mistyped, of another installation, or revoked; an operator makes one with `prospectus keys create`."),
    entry(Code::Forbidden, "forbidden", StatusCode::FORBIDDEN, "The key's role may not do this",
        "A reader reads records; a writer sends commands too; an auditor reads histories, events and proofs; an admin does all of it. Use a key with the role that the detail names."),
    entry(Code::NotFound, "not_found", StatusCode::NOT_FOUND, "Not found",
        "There is no such record or path for this key. Records of other tenants look exactly like this."),
    entry(Code::MethodNotAllowed, "method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, "The path does not take this method",
        "The Allow header lists the methods that the path takes."),
    entry(Code::RequestTimeout, "request_timeout", StatusCode::REQUEST_TIMEOUT, "The request came too slowly",
        "The body did not arrive in time. Nothing was changed; send it again."),
    entry(Code::ClaimTaken, "claim_taken", StatusCode::CONFLICT, "Another record has this already",
        "A domain or an external reference belongs to one record. `claimed_by` is the id of the record that has it: change that one, or leave the value out."),
    entry(Code::Deleted, "deleted", StatusCode::CONFLICT, "The record is deleted",
        "A deleted record takes no changes. Restore it first."),
    entry(Code::Merged, "merged", StatusCode::CONFLICT, "The record was merged into another",
        "`merged_into` is the id of the primary: send the command there, or unmerge first."),
    entry(Code::Erased, "erased", StatusCode::CONFLICT, "The person was erased",
        "An erased person's record takes no changes and cannot be restored. What identified the person is gone for good; the history says that something was there, when, and who changed it."),
    entry(Code::ErasedPerson, "erased_person", StatusCode::CONFLICT, "A person with this e-mail address was erased",
        "The person asked to be forgotten, and this tenant refuses to take erased persons in again. An operator may change that: `prospectus tenants set NAME --erased-persons admit`."),
    entry(Code::NotInReview, "not_in_review", StatusCode::CONFLICT, "The record is not in review",
        "Somebody decided about it already, or there was nothing to decide. `company_id` is the company that the prospect has, if it has one. `GET /v1/reviews` lists what is in review."),
    entry(Code::Conflict, "conflict", StatusCode::CONFLICT, "The record's state does not allow this",
        "Read the record again and decide anew. Where others change it all the time, sending the command again is enough."),
    entry(Code::EpochMismatch, "epoch_mismatch", StatusCode::CONFLICT, "The position is not of this log's past",
        "The log lost its tail (a failover or a restore), and the position asked for was in it. Read without a minimum position and compare with what you sent."),
    entry(Code::Gone, "gone", StatusCode::GONE, "The record is deleted",
        "`deleted_at` says since when. `?include_deleted=true` shows the record; it can be restored, unless `erased_at` says that the person was erased."),
    entry(Code::PreconditionFailed, "precondition_failed", StatusCode::PRECONDITION_FAILED, "The record has changed since",
        "If-Match named another version than the current one, which is in `version`. Read the record again and decide anew."),
    entry(Code::BodyTooLarge, "body_too_large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large",
        "`limit` is the largest body in bytes. Send many commands through POST /v1/batch, where the limit counts for each line."),
    entry(Code::UnsupportedMediaType, "unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "Not a media type that this endpoint takes",
        "Commands take application/json; PATCH takes application/merge-patch+json too; batches take application/x-ndjson."),
    entry(Code::InvalidFields, "invalid_fields", StatusCode::UNPROCESSABLE_ENTITY, "Fields are wrong or unknown",
        "`errors` lists everything that is wrong with the request, each with a pointer into the body. Nothing was changed."),
    entry(Code::InvalidList, "invalid_list", StatusCode::UNPROCESSABLE_ENTITY, "The list cannot be imported",
        "`reason` is a stable name for what is wrong with the file or the mapping as a whole, and the detail says what to do. Nothing of it was taken in."),
    entry(Code::IdempotencyKeyReused, "idempotency_key_reused", StatusCode::UNPROCESSABLE_ENTITY, "The idempotency key came with another request before",
        "An Idempotency-Key stands for one request, for 7 days. Use a new key for a new request, and the same body to ask for the first answer."),
    entry(Code::HeadersTooLarge, "headers_too_large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "A header is too large",
        "Shorten the header that the detail names."),
    entry(Code::Internal, "internal", StatusCode::INTERNAL_SERVER_ERROR, "The service failed",
        "This is a fault of the service. `instance` and X-Request-Id name the request; the service's log has the reason under it."),
    entry(Code::Overloaded, "overloaded", StatusCode::SERVICE_UNAVAILABLE, "The service has as much as it can take",
        "Nothing was changed. Wait as long as Retry-After says and send it again."),
    entry(Code::DatabaseUnavailable, "database_unavailable", StatusCode::SERVICE_UNAVAILABLE, "The database cannot be reached",
        "Nothing was changed. Wait as long as Retry-After says and send it again."),
    entry(Code::NotFresh, "not_fresh", StatusCode::SERVICE_UNAVAILABLE, "The answer cannot include that position yet",
        "`position` is what can be read now, `lag` how many events are missing. Wait as long as Retry-After says, or ask for a longer wait with `Prefer: wait=S`."),
    entry(Code::OutcomeUnknown, "outcome-unknown", StatusCode::SERVICE_UNAVAILABLE, "Whether the command took effect is not known",
        "The database's answer was lost. Send the same request with the same Idempotency-Key again: it takes effect once, whatever happened."),
    entry(Code::ErasureIncomplete, "erasure_incomplete", StatusCode::SERVICE_UNAVAILABLE, "The erasure is not written down outside the database",
        "The person is erased in the database, but the list of erasures outside it could not be written, so that the erasure could be lost with a restored backup. Send it again until it is answered 200."),
    entry(Code::ShuttingDown, "shutting_down", StatusCode::SERVICE_UNAVAILABLE, "This process is ending",
        "Nothing was changed. Send it again; another process, or this one after its restart, takes it."),
];

impl Code {
    /// Every code.
    pub fn all() -> impl Iterator<Item = Self> {
        CATALOGUE.iter().map(|entry| entry.code)
    }

    /// The code with this name; hyphens and underscores count as the same.
    pub fn find(name: &str) -> Option<Self> {
        let same = |entry: &&Entry| entry.name.replace('-', "_") == name.replace('-', "_");
        CATALOGUE.iter().find(same).map(|entry| entry.code)
    }

    /// Its name, as in `type`.
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// The status of its answers.
    pub fn status(self) -> StatusCode {
        self.entry().status
    }

    /// What it means in a few words.
    pub fn title(self) -> &'static str {
        self.entry().title
    }

    /// What to do about it.
    pub fn explanation(self) -> &'static str {
        self.entry().explanation
    }

    fn entry(self) -> &'static Entry {
        // The rows stand in the order of the variants; a test sees to it.
        &CATALOGUE[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_the_variants_and_names_are_unique() {
        for (index, row) in CATALOGUE.iter().enumerate() {
            assert_eq!(row.code as usize, index, "{}", row.name);
            assert_eq!(Code::find(row.name), Some(row.code));
        }
        assert_eq!(CATALOGUE.len(), Code::ShuttingDown as usize + 1);
        assert_eq!(Code::find("outcome_unknown"), Some(Code::OutcomeUnknown));
    }
}
