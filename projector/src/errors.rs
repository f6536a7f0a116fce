//! What a projection stopped at, for whoever asks the database: the primary or any replica.

use migrations::COMPANY_PROSPECT;
use service_kit::postgres::Database;
use tokio::task::JoinSet;
use tokio_postgres::Error;

use crate::connection::connect;
use crate::projection::StepError;

/// Most characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 2_000;

/// Writes down the last error of a generation, of the live one where none is named, on a connection and in a transaction of its own: the
/// step that failed has left nothing. An error that is there already keeps its time.
///
/// # Errors
/// If the database is away or refuses.
pub async fn note(database: &Database, generation: Option<i32>, error: &StepError) -> Result<(), Error> {
    const SQL: &str = "-- projector::errors::note
        INSERT INTO read.projection_errors AS x (projection, generation, position, event_position, reason, error)
        SELECT l.projection, coalesce($2 /* generation */, l.generation), $3 /* position */, $4 /* event's position */, $5 /* reason */,
               $6 /* error */
        FROM read.live AS l WHERE l.projection = $1
        ON CONFLICT (projection, generation) DO UPDATE
        SET position = excluded.position, event_position = excluded.event_position, reason = excluded.reason, error = excluded.error,
            happened_at = excluded.happened_at
        WHERE (x.position, x.event_position, x.error) IS DISTINCT FROM (excluded.position, excluded.event_position, excluded.error)";
    let mut driven = JoinSet::new();
    let client = connect(database, &mut driven).await?;
    let said: String = error.to_string().chars().take(ERROR_CHARS_MAX).collect();
    let (position, event_position) = (error.position(), error.event_position());
    client.execute(SQL, &[&COMPANY_PROSPECT, &generation, &position, &event_position, &error.reason(), &said]).await?;
    Ok(())
}
