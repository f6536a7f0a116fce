//! Forgetting in the transaction of the events that say so: persons' keys are emptied, their claims and matches go; and the values
//! that erased persons are recognised by.

use std::collections::HashSet;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};
use uuid::Uuid;

use super::{Append, Forget, Job, KeyedValue};

/// What it does is told beside the function, in `migrations/sql/0009_erasures.sql`.
const FORGET: &str = "-- event_store::append::forget, forget
    SELECT log.forget($1, $2, $3, $4, $5, $6, $7, $8)";

/// $1 tenants, $2 kinds, $3 keys
const ERASED: &str = "-- event_store::append::forget, erased
    SELECT DISTINCT n.ordinality
    FROM unnest($1::uuid[], $2::text[], $3::text[]) WITH ORDINALITY AS n (tenant_id, kind, key, ordinality)
    JOIN log.erased_values AS e USING (tenant_id, kind, key)
    WHERE access.refuses_erased_persons(n.tenant_id)";

/// The statements of a session.
pub(super) struct Statements {
    forget: Statement,
    erased: Statement,
}

/// Columns of what is to be forgotten.
#[derive(Default)]
pub(super) struct Columns<'a> {
    tenant: Vec<Uuid>,
    person: Vec<Uuid>,
    sequence: Vec<i64>,
    value_tenant: Vec<Uuid>,
    value_person: Vec<Uuid>,
    value_kind: Vec<&'a str>,
    value_key: Vec<&'a str>,
    value_kept: Vec<bool>,
}

impl<'a> Columns<'a> {
    /// What these commands forget.
    pub(super) fn of(appends: impl Iterator<Item = &'a Append>) -> Self {
        let mut columns = Self::default();
        for append in appends {
            append.forget.iter().for_each(|forget| columns.push(append.tenant_id, forget));
        }
        columns
    }

    fn push(&mut self, tenant: Uuid, Forget { person, sequence, claims, matches }: &'a Forget) {
        self.tenant.push(tenant);
        self.person.push(*person);
        self.sequence.push(*sequence);
        let mut push = |value: &'a KeyedValue, kept| {
            self.value_tenant.push(tenant);
            self.value_person.push(*person);
            self.value_kind.push(value.kind);
            self.value_key.push(&value.key);
            self.value_kept.push(kept);
        };
        for claim in claims {
            push(claim, false);
        }
        for found in matches {
            push(found, true);
        }
    }
}

/// Forgets a person whose erasing event is in the log already, in a transaction of its own.
pub(crate) async fn forget_again(client: &Client, tenant: Uuid, forget: &Forget) -> Result<(), Error> {
    let mut columns = Columns::default();
    columns.push(tenant, forget);
    Statements::prepare(client).await?.forget(client, &columns).await
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
        Ok(Self { forget: client.prepare(FORGET).await?, erased: client.prepare(ERASED).await? })
    }

    /// Forgets, after the events are written and in their transaction.
    pub(super) async fn forget(&self, client: &Client, columns: &Columns<'_>) -> Result<(), Error> {
        if columns.tenant.is_empty() {
            return Ok(());
        }
        let parameters: [&(dyn ToSql + Sync); 8] = [
            &columns.tenant,
            &columns.person,
            &columns.sequence,
            &columns.value_tenant,
            &columns.value_person,
            &columns.value_kind,
            &columns.value_key,
            &columns.value_kept,
        ];
        client.execute(&self.forget, &parameters).await.map(drop)
    }

    /// Which of the commands, by their places, would make an erased person be found again, and whose tenants do not want that.
    pub(super) async fn name_the_erased(&self, client: &Client, jobs: &[Job]) -> Result<HashSet<usize>, Error> {
        let (mut places, mut tenants, mut kinds, mut keys) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (place, append) in jobs.iter().map(|job| &job.append).enumerate() {
            for value in &append.match_add {
                places.push(place);
                tenants.push(append.tenant_id);
                kinds.push(value.kind);
                keys.push(value.key.as_str());
            }
        }
        if places.is_empty() {
            return Ok(HashSet::new());
        }
        let rows = client.query(&self.erased, &[&tenants, &kinds, &keys]).await?;
        let place = |ordinality: i64| places[usize::try_from(ordinality).expect("ordinalities count from 1") - 1];
        Ok(rows.iter().map(|row| place(row.get(0))).collect())
    }
}
