//! A mapping joined with a list's columns: what becomes of a row.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::convert::{self, Conversion, Split, Unreadable};
use super::form::{Form, Format};
use super::header::{fold, is_of_report};
use super::mapped::{Mapped, Reason};
use super::mapping::{Mapping, MappingError, Rule, Unmapped};
use super::members::Members;
use super::place::{Place, Side, Target};
use super::rows::{Cell, Cells, Column, text_of};
use super::template::{Piece, Template, filled};

/// The longest key of an attribute, in characters.
const KEY_CHARS_MAX: usize = domain::value::Attributes::KEY_MAX;
/// The most prospects of one row.
const PEOPLE_MAX: usize = 25;
const TOO_MANY_PEOPLE: Unreadable = Unreadable {
    code: "too_many_people",
    detail: "must have at most 25 entries: a row has at most that many prospects",
};
/// One of these says that there is a person in the row.
const OF_A_PERSON: &[&str] =
    &["first_name", "last_name", "email", "phone", "mobile_phone", "job_title", "job_title_link"];

/// A mapping joined with a list's columns.
#[derive(Debug)]
pub struct Bound {
    /// In the order in which they are looked at: what is made of other fields last.
    rules: Vec<BoundRule>,
    constants: Vec<(Target, Value)>,
    company_id: Option<BoundId>,
    prospect_id: Option<BoundId>,
    updated_at: Option<(Column, String, Option<Conversion>, bool)>,
    rest: Option<Rest>,
    /// Whether there may be several prospects in a row.
    each: bool,
}

#[derive(Debug)]
struct BoundRule {
    column: Column,
    name: String,
    target: Target,
    conversion: Conversion,
    /// Whether that was chosen, or only what such a field wants.
    chosen: bool,
    each: Option<Split>,
    lenient: bool,
}

#[derive(Debug)]
struct BoundId {
    id: Vec<Piece<Column>>,
    source: Option<Vec<Piece<Column>>>,
    /// The first of its columns.
    name: Option<String>,
}

/// Columns that no rule names, which become attributes.
#[derive(Debug)]
struct Rest {
    side: Side,
    /// Those of CSV, each with its key.
    columns: Vec<(Column, String)>,
    /// Of NDJSON: the names that rules have.
    named: Option<HashSet<String>>,
}

impl Bound {
    pub(super) fn new(mapping: &Mapping, form: &Form) -> Result<Self, MappingError> {
        let folded: Vec<String> = form.columns.iter().map(|name| fold(name)).collect();
        let find = |name: &str| match form.format {
            Format::Csv => {
                let name = fold(name);
                folded.iter().position(|column| *column == name).map(Column::At)
            }
            Format::NdJson => Some(Column::Named(name.trim().to_owned())),
        };
        let mut rules: Vec<BoundRule> = Vec::new();
        for (name, of_column) in &mapping.columns {
            let Some(column) = find(name) else { continue };
            let shown = match column {
                Column::At(index) => &form.columns[index],
                Column::Named(_) => name,
            };
            rules.extend(of_column.iter().map(|rule| BoundRule::new(rule, column.clone(), shown)));
        }
        if rules.is_empty() {
            let names = |names: Vec<&str>| names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            return Err(MappingError::NoColumn {
                file: names(form.columns.iter().map(String::as_str).collect()),
                expected: names(mapping.columns.iter().map(|(name, _)| name.as_str()).collect()),
            });
        }
        rules.sort_by_key(|rule| matches!(rule.target.place, Place::FullName | Place::EmployeeRange));
        let each = rules.iter().any(|rule| rule.each.is_some());
        if let Some(template) = mapping.ids.prospect.as_ref().filter(|_| each)
            && !template.pieces.contains(&Piece::Number)
        {
            return Err(MappingError::NotDistinct(template.as_str().to_owned()));
        }
        let constant = |(target, text): &(Target, String)| {
            let value = match target.place {
                Place::Field(_, true) => Conversion::Number.convert(text).unwrap_or_else(|_| text.as_str().into()),
                _ => text.as_str().into(),
            };
            (target.clone(), value)
        };
        let ids = &mapping.ids;
        let bound_id = |id: &Option<Template>, source: &Option<Template>| {
            let id = id.as_ref()?;
            let name = id.pieces.iter().find_map(|piece| match piece {
                Piece::Column(names) => names.iter().find(|name| find(name).is_some()).cloned(),
                Piece::Text(_) | Piece::Number => None,
            })?;
            let shown = folded.iter().position(|column| *column == name).map_or(&name, |index| &form.columns[index]);
            let pieces = |template: &Template| bound_pieces(template, find);
            Some(BoundId { id: pieces(id), source: source.as_ref().map(pieces), name: Some(shown.clone()) })
        };
        let updated_at = mapping
            .updated_at
            .as_ref()
            .and_then(|from| Some((find(&from.column)?, from.column.clone(), from.conversion.clone(), from.lenient)));
        Ok(Self {
            constants: mapping.constants.iter().map(constant).collect(),
            company_id: bound_id(&ids.company, &ids.company_source),
            prospect_id: bound_id(&ids.prospect, &ids.prospect_source),
            updated_at,
            rest: (mapping.unmapped == Unmapped::Attributes).then(|| Rest::new(mapping, form, &rules, each)),
            rules,
            each,
        })
    }

