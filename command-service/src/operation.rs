//! What a client asks for, parsed once: the same from a request of its own and from a line of a batch.

use std::hash::{DefaultHasher, Hash, Hasher};

use domain::company::{AddSocialMedia, MergeInto, RegisterCompany, UpdateCompany};
use domain::prospect::{AssignProspect, EraseProspect, RegisterProspect, UpdateProspect};
use domain::review::Resolve;
use domain::{CompanyCommand, FieldErrors, ProspectCommand};
use http::Method;
use serde_json::{Map, Value};
use service_kit::problem::{Code, Problem};
use uuid::Uuid;

use crate::problems::field_errors;

/// One command on one record, or on two companies.
#[derive(Debug, Clone)]
pub enum Operation {
    /// On a company.
    Company(Target, CompanyCommand),
    /// Of a company with another one.
    MergeCompany(Uuid, MergeInto),
    /// The undoing of that.
    UnmergeCompany(Uuid),
    /// On a prospect.
    Prospect(Target, ProspectCommand),
    /// On whichever record is in review.
    Resolve(Uuid, Resolve),
}

/// Which record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// One that the command makes.
    New,
    /// One that is there.
    Existing(Uuid),
}

/// In the figures, the name of what is no command.
pub const UNKNOWN: &str = "unknown";

/// The name in the figures of the command that `method` on `path` asks for.
pub fn name(method: &Method, path: &str) -> &'static str {
    let segments: Vec<&str> = path.strip_prefix("/v1/").unwrap_or_default().split('/').collect();
    match (method.as_str(), &segments[..]) {
        ("POST", ["companies"]) => "company.register",
        ("PATCH", ["companies", _]) => "company.update",
        ("DELETE", ["companies", _]) => "company.delete",
        ("POST", ["companies", _, "restore"]) => "company.restore",
        ("POST", ["companies", _, "merge"]) => "company.merge",
        ("POST", ["companies", _, "unmerge"]) => "company.unmerge",
        ("POST", ["companies", _, "social-media"]) => "company.add_social_media",
        ("DELETE", ["companies", _, "social-media", _]) => "company.remove_social_media",
        ("POST", ["prospects"]) => "prospect.register",
        ("PATCH", ["prospects", _]) => "prospect.update",
        ("DELETE", ["prospects", _]) => "prospect.delete",
        ("POST", ["prospects", _, "restore"]) => "prospect.restore",
        ("POST", ["prospects", _, "assign"]) => "prospect.assign",
        ("POST", ["prospects", _, "erase"]) => "prospect.erase",
        ("POST", ["reviews", _, "resolve"]) => "review.resolve",
        _ => UNKNOWN,
    }
}

/// A JSON object that a client sent.
pub type Object = Map<String, Value>;

impl Operation {
    /// What `method` on `path` with `body` asks for.
    ///
    /// # Errors
    /// `not_found` and `method_not_allowed` for what there is not, `invalid_fields` with every wrong field.
    pub fn parse(method: &Method, path: &str, body: Object) -> Result<Self, Problem> {
        let segments: Vec<&str> = path.strip_prefix("/v1/").unwrap_or_default().split('/').collect();
        let no_method = || Problem::new(Code::MethodNotAllowed, "this path does not take that method");
        match segments[..] {
            ["companies"] if method == Method::POST => Self::register_company(body),
            ["companies", id] => match *method {
                Method::PATCH => Self::update_company(id, body),
                Method::DELETE => Self::company(id, CompanyCommand::Delete),
                _ => Err(no_method()),
            },
            ["companies", id, "restore"] if method == Method::POST => Self::company(id, CompanyCommand::Restore),
            ["companies", id, "merge"] if method == Method::POST => Self::merge_company(id, body),
            ["companies", id, "unmerge"] if method == Method::POST => Self::unmerge_company(id),
            ["companies", id, "social-media"] if method == Method::POST => Self::add_social_media(id, body),
            ["companies", id, "social-media", entry] if method == Method::DELETE => {
                Self::remove_social_media(id, entry)
            }
            ["prospects"] if method == Method::POST => Self::register_prospect(body),
            ["prospects", id] => match *method {
                Method::PATCH => Self::update_prospect(id, body),
                Method::DELETE => Self::prospect(id, ProspectCommand::Delete),
                _ => Err(no_method()),
            },
            ["prospects", id, "restore"] if method == Method::POST => Self::prospect(id, ProspectCommand::Restore),
            ["prospects", id, "assign"] if method == Method::POST => Self::assign_prospect(id, body),
            ["prospects", id, "erase"] if method == Method::POST => Self::erase_prospect(id, body),
            ["reviews", id, "resolve"] if method == Method::POST => Self::resolve_review(id, body),
            ["companies" | "prospects"]
            | ["companies", _, "restore" | "merge" | "unmerge" | "social-media"]
            | ["companies", _, "social-media", _]
            | ["prospects", _, "restore" | "assign" | "erase"]
            | ["reviews", _, "resolve"] => Err(no_method()),
            _ => Err(Problem::new(Code::NotFound, "there is no such path; /docs lists them all")),
        }
    }

