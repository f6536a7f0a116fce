//! What a record holds that no other may (claims), and what it can be found by in the write path (matches): decision 5.

/// The kind of the claim that every live record with dependants holds under its own id: what assigning a prospect requires.
pub const LIVE: &str = "live";

/// The value of a claim or match, before the store makes a key of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClaimKey {
    /// Stands in the database as it is.
    Plain(String),
    /// Personal: stands in the database as an HMAC under the tenant's key.
    Personal(String),
}

/// One value that at most one live record of a tenant holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    /// What sort of value: `domain`, `company_ref`, `prospect_ref`, `live`.
    pub kind: &'static str,
    /// The value.
    pub key: ClaimKey,
}

/// One value that records of a tenant can be found by in the write path; not unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Match {
    /// What sort of value: `email`, `name_country`.
    pub kind: &'static str,
    /// The value.
    pub key: ClaimKey,
}
