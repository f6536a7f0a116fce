//! A customer list as people really have it: one line per person with the company repeated in it, written by many hands.
//!
//! Every line follows from the seed and its number alone, so a list of any length can be streamed, cut and made again. Companies and
//! persons follow from their numbers in the same way; a line says of them what was so at the line's own time. Nothing goes back to what
//! it was before, and whoever has an address has it on every line: so what a list comes to does not depend on the order of its lines,
//! which is what lets parts of it be imported at the same time.

mod words;

use std::fmt::Write as _;

use words::{
    CITIES, COUNTRIES, FIRST_NAMES, INDUSTRIES, LEGAL_FORMS, MISTYPED, NOTES, PRIVATE, SHARED, TITLES, ascii,
    capitalised, time_of, word,
};

/// Which column becomes which field.
pub const MAPPING: &str = r#"updated_at = { column = "Updated At" }

[columns]
"First Name" = "prospect.first_name"
"Last Name" = "prospect.last_name"
"Email" = "prospect.email"
"Phone" = "prospect.phone"
"Title" = "prospect.job_title"
"Company" = "company.name"
"Website" = "company.website"
"Industry" = "company.industry"
"Employees" = "company.employee_count"
"Revenue" = { to = "company.revenue", lenient = true }
"Country" = ["company.country", "prospect.country"]
"City" = "company.city"
"Notes" = "prospect.attributes.notes"

[ids]
prospect = "{Customer ID}"
"#;

/// The names of the columns, with the line's end.
pub const HEADER: &str = "Customer ID,First Name,Last Name,Email,Phone,Title,Company,Website,Industry,Employees,Revenue,Country,City,Updated At,Notes\r\n";

/// When the first line may have been written, in seconds since 1970, and the seconds until the last.
const TIME_FIRST: u64 = 1_600_000_000;
const TIME_SPAN: u64 = 100_000_000;

/// A list.
#[derive(Debug, Clone, Copy)]
pub struct Messy {
    seed: u64,
    lines: u64,
}

/// A company, at one time.
struct Company {
    name: String,
    domain: String,
    /// Of its website.
    host: String,
    industry: &'static str,
    employees: u64,
    revenue: u64,
    country: &'static [&'static str; 4],
    city: &'static str,
    /// Whether it is always as it is now.
    stable: bool,
    /// Whether every line that names it says its name and country.
    spelled_out: bool,
}

/// How a person can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An address at its company.
    Mail,
    /// The same, and on some lines an id.
    MailAndId,
    /// An id.
    Id,
    /// An id; it goes to another company one day, and has an address there.
    Mover,
    /// An address that says nothing; the website tells the company.
    PrivateMail,
    /// An address that says nothing, and no more.
    OnlyPrivateMail,
    /// The same, and a page that is not the company's own.
    SharedPage,
    /// A mail host that is mistyped.
    Mistyped,
    /// The same, with a website.
    MistypedAtCompany,
    /// A name at a company.
    Name,
    /// A name and a company's name.
    NameOnly,
}

/// The cells of a line, in the order of the columns.
#[derive(Default)]
struct Cells {
    id: String,
    first_name: String,
    last_name: String,
    email: String,
    phone: String,
    title: String,
    company: String,
    website: String,
    industry: String,
    employees: String,
    revenue: String,
    country: String,
    city: String,
    updated_at: String,
    notes: String,
    /// More cells than there are columns.
    beyond: &'static str,
}

impl Messy {
    /// A list of so many lines, which tell of about 0.15 companies and 0.55 persons each. Lists of different seeds, below 1,000, have
    /// no company in common.
    pub fn new(seed: u64, lines: u64) -> Self {
        Self { seed, lines }
    }

    /// All lines, without the header.
    pub fn lines(self) -> impl Iterator<Item = String> {
        (1..=self.lines).map(move |number| self.line(number))
    }

