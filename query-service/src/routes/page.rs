//! One page of a list.

use axum::response::Response;
use deadpool_postgres::Object;
use event_store::json_text::JsonText;
use futures_util::join;
use http::{HeaderMap, Uri};
use service_kit::auth::{Permission, Principal};
use service_kit::problem::{Code, Problem};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};
use uuid::Uuid;

use super::{LIMIT_DEFAULT, LIMIT_MAX, answer_tagged};
use crate::Service;
use crate::freshness::Wanted;
use crate::list::Resource;
use crate::list::cursor::{Last, fingerprint};
use crate::list::filter::{Conditions, Value};
use crate::list::sort::Order;
use crate::list::statement::{STATEMENTS_MAX, Selection};
use crate::parameters::Parameters;
use crate::problems::ReadError;
use crate::read::{BIND_TENANT, Question, Snapshot, State, begin_bound, query_bounded, tenant_text};
use crate::reads::ShownRecords;
use crate::record::{Column, write_json, write_object};
use crate::replicas::Scope;

/// How many rows there are in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    None,
    Exact,
    Estimated,
}

/// A page as it is asked for.
struct Page {
    tenant: Uuid,
    selection: Selection,
    cursor: Vec<Value>,
    count: Count,
}

/// The rows of a page, one more if there is another page, and how many there are in all.
struct Found {
    rows: Vec<Row>,
    /// Whether there were more rows than a page's bytes hold.
    cut: bool,
    count: Option<i64>,
}

impl Question for Page {
    type Data = Found;
    const SCOPE: Scope = Scope::ReadTables;

    async fn ask(&self, client: &mut Object, generation: i32) -> Result<Snapshot<Found>, ReadError> {
        if client.statement_cache.size() > STATEMENTS_MAX {
            client.statement_cache.clear();
        }
        let bind = client.prepare_cached(BIND_TENANT).await?;
        let state = client.prepare_cached(STATE).await?;
        let sql = self.selection.page_sql(generation);
        let page =
            if self.selection.is_common() { client.prepare_cached(&sql).await? } else { client.prepare(&sql).await? };
        let counting = self.prepare_count(client, generation).await?;

        let tenant = tenant_text(self.tenant);
        let bind_values: [&(dyn ToSql + Sync); 1] = [&tenant];
        let companies = self.companies();
        let filters = || self.selection.conditions.values.iter().map(|value| &**value as &(dyn ToSql + Sync));
        let of_count: Vec<&(dyn ToSql + Sync)> = std::iter::once(&self.tenant as _).chain(filters()).collect();
        let cursor = self.cursor.iter().map(|value| &**value as &(dyn ToSql + Sync));
        let of_page: Vec<&(dyn ToSql + Sync)> = of_count.iter().copied().chain(cursor).collect();
        let state_values: [&(dyn ToSql + Sync); 2] = [&self.tenant, &companies];
        let count = async {
            match &counting {
                Some(statement) => Some(client.query(statement, &of_count).await),
                None => None,
            }
        };
        // Sent in one flush; one snapshot for all of them.
        let (begun, bound, state, rows, counted, ended) = join!(
            client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
            client.query(&bind, &bind_values),
            client.query(&state, &state_values),
            query_bounded(&***client, &page, &of_page),
            count,
            client.batch_execute("COMMIT"),
        );
        begun?;
        bound?;
        let state = State::from_row(state?.first().ok_or(ReadError::NoGeneration)?)?;
        let (rows, cut) = rows?;
        let counted = counted.transpose()?;
        ended?;
        let count = counted.as_deref().and_then(<[Row]>::first).map(|row| self.read_count(row)).transpose()?;
        Ok(Snapshot { state, data: Found { rows, cut, count } })
    }

    async fn ask_state(&self, client: &mut Object, _: i32) -> Result<State, ReadError> {
        state_of(client, self.tenant, self.companies()).await
    }
}

/// How far an answer would be that these companies' changes keep back, or all of the tenant's.
pub(super) async fn state_of(client: &Object, tenant: Uuid, companies: Option<Vec<Uuid>>) -> Result<State, ReadError> {
    let statement = client.prepare_cached(STATE).await?;
    let begin = begin_bound(tenant);
    let values: [&(dyn ToSql + Sync); 2] = [&tenant, &companies];
    let (begun, state, ended) =
        join!(client.batch_execute(&begin), client.query(&statement, &values), client.batch_execute("COMMIT"));
    begun?;
    let state = State::from_row(state?.first().ok_or(ReadError::NoGeneration)?)?;
    ended?;
    Ok(state)
}

/// How far the live generation is, and the least change of a company of the tenant's that has not reached all of its prospects'
/// rows: of any company, or of those that the list is narrowed to.
pub(super) const STATE: &str = "-- query_service::routes::page::state
    SELECT l.generation, c.position, c.epoch,
           (SELECT min(f.position) FROM read.fanout AS f
            WHERE f.projection = l.projection AND f.generation = l.generation AND f.tenant_id = $1 /* tenant */
              AND ($2::uuid[] /* companies */ IS NULL OR f.company_id = ANY($2))) AS queued
    FROM read.live AS l
    LEFT JOIN LATERAL (
        SELECT s.position, s.epoch FROM read.checkpoint_steps AS s
        WHERE s.projection = l.projection AND s.generation = l.generation ORDER BY s.step DESC LIMIT 1
    ) AS c ON true
    WHERE l.projection = 'company_prospect'";

impl Page {
    /// The companies whose changes, while they are carried out, keep the answer back: none for all of the tenant's.
    fn companies(&self) -> Option<Vec<Uuid>> {
        if self.selection.resource.fans_out { self.selection.conditions.companies.clone() } else { Some(Vec::new()) }
    }