    /// `POST /v1/companies`
    ///
    /// # Errors
    /// `invalid_fields`
    pub fn register_company(body: Object) -> Result<Self, Problem> {
        let register = valid(RegisterCompany::parse(Value::Object(body)))?;
        Ok(Self::Company(Target::New, CompanyCommand::Register(register)))
    }

    /// `PATCH /v1/companies/{id}`
    ///
    /// # Errors
    /// `invalid_fields`, `not_found`
    pub fn update_company(id: &str, body: Object) -> Result<Self, Problem> {
        Self::company(id, CompanyCommand::Update(valid(UpdateCompany::parse(Value::Object(body)))?))
    }

    /// `POST /v1/companies/{id}/social-media`
    ///
    /// # Errors
    /// `invalid_fields`, `not_found`
    pub fn add_social_media(id: &str, body: Object) -> Result<Self, Problem> {
        Self::company(id, CompanyCommand::AddSocialMedia(valid(AddSocialMedia::parse(Value::Object(body)))?))
    }

    /// `DELETE /v1/companies/{id}/social-media/{social_media_id}`
    ///
    /// # Errors
    /// `not_found`
    pub fn remove_social_media(id: &str, entry: &str) -> Result<Self, Problem> {
        Self::company(id, CompanyCommand::RemoveSocialMedia { social_media_id: uuid(entry)? })
    }

    /// `POST /v1/companies/{id}/merge`
    ///
    /// # Errors
    /// `invalid_fields`, `not_found`
    pub fn merge_company(id: &str, body: Object) -> Result<Self, Problem> {
        Ok(Self::MergeCompany(uuid(id)?, valid(MergeInto::parse(Value::Object(body)))?))
    }

    /// `POST /v1/companies/{id}/unmerge`
    ///
    /// # Errors
    /// `not_found`
    pub fn unmerge_company(id: &str) -> Result<Self, Problem> {
        Ok(Self::UnmergeCompany(uuid(id)?))
    }

    /// A command on the company with this id.
    ///
    /// # Errors
    /// `not_found`, where the id is none
    pub fn company(id: &str, command: CompanyCommand) -> Result<Self, Problem> {
        Ok(Self::Company(Target::Existing(uuid(id)?), command))
    }

    /// `POST /v1/prospects`
    ///
    /// # Errors
    /// `invalid_fields`
    pub fn register_prospect(body: Object) -> Result<Self, Problem> {
        let register = valid(RegisterProspect::parse(Value::Object(body)))?;
        Ok(Self::Prospect(Target::New, ProspectCommand::Register(register)))
    }

    /// `PATCH /v1/prospects/{id}`
    ///
    /// # Errors
    /// `invalid_fields`, `not_found`
    pub fn update_prospect(id: &str, body: Object) -> Result<Self, Problem> {
        Self::prospect(id, ProspectCommand::Update(valid(UpdateProspect::parse(Value::Object(body)))?))
    }

    /// `POST /v1/prospects/{id}/assign`
    ///
    /// # Errors
    /// `invalid_fields`, `not_found`
    pub fn assign_prospect(id: &str, body: Object) -> Result<Self, Problem> {
        let assign = valid(AssignProspect::parse(Value::Object(body)))?;
        Self::prospect(id, ProspectCommand::Assign(assign))
    }

    /// `POST /v1/prospects/{id}/erase`
    ///
    /// # Errors
    /// `invalid_fields`, `not_found`
    pub fn erase_prospect(id: &str, body: Object) -> Result<Self, Problem> {
        Self::prospect(id, ProspectCommand::Erase(valid(EraseProspect::parse(Value::Object(body)))?))
    }

