//! The one mapping from what can go wrong with a command to what the client is told.

use domain::{CompanyError, FieldErrors, ImportError, ProspectError};
use event_store::append::Refused;
use event_store::executor::ExecuteError;
use service_kit::problem::{Code, FieldProblem, Problem};
use uuid::Uuid;

/// How long a client should wait before it asks an overloaded or stopping service again, in seconds.
const RETRY_SECONDS: u32 = 1;

/// All wrong fields of a request.
pub fn field_errors(FieldErrors(errors): FieldErrors) -> Problem {
    let errors: Vec<FieldProblem> = errors
        .into_iter()
        .map(|error| FieldProblem { pointer: error.pointer, code: error.code.to_owned(), detail: error.detail })
        .collect();
    let count = errors.len();
    let detail = if count == 1 { "one field is wrong".to_owned() } else { format!("{count} fields are wrong") };
    Problem::new(Code::InvalidFields, detail).errors(errors)
}

/// Why a company refuses.
pub fn company_error(error: CompanyError) -> Problem {
    match error {
        CompanyError::NotFound => Problem::not_found(),
        CompanyError::SocialMediaNotFound => Problem::new(Code::NotFound, "the company has no such social media entry"),
        CompanyError::Deleted => deleted("company"),
        CompanyError::Primary { id, why } => primary_of_unmerge(id, *why),
        CompanyError::Merged { into } => {
            let detail = format!("the company was merged into {into}; ask that one");
            Problem::new(Code::Merged, detail).member("merged_into", into.to_string())
        }
        CompanyError::ChangedSinceMerge(fields) => {
            let changed = |field: &'static str| FieldProblem {
                pointer: format!("/{field}"),
                code: "changed_since_merge".to_owned(),
                detail: "was changed since the merge, which would be lost".to_owned(),
            };
            let detail = "the merge cannot be undone: fields that it filled were changed since";
            Problem::new(Code::Conflict, detail).errors(fields.into_iter().map(changed).collect())
        }
        CompanyError::NotInReview => Problem::new(
            Code::NotInReview,
            "the company is not in review: it looked like no other one, or that was decided already",
        ),
        CompanyError::AlreadyRegistered => Problem::new(Code::Conflict, "the company is registered already"),
        CompanyError::Fields(errors) => field_errors(errors),
    }
}

/// Why the company `id` cannot be merged into `primary`; `end` is the company that stands for that one, if it was merged itself.
pub fn primary_of_merge(id: Uuid, primary: Uuid, end: Option<Uuid>, why: CompanyError) -> Problem {
    match (why, end) {
        (CompanyError::Merged { .. }, Some(end)) if end == id => {
            let detail = format!("the company {primary} was merged into this one; unmerge it first");
            Problem::new(Code::Conflict, detail)
        }
        (CompanyError::Merged { .. }, Some(end)) => {
            let detail = format!("the company {primary} was merged into {end}; merge into that one");
            Problem::new(Code::Merged, detail).member("merged_into", end.to_string())
        }
        (CompanyError::Deleted, _) => Problem::new(
            Code::Deleted,
            format!("the company {primary} is deleted; restore it first, or merge into another"),
        ),
        (CompanyError::NotFound, _) => {
            let error = FieldProblem {
                pointer: "/into".to_owned(),
                code: "no_such_company".to_owned(),
                detail: "must be the id of a company that is there".to_owned(),
            };
            Problem::new(Code::InvalidFields, format!("there is no company {primary}")).errors(vec![error])
        }
        (why, _) => company_error(why),
    }
}

/// Why a company cannot be taken out of `primary`.
pub fn primary_of_unmerge(primary: Uuid, why: CompanyError) -> Problem {
    match why {
        CompanyError::Merged { into } => {
            let detail =
                format!("the company {primary}, into which it was merged, was merged into {into}; unmerge that first");
            Problem::new(Code::Conflict, detail).member("unmerge_first", primary.to_string())
        }
        CompanyError::Deleted => {
            let detail = format!("the company {primary}, into which it was merged, is deleted; restore that first");
            Problem::new(Code::Deleted, detail).member("restore_first", primary.to_string())
        }
        why => company_error(why),
    }
}

