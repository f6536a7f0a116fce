//! What rows of imports do to a company and a person, and how that is taken back.

use domain::company::{Change, CompanySaid, Terms, UpdateCompany};
use domain::prospect::{ProspectSaid, UpdateProspect};
use domain::provenance::Said;
use domain::review::ReviewReason;
use domain::value::{DomainOfHost, Line};
use domain::{
    Company, CompanyCommand, CompanyEvent, ConflictRule, Prospect, ProspectCommand, Record, RecordEvent, Status, Undo,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::context;

fn said(source: &str, import: u128, row: u64, at: Option<i64>) -> Said {
    Said { source: Line::parse(source).expect("a line"), import_id: Uuid::from_u128(import), row, at }
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("no object: {other}"),
    }
}

fn company_row(said: Said, fields: Value, domain: Option<&str>) -> CompanySaid {
    let domain = domain.map(|domain| DomainOfHost::of_company(domain).expect("a company's domain"));
    CompanySaid::parse(said, members(fields), domain).expect("good fields")
}

fn person_row(said: Said, fields: Value, company: Option<u128>) -> ProspectSaid {
    let mut row = ProspectSaid::parse(said, members(fields)).expect("good fields");
    row.company_id = company.map(Uuid::from_u128);
    row.may_be_known = true;
    row
}

/// Takes rows in and appends their events, through the log's form, to `history`. Gives what each row did.
fn hear(history: &mut Vec<CompanyEvent>, rows: &[CompanySaid], rule: &ConflictRule) -> Vec<domain::company::RowEffect> {
    let state = fold(history);
    let terms = Terms { rule, looks_like: None };
    let taken = domain::company::take_in(&state, rows, &terms, &context()).expect("the rows are taken in");
    for event in taken.events {
        let back =
            CompanyEvent::from_stored(event.name(), event.form(), &event.payload()).expect("it survives the log");
        assert_eq!(back, event);
        history.push(back);
    }
    taken.rows
}

fn fold<R: Record>(history: &[R::Event]) -> R {
    history.iter().fold(R::default(), |mut state, event| {
        state.evolve(event);
        state
    })
}

fn change(history: &mut Vec<CompanyEvent>, fields: Value) {
    let command = CompanyCommand::Update(UpdateCompany::parse(fields).expect("good fields"));
    let events = fold::<Company>(history).decide(command, &context()).expect("it may");
    history.extend(events);
}

fn name_of(history: &[CompanyEvent]) -> String {
    fold::<Company>(history).profile.name.expect("a name").to_string()
}

#[test]
fn the_first_row_registers_and_a_later_one_fills_blanks_only_where_there_is_news() {
    let mut history = Vec::new();
    let rule = ConflictRule::Newest;
    let first = company_row(said("crm", 1, 1, None), json!({"name": "Acme"}), Some("acme.com"));
    let second = company_row(said("crm", 1, 2, None), json!({"name": "Acme", "city": "Ulm"}), Some("acme.com"));
    let effects = hear(&mut history, &[first.clone(), first.clone(), second.clone()], &rule);
    let changes: Vec<Change> = effects.iter().map(|effect| effect.change).collect();
    assert_eq!(changes, [Change::Created, Change::Unchanged, Change::Updated]);
    assert_eq!(history.iter().map(RecordEvent::name).collect::<Vec<_>>(), ["CompanyRegistered", "CompanyImported"]);
    // The same rows again, later: nothing.
    let effects = hear(&mut history, &[first, second], &rule);
    assert!(effects.iter().all(|effect| effect.change == Change::Unchanged && effect.conflicts.is_empty()));
    assert_eq!(history.len(), 2);
}

