//! What was measured: medians, ratios, what was asked for, and the files that keep it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

/// What is asked of a figure.
enum Asked {
    /// At least so many times another figure of the run.
    AtLeast(f64, &'static str),
    /// At most so many times another figure of the run.
    AtMost(f64, &'static str),
    /// Under so much, in its own unit.
    Under(f64),
    /// Nothing, but to be told beside another figure of the run.
    Beside(&'static str),
}

/// Figures that something is asked of.
const ASKED: &[(&str, Asked)] = &[
    ("append.library", Asked::AtLeast(4.0, "limit.insert")),
    ("append.library_claims", Asked::AtLeast(2.0, "limit.insert")),
    ("append.http", Asked::AtLeast(1.2, "limit.insert")),
    // append.library is to be at least twelve times postgres-es.
    ("append.postgres_es", Asked::AtMost(1.0 / 12.0, "append.library")),
    ("load_append.cold", Asked::AtLeast(2.0, "limit.load_insert")),
    ("load_append.warm", Asked::AtLeast(5.0, "limit.load_insert")),
    ("append.foreign_end", Asked::AtLeast(0.9, "append.foreign_start")),
    ("latency.http_p50", Asked::AtMost(3.0, "limit.insert_p50")),
    ("visible.p99", Asked::Under(50.0)),
    ("visible.fanout_p99", Asked::Under(1_000.0)),
    ("read.http", Asked::AtLeast(0.3, "limit.select")),
    ("audit.verify", Asked::AtLeast(0.5, "limit.copy_log")),
    ("audit.verify_memory", Asked::Under(64.0)),
    ("sealed.head_gap", Asked::Under(1_000.0)),
    ("sealed.append_library", Asked::AtLeast(0.85, "unsealed.append_library")),
    ("sealed.append_http", Asked::AtLeast(0.85, "unsealed.append_http")),
    ("sealed.import", Asked::AtLeast(0.85, "unsealed.import")),
    ("history.1000_events", Asked::Under(10.0)),
    ("history.feed_memory", Asked::Under(64.0)),
    ("import.log", Asked::AtLeast(0.8, "limit.import_insert")),
    ("import.again", Asked::AtLeast(1.0, "import.log")),
    ("import.visible", Asked::AtLeast(0.3, "limit.import_insert")),
    ("import.memory", Asked::Under(200.0)),
    ("rebuild", Asked::AtLeast(0.5, "limit.copy_index")),
    ("project.incremental", Asked::AtLeast(0.5, "limit.indexed_insert")),
    // rebuild is to be at least ten times postgres-es.
    ("replay.postgres_es", Asked::AtMost(0.1, "rebuild")),
    ("refresh.concurrently", Asked::Beside("refresh.incremental")),
    ("memory.command_service", Asked::Under(150.0)),
    ("memory.projector", Asked::Under(150.0)),
    ("memory.query_service", Asked::Under(150.0)),
];

/// All figures of a run.
#[derive(Default)]
pub struct Results {
    figures: BTreeMap<String, (&'static str, Vec<f64>)>,
}

impl Results {
    /// Adds one round's figure.
    pub fn add(&mut self, name: &str, unit: &'static str, value: f64) {
        eprintln!("  {name}: {value:.3} {unit}");
        self.figures.entry(name.to_owned()).or_insert((unit, Vec::new())).1.push(value);
    }

    /// The newest round's figure.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.figures.get(name)?.1.last().copied()
    }

    /// The median over the rounds of the ratio to another figure of the same round: the machine's speed drifts between them.
    fn ratio(&self, name: &str, to: &str) -> Option<f64> {
        let (ours, theirs) = (&self.figures.get(name)?.1, &self.figures.get(to)?.1);
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        (ratios.len() == ours.len()).then(|| median(&ratios))
    }

    /// Every figure with its ratio, what is asked of it, and whether it is reached.
    pub fn table(&self) -> String {
        let mut table = format!("{:<26}{:>12} {:<11}{:>8}  asked for\n", "figure", "median", "unit", "ratio");
        for (name, (unit, values)) in &self.figures {
            let median = median(values);
            let digits = if median < 100.0 { 3 } else { 0 };
            let asked = match asked(name) {
                Some(Asked::AtLeast(bound, to)) => self
                    .ratio(name, to)
                    .map(|ratio| format!("{ratio:>8.2}  at least {bound} × {to}: {}", said(ratio >= *bound))),
                Some(Asked::AtMost(bound, to)) => self
                    .ratio(name, to)
                    .map(|ratio| format!("{ratio:>8.3}  at most {bound:.3} × {to}: {}", said(ratio <= *bound))),
                Some(Asked::Beside(to)) => self.ratio(name, to).map(|ratio| format!("{ratio:>8.2}  × {to}")),
                Some(Asked::Under(bound)) => {
                    Some(format!("{:>8}  under {bound} {unit}: {}", "", said(median < *bound)))
                }
                None => None,
            };
            let line = format!("{name:<26}{median:>12.digits$} {unit:<11}{}", asked.unwrap_or_default());
            table += line.trim_end();
            table.push('\n');
        }
        table
    }

    /// Writes `bench/results.json`, `bench/results.svg` and, where refreshes were measured, `bench/refresh.svg`.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self) -> anyhow::Result<()> {
        let list: Vec<Value> =
            self.figures.iter().map(|(name, (unit, values))| self.entry(name, unit, values)).collect();
        let directory = Path::new("bench");
        let json = serde_json::to_string_pretty(&list)?;
        std::fs::write(directory.join("results.json"), json + "\n").context("writing bench/results.json")?;
        std::fs::write(directory.join("results.svg"), self.plot()).context("writing bench/results.svg")?;
        if let Some(plot) = self.refresh_plot() {
            std::fs::write(directory.join("refresh.svg"), plot).context("writing bench/refresh.svg")?;
        }
        Ok(())
    }

    /// How long a refresh takes beside one change of ours: bars that grow by a fifth of the width for every tenfold time from 1 ms on, for
    /// the one is hundreds of times the other.
    fn refresh_plot(&self) -> Option<String> {
        const BARS: &[(&str, &str, &str)] = &[
            ("refresh.concurrently", "REFRESH … CONCURRENTLY of requirement 003's view", "#c05621"),
            ("refresh.plain", "REFRESH, readers kept out", "#c05621"),
            ("refresh.stats", "refresh of what is counted", "#718096"),
            ("refresh.incremental", "one change on the replica, by our table", "#2f855a"),
        ];
        let (_, rows) = self.figures.get("refresh.rows")?;
        let ratio = self.ratio("refresh.concurrently", "refresh.incremental")?;
        let mut bars = String::new();
        let mut y = 50;
        for (name, told, colour) in BARS {
            let seconds = median(&self.figures.get(*name)?.1);
            let width = 100.0 * (seconds * 1_000.0).max(1.0).log10();
            bars += &format!(
                "<text x=\"320\" y=\"{}\" text-anchor=\"end\">{told}</text>\
                 <rect x=\"330\" y=\"{y}\" width=\"{width:.0}\" height=\"16\" fill=\"{colour}\"/>\
                 <text x=\"{:.0}\" y=\"{}\">{seconds:.3} s</text>\n",
                y + 13,
                340.0 + width,
                y + 13,
            );
            y += 26;
        }
        Some(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 900 {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"10\" y=\"24\" font-size=\"14\">Until a change shows, at {:.0} rows: refreshing takes {ratio:.0} times as long (bars are logarithmic, from 1 ms)</text>\n\
             {bars}</svg>\n",
            y + 20,
            median(rows),
        ))
    }

    fn entry(&self, name: &str, unit: &str, values: &[f64]) -> Value {
        let mut entry = Map::new();
        entry.insert("name".to_owned(), json!(name));
        entry.insert("unit".to_owned(), json!(unit));
        entry.insert("median".to_owned(), json!(median(values)));
        entry.insert("min".to_owned(), json!(values.iter().copied().fold(f64::INFINITY, f64::min)));
        entry.insert("max".to_owned(), json!(values.iter().copied().fold(f64::NEG_INFINITY, f64::max)));
        if let Some(Asked::AtLeast(_, to) | Asked::AtMost(_, to) | Asked::Beside(to)) = asked(name)
            && let Some(ratio) = self.ratio(name, to)
        {
            entry.insert("ratio_to".to_owned(), json!(to));
            entry.insert("ratio".to_owned(), json!(ratio));
        }
        Value::Object(entry)
    }

    /// A bar for every ratio that is asked for, as a share of what is asked, and a line at what is asked.
    fn plot(&self) -> String {
        let mut bars = String::new();
        let mut y = 50;
        for (name, asked) in ASKED {
            // How well it is reached, 1 being just so: more is better for all of them.
            let (reached, told) = match asked {
                Asked::AtLeast(bound, to) => match self.ratio(name, to) {
                    Some(ratio) => (ratio / bound, format!("{ratio:.2} × {to} (at least {bound})")),
                    None => continue,
                },
                Asked::AtMost(bound, to) => match self.ratio(name, to) {
                    Some(ratio) => (bound / ratio, format!("{ratio:.3} × {to} (at most {bound:.3})")),
                    None => continue,
                },
                // It has a plot of its own.
                Asked::Beside(_) => continue,
                Asked::Under(bound) => match self.figures.get(*name) {
                    Some((unit, values)) => {
                        let median = median(values);
                        (bound / median, format!("{median:.1} {unit} (under {bound})"))
                    }
                    None => continue,
                },
            };
            let width = 100.0 * reached.min(4.0);
            let colour = if reached >= 1.0 { "#2f855a" } else { "#c05621" };
            bars += &format!(
                "<text x=\"170\" y=\"{}\" text-anchor=\"end\">{name}</text>\
                 <rect x=\"180\" y=\"{y}\" width=\"{width:.0}\" height=\"16\" fill=\"{colour}\"/>\
                 <text x=\"590\" y=\"{}\">{told}</text>\n",
                y + 13,
                y + 13,
            );
            y += 26;
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 900 {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"10\" y=\"24\" font-size=\"14\">What was measured, as a share of what is asked (line; bars end at four times)</text>\n\
             {bars}<line x1=\"280\" x2=\"280\" y1=\"40\" y2=\"{y}\" stroke=\"#1a202c\"/>\n</svg>\n",
            y + 20
        )
    }
}

fn asked(name: &str) -> Option<&'static Asked> {
    ASKED.iter().find(|(asked, _)| *asked == name).map(|(_, asked)| asked)
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn said(reached: bool) -> &'static str {
    if reached { "reached" } else { "NOT REACHED" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_ratios_and_says_whether_it_is_reached() {
        let mut results = Results::default();
        for (limit, ours) in [(10.0, 50.0), (20.0, 60.0), (10.0, 41.0)] {
            results.add("limit.insert", "events/s", limit);
            results.add("append.library", "events/s", ours);
        }
        assert!((results.ratio("append.library", "limit.insert").unwrap() - 4.1).abs() < 1e-9);
        assert!(results.table().contains("at least 4 × limit.insert: reached"), "{}", results.table());
        results.add("visible.p99", "ms", 51.0);
        assert!(results.table().contains("under 50 ms: NOT REACHED"), "{}", results.table());
        assert!(results.ratio("append.http", "limit.insert").is_none());
    }
}
