//! Reports: numbers put together for a question that people ask.

use deadpool_postgres::Transaction;
use serde_json::{Value, json};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::filters::Filters;
use super::metrics::LIMIT_MAX;
use super::table::{Table, kind, share, shown};
use crate::parameters::Parameters;
use crate::problems::ReadError;

/// Rows of a report by value, where the request does not say.
const LIMIT_DEFAULT: i64 = 100;

/// Fields of a company whose being known is counted. `size` is a number of employees or a band, `prospects` at least one of them.
const COMPANY_FIELDS: &[&str] = &[
    "domain",
    "name",
    "legal_name",
    "company_type",
    "industry",
    "founding_date",
    "short_description",
    "size",
    "revenue",
    "address",
    "city",
    "state",
    "country",
    "zip_code",
    "phone",
    "email_address",
    "logo_url",
    "social_media",
    "external_refs",
    "prospects",
];
/// Fields of a prospect. `phone` is either of its numbers, `company` a company that is live.
const PROSPECT_FIELDS: &[&str] = &[
    "company",
    "first_name",
    "last_name",
    "email",
    "phone",
    "mobile_phone",
    "job_title",
    "job_title_level",
    "department",
    "job_title_link",
    "address",
    "city",
    "state",
    "country",
    "zip_code",
    "external_refs",
];

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Overview,
    Completeness,
    Industries,
    Countries,
    Sources,
}

/// Every report: its name, and what it is about.
const REPORTS: &[(&str, Subject)] = &[
    ("overview", Subject::Overview),
    ("completeness", Subject::Completeness),
    ("industries", Subject::Industries),
    ("countries", Subject::Countries),
    ("sources", Subject::Sources),
];

/// A report as it is asked for.
pub(crate) struct Report {
    subject: Subject,
    limit: i64,
}

impl Report {
    /// The names of all reports.
    pub(crate) fn names() -> String {
        let names: Vec<&str> = REPORTS.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }

    /// The report of a name, with its usual length.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (_, subject) = REPORTS.iter().find(|(known, _)| *known == name)?;
        Some(Self { subject: *subject, limit: LIMIT_DEFAULT })
    }

    /// Parameters beside the filters.
    pub(crate) fn parameters(&self) -> &'static [&'static str] {
        match self.subject {
            Subject::Overview | Subject::Completeness => &[],
            Subject::Industries | Subject::Countries | Subject::Sources => &["limit"],
        }
    }

    /// Reads them; what is wrong is noted.
    pub(crate) fn parse(mut self, parameters: &mut Parameters) -> Self {
        self.limit = parameters.number("limit", 1, LIMIT_MAX).unwrap_or(LIMIT_DEFAULT);
        self
    }

    pub(super) async fn ask(
        &self,
        transaction: &Transaction<'_>,
        schema: &str,
        filters: &Filters,
    ) -> Result<Table, ReadError> {
        match self.subject {
            Subject::Overview => Ok(overview(&Filled::ask(transaction, schema, filters).await?)),
            Subject::Completeness => Ok(completeness(&Filled::ask(transaction, schema, filters).await?)),
            Subject::Industries => self.by_value(transaction, schema, filters, "industry", INDUSTRIES).await,
            Subject::Countries => self.by_value(transaction, schema, filters, "country", COUNTRIES).await,
            Subject::Sources => self.by_source(transaction, schema, filters).await,
        }
    }

    async fn by_value(
        &self,
        transaction: &Transaction<'_>,
        schema: &str,
        filters: &Filters,
        column: &str,
        columns: &'static [&'static str],
    ) -> Result<Table, ReadError> {
        let sql = format!(
            "-- query_service::analytics::report::by_value
            WITH grouped AS (
                SELECT o.{column} AS value,
                       coalesce(sum(o.records) FILTER (WHERE o.record = 'company' AND o.measure = 'total'), 0) AS companies,
                       coalesce(sum(o.records) FILTER (WHERE o.record = 'prospect' AND o.measure = 'total'), 0) AS prospects,
                       coalesce(sum(o.records) FILTER (WHERE o.record = 'prospect' AND o.measure = 'filled' AND o.value = 'email'), 0) AS email,
                       coalesce(sum(o.records) FILTER (WHERE o.record = 'prospect' AND o.measure = 'filled' AND o.value = 'phone'), 0) AS phone
                FROM {schema}.own_stats($1 /* countries */, $2 /* industries */) AS o GROUP BY 1
            ), ranked AS (
                SELECT g.*, g.value = '' OR row_number() OVER (
                           PARTITION BY g.value = '' ORDER BY g.companies + g.prospects DESC, g.value COLLATE \"C\"
                       ) <= $3 /* values */ AS told
                FROM grouped AS g
            )
            SELECT CASE WHEN r.told THEN r.value END, sum(r.companies)::bigint, sum(r.prospects)::bigint,
                   sum(r.email)::bigint, sum(r.phone)::bigint
            FROM ranked AS r GROUP BY 1"
        );
        let rows = self.ask_ranked(transaction, &sql, filters).await?;
        let rows = rows.into_iter().map(|(value, counts)| {
            let [companies, prospects, email, phone] = counts[..] else { return Vec::new() };
            let numbers = [json!(companies), json!(prospects), json!(email), share(email, prospects), json!(phone)];
            let named = [json!(kind(value.as_deref())), shown(value)];
            named.into_iter().chain(numbers).chain([share(phone, prospects)]).collect()
        });
        Ok(Table { columns, rows: rows.collect() })
    }

    async fn by_source(
        &self,
        transaction: &Transaction<'_>,
        schema: &str,
        filters: &Filters,
    ) -> Result<Table, ReadError> {
        let sql = format!(
            "-- query_service::analytics::report::by_source
            WITH grouped AS (
                SELECT CASE o.measure WHEN 'source' THEN o.value END AS value,
                       coalesce(sum(o.records) FILTER (WHERE o.record = 'company'), 0) AS companies,
                       coalesce(sum(o.records) FILTER (WHERE o.record = 'prospect'), 0) AS prospects
                FROM {schema}.own_stats($1 /* countries */, $2 /* industries */) AS o
                WHERE o.measure IN ('source', 'rare_source') GROUP BY 1
            ), ranked AS (
                SELECT g.*, g.value = '' OR row_number() OVER (
                           PARTITION BY coalesce(g.value, '') = '' ORDER BY g.companies + g.prospects DESC, g.value COLLATE \"C\"
                       ) <= $3 /* values */ AS told
                FROM grouped AS g
            )
            SELECT CASE WHEN r.told THEN r.value END, sum(r.companies)::bigint, sum(r.prospects)::bigint
            FROM ranked AS r GROUP BY 1"
        );
        let rows = self.ask_ranked(transaction, &sql, filters).await?;
        let rows = rows.into_iter().map(|(value, counts)| {
            let named = [json!(kind(value.as_deref())), shown(value)];
            named.into_iter().chain(counts.into_iter().map(|count| json!(count))).collect()
        });
        Ok(Table { columns: SOURCES, rows: rows.collect() })
    }

    /// Values with their numbers: the most frequent first, then what has none, then those that are not told.
    async fn ask_ranked(
        &self,
        transaction: &Transaction<'_>,
        sql: &str,
        filters: &Filters,
    ) -> Result<Vec<(Option<String>, Vec<i64>)>, ReadError> {
        let statement = transaction.prepare_cached(sql).await?;
        let [countries, industries] = filters.values();
        let values: [&(dyn ToSql + Sync); 3] = [countries, industries, &self.limit];
        let rows = transaction.query(&statement, &values).await?;
        let read = |row: &Row| {
            let counts = (1..row.len()).map(|place| row.try_get::<_, i64>(place));
            Ok((row.try_get(0)?, counts.collect::<Result<Vec<_>, tokio_postgres::Error>>()?))
        };
        let mut found = rows.iter().map(read).collect::<Result<Vec<(Option<String>, Vec<i64>)>, ReadError>>()?;
        found.sort_by_cached_key(|(value, counts)| {
            let sort = match value.as_deref() {
                Some("") => 1,
                None => 2,
                Some(_) => 0,
            };
            (sort, -(counts[0] + counts[1]), value.clone())
        });
        Ok(found)
    }
}

