//! The SQL files, their runner, the check that a database fits the code, and the tables of a projection's generation.
//!
//! Invariants: a released file never changes (its hash is kept beside its version, and a difference is an error); every file is
//! applied once, in order, together with its row in `migrations.applied`; two runners at once are fine. How to add a file stands
//! in `README.md`.

pub mod catalogue;
mod generation;
#[cfg(feature = "testing")]
pub mod testing;

pub use generation::{
    CODE_VERSION, COMPANY_PROSPECT, GenerationError, PROJECTIONS, create_generation, create_indexes, drop_generation,
    index_statements, open_access, point_views, schema_name,
};

use sha2::{Digest, Sha256};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// One numbered file.
struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

/// Every numbered file, in order. A new one gets its line here.
const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "roles", sql: include_str!("../sql/0001_roles.sql") },
    Migration { version: 2, name: "access", sql: include_str!("../sql/0002_access.sql") },
    Migration { version: 3, name: "log", sql: include_str!("../sql/0003_log.sql") },
    Migration { version: 4, name: "read", sql: include_str!("../sql/0004_read.sql") },
    Migration { version: 5, name: "duplicates", sql: include_str!("../sql/0005_duplicates.sql") },
    Migration { version: 6, name: "imports", sql: include_str!("../sql/0006_imports.sql") },
    Migration { version: 7, name: "proofs", sql: include_str!("../sql/0007_proofs.sql") },
    Migration { version: 8, name: "reads", sql: include_str!("../sql/0008_reads.sql") },
    Migration { version: 9, name: "erasures", sql: include_str!("../sql/0009_erasures.sql") },
    Migration { version: 10, name: "rebuilds", sql: include_str!("../sql/0010_rebuilds.sql") },
    Migration { version: 11, name: "analytics", sql: include_str!("../sql/0011_analytics.sql") },
    Migration { version: 12, name: "seeing", sql: include_str!("../sql/0012_seeing.sql") },
];

/// Serialises the runners of one database; any number that nobody else uses does.
const RUNNER_LOCK: i64 = 0x7072_6f73_7065_6374;

/// How long a runner waits for another one.
const RUNNER_LOCK_TIMEOUT: &str = "120s";

/// How long one statement of a file waits for a table: whoever comes after it would wait as long.
const TABLE_LOCK_TIMEOUT: &str = "10s";

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Files applied now, as `0003_log`; empty where there was nothing to do.
    pub applied: Vec<String>,
    /// Projections whose first generation was created now.
    pub generations: Vec<String>,
    /// Version of the database after the run.
    pub version: i32,
}

/// Why a database could not be migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database is not what the code's files describe.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A file failed; nothing of it was applied.
    #[error("migration {file}: {}", describe(.source))]
    File {
        /// Such as `0003_log`.
        file: String,
        /// What the server said.
        source: tokio_postgres::Error,
    },
    /// Another runner did not finish in time.
    #[error("another migration has been running for {RUNNER_LOCK_TIMEOUT}; try again when it has finished")]
    Busy,
    /// The first generation of a projection could not be created.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The connection or a statement of the runner failed.
    #[error("database: {}", describe(.0))]
    Database(#[from] tokio_postgres::Error),
}

/// Why a database does not fit the code.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Nothing was ever applied.
    #[error("the database has no tables yet: run `prospectus migrate`")]
    Empty,
    /// The database lacks files.
    #[error("the database is at version {found}, this program needs {wanted}: run `prospectus migrate`")]
    Older {
        /// Version of the database.
        found: i32,
        /// Version of the code.
        wanted: i32,
    },
    /// A newer release migrated the database.
    #[error("the database is at version {found}, this program knows only {wanted}: run a newer release of it")]
    Newer {
        /// Version of the database.
        found: i32,
        /// Version of the code.
        wanted: i32,
    },
    /// An applied file was edited.
    #[error(
        "migration {file} was changed after it was applied here; released files are never edited: restore the file, \
         and put the change into a new one"
    )]
    Changed {
        /// Such as `0003_log`.
        file: String,
    },
    /// The check itself failed.
    #[error("cannot read migrations.applied: {}", describe(.0))]
    Database(#[from] tokio_postgres::Error),
}

/// The version that this code needs: the number of its newest file.
pub fn version() -> i32 {
    MIGRATIONS.last().map_or(0, |newest| newest.version)
}

/// Applies what is missing, each file in a transaction of its own, and creates the first generation of every projection that
/// has none. The client must be a superuser's: roles are made where they are missing.
///
/// # Errors
/// See [`MigrateError`]; files before the one that failed stay applied.
pub async fn migrate(client: &mut Client) -> Result<Report, MigrateError> {
    lock(client).await?;
    let result = migrate_locked(client).await;
    // Where the connection is gone, so is the lock; that error is the one of `result`.
    let unlocked =
        client.execute("-- migrations::migrate\nSELECT pg_advisory_unlock($1 /* lock */)", &[&RUNNER_LOCK]).await;
    let report = result?;
    unlocked?;
    Ok(report)
}

/// Services call this when they start: the database must be exactly as the code's files made it.
///
/// # Errors
/// See [`SchemaError`]; its text says what to do.
pub async fn check(client: &Client) -> Result<(), SchemaError> {
    let applied = applied(client).await?;
    let (found, wanted) = (verify(&applied)?, version());
    match found {
        0 => Err(SchemaError::Empty),
        found if found < wanted => Err(SchemaError::Older { found, wanted }),
        _ => Ok(()),
    }
}

