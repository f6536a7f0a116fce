//! `prospectus sql-roles`: people with a database client, each bound to one tenant (decision 15).

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::output::Output;
use crate::primary::{Primary, tenant_id};

/// SQL roles of people: read-only, each bound to one tenant.
#[derive(Debug, clap::Subcommand)]
#[command(
    after_help = "Example:\n  CREATE ROLE ada LOGIN PASSWORD '…';          -- in psql\n  prospectus sql-roles grant ada --tenant acme"
)]
pub enum Command {
    /// Lets an existing login role read one tenant's rows, or binds it to another tenant.
    #[command(after_help = "Example:\n  prospectus sql-roles grant ada --tenant acme")]
    Grant {
        /// The login role, which the server's administrator has made.
        role: String,
        /// Name of the tenant.
        #[arg(long)]
        tenant: String,
    },
    /// Lists the bound roles.
    #[command(after_help = "Example:\n  prospectus sql-roles list")]
    List,
    /// Takes the rights away; the role itself stays.
    #[command(after_help = "Example:\n  prospectus sql-roles revoke ada")]
    Revoke {
        /// The login role.
        role: String,
    },
}

/// Runs the command.
///
/// # Errors
/// If the role or tenant does not exist, the role could see more than its tenant, or the database fails.
pub async fn run(command: &Command, primary: &Primary) -> anyhow::Result<Output> {
    match command {
        Command::Grant { role, tenant } => grant(role, tenant, primary).await,
        Command::List => list(primary).await,
        Command::Revoke { role } => revoke(role, primary).await,
    }
}

async fn grant(role: &str, tenant: &str, primary: &Primary) -> anyhow::Result<Output> {
    const BIND: &str = "-- cli::sql_roles::grant
        INSERT INTO access.sql_roles (role_name, tenant_id) VALUES ($1::text::name /* role */, $2 /* tenant */)
        ON CONFLICT (role_name) DO UPDATE SET tenant_id = excluded.tenant_id";
    let mut client = primary.connect_migrated().await?;
    let tenant_id = tenant_id(&client, tenant).await?;
    refuse_strong_role(&client, role).await?;
    let statement = statement(&client, "GRANT prospectus_people TO %I", role).await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute(&statement).await?;
    transaction.execute(BIND, &[&role, &tenant_id]).await?;
    transaction.commit().await?;
    Ok(Output::new(
        json!({"role": role, "tenant": tenant, "tenant_id": tenant_id}),
        format!("{role} reads the rows of {tenant} (log.events, read.companies, read.company_prospect, …)\n"),
    ))
}

/// A role that row-level security does not bind, or that has rights of another role of ours, is not a person's.
async fn refuse_strong_role(client: &Client, role: &str) -> anyhow::Result<()> {
    const SQL: &str = "-- cli::sql_roles::refuse_strong_role
        SELECT r.rolcanlogin, r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolreplication,
               (SELECT string_agg(o.rolname, ', ') FROM pg_roles AS o
                WHERE (o.rolname LIKE 'prospectus\\_%' OR o.rolname LIKE 'pg\\_%')
                  AND o.rolname <> 'prospectus_people' AND pg_has_role(r.oid, o.oid, 'MEMBER'))
        FROM pg_roles AS r WHERE r.rolname = $1::text /* role */";
    let Some(row) = client.query_opt(SQL, &[&role]).await? else {
        anyhow::bail!("there is no role {role:?}: make it first, with CREATE ROLE … LOGIN PASSWORD '…'")
    };
    let (can_login, strong, member_of): (bool, bool, Option<String>) = (row.get(0), row.get(1), row.get(2));
    anyhow::ensure!(can_login, "{role:?} cannot log in: it must be a person's own login role");
    anyhow::ensure!(
        !strong,
        "{role:?} is a superuser or may bypass row-level security, create roles or replicate: no tenant can bind it"
    );
    if let Some(roles) = member_of {
        anyhow::bail!("{role:?} has the rights of {roles}, which see more than one tenant: use a role without them");
    }
    Ok(())
}

async fn list(primary: &Primary) -> anyhow::Result<Output> {
    const SQL: &str = "-- cli::sql_roles::list
        SELECT r.role_name::text, t.name,
               coalesce(pg_has_role(p.oid, 'prospectus_people', 'MEMBER'), false)
        FROM access.sql_roles AS r
        JOIN access.tenants AS t USING (tenant_id)
        LEFT JOIN pg_roles AS p ON p.rolname = r.role_name
        ORDER BY 1";
    let rows = primary.connect_migrated().await?.query(SQL, &[]).await?;
    let rows: Vec<Vec<Value>> = rows
        .iter()
        .map(|row| vec![row.get::<_, &str>(0).into(), row.get::<_, &str>(1).into(), row.get::<_, bool>(2).into()])
        .collect();
    Ok(Output::rows(&["role", "tenant", "active"], &rows))
}

async fn revoke(role: &str, primary: &Primary) -> anyhow::Result<Output> {
    const UNBIND: &str = "-- cli::sql_roles::revoke
        DELETE FROM access.sql_roles WHERE role_name = $1::text::name /* role */";
    const EXISTS: &str = "-- cli::sql_roles::revoke
        SELECT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = $1::text /* role */)";
    let mut client = primary.connect_migrated().await?;
    let statement = statement(&client, "REVOKE prospectus_people FROM %I", role).await?;
    let exists: bool = client.query_one(EXISTS, &[&role]).await?.get(0);
    let transaction = client.transaction().await?;
    let unbound = transaction.execute(UNBIND, &[&role]).await?;
    if exists {
        transaction.batch_execute(&statement).await?;
    }
    transaction.commit().await?;
    if unbound == 0 {
        anyhow::bail!("{role:?} was bound to no tenant: `prospectus sql-roles list` shows those that are");
    }
    Ok(Output::new(json!({"role": role, "revoked": true}), format!("{role} reads nothing any more\n")))
}

/// The server quotes the name, so that any name is one.
async fn statement(client: &Client, template: &str, role: &str) -> anyhow::Result<String> {
    const SQL: &str = "-- cli::sql_roles::statement
        SELECT format($1::text /* template */, $2::text /* role */)";
    Ok(client.query_one(SQL, &[&template, &role]).await?.get(0))
}
