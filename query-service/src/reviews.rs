//! The review queue: prospects that show no company and companies that look like another one, in the order of their ids, and for each of
//! them the companies that may be meant. A review is no row of its own, so both tables are read up to a page's length and put together.

#[cfg(test)]
mod plans;

use domain::value::{DomainOfHost, company_name};
use time::OffsetDateTime;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::duplicates::{Candidate, Candidates, Evidence};
use crate::record::{COMPANY, Column, PROSPECT, select_list};

/// Candidates of one review.
pub(crate) const CANDIDATES_MAX: usize = 5;

/// What reads as being in review; the partial index `company_prospect_review` has the same conditions.
const PROSPECT_IN_REVIEW: &str = "r.prospect_id IS NOT NULL AND r.company_id IS NULL AND r.prospect_deleted_at IS NULL
        AND r.review IS DISTINCT FROM 'left_alone'";
/// Why a prospect is; the index has the same expression. CASE and not coalesce: only of the former the server knows that it tells nothing
/// of other tenants' rows, and so looks it up in an index where row-level security holds.
const PROSPECT_REASON: &str = "CASE WHEN r.review IS NULL THEN 'company_deleted' ELSE r.review END";
/// The same for companies: the index `companies_review`.
const COMPANY_IN_REVIEW: &str = "r.looks_like_company_id IS NOT NULL";

/// Of which sort of record reviews are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Prospect,
    Company,
}

impl Kind {
    /// Every kind.
    pub(crate) const ALL: [Self; 2] = [Self::Prospect, Self::Company];

    /// What the parameter and the items call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Prospect => "prospect",
            Self::Company => "company",
        }
    }
}

/// Why prospects are in review, as far as `reason` may ask for it.
const PROSPECT_REASONS: &[&str] = &["no_company", "name_only", "suspicious_domain", "company_deleted"];
/// The same for companies.
const COMPANY_REASON: &str = "looks_like";

/// All reasons.
pub(crate) fn reasons() -> impl Iterator<Item = &'static str> {
    PROSPECT_REASONS.iter().copied().chain([COMPANY_REASON])
}

/// Which reviews are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection {
    pub(crate) kind: Option<Kind>,
    /// One of [`reasons`].
    pub(crate) reason: Option<&'static str>,
    /// The id that the page before ended with.
    pub(crate) after: Uuid,
    /// Items on a page.
    pub(crate) limit: usize,
}

impl Selection {
    /// Whether prospects are asked for.
    pub(crate) fn has_prospects(&self) -> bool {
        self.kind != Some(Kind::Company) && self.reason != Some(COMPANY_REASON)
    }

    /// The reason that prospects are narrowed to.
    pub(crate) fn prospects_reason(&self) -> Option<&'static str> {
        self.reason.filter(|_| self.has_prospects())
    }

    /// Whether companies are asked for.
    pub(crate) fn has_companies(&self) -> bool {
        self.kind != Some(Kind::Prospect) && self.reason.is_none_or(|reason| reason == COMPANY_REASON)
    }

    /// $1 tenant, $2 the id after which to begin, $3 the reason if there is one: the page's prospects and one more. Each reason is a range of
    /// one index, in the order of the ids; without one the page's length is read of each.
    pub(crate) fn prospects_sql(&self, schema: &str) -> String {
        let rows = self.limit + 1;
        let range = |reason: &str| {
            format!(
                "(SELECT r.* FROM {schema}.company_prospect AS r
                WHERE r.tenant_id = $1 AND {PROSPECT_IN_REVIEW} AND {PROSPECT_REASON} = {reason}
                  AND r.row_id > $2
                ORDER BY r.row_id LIMIT {rows})"
            )
        };
        let ranges: Vec<String> = match self.prospects_reason() {
            Some(_) => vec![range("$3")],
            _ => PROSPECT_REASONS.iter().map(|reason| range(&format!("'{reason}'"))).collect(),
        };
        format!(
            "-- query_service::reviews::prospects
            SELECT r.row_id, {PROSPECT_REASON} AS reason, coalesce(r.review_since, (
                       SELECT c.deleted_at FROM {schema}.companies AS c
                       WHERE c.tenant_id = $1 AND c.company_id = r.assigned_company_id
                   ), (
                       SELECT c.deleted_at FROM {schema}.merged_companies AS m
                       JOIN {schema}.companies AS c ON c.tenant_id = m.tenant_id AND c.company_id = m.primary_id
                       WHERE m.tenant_id = $1 AND m.company_id = r.assigned_company_id
                   )) AS since,
                   r.hint_name, r.hint_country, r.hint_host, r.email, {columns}
            FROM ({ranges}) AS r
            ORDER BY r.row_id LIMIT {rows}",
            columns = select_list(PROSPECT),
            ranges = ranges.join(" UNION ALL "),
        )
    }

    /// $1 tenant, $2 the id after which to begin: the page's companies and one more.
    pub(crate) fn companies_sql(&self, schema: &str) -> String {
        let rows = self.limit + 1;
        format!(
            "-- query_service::reviews::companies
            SELECT r.company_id, '{COMPANY_REASON}' AS reason, r.review_since, r.looks_like_company_id, r.name_key, r.country, {columns}
            FROM {schema}.companies AS r
            WHERE r.tenant_id = $1 AND {COMPANY_IN_REVIEW} AND r.company_id > $2
            ORDER BY r.company_id LIMIT {rows}",
            columns = select_list(COMPANY),
        )
    }

    /// $1 tenant, $2 the reason if there is one: how many reviews there are.
    pub(crate) fn count_sql(&self, schema: &str) -> String {
        let of_reason = self.of_reason(2);
        let prospects = format!(
            "(SELECT count(*) FROM {schema}.company_prospect AS r WHERE r.tenant_id = $1 AND {PROSPECT_IN_REVIEW}{of_reason})"
        );
        let companies =
            format!("(SELECT count(*) FROM {schema}.companies AS r WHERE r.tenant_id = $1 AND {COMPANY_IN_REVIEW})");
        let parts: Vec<String> = [(self.has_prospects(), prospects), (self.has_companies(), companies)]
            .into_iter()
            .filter_map(|(asked, part)| asked.then_some(part))
            .collect();
        // A company's review for a prospect's reason: there is none.
        let sum = if parts.is_empty() { "0::bigint".to_owned() } else { parts.join(" + ") };
        format!("-- query_service::reviews::count\nSELECT {sum} FROM (SELECT $1::uuid) AS tenant")
    }

    fn of_reason(&self, number: usize) -> String {
        match self.prospects_reason() {
            Some(_) => format!(" AND {PROSPECT_REASON} = ${number}"),
            _ => String::new(),
        }
    }
}

