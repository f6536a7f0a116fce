//! One step of an import: some thousand rows, first what they say of companies, then of persons, all in flight at the same time
//! through the executors that single commands use.
//!
//! What rows of one step say of one record is one command, so that they do not wait for each other. Claims decide races: whoever is
//! overtaken looks again whose the record is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use domain::company::{Change, CompanySaid, RowEffect};
use domain::prospect::{KnownAs, ProspectSaid};
use domain::value::company_name;
use domain::{ClaimKey, ConflictRule};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::counted::Counted;
use super::ids::record_id;
use super::outcome::{Outcome, RowOutcome, RowReason};
use super::reading::Reading;
use super::world::{Carried, Groups, Place, Trouble, Value, World};

/// How often a record is looked for again after being overtaken.
const ROUNDS_MAX: usize = 6;

/// What an unfinished step had done before it was interrupted: the records that it changed, with the sequence of its first event on
/// each. All of a record's rows in a step are one command, so it did all of it or nothing.
pub type Already = HashMap<Uuid, i64>;

/// What the ids of new pages on social media are made of: no row makes as many records.
const SEED_SLOT: usize = 1_000_000;

/// The most reasons that the report gives of a row.
const REASONS_MAX: usize = 100;

/// The longest text that the report shows of a value, in characters.
const SHOWN_MAX: usize = 300;

/// What is known of the step's rows while it runs.
pub struct Step {
    world: Arc<World>,
    import_id: Uuid,
    rule: Arc<ConflictRule>,
    already: Arc<Already>,
    readings: Vec<Reading>,
    /// What each row did so far, per row.
    told: Vec<Told>,
    /// Who holds a claim, as far as this step knows.
    holders: HashMap<Value, Uuid>,
    /// Who has a value that is not unique.
    matches: HashMap<Value, Vec<Uuid>>,
    position: i64,
}

/// What became of one row.
#[derive(Default)]
struct Told {
    company: Option<(Uuid, Change)>,
    prospects: Vec<(Uuid, Change)>,
    /// Whether a row of the same source made each of them.
    made: Vec<(Uuid, bool)>,
    change: Change,
    person_in_review: bool,
    company_in_review: bool,
}

/// Whom a row's address may be: the claim to be found, those who have the address, the row's company and those merged into it.
type Sought = (Value, Vec<Uuid>, Option<Uuid>, Vec<Uuid>);

/// What the step's rows say of one company, and where they stand.
struct CompanyGroup {
    new: bool,
    places: Vec<usize>,
    rows: Vec<CompanySaid>,
    looks_like: Option<Uuid>,
}

/// What the step's rows say of one person, and where: the row, and which of its persons.
struct PersonGroup {
    new: bool,
    places: Vec<(usize, usize)>,
    rows: Vec<ProspectSaid>,
}

impl Step {
    /// Carries out a step's rows. Gives what became of each, in their order, and counts them.
    ///
    /// # Errors
    /// [`Trouble::Passing`] and [`Trouble::Lasting`]; the step is to be done again, with what it has done already.
    pub async fn carry_out(
        world: Arc<World>,
        import_id: Uuid,
        rule: Arc<ConflictRule>,
        already: Arc<Already>,
        readings: Vec<Reading>,
        counted: &mut Counted,
    ) -> Result<Vec<RowOutcome>, Trouble> {
        let told = readings.iter().map(|_| Told::default()).collect();
        let (holders, matches) = (HashMap::new(), HashMap::new());
        let mut step = Self { world, import_id, rule, already, readings, told, holders, matches, position: 0 };
        let begun = Instant::now();
        step.look_up().await?;
        let looked_up = Instant::now();
        step.companies().await?;
        let companies = Instant::now();
        step.persons().await?;
        tracing::debug!(
            %import_id,
            rows = step.readings.len(),
            look_up_ms = (looked_up - begun).as_millis(),
            companies_ms = (companies - looked_up).as_millis(),
            persons_ms = companies.elapsed().as_millis(),
            "a step of an import"
        );
        counted.position = counted.position.max(step.position);
        Ok(step.outcomes(counted))
    }

