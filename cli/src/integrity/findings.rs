//! What can be off, what to do about it, and how much of it there is.

use serde_json::{Value, json};

/// Records of each sort of finding that are named; all are counted.
pub(super) const NAMED_MAX: usize = 20;

/// Something that can be off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sort {
    HistoryBroken,
    LinkMissing,
    LinkShownWrong,
    DomainWrong,
    DomainOfNoCompany,
    DomainTwice,
    ReferenceTwice,
    ClaimMissing,
    ClaimLeft,
    RowMissing,
    RowLeft,
    RowDiffers,
}

impl Sort {
    const ALL: [Self; 12] = [
        Self::HistoryBroken,
        Self::LinkMissing,
        Self::LinkShownWrong,
        Self::DomainWrong,
        Self::DomainOfNoCompany,
        Self::DomainTwice,
        Self::ReferenceTwice,
        Self::ClaimMissing,
        Self::ClaimLeft,
        Self::RowMissing,
        Self::RowLeft,
        Self::RowDiffers,
    ];

    /// For programs, for people, and what to do.
    fn told(self) -> (&'static str, &'static str, &'static str) {
        const ANEW: &str = "the log is right and the read table is not: build the projection anew";
        match self {
            Self::HistoryBroken => (
                "history_broken",
                "records whose events are not numbered 1, 2, 3, …",
                "somebody has changed the log: compare it with a backup",
            ),
            Self::LinkMissing => (
                "link_missing",
                "prospects whose company does not exist",
                "assign each to a company or to none: POST /v1/prospects/{id}/assign",
            ),
            Self::LinkShownWrong => {
                ("link_shown_wrong", "rows that show another company than their link leads to", ANEW)
            }
            Self::DomainWrong => (
                "domain_wrong",
                "companies with a domain that is not registrable, lower case and in ASCII",
                "send the right one: PATCH /v1/companies/{id}",
            ),
            Self::DomainOfNoCompany => (
                "domain_of_no_company",
                "companies with a domain that is a mail host's or a host of others' pages",
                "`prospectus domains explain` says why; take it away: PATCH /v1/companies/{id}",
            ),
            Self::DomainTwice => {
                ("domain_twice", "domains that two live companies have", "merge the two: POST /v1/companies/{id}/merge")
            }
            Self::ReferenceTwice => (
                "reference_twice",
                "external references that two live records have",
                "merge two companies: POST /v1/companies/{id}/merge; delete one of two prospects: DELETE /v1/prospects/{id}",
            ),
            Self::ClaimMissing => (
                "claim_missing",
                "values of live records without their claim: another record could take them",
                "take the value from the record and give it back: PATCH {\"domain\": null}, then the domain again",
            ),
            Self::ClaimLeft => (
                "claim_left",
                "claims that their owner does not hold: nobody can take the value",
                "as a superuser, after a look at the record: UPDATE log.claims SET released = true WHERE …",
            ),
            Self::RowMissing => ("row_missing", "records of the log without a row in the read tables", ANEW),
            Self::RowLeft => ("row_left", "rows of the read tables without a record in the log", ANEW),
            Self::RowDiffers => ("row_differs", "rows that say something else than the log", ANEW),
        }
    }
}

/// What is off.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<(Sort, u64, Vec<String>)>);

impl Findings {
    /// One more, and what it is about: ids, and values that are not personal.
    pub(super) fn add(&mut self, sort: Sort, about: impl FnOnce() -> String) {
        let (count, first) = self.of(sort);
        *count += 1;
        if first.len() < NAMED_MAX {
            first.push(about());
        }
    }

    /// As many more, of which these are the first.
    pub(super) fn add_many(&mut self, sort: Sort, count: i64, first: Vec<String>) {
        let (known, named) = self.of(sort);
        *known += u64::try_from(count).unwrap_or(0);
        named.extend(first);
        named.truncate(NAMED_MAX);
    }

    fn of(&mut self, sort: Sort) -> (&mut u64, &mut Vec<String>) {
        let at = self.0.iter().position(|(known, ..)| *known == sort).unwrap_or_else(|| {
            self.0.push((sort, 0, Vec::new()));
            self.0.len() - 1
        });
        let (_, count, first) = &mut self.0[at];
        (count, first)
    }

    /// Whether nothing is off.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, count, _)| *count == 0)
    }

    /// What was looked for, found or not, in a fixed order.
    pub(super) fn to_json(&self) -> Vec<Value> {
        let told = |sort: Sort| {
            let (code, what, todo) = sort.told();
            let found = self.0.iter().find(|(known, ..)| *known == sort);
            let (count, first) = found.map_or((0, &[][..]), |(_, count, first)| (*count, first.as_slice()));
            json!({"code": code, "what": what, "count": count, "first": first, "todo": todo})
        };
        Sort::ALL.into_iter().map(told).collect()
    }
}
