//! How many records there are, by what is known of them.

use deadpool_postgres::Transaction;
use serde_json::json;
use tokio_postgres::types::ToSql;

use super::filters::Filters;
use super::table::{Table, kind, share, shown};
use crate::parameters::Parameters;
use crate::problems::ReadError;

/// Values of each measure, where the request does not say.
pub(crate) const LIMIT_DEFAULT: i64 = 20;
/// Values of each measure at most.
pub(crate) const LIMIT_MAX: i64 = 1_000;

/// The sorts of records.
pub(crate) const RECORDS: &[&str] = &["company", "prospect"];
/// What records are counted by. `filled` is by which of their fields are known.
pub(crate) const MEASURES: &[&str] = &[
    "total",
    "country",
    "industry",
    "state",
    "size_band",
    "revenue_band",
    "company_type",
    "job_level",
    "department",
    "source",
    "filled",
];

const COLUMNS: &[&str] = &["record", "measure", "kind", "value", "count", "share"];

/// Metrics as they are asked for.
pub(crate) struct Metrics {
    record: Option<String>,
    measures: Option<Vec<String>>,
    limit: i64,
}

impl Metrics {
    /// Parameters beside the filters.
    pub(crate) const PARAMETERS: &'static [&'static str] = &["record", "measure", "limit"];

    /// Reads them; what is wrong is noted.
    pub(crate) fn parse(parameters: &mut Parameters) -> Self {
        let record = parameters.text("record").map(str::to_owned);
        if record.as_ref().is_some_and(|record| !RECORDS.contains(&record.as_str())) {
            parameters.note_value("record", format!("must be one of {}", RECORDS.join(", ")));
        }
        let measures: Option<Vec<String>> =
            parameters.text("measure").map(|text| text.split(',').map(|name| name.trim().to_owned()).collect());
        if measures.iter().flatten().any(|name| !MEASURES.contains(&name.as_str())) {
            parameters.note_value("measure", format!("must be some of {}", MEASURES.join(",")));
        }
        let limit = parameters.number("limit", 1, LIMIT_MAX).unwrap_or(LIMIT_DEFAULT);
        Self { record, measures, limit }
    }

    pub(super) async fn ask(
        &self,
        transaction: &Transaction<'_>,
        schema: &str,
        filters: &Filters,
    ) -> Result<Table, ReadError> {
        // A null value stands for all that are not told: beyond the limit, or shared by too few persons.
        let sql = format!(
            "-- query_service::analytics::metrics
            WITH own AS MATERIALIZED (
                SELECT * FROM {schema}.own_stats($1 /* countries */, $2 /* industries */)
            ), counted AS (
                SELECT o.record, CASE WHEN starts_with(o.measure, 'rare_') THEN substr(o.measure, 6) ELSE o.measure END AS measure,
                       CASE WHEN NOT starts_with(o.measure, 'rare_') THEN o.value END AS value, sum(o.records) AS records
                FROM own AS o GROUP BY 1, 2, 3
                UNION ALL
                SELECT o.record, 'country', o.country, sum(o.records) FROM own AS o WHERE o.measure = 'total' GROUP BY 1, 3
                UNION ALL
                SELECT o.record, 'industry', o.industry, sum(o.records) FROM own AS o WHERE o.measure = 'total' GROUP BY 1, 3
            ), ranked AS (
                SELECT c.*, c.measure = 'filled' OR c.value = '' OR row_number() OVER (
                           PARTITION BY c.record, c.measure, coalesce(c.value, '') = ''
                           ORDER BY c.records DESC, c.value COLLATE \"C\"
                       ) <= $3 /* values */ AS told
                FROM counted AS c
            )
            SELECT r.record, r.measure, CASE WHEN r.told THEN r.value END AS value, sum(r.records)::bigint AS records
            FROM ranked AS r GROUP BY 1, 2, 3"
        );
        let statement = transaction.prepare_cached(&sql).await?;
        let [countries, industries] = filters.values();
        let values: [&(dyn ToSql + Sync); 3] = [countries, industries, &self.limit];
        let rows = transaction.query(&statement, &values).await?;
        let mut counted = Vec::with_capacity(rows.len());
        for row in &rows {
            let (record, measure): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let (value, count): (Option<String>, i64) = (row.try_get(2)?, row.try_get(3)?);
            counted.push(Counted { record, measure, value, count });
        }
        Ok(self.table(counted))
    }

    fn table(&self, mut counted: Vec<Counted>) -> Table {
        let total = |counted: &[Counted], record: &str| {
            let of = |one: &&Counted| one.record == record && one.measure == "total";
            counted.iter().find(of).map(|one| one.count)
        };
        // Of no records at all no row says that there are none.
        for record in RECORDS {
            if total(&counted, record).is_none() {
                let (record, measure) = ((*record).to_owned(), "total".to_owned());
                counted.push(Counted { record, measure, value: Some(String::new()), count: 0 });
            }
        }
        counted.sort_by_cached_key(Counted::order);
        let asked = |one: &&Counted| {
            self.record.as_ref().is_none_or(|record| *record == one.record)
                && self.measures.as_ref().is_none_or(|measures| measures.contains(&one.measure))
        };
        let rows = counted.iter().filter(asked).map(|one| {
            let whole = total(&counted, &one.record).unwrap_or(0);
            let kind = if one.measure == "total" { "total" } else { kind(one.value.as_deref()) };
            let value = shown(one.value.clone());
            vec![json!(one.record), json!(one.measure), json!(kind), value, json!(one.count), share(one.count, whole)]
        });
        Table { columns: COLUMNS, rows: rows.collect() }
    }
}

/// So many records of a sort have a value of a measure in common.
struct Counted {
    record: String,
    measure: String,
    /// Empty: nothing is known; none: those that are not told.
    value: Option<String>,
    count: i64,
}

impl Counted {
    /// Companies first, measures as they are listed, values before what has none, the most frequent first.
    fn order(&self) -> (String, usize, u8, i64, Option<String>) {
        let measure = MEASURES.iter().position(|name| *name == self.measure).unwrap_or(MEASURES.len());
        let sort = match self.value.as_deref() {
            Some("") => 1,
            None => 2,
            Some(_) => 0,
        };
        (self.record.clone(), measure, sort, -self.count, self.value.clone())
    }
}
