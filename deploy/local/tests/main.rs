//! The local stack keeps what it promises: to operators at the terminal, and to the tests that build on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use local_stack::{Behind, Options, Part, Stack, StackError};

/// How long a test waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of a test's own, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("prospectus-stack-test-{}", uuid::Uuid::new_v4().simple())))
    }

    async fn start(&self) -> Stack {
        Stack::start(Options::throw_away(self.0.clone())).await.unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // If it cannot be removed it stays behind in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "it did not come: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn pids(directory: &Path) -> serde_json::Map<String, serde_json::Value> {
    let text =
        std::fs::read_to_string(directory.join("pids.json")).expect("it is replaced by rename, never half there");
    serde_json::from_str(&text).expect("JSON")
}

fn lives(pid: u64) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

async fn superuser(stack: &Stack, part: Part) -> tokio_postgres::Client {
    let database =
        service_kit::postgres::Database::parse(&stack.superuser_url(part), "stack tests").expect("a good URL");
    database.client().await.expect("the server answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_is_started_again_and_everything_ends_in_order() {
    let directory = Directory::new();
    let stack = directory.start().await;
    let parts =
        [Part::QueryService, Part::Projector, Part::CommandService(1), Part::Nats, Part::Replica(1), Part::Primary];
    for part in parts {
        let before = stack.pid(part).expect("it runs");
        assert_eq!(pids(&directory.0)[&part.name()], before);
        stack.kill(part);
        let after = eventually("a new process", || stack.pid(part).filter(|pid| *pid != before)).await;
        eventually("pids.json tells of it", || (pids(&directory.0)[&part.name()] == after).then_some(())).await;
        stack.ready(part).await.unwrap_or_else(|error| panic!("{error}"));
    }
    let running: Vec<u64> = pids(&directory.0).values().filter_map(serde_json::Value::as_u64).collect();
    assert_eq!(running.len(), parts.len());
    assert!(running.iter().all(|pid| lives(*pid)));
    let log = stack.log(Part::Primary);
    stack.shutdown().await;
    assert!(running.iter().all(|pid| !lives(*pid)), "none is left behind");
    let log = std::fs::read_to_string(log).expect("the primary's log");
    assert!(log.trim_end().ends_with("database system is shut down"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_keeps_data_and_key() {
    let directory = Directory::new();
    let stack = directory.start().await;
    let key = stack.api_key().to_owned();
    let environment = stack.write_environment().unwrap_or_else(|error| panic!("{error}"));
    let sourced =
        Command::new("sh").args(["-c", ". \"$0\" && printf %s \"$PROSPECTUS_PRIMARY_URL\""]).arg(&environment).output();
    assert_eq!(sourced.expect("a shell").stdout, stack.superuser_url(Part::Primary).as_bytes());
    let mode = std::os::unix::fs::PermissionsExt::mode(&environment.metadata().expect("it is there").permissions());
    assert_eq!(mode & 0o777, 0o600, "for its owner only");
    let primary = superuser(&stack, Part::Primary).await;
    primary.batch_execute("CREATE TABLE kept (what text); INSERT INTO kept VALUES ('this')").await.expect("a table");
    let second = Stack::start(Options::throw_away(directory.0.clone())).await;
    assert!(matches!(second, Err(StackError::InUse(_))), "one supervisor in a directory");
    stack.shutdown().await;
    let stack = directory.start().await;
    assert_eq!(stack.api_key(), key);
    let primary = superuser(&stack, Part::Primary).await;
    let kept: String = primary.query_one("SELECT what FROM kept", &[]).await.expect("a row").get(0);
    assert_eq!(kept, "this");
    for setting in ["fsync", "synchronous_commit", "full_page_writes", "data_checksums"] {
        let on: String = primary.query_one(&format!("SHOW {setting}"), &[]).await.expect(setting).get(0);
        assert_eq!(on, "on", "{setting}");
    }
    let replica = superuser(&stack, Part::Replica(1)).await;
    let recovering: bool = replica.query_one("SELECT pg_is_in_recovery()", &[]).await.expect("an answer").get(0);
    assert!(recovering, "a real standby");
    let slots: i64 =
        primary.query_one("SELECT count(*) FROM pg_replication_slots WHERE active", &[]).await.expect("counted").get(0);
    assert_eq!(slots, 1);
    stack.shutdown().await;
}

fn exec(arguments: &[&str], script: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_local-stack"));
    command.arg("exec").args(arguments).args(["--", "sh", "-c", script]).output().expect("local-stack runs")
}

#[test]
fn exec_gives_the_variables_and_the_commands_own_exit_code_and_cleans_up() {
    let output = exec(
        &["--only", "postgres"],
        "test -n \"$PROSPECTUS_PRIMARY_URL\" -a -z \"$PROSPECTUS_QUERY_URL\" || exit 1
         test \"$(stat -c %a \"$PROSPECTUS_KEYRING_FILE\")\" = 600 || exit 2
         echo \"$PROSPECTUS_DATA_DIR\"; exit 7",
    );
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(7), "{told} {}", String::from_utf8_lossy(&output.stderr));
    let directory = PathBuf::from(told.lines().last().expect("it printed its directory"));
    assert!(directory.is_absolute() && !directory.exists(), "{} is gone", directory.display());
}

#[test]
fn orders_hold_a_part_off_and_bring_it_back() {
    let stack = env!("CARGO_BIN_EXE_local-stack");
    let script = format!(
        "running() {{ grep -c \"\\\"$1\\\"\" \"$PROSPECTUS_DATA_DIR/pids.json\"; }}
         {stack} stop projector || exit 1
         test \"$(running projector)\" = 0 || exit 2
         {stack} start projector || exit 3
         test \"$(running projector)\" = 1 || exit 4
         {stack} wipe nats || exit 5
         {stack} stop relay && {stack} start relay || exit 6
         {stack} stop zookeeper 2>&1 | grep -q 'there is no part' || exit 7"
    );
    let output = exec(&[], &script);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    // Without a stack an order says what to do.
    let alone = Command::new(stack)
        .args(["stop", "projector"])
        .env("PROSPECTUS_DATA_DIR", "/nonexistent")
        .output()
        .expect("local-stack runs");
    assert!(!alone.status.success());
    assert!(String::from_utf8_lossy(&alone.stderr).contains("start one with `local-stack up`"));
}

/// Two replicas and no services: what a promotion does to servers.
async fn servers(directory: &Directory) -> Stack {
    let without = vec![Part::Nats, Part::CommandService(1), Part::Projector, Part::QueryService];
    let options = Options { replicas: 2, synchronous: true, without, ..Options::throw_away(directory.0.clone()) };
    Stack::start(options).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn takes_writes(stack: &Stack, part: Part) -> bool {
    let row = superuser(stack, part).await.query_one("SELECT NOT pg_is_in_recovery()", &[]).await;
    row.expect("an answer").get(0)
}

async fn only_the_primary_takes_writes(stack: &Stack) {
    for (part, expected) in [(Part::Primary, true), (Part::Replica(1), false), (Part::Replica(2), false)] {
        assert_eq!(takes_writes(stack, part).await, expected, "{part}");
    }
}

/// Writes through whichever server takes writes, waiting for a standby; gives how many rows there are.
async fn write(stack: &Stack) -> i64 {
    let anywhere = service_kit::postgres::Database::parse(&stack.servers_url(), "stack tests").expect("a good URL");
    let client = anywhere.client().await.expect("a server takes writes");
    client
        .batch_execute("CREATE TABLE IF NOT EXISTS kept (at timestamptz); INSERT INTO kept VALUES (now())")
        .await
        .expect("written");
    client.query_one("SELECT count(*) FROM kept", &[]).await.expect("counted").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_needs_every_standby_or_the_word_that_loss_is_accepted_and_fences_the_old_primary() {
    let directory = Directory::new();
    let stack = servers(&directory).await;
    assert_eq!(write(&stack).await, 1);
    // One is away: it may have what was acknowledged. Nothing is touched.
    stack.stop(Part::Replica(2)).await.expect("it stops");
    let before = stack.pid(Part::Primary);
    let refused = stack.promote(false).await.expect_err("too few answer").to_string();
    assert!(refused.contains("1 of 2 replicas answer (postgres_replica_2: "), "{refused}");
    assert!(refused.contains("--accept-loss"), "{refused}");
    assert_eq!(stack.pid(Part::Primary), before);
    assert_eq!(write(&stack).await, 2);

    let replica = stack.pid(Part::Replica(1)).expect("it runs");
    // Somebody who only looks at the old primary's files is not of it, and survives the fence.
    let mut bystander = tokio::process::Command::new("sleep");
    bystander.arg("600").current_dir(directory.0.join("postgres_primary")).kill_on_drop(true);
    let mut bystander = bystander.spawn().expect("a bystander");
    let promotion = stack.promote(true).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(bystander.try_wait().expect("a bystander").is_none(), "it was killed");
    drop(bystander);
    assert!(promotion.is_whole(), "{promotion}");
    assert_eq!(promotion.server, "postgres_replica");
    let behind =
        |server: &str| promotion.others.iter().find(|(name, _)| name == server).map(|(_, behind)| behind.clone());
    assert!(matches!(behind("postgres_replica_2"), Some(Behind::LeftOut(_))), "{promotion}");
    assert_eq!(behind("postgres_primary"), Some(Behind::Rewound), "{promotion}");
    // pids.json tells by job: the promoted server's process is the primary's, and it is the same process.
    assert_eq!(pids(&directory.0)["postgres_primary"], replica);
    assert_eq!(stack.pid(Part::Primary), Some(replica));
    assert!(!pids(&directory.0).contains_key("postgres_replica_2"));
    stack.start_part(Part::Replica(2)).await.expect("the one that was left out comes back");
    assert_eq!(write(&stack).await, 3);
    only_the_primary_takes_writes(&stack).await;

    // Whoever starts the fenced one again gets a replica: the supervisor after a crash, and the next start of the stack.
    let old = stack.pid(Part::Replica(1)).expect("the old primary runs");
    stack.kill(Part::Replica(1));
    eventually("a new process", || stack.pid(Part::Replica(1)).filter(|pid| *pid != old)).await;
    stack.ready(Part::Replica(1)).await.unwrap_or_else(|error| panic!("{error}"));
    only_the_primary_takes_writes(&stack).await;
    stack.shutdown().await;
    let stack = servers(&directory).await;
    only_the_primary_takes_writes(&stack).await;
    assert_eq!(write(&stack).await, 4);
    assert!(directory.0.join("postgres_primary/standby.signal").exists());
    assert!(!directory.0.join("postgres_replica/standby.signal").exists());

    // Killed with its processes, the primary is no longer asked, and nobody of it is left when another is promoted.
    let dead = stack.pid(Part::Primary);
    stack.kill(Part::Primary);
    let promotion = stack.promote(false).await.unwrap_or_else(|error| panic!("{error}"));
    assert_ne!(promotion.server, "postgres_replica");
    assert!(!pids(&directory.0).values().any(|pid| pid.as_u64() == dead.map(u64::from)));
    only_the_primary_takes_writes(&stack).await;
    assert_eq!(write(&stack).await, 5);
    stack.shutdown().await;
}

#[test]
fn the_order_promote_is_obeyed_and_says_what_it_did() {
    let stack = env!("CARGO_BIN_EXE_local-stack");
    let script = format!("{stack} promote && {stack} promote");
    let without = "nats,command-service,projector,query-service";
    let output = exec(&["--without", without], &script);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said} {}", String::from_utf8_lossy(&output.stderr));
    assert!(
        said.contains("the primary is postgres_replica\n") && said.contains("the primary is postgres_primary\n"),
        "{said}"
    );
    assert!(said.contains("postgres_primary was rewound and follows it"), "{said}");
    let output = exec(&["--synchronous", "--replicas", "1"], "true");
    assert!(String::from_utf8_lossy(&output.stderr).contains("two replicas"), "{output:?}");
}
