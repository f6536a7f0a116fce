//! Taking an import back from one record: every event since its first one must be its own, but for what came and was taken back itself.

use uuid::Uuid;

/// Which import an event is of, for those who read its record's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// The import.
    pub import_id: Uuid,
    /// The row, where a single one led to the event.
    pub row: Option<u64>,
    /// Whether the event takes the import back.
    pub undone: bool,
}

impl Traced {
    /// Of a row.
    pub(crate) fn to_row(said: &crate::provenance::Said) -> Self {
        Self { import_id: said.import_id, row: Some(said.row), undone: false }
    }

    /// Of an import as a whole.
    pub(crate) fn to_import(import_id: Uuid) -> Self {
        Self { import_id, row: None, undone: false }
    }

    /// Takes an import back.
    pub(crate) fn to_undoing(import_id: Uuid) -> Self {
        Self { import_id, row: None, undone: true }
    }
}

/// How an import can be taken back from a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Undo<E> {
    /// It did nothing to it.
    Nothing,
    /// That was done already.
    Done,
    /// Somebody changed the record since: it is left.
    ChangedSince,
    /// By this event.
    By(E),
}

/// What an event has to do with imports.
pub(crate) enum Part {
    /// It is of this import.
    Of(Uuid),
    /// It takes this import back, to what the record was before; or, without a before, deletes what the import had made.
    TakesBack(Uuid, bool),
    /// Nothing.
    None,
}

/// Where the import's first event stands, if all that stands since then is its own.
pub(crate) fn begin<E>(events: &[E], import_id: Uuid, part: impl Fn(&E) -> Part) -> Undo<usize> {
    let mut touched = false;
    // What is left when everything that was taken back is left out, from its first event to the one that took it back.
    let mut standing: Vec<(usize, Option<Uuid>)> = Vec::new();
    for (place, event) in events.iter().enumerate() {
        match part(event) {
            Part::Of(import) => standing.push((place, Some(import))),
            Part::TakesBack(import, _) if import == import_id => return Undo::Done,
            Part::TakesBack(import, true) => {
                if let Some(begun) = standing.iter().position(|(_, of)| *of == Some(import)) {
                    standing.truncate(begun);
                }
            }
            // What was deleted then and is there now was restored by somebody.
            Part::TakesBack(_, false) | Part::None => standing.push((place, None)),
        }
        touched |= matches!(part(event), Part::Of(import) if import == import_id);
    }
    let Some(begun) = standing.iter().position(|(_, of)| *of == Some(import_id)) else {
        return if touched { Undo::Done } else { Undo::Nothing };
    };
    if standing[begun..].iter().all(|(_, of)| *of == Some(import_id)) {
        Undo::By(standing[begun].0)
    } else {
        Undo::ChangedSince
    }
}
