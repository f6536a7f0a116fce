//! The tables of one generation of a projection (decision 13). Tables, indexes and views are apart, because a rebuild loads
//! between the first two and moves the last only when it goes live. What is counted of a generation (decision 0012) comes with its tables,
//! while they are empty: a materialized view that was filled once can always be refreshed without keeping readers out. All of it belongs to `prospectus_builder`, which whoever calls
//! must be able to become: a superuser, or the projector.

use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;

/// Companies, and prospects with their companies.
pub const COMPANY_PROSPECT: &str = "company_prospect";

/// Every projection that has generations.
pub const PROJECTIONS: &[&str] = &[COMPANY_PROSPECT];

/// Version of the code that builds a projection's rows. Whoever changes what a row shows, or a generation's tables, raises it: a projector
/// that finds the live generation to be of a lower one rebuilds.
pub const CODE_VERSION: i32 = 1;

/// Why a generation could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// No projection has this name.
    #[error("there is no projection {0:?}")]
    Unknown(String),
    /// The server refused.
    #[error("generation of a projection: {}", crate::describe(.0))]
    Database(#[from] tokio_postgres::Error),
}

/// The SQL of a projection, with `{schema}` where the generation's schema goes.
struct Files {
    tables: &'static str,
    indexes: &'static str,
    access: &'static str,
    views: &'static str,
    no_views: &'static str,
    analytics: &'static str,
}

fn files(projection: &str) -> Result<Files, GenerationError> {
    match projection {
        COMPANY_PROSPECT => Ok(Files {
            tables: include_str!("../sql/generation/company_prospect.sql"),
            indexes: include_str!("../sql/generation/company_prospect_indexes.sql"),
            access: include_str!("../sql/generation/company_prospect_access.sql"),
            views: include_str!("../sql/generation/company_prospect_views.sql"),
            no_views: "DROP VIEW IF EXISTS read.company_prospect_view, read.company_prospect, read.companies",
            analytics: include_str!("../sql/generation/company_prospect_analytics.sql"),
        }),
        unknown => Err(GenerationError::Unknown(unknown.to_owned())),
    }
}

/// The schema that holds a generation's tables.
pub fn schema_name(generation: i32) -> String {
    format!("read_{generation}")
}

/// Makes a generation's tables without indexes, its row in `read.generations`, its first checkpoint (step 0, position 0), and the views
/// of what is counted of it. Nobody but its maker sees them before [`create_indexes`], or [`open_access`].
///
/// # Errors
/// If the projection is unknown or the server refuses, for instance because the generation exists.
pub async fn create_generation(
    transaction: &Transaction<'_>,
    projection: &str,
    generation: i32,
    code_version: i32,
) -> Result<(), GenerationError> {
    run_as_builder(transaction, files(projection)?.tables, generation).await?;
    transaction
        .execute(
            "-- migrations::generation::create_generation
             INSERT INTO read.generations (projection, generation, code_version)
             VALUES ($1 /* projection */, $2 /* generation */, $3 /* code version */)",
            &[&projection, &generation, &code_version],
        )
        .await?;
    transaction
        .execute(
            "-- migrations::generation::create_generation
             INSERT INTO read.checkpoint_steps (projection, generation, step, position, epoch)
             VALUES ($1 /* projection */, $2 /* generation */, 0, 0, '')",
            &[&projection, &generation],
        )
        .await?;
    create_analytics(transaction, projection, generation).await
}

/// Makes the views of what is counted of a generation, filled from its tables as they are.
///
/// # Errors
/// If the projection is unknown or the server refuses, for instance because they exist.
pub(crate) async fn create_analytics(
    transaction: &Transaction<'_>,
    projection: &str,
    generation: i32,
) -> Result<(), GenerationError> {
    run_as_builder(transaction, files(projection)?.analytics, generation).await
}