#[test]
fn a_file_that_contradicts_itself_changes_nothing_the_second_time() {
    for rule in [ConflictRule::Newest, ConflictRule::Keep] {
        let mut history = Vec::new();
        let file: Vec<CompanySaid> = [(1, "Acme"), (2, "ACME Inc"), (3, "Acme Ltd"), (4, "ACME Inc")]
            .map(|(row, name)| company_row(said("crm", 1, row, None), json!({ "name": name }), Some("acme.com")))
            .into();
        let first = hear(&mut history, &file, &rule);
        let conflicts: usize = first.iter().map(|effect| effect.conflicts.len()).sum();
        assert_eq!(conflicts, 3, "each contradiction is told: {first:?}");
        let (kept, events) = (name_of(&history), history.len());
        let again: Vec<CompanySaid> = file
            .iter()
            .map(|row| CompanySaid { said: Said { import_id: Uuid::from_u128(2), ..row.said.clone() }, ..row.clone() })
            .collect();
        let second = hear(&mut history, &again, &rule);
        assert_eq!((name_of(&history), history.len()), (kept, events), "{rule:?}");
        assert!(second.iter().any(|effect| !effect.conflicts.is_empty()), "and told again");
        // Every value that any row said stands in the history.
        let log: String = history.iter().map(RecordEvent::payload).collect();
        assert!(["\"Acme\"", "ACME Inc", "Acme Ltd"].iter().all(|name| log.contains(name)), "{log}");
    }
}

#[test]
fn what_a_person_entered_is_not_overwritten_by_a_list_that_says_the_old_value_again() {
    let mut history = Vec::new();
    let rule = ConflictRule::Newest;
    let row =
        company_row(said("crm", 1, 1, None), json!({"name": "Acme", "attributes": {"tier": "a"}}), Some("acme.com"));
    hear(&mut history, std::slice::from_ref(&row), &rule);
    change(&mut history, json!({"name": "Acme Holding", "attributes": {"tier": "b"}}));
    let effects = hear(&mut history, &[row], &rule);
    assert_eq!((name_of(&history).as_str(), history.len()), ("Acme Holding", 3));
    let told: Vec<&str> = effects[0].conflicts.iter().map(|conflict| conflict.field.as_str()).collect();
    assert_eq!(told, ["name", "attributes.tier"]);
    let new = company_row(said("crm", 3, 1, None), json!({"name": "Acme Group"}), Some("acme.com"));
    hear(&mut history, &[new], &rule);
    assert_eq!(name_of(&history), "Acme Group", "what the list had not said before is news");
}

#[test]
fn a_second_domain_of_one_company_is_added_and_a_band_that_does_not_fit_is_left_out() {
    let mut history = Vec::new();
    let reference = json!([{"source": "crm", "id": "7"}]);
    let rows = [
        company_row(
            said("crm", 1, 1, None),
            json!({"name": "Acme", "external_refs": reference, "min_employee_size": 50}),
            Some("acme.com"),
        ),
        company_row(
            said("crm", 1, 2, None),
            json!({"external_refs": reference, "max_employee_size": 10}),
            Some("acme.de"),
        ),
    ];
    let effects = hear(&mut history, &rows, &ConflictRule::Newest);
    let company = fold::<Company>(&history);
    assert_eq!(company.domain.as_ref().map(|domain| domain.as_str().to_owned()).as_deref(), Some("acme.com"));
    assert_eq!(company.additional_domains.iter().map(domain::value::Domain::as_str).collect::<Vec<_>>(), ["acme.de"]);
    assert_eq!(
        (company.profile.max_employee_size.is_none(), effects[1].left_out.as_slice()),
        (true, &["min_employee_size".to_owned()][..])
    );
}

#[test]
fn a_company_that_looks_like_another_is_in_review() {
    let other = Uuid::from_u128(99);
    let row = company_row(said("crm", 1, 1, None), json!({"name": "Acme"}), Some("acme.io"));
    let terms = Terms { rule: &ConflictRule::Newest, looks_like: Some(other) };
    let taken = domain::company::take_in(&Company::default(), &[row], &terms, &context()).expect("taken in");
    let company = fold::<Company>(&taken.events);
    assert_eq!((taken.in_review, company.open_review()), (true, Some(ReviewReason::LooksLike { company_id: other })));
    assert!(taken.events.iter().all(|event| event.import_id() == Some(Uuid::from_u128(1))), "all of it can be undone");
}

