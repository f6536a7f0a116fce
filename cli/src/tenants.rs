//! `prospectus tenants`.

use serde_json::{Value, json};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::output::Output;
use crate::primary::{Primary, tenant_id};

/// Tenants: each is a wall that no request crosses.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  prospectus tenants create acme")]
pub enum Command {
    /// Makes a tenant.
    #[command(after_help = "Example:\n  prospectus tenants create acme")]
    Create {
        /// Its name: lower-case letters, digits, `-`, `_`.
        name: String,
        /// Answers with the tenant that has the name already, if there is one, instead of failing.
        #[arg(long)]
        if_missing: bool,
    },
    /// Changes what is decided for a tenant.
    #[command(after_help = "Example:\n  prospectus tenants set acme --audit-reads on --erased-persons refuse")]
    Set {
        /// Its name.
        name: String,
        /// Whether it is noted who reads which of its records. Then nothing is shown that could not be noted. Services know within 5
        /// seconds. `GET /v1/reads` lists the notes.
        #[arg(long, value_enum)]
        audit_reads: Option<Switch>,
        /// What becomes of an e-mail address of a person who was erased, when it is imported or entered again.
        #[arg(long, value_enum)]
        erased_persons: Option<ErasedPersons>,
    },
    /// Lists the tenants.
    #[command(after_help = "Example:\n  prospectus tenants list --json")]
    List,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// What becomes of somebody who was erased and is entered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ErasedPersons {
    /// Refused: a row of an import with the reason `erased_person`, a command with 409.
    Refuse,
    /// Let in, as somebody new.
    Admit,
}

impl ErasedPersons {
    fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Admit => "admit",
        }
    }
}

/// Runs the command.
///
/// # Errors
/// If a name is taken or not one, or the database fails.
pub async fn run(command: &Command, primary: &Primary) -> anyhow::Result<Output> {
    match command {
        Command::Create { name, if_missing } => create(name, *if_missing, primary).await,
        Command::Set { name, audit_reads, erased_persons } => set(name, *audit_reads, *erased_persons, primary).await,
        Command::List => list(primary).await,
    }
}

async fn create(name: &str, if_missing: bool, primary: &Primary) -> anyhow::Result<Output> {
    const SQL: &str = "-- cli::tenants::create
        INSERT INTO access.tenants (tenant_id, name) VALUES ($1 /* id */, $2 /* name */)";
    let client = primary.connect_migrated().await?;
    let new = Uuid::now_v7();
    let id = match client.execute(SQL, &[&new, &name]).await {
        Ok(_) => new,
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) && if_missing => {
            tenant_id(&client, name).await?
        }
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
            anyhow::bail!("there is a tenant {name:?} already")
        }
        Err(error) if error.code() == Some(&SqlState::CHECK_VIOLATION) => anyhow::bail!(
            "{name:?} is no name for a tenant: up to 63 lower-case letters, digits, - and _, beginning with a letter or digit"
        ),
        Err(error) => return Err(error.into()),
    };
    Ok(Output::new(json!({"tenant_id": id, "name": name}), format!("tenant {name} has the id {id}\n")))
}

async fn set(
    name: &str,
    audit_reads: Option<Switch>,
    erased_persons: Option<ErasedPersons>,
    primary: &Primary,
) -> anyhow::Result<Output> {
    const SQL: &str = "-- cli::tenants::set
        UPDATE access.tenants
        SET audit_reads = coalesce($2 /* noted */, audit_reads), erased_persons = coalesce($3 /* rule */, erased_persons)
        WHERE tenant_id = $1 /* tenant */ RETURNING audit_reads, erased_persons";
    anyhow::ensure!(
        audit_reads.is_some() || erased_persons.is_some(),
        "nothing is to be set: give --audit-reads, --erased-persons or both"
    );
    let client = primary.connect_migrated().await?;
    let id = tenant_id(&client, name).await?;
    let noted = audit_reads.map(|switch| switch == Switch::On);
    let row = client.query_one(SQL, &[&id, &noted, &erased_persons.map(ErasedPersons::name)]).await?;
    let (noted, rule): (bool, String) = (row.get(0), row.get(1));
    let said = if noted { "it is noted who reads its records" } else { "nobody notes who reads its records" };
    Ok(Output::new(
        json!({"tenant_id": id, "name": name, "audit_reads": noted, "erased_persons": rule}),
        format!(
            "tenant {name}: {said} (services know within 5 seconds); erased persons who are entered again: {rule}\n"
        ),
    ))
}

async fn list(primary: &Primary) -> anyhow::Result<Output> {
    const SQL: &str = "-- cli::tenants::list
        SELECT t.name, t.tenant_id,
               to_char(t.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
               (SELECT count(*) FROM access.api_keys AS k WHERE k.tenant_id = t.tenant_id AND k.revoked_at IS NULL),
               t.audit_reads, t.erased_persons
        FROM access.tenants AS t ORDER BY t.name";
    let rows = primary.connect_migrated().await?.query(SQL, &[]).await?;
    let rows: Vec<Vec<Value>> = rows
        .iter()
        .map(|row| {
            vec![
                row.get::<_, &str>(0).into(),
                row.get::<_, Uuid>(1).to_string().into(),
                row.get::<_, &str>(2).into(),
                row.get::<_, i64>(3).into(),
                row.get::<_, bool>(4).into(),
                row.get::<_, &str>(5).into(),
            ]
        })
        .collect();
    Ok(Output::rows(&["name", "tenant_id", "created_at", "keys", "audit_reads", "erased_persons"], &rows))
}