    /// What becomes of a row of the source `source`. Constants stand in the company and in each prospect wherever no column gave a
    /// value, so in a company of which the row says nothing else, too.
    ///
    /// # Errors
    /// Why the row is refused: every value that cannot be converted and whose column is not lenient, or that there is none.
    pub fn map(&self, source: &str, cells: &Cells<'_>) -> Result<Mapped, Vec<Reason>> {
        let mut mapped = Mapped::default();
        let mut refused = Vec::new();
        let (mut company, mut person) = (Members::default(), Members::default());
        let mut lists: Vec<(&BoundRule, Vec<String>)> = Vec::new();
        for rule in &self.rules {
            let Some(cell) = cells.cell(&rule.column) else { continue };
            let read = match &rule.each {
                Some(split) => entries(&cell, split).and_then(|entries| {
                    if entries.len() > PEOPLE_MAX {
                        return Err(TOO_MANY_PEOPLE);
                    }
                    lists.push((rule, entries));
                    Ok(())
                }),
                None => rule.value(&cell).and_then(|value| match (rule.target.side, &rule.target.place) {
                    (_, Place::Domain) => put_text(&mut mapped.domain, &value),
                    (_, Place::Website) => put_text(&mut mapped.website, &value),
                    (Side::Company, place) => company.put(place, value),
                    (Side::Prospect, place) => person.put(place, value),
                }),
            };
            if let Err(unreadable) = read {
                rule.refuse(&unreadable, &mut mapped.dropped, &mut refused);
            }
        }
        let says_of_person = !person.is_empty();
        let mut people = if self.each {
            people(&person, &lists, &mut mapped.dropped, &mut refused)
        } else if OF_A_PERSON.iter().any(|name| person.fields.contains_key(*name))
            || self.prospect_id.as_ref().is_some_and(|id| id.of(source, 1, cells).is_some())
        {
            vec![person]
        } else {
            Vec::new()
        };
        let speaks_of_nobody = people.is_empty()
            && (says_of_person
                || self.rest.as_ref().is_some_and(|rest| rest.side == Side::Prospect && rest.has_values(cells)));
        if speaks_of_nobody {
            mapped.dropped.push(person_left_out());
        }
        if let Some((column, name, conversion, lenient)) = &self.updated_at
            && let Some(cell) = cells.cell(column)
        {
            match convert::instant(&cell_text(&cell), conversion.as_ref()) {
                Ok(time) => mapped.updated_at = Some(time),
                Err(unreadable) => {
                    let reasons = if *lenient { &mut mapped.dropped } else { &mut refused };
                    reasons.push(reason(Some(name), &unreadable));
                }
            }
        }
        if !refused.is_empty() {
            return Err(refused);
        }
        let company_ref = self.company_id.as_ref().and_then(|id| id.of(source, 1, cells));
        let nothing = company.is_empty() && mapped.domain.is_none() && mapped.website.is_none();
        if nothing && people.is_empty() && company_ref.is_none() && speaks_of_nobody {
            return Err(vec![person_left_out()]);
        }
        if nothing && people.is_empty() && company_ref.is_none() {
            let detail = "the row has no value in any column that the mapping knows".to_owned();
            return Err(vec![Reason { column: None, code: "empty_row", detail }]);
        }
        if let Some(rest) = &self.rest {
            let to = match rest.side {
                // What is a person's does not become the company's because the row has no person.
                Side::Prospect => people.first_mut(),
                Side::Company => Some(&mut company),
            };
            if let Some(to) = to {
                rest.put(cells, &mut to.attributes);
            }
        }
        for (target, value) in &self.constants {
            match (target.side, &target.place) {
                (_, Place::Domain) => drop(put_text(&mut mapped.domain, value)),
                (_, Place::Website) => drop(put_text(&mut mapped.website, value)),
                // A constant range or name was looked at by nobody before; what it does not say is not said.
                (Side::Company, place) => drop(company.put(place, value.clone())),
                (Side::Prospect, place) => people.iter_mut().for_each(|person| drop(person.put(place, value.clone()))),
            }
        }
        mapped.company = company.into_members(company_ref);
        mapped.prospects = (1..)
            .zip(people)
            .map(|(number, person)| {
                person.into_members(self.prospect_id.as_ref().and_then(|id| id.of(source, number, cells)))
            })
            .collect();
        Ok(mapped)
    }

