//! What a messy list ([`bench::messy`]) must come to: written from the rules in `fields.md`, slow and obvious, and sharing nothing
//! with the importer but the value types that make one spelling of a domain, an address or a text.

use std::collections::{BTreeMap, HashMap};

use domain::value::{Domain, EmailAddress};
use serde_json::{Map, Value, json};

/// Where the list is from.
pub const SOURCE: &str = "messy";

/// Mail hosts of nobody's company, those that are mistyped, and hosts of other people's pages.
const NOBODYS: &[&str] = &["gmail.com", "web.de", "hotmail.com", "yahoo.co.uk", "mailinator.com"];
const SUSPICIOUS: &[&str] = &["gmial.com", "hotmial.com", "gmail.con", "acme.local"];
const OTHERS_PAGES: &[&str] = &["www.linkedin.com", "github.com", "acme.wordpress.com", "acme.github.io"];
const COUNTRIES: &[(&str, &[&str])] = &[
    ("DE", &["de", "germany", "deu"]),
    ("GB", &["gb", "united kingdom", "gbr"]),
    ("US", &["us", "usa", "united states"]),
    ("FR", &["fr", "france", "fra"]),
    ("BR", &["br", "brazil", "bra"]),
];
const LEGAL_FORMS: &[&str] = &["gmbh", "ltd", "inc", "llc", "limited"];

/// A record as people see it, without ids of ours, versions and times.
pub type Shown = Map<String, Value>;

/// All records, in an order that does not depend on ids.
#[derive(Debug, Default, PartialEq)]
pub struct Records {
    pub companies: Vec<Shown>,
    pub prospects: Vec<Shown>,
}

/// What a list comes to.
pub struct Expected {
    pub records: Records,
    /// What becomes of each row.
    pub outcomes: Vec<&'static str>,
    /// What becomes of each row when the list comes again.
    pub again: Vec<&'static str>,
    /// Companies that look like others, by their names.
    pub look_alikes: usize,
}

/// Values of a record, each with the time of the newest row that says it.
#[derive(Default)]
struct Values {
    of: BTreeMap<&'static str, (Value, Option<i64>)>,
    refs: Vec<String>,
    looks_like_another: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    Unchanged,
    Updated,
    Created,
}

/// What keys a person.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Person {
    Id(String),
    Mail(Option<String>, String),
    Name(String, String, String),
}

/// What a list comes to, read row by row from its beginning.
pub fn expect(list: &str) -> Expected {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(list.as_bytes());
    let names: Vec<String> = reader.headers().expect("a header").iter().map(str::to_owned).collect();
    let mut world = World::default();
    let (mut outcomes, mut again) = (Vec::new(), Vec::new());
    for record in reader.records() {
        let record = record.expect("CSV");
        if record.len() == 1 && record[0].trim().is_empty() {
            continue; // a blank line
        }
        let outcome = if record.iter().skip(names.len()).any(|cell| !cell.trim().is_empty()) {
            None
        } else {
            let cells = names.iter().map(String::as_str).zip(record.iter()).filter(|(_, cell)| !cell.trim().is_empty());
            world.row(&cells.collect())
        };
        let (outcome, then) = match outcome {
            None => ("refused", "refused"),
            Some((_, true)) => ("in_review", "in_review"),
            Some((Effect::Created, false)) => ("created", "unchanged"),
            Some((Effect::Updated, false)) => ("updated", "unchanged"),
            Some((Effect::Unchanged, false)) => ("unchanged", "unchanged"),
        };
        outcomes.push(outcome);
        again.push(then);
    }
    let look_alikes = world.companies.values().filter(|company| company.looks_like_another).count();
    Expected { records: world.records(), outcomes, again, look_alikes }
}

#[derive(Default)]
struct World {
    companies: HashMap<String, Values>,
    /// Domains of companies that have, or had, a name.
    named: HashMap<String, Vec<String>>,
    prospects: Vec<Values>,
    persons: HashMap<Person, usize>,
}

