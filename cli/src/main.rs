//! `prospectus`: the operators', auditors' and importers' command. One file per command; each gives an [`output::Output`], which is
//! printed as text or, with `--json`, as one JSON document. Exit codes: 0 done, 1 refused or not well, 2 wrong usage.
//!
//! To add a command: a file with its `Args` and its `run`, a variant here, a line in `run`.

mod api;
mod audit;
mod backup;
mod domains;
mod erasures;
mod import;
mod integrity;
mod keys;
mod log;
mod migrate;
mod output;
mod primary;
mod projection;
mod rebuild;
mod restore;
mod schema;
mod sql_roles;
mod status;
mod tenants;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use service_kit::config::Secret;

/// Operates Prospectus.
#[derive(Debug, Parser)]
#[command(name = "prospectus", version, arg_required_else_help = true)]
struct Cli {
    /// A superuser's connection to the primary: `postgres://postgres:…@host:5432/prospectus`.
    #[arg(long, env = "PROSPECTUS_PRIMARY_URL", hide_env_values = true, global = true)]
    primary_url: Option<Secret>,
    /// Answers with one JSON document.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Migrate(migrate::Args),
    #[command(subcommand)]
    Tenants(tenants::Command),
    #[command(subcommand)]
    Keys(keys::Command),
    #[command(subcommand)]
    SqlRoles(sql_roles::Command),
    Status(status::Args),
    Integrity(integrity::Args),
    Rebuild(rebuild::RebuildArgs),
    Rollback(rebuild::RollbackArgs),
    Verify(verify::Args),
    #[command(subcommand)]
    Audit(audit::Command),
    #[command(subcommand)]
    Domains(domains::Command),
    Import(Box<import::Args>),
    #[command(subcommand)]
    Erasures(erasures::Command),
    #[command(subcommand)]
    Log(log::Command),
    #[command(subcommand)]
    Projection(projection::Command),
    #[command(subcommand)]
    Schema(schema::Command),
    Backup(Box<backup::Args>),
    Restore(Box<restore::Args>),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli).await {
        Ok(output) => output.print(cli.json),
        Err(error) => output::print_error(&error, cli.json),
    }
}

async fn run(cli: &Cli) -> anyhow::Result<output::Output> {
    // Not every command works on the primary.
    let primary = || primary::Primary::new(cli.primary_url.as_ref());
    match &cli.command {
        Command::Migrate(args) => migrate::run(args, &primary()?).await,
        Command::Tenants(command) => tenants::run(command, &primary()?).await,
        Command::Keys(command) => keys::run(command, &primary()?).await,
        Command::SqlRoles(command) => sql_roles::run(command, &primary()?).await,
        Command::Status(args) => status::run(args, &primary()?).await,
        Command::Integrity(args) => integrity::run(args, &primary()?).await,
        Command::Rebuild(args) => rebuild::rebuild(args, &primary()?).await,
        Command::Rollback(args) => rebuild::rollback(args, &primary()?).await,
        Command::Verify(args) => verify::run(args, &primary()?).await,
        Command::Audit(command) => audit::run(command, cli.json, primary).await,
        Command::Domains(command) => Ok(domains::run(command)),
        Command::Import(args) => import::run(args).await,
        Command::Erasures(command) => erasures::run(command, &primary()?).await,
        Command::Log(command) => log::run(command, &primary()?).await,
        Command::Projection(command) => projection::run(command, &primary()?).await,
        Command::Schema(command) => schema::run(command, &primary()?, cli.primary_url.as_ref()).await,
        Command::Backup(args) => Box::pin(backup::run(args, primary)).await,
        Command::Restore(args) => Box::pin(restore::run(args)).await,
    }
}
