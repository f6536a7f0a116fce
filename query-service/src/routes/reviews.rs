//! `GET /v1/reviews`

use axum::response::Response;
use deadpool_postgres::Object;
use futures_util::join;
use serde_json::json;
use service_kit::auth::Permission;
use service_kit::problem::{Code, Problem};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::page::{STATE, state_of};
use super::{Parts, ReadHeaders, answer_tagged};
use crate::freshness::Wanted;
use crate::list::cursor::{Key, Last, fingerprint};
use crate::parameters::Parameters;
use crate::problems::ReadError;
use crate::read::{BIND_TENANT, Question, Snapshot, State, query_bounded, tenant_text};
use crate::reads::ShownRecords;
use crate::record::{instant_text, write_json, write_object};
use crate::replicas::Scope;
use crate::reviews::{self, Item, Kind, Selection, add_candidates, candidates_sql, first_of};

/// Items on a page where the request does not say, and at most: for each, candidates are looked for.
const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 100;

/// A page as it is asked for.
struct Page {
    tenant: Uuid,
    selection: Selection,
    counted: bool,
}

/// The reviews of a page, whether there are more, and how many there are in all.
struct Found {
    items: Vec<Item>,
    more: bool,
    count: Option<i64>,
}

impl Question for Page {
    type Data = Found;
    const SCOPE: Scope = Scope::ReadTables;

    async fn ask(&self, client: &mut Object, generation: i32) -> Result<Snapshot<Found>, ReadError> {
        let asked = self.ask_in_transaction(client, generation).await;
        if asked.is_err() {
            // Whether it was begun, and how far it came, is not told apart; outside of a transaction this is a warning.
            let _ = client.batch_execute("ROLLBACK").await;
        }
        asked
    }

    async fn ask_state(&self, client: &mut Object, _: i32) -> Result<State, ReadError> {
        state_of(client, self.tenant, None).await
    }
}

impl Page {
    async fn ask_in_transaction(&self, client: &Object, generation: i32) -> Result<Snapshot<Found>, ReadError> {
        let Self { tenant, selection, counted } = self;
        let schema = migrations::schema_name(generation);
        let bind = client.prepare_cached(BIND_TENANT).await?;
        let state = client.prepare_cached(STATE).await?;
        let of_candidates = client.prepare_cached(&candidates_sql(&schema)).await?;
        // A page of another length than usual is not worth keeping prepared.
        let prepare = async |sql: String| match selection.limit {
            LIMIT_DEFAULT => client.prepare_cached(&sql).await,
            _ => client.prepare(&sql).await,
        };
        let of_prospects = prepare(selection.prospects_sql(&schema)).await?;
        let of_companies = prepare(selection.companies_sql(&schema)).await?;
        let of_count = client.prepare_cached(&selection.count_sql(&schema)).await?;

        let tenant_setting = tenant_text(*tenant);
        let bind_values: [&(dyn ToSql + Sync); 1] = [&tenant_setting];
        let state_values: [&(dyn ToSql + Sync); 2] = [tenant, &None::<Vec<Uuid>>];
        let company_values: [&(dyn ToSql + Sync); 2] = [tenant, &selection.after];
        let reason = selection.prospects_reason();
        let of_reason = reason.iter().map(|reason| reason as &(dyn ToSql + Sync));
        let prospect_values: Vec<_> = company_values.iter().copied().chain(of_reason.clone()).collect();
        let count_values: Vec<_> = company_values[..1].iter().copied().chain(of_reason).collect();
        let prospects = async {
            if selection.has_prospects() {
                query_bounded(&***client, &of_prospects, &prospect_values).await
            } else {
                Ok((Vec::new(), false))
            }
        };
        let companies = async {
            if selection.has_companies() {
                query_bounded(&***client, &of_companies, &company_values).await
            } else {
                Ok((Vec::new(), false))
            }
        };
        let count = async {
            if !counted {
                return Ok(None);
            }
            client.query_one(&of_count, &count_values).await?.try_get(0).map(Some)
        };
        // Sent in one flush; one snapshot for all of them.
        let (begun, bound, state, prospects, companies, count) = join!(
            client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
            client.query(&bind, &bind_values),
            client.query(&state, &state_values),
            prospects,
            companies,
            count,
        );
        begun?;
        bound?;
        let state = State::from_row(state?.first().ok_or(ReadError::NoGeneration)?)?;
        let ((prospects, prospects_cut), (companies, companies_cut), count) = (prospects?, companies?, count?);
        let cut = |cut: bool, rows: usize| cut || rows > selection.limit;
        let prospects_cut = cut(prospects_cut, prospects.len());
        let companies_cut = cut(companies_cut, companies.len());
        let prospects = prospects.into_iter().map(Item::of_prospect).collect::<Result<Vec<_>, _>>()?;
        let companies = companies.into_iter().map(Item::of_company).collect::<Result<Vec<_>, _>>()?;
        let (mut items, more) = first_of([(prospects, prospects_cut), (companies, companies_cut)], selection.limit);

        let wanted = reviews::Wanted::of(&items);
        let values: [&(dyn ToSql + Sync); 6] =
            [tenant, &wanted.name_keys, &wanted.countries, &wanted.themselves, &wanted.email_domains, &wanted.labels];
        let (found, ended) = join!(client.query(&of_candidates, &values), client.batch_execute("COMMIT"));
        add_candidates(&mut items, &found?)?;
        ended?;
        Ok(Snapshot { state, data: Found { items, more, count } })
    }
}

