//! Where everything is: the stack's variables, and databases of the benchmark's own beside the stack's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use event_store::Keyring;
use service_kit::postgres::Database;
use tokio::process::Command;
use tokio_postgres::Client;

use crate::results::Results;

/// The stack that the benchmark runs in.
pub struct BenchStack {
    primary: String,
    /// A superuser's address of the first replica.
    pub replica: String,
    /// Base address of the command service.
    pub command: String,
    /// Base address of the query service.
    pub query: String,
    /// A key with role admin.
    pub key: String,
    /// The keys that seal.
    pub keyring: Arc<Keyring>,
    passwords: String,
    data: PathBuf,
}

impl BenchStack {
    /// Reads the variables that `local-stack exec` sets.
    ///
    /// # Errors
    /// If one is missing: it does not run in a stack.
    pub fn from_environment() -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set: run `make bench`"));
        let replicas = variable("PROSPECTUS_REPLICA_URLS")?;
        let keys = std::fs::read_to_string(variable("PROSPECTUS_KEYRING_FILE")?).context("the stack's keys")?;
        Ok(Self {
            primary: variable("PROSPECTUS_PRIMARY_URL")?,
            replica: replicas.split(',').next().unwrap_or_default().to_owned(),
            command: variable("PROSPECTUS_COMMAND_URL")?,
            query: variable("PROSPECTUS_QUERY_URL")?,
            key: variable("PROSPECTUS_API_KEY")?,
            keyring: Arc::new(Keyring::parse(&keys)?),
            passwords: variable("PROSPECTUS_ROLE_PASSWORDS")?,
            data: variable("PROSPECTUS_DATA_DIR")?.into(),
        })
    }

    /// A superuser's address of a database of the primary.
    pub fn url(&self, database: &str) -> String {
        let (server, _) = self.primary.rsplit_once('/').unwrap_or((&self.primary, ""));
        format!("{server}/{database}")
    }

    /// The database that the services of the stack use.
    pub fn database(&self) -> &str {
        self.primary.rsplit_once('/').map_or("", |(_, database)| database)
    }

    /// A superuser's connection to a database of the primary.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn superuser(&self, database: &str) -> anyhow::Result<Client> {
        Ok(Database::parse(&self.url(database), "bench")?.client().await?)
    }

    /// Many connections to a database of the primary.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn superusers(&self, database: &str, count: usize) -> anyhow::Result<Vec<Client>> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(self.superuser(database).await?);
        }
        Ok(clients)
    }

    /// The appender's way into a database of the primary.
    ///
    /// # Errors
    /// If the stack's variables are not of their form.
    pub fn appender(&self, database: &str) -> anyhow::Result<Database> {
        self.role(database, "prospectus_appender")
    }

    /// A role's way into a database of the primary.
    ///
    /// # Errors
    /// If the stack's variables are not of their form.
    pub fn role(&self, database: &str, role: &str) -> anyhow::Result<Database> {
        let mut passwords = self.passwords.split(',').filter_map(|pair| pair.split_once('='));
        let password = passwords.find(|(name, _)| *name == role);
        let (_, password) = password.with_context(|| format!("no password of the role {role}"))?;
        let url = self.url(database);
        let (_, address) = url.split_once('@').context("the primary's URL has no user")?;
        Ok(Database::parse(&format!("postgres://{role}:{password}@{address}"), "bench")?)
    }

    /// A fresh, migrated database, so that every round begins alike.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn fresh(&self, name: &str) -> anyhow::Result<String> {
        let name = format!("bench_{name}");
        let server = self.superuser("postgres").await?;
        server.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
        server.batch_execute(&format!("CREATE DATABASE {name}")).await?;
        let mut client = self.superuser(&name).await?;
        migrations::migrate(&mut client).await?;
        // What was written before is not written out during what is measured now.
        server.batch_execute("CHECKPOINT").await?;
        Ok(name)
    }

    /// Removes a database that was made by [`BenchStack::fresh`].
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn remove(&self, name: &str) -> anyhow::Result<()> {
        let server = self.superuser("postgres").await?;
        server.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await?;
        server.batch_execute("CHECKPOINT").await?;
        Ok(())
    }

    /// Stops or starts a part of the stack.
    ///
    /// # Errors
    /// If the stack does not do it.
    pub async fn order(&self, order: &str, part: &str) -> anyhow::Result<()> {
        let program = std::env::current_exe()?.with_file_name("local-stack");
        let status = Command::new(&program).args([order, part]).status().await;
        let status = status.with_context(|| format!("{} cannot be run", program.display()))?;
        ensure!(status.success(), "local-stack {order} {part}: {status}");
        Ok(())
    }

    /// Resident memory of the services, now.
    ///
    /// # Errors
    /// If the processes cannot be looked at.
    pub fn memory(&self, results: &mut Results) -> anyhow::Result<()> {
        for part in ["command_service", "projector", "query_service"] {
            results.add(&format!("memory.{part}"), "MiB", self.memory_mib(part, "VmRSS:")?);
        }
        Ok(())
    }

    /// Resident memory of a service, now, in MiB.
    ///
    /// # Errors
    /// If the process cannot be looked at.
    pub fn resident_mib(&self, part: &str) -> anyhow::Result<f64> {
        self.memory_mib(part, "VmRSS:")
    }

    /// Has a service's greatest resident memory counted from now on.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn forget_peak(&self, part: &str) -> anyhow::Result<()> {
        let path = self.process(part)?.join("clear_refs");
        // 5: the peak becomes what is resident now (proc(5)).
        std::fs::write(&path, "5").with_context(|| format!("writing {}", path.display()))
    }

    /// The greatest resident memory of a service since [`BenchStack::forget_peak`], in MiB.
    ///
    /// # Errors
    /// If the process cannot be looked at.
    pub fn peak_mib(&self, part: &str) -> anyhow::Result<f64> {
        self.memory_mib(part, "VmHWM:")
    }

    fn memory_mib(&self, part: &str, line: &str) -> anyhow::Result<f64> {
        memory_of(&self.process(part)?, line)
    }

    fn process(&self, part: &str) -> anyhow::Result<PathBuf> {
        let pids = std::fs::read_to_string(self.data.join("pids.json")).context("pids.json")?;
        let pids: BTreeMap<String, u32> = serde_json::from_str(&pids)?;
        let pid = pids.get(part).with_context(|| format!("no {part} in pids.json"))?;
        Ok(Path::new("/proc").join(pid.to_string()))
    }
}

/// A line of a process's status (proc(5)), in MiB.
fn memory_of(process: &Path, line: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(process.join("status"))?;
    let kib = status.lines().find_map(|text| text.strip_prefix(line)?.trim().strip_suffix(" kB"));
    let kib: f64 = kib.with_context(|| format!("no {line} in the process's status"))?.parse()?;
    Ok(kib / 1024.0)
}

/// A line of this process's own status, in MiB.
///
/// # Errors
/// If the system does not tell.
pub fn own_memory(line: &str) -> anyhow::Result<f64> {
    memory_of(Path::new("/proc/self"), line)
}

/// Has this process's greatest resident memory counted from now on.
///
/// # Errors
/// If the system does not let us.
pub fn forget_own_peak() -> anyhow::Result<()> {
    std::fs::write("/proc/self/clear_refs", "5").context("writing /proc/self/clear_refs")
}