    /// Which column a field came from, by the pointer of a field's error (`/email`, `/attributes/tier`, `/domain`).
    pub fn column_of(&self, side: Side, pointer: &str) -> Option<&str> {
        if let Some(rule) = self.rule_of(side, pointer) {
            return Some(&rule.name);
        }
        let rest = pointer.strip_prefix('/')?;
        if rest == "external_refs" || rest.starts_with("external_refs/") {
            let id = if side == Side::Company { &self.company_id } else { &self.prospect_id };
            return id.as_ref()?.name.as_deref();
        }
        let key = unescaped(rest.strip_prefix("attributes/")?);
        let columns = &self.rest.as_ref()?.columns;
        columns.iter().find(|(_, name)| *name == key).map(|(_, name)| name.as_str())
    }

    /// Whether the field's column is lenient: a value that the field refuses is to be left out, not its row.
    pub fn is_lenient(&self, side: Side, pointer: &str) -> bool {
        self.rule_of(side, pointer).is_some_and(|rule| rule.lenient)
    }

    fn rule_of(&self, side: Side, pointer: &str) -> Option<&BoundRule> {
        let (name, below) = pointer.strip_prefix('/')?.split_once('/').unwrap_or((pointer.strip_prefix('/')?, ""));
        let mut rules = self.rules.iter().filter(|rule| rule.target.side == side);
        let index: usize = below.split('/').next().and_then(|index| index.parse().ok()).unwrap_or(0);
        if name == "social_media" {
            return rules.filter(|rule| matches!(rule.target.place, Place::SocialMedia(_))).nth(index);
        }
        rules.find(|rule| match &rule.target.place {
            Place::Field(field, _) => *field == name,
            Place::Domain => name == "domain",
            Place::Website => name == "website" || name == "domain",
            Place::FullName => name == "first_name" || name == "last_name",
            Place::EmployeeRange => name == "min_employee_size" || name == "max_employee_size",
            Place::SocialMedia(_) => false,
            Place::Attribute(key) => name == "attributes" && *key == unescaped(below),
        })
    }
}

impl BoundRule {
    fn new(rule: &Rule, column: Column, name: &str) -> Self {
        let wanted = match rule.target.place {
            Place::Field(_, true) => Conversion::Number,
            _ => Conversion::Text,
        };
        Self {
            column,
            name: name.to_owned(),
            target: rule.target.clone(),
            chosen: rule.conversion.is_some(),
            conversion: rule.conversion.clone().unwrap_or(wanted),
            each: rule.each.clone(),
            lenient: rule.lenient,
        }
    }

    fn value(&self, cell: &Cell<'_>) -> Result<Value, Unreadable> {
        match (cell, &self.conversion) {
            (Cell::Text(text), conversion) => conversion.convert(text),
            (Cell::Json(Value::Array(entries)), Conversion::FirstOf(_)) => {
                Ok(entries.first().map_or(Value::Null, |entry| text_of(entry).into()))
            }
            (Cell::Json(Value::Array(entries)), Conversion::Text | Conversion::Join(_)) => Ok(joined(entries)),
            (Cell::Json(value), _) if !self.chosen && matches!(self.target.place, Place::Attribute(_)) => {
                Ok((*value).clone())
            }
            (Cell::Json(value), conversion) => conversion.convert(&text_of(value)),
        }
    }

    fn refuse(&self, unreadable: &Unreadable, dropped: &mut Vec<Reason>, refused: &mut Vec<Reason>) {
        let reasons = if self.lenient { dropped } else { refused };
        reasons.push(reason(Some(&self.name), unreadable));
    }
}

impl BoundId {
    /// The reference of a row's company or prospect; none where a column of its id is blank.
    fn of(&self, source: &str, number: usize, cells: &Cells<'_>) -> Option<Value> {
        let value = |column: &Column| cells.cell(column).map(|cell| cell_text(&cell).into_owned());
        let id = filled(&self.id, number, value)?;
        let own = self.source.as_ref().and_then(|pieces| filled(pieces, number, value));
        Some(json!([{"source": own.as_deref().unwrap_or(source), "id": id}]))
    }
}