#[test]
fn a_person_is_known_by_its_address_at_its_company_and_a_sealed_event_says_nothing_of_it() {
    let row = person_row(said("crm", 1, 1, None), json!({"email": "Ada@Acme.com", "last_name": "King"}), Some(7));
    let taken = domain::prospect::take_in(&Prospect::default(), &[row], &ConflictRule::Newest).expect("taken in");
    let person = fold::<Prospect>(&taken.events);
    let kinds: Vec<&str> = person.claims(Uuid::from_u128(1)).iter().map(|claim| claim.kind).collect();
    assert_eq!(kinds, ["person"]);
    // Whoever is moved by hand is found again by the same row.
    let mut moved = person.clone();
    for event in moved
        .decide(ProspectCommand::Update(UpdateProspect::parse(json!({"company_id": null})).expect("good")), &context())
        .expect("it may")
    {
        moved.evolve(&event);
    }
    assert_eq!(moved.claims(Uuid::from_u128(1)), person.claims(Uuid::from_u128(1)));
    let debug = format!("{:?}", taken.events);
    assert!(!debug.to_lowercase().contains("ada") && !debug.contains("King"), "{debug}");
}

#[test]
fn imports_are_taken_back_one_after_the_other_the_last_one_first() {
    let mut history = Vec::new();
    let rule = ConflictRule::Newest;
    let row =
        |import: u128, name: &str| company_row(said("crm", import, 1, None), json!({ "name": name }), Some("acme.com"));
    change_by(&mut history, &row(1, "One"), &rule);
    let first = fold::<Company>(&history);
    change_by(&mut history, &row(2, "Two"), &rule);
    assert_eq!(domain::company::undo(&history, Uuid::from_u128(1)), Undo::ChangedSince);
    for (import, expected) in [(2, Some(first)), (1, None)] {
        let Undo::By(event) = domain::company::undo(&history, Uuid::from_u128(import)) else { panic!("{import}") };
        history.push(event);
        let after = fold::<Company>(&history);
        match expected {
            Some(before) => assert_eq!(after, before),
            None => assert_eq!(after.status, Status::Deleted),
        }
    }
}

fn change_by(history: &mut Vec<CompanyEvent>, row: &CompanySaid, rule: &ConflictRule) {
    hear(history, std::slice::from_ref(row), rule);
}

#[test]
fn what_a_person_cleared_stays_clear_until_the_list_says_something_else() {
    let mut history = Vec::new();
    let rule = ConflictRule::Newest;
    let row = |import: u128, city: &str| {
        company_row(
            said("crm", import, 1, None),
            json!({"name": "Acme", "city": city, "attributes": {"tier": "a"}}),
            Some("acme.com"),
        )
    };
    change_by(&mut history, &row(1, "Ulm"), &rule);
    change(&mut history, json!({"city": null, "attributes": {"tier": null}}));
    let events = history.len();
    change_by(&mut history, &row(2, "Ulm"), &rule);
    assert_eq!(history.len(), events);
    change_by(&mut history, &row(3, "Bonn"), &rule);
    let company = fold::<Company>(&history);
    assert_eq!(
        (company.profile.city.map(|city| city.to_string()).as_deref(), company.attributes.get("tier")),
        (Some("Bonn"), None)
    );
    // And whom somebody took away from a company.
    let person = person_row(said("crm", 1, 1, None), json!({"email": "ada@acme.com"}), Some(7));
    let taken =
        domain::prospect::take_in(&Prospect::default(), std::slice::from_ref(&person), &rule).expect("taken in");
    let mut state = fold::<Prospect>(&taken.events);
    let unassign = ProspectCommand::Update(UpdateProspect::parse(json!({"company_id": null})).expect("good"));
    for event in state.decide(unassign, &context()).expect("it may") {
        state.evolve(&event);
    }
    assert!(domain::prospect::take_in(&state, &[person], &rule).expect("taken in").events.is_empty());
}

