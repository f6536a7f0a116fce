//! `GET /v1/log/proofs/consistency`: the log of a later head begins with that of an earlier one.

use axum::response::Response;
use deadpool_postgres::Object;
use event_store::proof::heads::lives;
use event_store::proof::path::consistency;
use event_store::proof::stored::{EVERY_EPOCH, resolve};
use event_store::proof::{Hash, SignedHead};
use serde::Serialize;
use service_kit::auth::Permission;
use service_kit::problem::{Code, Problem};

use super::super::{Parts, ReadHeaders, answer_tagged};
use super::{Answer, head_of, snapshot, tree};
use crate::freshness::Wanted;
use crate::parameters::Parameters;
use crate::problems::ReadError;
use crate::read::{Question, Snapshot};
use crate::reads::ShownRecords;
use crate::replicas::Scope;

struct Consistency {
    from: u64,
    to: Option<i64>,
}

#[derive(Serialize)]
struct Document {
    version: u32,
    from: u64,
    to: u64,
    path: Vec<Hash>,
    /// Null where no head of exactly this size is signed over this life of the log.
    head_from: Option<SignedHead>,
    /// Likewise.
    head_to: Option<SignedHead>,
}

impl Question for Consistency {
    type Data = Answer<Document>;
    const SCOPE: Scope = Scope::Log;

    async fn ask(&self, client: &mut Object, _: i32) -> Result<Snapshot<Answer<Document>>, ReadError> {
        let (transaction, state) = snapshot(client).await?;
        let (to, head_to) = match tree(&transaction, self.to).await? {
            Ok(tree) => tree,
            Err(problem) => return Ok(Snapshot { state, data: Err(problem) }),
        };
        let Some(nodes) = consistency(self.from, to) else {
            let detail = format!("the tree of {to} events does not begin with {}", self.from);
            return Ok(Snapshot { state, data: Err(Problem::new(Code::NotFound, detail)) });
        };
        let path = resolve(&*transaction, &nodes, EVERY_EPOCH).await?;
        let head_from = head_of(&transaction, self.from, &lives(&*transaction).await?).await?;
        transaction.commit().await?;
        let version = event_store::proof::document::VERSION;
        Ok(Snapshot { state, data: Ok(Document { version, from: self.from, to, path, head_from, head_to }) })
    }
}

/// A proof that the log only grew between two sizes.
#[utoipa::path(get, path = "/v1/log/proofs/consistency", tag = "log",
    params(ReadHeaders, ("from" = i64, Query, description = "The size of the earlier tree"),
        ("to" = Option<i64>, Query, description = "The size of the later one; as many events as the newest head covers where it is not given")),
    responses((status = 200, description = "from; to; path; head_from and head_to, where heads of these sizes are signed over this life of the log: one that was lost with its server is null. docs/log-proofs.md says how to check it"),
        (status = 304, description = "If-None-Match has the answer's ETag"),
        (status = 403, description = "The key's role has no right to read proofs"),
        (status = 404, description = "No head covers that yet"), (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(in super::super) async fn get((service, principal, uri, headers): Parts) -> Result<Response, Problem> {
    principal.require(Permission::ReadEvents)?;
    let mut parameters = Parameters::parse(uri.query(), &["from", "to"])?;
    let from = parameters.number("from", 1, i64::MAX);
    if parameters.text("from").is_none() {
        parameters.note_value("from", "is missing: the size of the earlier tree");
    }
    let to = parameters.number("to", 1, i64::MAX);
    let wanted = Wanted::parse(&headers, &mut parameters);
    parameters.check()?;
    let question = Consistency { from: from.and_then(|from| u64::try_from(from).ok()).unwrap_or(1), to };
    let snapshot = service.replicas.read(&question, &wanted).await?;
    let body = serde_json::to_vec(&snapshot.data?).expect("texts and numbers always serialise");
    Ok(ShownRecords::default().on(answer_tagged(body, &snapshot.state, &headers)))
}
