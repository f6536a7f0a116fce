//! The tables of one generation of a projection (decision 13). Tables, indexes and views are apart, because a rebuild loads
//! between the first two and moves the last only when it goes live. What is counted of a generation (decision 0012) comes with its tables,
//! while they are empty: a materialized view that was filled once can always be refreshed without keeping readers out.

use tokio_postgres::Transaction;

/// Companies, and prospects with their companies.
pub const COMPANY_PROSPECT: &str = "company_prospect";

/// Every projection that has generations.
pub const PROJECTIONS: &[&str] = &[COMPANY_PROSPECT];

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
    views: &'static str,
    analytics: &'static str,
}

fn files(projection: &str) -> Result<Files, GenerationError> {
    match projection {
        COMPANY_PROSPECT => Ok(Files {
            tables: include_str!("../sql/generation/company_prospect.sql"),
            indexes: include_str!("../sql/generation/company_prospect_indexes.sql"),
            views: include_str!("../sql/generation/company_prospect_views.sql"),
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
/// of what is counted of it.
/// The caller may become `prospectus_owner`: a superuser or a member.
///
/// # Errors
/// If the projection is unknown or the server refuses, for instance because the generation exists.
pub async fn create_generation(
    transaction: &Transaction<'_>,
    projection: &str,
    generation: i32,
    code_version: i32,
) -> Result<(), GenerationError> {
    run_as_owner(transaction, files(projection)?.tables, generation).await?;
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
    run_as_owner(transaction, files(projection)?.analytics, generation).await
}

/// Makes a generation's indexes, after its rows are loaded.
///
/// # Errors
/// If the projection is unknown or the server refuses.
pub async fn create_indexes(
    transaction: &Transaction<'_>,
    projection: &str,
    generation: i32,
) -> Result<(), GenerationError> {
    run_as_owner(transaction, files(projection)?.indexes, generation).await
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
    run_as_owner(transaction, files(projection)?.views, generation).await
}

async fn run_as_owner(transaction: &Transaction<'_>, sql: &str, generation: i32) -> Result<(), GenerationError> {
    // The name is ours and holds a number only, so putting it into the text is safe.
    let sql = sql.replace("{schema}", &schema_name(generation)).replace("{generation}", &generation.to_string());
    transaction.batch_execute("SET LOCAL ROLE prospectus_owner").await?;
    transaction.batch_execute(&sql).await?;
    transaction.batch_execute("SET LOCAL ROLE NONE").await?;
    Ok(())
}