#[test]
fn whoever_is_at_a_company_that_was_merged_into_the_row_s_is_at_it_already() {
    let rule = ConflictRule::Newest;
    let person = |company| person_row(said("crm", 1, 1, None), json!({"email": "ada@acme.com"}), Some(company));
    let taken = domain::prospect::take_in(&Prospect::default(), &[person(7)], &rule).expect("taken in");
    let state = fold::<Prospect>(&taken.events);
    let mut row = person(8);
    row.company_stands_for = vec![Uuid::from_u128(7)];
    let taken = domain::prospect::take_in(&state, &[row], &rule).expect("taken in");
    assert!(taken.events.is_empty() && taken.rows[0].conflicts.is_empty(), "{taken:?}");
}

/// One thing that happens to a company.
#[derive(Debug, Clone)]
enum Step {
    /// Import (1 to 3), with a row's values.
    Row(u8, u8, u8),
    /// A person's change of the name or the city.
    Edit(u8),
    /// Taking an import back.
    Undo(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..4_u8, 0..4_u8, 0..3_u8).prop_map(|(import, name, city)| Step::Row(import, name, city)),
        1 => (0..4_u8).prop_map(Step::Edit),
        1 => (1..4_u8).prop_map(Step::Undo),
    ];
    prop::collection::vec(step, 1..25)
}

