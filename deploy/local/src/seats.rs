//! Which server does which job. A server has a seat for life: a directory, a port, a log and a keeper, named after the part that it
//! was made as. A promotion changes which seat is the primary; everybody else speaks of parts and is led to the right seat.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::data::replace;
use crate::error::StackError;
use crate::part::Part;

/// The jobs of the stack's servers, kept in `servers.json` before they change, so that a fence outlives this process.
#[derive(Clone, Debug)]
pub(crate) struct Seats {
    path: PathBuf,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Part to seat; a part that is not in it sits in the seat of its own name.
    seats: BTreeMap<Part, Part>,
    /// Seats whose data must not be served: they are made anew from the primary before they start.
    anew: BTreeSet<Part>,
}

impl Seats {
    /// Reads them; without a file every part has the seat of its own name.
    pub(crate) fn open(path: PathBuf) -> Result<Self, StackError> {
        let unusable = |what: String| StackError::DataDirectory(format!("{}: {what}", path.display()));
        let known = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Known::default(),
            Err(error) => return Err(unusable(error.to_string())),
            Ok(text) => parse(&text).ok_or_else(|| unusable("not what a local-stack has written".to_owned()))?,
        };
        Ok(Self { known: Arc::new(Mutex::new(known)), path })
    }

    /// The seat of a part.
    pub(crate) fn seat(&self, part: Part) -> Part {
        self.lock().seats.get(&part).copied().unwrap_or(part)
    }

    /// The part that a seat does the job of.
    pub(crate) fn part(&self, seat: Part) -> Part {
        let known = self.lock();
        known.seats.iter().find(|(_, taken)| **taken == seat).map_or(seat, |(part, _)| *part)
    }

    /// Makes the seat of `replica` the primary's, and the primary's, whose data must not be served, that of `replica`.
    pub(crate) fn promote(&self, replica: Part) -> Result<(), StackError> {
        let (old, new) = (self.seat(Part::Primary), self.seat(replica));
        let mut known = self.lock();
        known.seats.extend([(Part::Primary, new), (replica, old)]);
        known.anew.insert(old);
        self.save(&known)
    }

    /// Whether the data in a seat must not be served.
    pub(crate) fn is_anew(&self, seat: Part) -> bool {
        self.lock().anew.contains(&seat)
    }

    /// Says whether the data in a seat must not be served.
    pub(crate) fn set_anew(&self, seat: Part, anew: bool) -> Result<(), StackError> {
        let mut known = self.lock();
        let changed = if anew { known.anew.insert(seat) } else { known.anew.remove(&seat) };
        if changed { self.save(&known) } else { Ok(()) }
    }

    fn save(&self, known: &Known) -> Result<(), StackError> {
        let seats: BTreeMap<String, String> =
            known.seats.iter().map(|(part, seat)| (part.name(), seat.name())).collect();
        let anew: Vec<String> = known.anew.iter().map(|seat| seat.name()).collect();
        let text = serde_json::to_string_pretty(&json!({"seats": seats, "made_anew": anew})).unwrap_or_default();
        replace(&self.path, &text)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(text: &str) -> Option<Known> {
    let value: Value = serde_json::from_str(text).ok()?;
    let part = |value: &Value| value.as_str()?.parse::<Part>().ok();
    let mut known = Known::default();
    for (name, seat) in value["seats"].as_object()? {
        known.seats.insert(name.parse().ok()?, part(seat)?);
    }
    for seat in value["made_anew"].as_array()? {
        known.anew.insert(part(seat)?);
    }
    Some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promotions_are_remembered_and_every_seat_has_one_part() {
        let path = std::env::temp_dir().join(format!("prospectus-seats-{}.json", uuid::Uuid::new_v4().simple()));
        let seats = Seats::open(path.clone()).unwrap();
        assert_eq!(seats.seat(Part::Primary), Part::Primary);
        seats.promote(Part::Replica(2)).unwrap();
        seats.promote(Part::Replica(1)).unwrap();
        seats.set_anew(Part::Primary, false).unwrap();
        let read = Seats::open(path.clone()).unwrap();
        let all = [Part::Primary, Part::Replica(1), Part::Replica(2)];
        assert_eq!(all.map(|part| read.seat(part)), [Part::Replica(1), Part::Replica(2), Part::Primary]);
        assert_eq!(all.map(|seat| read.part(seat)), [Part::Replica(2), Part::Primary, Part::Replica(1)]);
        assert!(read.is_anew(Part::Replica(2)) && !read.is_anew(Part::Primary));
        assert_eq!(read.seat(Part::Nats), Part::Nats);
        std::fs::write(&path, "{}").unwrap();
        assert!(Seats::open(path.clone()).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
