//! The events that an operator has decided to leave out (`prospectus projection skip`). They stand in the log itself, so every generation,
//! every rebuild and the verifier leave out the same ones.

use std::collections::BTreeSet;

use domain::Record as _;
use domain::projection::{Projection, ProjectionEvent, SYSTEM_TENANT, record_id};
use event_store::seal::ReadEventError;
use event_store::{StoredEvent, seal::PersonKeys};
use tokio_postgres::{Client, Error};

use crate::record::ApplyError;

/// Positions that are left out of a projection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skips {
    positions: BTreeSet<i64>,
}

/// Why it is not known what is left out.
#[derive(Debug, thiserror::Error)]
pub enum SkipsError {
    /// The database is away or refuses.
    #[error("the database: {}", service_kit::postgres::describe(.0))]
    Database(#[from] Error),
    /// A decision cannot be read.
    #[error(transparent)]
    Read(#[from] ReadEventError),
}

impl From<SkipsError> for crate::projection::StepError {
    fn from(error: SkipsError) -> Self {
        match error {
            SkipsError::Database(error) => error.into(),
            SkipsError::Read(error) => ApplyError::Read(error).into(),
        }
    }
}

impl Skips {
    /// What is left out of a projection by all decisions that the log holds: one that comes after a position may be about it.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn read(log: &Client, projection: &str) -> Result<Self, SkipsError> {
        const SQL: &str = "-- projector::skips::read
            SELECT e.position, e.tenant_id, e.aggregate_type, e.aggregate_id, e.sequence, e.event_id, e.event_type,
                   e.event_version, e.payload, e.metadata, e.recorded_at
            FROM log.events AS e WHERE e.tenant_id = $1 AND e.aggregate_id = $2 ORDER BY e.sequence";
        let mut state = Projection::default();
        let keys = PersonKeys::default();
        for row in log.query(SQL, &[&SYSTEM_TENANT, &record_id(projection)]).await? {
            let event: ProjectionEvent = keys.read(&StoredEvent::from_row(&row)?)?;
            state.evolve(&event);
        }
        Ok(Self { positions: state.skipped })
    }

    /// Whether the event at a position is left out.
    pub fn contains(&self, position: i64) -> bool {
        self.positions.contains(&position)
    }

    /// The positions, ascending.
    pub(crate) fn positions(&self) -> Vec<i64> {
        self.positions.iter().copied().collect()
    }

    /// How many events are left out.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }
}