    /// Who holds what the rows name, all at once.
    async fn look_up(&mut self) -> Result<(), Trouble> {
        let (mut claims, mut matches) = (HashSet::new(), HashSet::new());
        for reading in self.readings.iter().filter(|reading| !reading.refused) {
            if let Some(said) = &reading.company {
                claims.extend(self.company_values(said));
                matches.extend(name_of(said).map(|key| self.world.value("name_country", &ClaimKey::Plain(key))));
            }
            for person in &reading.persons {
                claims.extend(self.ref_values(person));
                matches.extend(self.email_value(person));
            }
        }
        let (claims, matches): (Vec<Value>, Vec<Value>) = (claims.into_iter().collect(), matches.into_iter().collect());
        let (holders, found, erased) =
            tokio::try_join!(self.world.holders(&claims), self.world.matches(&matches), self.world.erased(&matches))?;
        (self.holders, self.matches) = (holders, found);
        self.leave_out(&erased);
        Ok(())
    }

    /// Leaves out the rows that name erased persons, all of each: what a row says of a company it says together with its persons.
    fn leave_out(&mut self, erased: &HashSet<Value>) {
        if erased.is_empty() {
            return;
        }
        for place in 0..self.readings.len() {
            let reading = &self.readings[place];
            let named = |person: &ProspectSaid| self.email_value(person).is_some_and(|email| erased.contains(&email));
            if !reading.refused && reading.persons.iter().any(named) {
                self.readings[place].refuse(erased_person());
            }
        }
    }

    async fn companies(&mut self) -> Result<(), Trouble> {
        let speaks =
            |(place, reading): (usize, &Reading)| (!reading.refused && reading.company.is_some()).then_some(place);
        let mut places: Vec<usize> = self.readings.iter().enumerate().filter_map(speaks).collect();
        for _ in 0..ROUNDS_MAX {
            if places.is_empty() {
                return Ok(());
            }
            let mut again = Vec::new();
            for (id, group, result) in self.run_companies(&places).await? {
                match result {
                    Ok(carried) => self.note_company(id, &group, &carried),
                    Err(Trouble::Overtaken) => again.extend(group.places),
                    Err(Trouble::Refused(errors)) => {
                        // The row that would have made the company; those after it may still make one.
                        let (first, rest) = group.places.split_first().expect("a group has rows");
                        let detail = errors.0.first().map(|error| error.detail.clone()).unwrap_or_default();
                        self.readings[*first].refuse(RowReason::new("no_company", detail));
                        again.extend(rest);
                    }
                    Err(trouble) => return Err(trouble),
                }
            }
            again.sort_unstable();
            self.forget_companies(&again).await?;
            places = again;
        }
        Err(Trouble::Passing("companies of this step change hands all the time".to_owned()))
    }

    /// Finds out whose each row's company is, and carries out what they say.
    async fn run_companies(
        &mut self,
        places: &[usize],
    ) -> Result<Vec<(Uuid, CompanyGroup, Result<Carried, Trouble>)>, Trouble> {
        let mut groups: Groups<Uuid, CompanyGroup> = Groups::default();
        for &place in places {
            let reading = &self.readings[place];
            let (row, said) = (reading.row, reading.company.clone());
            let Some(mut said) = said else { continue };
            let values = self.company_values(&said);
            let known = values.iter().find_map(|value| self.holders.get(value).copied());
            let id = known.unwrap_or_else(|| record_id(self.import_id, row, 0));
            for value in values {
                let holder = *self.holders.entry(value.clone()).or_insert(id);
                if holder != id {
                    // A domain is never another's: it comes first.
                    said.external_refs.retain(|reference| reference.key() != value.1);
                    let detail =
                        format!("the id belongs to company {holder}, which may be the same: merge them if it is");
                    let reason = RowReason::new("reference_taken", detail);
                    self.readings[place].reasons.push(RowReason { field: Some("external_refs".to_owned()), ..reason });
                }
            }
            let new = known.is_none();
            let looks_like = if new { self.looks_like(&said, id) } else { None };
            let group = groups.entry(id, || CompanyGroup { new, places: Vec::new(), rows: Vec::new(), looks_like });
            group.places.push(place);
            group.rows.push(said);
        }
        let mut commands = JoinSet::new();
        for (place, (id, group)) in groups.into_iter().enumerate() {
            let turn = self.world.turn().await?;
            let (world, rule, import_id) = (Arc::clone(&self.world), Arc::clone(&self.rule), self.import_id);
            let since = self.already.get(&id).copied();
            let seed = record_id(import_id, self.readings[group.places[0]].row, SEED_SLOT);
            // In a box: what is large is moved once less.
            commands.spawn(Box::pin(async move {
                let record = Place { id, new: group.new, since };
                let result = world.company(record, &group.rows, &rule, group.looks_like, seed).await;
                drop(turn);
                (place, (id, group, result))
            }));
        }
        joined(commands).await
    }

