//! What a row says, before anybody is asked: which company it leads to, and by what (`fields.md`, "Which domain keys a company"), and
//! what it says of company and persons, checked.

use domain::company::CompanySaid;
use domain::prospect::ProspectSaid;
use domain::review::{CompanyHint, ReviewReason};
use domain::value::{Country, DomainOfHost, ExternalRef, Line, company_name};
use domain::{FieldErrors, Said};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::bind::Bound;
use super::mapped::Mapped;
use super::outcome::RowReason;
use super::place::Side;
use super::rows::Row;

/// The attribute that keeps the host of a website of which only the registrable domain became the company's.
const DOMAIN_HOST: &str = "domain_host";

/// What all rows of an import have in common.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The import.
    pub import_id: Uuid,
    /// The name of the list's source.
    pub source: Line<100>,
}

/// What a row says.
#[derive(Debug)]
pub struct Reading {
    /// Its number.
    pub row: u64,
    /// The line that it begins in.
    pub line: u64,
    /// As it stood.
    pub text: String,
    /// Of its company, where it leads to one.
    pub company: Option<CompanySaid>,
    /// Of its persons.
    pub persons: Vec<ProspectSaid>,
    /// What is to be told of it.
    pub reasons: Vec<RowReason>,
    /// Whether it is left out, for these reasons.
    pub refused: bool,
}

/// Where a row leads, and what was found on the way.
#[derive(Default)]
struct Lead {
    domain: Option<DomainOfHost>,
    /// Whether the domain is a website's.
    of_website: bool,
    suspicious: bool,
    host: Option<String>,
    reasons: Vec<RowReason>,
}

impl Reading {
    /// Reads a row by its mapping.
    pub fn of(row: Row<'_>, bound: &Bound, origin: &Origin) -> Self {
        let mut reading = Self {
            row: row.number,
            line: row.line,
            text: row.text.to_owned(),
            company: None,
            persons: Vec::new(),
            reasons: Vec::new(),
            refused: false,
        };
        let cells = match row.cells {
            Ok(cells) => cells,
            Err(bad) => return reading.refused(RowReason::new(bad.code, bad.detail)),
        };
        match bound.map(origin.source.as_str(), &cells) {
            Ok(mapped) => reading.read(mapped, bound, origin),
            Err(reasons) => {
                reading.reasons = reasons.into_iter().map(RowReason::from).collect();
                reading.refused = true;
            }
        }
        reading
    }

    fn refused(mut self, reason: RowReason) -> Self {
        self.refuse(reason);
        self
    }

    /// Leaves the row out.
    pub fn refuse(&mut self, reason: RowReason) {
        self.reasons.push(reason);
        self.refused = true;
    }

    fn read(&mut self, mapped: Mapped, bound: &Bound, origin: &Origin) {
        let said =
            Said { source: origin.source.clone(), import_id: origin.import_id, row: self.row, at: mapped.updated_at };
        let lead = Lead::of(&mapped);
        self.reasons.extend(mapped.dropped.into_iter().map(RowReason::from));
        for members in mapped.prospects {
            if domain::prospect::identifies(&members) {
                let parse = |members| ProspectSaid::parse(said.clone(), members);
                if let Some(person) = self.checked(Side::Prospect, members, bound, parse) {
                    self.persons.push(person);
                }
            } else {
                let unidentified = domain::prospect::unidentified();
                self.reasons.push(RowReason::new("no_person", unidentified.detail));
            }
        }
        let mut members = mapped.company;
        if let (Some(found), true) = (&lead.domain, lead.of_website)
            && found.is_sub_domain()
            && let Value::Object(attributes) = members.entry("attributes").or_insert_with(|| Map::new().into())
        {
            attributes.entry(DOMAIN_HOST).or_insert_with(|| found.host.clone().into());
        }
        let speaks_of_company = !members.is_empty() || lead.domain.is_some();
        let domain = lead.domain.clone().map(DomainOfHost::without_host);
        let parse = |members| CompanySaid::parse(said.clone(), members, domain.clone());
        let company = self.checked(Side::Company, members, bound, parse);
        if self.refused {
            return;
        }
        let Some(company) = company else { return };
        if company.domain.is_some() || !company.external_refs.is_empty() {
            if company.domain.is_none() {
                // It has an id; why it gets no domain is told all the same.
                self.reasons.extend(lead.reasons);
            }
            self.company = Some(company);
        } else if self.persons.is_empty() {
            self.reasons.extend(lead.reasons);
            let reason = if speaks_of_company {
                let detail = "nothing in the row leads to its company: it needs a website, an e-mail address at the company's own \
                              domain, or an id (see [ids] of the mapping); a name alone never decides";
                RowReason::new("no_company_key", detail)
            } else {
                RowReason::new("nothing_said", "none of the columns that the mapping names has a value in this row")
            };
            self.refuse(reason);
            return;
        } else {
            self.without_company(&company, lead);
        }
        let company_key = self.company.as_ref().map_or_else(|| self.named_company(), key_of);
        for (place, person) in self.persons.iter_mut().enumerate() {
            if person.external_refs.is_empty() && person.email().is_none() {
                person.external_refs.extend(own_id(origin, &company_key, person, place));
            }
        }
    }