/// Why a prospect refuses.
pub fn prospect_error(error: ProspectError) -> Problem {
    match error {
        ProspectError::NotFound => Problem::not_found(),
        ProspectError::Deleted => deleted("prospect"),
        ProspectError::Erased => {
            Problem::new(Code::Erased, "the person was erased: the record takes no changes and cannot be restored")
        }
        ProspectError::NotInReview { company_id: Some(company_id) } => {
            let detail = format!(
                "the prospect is not in review: it has company {company_id}; POST /v1/prospects/{{id}}/assign gives it another one"
            );
            Problem::new(Code::NotInReview, detail).member("company_id", company_id.to_string())
        }
        ProspectError::NotInReview { company_id: None } => Problem::new(
            Code::NotInReview,
            "the prospect is not in review: it was left alone; POST /v1/prospects/{id}/assign still gives it a company",
        ),
        ProspectError::AlreadyRegistered => Problem::new(Code::Conflict, "the prospect is registered already"),
        ProspectError::Fields(errors) => field_errors(errors),
    }
}

/// A resolution that the record in review does not take.
pub fn not_for_this_record(what: &str, instead: &str) -> Problem {
    let error = FieldProblem {
        pointer: String::new(),
        code: "other_resolution".to_owned(),
        detail: format!("the review is about a {what}: {instead} resolves it"),
    };
    Problem::new(Code::InvalidFields, format!("a {what} in review takes {instead}")).errors(vec![error])
}

/// Why the company that a resolution asks for cannot be made.
pub fn of_create(error: CompanyError) -> Problem {
    match error {
        CompanyError::Fields(FieldErrors(mut errors)) => {
            for error in &mut errors {
                error.pointer.insert_str(0, "/create");
            }
            field_errors(FieldErrors(errors))
        }
        error => company_error(error),
    }
}

/// Why a prospect in review cannot be assigned to `company_id`.
pub fn to_assign(company_id: Uuid, why: &CompanyError) -> Problem {
    match why {
        CompanyError::Merged { into } => {
            let detail = format!("the company {company_id} was merged into {into}; assign to that one");
            Problem::new(Code::Merged, detail).member("merged_into", into.to_string())
        }
        CompanyError::Deleted => Problem::new(
            Code::Deleted,
            format!("the company {company_id} is deleted; restore it first, or assign to another"),
        ),
        _ => {
            let error = FieldProblem {
                pointer: "/assign/company_id".to_owned(),
                code: "no_such_company".to_owned(),
                detail: "must be the id of a company that is there".to_owned(),
            };
            Problem::new(Code::InvalidFields, format!("there is no company {company_id}")).errors(vec![error])
        }
    }
}

/// Why an import refuses.
#[expect(clippy::needless_pass_by_value, reason = "as those of the other records, which take theirs apart")]
pub fn import_error(error: ImportError) -> Problem {
    match error {
        ImportError::NotFound => Problem::not_found(),
        ImportError::NotNow(state) => {
            let detail = format!("the import is {}: only one that has run to its end can be taken back", state.name());
            Problem::new(Code::Conflict, detail).member("state", state.name())
        }
        ImportError::OtherChunk(_) => Problem::new(Code::Conflict, "another process works on the import"),
        ImportError::DryRun => Problem::new(Code::Conflict, "a dry run has written nothing that could be taken back"),
    }
}

/// Why a record could not be loaded.
pub fn load_error(error: event_store::load::LoadError) -> Problem {
    not_carried_out(ExecuteError::<CompanyError>::Load(error), company_error)
}

fn deleted(what: &str) -> Problem {
    Problem::new(Code::Deleted, format!("the {what} is deleted; restore it first"))
}

