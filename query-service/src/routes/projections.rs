//! `GET /v1/projections`

use axum::response::Response;
use deadpool_postgres::Object;
use futures_util::join;
use serde::Serialize;
use service_kit::auth::Permission;
use service_kit::problem::Problem;

use super::{Parts, ReadHeaders, answer_tagged};
use crate::freshness::Wanted;
use crate::parameters::Parameters;
use crate::problems::ReadError;
use crate::read::{Question, Snapshot, State};
use crate::reads::ShownRecords;
use crate::replicas::Scope;

struct Projections;

/// How far one generation of a projection is. Its position is the complete one, with what is still being carried to prospects' rows of
/// any tenant counted as missing.
#[derive(Debug, Serialize)]
struct Projection {
    #[serde(rename = "projection")]
    name: String,
    generation: i32,
    position: i64,
    applied_position: i64,
    head: i64,
    lag_events: i64,
    lag_seconds: f64,
    state: &'static str,
    /// Nothing stores it yet.
    last_error: Option<String>,
}

impl Question for Projections {
    type Data = Vec<Projection>;
    const SCOPE: Scope = Scope::ReadTables;

    async fn ask(&self, client: &mut Object, _: i32) -> Result<Snapshot<Vec<Projection>>, ReadError> {
        // A generation that is newer than the live one is being built; an older one is kept for a roll-back.
        const SQL: &str = "-- query_service::routes::projections
            SELECT p.projection, p.generation, p.complete_position, h.position,
                   coalesce(greatest(extract(epoch FROM clock_timestamp() - p.waits_since), 0), 0)::float8,
                   l.generation, p.epoch, p.applied_position
            FROM read.progress() AS p
            CROSS JOIN log.head AS h
            LEFT JOIN read.live AS l USING (projection)
            ORDER BY p.projection, p.generation";
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
                applied_position: row.try_get(7)?,
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
    responses((status = 200, description = "`items`: projection; generation; position: every event up to it shows in all rows; applied_position: every event up to it is taken in, but changes of companies may still be on their way to their prospects; head of the log; lag_events behind it; lag_seconds: the age of the oldest event that does not show everywhere; state (live, building or previous); last_error: always null, for no error is stored yet"),
        (status = 304, description = "If-None-Match has the answer's ETag"),
        (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(super) async fn list((service, principal, uri, headers): Parts) -> Result<Response, Problem> {
    principal.require(Permission::ReadRecords)?;
    let mut parameters = Parameters::parse(uri.query(), &[])?;
    let wanted = Wanted::parse(&headers, &mut parameters);
    parameters.check()?;
    let snapshot = service.replicas.read(&Projections, &wanted).await?;
    let body = serde_json::json!({"items": snapshot.data}).to_string().into_bytes();
    Ok(ShownRecords::default().on(answer_tagged(body, &snapshot.state, &headers)))
}
