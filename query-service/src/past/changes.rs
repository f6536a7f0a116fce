//! What an event changed of a record as clients see it: member by member, from what to what.

use std::borrow::Cow;
use std::mem::replace;

use projector::columns::{Cell, Kind};
use serde::Serialize;
use serde_json::Value;

use super::Past;
use crate::record::json_of;

/// Members that say when and how often a record changed: an event's own members tell that already.
const OF_THE_EVENT: &[&str] = &["company_id", "prospect_id", "version", "position", "created_at", "updated_at"];
/// The member whose keys are told one by one.
const ATTRIBUTES: &str = "attributes";
/// What stands for what was erased with its person.
pub(crate) const ERASED: &str = "erased";

/// One member that is another one after an event. A member without a value is null.
#[derive(Debug, Serialize)]
pub(crate) struct Change {
    /// Its name; a key of the attributes is `attributes.<key>`.
    field: Cow<'static, str>,
    from: Value,
    to: Value,
}

impl Change {
    /// The event said something of a person who was erased since: that, and no more, is known.
    pub(crate) fn of_erased() -> Self {
        Self { field: "personal".into(), from: ERASED.into(), to: ERASED.into() }
    }
}

/// The members that differ. `shown` is what the record showed before, and shows after.
pub(crate) fn between<R: Past>(shown: &mut [Cell], after: Vec<Cell>) -> Vec<Change> {
    let mut changes = Vec::new();
    let places = R::COLUMNS.iter().zip(R::places()).filter_map(|(column, place)| Some((column.name, (*place)?)));
    let mut after: Vec<Option<Cell>> = after.into_iter().map(Some).collect();
    for (name, place) in places {
        if let Some(after) = after[place].take() {
            tell(name, &mut shown[place], after, &mut changes);
        }
    }
    changes
}

/// The same where no other columns than these can differ, whose cells are in `after`.
pub(crate) fn of_columns<R: Past>(
    shown: &mut [Cell],
    columns: &[(&'static str, Kind)],
    after: Vec<Cell>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut after: Vec<Option<Cell>> = after.into_iter().map(Some).collect();
    for (column, place) in R::COLUMNS.iter().zip(R::places()) {
        let touched = columns.iter().position(|(name, _)| *name == column.sql);
        if let (Some(touched), Some(place)) = (touched, *place)
            && let Some(after) = after[touched].take()
        {
            tell(column.name, &mut shown[place], after, &mut changes);
        }
    }
    changes
}

/// Tells of a member if it differs.
fn tell(name: &'static str, shown: &mut Cell, after: Cell, changes: &mut Vec<Change>) {
    if *shown == after {
        return;
    }
    let before = replace(shown, after);
    if OF_THE_EVENT.contains(&name) {
        return;
    }
    match (before, &*shown) {
        (Cell::Json(Value::Object(from)), Cell::Json(Value::Object(to))) if name == ATTRIBUTES => {
            let gone = from.keys().filter(|key| !to.contains_key(*key));
            for key in gone.chain(to.keys()).filter(|key| from.get(*key) != to.get(*key)) {
                let value = |side: &serde_json::Map<String, Value>| side.get(key).cloned().unwrap_or_default();
                changes.push(Change { field: format!("{ATTRIBUTES}.{key}").into(), from: value(&from), to: value(to) });
            }
        }
        (from, to) => changes.push(Change { field: name.into(), from: json_of(from), to: json_of(to.clone()) }),
    }
}