/// A review on a page.
pub(crate) struct Item {
    pub(crate) kind: Kind,
    pub(crate) id: Uuid,
    pub(crate) reason: String,
    pub(crate) since: Option<OffsetDateTime>,
    /// Name, country and host that an import said of the company.
    pub(crate) hint: [Option<String>; 3],
    /// The company whose name a company has.
    pub(crate) looks_like: Option<Uuid>,
    pub(crate) candidates: Vec<Candidate>,
    /// Holds the record, its columns from [`Item::record`]'s place on.
    pub(crate) row: Row,
    clues: Clues,
}

/// What candidates are looked for by.
struct Clues {
    name_key: Option<String>,
    country: Option<String>,
    itself: Option<Uuid>,
    email_domain: Option<String>,
    label: Option<String>,
}

impl Item {
    /// Reads a row of [`Selection::prospects_sql`].
    pub(crate) fn of_prospect(row: Row) -> Result<Self, tokio_postgres::Error> {
        let reason: String = row.try_get(1)?;
        let hint: [Option<String>; 3] = [row.try_get(3)?, row.try_get(4)?, row.try_get(5)?];
        let email: Option<&str> = row.try_get(6)?;
        let [name, country, host] = &hint;
        let clues = Clues {
            name_key: name.as_deref().map(company_name::key).filter(|key| !key.is_empty()),
            country: country.clone(),
            itself: None,
            email_domain: email
                .and_then(|email| DomainOfHost::of_company(email).ok())
                .map(|found| found.domain.to_string()),
            // acme.con: its ending is wrong, and perhaps nothing else.
            label: host.as_deref().filter(|_| reason == "suspicious_domain").and_then(label_of).map(str::to_owned),
        };
        let (id, since) = (row.try_get(0)?, row.try_get(2)?);
        Ok(Self { kind: Kind::Prospect, id, reason, since, hint, looks_like: None, candidates: Vec::new(), row, clues })
    }

    /// Reads a row of [`Selection::companies_sql`].
    pub(crate) fn of_company(row: Row) -> Result<Self, tokio_postgres::Error> {
        let id: Uuid = row.try_get(0)?;
        let (name_key, country) = (row.try_get(4)?, row.try_get(5)?);
        let clues = Clues { name_key, country, itself: Some(id), email_domain: None, label: None };
        let (reason, since, looks_like) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let (kind, hint) = (Kind::Company, [None, None, None]);
        Ok(Self { kind, id, reason, since, hint, looks_like, candidates: Vec::new(), row, clues })
    }

    /// Where in the row the record begins, and what it has.
    pub(crate) fn record(&self) -> (usize, &'static [Column]) {
        match self.kind {
            Kind::Prospect => (7, PROSPECT),
            Kind::Company => (6, COMPANY),
        }
    }
}

/// The label before a host's last one.
fn label_of(host: &str) -> Option<&str> {
    host.trim_end_matches('.').rsplit('.').nth(1).filter(|label| !label.is_empty())
}

