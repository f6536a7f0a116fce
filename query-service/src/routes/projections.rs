//! `GET /v1/projections`

use axum::response::{IntoResponse, Response};
use deadpool_postgres::Object;
use futures_util::join;
use serde::Serialize;
use service_kit::auth::Permission;
use service_kit::problem::Problem;

use super::{Parts, ReadHeaders, add_position};
use crate::freshness::Wanted;
use crate::parameters::Parameters;
use crate::problems::ReadError;
use crate::read::{Question, Snapshot, State};
use crate::replicas::Scope;

struct Projections;

/// How far one generation of a projection is.
#[derive(Debug, Serialize)]
struct Projection {
    #[serde(rename = "projection")]
    name: String,
    generation: i32,
    position: i64,
    head: i64,
    lag_events: i64,
    lag_seconds: f64,
    state: &'static str,
    last_error: Option<String>,
}

impl Question for Projections {
    type Data = Vec<Projection>;
    const SCOPE: Scope = Scope::ReadTables;

    async fn ask(&self, client: &mut Object, _: i32) -> Result<Snapshot<Vec<Projection>>, ReadError> {
        // A generation that is newer than the live one is being built; an older one is kept for a roll-back.
        const SQL: &str = "-- query_service::routes::projections
            SELECT c.projection, c.generation, c.position, h.position,
                   CASE WHEN h.position > c.position
                        THEN greatest(extract(epoch FROM clock_timestamp() - c.updated_at), 0)::float8 ELSE 0 END,
                   l.generation, c.epoch
            FROM read.checkpoints AS c
            CROSS JOIN log.head AS h
            LEFT JOIN read.live AS l USING (projection)
            ORDER BY c.projection, c.generation";
        let statement = client.prepare_cached(SQL).await?;
        let (begun, rows, ended) = join!(
            client.batch_execute("BEGIN READ ONLY"),
            client.query(&statement, &[]),
            client.batch_execute("COMMIT"),
        );
        begun?;
        let rows = rows?;
        ended?;
        let mut state = State { generation: None, position: 0, epoch: String::new() };
        let mut projections = Vec::with_capacity(rows.len());
        for row in rows {
            let (generation, position, head): (i32, i64, i64) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
            let live: Option<i32> = row.try_get(5)?;
            if live == Some(generation) {
                state.position = position;
                state.epoch = row.try_get(6)?;
            }
            projections.push(Projection {
                name: row.try_get(0)?,
                generation,
                position,
                head,
                lag_events: (head - position).max(0),
                lag_seconds: row.try_get(4)?,
                state: match live {
                    Some(live) if live == generation => "live",
                    Some(live) if live > generation => "previous",
                    _ => "building",
                },
                last_error: None,
            });
        }
        Ok(Snapshot { state, data: projections })
    }
}

/// How far each projection is, on the replica that is asked.
#[utoipa::path(get, path = "/v1/projections", tag = "log", params(ReadHeaders),
    responses((status = 200, description = "`items`: projection, generation, position, head, lag_events, lag_seconds, state (live, building or previous), last_error"),
        (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(super) async fn list((service, principal, uri, headers): Parts) -> Result<Response, Problem> {
    principal.require(Permission::ReadRecords)?;
    Parameters::parse(uri.query(), &[])?;
    let snapshot = service.replicas.read(&Projections, &Wanted::parse(&headers)?).await?;
    let mut response = axum::Json(serde_json::json!({"items": snapshot.data})).into_response();
    add_position(response.headers_mut(), &snapshot.state);
    Ok(response)
}
