//! The one mapping from what can go wrong with a read to what the client is told.

use event_store::keyring::KeyError;
use service_kit::problem::{Code, Problem};
use tokio_postgres::error::SqlState;

/// Why one attempt to read did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// What the server or the network said.
    #[error("{}", service_kit::postgres::describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// A key that an event needs cannot be had.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// A stored event is not of its form.
    #[error("the event at position {0} is not of its form")]
    Event(i64),
    /// What the log is proven with is not of its form, or not all there.
    #[error("{0}")]
    Proof(String),
    /// The events of a record cannot be folded.
    #[error(transparent)]
    Fold(#[from] projector::record::ApplyError),
    /// No connection was free in time.
    #[error("no connection of the pool was free in time")]
    Busy,
    /// No generation of the projection is live, so there are no records to read yet.
    #[error("no generation is live")]
    NoGeneration,
    /// The health check gave the replica up while it was being read.
    #[error("the replica stopped answering")]
    Lost,
}

/// What to do about a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Another replica may answer; this one is to be left alone until it is well.
    OtherReplica,
    /// The same again: replay on the replica was in the way.
    Again,
    /// Another generation is live, and the tables of the one that was read are gone.
    OtherGeneration,
    /// None: it is the answer.
    GiveUp,
}

impl ReadError {
    pub(crate) fn remedy(&self) -> Remedy {
        let Self::Database(error) = self else {
            return if matches!(self, Self::Lost) { Remedy::OtherReplica } else { Remedy::GiveUp };
        };
        let Some(code) = error.code() else {
            // Without a code of the server it is the network's failure, or a value of ours that does not fit its column.
            let network = std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>);
            return if error.is_closed() || network { Remedy::OtherReplica } else { Remedy::GiveUp };
        };
        if *code == SqlState::UNDEFINED_TABLE || *code == SqlState::INVALID_SCHEMA_NAME {
            Remedy::OtherGeneration
        } else if *code == SqlState::T_R_SERIALIZATION_FAILURE {
            Remedy::Again
        } else if ["08", "57P", "53"].iter().any(|class| code.code().starts_with(class)) {
            // 08: connection; 57P: the server is ending or starting; 53: it has no connection left.
            Remedy::OtherReplica
        } else {
            Remedy::GiveUp
        }
    }

    /// What the client is told; what is ours to mend is logged here.
    pub(crate) fn into_problem(self) -> Problem {
        match &self {
            Self::Busy => Problem::new(Code::Overloaded, "too many reads are waiting; try again"),
            Self::NoGeneration => Problem::new(
                Code::DatabaseUnavailable,
                "no projection is live yet, so nothing can be read; the projector makes the first one",
            ),
            Self::Database(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => Problem::new(
                Code::Overloaded,
                "the read took too long; narrow it with filters, or leave count=exact out",
            ),
            _ if self.remedy() == Remedy::GiveUp => {
                let code = match &self {
                    Self::Database(error) => error.code().map(SqlState::code),
                    _ => None,
                };
                tracing::error!(error = %self, code, "a read met something broken");
                Problem::internal()
            }
            _ => unavailable(),
        }
    }
}

/// No replica answers.
pub(crate) fn unavailable() -> Problem {
    Problem::new(Code::DatabaseUnavailable, "no replica of the database can be read now; try again")
}
