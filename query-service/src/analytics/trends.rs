//! How many records were made in each day, week or month.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use domain::Invalid;
use serde_json::{Value, json};
use service_kit::problem::{Code, Problem};
use time::macros::format_description;
use time::{Date, Duration, Month};
use tokio_postgres::types::ToSql;

use super::AsOf;
use super::filters::Filters;
use super::table::Table;
use crate::parameters::Parameters;
use crate::problems::ReadError;

/// Rows at most: three years of days.
pub(crate) const INTERVALS_MAX: usize = 1_100;

const COLUMNS: &[&str] = &["from", "to", "companies_created", "companies_live", "prospects_created", "prospects_live"];

/// What is counted together. A week begins on Monday.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interval {
    Day,
    Week,
    Month,
}

/// Trends as they are asked for.
pub(crate) struct Trends {
    interval: Interval,
    from: Option<Date>,
    to: Option<Date>,
}

impl Trends {
    /// Parameters beside the filters.
    pub(crate) const PARAMETERS: &'static [&'static str] = &["interval", "from", "to"];

    /// Reads them; what is wrong is noted.
    pub(crate) fn parse(parameters: &mut Parameters) -> Self {
        let interval = match parameters.text("interval") {
            None | Some("day") => Interval::Day,
            Some("week") => Interval::Week,
            Some("month") => Interval::Month,
            Some(_) => {
                parameters.note_value("interval", "must be day, week or month");
                Interval::Day
            }
        };
        let mut date = |name| {
            let read = parameters.text(name).map(date);
            read.and_then(|read| parameters.noted(name, read))
        };
        let (from, to) = (date("from"), date("to"));
        Self { interval, from, to }
    }

    pub(super) async fn ask(
        &self,
        transaction: &Transaction<'_>,
        schema: &str,
        filters: &Filters,
        as_of: AsOf,
    ) -> Result<Result<Table, Problem>, ReadError> {
        let intervals = match self.intervals(as_of.made_at.to_offset(time::UtcOffset::UTC).date()) {
            Ok(intervals) => intervals,
            Err(problem) => return Ok(Err(problem)),
        };
        let (Some((first, _)), Some((_, last))) = (intervals.first(), intervals.last()) else {
            return Ok(Ok(Table { columns: COLUMNS, rows: Vec::new() }));
        };
        let sql = format!(
            "-- query_service::analytics::trends
            SELECT g.record, g.day, g.created, g.live
            FROM {schema}.own_growth($1 /* countries */, $2 /* industries */, $3 /* first */, $4 /* last */) AS g"
        );
        let statement = transaction.prepare_cached(&sql).await?;
        let [countries, industries] = filters.values();
        let values: [&(dyn ToSql + Sync); 4] = [countries, industries, first, last];
        let mut counted: BTreeMap<Date, [i64; 4]> = BTreeMap::new();
        for row in transaction.query(&statement, &values).await? {
            let (record, day): (&str, Date) = (row.try_get(0)?, row.try_get(1)?);
            let begun = self.interval.begin(day).unwrap_or(day);
            let place = if record == "company" { 0 } else { 2 };
            let counts = counted.entry(begun).or_default();
            counts[place] += row.try_get::<_, i64>(2)?;
            counts[place + 1] += row.try_get::<_, i64>(3)?;
        }
        let rows = intervals.into_iter().map(|(from, to)| {
            let counts = counted.get(&from).copied().unwrap_or_default();
            let dates = [from, to].map(|date| Value::String(date_text(date)));
            dates.into_iter().chain(counts.map(|count| json!(count))).collect()
        });
        Ok(Ok(Table { columns: COLUMNS, rows: rows.collect() }))
    }

    /// The whole intervals that are asked for, each with its first and last day. `today` is the day that the numbers were made.
    fn intervals(&self, today: Date) -> Result<Vec<(Date, Date)>, Problem> {
        let wrong = |detail: String| Problem::new(Code::InvalidParameter, detail);
        let too_many = || {
            wrong(format!(
                "from and to span more than {INTERVALS_MAX} intervals: narrow them, or take a longer interval"
            ))
        };
        let to = self.to.unwrap_or(today);
        let from = match self.from {
            Some(from) => from,
            None => self.interval.usual(to).unwrap_or(to),
        };
        if from > to {
            return Err(wrong(format!("from ({}) is after to ({})", date_text(from), date_text(to))));
        }
        let mut intervals = Vec::new();
        let mut begun = self.interval.begin(from);
        while let Some(first) = begun.filter(|first| *first <= to) {
            if intervals.len() >= INTERVALS_MAX {
                return Err(too_many());
            }
            let next = self.interval.next(first);
            let Some(last) = next.and_then(Date::previous_day) else { break };
            intervals.push((first, last));
            begun = next;
        }
        Ok(intervals)
    }
}

