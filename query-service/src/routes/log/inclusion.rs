//! `GET /v1/log/proofs/inclusion`: an event is in the log that a head was signed over.

use axum::response::Response;
use deadpool_postgres::Object;
use event_store::StoredEvent;
use event_store::proof::document::ProvenEvent;
use event_store::proof::heads::keys;
use event_store::proof::path::{Node, inclusion};
use event_store::proof::stored::{EVERY_EPOCH, resolve};
use event_store::proof::{Hash, PublicKey, SignedHead};
use serde::Serialize;
use service_kit::auth::Permission;
use service_kit::problem::{Code, Problem};
use uuid::Uuid;

use super::super::{Parts, ReadHeaders, answer_tagged};
use super::{Answer, snapshot, tree};
use crate::freshness::Wanted;
use crate::parameters::Parameters;
use crate::problems::ReadError;
use crate::read::{BIND_TENANT, Question, Snapshot, tenant_text};
use crate::reads::ShownRecords;
use crate::replicas::Scope;

struct Inclusion {
    tenant: Uuid,
    position: i64,
    tree_size: Option<i64>,
}

#[derive(Serialize)]
struct Document {
    version: u32,
    position: i64,
    tree_size: u64,
    leaf_hash: Hash,
    path: Vec<Hash>,
    /// Null where no head of exactly this size is signed over this life of the log.
    head: Option<SignedHead>,
    /// The key that signed it, as the log says.
    public_key: Option<PublicKey>,
    /// Null where it is another tenant's.
    event: Option<ProvenEvent>,
}

impl Question for Inclusion {
    type Data = Answer<Document>;
    const SCOPE: Scope = Scope::Log;

    async fn ask(&self, client: &mut Object, _: i32) -> Result<Snapshot<Answer<Document>>, ReadError> {
        let (transaction, state) = snapshot(client).await?;
        let (tree_size, head) = match tree(&transaction, self.tree_size).await? {
            Ok(tree) => tree,
            Err(problem) => return Ok(Snapshot { state, data: Err(problem) }),
        };
        let index = u64::try_from(self.position - 1).unwrap_or(0);
        let Some(mut nodes) = inclusion(index, tree_size) else {
            let detail = format!("position {} is not among the {tree_size} events of the tree", self.position);
            return Ok(Snapshot { state, data: Err(Problem::new(Code::NotFound, detail)) });
        };
        nodes.insert(0, vec![Node { bits: 0, index }]);
        let mut hashes = resolve(&*transaction, &nodes, EVERY_EPOCH).await?;
        let path = hashes.split_off(1);
        let event = own_event(&transaction, self.tenant, self.position).await?;
        let public_key = match &head {
            Some(head) => {
                let known = keys(&*transaction).await?.into_iter().map(|known| known.key);
                known.into_iter().find(|key| key.id() == head.key_id)
            }
            None => None,
        };
        transaction.commit().await?;
        let document = Document {
            version: event_store::proof::document::VERSION,
            position: self.position,
            tree_size,
            leaf_hash: hashes[0],
            path,
            head,
            public_key,
            event,
        };
        Ok(Snapshot { state, data: Ok(document) })
    }
}

/// The event at a position, if it is the tenant's.
async fn own_event(
    transaction: &deadpool_postgres::Transaction<'_>,
    tenant: Uuid,
    position: i64,
) -> Result<Option<ProvenEvent>, ReadError> {
    const SQL: &str = "-- query_service::routes::log::inclusion::own_event
        SELECT e.position, e.tenant_id, e.aggregate_type, e.aggregate_id, e.sequence, e.event_id, e.event_type,
               e.event_version, e.payload, e.metadata, e.recorded_at
        FROM log.events AS e WHERE e.position = $1 AND e.tenant_id = $2 /* tenant */";
    let bind = transaction.prepare_cached(BIND_TENANT).await?;
    transaction.query(&bind, &[&tenant_text(tenant)]).await?;
    let statement = transaction.prepare_cached(SQL).await?;
    let row = transaction.query_opt(&statement, &[&position, &tenant]).await?;
    Ok(row.map(|row| StoredEvent::from_row(&row)).transpose()?.map(|event| ProvenEvent::of(&event)))
}

/// A proof that the event at a position is in the log.
#[utoipa::path(get, path = "/v1/log/proofs/inclusion", tag = "log",
    params(ReadHeaders, ("position" = i64, Query, description = "The event's position"),
        ("tree_size" = Option<i64>, Query, description = "How many events the tree is over; as many as the newest head covers where it is not given")),
    responses((status = 200, description = "position; tree_size; leaf_hash; path, from the leaf up; head, if one of this size is signed over this life of the log, and the public_key that signed it; event with everything that its leaf is made of, as it is stored, or null where it is another tenant's. `prospectus audit check` reads the answer as it is; docs/log-proofs.md says how to check it otherwise"),
        (status = 304, description = "If-None-Match has the answer's ETag"),
        (status = 403, description = "The key's role has no right to read proofs"),
        (status = 404, description = "No head covers that yet"), (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(in super::super) async fn get((service, principal, uri, headers): Parts) -> Result<Response, Problem> {
    principal.require(Permission::ReadEvents)?;
    let mut parameters = Parameters::parse(uri.query(), &["position", "tree_size"])?;
    let position = parameters.number("position", 1, i64::MAX);
    if parameters.text("position").is_none() {
        parameters.note_value("position", "is missing: the position of an event");
    }
    let tree_size = parameters.number("tree_size", 1, i64::MAX);
    let wanted = Wanted::parse(&headers, &mut parameters);
    parameters.check()?;
    let question = Inclusion { tenant: principal.tenant_id, position: position.unwrap_or(1), tree_size };
    let snapshot = service.replicas.read(&question, &wanted).await?;
    let document = snapshot.data?;
    let shown = ShownRecords::new(document.event.iter().map(|event| event.aggregate_id));
    let body = serde_json::to_vec(&document).expect("texts and numbers always serialise");
    Ok(shown.on(answer_tagged(body, &snapshot.state, &headers)))
}