proptest! {
    /// Of random rows, edits and undos: a record that nobody else has changed since goes back to exactly what it was, anything else is left;
    /// and an import's rows said again change nothing.
    #[test]
    fn an_import_is_taken_back_exactly_or_not_at_all(steps in steps()) {
        let mut history: Vec<CompanyEvent> = Vec::new();
        let rule = ConflictRule::Newest;
        for (row, step) in (1..).zip(steps) {
            let state = fold::<Company>(&history);
            match step {
                Step::Row(import, name, city) => {
                    let import_id = Uuid::from_u128(import.into());
                    let undone = |event: &CompanyEvent| matches!(event, CompanyEvent::CompanyImportUndone(undone) if undone.import_id == import_id);
                    // An import that was taken back has no more rows.
                    if state.status == Status::Deleted || history.iter().any(undone) {
                        continue;
                    }
                    let mut fields = json!({ "name": format!("Name {name}") });
                    if city > 0 {
                        fields["city"] = format!("City {city}").into();
                    }
                    let source = if import == 3 { "web" } else { "crm" };
                    let row = company_row(said(source, import.into(), row, None), fields, Some("acme.com"));
                    hear(&mut history, std::slice::from_ref(&row), &rule);
                    let events = history.len();
                    hear(&mut history, &[row], &rule);
                    prop_assert_eq!(history.len(), events, "said again it is no news");
                }
                Step::Edit(name) => {
                    if state.status == Status::Live {
                        change(&mut history, json!({ "name": format!("Name {name}") }));
                    }
                }
                Step::Undo(import) => {
                    let import_id = Uuid::from_u128(import.into());
                    let begun = history.iter().position(|event| event.import_id() == Some(import_id));
                    // Of what was taken back to what was before, nothing counts, neither the rows nor the taking back.
                    let back: Vec<Uuid> = history.iter().filter_map(|event| match event {
                        CompanyEvent::CompanyImportUndone(undone) if undone.before.is_some() => Some(undone.import_id),
                        _ => None,
                    }).collect();
                    let counts = |event: &CompanyEvent| match event {
                        CompanyEvent::CompanyImportUndone(undone) => undone.before.is_none(),
                        event => event.import_id().is_none_or(|of| of != import_id && !back.contains(&of)),
                    };
                    let others = begun.is_some_and(|begun| history[begun..].iter().any(counts));
                    match domain::company::undo(&history, import_id) {
                        Undo::Nothing => prop_assert!(begun.is_none()),
                        Undo::Done => prop_assert!(begun.is_some()),
                        Undo::ChangedSince => prop_assert!(others),
                        Undo::By(event) => {
                            let begun = begun.expect("there is something to undo");
                            prop_assert!(!others);
                            let before = fold::<Company>(&history[..begun]);
                            let event = CompanyEvent::from_stored(event.name(), event.form(), &event.payload()).expect("it survives the log");
                            history.push(event);
                            let after = fold::<Company>(&history);
                            if begun == 0 {
                                prop_assert_eq!(after.status, Status::Deleted);
                                prop_assert!(after.claims(Uuid::nil()).is_empty());
                            } else {
                                prop_assert_eq!(after, before);
                            }
                            prop_assert_eq!(domain::company::undo(&history, import_id), Undo::Done);
                        }
                    }
                }
            }
        }
    }

    /// Rows with times of their own lead to the same record in any order, cut into any imports, where what they say has a history:
    /// nobody says an old value later than a new one.
    #[test]
    fn with_times_the_order_of_the_rows_does_not_matter(
        versions in prop::collection::vec(0..3_i64, 2..12),
        order in prop::collection::vec(any::<prop::sample::Index>(), 12),
    ) {
        let rows: Vec<ProspectSaid> = (1_u64..).zip(&versions).map(|(row, version)| {
            let at = version * 100 + i64::try_from(row).expect("small");
            let fields = json!({"email": "a@acme.com", "job_title": format!("Title {version}"), "city": format!("City {}", version / 2), "attributes": {"tier": version}});
            person_row(said("crm", row.into(), row, Some(at)), fields, Some(7))
        }).collect();
        let mut shuffled = rows.clone();
        for (place, index) in order.iter().enumerate().take(rows.len()) {
            let other = index.index(rows.len());
            shuffled.swap(place, other);
        }
        let all_of = |rows: &[ProspectSaid]| {
            let taken = domain::prospect::take_in(&Prospect::default(), rows, &ConflictRule::Newest).expect("taken in");
            let state = fold::<Prospect>(&taken.events);
            (state.profile, state.personal)
        };
        prop_assert_eq!(all_of(&rows), all_of(&shuffled));
        // One by one, each from a state that went through the log.
        let mut history = Vec::new();
        for row in &shuffled {
            let state = fold::<Prospect>(&history);
            history.extend(domain::prospect::take_in(&state, std::slice::from_ref(row), &ConflictRule::Newest).expect("taken in").events);
        }
        let state = fold::<Prospect>(&history);
        prop_assert_eq!((state.profile, state.personal), all_of(&rows));
    }

    /// A person goes back to exactly what it was, what is personal included.
    #[test]
    fn a_person_is_taken_back_exactly(before in 0..3_u8, rows in prop::collection::vec((0..3_u8, 0..3_u8), 1..6)) {
        let mut history = Vec::new();
        let mut hear = |import: u128, row: u64, fields: Value| {
            let state = fold::<Prospect>(&history);
            let row = person_row(said("crm", import, row, None), fields, Some(7));
            history.extend(domain::prospect::take_in(&state, &[row], &ConflictRule::Newest).expect("taken in").events);
        };
        if before > 0 {
            hear(1, 1, json!({"email": "a@acme.com", "last_name": format!("Before {before}")}));
        }
        for (row, (name, title)) in (1..).zip(rows) {
            hear(2, row, json!({"email": "a@acme.com", "last_name": format!("Name {name}"), "job_title": format!("Title {title}"), "attributes": {"n": title}}));
        }
        let import_id = Uuid::from_u128(2);
        let begun = history.iter().position(|event| event.import_id() == Some(import_id));
        let Some(begun) = begun else { return Ok(()) };
        let was = fold::<Prospect>(&history[..begun]);
        let Undo::By(event) = domain::prospect::undo(&history, import_id) else { panic!("it can be undone") };
        history.push(event);
        let after = fold::<Prospect>(&history);
        if begun == 0 {
            prop_assert_eq!(after.status, Status::Deleted);
        } else {
            prop_assert_eq!(after, was);
        }
    }
}
