//! Making another generation live (decision 13). The step of the live one is taken by the swap itself, so its projection stands still
//! until the swap is through; meanwhile the other generation comes to where the live one is. So what readers see never goes back.

use std::time::{Duration, Instant};

use migrations::COMPANY_PROSPECT;
use service_kit::postgres::Database;
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Row, Transaction};

use crate::connection::connect;
use crate::elsewhere;
use crate::projection::{Projection, STEP_EVENTS_MAX, StepError};
use crate::rebuild::RebuildError;
use crate::rebuild::request::{Desk, Request};

/// How long the live generation's projection stands still for one try.
const TRY_MAX: Duration = Duration::from_secs(1);
/// How long it is tried to come between two steps of the live generation's projection.
const FENCE_MAX: Duration = Duration::from_secs(5);
/// Events of one step meanwhile: short, so that the time of the try is looked at often.
const FENCED_EVENTS_MAX: i64 = 200;
/// Tries until it is given up: the other generation does not come near.
const TRIES_MAX: usize = 100;
/// How long a generation that is not near yet is caught up between two tries.
const BETWEEN_MAX: Duration = Duration::from_secs(2);
/// How long a statement about the views waits for those who read them.
const VIEWS_WAIT: &str = "SET LOCAL lock_timeout = '500ms'";

/// Makes the projection's generation live in place of the one that is, and finishes the request in the same transaction.
///
/// # Errors
/// If it does not come near the live one, another projector has taken the request, or the database refuses. Nothing has changed then.
pub(crate) async fn swap(
    database: &Database,
    desk: &Desk,
    request: &Request,
    projection: &mut Projection,
) -> Result<(), RebuildError> {
    let mut driven = JoinSet::new();
    let mut client = connect(database, &mut driven).await?;
    // A projector that is paused in the middle holds up the live generation's for no longer.
    client.batch_execute("SET lock_timeout = '2s'; SET idle_in_transaction_session_timeout = '5s'").await?;
    for _ in 0..TRIES_MAX {
        if try_to_swap(&mut client, desk, request, projection).await? {
            return Ok(());
        }
        let started = Instant::now();
        while started.elapsed() < BETWEEN_MAX && !step(projection).await? {}
    }
    Err(RebuildError::NotNear)
}

