//! Sealing and opening the personal members of events, for those who hold the keys.

use std::collections::HashMap;

use domain::RecordEvent;
use tokio_postgres::GenericClient;
use uuid::Uuid;

use crate::event::StoredEvent;
use crate::keyring::{KeyError, Keyring, PersonKey, WrappedKey};

/// First byte of a sealed member: AES-256-GCM, a nonce of 12 bytes in front, bound to tenant, person and event.
pub(crate) const VERSION: u8 = 1;

/// What a sealed member is bound to: moved to another event, person or tenant it does not open.
pub(crate) fn context(tenant: Uuid, person: Uuid, event: Uuid) -> [u8; 49] {
    let mut context = [0; 49];
    context[0] = VERSION;
    context[1..17].copy_from_slice(tenant.as_bytes());
    context[17..33].copy_from_slice(person.as_bytes());
    context[33..].copy_from_slice(event.as_bytes());
    context
}

/// What became of a person's key.
#[derive(Clone)]
pub enum PersonKeyState {
    /// The person's data can be opened.
    Held(PersonKey),
    /// The person was erased by the event at this position.
    Erased(i64),
}

/// The keys of some persons, as the database had them in one look.
#[derive(Default)]
pub struct PersonKeys {
    keys: HashMap<(Uuid, Uuid), PersonKeyState>,
}

/// Why a stored event cannot be read. It stops whoever reads: nothing is skipped or blanked.
#[derive(Debug, thiserror::Error)]
pub enum ReadEventError {
    /// The code does not know it.
    #[error("event at position {position}: {source}")]
    Stored {
        /// Which event.
        position: i64,
        /// Why.
        source: domain::StoredEventError,
    },
    /// Its personal member cannot be opened.
    #[error("event at position {position}: {source}")]
    Key {
        /// Which event.
        position: i64,
        /// Why.
        source: KeyError,
    },
    /// The opened member is not what the event holds.
    #[error("event at position {position}: its opened personal member is not of its form")]
    Member {
        /// Which event.
        position: i64,
    },
}

impl ReadEventError {
    /// Which event could not be read.
    pub fn position(&self) -> i64 {
        match self {
            Self::Stored { position, .. } | Self::Key { position, .. } | Self::Member { position } => *position,
        }
    }
}

impl PersonKeys {
    /// Looks up the keys of these (tenant, person) pairs.
    ///
    /// # Errors
    /// If the database cannot be asked, or a key cannot be unwrapped.
    pub async fn fetch(
        client: &impl GenericClient,
        keyring: &Keyring,
        persons: impl IntoIterator<Item = (Uuid, Uuid)>,
    ) -> Result<Self, KeyError> {
        const SQL: &str = "-- event_store::seal::PersonKeys::fetch
            SELECT k.tenant_id, k.person_id, k.wrapping_key_id, k.wrapped_key, k.erased_position
            FROM unnest($1::uuid[], $2::uuid[]) AS wanted (tenant_id, person_id)
            JOIN log.person_keys AS k USING (tenant_id, person_id)";
        let mut persons: Vec<(Uuid, Uuid)> = persons.into_iter().collect();
        persons.sort_unstable();
        persons.dedup();
        if persons.is_empty() {
            return Ok(Self::default());
        }
        let (tenants, ids): (Vec<Uuid>, Vec<Uuid>) = persons.into_iter().unzip();
        let mut keys = HashMap::with_capacity(ids.len());
        for row in client.query(SQL, &[&tenants, &ids]).await? {
            let (tenant, person): (Uuid, Uuid) = (row.get(0), row.get(1));
            keys.insert((tenant, person), key_state(keyring, tenant, person, row.get(2), row.get(3), row.get(4))?);
        }
        Ok(Self { keys })
    }

    /// The key of one person, if its row was there.
    pub fn get(&self, tenant: Uuid, person: Uuid) -> Option<&PersonKeyState> {
        self.keys.get(&(tenant, person))
    }

    /// Of these persons, those who were erased after a position.
    pub fn erased_after(&self, position: i64) -> impl Iterator<Item = (Uuid, Uuid)> {
        let erased = move |state: &PersonKeyState| matches!(state, PersonKeyState::Erased(at) if *at > position);
        self.keys.iter().filter(move |(_, state)| erased(state)).map(|(person, _)| *person)
    }

    /// Reads a stored event and opens its personal member; where the person was erased the member says so.
    ///
    /// # Errors
    /// If the event is not known, or its member cannot be opened although the person was not erased.
    pub fn read<E: RecordEvent>(&self, stored: &StoredEvent) -> Result<E, ReadEventError> {
        let position = stored.position;
        let mut event = E::from_stored(&stored.event_type, stored.event_version, &stored.payload)
            .map_err(|source| ReadEventError::Stored { position, source })?;
        let key = self.get(stored.tenant_id, stored.aggregate_id);
        open(&mut event, stored.tenant_id, stored.aggregate_id, stored.event_id, position, key)?;
        Ok(event)
    }
}

/// Makes the key's state from the columns of its row.
pub(crate) fn key_state(
    keyring: &Keyring,
    tenant: Uuid,
    person: Uuid,
    wrapping_key_id: Option<String>,
    wrapped: Option<Vec<u8>>,
    erased: Option<i64>,
) -> Result<PersonKeyState, KeyError> {
    match (wrapping_key_id, wrapped, erased) {
        (Some(wrapping_key_id), Some(wrapped), None) => {
            let wrapped = WrappedKey { wrapping_key_id, wrapped };
            Ok(PersonKeyState::Held(keyring.unwrap(tenant, person, &wrapped)?))
        }
        (None, None, Some(position)) => Ok(PersonKeyState::Erased(position)),
        _ => Err(KeyError::Damaged(person)),
    }
}

/// Opens the personal member of one event in place.
pub(crate) fn open<E: RecordEvent>(
    event: &mut E,
    tenant: Uuid,
    person: Uuid,
    event_id: Uuid,
    position: i64,
    key: Option<&PersonKeyState>,
) -> Result<(), ReadEventError> {
    let Some(member) = event.personal_mut() else { return Ok(()) };
    let Some(sealed) = member.sealed() else { return Ok(()) };
    let failed = |source| ReadEventError::Key { position, source };
    match key {
        None => Err(failed(KeyError::NoKeyRow(person))),
        Some(PersonKeyState::Erased(_)) => {
            member.erase();
            Ok(())
        }
        Some(PersonKeyState::Held(key)) => {
            let json = key.open(tenant, person, event_id, sealed).map_err(failed)?;
            member.unseal(&json).map_err(|_| ReadEventError::Member { position })
        }
    }
}
