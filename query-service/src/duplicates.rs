//! How much speaks for two companies being one, or for one being a prospect's. The candidates come from indexes (`duplicate_candidates` in a generation's schema); here
//! it is weighed what they have in common.

use std::collections::HashMap;

use serde::Serialize;
use uuid::Uuid;

/// How sure each sort of evidence alone makes it that two companies are one, of 1. A name weighs as much as it is similar.
const NAME_IN_ONE_COUNTRY: f64 = 0.95;
const NAME_WHERE_A_COUNTRY_IS_NOT_KNOWN: f64 = 0.85;
const NAME_IN_TWO_COUNTRIES: f64 = 0.6;
const PHONE: f64 = 0.8;
const EMAIL_ADDRESS: f64 = 0.8;
const DOMAIN_LABEL: f64 = 0.6;
const EMAIL_DOMAIN: f64 = 0.95;

/// One thing that a candidate has in common with the company.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Evidence {
    /// Names are compared in lower case, without punctuation and legal forms.
    Name {
        /// Of the names' trigrams, the part that they have in common.
        similarity: f64,
        /// None where one country is not known.
        same_country: Option<bool>,
    },
    /// The same telephone number.
    Phone,
    /// The same e-mail address.
    EmailAddress,
    /// The same name in front of another suffix: acme.com and acme.de.
    DomainLabel,
    /// The domain of a prospect's e-mail address is the company's.
    EmailDomain,
}

impl Evidence {
    fn weight(self) -> f64 {
        match self {
            Self::Name { similarity, same_country: Some(true) } => similarity * NAME_IN_ONE_COUNTRY,
            Self::Name { similarity, same_country: None } => similarity * NAME_WHERE_A_COUNTRY_IS_NOT_KNOWN,
            Self::Name { similarity, same_country: Some(false) } => similarity * NAME_IN_TWO_COUNTRIES,
            Self::Phone => PHONE,
            Self::EmailAddress => EMAIL_ADDRESS,
            Self::DomainLabel => DOMAIN_LABEL,
            Self::EmailDomain => EMAIL_DOMAIN,
        }
    }

    fn reasons(self) -> impl Iterator<Item = &'static str> {
        let (reason, and) = match self {
            Self::Name { similarity, same_country } => {
                let name = if similarity >= 1.0 { "same_name" } else { "similar_name" };
                (name, (same_country == Some(true)).then_some("same_country"))
            }
            Self::Phone => ("same_phone", None),
            Self::EmailAddress => ("same_email_address", None),
            Self::DomainLabel => ("same_domain_label", None),
            Self::EmailDomain => ("email_domain", None),
        };
        std::iter::once(reason).chain(and)
    }
}

/// A company that may be the same as another one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Candidate {
    pub(crate) company_id: Uuid,
    pub(crate) name: Option<String>,
    pub(crate) domain: Option<String>,
    pub(crate) country: Option<String>,
    /// 0 to 1, with two decimals.
    pub(crate) similarity: f64,
    pub(crate) reasons: Vec<&'static str>,
}

/// Candidates, each as often as there is evidence for it.
#[derive(Debug, Default)]
pub(crate) struct Candidates(HashMap<Uuid, (Candidate, f64)>);

impl Candidates {
    /// Adds a piece of evidence; the candidate's fields are the same each time.
    pub(crate) fn add(&mut self, candidate: Candidate, evidence: Evidence) {
        let (candidate, doubt) = self.0.entry(candidate.company_id).or_insert((candidate, 1.0));
        *doubt *= 1.0 - evidence.weight();
        candidate.reasons.extend(evidence.reasons());
    }

    /// The most likely ones, best first, at most `limit`.
    pub(crate) fn best(self, limit: usize) -> Vec<Candidate> {
        let weighed = self.0.into_values().map(|(mut candidate, doubt)| {
            candidate.similarity = ((1.0 - doubt) * 100.0).round() / 100.0;
            candidate.reasons.sort_unstable();
            (doubt, candidate)
        });
        let mut weighed: Vec<(f64, Candidate)> = weighed.collect();
        weighed.sort_by(|(a, first), (b, second)| a.total_cmp(b).then(first.company_id.cmp(&second.company_id)));
        weighed.into_iter().take(limit).map(|(_, candidate)| candidate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(number: u128) -> Candidate {
        let company_id = Uuid::from_u128(number);
        Candidate { company_id, name: None, domain: None, country: None, similarity: 0.0, reasons: Vec::new() }
    }

    #[test]
    fn more_evidence_is_surer_and_the_surest_is_first() {
        let mut candidates = Candidates::default();
        let name = |similarity, same_country| Evidence::Name { similarity, same_country };
        candidates.add(candidate(1), name(1.0, Some(false)));
        candidates.add(candidate(2), name(0.6, Some(true)));
        candidates.add(candidate(3), name(1.0, Some(true)));
        candidates.add(candidate(2), Evidence::Phone);
        candidates.add(candidate(4), Evidence::DomainLabel);
        let best = candidates.best(3);
        let seen: Vec<_> =
            best.iter().map(|one| (one.company_id.as_u128(), one.similarity, &one.reasons[..])).collect();
        assert_eq!(
            seen,
            [
                (3, 0.95, &["same_country", "same_name"][..]),
                (2, 0.91, &["same_country", "same_phone", "similar_name"][..]),
                (1, 0.6, &["same_name"][..]),
            ]
        );
    }
}