/// What someone should decide on: prospects without a company, and companies that look like another one.
#[utoipa::path(get, path = "/v1/reviews", tag = "reviews",
    params(ReadHeaders,
        ("kind" = Option<String>, Query, description = "Only reviews of this sort of record: prospect or company"),
        ("reason" = Option<String>, Query, description = "Only reviews with this reason: no_company, name_only (an import knew the company by its name alone), suspicious_domain, company_deleted (the prospect's company, not the prospect), looks_like (a company with the name of another one in the same country)"),
        ("limit" = Option<u16>, Query, description = "Items on the page, at most 100; 20 where it is not given. A page of large records has fewer"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
        ("count" = Option<String>, Query, description = "exact: adds `count`")),
    responses((status = 200, description = "`items` in the order of their ids, and `next_cursor` where there are more. Each has `id` (the record's, for POST /v1/reviews/{id}/resolve), `kind`, `reason`, `since`, `record` (as its GET shows it), `hint` {name, country, host} where an import said something of the company, `looks_like_company_id` for a company, and at most five `candidates`, best first: {company_id, name, domain, country, similarity (0 to 1), reasons: same_name or similar_name, with it same_country; email_domain; same_domain_label}"),
        (status = 304, description = "If-None-Match has the page's ETag"), (status = 400, description = "A parameter is unknown or wrong, or the cursor is of another list"),
        (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(super) async fn list((service, principal, uri, headers): Parts) -> Result<Response, Problem> {
    principal.require(Permission::ReadRecords)?;
    let mut parameters = Parameters::parse(uri.query(), &["kind", "reason", "limit", "cursor", "count"])?;
    let wanted = Wanted::parse(&headers, &mut parameters);
    let bound_to = bound_to(&parameters, principal.tenant_id);
    let page = parse(&mut parameters, principal.tenant_id, &bound_to);
    parameters.check()?;
    let Snapshot { state, data } = service.replicas.read(&page, &wanted).await?;
    let body = write(&data, &bound_to).map_err(|error| ReadError::from(error).into_problem())?;
    let candidates = data.items.iter().flat_map(|item| item.candidates.iter().map(|candidate| candidate.company_id));
    let shown = ShownRecords::new(data.items.iter().map(|item| item.id).chain(candidates));
    Ok(shown.on(answer_tagged(body, &state, &headers)))
}

/// What a cursor of this list is bound to.
fn bound_to(parameters: &Parameters, tenant: Uuid) -> String {
    let tenant = tenant_text(tenant);
    let given = |name| parameters.text(name).unwrap_or_default();
    fingerprint(&["/v1/reviews", &tenant, given("kind"), given("reason")])
}

/// The page that is asked for. What is wrong with it is noted.
fn parse(parameters: &mut Parameters, tenant: Uuid, bound_to: &str) -> Page {
    let named = |parameters: &Parameters| {
        let text = parameters.text("kind")?;
        Some(Kind::ALL.into_iter().find(|kind| kind.name() == text))
    };
    let kind = named(parameters);
    if kind == Some(None) {
        parameters.note_value("kind", "must be prospect or company");
    }
    let reason = parameters.text("reason").map(|text| reviews::reasons().find(|reason| *reason == text));
    if reason == Some(None) {
        let known: Vec<&str> = reviews::reasons().collect();
        parameters.note_value("reason", format!("must be one of {}", known.join(", ")));
    }
    let counted = match parameters.text("count") {
        None => false,
        Some("exact") => true,
        Some(_) => {
            parameters.note_value("count", "must be exact");
            false
        }
    };
    let most = i64::try_from(LIMIT_MAX).expect("a hundred");
    let limit = parameters.number("limit", 1, most).and_then(|limit| usize::try_from(limit).ok());
    let after = match parameters.text("cursor").map(|text| Last::decode(text, bound_to)) {
        None => Uuid::nil(),
        Some(Ok(last)) => last.id,
        Some(Err(invalid)) => {
            parameters.note(Code::InvalidCursor, "cursor", invalid.detail);
            Uuid::nil()
        }
    };
    let limit = limit.unwrap_or(LIMIT_DEFAULT);
    let selection = Selection { kind: kind.flatten(), reason: reason.flatten(), after, limit };
    Page { tenant, selection, counted }
}

fn write(data: &Found, bound_to: &str) -> Result<Vec<u8>, tokio_postgres::Error> {
    let mut body = Vec::with_capacity(32 + data.items.len() * 1024);
    body.extend_from_slice(b"{\"items\":[");
    for (place, item) in data.items.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        let mut head = json!({
            "id": item.id, "kind": item.kind.name(), "reason": item.reason, "since": item.since.map(instant_text),
            "candidates": item.candidates,
        });
        let [name, country, host] = &item.hint;
        if item.hint.iter().any(Option::is_some) {
            head["hint"] = json!({"name": name, "country": country, "host": host});
        }
        if let Some(looks_like) = item.looks_like {
            head["looks_like_company_id"] = json!(looks_like);
        }
        write_json(&mut body, &head);
        // The record goes straight from its row into the object.
        body.pop();
        body.extend_from_slice(b",\"record\":");
        let (offset, columns) = item.record();
        write_object(&mut body, &item.row, offset, columns, None)?;
        body.push(b'}');
    }
    body.push(b']');
    if let Some(last) = data.items.last().filter(|_| data.more) {
        body.extend_from_slice(b",\"next_cursor\":");
        write_json(&mut body, &Last { key: Some(Key::Id(last.id)), id: last.id }.encode(bound_to));
    }
    if let Some(count) = data.count {
        body.extend_from_slice(b",\"count\":");
        write_json(&mut body, &count);
    }
    body.push(b'}');
    Ok(body)
}
