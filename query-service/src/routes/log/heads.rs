//! `GET /v1/log/heads`: the signed heads, newest first, and the public keys.

use axum::response::Response;
use deadpool_postgres::Object;
use event_store::proof::heads::{KnownKey, StoredHead, before, keys};
use event_store::proof::{PublicKey, SignedHead};
use serde::Serialize;
use service_kit::auth::Permission;
use service_kit::problem::{Code, Problem};

use super::super::{LIMIT_DEFAULT, LIMIT_MAX, Parts, ReadHeaders, answer_tagged};
use super::snapshot;
use crate::freshness::Wanted;
use crate::parameters::Parameters;
use crate::problems::ReadError;
use crate::read::{Question, Snapshot};
use crate::reads::ShownRecords;
use crate::record::instant_text;
use crate::replicas::Scope;

struct Heads {
    before: i64,
    limit: i64,
}

impl Question for Heads {
    type Data = Page;
    const SCOPE: Scope = Scope::Log;

    async fn ask(&self, client: &mut Object, _: i32) -> Result<Snapshot<Page>, ReadError> {
        let (transaction, state) = snapshot(client).await?;
        let heads = before(&*transaction, self.before, self.limit).await?;
        let keys = keys(&*transaction).await?;
        transaction.commit().await?;
        let more = usize::try_from(self.limit).is_ok_and(|limit| heads.len() >= limit);
        let next_cursor = heads.last().filter(|head| more && head.number > 1).map(|head| head.number.to_string());
        let items = heads.into_iter().map(Item::from).collect();
        Ok(Snapshot { state, data: Page { items, keys: keys.into_iter().map(Key::from).collect(), next_cursor } })
    }
}

#[derive(Serialize)]
struct Page {
    items: Vec<Item>,
    keys: Vec<Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct Item {
    number: i64,
    #[serde(flatten)]
    signed: SignedHead,
}

impl From<StoredHead> for Item {
    fn from(StoredHead { number, signed }: StoredHead) -> Self {
        Self { number, signed }
    }
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the answer's members")]
struct Key {
    key_id: String,
    public_key: PublicKey,
    created_at: String,
}

impl From<KnownKey> for Key {
    fn from(known: KnownKey) -> Self {
        Self { key_id: known.key.id(), public_key: known.key, created_at: instant_text(known.created_at) }
    }
}

/// The signed heads of the log, and the keys that signed them.
#[utoipa::path(get, path = "/v1/log/heads", tag = "log",
    params(ReadHeaders, ("limit" = Option<u16>, Query, description = "Heads on the page, at most 1000; 100 where it is not given"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, description = "`items`, newest first: number, log_id, epoch, tree_size, root_hash, time, key_id, signature; `keys`, all that ever signed: key_id, public_key, created_at; `next_cursor` where there may be more. Their form to the byte: docs/log-proofs.md"),
        (status = 304, description = "If-None-Match has the page's ETag"),
        (status = 403, description = "The key's role has no right to read heads"), (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(in super::super) async fn list((service, principal, uri, headers): Parts) -> Result<Response, Problem> {
    principal.require(Permission::ReadEvents)?;
    let mut parameters = Parameters::parse(uri.query(), &["limit", "cursor"])?;
    let most = i64::try_from(LIMIT_MAX).expect("a thousand");
    let limit = parameters.number("limit", 1, most).unwrap_or(i64::try_from(LIMIT_DEFAULT).expect("a hundred"));
    let cursor = parameters.text("cursor").map(|text| text.parse().ok().filter(|number| *number >= 1));
    if cursor == Some(None) {
        parameters.note(Code::InvalidCursor, "cursor", "send next_cursor exactly as it came");
    }
    let wanted = Wanted::parse(&headers, &mut parameters);
    parameters.check()?;
    let question = Heads { before: cursor.flatten().unwrap_or(i64::MAX), limit };
    let snapshot = service.replicas.read(&question, &wanted).await?;
    let body = serde_json::to_vec(&snapshot.data).expect("texts and numbers always serialise");
    Ok(ShownRecords::default().on(answer_tagged(body, &snapshot.state, &headers)))
}