    /// A line with its end; the first is number 1. Line breaks in quotes make it several lines of text, and some lines are blank.
    pub fn line(&self, number: u64) -> String {
        let at = TIME_FIRST + self.draw("time", number) % TIME_SPAN;
        let person = self.draw("person of line", number) % (self.lines * 3 / 4).max(1);
        let mut cells = self.cells(number, person, at);
        match self.draw("badness", number) % 1000 {
            0..6 => cells.beyond = ",one,cell,too,many",
            6..12 => {
                let bad = ["no address", "ada@", "@nobody.example", "a b@c d.com"][self.pick("bad", number, 4)];
                bad.clone_into(&mut cells.email);
            }
            12..16 => "a few".clone_into(&mut cells.employees),
            16..19 => "last Tuesday".clone_into(&mut cells.updated_at),
            19..24 => return ["\r\n", "   \r\n", "\n"][self.pick("blank", number, 3)].to_owned(),
            24..28 => return ",,,,,,,,,,,,,,\r\n".to_owned(),
            28..48 => cells = self.of_company(person, at),
            48..52 => cells = Cells { title: "Buyer".to_owned(), ..self.of_company(person, at) },
            52..56 => cells = Cells { company: cells.company, ..Cells::default() },
            _ => {}
        }
        cells.line(["\r\n", "\n"][self.pick("line end", number, 2)])
    }

    /// What a line says of a person and its company.
    fn cells(&self, number: u64, person: u64, at: u64) -> Cells {
        let kind = self.kind(person);
        let changed = at >= self.moment("person", person);
        let of = if kind == Kind::Mover && changed { self.company_of(person ^ 1) } else { self.company_of(person) };
        let company = self.company(of, at);
        let renamed = self.chance("title", person, 30);
        let recased = self.chance("case", person, 30);
        let stable = !renamed && !recased && kind != Kind::Mover && company.stable;
        let says = |what, percent| self.chance(what, number, percent);
        let mut cells = Cells::default();
        let nickname = FIRST_NAMES[self.pick("first name", person, FIRST_NAMES.len())];
        let family = capitalised(&word(person * 1000 + self.seed));
        let named = matches!(kind, Kind::Name | Kind::NameOnly | Kind::Id | Kind::Mover);
        if named || says("first", 95) {
            cells.first_name = format!("{}{nickname}", if says("space", 5) { "  " } else { "" });
        }
        if named || says("last", 95) {
            cells.last_name.clone_from(&family);
        }
        let mut local = format!("{}.{family}{}", ascii(nickname), ["", "+crm", "_1"][self.pick("local", person, 3)]);
        if !recased || changed {
            local = local.to_lowercase();
        }
        let host = match kind {
            Kind::Mail | Kind::MailAndId | Kind::Mover => {
                let below = ["", "", "", "", "mail.", "eu.sales."][self.pick("sub-domain", person, 6)];
                format!("{below}{}", self.spelled(&company.domain, number))
            }
            Kind::PrivateMail | Kind::OnlyPrivateMail | Kind::SharedPage => {
                PRIVATE[self.pick("private", person, PRIVATE.len())].to_owned()
            }
            Kind::Mistyped | Kind::MistypedAtCompany => {
                MISTYPED[self.pick("mistyped", person, MISTYPED.len())].to_owned()
            }
            Kind::Id | Kind::Name | Kind::NameOnly => String::new(),
        };
        if !host.is_empty() {
            cells.email = format!("{local}@{}", if says("loud host", 20) { host.to_uppercase() } else { host });
        }
        if matches!(kind, Kind::Id | Kind::Mover) || (kind == Kind::MailAndId && says("id", 50)) {
            cells.id = format!("C-{person}");
        }
        cells.website = match kind {
            Kind::Id | Kind::PrivateMail | Kind::MistypedAtCompany | Kind::Name => self.website(&company, number),
            Kind::SharedPage => SHARED[self.pick("shared", person, SHARED.len())].to_owned(),
            Kind::Mail | Kind::MailAndId | Kind::Mover if says("website", 50) => self.website(&company, number),
            Kind::OnlyPrivateMail | Kind::Mistyped | Kind::NameOnly | Kind::Mail | Kind::MailAndId | Kind::Mover => {
                String::new()
            }
        };
        if says("phone", 70) {
            let rest = 100_000 + self.draw("phone", person) % 900_000;
            let (head, tail) = (rest / 1000, rest % 1000);
            cells.phone = match (self.chance("odd phone", person, 5), self.pick("phone form", number, 4)) {
                (true, _) => format!("{rest} or ask for {nickname}"),
                (false, 0) => format!("+4930{rest}"),
                (false, 1) => format!("+49 30 {head} {tail:03}"),
                (false, 2) => format!("+49 (30) {head}-{tail:03}"),
                (false, _) => format!(" +49-30-{head}{tail:03} "),
            };
        }
        if says("title said", 80) {
            let title = self.pick("which title", person, TITLES.len());
            TITLES[if renamed && changed { (title + 1) % TITLES.len() } else { title }].clone_into(&mut cells.title);
        }
        if self.chance("note", person, 10) && says("note said", 80) {
            NOTES[self.pick("which note", person, NOTES.len())].clone_into(&mut cells.notes);
        }
        self.say_of_company(&mut cells, &company, number);
        cells.updated_at =
            if stable && says("no time", 10) { String::new() } else { time_of(at, self.pick("time form", number, 5)) };
        cells
    }

