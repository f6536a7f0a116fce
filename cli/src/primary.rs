//! The primary that every command works on.

use anyhow::Context;
use event_store::Keyring;
use service_kit::config::{KeyringArgs, Secret};
use service_kit::postgres::Database;
use tokio_postgres::Client;
use uuid::Uuid;

/// The primary's address.
#[derive(Debug)]
pub struct Primary {
    database: Database,
}

impl Primary {
    /// The primary at this URL.
    ///
    /// # Errors
    /// If there is none, or it is not one.
    pub fn new(url: Option<&Secret>) -> anyhow::Result<Self> {
        let url = url.context(
            "PROSPECTUS_PRIMARY_URL is not set: give a superuser's connection to the primary, \
             such as postgres://postgres:…@host:5432/prospectus",
        )?;
        Ok(Self { database: Database::parse(url.expose(), "prospectus")?.read_write() })
    }

    /// The server's address, for what makes connections of its own.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// A connection.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        self.database.client().await.with_context(|| {
            format!(
                "cannot connect to the primary at {}; check PROSPECTUS_PRIMARY_URL and that it is running",
                self.database.name()
            )
        })
    }

    /// A connection to a database that fits this program.
    ///
    /// # Errors
    /// If the server cannot be reached, or its schema is of another version.
    pub async fn connect_migrated(&self) -> anyhow::Result<Client> {
        let client = self.connect().await?;
        migrations::check(&client).await?;
        Ok(client)
    }
}

/// The keys of the key file, checked against those that the log was written with.
///
/// # Errors
/// If there is no key file, or it is another log's.
pub async fn keyring(args: &KeyringArgs, client: &Client) -> anyhow::Result<Keyring> {
    let keyring = Keyring::parse(args.text()?.expose())?;
    keyring.verify(client, false).await?;
    Ok(keyring)
}

/// The id of the tenant with this name.
///
/// # Errors
/// If there is none.
pub async fn tenant_id(client: &Client, name: &str) -> anyhow::Result<Uuid> {
    const SQL: &str = "-- cli::primary::tenant_id
        SELECT t.tenant_id FROM access.tenants AS t WHERE t.name = $1 /* name */";
    match client.query_opt(SQL, &[&name]).await? {
        Some(row) => Ok(row.get(0)),
        None => anyhow::bail!(
            "there is no tenant {name:?}: `prospectus tenants list` shows them, `prospectus tenants create {name}` makes it"
        ),
    }
}
