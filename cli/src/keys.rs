//! `prospectus keys`: API keys of clients, and the rotation of the key-encryption key.

mod rotation;

use clap::ValueEnum;
use serde_json::{Value, json};
use service_kit::auth::{ApiKey, Role};

use crate::output::Output;
use crate::primary::{Primary, tenant_id};

/// API keys of clients; and the key-encryption keys that wrap the keys of personal data.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  prospectus keys create --tenant acme --role writer --name 'nightly import'")]
pub enum Command {
    /// Makes a key and shows it, once: the database keeps only a hash.
    #[command(after_help = "Example:\n  prospectus keys create --tenant acme --role writer --name 'nightly import'")]
    Create {
        /// Name of the tenant.
        #[arg(long)]
        tenant: String,
        /// reader: records and lists; writer: that and commands; auditor: records, histories, events, proofs; admin: everything.
        #[arg(long, value_enum)]
        role: RoleName,
        /// What the key is for.
        #[arg(long, default_value = "")]
        name: String,
    },
    /// Lists the keys, without their secrets.
    #[command(after_help = "Example:\n  prospectus keys list --tenant acme")]
    List {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Wraps the keys of all persons and imports by the first `wrap` key of the key file, while services run; what is interrupted goes on.
    ///
    /// Before: put a `wrap` line with a new key in front of the others in every service's key file, and restart the services. After: `prospectus
    /// keys retire` the old key; its line is still needed for backups that were made before.
    #[command(after_help = "Example:\n  prospectus keys rewrap --keyring-file /etc/prospectus/keyring")]
    Rewrap(rotation::Args),
    /// Retires a key-encryption key that wraps nothing any more: key files may do without it from then on.
    #[command(after_help = "Example:\n  prospectus keys retire k1")]
    Retire {
        /// Its name in the key file.
        id: String,
        #[command(flatten)]
        keyring: rotation::Args,
    },
    /// Revokes a key; services refuse it within 5 seconds.
    #[command(after_help = "Example:\n  prospectus keys revoke pk_0a1B2c3D4e5F")]
    Revoke {
        /// The part of the key before the dot.
        prefix: String,
    },
}

/// The roles, as arguments.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleName {
    Reader,
    Writer,
    Auditor,
    Admin,
}

impl RoleName {
    fn role(self) -> Role {
        match self {
            Self::Reader => Role::Reader,
            Self::Writer => Role::Writer,
            Self::Auditor => Role::Auditor,
            Self::Admin => Role::Admin,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// If a tenant or key does not exist, or the database fails.
pub async fn run(command: &Command, primary: &Primary) -> anyhow::Result<Output> {
    match command {
        Command::Create { tenant, role, name } => create(tenant, role.role(), name, primary).await,
        Command::List { tenant } => list(tenant.as_deref(), primary).await,
        Command::Revoke { prefix } => revoke(prefix, primary).await,
        Command::Rewrap(args) => rotation::rewrap(args, primary).await,
        Command::Retire { id, keyring } => rotation::retire(id, keyring, primary).await,
    }
}

async fn create(tenant: &str, role: Role, name: &str, primary: &Primary) -> anyhow::Result<Output> {
    const SQL: &str = "-- cli::keys::create
        INSERT INTO access.api_keys (prefix, tenant_id, secret_sha256, role, name)
        VALUES ($1 /* prefix */, $2 /* tenant */, $3 /* hash */, $4 /* role */, $5 /* name */)";
    anyhow::ensure!(name.chars().count() <= 255, "--name has more than 255 characters: shorten it");
    let client = primary.connect_migrated().await?;
    let tenant_id = tenant_id(&client, tenant).await?;
    let key = ApiKey::generate()?;
    let hash = key.secret_sha256();
    client.execute(SQL, &[&key.prefix(), &tenant_id, &hash.as_slice(), &role.name(), &name]).await?;
    Ok(Output::new(
        json!({"key": key.expose(), "prefix": key.prefix(), "tenant": tenant, "tenant_id": tenant_id, "role": role.name(), "name": name}),
        format!("{}\n\nKeep it now: it is not shown again. Role {}, tenant {tenant}.\n", key.expose(), role.name()),
    ))
}

async fn list(tenant: Option<&str>, primary: &Primary) -> anyhow::Result<Output> {
    const SQL: &str = "-- cli::keys::list
        SELECT k.prefix, t.name, k.role, k.name,
               to_char(k.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
               to_char(k.revoked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
        FROM access.api_keys AS k JOIN access.tenants AS t USING (tenant_id)
        WHERE $1::uuid IS NULL /* tenant */ OR k.tenant_id = $1
        ORDER BY t.name, k.created_at, k.prefix";
    let client = primary.connect_migrated().await?;
    let wanted = match tenant {
        Some(name) => Some(tenant_id(&client, name).await?),
        None => None,
    };
    let text = |row: &tokio_postgres::Row, column| row.get::<_, Option<&str>>(column).into();
    let rows: Vec<Vec<Value>> = client
        .query(SQL, &[&wanted])
        .await?
        .iter()
        .map(|row| (0..6).map(|column| text(row, column)).collect())
        .collect();
    Ok(Output::rows(&["prefix", "tenant", "role", "name", "created_at", "revoked_at"], &rows))
}

async fn revoke(prefix: &str, primary: &Primary) -> anyhow::Result<Output> {
    const SQL: &str = "-- cli::keys::revoke
        UPDATE access.api_keys AS k SET revoked_at = coalesce(k.revoked_at, greatest(clock_timestamp(), k.created_at))
        WHERE k.prefix = $1 /* prefix */";
    // Whoever pastes the whole key means its prefix; the secret goes no further.
    let prefix = prefix.split('.').next().unwrap_or_default();
    if primary.connect_migrated().await?.execute(SQL, &[&prefix]).await? == 0 {
        anyhow::bail!("there is no key {prefix:?}: `prospectus keys list` shows them");
    }
    Ok(Output::new(json!({"prefix": prefix, "revoked": true}), format!("{prefix} is revoked\n")))
}