    /// A line that speaks of a company only.
    fn of_company(&self, person: u64, at: u64) -> Cells {
        let company = self.company(self.company_of(person), at);
        let number = self.draw("company line", person) ^ at;
        let mut alone =
            Cells { updated_at: time_of(at, 0), website: self.website(&company, number), ..Cells::default() };
        self.say_of_company(&mut alone, &company, number);
        alone
    }

    fn say_of_company(&self, cells: &mut Cells, company: &Company, number: u64) {
        let says = |what, percent| company.spelled_out || self.chance(what, number, percent);
        if says("company name", 90) || cells.email.is_empty() {
            cells.company.clone_from(&company.name);
        }
        if says("country", 80) {
            company.country[self.pick("country form", number, 4)].clone_into(&mut cells.country);
        }
        if says("industry", 80) {
            company.industry.clone_into(&mut cells.industry);
        }
        if says("city", 80) {
            company.city.clone_into(&mut cells.city);
        }
        if says("employees", 70) {
            let (thousands, rest) = (company.employees / 1000, company.employees % 1000);
            cells.employees = match self.pick("employees form", number, 3) {
                0 if thousands > 0 => format!("{thousands},{rest:03}"),
                1 => format!("{}.0", company.employees),
                _ => company.employees.to_string(),
            };
        }
        if says("revenue", 50) {
            cells.revenue =
                if self.chance("no revenue", number, 5) { "n/a".to_owned() } else { format!("${}", company.revenue) };
        }
    }

    /// A few companies are in many lines, most in a few.
    fn company_of(&self, person: u64) -> u64 {
        let companies = u128::from((self.lines * 3 / 20).max(1));
        let share = u128::from(self.draw("company of person", person) >> 32);
        u64::try_from((companies * share * share) >> 64).expect("less than the companies")
    }

    fn company(&self, company: u64, at: u64) -> Company {
        // Some have a twin of another domain: the same name in the same country, but for the legal form.
        let twins = self.chance("twins", company / 2, 1);
        let named_as = if twins { company & !1 } else { company };
        let own = word(company * 1000 + self.seed);
        let domain = match self.draw("suffix", company) % 100 {
            0..50 => format!("{own}-works.com"),
            50..65 => format!("{own}-werke.de"),
            65..80 => format!("{own}-works.co.uk"),
            80..86 => format!("{own}-works.com.au"),
            86..96 => format!("{own}-brücken.de"),
            _ => format!("{own}-works.uk.com"),
        };
        let changed = at >= self.moment("company", company);
        let renamed = !twins && self.chance("renamed", company, 25);
        let moved = self.chance("industry changes", company, 20);
        let grown = self.chance("employees change", company, 40);
        let form =
            if twins && company == named_as { 0 } else { 1 + self.pick("legal form", company, LEGAL_FORMS.len() - 1) };
        let word = capitalised(&word(named_as * 1000 + self.seed));
        let name = if renamed && changed {
            format!("{word} Group {}", LEGAL_FORMS[form])
        } else {
            let space = ["  ", " "][usize::from(self.chance("spaces", company, 90))];
            format!("{word} Works{space}{}", LEGAL_FORMS[form])
        };
        let industry = self.pick("industry", company, INDUSTRIES.len());
        let employees = 1 + self.draw("employees", company) % 5_000;
        Company {
            name,
            host: match self.pick("host", company, 5) {
                0 => format!("shop.{domain}"),
                1 => domain.clone(),
                _ => format!("www.{domain}"),
            },
            domain,
            industry: INDUSTRIES[if moved && changed { (industry + 1) % INDUSTRIES.len() } else { industry }],
            employees: if grown && changed { employees * 2 } else { employees },
            revenue: 1000 * (1 + self.draw("revenue", company) % 1_000_000),
            country: &COUNTRIES[self.pick("country", named_as, COUNTRIES.len())],
            city: CITIES[self.pick("city", company, CITIES.len())],
            stable: !renamed && !moved && !grown,
            spelled_out: twins,
        }
    }

