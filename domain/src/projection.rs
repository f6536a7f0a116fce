//! The aggregate projection: what operators decided about a projection of the log, so that whoever builds it again decides the same.
//!
//! It belongs to no tenant ([`SYSTEM_TENANT`]) and holds nothing personal: a projection's name, positions, and an operator's reasons.

use std::collections::BTreeSet;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::claim::{Claim, Match};
use crate::events::events;
use crate::personal::PersonalMember;
use crate::record::{Context, Record};
use crate::value::Line;

/// Whose record a projection is: nobody's. No tenant has this id, so no key and no SQL role sees its events.
pub const SYSTEM_TENANT: Uuid = Uuid::nil();

events! {
    /// An event of a projection.
    pub enum ProjectionEvent {
        /// An event is left out for good.
        ProjectionPositionSkipped(PositionSkipped) = 1,
    }
}

/// The event at a position is left out of a projection, of every generation of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionSkipped {
    /// Name of the projection.
    pub projection: Line<100>,
    /// Which event.
    pub position: i64,
    /// Why, as the operator put it; nothing personal.
    pub reason: Line<500>,
}

/// A projection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Projection {
    /// Positions that are left out.
    pub skipped: BTreeSet<i64>,
}

/// What can be asked of a projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProjectionCommand {
    /// Leave an event out.
    Skip(PositionSkipped),
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProjectionError {
    /// Positions count from 1.
    #[error("there is no position {0}: positions count from 1")]
    NoPosition(i64),
}

/// The id of a projection's record: the FNV-1a hash of its name, so that whoever knows the name finds the record.
pub fn record_id(projection: &str) -> Uuid {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = projection.bytes().fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    uuid::Builder::from_custom_bytes(hash.to_be_bytes()).into_uuid()
}

impl Aggregate for Projection {
    const TYPE: &'static str = "projection";
    type Command = ProjectionCommand;
    type Event = ProjectionEvent;
    type Error = ProjectionError;
    type Services = Context;

    async fn handle(
        &mut self,
        command: ProjectionCommand,
        context: &Context,
        sink: &EventSink<Self>,
    ) -> Result<(), ProjectionError> {
        for event in self.decide(command, context)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: ProjectionEvent) {
        self.evolve(&event);
    }
}

impl Record for Projection {
    fn decide(&self, command: ProjectionCommand, _: &Context) -> Result<Vec<ProjectionEvent>, ProjectionError> {
        let ProjectionCommand::Skip(skipped) = command;
        if skipped.position < 1 {
            return Err(ProjectionError::NoPosition(skipped.position));
        }
        if self.skipped.contains(&skipped.position) {
            return Ok(Vec::new());
        }
        Ok(vec![skipped.into()])
    }

    fn evolve(&mut self, event: &ProjectionEvent) {
        let ProjectionEvent::ProjectionPositionSkipped(skipped) = event;
        self.skipped.insert(skipped.position);
    }

    fn claims(&self, _: Uuid) -> Vec<Claim> {
        Vec::new()
    }

    fn matches(&self, _: Uuid) -> Vec<Match> {
        Vec::new()
    }

    fn weight_bytes(&self) -> usize {
        size_of::<Self>() + self.skipped.len() * 2 * size_of::<i64>()
    }
}

impl ProjectionEvent {
    #[expect(clippy::unused_self, reason = "the events of every aggregate are asked; this one requires no claim")]
    fn required_claim(&self) -> Option<Claim> {
        None
    }

    #[expect(clippy::unused_self, reason = "the events of every aggregate are asked; this one holds nothing personal")]
    fn personal_member(&mut self) -> Option<&mut dyn PersonalMember> {
        None
    }
}