const INDUSTRIES: &[&str] = &[
    "kind",
    "industry",
    "companies",
    "prospects",
    "prospects_with_email",
    "email_share",
    "prospects_with_phone",
    "phone_share",
];
const COUNTRIES: &[&str] = &[
    "kind",
    "country",
    "companies",
    "prospects",
    "prospects_with_email",
    "email_share",
    "prospects_with_phone",
    "phone_share",
];
const SOURCES: &[&str] = &["kind", "source", "companies", "prospects"];

/// How many records there are, and of how many each field is known.
struct Filled(Vec<(String, String, String, i64)>);

impl Filled {
    async fn ask(transaction: &Transaction<'_>, schema: &str, filters: &Filters) -> Result<Self, ReadError> {
        let sql = format!(
            "-- query_service::analytics::report::filled
            SELECT o.record, o.measure, o.value, sum(o.records)::bigint
            FROM {schema}.own_stats($1 /* countries */, $2 /* industries */) AS o
            WHERE o.measure IN ('total', 'filled') GROUP BY 1, 2, 3"
        );
        let statement = transaction.prepare_cached(&sql).await?;
        let rows = transaction.query(&statement, &filters.values()).await?;
        let read = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
        rows.iter().map(read).collect::<Result<_, ReadError>>().map(Self)
    }

    fn total(&self, record: &str) -> i64 {
        self.of(record, "total", "")
    }

    fn known(&self, record: &str, field: &str) -> i64 {
        self.of(record, "filled", field)
    }

    fn of(&self, record: &str, measure: &str, value: &str) -> i64 {
        let found = self.0.iter().find(|one| (&*one.0, &*one.1, &*one.2) == (record, measure, value));
        found.map_or(0, |one| one.3)
    }
}

fn completeness(filled: &Filled) -> Table {
    let fields = COMPANY_FIELDS.iter().map(|field| ("company", *field));
    let fields = fields.chain(PROSPECT_FIELDS.iter().map(|field| ("prospect", *field)));
    let rows = fields.map(|(record, field)| {
        let (known, total) = (filled.known(record, field), filled.total(record));
        vec![json!(record), json!(field), json!(known), json!(total - known), share(known, total)]
    });
    Table { columns: &["record", "field", "filled", "missing", "share"], rows: rows.collect() }
}

fn overview(filled: &Filled) -> Table {
    let (companies, prospects) = (filled.total("company"), filled.total("prospect"));
    let with_prospects = filled.known("company", "prospects");
    let with_company = filled.known("prospect", "company");
    let of =
        |figure: &str, count: i64, whole: i64| -> Vec<Value> { vec![json!(figure), json!(count), share(count, whole)] };
    let rows = vec![
        of("companies", companies, companies),
        of("companies_with_domain", filled.known("company", "domain"), companies),
        of("companies_with_prospects", with_prospects, companies),
        of("companies_without_prospects", companies - with_prospects, companies),
        of("prospects", prospects, prospects),
        of("prospects_with_company", with_company, prospects),
        of("prospects_without_company", prospects - with_company, prospects),
        of("prospects_with_email", filled.known("prospect", "email"), prospects),
        of("prospects_with_phone", filled.known("prospect", "phone"), prospects),
    ];
    Table { columns: &["figure", "count", "share"], rows }
}