    /// The persons are to be looked at: which company is theirs?
    fn without_company(&mut self, company: &CompanySaid, lead: Lead) {
        let name = company.profile.name.clone().flatten();
        let review = match () {
            () if lead.suspicious => ReviewReason::SuspiciousDomain,
            () if name.is_some() => ReviewReason::NameOnly,
            () => ReviewReason::NoCompany,
        };
        let country: Option<Country> = company.profile.country.clone().flatten();
        let host = lead.host.as_deref().and_then(|host| Line::parse(host).ok());
        let hint = CompanyHint { name, country, host };
        for person in &mut self.persons {
            person.hint = hint.clone();
            person.review = Some(review);
        }
        self.reasons.extend(lead.reasons);
    }

    fn named_company(&self) -> String {
        let hint = self.persons.first().map(|person| &person.hint);
        let name = hint.and_then(|hint| hint.name.as_ref());
        name.map(|name| company_name::normalise(name.as_str())).unwrap_or_default()
    }

    /// What `parse` makes of the members; members that it refuses are left out where their column is lenient, and else refuse the row.
    fn checked<T>(
        &mut self,
        side: Side,
        members: Map<String, Value>,
        bound: &Bound,
        parse: impl Fn(Map<String, Value>) -> Result<T, FieldErrors>,
    ) -> Option<T> {
        let errors = match parse(members.clone()) {
            Ok(parsed) => return Some(parsed),
            Err(errors) => errors,
        };
        let lenient = errors.0.iter().all(|error| bound.is_lenient(side, &error.pointer));
        for error in &errors.0 {
            let field = error.pointer.trim_start_matches('/').replace('/', ".");
            let mut reason = RowReason::new(error.code, error.detail.clone());
            reason.column = bound.column_of(side, &error.pointer).map(str::to_owned);
            reason.field = (!field.is_empty()).then_some(field);
            self.reasons.push(reason);
        }
        if lenient {
            let mut fewer = members;
            for error in &errors.0 {
                leave_out(&mut fewer, &error.pointer);
            }
            if let Ok(parsed) = parse(fewer) {
                return Some(parsed);
            }
        }
        self.refused = true;
        None
    }
}

impl Lead {
    /// From the e-mail's domain; then the website; a free-mail, throw-away or shared host is nobody's company.
    fn of(mapped: &Mapped) -> Self {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let emails = mapped.prospects.iter().filter_map(|person| Some(("email", text(person.get("email"))?)));
        let others = [
            ("domain", mapped.domain.clone()),
            ("website", mapped.website.clone()),
            ("email_address", text(mapped.company.get("email_address"))),
        ];
        let mut lead = Self::default();
        for (field, input) in emails.chain(others.into_iter().filter_map(|(field, input)| Some((field, input?)))) {
            let found = DomainOfHost::parse(&input);
            let suspicion = found.as_ref().ok().and_then(DomainOfHost::suspicion);
            // A slip of the finger is told before anything else: throw-away hosts wait for those who make one.
            let refused = match (suspicion, DomainOfHost::of_company(&input)) {
                (None, Ok(found)) => {
                    lead.of_website = field == "website" || field == "domain";
                    lead.domain = Some(found);
                    return lead;
                }
                (None, Err(invalid)) => RowReason::new(invalid.code, format!("{field} {}", invalid.detail)),
                (Some(suspicion), _) => {
                    lead.suspicious = true;
                    RowReason::new("suspicious_domain", format!("the domain of {field} {suspicion}"))
                }
            };
            if let Ok(found) = found {
                lead.host.get_or_insert(found.host);
            }
            lead.reasons.push(RowReason { field: Some(field.to_owned()), ..refused });
        }
        lead
    }
}

/// What keys the company of a row, as text.
fn key_of(company: &CompanySaid) -> String {
    match (&company.domain, company.external_refs.first()) {
        (Some(found), _) => found.domain.as_str().to_owned(),
        (None, Some(reference)) => reference.key(),
        (None, None) => String::new(),
    }
}

/// Who has neither an id nor an address is known by its name at its company, so that the same list again finds the same person. Without
/// a name by all that is said of it.
fn own_id(origin: &Origin, company_key: &str, person: &ProspectSaid, place: usize) -> Option<ExternalRef> {
    let name = |name: &Option<Option<Line<255>>>| {
        name.as_ref().and_then(Option::as_ref).map(|name| name.as_str().to_lowercase()).unwrap_or_default()
    };
    let mut hash = Sha256::new();
    hash.update(company_key.as_bytes());
    hash.update([0x1f]);
    let (first, last) = (name(&person.fields.first_name), name(&person.fields.last_name));
    if first.is_empty() && last.is_empty() {
        hash.update(place.to_be_bytes());
        hash.update(serde_json::to_vec(&person.fields).unwrap_or_default());
    } else {
        hash.update(format!("{first}\u{1f}{last}").as_bytes());
    }
    let digest = u128::from_be_bytes(*hash.finalize().first_chunk()?);
    Some(ExternalRef { source: origin.source.clone(), id: Line::parse(&format!("row:{digest:032x}")).ok()? })
}

fn leave_out(members: &mut Map<String, Value>, pointer: &str) {
    let mut parts = pointer.trim_start_matches('/').splitn(2, '/');
    let name = parts.next().unwrap_or_default();
    match (members.get_mut(name), parts.next()) {
        (Some(Value::Object(inner)), Some(key)) => {
            inner.remove(&key.replace("~1", "/").replace("~0", "~"));
        }
        _ => {
            members.remove(name);
        }
    }
}
