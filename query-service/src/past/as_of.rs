//! A record as it was: at a time, at one of its versions, or at a position of the log.

use std::marker::PhantomData;

use deadpool_postgres::{Object, Transaction};
use domain::company::STANDS_FOR_MAX;
use domain::{Company, Status};
use event_store::StoredEvent;
use event_store::keyring::Keyring;
use event_store::seal::PersonKeys;
use projector::columns::Cell;
use projector::record::Folded;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_postgres::IsolationLevel;
use uuid::Uuid;

use super::Past;
use super::changes::ERASED;
use super::fold::{Until, fold, keys_of};
use crate::parameters::Parameters;
use crate::problems::ReadError;
use crate::read::{BIND_TENANT, Question, Snapshot, State, tenant_text};
use crate::record::{json_of, write_json};
use crate::replicas::Scope;

/// The parameters that say when.
pub(crate) const PARAMETERS: [&str; 3] = ["as_of", "as_of_version", "as_of_position"];

/// As of when a record is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AsOf {
    /// After everything that was recorded up to this time, itself included (decision 7).
    Time(OffsetDateTime),
    /// After the event that made it this version.
    Version(i64),
    /// After the event at this position, whosever it is.
    Position(i64),
}

impl AsOf {
    /// Reads the one of the three that is given; more than one is noted, and what is none.
    pub(crate) fn parse(parameters: &mut Parameters) -> Option<Self> {
        let given: Vec<&str> = PARAMETERS.into_iter().filter(|name| parameters.text(name).is_some()).collect();
        let [name] = given[..] else {
            for name in given {
                parameters
                    .note_value(name, "as_of, as_of_version and as_of_position exclude each other: send one of them");
            }
            return None;
        };
        match name {
            "as_of" => {
                // A plus sign that came as itself is a space by now.
                let text = parameters.text(name)?.trim().replace(' ', "+");
                let time = OffsetDateTime::parse(&text, &Rfc3339).ok();
                if time.is_none() {
                    parameters.note_value(name, "must be a time as in RFC 3339, such as 2026-03-01T12:00:00Z");
                }
                time.map(Self::Time)
            }
            "as_of_version" => parameters.number(name, 1, i64::MAX).map(Self::Version),
            _ => parameters.number(name, 1, i64::MAX).map(Self::Position),
        }
    }

    /// The least position that an answer must include.
    pub(crate) fn position(self) -> i64 {
        match self {
            Self::Position(position) => position,
            Self::Time(_) | Self::Version(_) => 0,
        }
    }

    fn until(self) -> Until {
        match self {
            Self::Time(time) => Until { time, ..Until::NOW },
            Self::Version(version) => Until { version, ..Until::NOW },
            Self::Position(position) => Until::position(position),
        }
    }
}

/// A record as it was.
pub(crate) struct RecordAsOf<'a, R> {
    pub(crate) keyring: &'a Keyring,
    pub(crate) tenant: Uuid,
    pub(crate) id: Uuid,
    pub(crate) as_of: AsOf,
    pub(crate) sort: PhantomData<fn() -> R>,
}

/// What is known of a record then.
#[derive(Debug)]
pub(crate) enum Then {
    /// There is no such record, then or now.
    Nothing,
    /// It came into being later: when, and at which position.
    Later(OffsetDateTime, i64),
    /// It has fewer versions: the newest.
    NoSuchVersion(i64),
    /// The time has not come.
    Future,
    /// It was there.
    There(Box<There>),
}

/// A record that was there.
#[derive(Debug)]
pub(crate) struct There {
    /// Of each of the sort's columns, its JSON.
    pub(crate) members: Vec<serde_json::Value>,
    /// Since when it was deleted then, if it was.
    pub(crate) deleted_at: Option<OffsetDateTime>,
    /// When its person was erased, if that was before.
    pub(crate) erased_at: Option<OffsetDateTime>,
    /// The company that stood for it then, if it was merged.
    pub(crate) merged_into: Option<Uuid>,
    /// The position of its last event then.
    pub(crate) position: i64,
}

impl<R: Past> Question for RecordAsOf<'_, R> {
    type Data = Then;
    const SCOPE: Scope = Scope::Log;

    async fn ask(&self, client: &mut Object, _: i32) -> Result<Snapshot<Then>, ReadError> {
        let transaction =
            client.build_transaction().read_only(true).isolation_level(IsolationLevel::RepeatableRead).start().await?;
        let bind = transaction.prepare_cached(BIND_TENANT).await?;
        transaction.query(&bind, &[&tenant_text(self.tenant)]).await?;
        let state = State::of_log(&transaction).await?;
        let then = self.then(&transaction).await?;
        transaction.commit().await?;
        Ok(Snapshot { state, data: then })
    }

    async fn ask_state(&self, client: &mut Object, _: i32) -> Result<State, ReadError> {
        let transaction = client.build_transaction().read_only(true).start().await?;
        let state = State::of_log(&transaction).await?;
        transaction.commit().await?;
        Ok(state)
    }
}

