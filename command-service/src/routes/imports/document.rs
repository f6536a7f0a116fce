//! An import as clients see it.

use domain::Import;
use domain::import::ImportState;
use event_store::load::Loaded;
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

/// An import.
#[derive(Serialize, ToSchema)]
pub(in crate::routes) struct ImportDocument {
    /// The import.
    id: Uuid,
    /// `receiving`, `running`, `done`, `failed` or `undone`; while it is taken back, `running`.
    state: String,
    /// Whether nothing is written.
    dry_run: bool,
    /// The name of the list's source.
    source: String,
    /// The built-in mapping that was asked for.
    mapping: Option<String>,
    /// The mapping itself, to be saved and corrected; while the bytes are kept.
    mapping_toml: Option<String>,
    /// Rows: read is the sum of created, updated, unchanged, in review and refused; total, once all bytes are there.
    rows: Rows,
    /// Companies, each counted once.
    companies: Records,
    /// Prospects, each counted once.
    prospects: Records,
    /// Position of the last event that it led to: reads with this least position see all of it.
    position: i64,
    /// When its bytes began to come in.
    started_at: String,
    /// When it came to its end.
    finished_at: Option<String>,
    /// Why it failed.
    error: Option<Failure>,
    /// What taking it back did.
    undo: Option<Undo>,
}

#[derive(Serialize, ToSchema)]
struct Rows {
    read: u64,
    created: u64,
    updated: u64,
    unchanged: u64,
    in_review: u64,
    refused: u64,
    total: Option<u64>,
}

#[derive(Serialize, ToSchema)]
struct Records {
    created: u64,
    updated: u64,
    unchanged: u64,
}

#[derive(Serialize, ToSchema)]
struct Failure {
    code: String,
    detail: String,
}

#[derive(Serialize, ToSchema)]
struct Undo {
    companies: u64,
    prospects: u64,
    left: u64,
}

/// Imports.
#[derive(Serialize, ToSchema)]
pub(in crate::routes) struct ImportList {
    items: Vec<ImportDocument>,
}

/// Records that were left.
#[derive(Serialize, ToSchema)]
pub(in crate::routes) struct LeftList {
    items: Vec<LeftRecord>,
}

#[derive(Serialize, ToSchema)]
struct LeftRecord {
    /// company or prospect
    kind: String,
    id: Uuid,
    /// `changed_since`, or `claim_taken` where another record has what it had
    reason: String,
}

/// The document of an import that is there.
pub(super) fn of(id: Uuid, import: &Loaded<Import>) -> Value {
    let import = &import.state;
    let tally = &import.tally;
    let opened = import.opened.as_ref();
    let [rows_total, started_at] = [
        import.received.as_ref().map_or(Value::Null, |received| received.rows.into()),
        opened.map_or(Value::Null, |opened| time_of(opened.at)),
    ];
    let records = |[created, updated, unchanged]: [u64; 3]| json!({ "created": created, "updated": updated, "unchanged": unchanged });
    let mut document = json!({
        "id": id,
        "state": import.state.name(),
        "dry_run": import.is_dry_run(),
        "source": opened.map(|opened| opened.source.as_str()),
        "mapping": opened.and_then(|opened| opened.mapping.as_deref()),
        "rows": {
            "read": tally.read, "created": tally.created, "updated": tally.updated, "unchanged": tally.unchanged,
            "in_review": tally.in_review, "refused": tally.refused, "total": rows_total,
        },
        "companies": records(tally.companies),
        "prospects": records(tally.prospects),
        "position": import.position,
        "started_at": started_at,
        "finished_at": import.ended_at.map(time_of),
    });
    if let Some(failed) = import.failed.as_ref().filter(|_| import.state == ImportState::Failed) {
        document["error"] = json!({ "code": failed.code, "detail": failed.detail });
    }
    if let Some(undone) = &import.undone {
        document["undo"] = json!({ "companies": undone.companies, "prospects": undone.prospects, "left": undone.left });
        document["finished_at"] = time_of(undone.at);
    }
    document
}

fn time_of(at: OffsetDateTime) -> Value {
    at.format(&Rfc3339).map_or(Value::Null, Value::from)
}