    /// An older company, of the log or of this step, that has the name of this one in its country.
    fn looks_like(&mut self, said: &CompanySaid, id: Uuid) -> Option<Uuid> {
        let value = self.world.value("name_country", &ClaimKey::Plain(name_of(said)?));
        let ids = self.matches.entry(value).or_default();
        let other = ids.iter().copied().filter(|other| *other < id).min();
        if !ids.contains(&id) {
            ids.push(id);
        }
        other
    }

    fn note_company(&mut self, id: Uuid, group: &CompanyGroup, carried: &Carried) {
        for (place, effect) in group.places.iter().zip(&carried.rows) {
            let told = &mut self.told[*place];
            told.company = Some((id, effect.change));
            told.change = told.change.max(effect.change);
            told.company_in_review = carried.in_review;
            tell(&mut self.readings[*place].reasons, effect);
            for said in &mut self.readings[*place].persons {
                said.company_id = Some(id);
                said.company_stands_for.clone_from(&carried.stands_for);
            }
        }
        self.position = self.position.max(carried.position.unwrap_or_default());
    }

    /// Looks again whose the companies of these rows are.
    async fn forget_companies(&mut self, places: &[usize]) -> Result<(), Trouble> {
        let said = places.iter().filter_map(|place| self.readings[*place].company.as_ref());
        let values: HashSet<Value> = said.flat_map(|said| self.company_values(said)).collect();
        for value in &values {
            self.holders.remove(value);
        }
        let values: Vec<Value> = values.into_iter().collect();
        self.holders.extend(self.world.holders(&values).await?);
        Ok(())
    }

    async fn persons(&mut self) -> Result<(), Trouble> {
        let mut places = Vec::new();
        for (place, reading) in self.readings.iter().enumerate().filter(|(_, reading)| !reading.refused) {
            places.extend((0..reading.persons.len()).map(|person| (place, person)));
        }
        for _ in 0..ROUNDS_MAX {
            if places.is_empty() {
                return Ok(());
            }
            let mut again = Vec::new();
            for (id, group, result) in self.run_persons(&places).await? {
                match result {
                    Ok(carried) => self.note_person(id, &group, &carried),
                    Err(Trouble::Overtaken) => again.extend(group.places),
                    // Erased since the rows were looked at: nobody finds that record any more, and the tenant's rule decides of the next.
                    Err(Trouble::ErasedRecord) if !self.is_own(id, &group.places) => again.extend(group.places),
                    // By the rule; or under the very id that a row of this import once made.
                    Err(Trouble::Erased | Trouble::ErasedRecord) => {
                        for (row, _) in group.places {
                            self.readings[row].refuse(erased_person());
                        }
                    }
                    Err(Trouble::Refused(errors)) => {
                        let ((row, _), rest) = group.places.split_first().expect("a group has rows");
                        let detail = errors.0.first().map(|error| error.detail.clone()).unwrap_or_default();
                        self.readings[*row].refuse(RowReason::new("no_person", detail));
                        again.extend(rest);
                    }
                    Err(trouble) => return Err(trouble),
                }
            }
            again.sort_unstable();
            self.forget_persons(&again).await?;
            places = again;
        }
        // A company that was deleted meanwhile, say: from the start it goes another way.
        Err(Trouble::Passing("persons of this step change hands all the time".to_owned()))
    }

    /// Whether a record's id is the one that one of these rows makes.
    fn is_own(&self, id: Uuid, places: &[(usize, usize)]) -> bool {
        places.iter().any(|(row, person)| record_id(self.import_id, self.readings[*row].row, person + 1) == id)
    }

    async fn run_persons(
        &mut self,
        places: &[(usize, usize)],
    ) -> Result<Vec<(Uuid, PersonGroup, Result<Carried, Trouble>)>, Trouble> {
        self.find_by_address(places).await?;
        let mut groups: Groups<Uuid, PersonGroup> = Groups::default();
        for &(place, person) in places {
            let row = self.readings[place].row;
            let mut said = self.readings[place].persons[person].clone();
            let refs = self.ref_values(&said);
            let known_as = self.known_value(&said);
            let known = refs.iter().chain(&known_as).find_map(|value| self.holders.get(value).copied());
            let id = known.unwrap_or_else(|| record_id(self.import_id, row, person + 1));
            let references: Vec<_> = said.external_refs.iter().cloned().collect();
            for (reference, value) in references.into_iter().zip(refs) {
                let holder = *self.holders.entry(value).or_insert(id);
                if holder != id {
                    said.external_refs.remove(&reference);
                    let detail = format!("the id belongs to prospect {holder}");
                    let reason = RowReason::new("reference_taken", detail);
                    self.readings[place].reasons.push(RowReason { field: Some("external_refs".to_owned()), ..reason });
                }
            }
            if let Some(value) = known_as {
                said.may_be_known = *self.holders.entry(value).or_insert(id) == id;
            }
            let group = groups.entry(id, || PersonGroup { new: known.is_none(), places: Vec::new(), rows: Vec::new() });
            group.places.push((place, person));
            group.rows.push(said);
        }
        let mut commands = JoinSet::new();
        for (place, (id, group)) in groups.into_iter().enumerate() {
            let turn = self.world.turn().await?;
            let (world, rule) = (Arc::clone(&self.world), Arc::clone(&self.rule));
            let since = self.already.get(&id).copied();
            commands.spawn(Box::pin(async move {
                let result = world.prospect(Place { id, new: group.new, since }, &group.rows, &rule).await;
                drop(turn);
                (place, (id, group, result))
            }));
        }
        joined(commands).await
    }

