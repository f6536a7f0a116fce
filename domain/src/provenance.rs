//! Where the values of a record come from, as far as imports brought them, and which of two values wins (`fields.md`, "Two rows
//! disagree about a company").
//!
//! A source repeats itself: the same list is imported every week. So a value that a source has said before and that lost, or was
//! replaced since, is not news when it is said again, unless the row carries a time of its own that is newer. That is what makes the
//! same file twice change nothing, whatever it contradicts itself in.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::value::Line;
use crate::weight;

/// The most values of one record that are remembered as said and lost. A record that is contradicted more often may report, and
/// with the rule `newest` take, an old value again.
const SUPERSEDED_MAX: usize = 1_000;
/// What stands for the source of a value that no import brought.
pub const BY_HAND: &str = "api";

/// Which row of which import says something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The name of the list's source.
    pub source: Line<100>,
    /// The import.
    pub import_id: Uuid,
    /// The row, counted from 1.
    pub row: u64,
    /// The row's own time, where it has one: microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<i64>,
}

/// Which of two values of one field wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictRule {
    /// The newer one by the rows' own times; without them the one that comes later. Of one time the greater one, so that the order
    /// does not matter.
    Newest,
    /// The one that is there.
    Keep,
    /// The one whose source stands earlier in this list; of one rank the newer one. What people entered counts as `api`, and
    /// comes first unless the list says otherwise; a source that is not in the list comes last.
    SourceRank(Vec<Line<100>>),
}

/// Where the values of one record come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// Of every field that stands in none of `fields`: the row that made the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    registered: Option<Origin>,
    /// Of the others; none where somebody changed it by hand.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, Option<Origin>>,
    /// Hashes of what a source has said of a field and what does not stand there any more, or never did.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    superseded: BTreeSet<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    source: Line<100>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<i64>,
}

/// What becomes of a value that contradicts the one that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It takes the other's place.
    Wins,
    /// It loses, and that is news.
    Loses,
    /// It loses, as it did before: nothing is to be noted.
    LostBefore,
}

/// A value that another one of the same field prevailed over: for the report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Conflict {
    /// The row that brought the contradiction.
    pub row: u64,
    /// The field; attributes as `attributes.<key>`.
    pub field: String,
    /// What stands now.
    pub kept: Value,
    /// What does not.
    pub lost: Value,
}

impl Provenance {
    /// Everything is from one row, or, without one, entered by hand.
    pub fn of(said: Option<&Said>) -> Self {
        Self { registered: said.map(Origin::of), ..Self::default() }
    }

    /// Whether a row of this source made the record.
    pub fn begins_with(&self, source: &str) -> bool {
        self.registered.as_ref().is_some_and(|origin| origin.source.as_str() == source)
    }

    /// Which of two different values of a field wins: the one that stands or the one that is said.
    pub fn judge(&self, rule: &ConflictRule, said: &Said, field: &str, stands: &Value, new: &Value) -> Verdict {
        let origin = self.origin(field);
        let newer = match (origin.and_then(|origin| origin.at), said.at) {
            (Some(then), Some(now)) if now == then => Some(text_of(new) > text_of(stands)),
            (Some(then), Some(now)) => Some(now > then),
            _ => None,
        };
        let known = self.superseded.contains(&fingerprint(said.source.as_str(), field, new));
        if known && newer != Some(true) {
            return Verdict::LostBefore;
        }
        let wins = match rule {
            ConflictRule::Newest => newer.unwrap_or(true),
            ConflictRule::Keep => false,
            ConflictRule::SourceRank(ranks) => {
                let rank = |source: &str| ranks.iter().position(|ranked| ranked.as_str() == source);
                let of_import =
                    |source: &str| rank(source).map_or(i64::MAX, |place| i64::try_from(place).unwrap_or(i64::MAX));
                let here = match origin {
                    Some(origin) => of_import(origin.source.as_str()),
                    None => rank(BY_HAND).map_or(-1, |place| i64::try_from(place).unwrap_or(i64::MAX)),
                };
                match of_import(said.source.as_str()).cmp(&here) {
                    std::cmp::Ordering::Less => true,
                    std::cmp::Ordering::Equal => newer.unwrap_or(true),
                    std::cmp::Ordering::Greater => false,
                }
            }
        };
        match wins {
            true => Verdict::Wins,
            false if known => Verdict::LostBefore,
            false => Verdict::Loses,
        }
    }

    /// Whether the source has said this value before, and somebody has cleared it since: a blank that stays one when the list says it
    /// again.
    pub fn was_taken_away(&self, said: &Said, field: &str, new: &Value) -> bool {
        !self.superseded.is_empty() && self.superseded.contains(&fingerprint(said.source.as_str(), field, new))
    }

    /// A field takes another value: by what a row says, or by hand. `stood` is the value before, where there was one.
    pub(crate) fn replace(&mut self, said: Option<&Said>, field: &str, stood: Option<&Value>) {
        if let (Some(stood), Some(origin)) = (stood, self.origin(field)) {
            let lost = fingerprint(origin.source.as_str(), field, stood);
            self.supersede(lost);
        }
        let origin = said.map(Origin::of);
        if self.registered == origin {
            self.fields.remove(field);
        } else {
            self.fields.insert(field.to_owned(), origin);
        }
    }

    /// A row has said something that did not win.
    pub(crate) fn decline(&mut self, said: &Said, field: &str, value: &Value) {
        self.supersede(fingerprint(said.source.as_str(), field, value));
    }

