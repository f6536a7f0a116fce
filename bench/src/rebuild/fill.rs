//! A log of many prospects in some companies, written straight into its tables: the domain's own events, sealed with keys of their own, as
//! the command service would have written them, without the hour that it would take.

use std::pin::pin;

use domain::company::{RegisterCompany, UpdateCompany};
use domain::prospect::{RegisterProspect, UpdateProspect};
use domain::{CompanyCommand, Context, Prospect, ProspectCommand, Record, RecordEvent};
use event_store::epoch;
use event_store::keyring::{Keyring, PersonKey};
use serde_json::json;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio_postgres::Client;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{Json, ToSql, Type};
use uuid::Uuid;

use crate::sample::{self, TENANT};

/// Prospects that are written at a time, with their companies.
const AT_A_TIME: u64 = 20_000;
/// Prospects of a company.
const OF_A_COMPANY: f64 = 1_000_000.0 / 150_000.0;
/// Of so many prospects, and of so many companies, one changes after it was registered.
const ONE_CHANGES_OF: u64 = 10;

const EVENT_TYPES: [Type; 11] = [
    Type::INT8,
    Type::UUID,
    Type::TEXT,
    Type::UUID,
    Type::INT8,
    Type::UUID,
    Type::TEXT,
    Type::INT2,
    Type::JSON,
    Type::JSON,
    Type::TIMESTAMPTZ,
];
const KEY_TYPES: [Type; 4] = [Type::UUID, Type::UUID, Type::TEXT, Type::BYTEA];

/// What is in the log.
pub struct Filled {
    /// Events.
    pub events: i64,
    /// Companies.
    pub companies: u64,
}

/// Writes so many prospects.
///
/// # Errors
/// If the server refuses.
pub async fn fill(client: &mut Client, keyring: &Keyring, prospects: u64) -> anyhow::Result<Filled> {
    let transaction = client.transaction().await?;
    epoch::begin(&transaction).await?;
    transaction.commit().await?;
    let mut log = Log {
        metadata: serde_json::to_string(&sample::metadata())?,
        position: 0,
        events: Vec::new(),
        keys: Vec::new(),
    };
    let (mut written, mut companies) = (0, 0);
    while written < prospects {
        let end = prospects.min(written + AT_A_TIME);
        let mut company = Uuid::nil();
        for number in written..end {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "numbers of records"
            )]
            let wanted = ((number + 1) as f64 / OF_A_COMPANY).ceil() as u64;
            if companies < wanted || company.is_nil() {
                companies += 1;
                company = log.company(companies)?;
            }
            log.prospect(keyring, number, company)?;
        }
        log.write(client).await?;
        written = end;
    }
    for statement in ["VACUUM ANALYZE log.events, log.person_keys", "CHECKPOINT"] {
        client.batch_execute(statement).await?;
    }
    Ok(Filled { events: log.position, companies })
}

struct Event {
    position: i64,
    sort: &'static str,
    record: Uuid,
    sequence: i64,
    id: Uuid,
    name: &'static str,
    form: i16,
    payload: Box<RawValue>,
}

struct Key {
    person: Uuid,
    wrapping_key_id: String,
    wrapped: Vec<u8>,
}

/// What is to be written next.
struct Log {
    metadata: String,
    position: i64,
    events: Vec<Event>,
    keys: Vec<Key>,
}

impl Log {
    fn company(&mut self, number: u64) -> anyhow::Result<Uuid> {
        let id = Uuid::now_v7();
        let mut body = sample::company(number);
        body["domain"] = json!(format!("benchmark-{number}.example"));
        body["phone"] = json!(format!("+49 531 {}", 100_000 + number));
        let register = RegisterCompany::parse(body).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
        let mut commands = vec![CompanyCommand::Register(register)];
        if number.is_multiple_of(ONE_CHANGES_OF) {
            let change = json!({"short_description": sample::description(number)});
            let update = UpdateCompany::parse(change).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
            commands.push(CompanyCommand::Update(update));
        }
        self.record::<domain::Company>("company", id, commands, None)?;
        Ok(id)
    }

    fn prospect(&mut self, keyring: &Keyring, number: u64, company: Uuid) -> anyhow::Result<()> {
        let id = Uuid::now_v7();
        let (key, wrapped) = keyring.new_person_key(TENANT, id)?;
        self.keys.push(Key { person: id, wrapping_key_id: wrapped.wrapping_key_id, wrapped: wrapped.wrapped });
        let body = sample::prospect(number, &company.to_string());
        let register = RegisterProspect::parse(body).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
        let mut commands = vec![ProspectCommand::Register(register)];
        if number.is_multiple_of(ONE_CHANGES_OF) {
            let change = json!({"city": "Wolfenbüttel", "job_title": "Head of Everything"});
            let update = UpdateProspect::parse(change).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
            commands.push(ProspectCommand::Update(update));
        }
        self.record::<Prospect>("prospect", id, commands, Some(&key))
    }

    fn record<R: Record>(
        &mut self,
        sort: &'static str,
        record: Uuid,
        commands: Vec<R::Command>,
        key: Option<&PersonKey>,
    ) -> anyhow::Result<()> {
        let mut state = R::default();
        let mut sequence = 0;
        for command in commands {
            let context = Context { now: OffsetDateTime::now_utc(), seed: Uuid::now_v7() };
            let decided = state.decide(command, &context).map_err(|error| anyhow::anyhow!("{error}"))?;
            for mut event in decided {
                state.evolve(&event);
                let id = Uuid::now_v7();
                if let (Some(key), Some(member)) = (key, event.personal_mut())
                    && let Some(open) = member.to_open_json()
                {
                    member.seal(key.seal(TENANT, record, id, &open)?);
                }
                (self.position, sequence) = (self.position + 1, sequence + 1);
                let payload = RawValue::from_string(event.payload())?;
                let (name, form) = (event.name(), event.form());
                self.events.push(Event { position: self.position, sort, record, sequence, id, name, form, payload });
            }
        }
        Ok(())
    }

    async fn write(&mut self, client: &Client) -> anyhow::Result<()> {
        let now = OffsetDateTime::now_utc();
        let metadata = RawValue::from_string(self.metadata.clone())?;
        let sink = client
            .copy_in(
                "COPY log.person_keys (tenant_id, person_id, wrapping_key_id, wrapped_key) FROM STDIN (FORMAT binary)",
            )
            .await?;
        let mut writer = pin!(BinaryCopyInWriter::new(sink, &KEY_TYPES));
        for key in self.keys.drain(..) {
            writer.as_mut().write(&[&TENANT, &key.person, &key.wrapping_key_id, &key.wrapped]).await?;
        }
        writer.finish().await?;
        let columns = "position, tenant_id, aggregate_type, aggregate_id, sequence, event_id, event_type, event_version, payload, \
                       metadata, recorded_at";
        let sink = client.copy_in(&format!("COPY log.events ({columns}) FROM STDIN (FORMAT binary)")).await?;
        let mut writer = pin!(BinaryCopyInWriter::new(sink, &EVENT_TYPES));
        for event in self.events.drain(..) {
            let (payload, metadata) = (Json(&event.payload), Json(&metadata));
            let row: [&(dyn ToSql + Sync); 11] = [
                &event.position,
                &TENANT,
                &event.sort,
                &event.record,
                &event.sequence,
                &event.id,
                &event.name,
                &event.form,
                &payload,
                &metadata,
                &now,
            ];
            writer.as_mut().write(&row).await?;
        }
        writer.finish().await?;
        Ok(())
    }
}
