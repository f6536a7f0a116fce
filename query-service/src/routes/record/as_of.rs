//! A record as it was, in the shape that it has now.

use std::marker::PhantomData;

use axum::response::Response;
use http::{HeaderMap, Uri};
use service_kit::auth::{Permission, Principal};
use service_kit::problem::{Code, Problem};
use uuid::Uuid;

use super::{gone, moved};
use crate::Service;
use crate::freshness::Wanted;
use crate::past::as_of::{PARAMETERS, write};
use crate::past::{AsOf, Past, RecordAsOf, Then};
use crate::reads::ShownRecords;
use crate::record::instant_text;
use crate::routes::answer_tagged;

/// How a record is wanted.
pub(super) struct Asked<'a> {
    pub(super) id: Uuid,
    pub(super) as_of: AsOf,
    pub(super) include_deleted: bool,
    pub(super) fields: Option<&'a [bool]>,
    pub(super) wanted: Wanted,
}

/// Answers with the record as it was.
pub(super) async fn answer<R: Past>(
    service: &Service,
    principal: &Principal,
    mut asked: Asked<'_>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    // What a record was says what was taken out of it since: that is for those who may read its history.
    principal.require(Permission::ReadEvents)?;
    asked.wanted.position = asked.wanted.position.max(asked.as_of.position());
    let (keyring, tenant) = (&service.keyring, principal.tenant_id);
    let question = RecordAsOf::<R> { keyring, tenant, id: asked.id, as_of: asked.as_of, sort: PhantomData };
    let snapshot = service.replicas.read(&question, &asked.wanted).await?;
    let refuse = |problem: Problem| Err(snapshot.state.describe(problem));
    let there = match &snapshot.data {
        Then::There(there) => there,
        Then::Nothing => return refuse(Problem::not_found()),
        Then::Later(at, position) => {
            let detail = format!(
                "the record was not there yet then: it came into being at {} (position {position})",
                instant_text(*at)
            );
            return refuse(Problem::new(Code::NotFound, detail));
        }
        Then::NoSuchVersion(newest) => {
            let detail = format!("the record has no such version; its newest is {newest}");
            return refuse(Problem::new(Code::NotFound, detail).member("version", *newest));
        }
        Then::Future => {
            return refuse(Problem::new(
                Code::InvalidParameter,
                "as_of: lies in the future; nobody knows the record then",
            ));
        }
    };
    if !asked.include_deleted {
        if let Some(primary) = there.merged_into {
            // A version is this record's own: the other one is asked for at the same position.
            let query = match asked.as_of {
                AsOf::Version(_) => with_position(uri, there.position),
                AsOf::Time(_) | AsOf::Position(_) => uri.clone(),
            };
            return Ok(moved(&format!("{}/{primary}", R::PATH), &query, &snapshot.state));
        }
        if let Some(at) = there.deleted_at {
            return refuse(gone(at, there.erased_at));
        }
    }
    let body = write::<R>(&there.members, asked.fields);
    Ok(ShownRecords::new([asked.id]).on(answer_tagged(body, &snapshot.state, headers)))
}

/// The request with a position in the place of whatever said when.
fn with_position(uri: &Uri, position: i64) -> Uri {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let given = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    query.extend_pairs(given.filter(|(name, _)| !PARAMETERS.contains(&&**name)));
    query.append_pair("as_of_position", &position.to_string());
    format!("{}?{}", uri.path(), query.finish()).parse().unwrap_or_else(|_| uri.clone())
}
