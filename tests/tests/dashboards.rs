//! Rules and dashboards speak of figures that there are, and the alarm of the backup goes off when it should.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use local_stack::Part;
use serde_json::{Value, json};
use tests::{Client, TestStack, eventually};

/// Made by Prometheus itself for each target.
const OF_PROMETHEUS: &[&str] = &["up"];

fn file(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rules() -> Vec<String> {
    let text = file("prometheus/prospectus.rules.yml");
    text.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(ToOwned::to_owned).collect()
}

fn dashboard() -> Vec<String> {
    fn collect(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                into.extend(members.get("expr").and_then(Value::as_str).map(ToOwned::to_owned));
                members.values().for_each(|member| collect(member, into));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
            _ => {}
        }
    }
    let mut expressions = Vec::new();
    collect(&serde_json::from_str(&file("grafana/prospectus.json")).expect("JSON"), &mut expressions);
    expressions
}

/// An expression without what stands between these two, both included.
fn without(expression: &str, open: char, close: char) -> String {
    let mut depth = 0_usize;
    let kept = expression.chars().filter(|letter| {
        let inside = depth > 0;
        if *letter == open && (open != close || depth == 0) {
            depth += 1;
            return false;
        }
        if *letter == close && depth > 0 {
            depth -= 1;
        }
        !inside
    });
    kept.collect()
}

/// The metrics that a `PromQL` expression names: words that are no function, no keyword, no label and no unit.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    const KEYWORDS: &[&str] = &["and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring"];
    let mut bare = expression.to_owned();
    for (open, close) in [('"', '"'), ('{', '}'), ('[', ']')] {
        bare = without(&bare, open, close);
    }
    // Lists of labels.
    for keyword in ["by (", "without (", "on (", "ignoring ("] {
        while let Some(start) = bare.find(&format!(" {keyword}")) {
            let end = start + bare[start..].find(')').expect("the list ends");
            bare.replace_range(start..=end, " ");
        }
    }
    let mut names = BTreeSet::new();
    let mut rest = bare.as_str();
    while let Some(start) = rest.find(|letter: char| letter.is_ascii_alphanumeric() || letter == '_') {
        rest = &rest[start..];
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let is_number = word.starts_with(|letter: char| letter.is_ascii_digit());
        if !is_number && !KEYWORDS.contains(&word) && !after.trim_start().starts_with('(') {
            names.insert(word.to_owned());
        }
        rest = after;
    }
    names
}

#[test]
fn names_are_found_in_expressions() {
    for (expression, names) in [
        ("sum by (le, x) (rate(a_bucket{b=\"c d\"}[5m])) / 1e9 > 2", &["a_bucket"][..]),
        ("time() - max(one) > 93600 or max by (slot) (two) < 1", &["one", "two"]),
        ("86400 * deriv(sum(max by (table) (three))[6h:5m])", &["three"]),
    ] {
        assert_eq!(metrics_of(expression), names.iter().map(|name| (*name).to_owned()).collect(), "{expression}");
    }
}

/// The samples of all services: names with labels, and values.
async fn scrape(test: &TestStack, client: &Client) -> Vec<(String, f64)> {
    let mut samples = Vec::new();
    for part in [Part::CommandService(1), Part::Projector, Part::QueryService] {
        let scraped = client.get_from(&test.stack.url(part), "/metrics").await;
        let text = String::from_utf8_lossy(&scraped.bytes).into_owned();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        samples.extend(lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        }));
    }
    samples
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_that_rules_and_dashboards_name_is_in_a_scrape() {
    let (rules, dashboard) = (rules(), dashboard());
    assert!(rules.len() >= 20 && dashboard.len() >= 30, "{} rules, {} expressions", rules.len(), dashboard.len());
    let named: BTreeSet<String> =
        rules.iter().chain(&dashboard).flat_map(|expression| metrics_of(expression)).collect();
    let test = TestStack::start().await;
    let client = test.client();
    let position = client.command(Method::POST, "/v1/companies", &json!({"name": "Seen"})).await.position();
    client.read("/v1/companies", Some(position)).await;
    let mut missing = BTreeSet::new();
    let found = eventually_some(async || {
        let samples = scrape(&test, &client).await;
        let there: BTreeSet<&str> = samples.iter().map(|(name, _)| name.split('{').next().unwrap_or(name)).collect();
        missing = named
            .iter()
            .filter(|name| !there.contains(name.as_str()) && !OF_PROMETHEUS.contains(&name.as_str()))
            .cloned()
            .collect();
        missing.is_empty()
    })
    .await;
    assert!(found, "in no scrape: {missing:?}");
    the_alarm_of_the_backup_goes_off_when_it_should(&test, &client, &rules).await;
    test.finish().await;
}

/// Whether it came within the time of [`eventually`], to say what is missing where it did not.
async fn eventually_some(mut look: impl AsyncFnMut() -> bool) -> bool {
    let started = std::time::Instant::now();
    while started.elapsed() < tests::PATIENCE {
        if look().await {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    false
}

/// The rule is `time() - max(metric) > age`: both are taken from the file, the value from the scrape.
async fn the_alarm_of_the_backup_goes_off_when_it_should(test: &TestStack, client: &Client, rules: &[String]) {
    const METRIC: &str = "prospectus_backup_last_success_timestamp_seconds";
    let rule = rules.iter().find(|rule| rule.contains(METRIC)).expect("a rule about the backup");
    let age = rule.strip_prefix(&format!("time() - max({METRIC}) > ")).expect("the rule's form");
    let age: f64 = age.parse().expect("seconds");
    let raised = async || {
        let samples = scrape(test, client).await;
        let last = samples.iter().find(|(name, _)| name == METRIC).map(|(_, value)| *value)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs_f64();
        Some((now - last > age, last))
    };
    assert_eq!(raised().await.map(|(raised, _)| raised), Some(true), "there never was a backup");
    let primary = test.superuser(Part::Primary).await;
    let backup = async |hours: f64, ok: bool| {
        const SQL: &str = "INSERT INTO ops.backups (started_at, finished_at, kind, label, position, ok)
            SELECT now() - make_interval(secs => 3600 * $1::float8 + 60), now() - make_interval(secs => 3600 * $1), 'full', 'test', 1, $2";
        primary.execute(SQL, &[&hours, &ok]).await.expect("a backup's row");
    };
    // One that is too old, and a newer one that failed.
    backup(age / 3_600.0 + 0.5, true).await;
    backup(0.0, false).await;
    let (still, _) =
        eventually("the old backup is seen", async || raised().await.filter(|(_, last)| *last > 0.0)).await;
    assert!(still, "it is older than the stated age");
    backup(1.0, true).await;
    eventually("the alarm ends", async || raised().await.filter(|(raised, _)| !raised)).await;
}
