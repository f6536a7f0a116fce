//! Requirement 003's materialized view over the same data, refreshed, beside the time in which our table shows one change; and how long the
//! refresh of what we count takes.

use std::time::{Duration, Instant};

use anyhow::ensure;
use service_kit::postgres::Database;
use tokio::task::JoinSet;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::client::{Connection, made};
use crate::clock::percentile_ms;
use crate::http::CONNECTIONS;
use crate::results::Results;
use crate::sample;
use crate::stack::BenchStack;

/// Prospects of each company that is registered for this.
const PROSPECTS_EACH: u64 = 10;
/// Changes of each round, of which the median counts.
const CHANGES: usize = 50;
/// Between two looks at the replica; what is found later for that reason counts as later.
const LOOK: Duration = Duration::from_millis(1);
/// How long a change may take to show before it counts as lost, and a minute's share of the projecting at the beginning.
const PATIENCE: Duration = Duration::from_secs(60);
/// Minutes that the projector may take for the rows at the beginning.
const MINUTES_MAX: u32 = 30;

/// The tables and the view of requirement 003, with its indexes; the unique one is what CONCURRENTLY asks for.
const VIEW: &str = "
    CREATE INDEX ON bench_003.prospect (company_id);
    CREATE MATERIALIZED VIEW bench_003.company_prospect_view AS
    SELECT c.company_id, c.domain, c.name AS company_name, c.industry, c.min_employee_size, c.max_employee_size, c.revenue,
           c.address AS company_address, c.city AS company_city, c.state AS company_state, c.country AS company_country,
           c.zip_code AS company_zip_code, c.phone AS company_phone, c.mobile_phone AS company_mobile_phone, p.prospect_id, p.salutation,
           p.first_name, p.last_name, p.email, p.job_title, p.job_title_level, p.department, p.job_title_link,
           p.prospect_address, p.prospect_city, p.prospect_state, p.prospect_country, p.prospect_zip_code, p.prospect_phone,
           p.prospect_mobile_phone, p.prospect_created_at, p.prospect_updated_at
    FROM bench_003.company AS c LEFT JOIN bench_003.prospect AS p ON c.company_id = p.company_id;
    CREATE UNIQUE INDEX ON bench_003.company_prospect_view (company_id, prospect_id);
    CREATE INDEX ON bench_003.company_prospect_view (company_id);
    CREATE INDEX ON bench_003.company_prospect_view (prospect_id);
    CREATE INDEX ON bench_003.company_prospect_view (email);
    CREATE INDEX ON bench_003.company_prospect_view (domain);
    CREATE INDEX ON bench_003.company_prospect_view (company_name);
    CREATE INDEX ON bench_003.company_prospect_view (industry);
    CREATE INDEX ON bench_003.company_prospect_view (revenue);
    ANALYZE bench_003.company_prospect_view;";

/// Measures so many rounds at so many prospects; those that are missing are registered first.
///
/// # Errors
/// If anything is refused, or does not come to the replica.
pub async fn run(stack: &BenchStack, rounds: u32, prospects: u64, results: &mut Results) -> anyhow::Result<()> {
    eprintln!("refreshing a view of {prospects} prospects");
    fill(stack, prospects).await?;
    let client = stack.superuser(stack.database()).await?;
    let changed = copy(&client, prospects).await?;
    let shown: i64 = client.query_one("SELECT count(*) FROM bench_003.company_prospect_view", &[]).await?.get(0);
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    results.add("refresh.rows", "rows", shown as f64);
    for round in 0..rounds {
        let title = format!("Refreshed {round}");
        client
            .execute("UPDATE bench_003.prospect SET job_title = $2 WHERE prospect_id = $1", &[&changed, &title])
            .await?;
        results.add(
            "refresh.concurrently",
            "s",
            timed(&client, "REFRESH MATERIALIZED VIEW CONCURRENTLY bench_003.company_prospect_view").await?,
        );
        let found = client
            .query_one("SELECT job_title FROM bench_003.company_prospect_view WHERE prospect_id = $1", &[&changed])
            .await?;
        ensure!(found.get::<_, String>(0) == title, "the refreshed view does not show the change");
        results.add(
            "refresh.plain",
            "s",
            timed(&client, "REFRESH MATERIALIZED VIEW bench_003.company_prospect_view").await?,
        );
        results.add("refresh.stats", "s", count(&client).await?);
        results.add("refresh.incremental", "s", changes(stack, round).await?);
    }
    client.batch_execute("DROP SCHEMA bench_003 CASCADE").await?;
    Ok(())
}

async fn timed(client: &Client, sql: &str) -> anyhow::Result<f64> {
    let began = Instant::now();
    client.batch_execute(sql).await?;
    Ok(began.elapsed().as_secs_f64())
}