/// The first `limit` items of both parts, each in the order of its ids and perhaps cut off, and whether there are more.
pub(crate) fn first_of(parts: [(Vec<Item>, bool); 2], limit: usize) -> (Vec<Item>, bool) {
    // What one part was cut off before may come between the other's items.
    let known_to = parts.iter().filter(|(_, cut)| *cut).filter_map(|(items, _)| items.last()).map(|item| item.id).min();
    let cut = known_to.is_some();
    let mut items: Vec<Item> = parts.into_iter().flat_map(|(items, _)| items).collect();
    items.retain(|item| known_to.is_none_or(|end| item.id <= end));
    items.sort_by_key(|item| item.id);
    let more = cut || items.len() > limit;
    items.truncate(limit);
    (items, more)
}

/// What the candidates of a page's reviews are looked for by, an entry for each, in their order.
#[derive(Default)]
pub(crate) struct Wanted {
    pub(crate) name_keys: Vec<Option<String>>,
    pub(crate) countries: Vec<Option<String>>,
    pub(crate) themselves: Vec<Option<Uuid>>,
    pub(crate) email_domains: Vec<Option<String>>,
    pub(crate) labels: Vec<Option<String>>,
}

impl Wanted {
    pub(crate) fn of(items: &[Item]) -> Self {
        let clues = || items.iter().map(|item| &item.clues);
        Self {
            name_keys: clues().map(|clues| clues.name_key.clone()).collect(),
            countries: clues().map(|clues| clues.country.clone()).collect(),
            themselves: clues().map(|clues| clues.itself).collect(),
            email_domains: clues().map(|clues| clues.email_domain.clone()).collect(),
            labels: clues().map(|clues| clues.label.clone()).collect(),
        }
    }
}

/// $1 tenant; of each review: $2 the name as names are compared, $3 its country, $4 the company itself, $5 the domain of the e-mail
/// address, $6 the label of the host. Everything is looked into for one review after the other: a plan for all of them at once would read
/// all of a tenant's companies.
pub(crate) fn candidates_sql(schema: &str) -> String {
    format!(
        "-- query_service::reviews::candidates
        SELECT e.place, c.company_id, c.name, c.domain, c.country, e.evidence, e.name_similarity, e.same_country
        FROM (
            SELECT w.place, f.company_id, 'name' AS evidence, f.name_similarity, f.same_country
            FROM unnest($2::text[], $3::text[], $4::uuid[]) WITH ORDINALITY AS w (name_key, country, itself, place)
            CROSS JOIN LATERAL {schema}.own_companies_like(w.name_key, w.country, w.itself, {CANDIDATES_MAX}) AS f
            WHERE w.name_key IS NOT NULL
            UNION ALL
            SELECT w.place, f.company_id, 'email_domain', NULL, NULL
            FROM unnest($5::text[]) WITH ORDINALITY AS w (domain, place)
            CROSS JOIN LATERAL (
                SELECT r.company_id FROM {schema}.companies AS r WHERE r.tenant_id = $1 AND r.domain = w.domain
                ORDER BY r.company_id DESC LIMIT {CANDIDATES_MAX}
            ) AS f
            UNION ALL
            SELECT w.place, f.company_id, 'domain_label', NULL, NULL
            FROM unnest($6::text[]) WITH ORDINALITY AS w (label, place)
            CROSS JOIN LATERAL {schema}.own_companies_of_label(w.label, {CANDIDATES_MAX}) AS f
            WHERE w.label IS NOT NULL
        ) AS e
        CROSS JOIN LATERAL (
            SELECT r.* FROM {schema}.companies AS r
            WHERE r.tenant_id = $1 AND r.company_id = e.company_id AND r.deleted_at IS NULL AND r.merged_into IS NULL
            LIMIT 1
        ) AS c"
    )
}

/// Gives each review its candidates, from the rows of [`candidates_sql`].
pub(crate) fn add_candidates(items: &mut [Item], rows: &[Row]) -> Result<(), tokio_postgres::Error> {
    let mut found: Vec<Candidates> = items.iter().map(|_| Candidates::default()).collect();
    for row in rows {
        let place = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default();
        let evidence = match row.try_get::<_, &str>(5)? {
            "email_domain" => Evidence::EmailDomain,
            "domain_label" => Evidence::DomainLabel,
            _ => Evidence::Name { similarity: f64::from(row.try_get::<_, f32>(6)?), same_country: row.try_get(7)? },
        };
        let (company_id, name, domain, country) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        let candidate = Candidate { company_id, name, domain, country, similarity: 0.0, reasons: Vec::new() };
        // Ordinalities count from 1.
        if let Some(candidates) = place.checked_sub(1).and_then(|place| found.get_mut(place)) {
            candidates.add(candidate, evidence);
        }
    }
    for (item, candidates) in items.iter_mut().zip(found) {
        item.candidates = candidates.best(CANDIDATES_MAX);
    }
    Ok(())
}
