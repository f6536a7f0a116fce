//! The SQL of one generation, written once for its schema. Names are ours and fixed; values are always parameters.

use tokio_postgres::{Client, Error, Statement};

use crate::columns::{names, selected, unnest};
use crate::rows::{COMPANIES, DENORMALISED, PROSPECTS};

/// The statements of a step, prepared on one connection.
pub(crate) struct Statements {
    pub(crate) companies: Statement,
    pub(crate) merge: Statement,
    pub(crate) unmerge: Statement,
    pub(crate) prospects: Statement,
    pub(crate) remove_own_rows: Statement,
    pub(crate) add_own_rows: Statement,
    pub(crate) fanout_targets: Statement,
    pub(crate) fanout: Statement,
    pub(crate) unqueue: Statement,
    pub(crate) queue: Statement,
    pub(crate) checkpoint: Statement,
    pub(crate) forget_steps: Statement,
}

/// Whether a company, or one that it stands for, has a prospect that is not deleted. Not EXISTS: that may be planned as a hash of all
/// rows, for a few companies.
const HAS_PROSPECT: &str = "(
        SELECT true
        FROM (
            SELECT t.company_id
            UNION ALL
            SELECT m.company_id FROM {schema}.merged_companies AS m
            WHERE m.tenant_id = t.tenant_id AND m.primary_id = t.company_id
        ) AS stood_for
        CROSS JOIN LATERAL (
            SELECT true FROM {schema}.company_prospect AS member
            WHERE member.tenant_id = t.tenant_id AND member.assigned_company_id = stood_for.company_id
              AND member.prospect_id IS NOT NULL AND member.prospect_deleted_at IS NULL
            LIMIT 1
        ) AS found
        LIMIT 1) IS NOT NULL";

/// $1 tenants, $2 companies: these, and those that stand for them.
const TOUCHED: &str = "(
        SELECT n.tenant_id, n.company_id FROM unnest($1::uuid[], $2::uuid[]) AS n (tenant_id, company_id)
        UNION
        SELECT m.tenant_id, m.primary_id FROM unnest($1::uuid[], $2::uuid[]) AS n (tenant_id, company_id)
        JOIN {schema}.merged_companies AS m ON m.tenant_id = n.tenant_id AND m.company_id = n.company_id
    ) AS t";

/// A company found by its key, whatever the planner believes of tables that nobody has counted yet: joined plainly, it may read all
/// companies of the tenant for each row.
fn company(id: &str, of: &str) -> String {
    format!(
        "LATERAL (
            SELECT one.* FROM {{schema}}.companies AS one
            WHERE one.tenant_id = {of}.tenant_id AND one.company_id = {id} LIMIT 1) AS c"
    )
}

impl Statements {
    /// Prepares everything for the tables in `schema`.
    pub(crate) async fn prepare(client: &Client, schema: &str) -> Result<Self, Error> {
        let prepare = async |sql: String| client.prepare(&sql.replace("{schema}", schema)).await;
        Ok(Self {
            companies: prepare(companies()).await?,
            merge: prepare(MERGE.to_owned()).await?,
            unmerge: prepare(UNMERGE.to_owned()).await?,
            prospects: prepare(prospects()).await?,
            remove_own_rows: prepare(remove_own_rows()).await?,
            add_own_rows: prepare(add_own_rows()).await?,
            fanout_targets: prepare(FANOUT_TARGETS.to_owned()).await?,
            fanout: prepare(fanout()).await?,
            unqueue: prepare(UNQUEUE.to_owned()).await?,
            queue: prepare(QUEUE.to_owned()).await?,
            checkpoint: prepare(CHECKPOINT.to_owned()).await?,
            forget_steps: prepare(FORGET_STEPS.to_owned()).await?,
        })
    }
}

fn set_excluded<'a>(columns: impl Iterator<Item = &'a str>) -> String {
    columns.map(|name| format!("{name} = excluded.{name}")).collect::<Vec<_>>().join(", ")
}

fn companies() -> String {
    format!(
        "-- projector::statements::companies
        INSERT INTO {{schema}}.companies ({names}) SELECT {selected} FROM {unnest} AS n ({names})
        ON CONFLICT (tenant_id, company_id) DO UPDATE SET {set}",
        names = names(COMPANIES),
        selected = selected(COMPANIES, "n"),
        unnest = unnest(COMPANIES),
        set = set_excluded(COMPANIES.iter().map(|(name, _)| *name).skip(2)),
    )
}