impl<R: Past> RecordAsOf<'_, R> {
    async fn then(&self, transaction: &Transaction<'_>) -> Result<Then, ReadError> {
        // The log's own time may be ahead of a replica's clock.
        const NOW: &str = "-- query_service::past::as_of::now
            SELECT greatest(clock_timestamp(), (SELECT e.recorded_at FROM log.events AS e
                                                WHERE e.tenant_id = $1 /* tenant */ ORDER BY e.position DESC LIMIT 1))";
        if let AsOf::Time(time) = self.as_of {
            let now: OffsetDateTime =
                transaction.query_one(&transaction.prepare_cached(NOW).await?, &[&self.tenant]).await?.try_get(0)?;
            if time > now {
                return Ok(Then::Future);
            }
        }
        let keys = keys_of::<R>(transaction, self.keyring, self.tenant, self.id).await?;
        let step = |event: StoredEvent, read: &mut R::Event, record: &mut Folded<R>| record.evolve(&event, read);
        let until = self.as_of.until();
        let mut records = fold::<R>(transaction, &keys, self.tenant, &[self.id], until, step).await?;
        let Some(record) = records.remove(&self.id) else { return self.first(transaction).await };
        let until = match self.as_of {
            AsOf::Version(version) if record.version < version => return Ok(Then::NoSuchVersion(record.version)),
            // What other records were when this one became that version.
            AsOf::Version(_) => Until::position(record.position),
            AsOf::Time(_) | AsOf::Position(_) => until,
        };
        let merged_into = match record.state.status() {
            Status::Merged { into } => Some(self.end_of_merges(transaction, into, until).await?.0),
            Status::Unregistered | Status::Live | Status::Deleted => None,
        };
        let company = match record.state.company() {
            Some(company) => {
                let (end, status) = self.end_of_merges(transaction, company, until).await?;
                (status == Status::Live).then_some(end)
            }
            None => None,
        };
        let members = members(&R::cells((self.tenant, self.id), &record), &record, company);
        let Folded { deleted_at, erased_at, position, .. } = record;
        Ok(Then::There(Box::new(There { members, deleted_at, erased_at, merged_into, position })))
    }

    /// Why a record was not there.
    async fn first(&self, transaction: &Transaction<'_>) -> Result<Then, ReadError> {
        const SQL: &str = "-- query_service::past::as_of::first
            SELECT e.recorded_at, e.position FROM log.events AS e
            WHERE e.tenant_id = $1 /* tenant */ AND e.aggregate_id = $2 /* record */ AND e.sequence = 1
              AND e.aggregate_type = $3";
        let statement = transaction.prepare_cached(SQL).await?;
        let row = transaction.query_opt(&statement, &[&self.tenant, &self.id, &R::TYPE]).await?;
        Ok(match row {
            Some(row) => Then::Later(row.try_get(0)?, row.try_get(1)?),
            None => Then::Nothing,
        })
    }

    /// The company that stood for this one, and what became of that. One that was not there is as good as deleted.
    async fn end_of_merges(
        &self,
        transaction: &Transaction<'_>,
        company: Uuid,
        until: Until,
    ) -> Result<(Uuid, Status), ReadError> {
        let mut end = company;
        for _ in 0..=STANDS_FOR_MAX {
            let step = |event: StoredEvent, read: &mut _, record: &mut Folded<Company>| record.evolve(&event, read);
            let keys = PersonKeys::default();
            let records = fold::<Company>(transaction, &keys, self.tenant, &[end], until, step).await?;
            match records.get(&end).map(|company| company.state.status) {
                Some(Status::Merged { into }) => end = into,
                status => return Ok((end, status.unwrap_or_default())),
            }
        }
        // Longer than any chain of merges can be, so it is a circle, which no command allows.
        Ok((end, Status::Deleted))
    }
}

/// The members of a record. Of a person who was erased since, what was personal then is not known any more.
fn members<R: Past>(cells: &[Cell], record: &Folded<R>, company: Option<Uuid>) -> Vec<serde_json::Value> {
    let hidden = record.state.is_forgotten() && record.erased_at.is_none();
    let members = R::COLUMNS.iter().zip(R::places()).map(|(column, place)| match place {
        Some(place) if hidden && is_personal(column.name) && matches!(cells[*place], Cell::Text(_)) => ERASED.into(),
        Some(place) => json_of(cells[*place].clone()),
        None => company.map(|company| company.to_string()).into(),
    });
    members.collect()
}

fn is_personal(name: &str) -> bool {
    domain::prospect::fields().any(|field| field.personal && field.name == name)
}

/// Writes the members as an object; `selected` says for each whether it is wanted; none is all.
pub(crate) fn write<R: Past>(members: &[serde_json::Value], selected: Option<&[bool]>) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (place, (column, member)) in R::COLUMNS.iter().zip(members).enumerate() {
        if selected.is_some_and(|selected| !selected[place]) {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        write_json(&mut out, &column.name);
        out.push(b':');
        write_json(&mut out, member);
    }
    out.push(b'}');
    out
}
