//! `GET /v1/projections`

use std::time::Duration;

use axum::response::Response;
use deadpool_postgres::Object;
use futures_util::join;
use projector::states::Generation;
use service_kit::auth::Permission;
use service_kit::problem::Problem;

use super::{Parts, ReadHeaders, answer_tagged};
use crate::freshness::Wanted;
use crate::parameters::Parameters;
use crate::problems::ReadError;
use crate::read::{Question, Snapshot, State};
use crate::reads::ShownRecords;
use crate::replicas::Scope;

struct Projections {
    stuck_after: Duration,
}

impl Question for Projections {
    type Data = Vec<Generation>;
    const SCOPE: Scope = Scope::ReadTables;

    async fn ask(&self, client: &mut Object, _: i32) -> Result<Snapshot<Vec<Generation>>, ReadError> {
        let statement = client.prepare_cached(Generation::SQL).await?;
        let (begun, rows, ended) = join!(
            client.batch_execute("BEGIN READ ONLY"),
            client.query(&statement, &[]),
            client.batch_execute("COMMIT"),
        );
        begun?;
        let rows = rows?;
        ended?;
        let mut state = State { generation: None, position: 0, epoch: String::new() };
        let mut generations = Vec::with_capacity(rows.len());
        for row in rows {
            let generation = Generation::from_row(&row, self.stuck_after)?;
            if generation.live == Some(generation.generation) {
                state.position = generation.position;
                state.epoch.clone_from(&generation.epoch);
            }
            generations.push(generation);
        }
        Ok(Snapshot { state, data: generations })
    }
}

/// How far each projection is, on the replica that is asked.
#[utoipa::path(get, path = "/v1/projections", tag = "log", params(ReadHeaders),
    responses((status = 200, description = "`items`: projection; generation; state: live, catching_up (events wait, and it takes them in), rebuilding (beside the live one), paused (the one before, kept for a roll-back) or stuck (it has stopped at an event that cannot be applied, or done nothing for a while although something waits); position: every event up to it shows in all rows; applied_position: every event up to it is taken in, but changes of companies may still be on their way to their prospects; head of the log; lag_events behind it; lag_seconds: the age of the oldest event that does not show everywhere; events_per_second lately; queued_companies, whose changes are on their way; last_error: null, or position of the event that could not be applied, reason, at, and stands: whether the projection still stands there"),
        (status = 304, description = "If-None-Match has the answer's ETag"),
        (status = 503, description = "Not fresh enough yet, or no replica answers")))]
pub(super) async fn list((service, principal, uri, headers): Parts) -> Result<Response, Problem> {
    principal.require(Permission::ReadRecords)?;
    let mut parameters = Parameters::parse(uri.query(), &[])?;
    let wanted = Wanted::parse(&headers, &mut parameters);
    parameters.check()?;
    let question = Projections { stuck_after: service.stuck_after };
    let snapshot = service.replicas.read(&question, &wanted).await?;
    let body = serde_json::json!({"items": snapshot.data}).to_string().into_bytes();
    Ok(ShownRecords::default().on(answer_tagged(body, &snapshot.state, &headers)))
}