impl Interval {
    /// The first day of the interval that a day is in.
    fn begin(self, day: Date) -> Option<Date> {
        match self {
            Self::Day => Some(day),
            Self::Week => day.checked_sub(Duration::days(day.weekday().number_days_from_monday().into())),
            Self::Month => day.replace_day(1).ok(),
        }
    }

    /// The first day of the interval after the one that begins on this day.
    fn next(self, first: Date) -> Option<Date> {
        match self {
            Self::Day => first.next_day(),
            Self::Week => first.checked_add(Duration::weeks(1)),
            Self::Month => {
                let year = if first.month() == Month::December { first.year() + 1 } else { first.year() };
                Date::from_calendar_date(year, first.month().next(), 1).ok()
            }
        }
    }

    /// The first day that is shown where the request does not say: 30 days, 12 weeks or 12 months in all.
    fn usual(self, to: Date) -> Option<Date> {
        match self {
            Self::Day => to.checked_sub(Duration::days(29)),
            Self::Week => to.checked_sub(Duration::weeks(11)),
            Self::Month => {
                let next = self.next(to.replace_day(1).ok()?)?;
                Date::from_calendar_date(next.year() - 1, next.month(), 1).ok()
            }
        }
    }
}

fn date(text: &str) -> Result<Date, Invalid> {
    let read = Date::parse(text, format_description!("[year]-[month]-[day]")).ok();
    // What PostgreSQL and calendars can be asked for.
    read.filter(|date| (1900..=9000).contains(&date.year()))
        .ok_or_else(|| Invalid::new(Code::InvalidParameter.name(), "must be a day: 2026-01-31"))
}

fn date_text(date: Date) -> String {
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(interval: Interval, from: &str, to: &str) -> Vec<String> {
        let day = |text: &str| (!text.is_empty()).then(|| date(text).expect("a day"));
        let trends = Trends { interval, from: day(from), to: day(to) };
        let found = trends.intervals(date("2026-03-18").expect("a day")).expect("few");
        found.iter().map(|(from, to)| format!("{}..{}", date_text(*from), date_text(*to))).collect()
    }

    #[test]
    fn whole_intervals() {
        assert_eq!(
            intervals(Interval::Day, "2026-02-28", "2026-03-01"),
            ["2026-02-28..2026-02-28", "2026-03-01..2026-03-01"]
        );
        assert_eq!(
            intervals(Interval::Week, "2026-03-15", "2026-03-16"),
            ["2026-03-09..2026-03-15", "2026-03-16..2026-03-22"]
        );
        assert_eq!(
            intervals(Interval::Month, "2025-12-31", "2026-01-01"),
            ["2025-12-01..2025-12-31", "2026-01-01..2026-01-31"]
        );
        for (interval, count, first) in [
            (Interval::Day, 30, "2026-02-17..2026-02-17"),
            (Interval::Week, 12, "2025-12-29..2026-01-04"),
            (Interval::Month, 12, "2025-04-01..2025-04-30"),
        ] {
            let usual = intervals(interval, "", "");
            assert_eq!((usual.len(), usual[0].as_str()), (count, first));
        }
        let today = date("2026-03-18").expect("a day");
        let of = |from: &str, to: &str| {
            let (from, to) = (date(from).ok(), date(to).ok());
            Trends { interval: Interval::Day, from, to }.intervals(today)
        };
        assert!(of("2026-03-02", "2026-03-01").is_err());
        assert!(of("2023-03-15", "2026-03-18").is_ok());
        assert!(of("2020-03-15", "2026-03-18").is_err());
        assert!(date("2026-13-01").is_err() && date("0001-01-01").is_err() && date("2026-1-1").is_err());
    }
}