/// Makes a generation's indexes, after its rows are loaded, and lets others see it.
///
/// # Errors
/// If the projection is unknown or the server refuses.
pub async fn create_indexes(
    transaction: &Transaction<'_>,
    projection: &str,
    generation: i32,
) -> Result<(), GenerationError> {
    run_as_builder(transaction, files(projection)?.indexes, generation).await?;
    open_access(transaction, projection, generation).await
}

/// The statements that make a generation's keys and indexes, in their order, one by one: for who wants to see how far it is.
///
/// # Errors
/// If the projection is unknown.
pub fn index_statements(projection: &str, generation: i32) -> Result<Vec<String>, GenerationError> {
    let sql = with_schema(files(projection)?.indexes, generation);
    Ok(sql.split_inclusive(";\n").map(str::to_owned).filter(|statement| !statement.trim().is_empty()).collect())
}

/// Lets others see a generation whose rows and indexes are there, and has steps begin.
///
/// # Errors
/// If the projection is unknown or the server refuses.
pub async fn open_access(
    transaction: &Transaction<'_>,
    projection: &str,
    generation: i32,
) -> Result<(), GenerationError> {
    run_as_builder(transaction, files(projection)?.access, generation).await?;
    transaction
        .execute(
            "-- migrations::generation::open_access
             UPDATE read.generations SET loaded_at = clock_timestamp()
             WHERE projection = $1 /* projection */ AND generation = $2 /* generation */",
            &[&projection, &generation],
        )
        .await?;
    Ok(())
}

/// Removes a generation and all that stands about it. The views must not show it.
///
/// # Errors
/// If the server refuses: it is live, or a roll-back leads to it, or somebody still has a lock on its tables.
pub async fn drop_generation(
    transaction: &Transaction<'_>,
    projection: &str,
    generation: i32,
) -> Result<(), GenerationError> {
    for table in ["read.fanout", "read.checkpoint_steps", "read.generations"] {
        let sql = format!(
            "-- migrations::generation::drop_generation
             DELETE FROM {table} WHERE projection = $1 /* projection */ AND generation = $2 /* generation */"
        );
        transaction.execute(&sql, &[&projection, &generation]).await?;
    }
    run_as_builder(transaction, "DROP SCHEMA IF EXISTS {schema} CASCADE", generation).await
}

/// Points the views under the fixed names (`read.companies`, …) at a generation. Takes their locks: set a `lock_timeout` before,
/// and try again (decision 13).
///
/// # Errors
/// If the projection is unknown or the server refuses.
pub async fn point_views(
    transaction: &Transaction<'_>,
    projection: &str,
    generation: i32,
) -> Result<(), GenerationError> {
    let files = files(projection)?;
    transaction.batch_execute("SAVEPOINT views").await?;
    match run_as_builder(transaction, files.views, generation).await {
        // Another version's views have other columns: then they are made anew, unless somebody has built upon them.
        Err(GenerationError::Database(error)) if error.code() == Some(&SqlState::INVALID_TABLE_DEFINITION) => {
            transaction.batch_execute("ROLLBACK TO SAVEPOINT views").await?;
            run_as_builder(transaction, files.no_views, generation).await?;
            run_as_builder(transaction, files.views, generation).await?;
        }
        pointed => pointed?,
    }
    transaction
        .execute(
            "-- migrations::generation::point_views
             UPDATE read.live SET views_generation = $2 /* generation */ WHERE projection = $1 /* projection */",
            &[&projection, &generation],
        )
        .await?;
    Ok(())
}

async fn run_as_builder(transaction: &Transaction<'_>, sql: &str, generation: i32) -> Result<(), GenerationError> {
    transaction.batch_execute("SET LOCAL ROLE prospectus_builder").await?;
    transaction.batch_execute(&with_schema(sql, generation)).await?;
    transaction.batch_execute("SET LOCAL ROLE NONE").await?;
    Ok(())
}

/// The name is ours and holds a number only, so putting it into the text is safe.
fn with_schema(sql: &str, generation: i32) -> String {
    sql.replace("{schema}", &schema_name(generation)).replace("{generation}", &generation.to_string())
}
