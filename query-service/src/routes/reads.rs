//! `GET /v1/reads`: who was shown which records, as far as the tenant asks for it to be noted.

use axum::response::Response;
use deadpool_postgres::Object;
use serde_json::{Value, json};
use service_kit::auth::Permission;
use service_kit::problem::Problem;
use time::OffsetDateTime;
use tokio_postgres::IsolationLevel;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{LIMIT_DEFAULT, LIMIT_MAX, Parts, ReadHeaders, answer_tagged};
use crate::freshness::Wanted;
use crate::parameters::Parameters;
use crate::problems::ReadError;
use crate::read::{BIND_TENANT, Question, Snapshot, State, query_bounded, tenant_text};
use crate::reads::ShownRecords;
use crate::record::instant_text;
use crate::replicas::Scope;
use crate::routes::events::parse_cursor;

struct Reads {
    tenant: Uuid,
    /// Only notes that name this record.
    record: Option<Uuid>,
    after: i64,
    limit: i64,
}

/// Notes as they are shown, and where the next page goes on, if there is one.
type Page = (Vec<Value>, Option<i64>);

impl Question for Reads {
    type Data = Page;
    const SCOPE: Scope = Scope::Log;

    async fn ask(&self, client: &mut Object, _: i32) -> Result<Snapshot<Page>, ReadError> {
        const SQL: &str = "-- query_service::routes::reads
            SELECT r.position, r.read_at, r.api_key, r.actor_role, r.endpoint, r.request_id, r.client_address, r.record_ids
            FROM log.reads AS r
            WHERE r.tenant_id = $1 /* tenant */ AND r.position > $2 /* after */ ORDER BY r.position LIMIT $3";
        const OF_RECORD: &str = "-- query_service::routes::reads, of a record
            SELECT r.position, r.read_at, r.api_key, r.actor_role, r.endpoint, r.request_id, r.client_address, r.record_ids
            FROM log.reads_of($1 /* record */, $2 /* after */, $3) AS r";
        let transaction =
            client.build_transaction().read_only(true).isolation_level(IsolationLevel::RepeatableRead).start().await?;
        let bind = transaction.prepare_cached(BIND_TENANT).await?;
        transaction.query(&bind, &[&tenant_text(self.tenant)]).await?;
        let state = State::of_log(&transaction).await?;
        let (sql, of): (_, &(dyn ToSql + Sync)) = match &self.record {
            Some(record) => (OF_RECORD, record),
            None => (SQL, &self.tenant),
        };
        let statement = transaction.prepare_cached(sql).await?;
        let values: [&(dyn ToSql + Sync); 3] = [of, &self.after, &self.limit];
        let (rows, cut) = query_bounded(&*transaction, &statement, &values).await?;
        transaction.commit().await?;
        let mut items = Vec::with_capacity(rows.len());
        let mut last = None;
        for row in &rows {
            last = Some(row.try_get(0)?);
            items.push(json!({
                "position": last, "read_at": instant_text(row.try_get::<_, OffsetDateTime>(1)?),
                "key": row.try_get::<_, &str>(2)?, "actor_role": row.try_get::<_, &str>(3)?,
                "endpoint": row.try_get::<_, &str>(4)?, "request_id": row.try_get::<_, Uuid>(5)?,
                "client_address": row.try_get::<_, &str>(6)?, "record_ids": row.try_get::<_, Vec<Uuid>>(7)?,
            }));
        }
        let more = cut || usize::try_from(self.limit).is_ok_and(|limit| rows.len() >= limit);
        Ok(Snapshot { state, data: (items, last.filter(|_| more)) })
    }
}

/// Who was shown which records: noted while the tenant asks for it (`prospectus tenants set NAME --audit-reads on`), before the answer is
/// given. Noted on the primary and read from a replica, so the newest ones may take a moment.
#[utoipa::path(get, path = "/v1/reads", tag = "log",
    params(ReadHeaders, ("after" = Option<i64>, Query, description = "Notes after this position, which is of the notes, not of the log; 0 where it is not given"),
        ("limit" = Option<u16>, Query, description = "Notes on the page, at most 1000; 100 where it is not given"),
        ("record_id" = Option<Uuid>, Query, description = "Only notes that name this company or prospect: who looked at it"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before, instead of `after`")),
    responses((status = 200, description = "`items`, newest last: position, read_at, key (the prefix of the API key), actor_role, endpoint (the path, without ids), request_id, client_address, record_ids; `next_cursor` where the page is full"),
        (status = 304, description = "If-None-Match has the page's ETag"),
        (status = 403, description = "The key's role has no right to read histories and events"), (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(super) async fn list((service, principal, uri, headers): Parts) -> Result<Response, Problem> {
    principal.require(Permission::ReadEvents)?;
    let mut parameters = Parameters::parse(uri.query(), &["after", "limit", "record_id", "cursor"])?;
    let most = i64::try_from(LIMIT_MAX).expect("a thousand");
    let limit = parameters.number("limit", 1, most).unwrap_or(i64::try_from(LIMIT_DEFAULT).expect("a hundred"));
    let after = parameters.number("after", 0, i64::MAX);
    let cursor = parse_cursor(&mut parameters);
    if after.is_some() && cursor.is_some() {
        parameters.note_value("cursor", "and `after` say the same; send one of them");
    }
    let record = parameters.text("record_id").map(Uuid::try_parse);
    if matches!(record, Some(Err(_))) {
        parameters.note_value("record_id", "must be the id of a company or prospect");
    }
    let wanted = Wanted::parse(&headers, &mut parameters);
    parameters.check()?;
    let record = record.and_then(Result::ok);
    let question = Reads { tenant: principal.tenant_id, record, after: cursor.or(after).unwrap_or(0), limit };
    let Snapshot { state, data: (items, next) } = service.replicas.read(&question, &wanted).await?;
    let mut page = json!({ "items": items });
    if let Some(next) = next {
        page["next_cursor"] = next.to_string().into();
    }
    Ok(ShownRecords::default().on(answer_tagged(page.to_string().into_bytes(), &state, &headers)))
}