    fn website(&self, company: &Company, number: u64) -> String {
        let host = self.spelled(&company.host, number);
        match self.pick("website form", number, 4) {
            0 => host,
            1 => format!("https://{host}/"),
            2 => format!("HTTP://{}:8080/en/index.html?from=list", host.to_uppercase()),
            _ => format!(" https://{host}/contact#us"),
        }
    }

    /// An internationalised host is written in both ways.
    fn spelled(&self, host: &str, number: u64) -> String {
        if host.is_ascii() || self.chance("host as people read it", number, 50) {
            return host.to_owned();
        }
        idna::domain_to_ascii(host).expect("hosts are good")
    }

    fn kind(&self, person: u64) -> Kind {
        match self.draw("kind", person) % 100 {
            0..45 => Kind::Mail,
            45..65 => Kind::MailAndId,
            65..72 => Kind::Id,
            72..77 => Kind::Mover,
            77..84 => Kind::PrivateMail,
            84..89 => Kind::OnlyPrivateMail,
            89..91 => Kind::SharedPage,
            91..92 => Kind::Mistyped,
            92..94 => Kind::MistypedAtCompany,
            94..98 => Kind::Name,
            _ => Kind::NameOnly,
        }
    }

    /// When something changes for good.
    fn moment(&self, what: &'static str, number: u64) -> u64 {
        TIME_FIRST + self.draw(what, number).rotate_left(17) % TIME_SPAN
    }

    fn chance(&self, what: &'static str, number: u64, percent: u64) -> bool {
        self.draw(what, number) % 100 < percent
    }

    fn pick(&self, what: &'static str, number: u64, among: usize) -> usize {
        usize::try_from(self.draw(what, number) % among as u64).expect("less than a length")
    }

    /// A number that looks random and is always the same: `SplitMix64` over what is asked.
    fn draw(&self, what: &'static str, number: u64) -> u64 {
        let mixed = |mut z: u64| {
            z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let what = what.bytes().fold(self.seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        mixed(mixed(what) ^ number)
    }
}

impl Cells {
    fn line(&self, end: &str) -> String {
        let cells = [
            &self.id,
            &self.first_name,
            &self.last_name,
            &self.email,
            &self.phone,
            &self.title,
            &self.company,
            &self.website,
            &self.industry,
            &self.employees,
            &self.revenue,
            &self.country,
            &self.city,
            &self.updated_at,
            &self.notes,
        ];
        let mut line = String::with_capacity(200);
        for (place, cell) in cells.into_iter().enumerate() {
            if place > 0 {
                line.push(',');
            }
            if cell.contains(['"', ',', '\n']) {
                write!(line, "\"{}\"", cell.replace('"', "\"\"")).expect("a String takes everything");
            } else {
                line.push_str(cell);
            }
        }
        line + self.beyond + end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_follows_from_seed_and_number() {
        let list = Messy::new(7, 1_000);
        let all: Vec<String> = list.lines().collect();
        assert_eq!(all.len(), 1_000);
        assert_eq!(list.line(500), all[499]);
        assert_ne!(Messy::new(8, 1_000).line(500), all[499]);
        let words: std::collections::HashSet<String> = (0..200_000).map(word).collect();
        assert_eq!(words.len(), 200_000);
        assert_eq!(time_of(1_600_000_000, 4), "2020-09-13T14:26:40+02:00");
    }
}