impl World {
    /// Takes in a row; none if it is to be refused, else what it did and whether someone should look at it.
    fn row(&mut self, cells: &HashMap<&str, &str>) -> Option<(Effect, bool)> {
        let cell = |name: &str| cells.get(name).map(|cell| one_line(cell));
        let at = match cells.get("Updated At") {
            Some(text) => Some(seconds(text.trim())?),
            None => None,
        };
        let email = match cells.get("Email") {
            Some(text) => Some(EmailAddress::parse(text).ok()?),
            None => None,
        };
        let employees = match cells.get("Employees") {
            Some(text) => Some(number(text)?),
            None => None,
        };
        let of_mail = email.as_ref().and_then(|email| company_of_mail(email.as_str()));
        let of_website = cells.get("Website").and_then(|website| company_of_website(website));
        let company_key = of_mail.clone().or(of_website.as_ref().map(|(domain, _)| domain.clone()));
        let country = cell("Country").map(|name| country(&name));

        let (first, last, phone, id) = (cell("First Name"), cell("Last Name"), cell("Phone"), cell("Customer ID"));
        let is_person = [&first, &last, &phone, &id].iter().any(|said| said.is_some()) || email.is_some();
        if company_key.is_none() && !is_person {
            return None;
        }

        let mut effect = Effect::Unchanged;
        let mut in_review = false;
        if let Some(domain) = &company_key {
            let mut said: Vec<(&'static str, Option<Value>)> = vec![
                ("name", cell("Company").map(Value::from)),
                ("industry", cell("Industry").map(Value::from)),
                ("employee_count", employees.map(Value::from)),
                ("country", country.clone().map(Value::from)),
                ("city", cell("City").map(Value::from)),
            ];
            // The column is lenient: what is no number is left out. Whole units of US dollars.
            if let Some(revenue) = cells.get("Revenue").and_then(|text| number(text)) {
                said.extend([("revenue", Some(revenue.into())), ("revenue_currency", Some("USD".into()))]);
            }
            if let (None, Some((_, Some(host)))) = (&of_mail, &of_website) {
                said.push(("domain_host", Some(host.as_str().into())));
            }
            let new = !self.companies.contains_key(domain);
            let name = cell("Company");
            let looks_like_another = new && name.as_ref().is_some_and(|name| self.is_a_name(name, country.as_deref()));
            let named = name.map(|name| self.named.entry(bare_name(&name)).or_default());
            if let Some(named) = named.filter(|domains| !domains.contains(domain)) {
                named.push(domain.clone());
            }
            let company = self.companies.entry(domain.clone()).or_default();
            company.looks_like_another |= looks_like_another;
            effect = if new { Effect::Created } else { Effect::Unchanged };
            effect = effect.max(company.hear(said, at));
            in_review = company.looks_like_another;
        }
        if is_person {
            let person = match (&id, &email) {
                (Some(id), _) => Person::Id(id.clone()),
                (None, Some(email)) => Person::Mail(company_key.clone(), email.as_str().to_lowercase()),
                (None, None) => {
                    let at_company =
                        company_key.clone().unwrap_or_else(|| bare_name(&cell("Company").unwrap_or_default()));
                    let lower = |name: &Option<String>| name.as_deref().unwrap_or_default().to_lowercase();
                    Person::Name(at_company, lower(&first), lower(&last))
                }
            };
            let said = vec![
                ("first_name", first.map(Value::from)),
                ("last_name", last.map(Value::from)),
                ("email", email.as_ref().map(|email| email.as_str().into())),
                ("phone", phone.map(|phone| dialled(&phone).into())),
                ("job_title", cell("Title").map(Value::from)),
                ("prospect_country", country.map(Value::from)),
                ("notes", cell("Notes").map(Value::from)),
                ("domain", company_key.clone().map(Value::from)),
            ];
            let mail = email.map(|email| Person::Mail(company_key.clone(), email.as_str().to_lowercase()));
            let known = [Some(person.clone()), mail.clone()]
                .into_iter()
                .flatten()
                .find_map(|key| self.persons.get(&key).copied());
            let place = known.unwrap_or_else(|| {
                effect = Effect::Created;
                self.prospects.push(Values::default());
                self.prospects.len() - 1
            });
            for key in [Some(person.clone()), mail].into_iter().flatten() {
                self.persons.entry(key).or_insert(place);
            }
            let prospect = &mut self.prospects[place];
            effect = effect.max(prospect.hear(said, at));
            let reference = match person {
                Person::Id(id) => Some(id),
                Person::Name(..) => Some("its own".to_owned()),
                Person::Mail(..) => None,
            };
            if let Some(reference) = reference.filter(|reference| !prospect.refs.contains(reference)) {
                prospect.refs.push(reference);
                effect = effect.max(Effect::Updated);
            }
            // Where there is a person, the row is about it.
            in_review = company_key.is_none();
        }
        Some((effect, in_review))
    }

    /// Whether some company has the name, but for its legal form, in the country.
    fn is_a_name(&self, name: &str, country: Option<&str>) -> bool {
        let has_it = |domain: &String| {
            let text = |field| self.companies[domain].of.get(field).and_then(|(value, _)| value.as_str());
            text("name").is_some_and(|other| bare_name(other) == bare_name(name)) && text("country") == country
        };
        self.named.get(&bare_name(name)).is_some_and(|domains| domains.iter().any(has_it))
    }

    fn records(self) -> Records {
        let companies = self.companies.into_iter().map(|(domain, values)| {
            let mut shown = values.shown();
            shown.insert("domain".to_owned(), domain.into());
            if let Some(host) = shown.remove("domain_host") {
                shown.insert("attributes".to_owned(), json!({"domain_host": host}));
            }
            shown
        });
        let companies = companies.collect();
        let prospects = self.prospects.into_iter().map(|mut values| {
            values.refs.sort();
            let refs: Vec<Value> = values.refs.iter().map(|id| json!({"source": SOURCE, "id": id})).collect();
            let mut shown = values.shown();
            shown.insert("in_review".to_owned(), (!shown.contains_key("domain")).into());
            if !refs.is_empty() {
                shown.insert("prospect_external_refs".to_owned(), refs.into());
            }
            if let Some(notes) = shown.remove("notes") {
                shown.insert("prospect_attributes".to_owned(), json!({"notes": notes}));
            }
            if let Some(phone) = shown.remove("phone") {
                if !phone.as_str().is_some_and(|phone| phone.starts_with('+')) {
                    shown.insert("prospect_flags".to_owned(), json!(["phone_not_e164"]));
                }
                shown.insert("prospect_phone".to_owned(), phone);
            }
            shown
        });
        Records { companies, prospects: prospects.collect() }.sorted()
    }
}

