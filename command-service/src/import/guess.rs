//! A mapping guessed from the names of a list's columns.

use super::form::{Form, Format};
use super::header::fold;
use super::mapping::{Ids, Mapping, Rule, Unmapped};
use super::place::{Place, Target};
use super::rows::{Cell, Cells, Column, Row, text_of};
use super::template::Template;

/// So many rows are looked at.
const SAMPLE_ROWS: usize = 100;

/// Names of columns, letters and digits only, in lower case without accents, and where they lead. `person.` is the prospect in a list of
/// people, else the company.
const NAMES: &[(&str, &str)] = &[
    ("prospect.salutation", "salutation anrede civilite tratamiento"),
    ("prospect.first_name", "firstname givenname forename vorname prenom nombre"),
    ("prospect.last_name", "lastname surname familyname nachname familienname nomdefamille apellido apellidos"),
    (
        "prospect.full_name",
        "fullname contactname contact contactperson ansprechpartner nomcomplet nombrecompleto personname leadname",
    ),
    (
        "prospect.email",
        "email emailaddress mail workemail businessemail contactemail emailadresse mailadresse courriel adressemail adresseemail correo correoelectronico",
    ),
    ("company.email_address", "companyemail infoemail"),
    ("prospect.job_title", "jobtitle title position role job occupation funktion poste fonction cargo puesto"),
    ("prospect.job_title_level", "jobtitlelevel seniority level joblevel managementlevel employmentseniority"),
    ("prospect.department", "department abteilung service departement departamento"),
    ("prospect.job_title_link", "jobtitlelink linkedin linkedinurl linkedinprofile personlinkedinurl"),
    (
        "prospect.mobile_phone",
        "mobilephone mobile mobilephonenumber cell cellphone mobil handy mobilnummer mobiltelefon portable movil",
    ),
    (
        "person.phone",
        "phone phonenumber telephone tel telefon telefonnummer workphone businessphone directphone telefono",
    ),
    ("company.phone", "companyphone corporatephone mainphone"),
    (
        "person.address",
        "address street streetaddress mailingstreet address1 addressline1 strasse anschrift adresse rue direccion calle",
    ),
    ("person.city", "city town location mailingcity ort stadt ville ciudad"),
    (
        "person.state",
        "state province region stateregion stateprovince mailingstateprovince bundesland provincia estado",
    ),
    (
        "person.zip_code",
        "zip zipcode postalcode postcode zippostalcode mailingzippostalcode plz postleitzahl codepostal codigopostal",
    ),
    ("person.country", "country countryregion mailingcountry land pays pais"),
    ("company.address", "companyaddress companystreet"),
    ("company.city", "companycity"),
    ("company.state", "companystate"),
    ("company.zip_code", "companyzip companyzipcode companypostalcode"),
    ("company.country", "companycountry"),
    (
        "company.name",
        "company companyname organization organisation organizationname account accountname companyaccount associatedcompany employer firma firmenname unternehmen entreprise societe empresa",
    ),
    ("company.legal_name", "legalname legalentity"),
    ("company.domain", "domain companydomain companydomainname emaildomain"),
    (
        "company.website",
        "website websiteurl web url homepage companywebsite companyurl webseite internet siteweb sitio sitioweb paginaweb",
    ),
    ("company.industry", "industry sector branche secteur industria"),
    ("company.company_type", "companytype type"),
    ("company.founding_date", "founded foundingdate yearfounded foundedyear"),
    ("company.short_description", "shortdescription description tagline"),
    ("company.long_description", "longdescription about"),
    (
        "company.employee_count",
        "employees employeecount numberofemployees noofemployees teamsize mitarbeiter mitarbeiterzahl effectif empleados headcount",
    ),
    ("company.employee_range", "employeerange companysize size employeesrange"),
    ("company.min_employee_size", "minemployeesize"),
    ("company.max_employee_size", "maxemployeesize"),
    ("company.employee_size_link", "employeesizelink"),
    ("company.revenue", "revenue annualrevenue umsatz chiffredaffaires ingresos turnover"),
    ("company.revenue_currency", "currency revenuecurrency"),
    ("company.logo_url", "logo logourl"),
    ("company.social_media.LinkedIn", "companylinkedin companylinkedinurl"),
    ("company.social_media.Twitter", "twitter twitterurl"),
    ("company.social_media.Facebook", "facebook facebookurl"),
];

const OF_PEOPLE: &[&str] = &["prospect.first_name", "prospect.last_name", "prospect.full_name", "prospect.email"];

