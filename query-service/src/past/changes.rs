//! What an event changed of a record as clients see it: member by member, from what to what.

use std::borrow::Cow;
use std::mem::replace;

use projector::columns::Cell;
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

/// The members that differ; what they were is taken out of `before`.
pub(crate) fn between<R: Past>(mut before: Vec<Cell>, after: &[Cell]) -> Vec<Change> {
    let mut changes = Vec::new();
    for (column, place) in R::COLUMNS.iter().zip(R::places()) {
        let Some(place) = *place else { continue };
        let (from, to) = (&mut before[place], &after[place]);
        if *from == *to || OF_THE_EVENT.contains(&column.name) {
            continue;
        }
        match (from, to) {
            (Cell::Json(Value::Object(from)), Cell::Json(Value::Object(to))) if column.name == ATTRIBUTES => {
                let gone = from.keys().filter(|key| !to.contains_key(*key));
                for key in gone.chain(to.keys()).filter(|key| from.get(*key) != to.get(*key)) {
                    let value = |side: &serde_json::Map<String, Value>| side.get(key).cloned().unwrap_or_default();
                    changes.push(Change {
                        field: format!("{ATTRIBUTES}.{key}").into(),
                        from: value(from),
                        to: value(to),
                    });
                }
            }
            (from, to) => changes.push(Change {
                field: column.name.into(),
                from: json_of(replace(from, Cell::Json(Value::Null))),
                to: json_of(to.clone()),
            }),
        }
    }
    changes
}