impl Rest {
    fn new(mapping: &Mapping, form: &Form, rules: &[BoundRule], each: bool) -> Self {
        let mut named: HashSet<String> = mapping.columns.iter().map(|(name, _)| fold(name)).collect();
        named.extend(mapping.updated_at.iter().map(|from| fold(&from.column)));
        let ids = &mapping.ids;
        let templates = [&ids.company, &ids.company_source, &ids.prospect, &ids.prospect_source];
        for piece in templates.into_iter().flatten().flat_map(|template| &template.pieces) {
            if let Piece::Column(names) = piece {
                named.extend(names.iter().cloned());
            }
        }
        let people = rules.iter().any(|rule| rule.target.side == Side::Prospect) && !each;
        let other = |name: &str| !named.contains(&fold(name)) && !is_of_report(name);
        let columns = form.columns.iter().enumerate().filter(|(_, name)| other(name));
        Self {
            side: if people { Side::Prospect } else { Side::Company },
            columns: columns.map(|(index, name)| (Column::At(index), key_of(name))).collect(),
            named: (form.format == Format::NdJson).then_some(named),
        }
    }

    /// Whether the row says anything in them.
    fn has_values(&self, cells: &Cells<'_>) -> bool {
        let mut attributes = Map::new();
        self.put(cells, &mut attributes);
        !attributes.is_empty()
    }

    fn put(&self, cells: &Cells<'_>, attributes: &mut Map<String, Value>) {
        for (column, key) in &self.columns {
            if let Some(cell) = cells.cell(column) {
                attributes.entry(key.as_str()).or_insert_with(|| cell_text(&cell).into());
            }
        }
        if let Some(named) = &self.named {
            for (name, value) in
                cells.members().iter().filter(|(name, _)| !named.contains(&fold(name)) && !is_of_report(name))
            {
                let value = match value {
                    Value::Array(entries) => joined(entries),
                    plain => plain.clone(),
                };
                attributes.entry(key_of(name)).or_insert(value);
            }
        }
    }
}

/// The people of a row whose lists name them.
fn people(
    all: &Members,
    lists: &[(&BoundRule, Vec<String>)],
    dropped: &mut Vec<Reason>,
    refused: &mut Vec<Reason>,
) -> Vec<Members> {
    let count = lists.iter().map(|(_, entries)| entries.len()).max().unwrap_or(0);
    let mut people = Vec::with_capacity(count);
    for number in 0..count {
        let mut person = all.clone();
        for (rule, entries) in lists {
            let Some(entry) = entries.get(number) else { continue };
            let put = rule.conversion.convert(entry).and_then(|value| person.put(&rule.target.place, value));
            if let Err(unreadable) = put {
                rule.refuse(&unreadable, dropped, refused);
            }
        }
        people.push(person);
    }
    people
}

fn bound_pieces(template: &Template, find: impl Fn(&str) -> Option<Column>) -> Vec<Piece<Column>> {
    let bound = |piece: &Piece<String>| match piece {
        Piece::Text(text) => Piece::Text(text.clone()),
        Piece::Number => Piece::Number,
        // A column that the file does not have is always blank.
        Piece::Column(names) => Piece::Column(names.iter().filter_map(|name| find(name)).collect()),
    };
    template.pieces.iter().map(bound).collect()
}

fn entries(cell: &Cell<'_>, split: &Split) -> Result<Vec<String>, Unreadable> {
    match cell {
        Cell::Text(text) => split.parts(text),
        Cell::Json(Value::Array(entries)) => Ok(entries.iter().map(|entry| text_of(entry).into_owned()).collect()),
        Cell::Json(value) => split.parts(&text_of(value)),
    }
}

fn joined(entries: &[Value]) -> Value {
    entries.iter().map(text_of).collect::<Vec<_>>().join(", ").into()
}

fn cell_text<'a>(cell: &Cell<'a>) -> std::borrow::Cow<'a, str> {
    match cell {
        Cell::Text(text) => std::borrow::Cow::Borrowed(text),
        Cell::Json(value) => text_of(value),
    }
}

/// Keeps the first value, as it stands.
#[expect(clippy::unnecessary_wraps, reason = "the places beside it can refuse")]
fn put_text(place: &mut Option<String>, value: &Value) -> Result<(), Unreadable> {
    if place.is_none() && !value.is_null() {
        *place = Some(text_of(value).into_owned());
    }
    Ok(())
}

fn key_of(name: &str) -> String {
    name.chars().take(KEY_CHARS_MAX).collect()
}

/// A segment of a JSON pointer as the key that it stands for.
fn unescaped(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

fn person_left_out() -> Reason {
    let detail = "nothing in the row tells a person from another: it needs a name, an e-mail address, a phone number or an id; \
                  what else it says of one is left out";
    Reason { column: None, code: "person_left_out", detail: detail.to_owned() }
}

fn reason(column: Option<&str>, unreadable: &Unreadable) -> Reason {
    Reason { column: column.map(str::to_owned), code: unreadable.code, detail: unreadable.detail.to_owned() }
}