async fn try_to_swap(
    client: &mut Client,
    desk: &Desk,
    request: &Request,
    projection: &mut Projection,
) -> Result<bool, RebuildError> {
    const FENCE: &str = "-- projector::rebuild::swap::try_to_swap, fence
        INSERT INTO read.checkpoint_steps (projection, generation, step, position, epoch)
        SELECT s.projection, s.generation, s.step + 1, s.position, s.epoch
        FROM read.live AS l JOIN read.checkpoint_steps AS s USING (projection, generation)
        WHERE l.projection = $1 ORDER BY s.step DESC LIMIT 1
        RETURNING generation, position";
    const ERASED: &str = "-- projector::rebuild::swap::try_to_swap, erased
        SELECT e.tenant_id, e.person_id, e.erased_at FROM log.erasures AS e WHERE e.position > $1 AND e.position <= $2";
    const SWAP: &str = "-- projector::rebuild::swap::try_to_swap
        UPDATE read.live SET generation = $3, previous_generation = $2, swapped_at = clock_timestamp()
        WHERE projection = $1 AND generation = $2";
    const FINISH: &str = "-- projector::rebuild::swap::try_to_swap, finish
        UPDATE read.rebuilds SET outcome = 'live', phase = 'done', done = total, error = NULL, position = $3,
            finished_at = clock_timestamp()
        WHERE rebuild_id = $1 AND worker = $2 AND finished_at IS NULL";
    let fencing = Instant::now();
    let (transaction, fence): (Transaction<'_>, Row) = loop {
        let transaction = client.transaction().await?;
        match transaction.query_opt(FENCE, &[&COMPANY_PROSPECT]).await {
            Ok(fence) => break (transaction, fence.ok_or(StepError::NoGeneration)?),
            // The live generation's projection was in the middle of a step, which this has waited for. Under load it always is; but it reads the
            // log before it takes its next one, and this does not.
            Err(error) if is_busy(&error) && fencing.elapsed() < FENCE_MAX => transaction.rollback().await?,
            Err(error) if is_busy(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    };
    let (live, position): (i32, i64) = (fence.get(0), fence.get(1));
    if live == projection.generation() {
        return Err(RebuildError::Lost);
    }
    let started = Instant::now();
    // Complete as far as the live one has taken in: then it is as complete as that, too.
    while projection.complete_position() < position {
        if started.elapsed() > TRY_MAX {
            return Ok(false);
        }
        bounded_step(projection, FENCED_EVENTS_MAX).await?;
    }
    // Who was erased between the two is cleared in the one that nobody takes on from here.
    let erased = transaction.query(ERASED, &[&position, &projection.position()]).await?;
    let erased = erased.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect();
    elsewhere::clear(&transaction, projection.own_beside_live(), erased).await?;
    let swapped = transaction.execute(SWAP, &[&COMPANY_PROSPECT, &live, &projection.generation()]).await?;
    let complete = projection.complete_position();
    let finished = transaction.execute(FINISH, &[&request.id, &desk.worker(), &complete]).await?;
    if swapped != 1 || finished != 1 {
        return Err(RebuildError::Lost);
    }
    transaction.commit().await?;
    tracing::info!(live = projection.generation(), previous = live, position = complete, "another generation is live");
    Ok(true)
}

/// Takes a step; whether there was nothing to do.
pub(crate) async fn step(projection: &mut Projection) -> Result<bool, StepError> {
    bounded_step(projection, STEP_EVENTS_MAX).await
}

async fn bounded_step(projection: &mut Projection, events_max: i64) -> Result<bool, StepError> {
    match projection.step(events_max).await {
        Ok(stepped) => Ok(stepped.idle()),
        // One that was at it before and stood still has taken the step after all.
        Err(StepError::Fenced) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether somebody else is in the way, for now.
pub(super) fn is_busy(error: &Error) -> bool {
    [SqlState::UNIQUE_VIOLATION, SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED]
        .iter()
        .any(|state| error.code() == Some(state))
}

/// Has the views follow what is live, if this version of the code built it, and removes generations that nobody needs any more: neither live, nor what a roll-back leads to,
/// nor under way. What is locked by somebody is left for another time.
pub(crate) async fn tidy_up(client: &mut Client, code_version: i32) -> Result<(), Error> {
    const BEHIND: &str = "-- projector::rebuild::swap::tidy_up, views
        SELECT l.generation FROM read.live AS l JOIN read.generations AS g USING (projection, generation)
        WHERE l.projection = $1 AND l.views_generation IS DISTINCT FROM l.generation AND g.code_version = $2";
    // Not while the views are behind: one of these may be what they show.
    const NOBODYS: &str = "-- projector::rebuild::swap::tidy_up, generations
        SELECT g.generation FROM read.generations AS g JOIN read.live AS l USING (projection)
        WHERE g.projection = $1 AND l.views_generation = l.generation
          AND g.generation <> l.generation AND g.generation IS DISTINCT FROM l.previous_generation
          AND NOT EXISTS (
              SELECT FROM read.rebuilds AS r
              WHERE r.projection = g.projection AND r.generation = g.generation AND r.finished_at IS NULL)
        ORDER BY g.generation";
    if let Some(row) = client.query_opt(BEHIND, &[&COMPANY_PROSPECT, &code_version]).await? {
        let generation: i32 = row.get(0);
        let transaction = client.transaction().await?;
        transaction.batch_execute(VIEWS_WAIT).await?;
        match migrations::point_views(&transaction, COMPANY_PROSPECT, generation).await {
            Ok(()) => transaction.commit().await?,
            Err(migrations::GenerationError::Database(error)) if is_busy(&error) => return Ok(()),
            Err(error) => return refused(error),
        }
    }
    for row in client.query(NOBODYS, &[&COMPANY_PROSPECT]).await? {
        let generation: i32 = row.get(0);
        let transaction = client.transaction().await?;
        transaction.batch_execute(VIEWS_WAIT).await?;
        match migrations::drop_generation(&transaction, COMPANY_PROSPECT, generation).await {
            Ok(()) => {
                transaction.commit().await?;
                tracing::info!(generation, "removed a generation that nobody needs any more");
            }
            Err(migrations::GenerationError::Database(error)) if is_busy(&error) => {}
            Err(error) => return refused(error),
        }
    }
    Ok(())
}

fn refused(error: migrations::GenerationError) -> Result<(), Error> {
    match error {
        migrations::GenerationError::Database(error) => Err(error),
        migrations::GenerationError::Unknown(_) => unreachable!("the projection is ours"),
    }
}