/// Why a command was not carried out. `of_record` says why the record refuses.
pub fn not_carried_out<E: std::error::Error>(error: ExecuteError<E>, of_record: impl Fn(E) -> Problem) -> Problem {
    match error {
        ExecuteError::Domain(error) => of_record(error),
        ExecuteError::Precondition(version) => Problem::new(
            Code::PreconditionFailed,
            format!("the record is at version {version}; read it and decide again"),
        )
        .member("version", version),
        ExecuteError::Refused(refused) => refusal(&refused),
        ExecuteError::Load(error @ event_store::load::LoadError::Unavailable(_)) => {
            tracing::warn!(%error, "a command's record could not be loaded");
            unavailable()
        }
        ExecuteError::Load(error) => broken(&error),
        ExecuteError::Key(error) => broken(&error),
    }
}

/// A person is erased, and the list outside the database does not say so.
pub fn incomplete(error: &crate::erasures::KeepError) -> Problem {
    tracing::error!(%error, "an erasure could not be written down outside the database");
    let detail =
        "the person is erased in the database, but the list of erasures outside it could not be written; send it again";
    Problem::new(Code::ErasureIncomplete, detail).retry_after(RETRY_SECONDS)
}

fn refusal(refused: &Refused) -> Problem {
    match refused {
        Refused::ClaimTaken { kind, holder } => claim_taken(kind, *holder),
        Refused::ClaimMissing { aggregate_id, .. } => {
            let detail = format!("there is no live company {aggregate_id}");
            let error = FieldProblem {
                pointer: "/company_id".to_owned(),
                code: "no_such_company".to_owned(),
                detail: "must be the id of a company that is there, not deleted and not merged into another".to_owned(),
            };
            Problem::new(Code::InvalidFields, detail).errors(vec![error])
        }
        Refused::ErasedPerson => {
            let error = FieldProblem {
                pointer: "/email".to_owned(),
                code: "erased_person".to_owned(),
                detail: "is the address of a person who was erased".to_owned(),
            };
            let detail =
                "a person with this e-mail address was erased, and this tenant does not take erased persons in again";
            Problem::new(Code::ErasedPerson, detail).errors(vec![error])
        }
        Refused::KeyReused => Problem::new(
            Code::IdempotencyKeyReused,
            "this Idempotency-Key was used with another request; take a new one",
        ),
        Refused::Conflict | Refused::NoReceipt | Refused::Overloaded => {
            Problem::new(Code::Overloaded, "too many commands are waiting; nothing was changed, try again")
                .retry_after(RETRY_SECONDS)
        }
        Refused::Stopping => {
            Problem::new(Code::ShuttingDown, "the service is stopping; nothing was changed, try again")
                .retry_after(RETRY_SECONDS)
        }
        Refused::Unavailable => unavailable(),
        Refused::OutcomeUnknown => Problem::new(
            Code::OutcomeUnknown,
            "the database did not say whether the command was carried out; send it again with the same Idempotency-Key",
        )
        .retry_after(RETRY_SECONDS),
        Refused::Broken(_) => broken(refused),
    }
}

fn claim_taken(kind: &str, holder: Uuid) -> Problem {
    let what = match kind {
        "domain" => "domain",
        "company_ref" | "prospect_ref" => "external reference",
        // Who was imported again while it was deleted.
        "person" => "e-mail address at the same company",
        _ => "value",
    };
    let detail = match kind {
        "person" => format!(
            "the {what} belongs to prospect {holder}, who was imported meanwhile: go on with that one, or give it another address or delete it first"
        ),
        _ => format!("the {what} belongs to {holder}"),
    };
    Problem::new(Code::ClaimTaken, detail).member("claimed_by", holder.to_string())
}

fn unavailable() -> Problem {
    Problem::new(Code::DatabaseUnavailable, "the database cannot be reached; nothing was changed, try again")
        .retry_after(RETRY_SECONDS)
}

/// What only we can mend: logged here, in the request's span and so under its id, and not told.
fn broken(error: &dyn std::error::Error) -> Problem {
    tracing::error!(%error, "a command met something broken");
    Problem::internal()
}