    /// Whether it forgets a person, which takes the right to administer.
    pub fn erases(&self) -> bool {
        matches!(self, Self::Prospect(_, ProspectCommand::Erase(_)))
    }

    /// A command on the prospect with this id.
    ///
    /// # Errors
    /// `not_found`, where the id is none
    pub fn prospect(id: &str, command: ProspectCommand) -> Result<Self, Problem> {
        Ok(Self::Prospect(Target::Existing(uuid(id)?), command))
    }

    /// `POST /v1/reviews/{id}/resolve`
    ///
    /// # Errors
    /// `invalid_fields`, `not_found`
    pub fn resolve_review(id: &str, body: Object) -> Result<Self, Problem> {
        Ok(Self::Resolve(uuid(id)?, valid(Resolve::parse(Value::Object(body)))?))
    }

    /// What must happen in the order in which it was asked for.
    pub fn order(&self) -> Order {
        match self {
            Self::Company(Target::New, CompanyCommand::Register(register)) => {
                let domains = register.domain.iter().map(|found| &found.domain).chain(&register.additional_domains);
                let mut keys: Vec<u64> = domains.map(|domain| key(&("domain", domain))).collect();
                keys.extend(register.external_refs.iter().map(|reference| key(&("company_ref", reference))));
                Order::Keys(keys)
            }
            Self::Prospect(Target::New, ProspectCommand::Register(RegisterProspect(register))) => {
                let refs = register.external_refs.iter().flatten();
                Order::Keys(refs.map(|reference| key(&("prospect_ref", reference))).collect())
            }
            // What these give up or take again stands in the record, not in the request.
            Self::Company(Target::Existing(_), CompanyCommand::Update(update))
                if update.domain.is_some() || update.additional_domains.is_some() || update.external_refs.is_some() =>
            {
                Order::Everything
            }
            Self::Prospect(Target::Existing(_), ProspectCommand::Update(update)) if update.external_refs.is_some() => {
                Order::Everything
            }
            Self::MergeCompany(..)
            | Self::UnmergeCompany(_)
            | Self::Resolve(..)
            | Self::Company(_, CompanyCommand::Delete | CompanyCommand::Restore)
            | Self::Prospect(_, ProspectCommand::Delete | ProspectCommand::Restore | ProspectCommand::Erase(_)) => {
                Order::Everything
            }
            Self::Company(Target::Existing(id), _) | Self::Prospect(Target::Existing(id), _) => {
                Order::Keys(vec![key(&("record", id))])
            }
            Self::Company(Target::New, _) | Self::Prospect(Target::New, _) => Order::Keys(Vec::new()),
        }
    }
}

/// Which operations of a batch wait for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Those that have one of these hashes in common.
    Keys(Vec<u64>),
    /// All before it, and all after it wait for it.
    Everything,
}

/// The hash of something that operations may have in common; two things with one hash only cost a wait.
pub fn key(thing: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    thing.hash(&mut hasher);
    hasher.finish()
}

fn valid<T>(parsed: Result<T, FieldErrors>) -> Result<T, Problem> {
    parsed.map_err(field_errors)
}

/// An id of a path; what is no id is no record.
fn uuid(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::not_found())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_command_has_a_name_and_nothing_else_has() {
        let id = Uuid::nil();
        let nouns = ["companies", "prospects", "reviews", "batch", "nothing"];
        let ends = [
            "",
            "/{id}",
            "/{id}/restore",
            "/{id}/merge",
            "/{id}/unmerge",
            "/{id}/assign",
            "/{id}/erase",
            "/{id}/social-media",
            "/{id}/social-media/{id}",
            "/{id}/resolve",
            "/{id}/x",
        ];
        let mut names = Vec::new();
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            for (noun, end) in nouns.iter().flat_map(|noun| ends.map(|end| (noun, end))) {
                let path = format!("/v1/{noun}{}", end.replace("{id}", &id.to_string()));
                let parsed = Operation::parse(&method, &path, Object::new());
                let code = parsed.err().map(|problem| problem.code());
                let command = !matches!(code, Some(Code::NotFound | Code::MethodNotAllowed));
                assert_eq!(name(&method, &path) != UNKNOWN, command, "{method} {path}");
                names.extend(command.then(|| name(&method, &path)));
            }
        }
        assert_eq!(names.len(), 15);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 15, "no two have one name");
    }
}
