//! Where values go.

use std::fmt;

/// Which record a value goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The row's company.
    Company,
    /// The row's prospect, or each of them.
    Prospect,
}

/// Where a value goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub side: Side,
    pub place: Place,
}

/// A place in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A field under its name in the API, and whether it is a whole number.
    Field(&'static str, bool),
    Domain,
    Website,
    /// First and last name, from one text.
    FullName,
    /// The least and the greatest size, from one text.
    EmployeeRange,
    /// A page on social media, with its platform.
    SocialMedia(String),
    /// An attribute under this key.
    Attribute(String),
}

/// What has ways of its own, or cannot be told by a list.
const NOT_PLAIN: &[&str] =
    &["domain", "additional_domains", "external_refs", "attributes", "social_media", "company_id"];

impl Target {
    /// Reads `company.name`, `prospect.full_name`, `company.social_media.LinkedIn`, `prospect.attributes.tier`, …
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (side, rest) = text.split_once('.')?;
        let side = match side {
            "company" => Side::Company,
            "prospect" => Side::Prospect,
            _ => return None,
        };
        let place = match (side, rest.split_once('.')) {
            (_, Some(("attributes", key))) if !key.trim().is_empty() => Place::Attribute(key.to_owned()),
            (Side::Company, Some(("social_media", platform))) if !platform.trim().is_empty() => {
                Place::SocialMedia(platform.to_owned())
            }
            (_, Some(_)) => return None,
            (Side::Prospect, None) if rest == "full_name" => Place::FullName,
            (Side::Company, None) if rest == "employee_range" => Place::EmployeeRange,
            (Side::Company, None) if rest == "website" => Place::Website,
            (Side::Company, None) if rest == "domain" => Place::Domain,
            (side, None) => {
                let field = plain_fields(side).find(|field| field.name == rest)?;
                Place::Field(field.name, field.schema.json_type == domain::JsonType::Integer)
            }
        };
        Some(Self { side, place })
    }

    /// All that [`Target::parse`] takes, for messages.
    pub(super) fn known() -> String {
        let of = |side, name: &str| {
            plain_fields(side).map(|field| format!("{name}.{}", field.name)).collect::<Vec<_>>().join(", ")
        };
        format!(
            "{}, company.website, company.domain, company.employee_range, company.social_media.PLATFORM, company.attributes.KEY, {}, \
             prospect.full_name, prospect.attributes.KEY",
            of(Side::Company, "company"),
            of(Side::Prospect, "prospect")
        )
    }
}

fn plain_fields(side: Side) -> impl Iterator<Item = &'static domain::Field> {
    let (company, prospect) = match side {
        Side::Company => (Some(domain::company::fields()), None),
        Side::Prospect => (None, Some(domain::prospect::fields())),
    };
    let all = company.into_iter().flatten().chain(prospect.into_iter().flatten());
    all.filter(|field| !NOT_PLAIN.contains(&field.name))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.side {
            Side::Company => "company.",
            Side::Prospect => "prospect.",
        })?;
        match &self.place {
            Place::Field(name, _) => f.write_str(name),
            Place::Domain => f.write_str("domain"),
            Place::Website => f.write_str("website"),
            Place::FullName => f.write_str("full_name"),
            Place::EmployeeRange => f.write_str("employee_range"),
            Place::SocialMedia(platform) => write!(f, "social_media.{platform}"),
            Place::Attribute(key) => write!(f, "attributes.{key}"),
        }
    }
}
