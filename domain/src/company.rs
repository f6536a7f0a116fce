//! The aggregate company: what a company is, what can be asked of it, what happens to it, and the rules between them.

mod command;
mod decide;
mod event;
mod import;
mod merge;
mod state;

pub use command::{AddSocialMedia, CompanyCommand, RegisterCompany, UpdateCompany};
pub use event::{CompanyDeleted, CompanyDomainChanged, CompanyEvent, CompanyProfileUpdated, CompanyRegistered};
pub use event::{CompanyRestored, CompanyReviewResolved, CompanySocialMediaRemoved};
pub use import::{
    Change, CompanyImportUndone, CompanyImported, CompanyReviewRequested, CompanySaid, RowEffect, TakenIn, Terms,
};
pub use import::{Undo, take_in, undo};
pub use merge::{CompanyAbsorbed, CompanyMerged, CompanySeparated, CompanyUnmerged, Merge, STANDS_FOR_MAX};
pub use merge::{MergeInto, merge, merge_in_review, unmerge};
pub use state::Company;

use uuid::Uuid;

use crate::field::{Field, JsonType, Schema};
use crate::field_error::FieldErrors;
use crate::profile::profile;
use crate::value::{
    Attributes, Count, Country, Currency, EmailAddress, ExternalRef, FoundingDate, Line, Paragraph, PhoneNumber,
    Revenue, SocialMedia, Url,
};

/// The most additional domains of one company.
pub const ADDITIONAL_DOMAINS_MAX: usize = 50;

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompanyError {
    /// It is registered already, perhaps deleted.
    #[error("the company is registered already")]
    AlreadyRegistered,
    /// No company was ever registered here.
    #[error("there is no such company")]
    NotFound,
    /// It is deleted: only restoring it is possible.
    #[error("the company is deleted")]
    Deleted,
    /// It was merged into another: what is asked of it is asked of that one.
    #[error("the company was merged into {into}")]
    Merged {
        /// The one that stands for both.
        into: Uuid,
    },
    /// The company that this one is to be merged into, or was, takes no part.
    #[error("the company {id}: {why}")]
    Primary {
        /// Which one.
        id: Uuid,
        /// Why.
        why: Box<CompanyError>,
    },
    /// What was changed since the merge would be lost by undoing it.
    #[error("changed since the merge: {}", .0.join(", "))]
    ChangedSinceMerge(Vec<&'static str>),
    /// It has no such entry.
    #[error("the company has no such social media entry")]
    SocialMediaNotFound,
    /// Nobody has to decide about it.
    #[error("the company is not in review")]
    NotInReview,
    /// The command's fields do not fit the company.
    #[error("{0}")]
    Fields(FieldErrors),
}

profile! {
    open
    /// A company's plain fields.
    CompanyProfile,
    /// What changes in them.
    CompanyChanges
    {
        /// Its name, as people write it; required to register unless a domain is given.
        name: Line<255>,
        /// Its legal name, where that differs.
        legal_name: Line<255>,
        /// Its type: public, private, `non_profit`, …
        company_type: Line<100>,
        /// Its primary industry.
        industry: Line<100>,
        /// When it was founded: a year, year-month or full date.
        founding_date: FoundingDate,
        /// What it does, briefly.
        short_description: Paragraph<1000>,
        /// What it does, in full.
        long_description: Paragraph<20000>,
        /// Its number of employees, estimated.
        employee_count: Count,
        /// The lower bound of its size.
        min_employee_size: Count,
        /// The upper bound of its size, not below the lower.
        max_employee_size: Count,
        /// Where its size is from.
        employee_size_link: Url,
        /// Its annual revenue, in whole units of its currency.
        revenue: Revenue,
        /// The currency of revenue, a code of ISO 4217; USD unless given.
        revenue_currency: Currency,
        /// Its headquarters: street and number.
        address: Paragraph<1000>,
        /// Its headquarters: city.
        city: Line<255>,
        /// Its headquarters: state, province or region.
        state: Line<255>,
        /// Its headquarters: country, as ISO 3166-1 alpha-2; alpha-3 and English names are recognised.
        country: Country,
        /// Its headquarters: postal code.
        zip_code: Line<50>,
        /// Its phone number, in E.164 where it can be read (with the country's help), else as given.
        phone: PhoneNumber,
        /// Its mobile phone number, likewise.
        mobile_phone: PhoneNumber,
        /// Its e-mail address.
        email_address: EmailAddress,
        /// Its logo.
        logo_url: Url,
    }
}

/// The fields of a company beside its profile.
const BESIDE_PROFILE: &[Field] = &[
    open_field(
        "domain",
        Schema::formatted("hostname", 253),
        "Its registrable domain, unique among the tenant's live companies; taken from a host, a URL or an e-mail address",
    ),
    open_field(
        "additional_domains",
        Schema::many(JsonType::Strings, ADDITIONAL_DOMAINS_MAX),
        "Its further domains, unique in the same way; replaced as a whole",
    ),
    open_field(
        "external_refs",
        Schema::many(JsonType::ExternalRefs, ExternalRef::MANY_MAX),
        "Its ids in other systems, unique among the tenant's live companies; replaced as a whole",
    ),
    open_field(
        "social_media",
        Schema::many(JsonType::SocialMedia, SocialMedia::MANY_MAX),
        "Its pages on social media; given at registration, later added and removed one by one at their own endpoint",
    ),
    open_field(
        "attributes",
        Schema::many(JsonType::Attributes, Attributes::KEYS_MAX),
        "What has no field of its own; changed key by key, null removes a key",
    ),
];

/// Every field of a company that a client may send.
pub fn fields() -> impl Iterator<Item = &'static Field> {
    CompanyProfile::FIELDS.iter().chain(BESIDE_PROFILE)
}

const fn open_field(name: &'static str, schema: Schema, description: &'static str) -> Field {
    Field { name, schema, description, personal: false }
}