pub(super) fn guess<'a>(form: &Form, sample: impl Iterator<Item = Row<'a>>) -> Mapping {
    let rows: Vec<_> = sample.take(SAMPLE_ROWS).filter_map(|row| row.cells.ok()).collect();
    let mut names = form.columns.clone();
    for (name, _) in rows.iter().flat_map(Cells::members) {
        if !names.contains(name) && names.len() < super::intake::COLUMNS_MAX {
            names.push(name.clone());
        }
    }
    let mut found: Vec<Option<&str>> = names.iter().map(|name| by_name(name)).collect();
    for (index, name) in
        names.iter().enumerate().filter(|(index, _)| form.format == Format::NdJson || *index < form.columns.len())
    {
        if found[index].is_some() || plain(name) == "id" {
            continue;
        }
        let column = match form.format {
            Format::Csv => Column::At(index),
            Format::NdJson => Column::Named(name.clone()),
        };
        let values = rows.iter().filter_map(|cells| cells.cell(&column)).map(|cell| match cell {
            Cell::Text(text) => text.to_owned(),
            Cell::Json(value) => text_of(value).into_owned(),
        });
        let target = by_values(&values.collect::<Vec<_>>());
        found[index] = target.filter(|target| !found.contains(&Some(*target)));
    }
    let people = found.iter().flatten().any(|target| OF_PEOPLE.contains(target));
    // A bare name is the person's in a list with e-mail addresses or companies, else the company's.
    let named = |target: &str| found.iter().flatten().any(|other| *other == target);
    let name = match (people, named("company.name")) {
        (true, _) if named("prospect.last_name") && named("company.name") => None,
        (true, _) if named("prospect.last_name") => Some("company.name"),
        (true, _) | (false, true) => Some("prospect.full_name"),
        (false, false) => Some("company.name"),
    };
    let side = if people || name == Some("prospect.full_name") { "prospect" } else { "company" };
    let mut columns = Vec::new();
    let mut id = None;
    let mut updated_at = None;
    for (column, target) in names.iter().zip(found) {
        let target = match (target, plain(column).as_str()) {
            (None, "name" | "nom") => name.map(str::to_owned),
            (None, "id" | "recordid" | "contactid" | "externalid") => {
                id = id.or_else(|| Some(column.clone()));
                None
            }
            (None, "updatedat" | "lastmodifieddate" | "modified" | "lastupdated") => {
                updated_at =
                    Some(super::mapping::UpdatedAt { column: column.clone(), conversion: None, lenient: true });
                None
            }
            (target, _) => target.map(|target| target.replace("person.", &format!("{side}."))),
        };
        if let Some(target) = target.and_then(|target| Target::parse(&target)) {
            let year = matches!(target.place, Place::Field("founding_date", _));
            let conversion = year.then_some(super::convert::Conversion::Year);
            let rule = Rule { target, conversion, each: None, lenient: year };
            columns.push((column.clone(), vec![rule]));
        }
    }
    let template = id
        .filter(|name| !name.contains(['{', '}', '|']))
        .and_then(|name| Template::parse(&format!("{{{name}}}"), true).ok());
    let ids = if side == "prospect" {
        Ids { prospect: template, ..Ids::default() }
    } else {
        Ids { company: template, ..Ids::default() }
    };
    Mapping { columns, constants: Vec::new(), ids, updated_at, unmapped: Unmapped::Ignore }
}

/// A name in letters and digits, in lower case, without accents.
fn plain(name: &str) -> String {
    let letters = fold(name).replace('ß', "ss");
    let plain = letters.chars().map(|c| match c {
        'á' | 'à' | 'â' | 'ä' => 'a',
        'é' | 'è' | 'ê' | 'ë' => 'e',
        'í' | 'î' | 'ï' => 'i',
        'ó' | 'ô' | 'ö' => 'o',
        'ú' | 'ù' | 'û' | 'ü' => 'u',
        'ñ' => 'n',
        'ç' => 'c',
        other => other,
    });
    plain.filter(|c| c.is_alphanumeric()).collect()
}

fn by_name(name: &str) -> Option<&'static str> {
    let name = plain(name);
    NAMES.iter().find(|(_, names)| names.split(' ').any(|known| known == name)).map(|(target, _)| *target)
}

/// Where a column leads most of whose values are e-mail addresses or web pages.
fn by_values(values: &[String]) -> Option<&'static str> {
    let most = |test: &dyn Fn(&str) -> bool| {
        !values.is_empty() && values.iter().filter(|value| test(value)).count() * 2 > values.len()
    };
    let is_url =
        |value: &str| value.starts_with("http://") || value.starts_with("https://") || value.starts_with("www.");
    let has = |value: &str, part: &str| is_url(value) && value.contains(part);
    if most(&|value| value.split_once('@').is_some_and(|(_, host)| host.contains('.')) && !value.contains([' ', '/'])) {
        Some("prospect.email")
    } else if most(&|value| has(value, "linkedin.com/in/")) {
        Some("prospect.job_title_link")
    } else if most(&|value| has(value, "linkedin.com/company/")) {
        Some("company.social_media.LinkedIn")
    } else if most(&is_url) {
        Some("company.website")
    } else {
        None
    }
}