    async fn prepare_count(&self, client: &Object, generation: i32) -> Result<Option<Statement>, ReadError> {
        let sql = match self.count {
            Count::None => return Ok(None),
            Count::Exact => self.selection.count_sql(generation),
            Count::Estimated => self.selection.estimate_sql(generation),
        };
        Ok(Some(client.prepare(&sql).await?))
    }

    fn read_count(&self, row: &Row) -> Result<i64, tokio_postgres::Error> {
        if self.count == Count::Exact {
            return row.try_get(0);
        }
        let JsonText(plan) = row.try_get(0)?;
        let plan: serde_json::Value = serde_json::from_str(plan).unwrap_or_default();
        Ok(plan.pointer("/0/Plan/Plan Rows").and_then(serde_json::Value::as_i64).unwrap_or(0))
    }
}

/// Parameters of every list beside its filters.
const PARAMETERS: &[&str] = &["sort", "limit", "cursor", "fields", "count", "include_deleted"];

/// Answers `GET <path>`.
pub(super) async fn answer(
    resource: &'static Resource,
    service: &Service,
    principal: &Principal,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    principal.require(Permission::ReadRecords)?;
    let allowed: Vec<&str> =
        resource.filters.iter().map(|filter| filter.name).chain(PARAMETERS.iter().copied()).collect();
    let mut parameters = Parameters::parse(uri.query(), &allowed)?;
    let wanted = Wanted::parse(headers, &mut parameters);
    let fields = parameters.fields(resource.columns);
    let bound_to = bound_to(resource, &parameters, principal.tenant_id);
    let page = parse(resource, &mut parameters, principal.tenant_id, &bound_to);
    parameters.check()?;
    // Only what was noted keeps a page from being one.
    let page = page.ok_or_else(Problem::internal)?;
    let mut snapshot = service.replicas.read(&page, &wanted).await?;
    let more = snapshot.data.cut || snapshot.data.rows.len() > page.selection.limit;
    snapshot.data.rows.truncate(page.selection.limit);
    let body = write(resource, &snapshot.data, fields.as_deref(), more, &bound_to)
        .map_err(|error| ReadError::from(error).into_problem())?;
    let shown = shown(resource, &snapshot.data.rows).map_err(|error| ReadError::from(error).into_problem())?;
    Ok(shown.on(answer_tagged(body, &snapshot.state, headers)))
}

/// The records that a page shows: the ids that its rows begin with.
fn shown(resource: &Resource, rows: &[Row]) -> Result<ShownRecords, tokio_postgres::Error> {
    let ids = |column: &&Column| ["company_id", "prospect_id"].contains(&column.name);
    let places = resource.columns.iter().take_while(ids).count();
    let mut shown = Vec::with_capacity(rows.len() * places);
    for row in rows {
        for place in 0..places {
            shown.extend(row.try_get::<_, Option<Uuid>>(place)?);
        }
    }
    Ok(ShownRecords::new(shown))
}

/// What a cursor of this list is bound to: everything that says which rows there are and in which order.
fn bound_to(resource: &Resource, parameters: &Parameters, tenant: Uuid) -> String {
    let tenant = tenant_text(tenant);
    let mut parts = vec![resource.path, &tenant];
    for name in resource.filters.iter().map(|filter| filter.name).chain(["sort", "include_deleted"]) {
        if let Some(value) = parameters.text(name) {
            parts.extend([name, value]);
        }
    }
    fingerprint(&parts)
}

/// The page that is asked for; none only where something was noted.
fn parse(resource: &'static Resource, parameters: &mut Parameters, tenant: Uuid, bound_to: &str) -> Option<Page> {
    let most = i64::try_from(LIMIT_MAX).expect("a thousand");
    let limit = parameters.number("limit", 1, most).and_then(|limit| usize::try_from(limit).ok());
    let count = match parameters.text("count") {
        None => Count::None,
        Some("exact") => Count::Exact,
        Some("estimated") => Count::Estimated,
        Some(_) => {
            parameters.note_value("count", "must be exact or estimated");
            Count::None
        }
    };
    let conditions = Conditions::parse(resource.filters, parameters);
    let include_deleted = parameters.flag("include_deleted");
    let order = Order::parse(resource.sorts, parameters);
    let after = parameters.text("cursor").map(|text| Last::decode(text, bound_to)).transpose();
    let after = after.map_err(|invalid| parameters.note(Code::InvalidCursor, "cursor", invalid.detail)).ok()?;
    let selection = Selection {
        resource,
        conditions,
        order: order?,
        include_deleted,
        limit: limit.unwrap_or(LIMIT_DEFAULT),
        after,
    };
    let cursor = selection.cursor_values();
    let cursor = cursor.map_err(|invalid| parameters.note(Code::InvalidCursor, "cursor", invalid.detail)).ok()?;
    Some(Page { tenant, selection, cursor, count })
}

fn write(
    resource: &Resource,
    data: &Found,
    fields: Option<&[bool]>,
    more: bool,
    bound_to: &str,
) -> Result<Vec<u8>, tokio_postgres::Error> {
    let mut body = Vec::with_capacity(32 + data.rows.len() * 1024);
    body.extend_from_slice(b"{\"items\":[");
    for (place, row) in data.rows.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        write_object(&mut body, row, 0, resource.columns, fields)?;
    }
    body.push(b']');
    if let Some(last) = data.rows.last().filter(|_| more) {
        body.extend_from_slice(b",\"next_cursor\":");
        write_json(&mut body, &Last::from_row(last)?.encode(bound_to));
    }
    if let Some(count) = data.count {
        body.extend_from_slice(b",\"count\":");
        write_json(&mut body, &count);
    }
    body.push(b'}');
    Ok(body)
}