    /// Of the persons whose address the log knows: who is known by it at the row's company, by a claim or by being there.
    async fn find_by_address(&mut self, places: &[(usize, usize)]) -> Result<(), Trouble> {
        let mut asked: Vec<Sought> = Vec::new();
        for &(place, person) in places {
            let said = &self.readings[place].persons[person];
            if self.ref_values(said).iter().any(|value| self.holders.contains_key(value)) {
                continue;
            }
            let Some(value) = self.known_value(said).filter(|value| !self.holders.contains_key(value)) else {
                continue;
            };
            let found = self.email_value(said).and_then(|email| self.matches.get(&email));
            let candidates = found.cloned().unwrap_or_default();
            // Whoever is known by the address without having it any more: the claim tells when the command is carried out, which a
            // dry run does not come to.
            if !candidates.is_empty() || self.world.is_dry_run() {
                asked.push((value, candidates, said.company_id, said.company_stands_for.clone()));
            }
        }
        let values: Vec<Value> = asked.iter().map(|(value, ..)| value.clone()).collect();
        self.holders.extend(self.world.holders(&values).await?);
        asked.retain(|(value, ..)| !self.holders.contains_key(value));
        let mut looks = JoinSet::new();
        for (place, (value, candidates, company, stands_for)) in asked.into_iter().enumerate() {
            let (world, turn) = (Arc::clone(&self.world), self.world.turn().await?);
            looks.spawn(async move {
                let _turn = turn;
                for candidate in candidates {
                    match world.is_at(candidate, company, &stands_for).await {
                        Ok(false) => {}
                        Ok(true) => return (place, Ok(Some((value, candidate)))),
                        Err(trouble) => return (place, Err(trouble)),
                    }
                }
                (place, Ok::<_, Trouble>(None))
            });
        }
        for found in joined(looks).await? {
            if let Some((value, id)) = found? {
                self.holders.entry(value).or_insert(id);
            }
        }
        Ok(())
    }

    fn note_person(&mut self, id: Uuid, group: &PersonGroup, carried: &Carried) {
        for ((place, _), effect) in group.places.iter().zip(&carried.rows) {
            let told = &mut self.told[*place];
            if let Some((_, change)) = told.prospects.iter_mut().find(|(known, _)| *known == id) {
                *change = (*change).max(effect.change);
            } else {
                told.prospects.push((id, effect.change));
                told.made.push((id, carried.made_by_source));
            }
            told.change = told.change.max(effect.change);
            told.person_in_review |= carried.in_review;
            tell(&mut self.readings[*place].reasons, effect);
        }
        self.position = self.position.max(carried.position.unwrap_or_default());
    }

    async fn forget_persons(&mut self, places: &[(usize, usize)]) -> Result<(), Trouble> {
        let mut values = HashSet::new();
        for &(place, person) in places {
            let said = &self.readings[place].persons[person];
            values.extend(self.ref_values(said));
            values.extend(self.known_value(said));
        }
        for value in &values {
            self.holders.remove(value);
        }
        let values: Vec<Value> = values.into_iter().collect();
        self.holders.extend(self.world.holders(&values).await?);
        Ok(())
    }

