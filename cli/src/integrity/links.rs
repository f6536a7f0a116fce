//! Across records: every link leads to a company, every row shows the company that its link leads to, nothing is there twice.

use std::collections::BTreeMap;

use anyhow::Context;
use uuid::Uuid;

use super::Snapshot;
use super::findings::{Findings, NAMED_MAX, Sort};

/// Where the links of live prospects lead: `live`, `merged` (to a live one), `deleted`, `missing`, `none`.
pub(super) type Links = BTreeMap<String, i64>;

/// A company that is merged leads to another; further than this no merge is followed.
const MERGES_MAX: i32 = 100;

/// Looks at the links, as the read tables show them.
///
/// # Errors
/// If the database fails.
pub(super) async fn check(snapshot: &Snapshot<'_>, findings: &mut Findings) -> anyhow::Result<Links> {
    let linked = linked(snapshot);
    let counts = format!(
        "-- cli::integrity::links::check, counts
        {linked}
        SELECT l.leads_to, count(*) FROM linked AS l WHERE l.prospect_id IS NOT NULL AND NOT l.is_deleted GROUP BY 1"
    );
    let rows = snapshot.transaction.query(&counts, &[]).await.context("the prospects' links")?;
    let links = rows.iter().map(|row| (row.get(0), row.get(1))).collect();

    let missing = format!(
        "-- cli::integrity::links::check, missing
        {linked}
        SELECT l.row_id || ': ' || l.assigned_company_id, count(*) OVER ()
        FROM linked AS l WHERE l.prospect_id IS NOT NULL AND l.leads_to = 'missing' ORDER BY l.row_id LIMIT {NAMED_MAX}"
    );
    listed(snapshot, &missing, Sort::LinkMissing, findings).await?;

    // A change of a company that is still on its way to its prospects' rows is no mistake.
    let wrong = format!(
        "-- cli::integrity::links::check, shown
        {linked}
        SELECT l.row_id || ': ' || coalesce(l.company_id::text, 'no company'), count(*) OVER ()
        FROM linked AS l
        WHERE (l.company_id IS DISTINCT FROM CASE WHEN l.leads_to IN ('live', 'merged') THEN l.end_id END
               OR l.company_id IS NOT NULL AND l.domain IS DISTINCT FROM l.end_domain)
          AND NOT EXISTS (SELECT FROM read.fanout AS f WHERE f.generation = {} AND f.tenant_id = l.tenant_id
                          AND f.company_id IN (l.assigned_company_id, l.end_id, l.company_id))
        ORDER BY l.row_id LIMIT {NAMED_MAX}",
        snapshot.generation
    );
    listed(snapshot, &wrong, Sort::LinkShownWrong, findings).await?;
    twice(snapshot, findings).await?;
    Ok(links)
}

/// Each row of `company_prospect` with the company at the end of its link.
fn linked(snapshot: &Snapshot<'_>) -> String {
    let (schema, only) = (&snapshot.schema, snapshot.only("p"));
    format!(
        "WITH RECURSIVE steps AS (
            SELECT c.tenant_id, c.company_id, c.merged_into AS end_id, 1 AS step
            FROM {schema}.companies AS c WHERE c.merged_into IS NOT NULL
            UNION ALL
            SELECT s.tenant_id, s.company_id, c.merged_into, s.step + 1
            FROM steps AS s JOIN {schema}.companies AS c ON c.tenant_id = s.tenant_id AND c.company_id = s.end_id
            WHERE c.merged_into IS NOT NULL AND s.step < {MERGES_MAX}
        ), ends AS (
            SELECT DISTINCT ON (s.tenant_id, s.company_id) s.tenant_id, s.company_id, s.end_id
            FROM steps AS s ORDER BY s.tenant_id, s.company_id, s.step DESC
        ), linked AS (
            SELECT p.tenant_id, p.row_id, p.prospect_id, p.assigned_company_id, p.company_id, p.domain,
                   p.prospect_deleted_at IS NOT NULL AS is_deleted, c.company_id AS end_id, c.domain AS end_domain,
                   CASE WHEN p.assigned_company_id IS NULL THEN 'none'
                        WHEN c.company_id IS NULL OR c.merged_into IS NOT NULL THEN 'missing'
                        WHEN c.deleted_at IS NOT NULL THEN 'deleted'
                        WHEN e.end_id IS NOT NULL THEN 'merged'
                        ELSE 'live' END AS leads_to
            FROM {schema}.company_prospect AS p
            LEFT JOIN ends AS e ON e.tenant_id = p.tenant_id AND e.company_id = p.assigned_company_id
            LEFT JOIN {schema}.companies AS c
                   ON c.tenant_id = p.tenant_id AND c.company_id = coalesce(e.end_id, p.assigned_company_id)
            WHERE {only}
        )"
    )
}

