//! Backups can be restored to any moment that is archived, come out whole, and bring nobody back who was erased since; what is too old, not
//! archived, or damaged is told.

use std::path::{Path, PathBuf};

use http::{Method, StatusCode};
use local_stack::{Options, Part, Stack};
use serde_json::{Value, json};
use tests::{Client, Ran, TestStack, eventually, prospectus, ran};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Where the sequence of commands and times begins; any other must do too.
const SEED: u64 = 0x5EED_0014;

/// A reproducible sequence (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("small")
    }
}

async fn run(test: &TestStack, arguments: &[&str]) -> Ran {
    let mut command = prospectus(test, arguments);
    command
        .env("PROSPECTUS_BACKUP_DIR", test.directory().join("backups"))
        .env("PROSPECTUS_BACKUP_RECIPIENTS_FILE", test.directory().join("backup_recipients"))
        .env("PROSPECTUS_BACKUP_IDENTITY_FILE", test.directory().join("backup_identity"));
    ran(command).await
}

async fn back_up(test: &TestStack) -> Value {
    let made = run(test, &["backup", "--json"]).await;
    assert_eq!(made.code, 0, "{made:?}");
    made.json()["backup"].clone()
}

/// Has everything archived that is written.
async fn archive(test: &TestStack) {
    let primary = test.superuser(Part::Primary).await;
    // Without a change since the last switch there would be none.
    primary.batch_execute("SELECT pg_create_restore_point('a change')").await.expect("written");
    let row = primary.query_one("SELECT pg_walfile_name(pg_switch_wal())", &[]).await.expect("switched");
    let (name, wal) = (row.get::<_, String>(0), test.directory().join("backups/wal"));
    eventually("the last file is archived", async || {
        let mut files = std::fs::read_dir(&wal).expect("the archive").flatten();
        files.any(|file| file.file_name().to_string_lossy().starts_with(&format!("{name}-"))).then_some(())
    })
    .await;
}

/// A moment, and what was there.
struct Moment {
    at: OffsetDateTime,
    position: i64,
    /// Persons that are there and were erased at some time, then or later.
    persons: Vec<String>,
}

/// Random commands one after the other; after each it is noted what is there.
struct Life<'a> {
    test: &'a TestStack,
    client: Client,
    random: Random,
    alive: Vec<String>,
    erased: Vec<String>,
    moments: Vec<Moment>,
}

impl Life<'_> {
    async fn go_on(&mut self, commands: usize) {
        for _ in 0..commands {
            let answer = match self.random.below(4) {
                0 => self.sent("/v1/companies", &json!({"name": "A company"})).await,
                3 if self.alive.len() > 2 => {
                    let victim = self.alive.swap_remove(self.random.below(self.alive.len()));
                    let path = format!("/v1/prospects/{victim}/erase");
                    self.erased.push(victim);
                    self.sent(&path, &json!({"reason": "asked for"})).await
                }
                _ => {
                    let answer =
                        self.sent("/v1/prospects", &json!({"first_name": "Ada", "last_name": "Lovelace"})).await;
                    self.alive.push(answer.json["id"].as_str().expect("an id").to_owned());
                    answer
                }
            };
            let clock = self.test.superuser(Part::Primary).await;
            let row = clock.query_one("SELECT clock_timestamp()", &[]).await.expect("the time");
            let persons = self.alive.iter().chain(&self.erased).cloned().collect();
            self.moments.push(Moment { at: row.get(0), position: answer.position(), persons });
        }
    }

    async fn sent(&self, path: &str, body: &Value) -> tests::Answer {
        eventually("the command is taken", async || {
            let answer = self.client.try_command(Method::POST, path, &[], body.to_string()).await.ok()?;
            answer.status.is_success().then_some(answer)
        })
        .await
    }
}