    fn outcomes(self, counted: &mut Counted) -> Vec<RowOutcome> {
        let rows = self.readings.into_iter().zip(self.told).map(|(reading, mut told)| {
            // A row speaks for its persons; one without any for its company.
            let in_review = told.person_in_review || (told.prospects.is_empty() && told.company_in_review);
            let outcome = match () {
                () if reading.refused => Outcome::Refused,
                () if in_review => Outcome::InReview,
                () => Outcome::of(told.change),
            };
            outcome.count(&mut counted.tally);
            told.prospects.sort_unstable();
            told.made.sort_unstable();
            let Reading { row, line, text, reasons, .. } = reading;
            let (company_id, company_change) = told.company.unzip();
            let (prospect_ids, prospect_changes) = told.prospects.into_iter().unzip();
            let told = RowOutcome {
                row,
                line,
                outcome,
                text,
                company_id,
                company_change,
                prospect_ids,
                prospect_changes,
                prospect_made_by_source: told.made.into_iter().map(|(_, made)| made).collect(),
                reasons,
            };
            for (id, is_prospect, change) in told.records() {
                counted.count(id, is_prospect, change);
            }
            told
        });
        rows.collect()
    }

    /// What keys a company, the domain first.
    fn company_values(&self, said: &CompanySaid) -> Vec<Value> {
        let domain = said.domain.iter().map(|found| ("domain", found.domain.as_str().to_owned()));
        let refs = said.external_refs.iter().map(|reference| ("company_ref", reference.key()));
        domain.chain(refs).map(|(kind, key)| self.world.value(kind, &ClaimKey::Plain(key))).collect()
    }

    fn ref_values(&self, said: &ProspectSaid) -> Vec<Value> {
        let refs = said.external_refs.iter();
        refs.map(|reference| self.world.value("prospect_ref", &ClaimKey::Personal(reference.key()))).collect()
    }

    fn email_value(&self, said: &ProspectSaid) -> Option<Value> {
        Some(self.world.value("email", &ClaimKey::Personal(said.email()?)))
    }

    fn known_value(&self, said: &ProspectSaid) -> Option<Value> {
        let known_as = KnownAs { company_id: said.company_id, email: said.email()? };
        Some(self.world.value(KnownAs::CLAIM, &ClaimKey::Personal(known_as.key())))
    }
}

fn erased_person() -> RowReason {
    let detail = "the row names a person who was erased; whether such persons are let in again is the tenant's rule";
    RowReason { field: Some("email".to_owned()), ..RowReason::new("erased_person", detail) }
}

/// Waits for commands; gives what became of them in the order in which they were begun. They end with the step, also where it is
/// given up.
async fn joined<T: Send + 'static>(mut commands: JoinSet<(usize, T)>) -> Result<Vec<T>, Trouble> {
    let mut done = Vec::with_capacity(commands.len());
    while let Some(command) = commands.join_next().await {
        done.push(command.map_err(|error| {
            tracing::error!(%error, "a command of an import broke");
            Trouble::Lasting("a command broke".to_owned())
        })?);
    }
    done.sort_unstable_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, command)| command).collect())
}

/// The name in its country, as companies are compared by it.
fn name_of(said: &CompanySaid) -> Option<String> {
    let name = said.profile.name.as_ref()?.as_ref()?;
    let country = said.profile.country.as_ref().and_then(Option::as_ref).map_or("", |country| country.as_str());
    let name = company_name::normalise(name.as_str());
    (!name.is_empty()).then(|| format!("{name}/{country}"))
}

/// A value as the report shows it: of a long text the beginning. All of it stands in the record and its history.
fn shortened(value: &serde_json::Value) -> serde_json::Value {
    match value.as_str().and_then(|text| text.char_indices().nth(SHOWN_MAX).map(|(end, _)| &text[..end])) {
        Some(beginning) => format!("{beginning}…").into(),
        None => value.clone(),
    }
}

/// Notes what a row's report says of its effect, as far as there is room for it.
fn tell(reasons: &mut Vec<RowReason>, effect: &RowEffect) {
    let room = REASONS_MAX.saturating_sub(reasons.len());
    for conflict in effect.conflicts.iter().take(room) {
        reasons.push(RowReason {
            field: Some(conflict.field.clone()),
            kept: Some(shortened(&conflict.kept)),
            lost: Some(shortened(&conflict.lost)),
            ..RowReason::new("conflict", "the row and the record disagree; the rule of the import has decided")
        });
    }
    let room = REASONS_MAX.saturating_sub(reasons.len());
    for field in effect.left_out.iter().take(room) {
        let reason = RowReason::new("no_room", "the record has no room for it, or it does not fit what is there");
        reasons.push(RowReason { field: Some(field.clone()), ..reason });
    }
    if reasons.len() == REASONS_MAX && effect.conflicts.len() + effect.left_out.len() > 0 {
        reasons.push(RowReason::new(
            "more_reasons",
            "there may be more to say of this row: the records and their history have all of it",
        ));
    }
}