/// $1 tenants, $2 companies, $3 those that stand for them from now on
const MERGE: &str = "-- projector::statements::merge
    INSERT INTO {schema}.merged_companies (tenant_id, company_id, primary_id)
    SELECT n.tenant_id, n.company_id, n.primary_id
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS n (tenant_id, company_id, primary_id)
    ON CONFLICT (tenant_id, company_id) DO UPDATE SET primary_id = excluded.primary_id";

/// $1 tenants, $2 companies that stand for themselves again
const UNMERGE: &str = "-- projector::statements::unmerge
    DELETE FROM {schema}.merged_companies AS m
    USING unnest($1::uuid[], $2::uuid[]) AS t (tenant_id, company_id)
    WHERE m.tenant_id = t.tenant_id AND m.company_id = t.company_id";

/// What a row shows of its company, or of the one that stands for that: nothing while it is deleted.
fn shown() -> String {
    let shown = DENORMALISED.iter().map(|(_, column, _)| format!("CASE WHEN c.deleted_at IS NULL THEN c.{column} END"));
    shown.collect::<Vec<_>>().join(", ")
}

fn denormalised_names() -> String {
    DENORMALISED.iter().map(|(name, _, _)| *name).collect::<Vec<_>>().join(", ")
}

fn prospects() -> String {
    let own = PROSPECTS.iter().map(|(name, kind)| match (*name, *kind) {
        ("position", _) => "greatest(n.position, c.position)".to_owned(),
        ("updated_at", _) => "greatest(n.updated_at, c.updated_at)".to_owned(),
        (name, crate::columns::Kind::Json) => format!("n.{name}::jsonb"),
        (name, _) => format!("n.{name}"),
    });
    format!(
        "-- projector::statements::prospects
        INSERT INTO {{schema}}.company_prospect ({names}, {denormalised})
        SELECT {own}, {shown}
        FROM {unnest} AS n ({names})
        LEFT JOIN {{schema}}.merged_companies AS m ON m.tenant_id = n.tenant_id AND m.company_id = n.assigned_company_id
        LEFT JOIN {company} ON true
        ON CONFLICT (tenant_id, row_id) DO UPDATE SET {set}",
        names = names(PROSPECTS),
        company = company("coalesce(m.primary_id, n.assigned_company_id)", "n"),
        denormalised = denormalised_names(),
        own = own.collect::<Vec<_>>().join(", "),
        shown = shown(),
        unnest = unnest(PROSPECTS),
        set = set_excluded(
            PROSPECTS.iter().map(|(name, _)| *name).skip(2).chain(DENORMALISED.iter().map(|(name, _, _)| *name))
        ),
    )
}

/// $1 tenants, $2 companies whose own row may have to go: deleted or merged, or a prospect has come. Whether there is one is looked at
/// first (which OFFSET 0 keeps in this order): most have none any more, and whether there is a prospect costs more to find out.
fn remove_own_rows() -> String {
    format!(
        "-- projector::statements::remove_own_rows
        DELETE FROM {{schema}}.company_prospect AS p
        USING (
            SELECT t.tenant_id, t.company_id
            FROM {TOUCHED}
            CROSS JOIN LATERAL (
                SELECT true FROM {{schema}}.company_prospect AS own
                WHERE own.tenant_id = t.tenant_id AND own.row_id = t.company_id AND own.prospect_id IS NULL LIMIT 1
            ) AS own
            OFFSET 0
        ) AS t
        WHERE p.tenant_id = t.tenant_id AND p.row_id = t.company_id AND p.prospect_id IS NULL
          AND ({HAS_PROSPECT} OR (
              SELECT true FROM {{schema}}.companies AS c
              WHERE c.tenant_id = t.tenant_id AND c.company_id = t.company_id
                AND c.deleted_at IS NULL AND c.merged_into IS NULL
          ) IS NULL)"
    )
}