/// Where another stack with the same keys can be started on a restored server.
fn another(test: &TestStack, number: usize) -> PathBuf {
    let directory =
        test.directory().with_file_name(format!("prospectus-restored-{number}-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir(&directory).expect("a directory");
    for file in ["secrets.json", "keyring", "seal_key"] {
        std::fs::copy(test.directory().join(file), directory.join(file)).expect("copied");
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(&directory, open).expect("PostgreSQL's user may enter");
    directory
}

async fn start(directory: &Path, postgres_only: bool) -> Stack {
    let options = Options { postgres_only, ..Options::throw_away(directory.to_owned()) };
    Stack::start(options).await.unwrap_or_else(|error| panic!("the restored stack does not start: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_any_time_is_whole_and_brings_nobody_back_who_was_erased() {
    let test = TestStack::start_with(|options| options.archive = true).await;
    let client = test.client();
    let (alive, erased, moments) = (Vec::new(), Vec::new(), Vec::new());
    let mut life = Life { test: &test, client: client.clone(), random: Random(SEED), alive, erased, moments };
    life.go_on(10).await;
    let heads = test.directory().join("heads.ndjson").display().to_string();
    eventually("the first events are sealed", async || {
        std::fs::read_to_string(&heads).ok().filter(|text| !text.is_empty())
    })
    .await;
    back_up(&test).await;
    let first = life.moments.len();
    life.go_on(25).await;
    // The write-ahead log goes on in another timeline.
    test.stack.promote(false).await.unwrap_or_else(|error| panic!("{error}"));
    life.go_on(25).await;
    back_up(&test).await;
    life.go_on(25).await;
    archive(&test).await;
    // After the last moment there must be a change, so it is not among them.
    let count = life.moments.len() - 1 - first;
    let list = test.directory().join("erasures-command_service.ndjson").display().to_string();
    for number in 1..=5 {
        let moment = &life.moments[first + life.random.below(count)];
        let to = moment.at.format(&Rfc3339).expect("a time");
        let directory = another(&test, number);
        let into = directory.join("postgres_primary").display().to_string();
        let arguments = ["restore", "--json", "--to", &to, "--erasures", &list, "--head", &heads, &into];
        let restored = run(&test, &arguments).await;
        assert_eq!(restored.code, 0, "to {to}: {restored:?}");
        let restored = restored.json();
        assert_eq!(restored["missing_wal"], Value::Null, "to {to}: {restored:#}");
        let checks = &restored["checks"];
        assert_eq!(
            (&checks["dense"], &checks["verdict"], &checks["differences"]),
            (&json!(true), &json!("intact"), &json!(0)),
            "{checks:#}"
        );
        assert_eq!(checks["last_position"], json!(moment.position), "to {to}: {checks:#}");
        assert_eq!(checks["first_position"], json!(moment.position + 1), "{checks:#}");

        let stack = start(&directory, number > 1).await;
        let url = stack.superuser_url(Part::Primary);
        let sql =
            service_kit::postgres::Database::parse(&url, "tests").expect("a URL").client().await.expect("it serves");
        let known = "SELECT count(*) FILTER (WHERE wrapped_key IS NOT NULL), count(*) FROM log.person_keys
                     WHERE person_id::text = ANY($1)";
        let gone: Vec<&String> = moment.persons.iter().filter(|person| life.erased.contains(person)).collect();
        let row = sql.query_one(known, &[&gone]).await.expect("the keys");
        assert_eq!(row.get::<_, i64>(0), 0, "persons who were erased at some time have their keys back");
        let there: Vec<&String> = moment.persons.iter().filter(|person| life.alive.contains(person)).collect();
        let row = sql.query_one(known, &[&there]).await.expect("the keys");
        let all = i64::try_from(there.len()).expect("few");
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (all, all), "nobody else is erased");
        if number == 1 {
            serves_again(&stack, &client, checks["epoch"].as_str().expect("an epoch")).await;
        }
        drop(sql);
        stack.shutdown().await;
        std::fs::remove_dir_all(&directory).expect("removed");
    }
    all_that_is_archived_is_restored_unless_a_check_fails(&test, &heads, &list).await;
    test.finish().await;
}

/// Without a time; and with a head from outside that is over something else.
async fn all_that_is_archived_is_restored_unless_a_check_fails(test: &TestStack, heads: &str, list: &str) {
    // Nothing is written or signed any more.
    test.stack.stop(Part::CommandService(1)).await.expect("it stops");
    archive(test).await;
    let log = test.superuser(Part::Primary).await;
    let last: i64 = log.query_one("SELECT position FROM log.head", &[]).await.expect("a head").get(0);
    let directory = another(test, 0);
    let (into, unchecked) = (directory.join("restored"), directory.join("restored.unchecked"));
    let to = into.display().to_string();
    let restored = run(test, &["restore", "--json", "--erasures", list, "--head", heads, &to]).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    let checks = &restored.json()["checks"];
    assert_eq!((&checks["verdict"], &checks["last_position"]), (&json!("intact"), &json!(last)), "{checks:#}");
    assert_eq!(checks["lost_tails"], json!([]), "{checks:#}");
    assert!(into.join("PG_VERSION").exists() && !unchecked.exists());
    std::fs::remove_dir_all(&into).expect("removed");

    let newest = std::fs::read_to_string(heads).expect("heads");
    let mut forged: Value = serde_json::from_str(newest.lines().last().expect("a head")).expect("JSON");
    forged["log_id"] = json!(uuid::Uuid::now_v7());
    let other = directory.join("other_heads.ndjson");
    std::fs::write(&other, format!("{forged}\n")).expect("written");
    let other = other.display().to_string();
    let wrong = run(test, &["restore", "--erasures", list, "--head", &other, &to]).await;
    assert!(wrong.code == 1 && wrong.stdout.contains("DO NOT SERVE FROM IT"), "{wrong:?}");
    assert!(wrong.stdout.contains(&unchecked.display().to_string()), "it says where it lies: {wrong:?}");
    assert!(
        !into.exists() && unchecked.join("PG_VERSION").exists(),
        "what is not well has not the name that is served from"
    );
    let again = run(test, &["restore", "--erasures", list, &to]).await;
    assert!(again.code == 1 && again.stderr.contains("from an earlier restore"), "{again:?}");
    std::fs::remove_dir_all(&directory).expect("removed");
}

/// The whole stack on a restored primary: its replica is made anew, commands go on in the new epoch, reads see them.
async fn serves_again(stack: &Stack, client: &Client, epoch: &str) {
    let client = client.to_stack(stack);
    let answer = client.command(Method::POST, "/v1/companies", &json!({"name": "After the restore"})).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let number = |name: &str| name.split('.').next().and_then(|number| number.parse::<i64>().ok());
    assert_eq!(number(answer.json["epoch"].as_str().expect("an epoch")), number(epoch), "{answer:?}");
    let read = client.read(&format!("/v1/companies/{}", answer.id()), Some(answer.position())).await;
    assert_eq!(read.status, StatusCode::OK, "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_old_primary_could_not_archive_the_promoted_one_does() {
    let test = TestStack::start_with(|options| options.archive = true).await;
    back_up(&test).await;
    let wal = test.directory().join("backups/wal");
    let mode =
        |mode| std::fs::set_permissions(&wal, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("a mode");
    mode(0o500);
    let answer = test.client().command(Method::POST, "/v1/companies", &json!({"name": "Not archived"})).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let primary = test.superuser(Part::Primary).await;
    let row = primary.query_one("SELECT pg_walfile_name(pg_switch_wal())", &[]).await.expect("switched");
    let name: String = row.get(0);
    drop(primary);
    test.stack.promote(false).await.unwrap_or_else(|error| panic!("{error}"));
    let archived = || {
        let mut files = std::fs::read_dir(&wal).expect("the archive").flatten();
        files.any(|file| file.file_name().to_string_lossy().starts_with(&format!("{name}-")))
    };
    assert!(!archived(), "the old primary has archived {name}");
    mode(0o700);
    archive(&test).await;
    eventually("the old primary's file is archived", async || archived().then_some(())).await;
    let into = test.directory().join("restored").display().to_string();
    let restored = run(&test, &["restore", "--json", "--no-erasures-list", &into]).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    assert_eq!(restored.json()["checks"]["last_position"], json!(answer.position()), "{restored:?}");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_not_archived_or_damaged_is_told() {
    let test = TestStack::start_with(|options| {
        options.archive = true;
        options.without =
            vec![Part::Nats, Part::CommandService(1), Part::Projector, Part::QueryService, Part::Replica(1)];
    })
    .await;
    let backups = test.directory().join("backups");
    let none = run(&test, &["backup", "status"]).await;
    assert!(none.code == 1 && none.stdout.contains("there is no good backup"), "{none:?}");
    let old = back_up(&test).await;
    let label = old["label"].as_str().expect("a label").to_owned();
    let good = run(&test, &["backup", "status"]).await;
    assert_eq!(good.code, 0, "{good:?}");
    let directory = backups.join("base").join(&label);
    let content = std::fs::read(directory.join("base.tar.gz.age")).expect("the backup");
    assert!(content.starts_with(b"age-encryption.org/v1"), "it is encrypted");

    // Too old: status says so, expiring does not remove the only one, and does once there is a newer one.
    let record = std::fs::read_to_string(directory.join("backup.json")).expect("its record");
    let mut aged: Value = serde_json::from_str(&record).expect("JSON");
    for member in ["started_at", "finished_at"] {
        aged[member] = json!("2020-01-31T12:00:00Z");
    }
    std::fs::write(directory.join("backup.json"), aged.to_string()).expect("written");
    let late = run(&test, &["backup", "status", "--max-age", "26"]).await;
    assert!(late.code == 1 && late.stdout.contains("h old, and 26 are allowed"), "{late:?}");
    assert_eq!(run(&test, &["backup", "status", "--max-age", "1000000"]).await.code, 0);
    let alone = run(&test, &["backup", "expire", "--keep-days", "30"]).await;
    assert!(alone.code == 1 && alone.stdout.contains("newest good one") && directory.exists(), "{alone:?}");
    archive(&test).await;
    let new = back_up(&test).await;
    let first = new["first_wal"].as_str().expect("a file").to_owned();
    let expired = run(&test, &["backup", "expire", "--json"]).await;
    assert_eq!((expired.code, &expired.json()["removed"]), (0, &json!([label])), "{expired:?}");
    assert!(!directory.exists());
    let names = || -> Vec<String> {
        let files = std::fs::read_dir(backups.join("wal")).expect("the archive").flatten();
        // What is being written now has a dot in front.
        let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.starts_with('.')).collect()
    };
    assert!(names().iter().any(|name| name.starts_with(&first)), "what the new one needs stays: {:?}", names());
    assert!(names().iter().all(|name| *name >= first), "what only the old one needed is gone: {:?}", names());

    // A moment after everything that is archived, another key, a file with one wrong byte: each says what is wrong and gives nothing.
    let restore = async |what: &str, arguments: &[&str]| {
        let into = test.directory().join(what).display().to_string();
        let all = [&["restore", "--no-erasures-list"], arguments, &[into.as_str()]].concat();
        let refused = run(&test, &all).await;
        assert_eq!(refused.code, 1, "{what}: {refused:?}");
        refused.stderr
    };
    archive(&test).await;
    let said = restore("beyond", &["--to", "2999-01-01"]).await;
    assert!(said.contains("no change from after that time"), "{said}");
    let before = restore("before", &["--to", "2019-01-01"]).await;
    assert!(before.contains("no good backup that was done by then"), "{before}");
    let other = test.directory().join("another_identity").display().to_string();
    let mut keygen = tokio::process::Command::new("age-keygen");
    keygen.args(["-o", &other]);
    assert_eq!(ran(keygen).await.code, 0);
    let said = restore("another_key", &["--identity", &other]).await;
    assert!(said.contains("cannot be decrypted"), "{said}");
    let path = backups.join("base").join(new["label"].as_str().expect("a label")).join("base.tar.gz.age");
    let whole = std::fs::read(&path).expect("the backup");
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&path, &damaged).expect("written");
    let said = restore("damaged", &[]).await;
    assert!(said.contains("age failed"), "{said}");
    std::fs::write(&path, &whole).expect("written");
    a_hole_is_refused(&test, &first).await;
    // The newest whole file, which every restore to the end reads.
    let newest = names().into_iter().filter(|name| name.as_bytes()[24] == b'-').max().expect("files");
    let missing = backups.join("wal").join(newest);
    std::fs::write(&missing, b"age-encryption.org/v1 no more").expect("written");
    let said = restore("damaged_wal", &[]).await;
    assert!(said.contains("PostgreSQL ended while it recovered") && said.contains("restore-wal"), "{said}");

    // The archive cannot be written: it is told, long before a disk is full.
    let wal = backups.join("wal");
    let mode =
        |mode| std::fs::set_permissions(&wal, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("a mode");
    mode(0o500);
    let primary = test.superuser(Part::Primary).await;
    primary.batch_execute("SELECT pg_create_restore_point('a change'), pg_switch_wal()").await.expect("switched");
    let said = eventually("the failure is told", async || {
        let status = run(&test, &["backup", "status"]).await;
        (status.code == 1).then_some(status.stdout)
    })
    .await;
    assert!(said.contains("fails to archive"), "{said}");
    mode(0o700);
    archive(&test).await;
    eventually("all is archived", async || (run(&test, &["backup", "status"]).await.code == 0).then_some(())).await;
    drop(primary);
    test.finish().await;
}

/// Without a file in the middle recovery would end before it, as if that were all.
async fn a_hole_is_refused(test: &TestStack, first: &str) {
    archive(test).await;
    archive(test).await;
    let (wal, aside) = (test.directory().join("backups/wal"), test.directory().join("aside"));
    let files = std::fs::read_dir(&wal).expect("the archive").flatten();
    let mut segments: Vec<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    segments.retain(|name| !name.starts_with('.') && name.as_bytes()[24] == b'-' && name.as_str() >= first);
    segments.sort();
    let gap = &segments[1];
    std::fs::rename(wal.join(gap), &aside).expect("away");
    let into = test.directory().join("with_a_hole").display().to_string();
    let refused = run(test, &["restore", "--no-erasures-list", &into]).await;
    assert!(refused.code == 1 && refused.stderr.contains(&format!("a hole: {} is not in", &gap[..24])), "{refused:?}");
    assert!(!Path::new(&format!("{into}.unchecked")).exists(), "nothing was begun");
    std::fs::rename(&aside, wal.join(gap)).expect("back");
}