async fn lock(client: &Client) -> Result<(), MigrateError> {
    client
        .execute(
            "-- migrations::lock\nSELECT set_config('lock_timeout', $1 /* wait */, false)",
            &[&RUNNER_LOCK_TIMEOUT],
        )
        .await?;
    let locked = client.execute("-- migrations::lock\nSELECT pg_advisory_lock($1 /* lock */)", &[&RUNNER_LOCK]).await;
    client.batch_execute("-- migrations::lock\nRESET lock_timeout").await?;
    match locked {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Err(MigrateError::Busy),
        Err(error) => Err(error.into()),
    }
}

async fn migrate_locked(client: &mut Client) -> Result<Report, MigrateError> {
    client
        .batch_execute(
            "-- migrations::migrate_locked
             CREATE SCHEMA IF NOT EXISTS migrations;
             COMMENT ON SCHEMA migrations IS 'Which SQL files were applied to this database';
             CREATE TABLE IF NOT EXISTS migrations.applied (
                 version integer PRIMARY KEY CHECK (version >= 1),
                 name text NOT NULL,
                 sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
                 applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
             );
             COMMENT ON TABLE migrations.applied IS 'One row per applied file; services compare it with what they need';
             COMMENT ON COLUMN migrations.applied.version IS 'Number of the file';
             COMMENT ON COLUMN migrations.applied.name IS 'Name of the file without its number';
             COMMENT ON COLUMN migrations.applied.sha256 IS 'Hash of the file: a released file is never edited';
             COMMENT ON COLUMN migrations.applied.applied_at IS 'When';
             GRANT USAGE ON SCHEMA migrations TO PUBLIC;
             GRANT SELECT ON migrations.applied TO PUBLIC",
        )
        .await?;
    let found = verify(&applied(client).await?)?;
    let mut report = Report { applied: Vec::new(), generations: Vec::new(), version: version() };
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > found) {
        apply(client, migration).await.map_err(|source| MigrateError::File { file: migration.file(), source })?;
        tracing::info!(migration = migration.file(), "applied");
        report.applied.push(migration.file());
    }
    for projection in PROJECTIONS {
        if create_first_generation(client, projection).await? {
            report.generations.push((*projection).to_owned());
        }
    }
    create_missing_analytics(client).await?;
    Ok(report)
}

async fn apply(client: &mut Client, migration: &Migration) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction
        .execute("-- migrations::apply\nSELECT set_config('lock_timeout', $1 /* wait */, true)", &[&TABLE_LOCK_TIMEOUT])
        .await?;
    transaction.batch_execute(migration.sql).await?;
    transaction
        .execute(
            "-- migrations::apply
             INSERT INTO migrations.applied (version, name, sha256)
             VALUES ($1 /* version */, $2 /* name */, $3 /* hash */)",
            &[&migration.version, &migration.name, &migration.sha256()],
        )
        .await?;
    transaction.commit().await
}

async fn create_first_generation(client: &mut Client, projection: &str) -> Result<bool, MigrateError> {
    let transaction = client.transaction().await?;
    let exists: bool = transaction
        .query_one(
            "-- migrations::create_first_generation
             SELECT EXISTS (SELECT FROM read.generations AS g WHERE g.projection = $1 /* projection */)",
            &[&projection],
        )
        .await?
        .get(0);
    if exists {
        return Ok(false);
    }
    create_generation(&transaction, projection, 1, CODE_VERSION).await?;
    create_indexes(&transaction, projection, 1).await?;
    transaction
        .execute(
            "-- migrations::create_first_generation
             INSERT INTO read.live (projection, generation) VALUES ($1 /* projection */, 1)",
            &[&projection],
        )
        .await?;
    point_views(&transaction, projection, 1).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Gives the generations that were made by a release without analytics what is counted of them.
async fn create_missing_analytics(client: &mut Client) -> Result<(), MigrateError> {
    const SQL: &str = "-- migrations::create_missing_analytics
        SELECT g.generation FROM read.generations AS g
        WHERE g.projection = $1 /* projection */ AND to_regclass('read_' || g.generation || '.stats_as_of') IS NULL
        ORDER BY g.generation";
    for row in client.query(SQL, &[&COMPANY_PROSPECT]).await? {
        let generation = row.get(0);
        let transaction = client.transaction().await?;
        generation::create_analytics(&transaction, COMPANY_PROSPECT, generation).await?;
        transaction.commit().await?;
        tracing::info!(generation, "counted");
    }
    Ok(())
}

/// Version and hash of every applied file in order; nothing where the runner has never been.
async fn applied(client: &Client) -> Result<Vec<(i32, Vec<u8>)>, SchemaError> {
    let rows = client
        .query(
            "-- migrations::applied\nSELECT a.version, a.sha256 FROM migrations.applied AS a ORDER BY a.version",
            &[],
        )
        .await;
    match rows {
        Ok(rows) => Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect()),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// The newest applied version, 0 for none, if what was applied is what the code has.
fn verify(applied: &[(i32, Vec<u8>)]) -> Result<i32, SchemaError> {
    let found = applied.last().map_or(0, |(version, _)| *version);
    if found > version() {
        return Err(SchemaError::Newer { found, wanted: version() });
    }
    for migration in MIGRATIONS.iter().filter(|migration| migration.version <= found) {
        let hash = applied.iter().find(|(version, _)| *version == migration.version).map(|(_, hash)| hash);
        if hash != Some(&migration.sha256()) {
            return Err(SchemaError::Changed { file: migration.file() });
        }
    }
    Ok(found)
}

impl Migration {
    fn file(&self) -> String {
        format!("{:04}_{}", self.version, self.name)
    }

    fn sha256(&self) -> Vec<u8> {
        Sha256::digest(self.sql.as_bytes()).to_vec()
    }
}

/// The server's own message where there is one: tokio-postgres prints only "db error".
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => match said.where_() {
            Some(place) => format!("{} ({place})", said.message()),
            None => said.message().to_owned(),
        },
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}
