//! What the past of a sort of record needs to know of it.

use std::sync::LazyLock;

use domain::{Company, CompanyEvent, Prospect, ProspectEvent, RecordEvent as _, Status, Traced};
use projector::columns::{Cell, Columns, Kind};
use projector::record::{Folded, Place, Shown};
use projector::rows;
use uuid::Uuid;

use crate::record::{COMPANY, Column, PROSPECT};

/// A sort of record whose past can be read.
pub(crate) trait Past: Shown {
    /// The path that its id follows.
    const PATH: &'static str;
    /// Its members, as the current record shows them.
    const COLUMNS: &'static [Column];
    /// What its row in the read tables would hold for [`Self::COLUMNS`], as far as that is the record's own.
    fn cells(place: Place, record: &Folded<Self>) -> Vec<Cell>;
    /// The cells of some columns.
    fn some_cells(place: Place, record: &Folded<Self>, columns: &[(&'static str, Kind)]) -> Vec<Cell>;
    /// The columns of the row that an event can change beside those that tell of every event, where it is known to change no others.
    fn touches(event: &Self::Event) -> Option<Vec<(&'static str, Kind)>>;
    /// For each of [`Self::COLUMNS`], where its cell is; none for what follows from another record: the company of a prospect.
    fn places() -> &'static [Option<usize>];
    /// The records whose history belongs to this one's.
    fn others(&self) -> Vec<Uuid>;
    /// The company that it is shown with, whatever became of that.
    fn company(&self) -> Option<Uuid>;
    /// The import that led to an event or was taken back by it.
    fn traced_to(event: &Self::Event) -> Option<Traced>;
    /// Why it happened, where an event says so itself.
    fn reason(event: &Self::Event) -> Option<&str>;
    /// Whether an event says something of a person.
    fn is_personal(event: &mut Self::Event) -> bool;
    /// Whether the person was erased, now.
    fn is_forgotten(&self) -> bool;
}

impl Past for Company {
    const PATH: &'static str = "/v1/companies";
    const COLUMNS: &'static [Column] = COMPANY;

    fn cells(place: Place, record: &Folded<Self>) -> Vec<Cell> {
        static SHOWN: LazyLock<Vec<(&str, Kind)>> = LazyLock::new(|| shown(COMPANY, rows::COMPANIES));
        rows::company_columns(place, record, &SHOWN)
    }

    fn some_cells(place: Place, record: &Folded<Self>, columns: &[(&'static str, Kind)]) -> Vec<Cell> {
        rows::company_columns(place, record, columns)
    }

    fn touches(event: &CompanyEvent) -> Option<Vec<(&'static str, Kind)>> {
        let names: Vec<&str> = match event {
            // A phone number that cannot be read is a flag.
            CompanyEvent::CompanyProfileUpdated(updated) => updated.changes.names().chain(["flags"]).collect(),
            CompanyEvent::CompanyAttributesChanged(_) => vec!["attributes"],
            _ => return None,
        };
        Some(rows::COMPANIES.iter().filter(|(column, _)| names.contains(column)).copied().collect())
    }

    fn places() -> &'static [Option<usize>] {
        static PLACES: LazyLock<Vec<Option<usize>>> = LazyLock::new(|| places(COMPANY, rows::COMPANIES));
        &PLACES
    }

    fn others(&self) -> Vec<Uuid> {
        match self.status {
            Status::Live | Status::Deleted | Status::Unregistered => self.stands_for().collect(),
            // The one that stands for it has them.
            Status::Merged { .. } => Vec::new(),
        }
    }

    fn company(&self) -> Option<Uuid> {
        None
    }

    fn traced_to(event: &CompanyEvent) -> Option<Traced> {
        event.traced_to()
    }

    fn reason(_: &CompanyEvent) -> Option<&str> {
        None
    }

    fn is_personal(_: &mut CompanyEvent) -> bool {
        false
    }

    fn is_forgotten(&self) -> bool {
        false
    }
}

impl Past for Prospect {
    const PATH: &'static str = "/v1/prospects";
    const COLUMNS: &'static [Column] = PROSPECT;

    fn cells(place: Place, record: &Folded<Self>) -> Vec<Cell> {
        static SHOWN: LazyLock<Vec<(&str, Kind)>> = LazyLock::new(|| shown(PROSPECT, rows::PROSPECTS));
        rows::prospect_columns(place, record, &SHOWN)
    }

    fn some_cells(place: Place, record: &Folded<Self>, columns: &[(&'static str, Kind)]) -> Vec<Cell> {
        rows::prospect_columns(place, record, columns)
    }

    fn touches(_: &ProspectEvent) -> Option<Vec<(&'static str, Kind)>> {
        None
    }

    fn places() -> &'static [Option<usize>] {
        static PLACES: LazyLock<Vec<Option<usize>>> = LazyLock::new(|| places(PROSPECT, rows::PROSPECTS));
        &PLACES
    }

    fn others(&self) -> Vec<Uuid> {
        Vec::new()
    }

    fn company(&self) -> Option<Uuid> {
        self.company_id
    }

    fn traced_to(event: &ProspectEvent) -> Option<Traced> {
        event.traced_to()
    }

    fn reason(event: &ProspectEvent) -> Option<&str> {
        match event {
            ProspectEvent::ProspectErased(erased) => Some(erased.reason.as_str()),
            _ => None,
        }
    }

    fn is_personal(event: &mut ProspectEvent) -> bool {
        event.personal_mut().is_some()
    }

    fn is_forgotten(&self) -> bool {
        self.personal_erased
    }
}

/// The columns of a row that are members of the record.
fn shown(members: &[Column], row: Columns) -> Vec<(&'static str, Kind)> {
    row.iter().filter(|(name, _)| members.iter().any(|member| member.sql == *name)).copied().collect()
}

fn places(members: &[Column], row: Columns) -> Vec<Option<usize>> {
    let shown = shown(members, row);
    members.iter().map(|member| shown.iter().position(|(name, _)| *name == member.sql)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_but_the_company_that_is_shown_has_a_cell() {
        let missing = |columns: &[Column], places: &[Option<usize>]| {
            columns.iter().zip(places).filter(|(_, place)| place.is_none()).map(|(column, _)| column.name).collect()
        };
        let of_companies: Vec<&str> = missing(COMPANY, Company::places());
        let of_prospects: Vec<&str> = missing(PROSPECT, Prospect::places());
        assert_eq!((of_companies, of_prospects), (vec![], vec!["company_id"]));
    }
}