impl Values {
    /// Takes in what is said at a time: blanks are filled, and of two values the newer one stands; of one time the greater one, and
    /// without times the later one.
    fn hear(&mut self, said: Vec<(&'static str, Option<Value>)>, at: Option<i64>) -> Effect {
        let mut effect = Effect::Unchanged;
        for (field, value) in said {
            let Some(value) = value else { continue };
            match self.of.get_mut(field) {
                None => {
                    self.of.insert(field, (value, at));
                    effect = Effect::Updated;
                }
                Some((stands, since)) if *stands == value => *since = (*since).max(at),
                Some((stands, since)) => {
                    // The order of values as text is the rule's; a JSON value has none of its own.
                    let (text, text_standing) = (value.to_string(), stands.to_string());
                    let wins = match (*since, at) {
                        (Some(since), Some(at)) if since == at => text > text_standing,
                        (Some(since), Some(at)) => at > since,
                        _ => true,
                    };
                    if wins {
                        (*stands, *since) = (value, at);
                        effect = Effect::Updated;
                    }
                }
            }
        }
        effect
    }

    fn shown(&self) -> Shown {
        self.of.iter().map(|(field, (value, _))| ((*field).to_owned(), value.clone())).collect()
    }
}

impl Records {
    /// In an order that depends on nothing but what they show.
    pub fn sorted(mut self) -> Self {
        for records in [&mut self.companies, &mut self.prospects] {
            records.sort_by_cached_key(|record| serde_json::to_string(record).expect("plain JSON"));
        }
        self
    }
}

/// Trimmed; a line break or tab is a space. The list has no letters that NFC would change.
fn one_line(cell: &str) -> String {
    cell.trim().replace("\r\n", " ").replace(['\n', '\t'], " ")
}

fn number(text: &str) -> Option<i64> {
    text.trim().replace([',', '$'], "").trim_end_matches(".0").parse().ok()
}

fn country(name: &str) -> String {
    let known = COUNTRIES.iter().find(|(_, names)| names.contains(&name.to_lowercase().as_str()));
    known.unwrap_or_else(|| panic!("{name}")).0.to_owned()
}

/// A German number in E.164, whatever stands between its digits; anything else as it is.
fn dialled(phone: &str) -> String {
    match phone.strip_prefix("+49") {
        Some(rest) => format!("+49{}", rest.chars().filter(char::is_ascii_digit).collect::<String>()),
        None => phone.to_owned(),
    }
}

/// A company's name without its legal form, in lower case.
fn bare_name(name: &str) -> String {
    let name = name.to_lowercase().replace('.', "");
    let mut words: Vec<&str> = name.split_whitespace().collect();
    while words.len() > 1 && words.last().is_some_and(|word| LEGAL_FORMS.contains(word)) {
        words.pop();
    }
    words.join(" ")
}

/// The company's domain, where the address is one at a company.
fn company_of_mail(email: &str) -> Option<String> {
    let (_, host) = email.rsplit_once('@')?;
    if NOBODYS.contains(&host) || SUSPICIOUS.contains(&host) {
        return None;
    }
    Some(Domain::parse(host).ok()?.as_str().to_owned())
}

/// The company's domain, and the host if it says more than that.
fn company_of_website(website: &str) -> Option<(String, Option<String>)> {
    let lower = website.trim().to_lowercase();
    let rest = lower.split_once("://").map_or(lower.as_str(), |(_, rest)| rest);
    let host = rest.split(['/', ':', '?']).next()?;
    if OTHERS_PAGES.contains(&host) {
        return None;
    }
    let domain = Domain::parse(host).ok()?.as_str().to_owned();
    let host = idna::domain_to_ascii(host).ok()?;
    let says_more = host != domain && host != format!("www.{domain}");
    Some((domain, says_more.then_some(host)))
}

/// Seconds since 1970.
fn seconds(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse::<i64>() {
        return Some(if text.len() == 13 { number / 1000 } else { number });
    }
    let (date, rest) = text.split_once(['T', ' '])?;
    let date: Vec<i64> = date.split('-').map(str::parse).collect::<Result<_, _>>().ok()?;
    let (time, ahead) = match rest.split_once('+') {
        Some((time, offset)) => (time, offset.split_once(':')?.0.parse::<i64>().ok()? * 3600),
        None => (rest.trim_end_matches('Z'), 0),
    };
    let time: Vec<i64> = time.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let (&[year, month, day], &[hour, minute, second]) = (&date[..], &time[..]) else { return None };
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - ahead)
}

/// Days since 1970, counted one year and one month after another.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let of_years: i64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let of_months: i64 = (1..month).zip(lengths).map(|(_, length)| length).sum();
    of_years + of_months + day - 1
}