/// Domains and references that two live records have.
async fn twice(snapshot: &Snapshot<'_>, findings: &mut Findings) -> anyhow::Result<()> {
    let schema = &snapshot.schema;
    let live = format!("c.deleted_at IS NULL AND c.merged_into IS NULL AND {}", snapshot.only("c"));
    let domains = format!(
        "-- cli::integrity::links::twice, domains
        SELECT d.domain || ': ' || array_to_string((array_agg(c.company_id))[1:3], ', '), count(*) OVER ()
        FROM {schema}.companies AS c
        CROSS JOIN LATERAL (SELECT c.domain UNION ALL SELECT jsonb_array_elements_text(c.additional_domains)) AS d (domain)
        WHERE d.domain IS NOT NULL AND {live} GROUP BY c.tenant_id, d.domain HAVING count(*) > 1 LIMIT {NAMED_MAX}"
    );
    listed(snapshot, &domains, Sort::DomainTwice, findings).await?;
    let of_companies = format!(
        "-- cli::integrity::links::twice, references of companies
        SELECT array_to_string((array_agg(c.company_id))[1:3], ', '), count(*) OVER ()
        FROM {schema}.companies AS c CROSS JOIN LATERAL jsonb_array_elements(c.external_refs) AS r (reference)
        WHERE {live} GROUP BY c.tenant_id, r.reference HAVING count(*) > 1 LIMIT {NAMED_MAX}"
    );
    listed(snapshot, &of_companies, Sort::ReferenceTwice, findings).await?;
    // A person's reference is personal: only the prospects are named.
    let of_prospects = format!(
        "-- cli::integrity::links::twice, references of prospects
        SELECT array_to_string((array_agg(p.prospect_id))[1:3], ', '), count(*) OVER ()
        FROM {schema}.company_prospect AS p CROSS JOIN LATERAL jsonb_array_elements(p.prospect_external_refs) AS r (reference)
        WHERE p.prospect_id IS NOT NULL AND p.prospect_deleted_at IS NULL AND {}
        GROUP BY p.tenant_id, r.reference HAVING count(*) > 1 LIMIT {NAMED_MAX}",
        snapshot.only("p")
    );
    listed(snapshot, &of_prospects, Sort::ReferenceTwice, findings).await
}

/// Takes in what a statement found: what it is about, and how many there are in all.
async fn listed(snapshot: &Snapshot<'_>, sql: &str, sort: Sort, findings: &mut Findings) -> anyhow::Result<()> {
    let rows = snapshot.transaction.query(sql, &[]).await.context("looking for what is off")?;
    if let Some(row) = rows.first() {
        findings.add_many(sort, row.get(1), rows.iter().map(|row| row.get(0)).collect());
    }
    Ok(())
}

/// The condition that keeps a statement to one tenant.
pub(super) fn only(tenant: Option<Uuid>, alias: &str) -> String {
    tenant.map_or_else(|| "true".to_owned(), |tenant| format!("{alias}.tenant_id = '{tenant}'"))
}
