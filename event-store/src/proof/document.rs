//! A proof that can be checked without a database: one event, its path, and the head that it leads to.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_postgres::GenericClient;
use uuid::Uuid;

use super::hash::Hash;
use super::head::{SignedHead, epoch_number};
use super::key::PublicKey;
use super::path::{includes, inclusion};
use super::row::leaf_of;
use super::stored::{self, EVERY_EPOCH, StoredError};
use crate::event::StoredEvent;

/// The form of the documents.
pub const VERSION: u32 = 1;

/// One event is in the log that a head was signed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// [`VERSION`].
    pub version: u32,
    /// The event, whole.
    pub event: ProvenEvent,
    /// The hash of its canonical bytes.
    pub leaf_hash: Hash,
    /// The path from there to the head's root, the nearest first.
    pub path: Vec<Hash>,
    /// The head.
    pub head: SignedHead,
    /// The key that signed it, as the log says.
    pub public_key: PublicKey,
}

/// An event with everything that its leaf is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvenEvent {
    /// Its place in the log.
    pub position: i64,
    /// Whose record it is.
    pub tenant_id: Uuid,
    /// `company`, `prospect`, …
    pub aggregate_type: String,
    /// Which record.
    pub aggregate_id: Uuid,
    /// The record's version after it.
    pub sequence: i64,
    /// Its id.
    pub event_id: Uuid,
    /// Its name.
    pub event_type: String,
    /// Version of the payload's form.
    pub event_version: i16,
    /// The stored text, as a text: not a character of it may change.
    pub payload: String,
    /// Likewise.
    pub metadata: String,
    /// When it was appended, RFC 3339 in UTC, to the microsecond.
    pub recorded_at: String,
}

/// Why a proof does not prove.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Another release wrote it.
    #[error("the proof has version {0}, this program knows {VERSION}")]
    Version(u32),
    /// The event is no event.
    #[error("the event in the proof is not of its form: {0}")]
    Event(&'static str),
    /// The event was changed after the proof was made, or in the log before.
    #[error("the event does not have the leaf hash that the proof names: it was changed")]
    Leaf,
    /// The path leads elsewhere.
    #[error(
        "the path does not lead from the event to the head's root: the event is not in the log that the head was signed over"
    )]
    Path,
    /// The head is of another size than the proof is for.
    #[error(
        "the proof is for a head over {proof} events, the given one is over {given}: make it with `prospectus audit prove {position} --head FILE`"
    )]
    OtherSize {
        /// What the proof is for.
        proof: u64,
        /// What was given.
        given: u64,
        /// What is proven.
        position: i64,
    },
    /// The proof was made of another log, or of another state of it.
    #[error("the proof's head is not the given one: same size, other {0}")]
    OtherHead(&'static str),
    /// The signature is not the key's.
    #[error("the head is not signed by the key {0}")]
    Signature(String),
}

impl ProvenEvent {
    /// The event as a document has it.
    pub fn of(event: &StoredEvent) -> Self {
        Self {
            position: event.position,
            tenant_id: event.tenant_id,
            aggregate_type: event.aggregate_type.clone(),
            aggregate_id: event.aggregate_id,
            sequence: event.sequence,
            event_id: event.event_id,
            event_type: event.event_type.clone(),
            event_version: event.event_version,
            payload: event.payload.clone(),
            metadata: event.metadata.clone(),
            recorded_at: event.recorded_at.format(&Rfc3339).unwrap_or_default(),
        }
    }

    /// The hash of its canonical bytes.
    ///
    /// # Errors
    /// If it is not of an event's form.
    pub fn leaf(&self) -> Result<Hash, ProofError> {
        let recorded_at =
            OffsetDateTime::parse(&self.recorded_at, &Rfc3339).map_err(|_| ProofError::Event("recorded_at"))?;
        if self.position < 1 || self.sequence < 1 || self.event_version < 1 {
            return Err(ProofError::Event("position, sequence and event_version are at least 1"));
        }
        Ok(leaf_of(&StoredEvent {
            position: self.position,
            tenant_id: self.tenant_id,
            aggregate_type: self.aggregate_type.clone(),
            aggregate_id: self.aggregate_id,
            sequence: self.sequence,
            event_id: self.event_id,
            event_type: self.event_type.clone(),
            event_version: self.event_version,
            payload: self.payload.clone(),
            metadata: self.metadata.clone(),
            recorded_at,
        }))
    }
}

impl Proof {
    /// The proof that an event is under a head, from the stored hashes; none if the head does not cover it.
    ///
    /// # Errors
    /// If the database is away, or a hash is missing.
    pub async fn make(
        client: &impl GenericClient,
        event: &StoredEvent,
        head: SignedHead,
        public_key: PublicKey,
    ) -> Result<Option<Self>, StoredError> {
        let index = super::to_count(event.position - 1);
        let Some(nodes) = inclusion(index, head.head.tree_size) else { return Ok(None) };
        let epoch = epoch_number(&head.head.epoch).unwrap_or(EVERY_EPOCH);
        let path = stored::resolve(client, &nodes, epoch).await?;
        let event = ProvenEvent::of(event);
        let leaf_hash = event.leaf().unwrap_or_else(|_| Hash::empty());
        Ok(Some(Self { version: VERSION, event, leaf_hash, path, head, public_key }))
    }

    /// Checks the proof against a head that was kept, if there is one, and with a key that is trusted, else with the one in the proof.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, kept: Option<&SignedHead>, trusted: Option<&PublicKey>) -> Result<(), ProofError> {
        if self.version != VERSION {
            return Err(ProofError::Version(self.version));
        }
        if self.event.leaf()? != self.leaf_hash {
            return Err(ProofError::Leaf);
        }
        let head = &self.head.head;
        if !includes(
            self.leaf_hash,
            super::to_count(self.event.position - 1),
            head.tree_size,
            &self.path,
            head.root_hash,
        ) {
            return Err(ProofError::Path);
        }
        if let Some(kept) = kept {
            let position = self.event.position;
            let (proof, given) = (head.tree_size, kept.head.tree_size);
            let same = [
                (head.log_id == kept.head.log_id, "log_id"),
                (head.root_hash == kept.head.root_hash, "root_hash"),
                (head.epoch == kept.head.epoch, "epoch"),
            ];
            if proof != given {
                return Err(ProofError::OtherSize { proof, given, position });
            }
            if let Some((_, what)) = same.into_iter().find(|(same, _)| !same) {
                return Err(ProofError::OtherHead(what));
            }
        }
        let key = trusted.unwrap_or(&self.public_key);
        for head in std::iter::once(&self.head).chain(kept) {
            if !head.is_signed_by(key) {
                return Err(ProofError::Signature(key.id()));
            }
        }
        Ok(())
    }
}
