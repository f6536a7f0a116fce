//! The aggregate prospect: a person who works, or might work, at a company. Everything about a prospect is personal but
//! the country, the job's title and level, the department and the company.

mod command;
mod decide;
mod event;
mod import;
mod personal_profile;
mod state;

pub use command::{AssignProspect, EraseProspect, ProspectCommand, RegisterProspect, ResolveProspect, UpdateProspect};
pub use event::{ProspectAssigned, ProspectDeleted, ProspectErased, ProspectEvent, ProspectProfileUpdated};
pub use event::{ProspectRegistered, ProspectRestored, ProspectReviewResolved};
pub use import::{KnownAs, PersonalImported, ProspectImportUndone, ProspectImported, ProspectSaid, identifies};
pub use import::{take_in, undo, unidentified};
pub use personal_profile::{PersonalChanges, PersonalProfile};
pub use state::Prospect;

use uuid::Uuid;

use crate::field::{Field, JsonType, Schema};
use crate::field_error::FieldErrors;
use crate::profile::profile;
use crate::value::{Attributes, Country, EmailAddress, ExternalRef, JobTitleLevel, Line, Paragraph, PhoneNumber, Url};

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProspectError {
    /// It is registered already, perhaps deleted.
    #[error("the prospect is registered already")]
    AlreadyRegistered,
    /// No prospect was ever registered here.
    #[error("there is no such prospect")]
    NotFound,
    /// It is deleted: only restoring it is possible.
    #[error("the prospect is deleted")]
    Deleted,
    /// The person was erased: the record takes nothing any more and cannot be restored.
    #[error("the prospect was erased")]
    Erased,
    /// Nobody has to decide about it.
    #[error("the prospect is not in review")]
    NotInReview {
        /// The company that it has; none if it was left alone without one.
        company_id: Option<Uuid>,
    },
    /// The command's fields do not fit the prospect.
    #[error("{0}")]
    Fields(FieldErrors),
}

profile! {
    open
    /// What stands in the log in the clear: it identifies nobody.
    ProspectProfile,
    /// What changes in it.
    ProspectChanges
    {
        /// The country that the prospect is in, as ISO 3166-1 alpha-2; alpha-3 and English names are recognised.
        country: Country,
        /// The prospect's job.
        job_title: Line<255>,
        /// The job's level: owner, founder, `c_suite`, partner, vp, head, director, manager, senior, entry, intern, or as given.
        job_title_level: JobTitleLevel,
        /// The department.
        department: Line<255>,
    }
}

profile! {
    personal
    /// The plain fields that identify the person.
    PersonalFields,
    /// What changes in them.
    PersonalFieldChanges
    {
        /// How to address the prospect: Ms, Dr, …
        salutation: Line<50>,
        /// The prospect's first name.
        first_name: Line<255>,
        /// The prospect's last name.
        last_name: Line<255>,
        /// The prospect's e-mail address; not unique.
        email: EmailAddress,
        /// The prospect's phone number, in E.164 where it can be read (with the country's help), else as given.
        phone: PhoneNumber,
        /// The prospect's mobile phone number, likewise.
        mobile_phone: PhoneNumber,
        /// The prospect's address: street and number.
        address: Paragraph<1000>,
        /// The prospect's city.
        city: Line<255>,
        /// The prospect's state, province or region.
        state: Line<255>,
        /// The prospect's postal code.
        zip_code: Line<50>,
        /// Where the job title is from, often the prospect's own page.
        job_title_link: Url,
    }
}

/// The fields of a prospect beside the two profiles.
const BESIDE_PROFILES: &[Field] = &[
    Field {
        name: "company_id",
        schema: Schema::formatted("uuid", 36),
        description: "The company that the prospect works at: a live one of the tenant, or null",
        personal: false,
    },
    Field {
        name: "external_refs",
        schema: Schema::many(JsonType::ExternalRefs, ExternalRef::MANY_MAX),
        description: "The prospect's ids in other systems, unique among the tenant's live prospects; replaced as a whole",
        personal: true,
    },
    Field {
        name: "attributes",
        schema: Schema::many(JsonType::Attributes, Attributes::KEYS_MAX),
        description: "What has no field of its own; changed key by key, null removes a key",
        personal: true,
    },
];

/// Every field of a prospect that a client may send.
pub fn fields() -> impl Iterator<Item = &'static Field> {
    ProspectProfile::FIELDS.iter().chain(PersonalFields::FIELDS).chain(BESIDE_PROFILES)
}