    fn supersede(&mut self, hash: u64) {
        if self.superseded.len() < SUPERSEDED_MAX {
            self.superseded.insert(hash);
        }
    }

    fn origin(&self, field: &str) -> Option<&Origin> {
        self.fields.get(field).unwrap_or(&self.registered).as_ref()
    }

    /// Bytes that it holds outside itself, roughly.
    pub fn heap_bytes(&self) -> usize {
        let origin = |origin: &Option<Origin>| origin.as_ref().map_or(0, |origin| origin.source.as_str().len());
        origin(&self.registered)
            + weight::of_tree::<String, Option<Origin>>(self.fields.len())
            + self.fields.iter().map(|(field, one)| field.len() + origin(one)).sum::<usize>()
            + weight::of_tree::<u64, ()>(self.superseded.len())
    }
}

impl Origin {
    fn of(said: &Said) -> Self {
        Self { source: said.source.clone(), at: said.at }
    }
}

/// The name under which an attribute is contested.
pub(crate) fn attribute_field(key: &str) -> String {
    format!("attributes.{key}")
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// 64 bits by which a value is recognised; kept in memory and, where a record goes back to what it was, in its event.
fn fingerprint(source: &str, field: &str, value: &Value) -> u64 {
    // FNV-1a: the same on every machine and in every version, which std's hasher does not promise.
    let text = text_of(value);
    let parts = [source, "\u{1f}", field, "\u{1f}", &text];
    let bytes = parts.iter().flat_map(|part| part.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(source: &str, at: Option<i64>) -> Said {
        Said { source: Line::parse(source).expect("a line"), import_id: Uuid::nil(), row: 1, at }
    }

    fn judge(held: &Provenance, rule: &ConflictRule, said: &Said, stands: &str, new: &str) -> Verdict {
        held.judge(rule, said, "name", &json!(stands), &json!(new))
    }

    #[test]
    fn newest_goes_by_the_rows_times_and_else_by_arrival() {
        let rule = ConflictRule::Newest;
        let held = Provenance::of(Some(&said("crm", Some(100))));
        assert_eq!(judge(&held, &rule, &said("crm", Some(101)), "A", "B"), Verdict::Wins);
        assert_eq!(judge(&held, &rule, &said("crm", Some(99)), "A", "B"), Verdict::Loses);
        assert_eq!(judge(&held, &rule, &said("crm", Some(100)), "A", "B"), Verdict::Wins, "the greater of one time");
        assert_eq!(judge(&held, &rule, &said("crm", Some(100)), "B", "A"), Verdict::Loses);
        assert_eq!(judge(&held, &rule, &said("crm", None), "A", "B"), Verdict::Wins);
        assert_eq!(judge(&Provenance::of(None), &rule, &said("crm", Some(1)), "A", "B"), Verdict::Wins);
    }

    #[test]
    fn what_a_source_said_before_is_no_news_unless_it_is_newer() {
        let rule = ConflictRule::Newest;
        let mut held = Provenance::of(Some(&said("crm", None)));
        held.replace(Some(&said("crm", None)), "name", Some(&json!("A")));
        assert_eq!(judge(&held, &rule, &said("crm", None), "B", "A"), Verdict::LostBefore);
        assert_eq!(judge(&held, &rule, &said("web", None), "B", "A"), Verdict::Wins, "another source says it anew");
        held.decline(&said("web", None), "name", &json!("A"));
        assert_eq!(judge(&held, &ConflictRule::Keep, &said("web", None), "B", "A"), Verdict::LostBefore);
        let mut timed = Provenance::of(Some(&said("crm", Some(1))));
        timed.replace(Some(&said("crm", Some(2))), "name", Some(&json!("A")));
        assert_eq!(judge(&timed, &rule, &said("crm", Some(1)), "B", "A"), Verdict::LostBefore);
        assert_eq!(judge(&timed, &rule, &said("crm", Some(3)), "B", "A"), Verdict::Wins, "it went back");
    }

    #[test]
    fn ranks_decide_before_times_and_people_come_first() {
        let line = |text| Line::parse(text).expect("a line");
        let rule = ConflictRule::SourceRank(vec![line("crm"), line("web")]);
        let crm = Provenance::of(Some(&said("crm", Some(1))));
        assert_eq!(judge(&crm, &rule, &said("web", Some(9)), "A", "B"), Verdict::Loses);
        assert_eq!(judge(&crm, &rule, &said("crm", Some(9)), "A", "B"), Verdict::Wins);
        assert_eq!(judge(&crm, &rule, &said("bought", Some(9)), "A", "B"), Verdict::Loses);
        let web = Provenance::of(Some(&said("web", Some(9))));
        assert_eq!(judge(&web, &rule, &said("crm", Some(1)), "A", "B"), Verdict::Wins);
        let mut by_hand = web.clone();
        by_hand.replace(None, "name", Some(&json!("B")));
        assert_eq!(judge(&by_hand, &rule, &said("crm", Some(99)), "A", "B2"), Verdict::Loses);
        let people_last = ConflictRule::SourceRank(vec![line("crm"), line("api")]);
        assert_eq!(judge(&by_hand, &people_last, &said("crm", None), "A", "B2"), Verdict::Wins);
        assert_eq!(judge(&by_hand, &ConflictRule::Keep, &said("crm", None), "A", "B2"), Verdict::Loses);
    }
}