/// $1 tenants, $2 companies that may need a row of their own: live, and no prospect is there.
fn add_own_rows() -> String {
    let shown: Vec<String> = DENORMALISED.iter().map(|(_, column, _)| format!("c.{column}")).collect();
    format!(
        "-- projector::statements::add_own_rows
        INSERT INTO {{schema}}.company_prospect
            (tenant_id, row_id, position, assigned_company_id, created_at, updated_at, {denormalised})
        SELECT c.tenant_id, c.company_id, c.position, c.company_id, c.created_at, c.updated_at, {shown}
        FROM {TOUCHED} CROSS JOIN {company}
        WHERE c.deleted_at IS NULL AND c.merged_into IS NULL AND NOT ({HAS_PROSPECT})
        ON CONFLICT (tenant_id, row_id) DO NOTHING",
        company = company("t.company_id", "t"),
        denormalised = denormalised_names(),
        shown = shown.join(", "),
    )
}

/// $1 tenants, $2 companies, $3 the rows after which to go on, $4 most rows of each
const FANOUT_TARGETS: &str = "-- projector::statements::fanout_targets
    SELECT t.ordinality, p.row_id
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[])
        WITH ORDINALITY AS t (tenant_id, company_id, after_row_id, rows_max, ordinality)
    CROSS JOIN LATERAL (
        SELECT p.row_id FROM {schema}.company_prospect AS p
        WHERE p.tenant_id = t.tenant_id AND p.assigned_company_id = t.company_id AND p.row_id > t.after_row_id
        ORDER BY p.row_id LIMIT t.rows_max
    ) AS p
    ORDER BY t.ordinality, p.row_id";

/// $1 tenants, $2 companies, $3 rows. Each row is found by its key: an equality with the company could be planned as a look at all rows of
/// the company for each of them, where nobody has counted the table yet.
fn fanout() -> String {
    let set = DENORMALISED
        .iter()
        .map(|(name, column, _)| format!("{name} = CASE WHEN c.deleted_at IS NULL THEN c.{column} END"));
    format!(
        "-- projector::statements::fanout
        UPDATE {{schema}}.company_prospect AS p
        SET {set}, position = greatest(p.prospect_position, c.position), updated_at = greatest(p.prospect_updated_at, c.updated_at)
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS t (tenant_id, company_id, row_id)
        LEFT JOIN {{schema}}.merged_companies AS m ON m.tenant_id = t.tenant_id AND m.company_id = t.company_id
        CROSS JOIN {company}
        WHERE p.tenant_id = t.tenant_id AND p.row_id = t.row_id
          AND p.assigned_company_id IS NOT DISTINCT FROM t.company_id",
        set = set.collect::<Vec<_>>().join(", "),
        company = company("coalesce(m.primary_id, t.company_id)", "t"),
    )
}

/// $1 projection, $2 generation, $3 tenants, $4 companies
const UNQUEUE: &str = "-- projector::statements::unqueue
    DELETE FROM read.fanout AS f
    USING unnest($3::uuid[], $4::uuid[]) AS t (tenant_id, company_id)
    WHERE f.projection = $1 AND f.generation = $2 AND f.tenant_id = t.tenant_id AND f.company_id = t.company_id";

/// $1 projection, $2 generation, $3 tenants, $4 companies, $5 positions, $6 next positions, $7 rows after which to go on
const QUEUE: &str = "-- projector::statements::queue
    INSERT INTO read.fanout (projection, generation, tenant_id, company_id, position, next_position, after_row_id)
    SELECT $1, $2, t.* FROM unnest($3::uuid[], $4::uuid[], $5::bigint[], $6::bigint[], $7::uuid[]) AS t
    ON CONFLICT (projection, generation, tenant_id, company_id)
    DO UPDATE SET position = excluded.position, next_position = excluded.next_position, after_row_id = excluded.after_row_id";

/// $1 projection, $2 generation, $3 step, $4 position, $5 epoch. A step that others have gone past is the newest one's twin and
/// collides with it, however long ago its own row was removed.
const CHECKPOINT: &str = "-- projector::statements::checkpoint
    INSERT INTO read.checkpoint_steps (projection, generation, step, position, epoch)
    SELECT $1, $2, greatest($3, (
        SELECT s.step FROM read.checkpoint_steps AS s
        WHERE s.projection = $1 AND s.generation = $2 ORDER BY s.step DESC LIMIT 1
    )), $4, $5";

/// $1 projection, $2 generation, $3 the oldest step to keep
const FORGET_STEPS: &str = "-- projector::statements::forget_steps
    DELETE FROM read.checkpoint_steps WHERE projection = $1 AND generation = $2 AND step < $3";

#[cfg(test)]
mod plans;