/// What the projector does now and then.
async fn count(client: &Client) -> anyhow::Result<f64> {
    let live: i32 =
        client.query_one("SELECT generation FROM read.live WHERE projection = 'company_prospect'", &[]).await?.get(0);
    let sql = format!("SELECT {}.refresh_stats()", migrations::schema_name(live));
    // It may be at it by itself.
    for _ in 0..100 {
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        let began = Instant::now();
        let counted = client.query_one(&sql, &[]).await;
        let took = began.elapsed();
        let done = counted.as_ref().is_ok_and(|row| row.get(0));
        client.batch_execute(if done { "COMMIT" } else { "ROLLBACK" }).await?;
        if done {
            return Ok(took.as_secs_f64());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    anyhow::bail!("what is counted is being refreshed all the time")
}

/// Registers the prospects that are missing, with their companies, and waits until they are projected.
async fn fill(stack: &BenchStack, prospects: u64) -> anyhow::Result<()> {
    let replica = Database::parse(&stack.replica, "bench")?.client().await?;
    const SQL: &str =
        "SELECT count(*) FROM read.company_prospect WHERE prospect_id IS NOT NULL AND company_id IS NOT NULL";
    let there = u64::try_from(replica.query_one(SQL, &[]).await?.get::<_, i64>(0))?;
    let companies = prospects.saturating_sub(there).div_ceil(PROSPECTS_EACH);
    let each = companies.div_ceil(CONNECTIONS as u64);
    let mut clients = JoinSet::new();
    for (number, mut connection) in (0_u64..).zip(Connection::open_many(&stack.command, &stack.key, CONNECTIONS).await?)
    {
        clients.spawn(async move {
            let mut newest = 0;
            for company in number * each..((number + 1) * each).min(companies) {
                let registered = connection.post("/v1/companies", sample::company(company).to_string()).await?;
                let id = made(&registered)?.0.to_string();
                for prospect in 0..PROSPECTS_EACH {
                    let body = sample::prospect(company * PROSPECTS_EACH + prospect, &id).to_string();
                    newest = made(&connection.post("/v1/prospects", body).await?)?.1;
                }
            }
            anyhow::Ok(newest)
        });
    }
    let mut newest = 0;
    while let Some(client) = clients.join_next().await {
        newest = newest.max(client??);
    }
    let mut connection = Connection::open(&stack.query, &stack.key).await?;
    for _ in 0..MINUTES_MAX {
        if connection.wait_for(newest).await.is_ok() {
            return Ok(());
        }
    }
    anyhow::bail!("position {newest} was not projected within {MINUTES_MAX} minutes")
}

/// Makes requirement 003's tables of our rows, and its view; gives a prospect of it.
async fn copy(client: &Client, prospects: u64) -> anyhow::Result<Uuid> {
    let sql = format!(
        "DROP SCHEMA IF EXISTS bench_003 CASCADE; CREATE SCHEMA bench_003;
        CREATE TABLE bench_003.prospect AS
            SELECT * FROM read.company_prospect WHERE prospect_id IS NOT NULL AND company_id IS NOT NULL LIMIT {prospects};
        ALTER TABLE bench_003.prospect ADD PRIMARY KEY (prospect_id);
        CREATE TABLE bench_003.company AS
            SELECT * FROM read.companies AS c
            WHERE EXISTS (SELECT FROM bench_003.prospect AS p WHERE p.company_id = c.company_id);
        ALTER TABLE bench_003.company ADD PRIMARY KEY (company_id);
        ANALYZE bench_003.prospect, bench_003.company;
        {VIEW}
        CHECKPOINT"
    );
    // CHECKPOINT is none for a transaction, which statements in one message are.
    for statement in sql.split(';') {
        client.batch_execute(statement).await?;
    }
    Ok(client.query_one("SELECT prospect_id FROM bench_003.prospect LIMIT 1", &[]).await?.get(0))
}

/// Changes of one prospect each: the median time from the command's answer to the row on the replica, in seconds.
async fn changes(stack: &BenchStack, round: u32) -> anyhow::Result<f64> {
    let replica = Database::parse(&stack.replica, "bench")?.client().await?;
    let tenant: Uuid = replica.query_one("SELECT tenant_id FROM access.tenants WHERE name = 'demo'", &[]).await?.get(0);
    let prospects = replica
        .query("SELECT prospect_id FROM read.company_prospect WHERE prospect_id IS NOT NULL AND prospect_deleted_at IS NULL LIMIT $1", &[&i64::try_from(CHANGES)?])
        .await?;
    let shown = replica
        .prepare("SELECT prospect_position FROM read.company_prospect WHERE tenant_id = $1 AND row_id = $2")
        .await?;
    let mut connection = Connection::open(&stack.command, &stack.key).await?;
    let mut took = Vec::new();
    for (number, row) in prospects.iter().enumerate() {
        let id: Uuid = row.get(0);
        let body = serde_json::json!({"job_title": format!("Changed {round} {number}")}).to_string();
        let (_, position) = made(&connection.patch(&format!("/v1/prospects/{id}"), body).await?)?;
        let answered = Instant::now();
        while replica.query_one(&shown, &[&tenant, &id]).await?.get::<_, i64>(0) < position {
            ensure!(answered.elapsed() < PATIENCE, "a change did not come to the replica");
            tokio::time::sleep(LOOK).await;
        }
        took.push(answered.elapsed());
    }
    ensure!(!took.is_empty(), "there is no prospect to change");
    Ok(percentile_ms(took, 50) / 1_000.0)
}
