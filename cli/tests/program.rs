//! Runs the program.

use migrations::testing::TestDatabase;
use serde_json::Value;

/// What the program answered.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs `prospectus` on a database, with nothing of the test's environment that it would read.
pub async fn prospectus(database: &TestDatabase, arguments: &[&str]) -> Answer {
    let (url, arguments) = (database.url(), arguments.iter().map(ToString::to_string).collect::<Vec<_>>());
    tokio::task::spawn_blocking(move || run(Some(&url), &arguments)).await.expect("ran")
}

/// Runs `prospectus` with or without a primary.
pub fn run(primary_url: Option<&str>, arguments: &[String]) -> Answer {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_prospectus"));
    for variable in ["PROSPECTUS_PRIMARY_URL", "PROSPECTUS_REPLICA_URLS", "PROSPECTUS_NATS_URL"] {
        command.env_remove(variable);
    }
    if let Some(url) = primary_url {
        command.env("PROSPECTUS_PRIMARY_URL", url);
    }
    let output = command.args(arguments).output().expect("the program runs");
    Answer {
        code: output.status.code().expect("it ends by itself"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

#[test]
fn without_a_primary_it_says_what_to_set_and_never_shows_a_password() {
    let answer = run(None, &["tenants".to_owned(), "list".to_owned()]);
    assert_eq!(answer.code, 1);
    assert!(answer.stderr.contains("PROSPECTUS_PRIMARY_URL is not set"), "{answer:?}");

    let url = "postgres://postgres:hunter2@127.0.0.1:1/none";
    for arguments in [&["tenants", "list"][..], &["--help"], &["status", "--help"], &["tenants", "list", "--json"]] {
        let answer = run(Some(url), &arguments.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert!(!format!("{answer:?}").contains("hunter2"), "{answer:?}");
    }
}

#[test]
fn every_command_has_an_example_in_its_help() {
    for command in [
        "migrate",
        "rebuild",
        "rollback",
        "verify",
        "status",
        "tenants create",
        "tenants list",
        "keys create",
        "keys list",
        "keys revoke",
        "sql-roles grant",
        "sql-roles list",
        "sql-roles revoke",
        "keys rewrap",
        "keys retire",
        "tenants set",
        "erasures list",
        "erasures reapply",
        "log new-epoch",
        "projection skip",
        "projection skipped",
        "schema validate",
        "schema indexes",
        "backup",
        "backup status",
        "backup expire",
        "restore",
        "integrity",
        "domains explain",
        "import",
        "audit history",
        "audit verify",
        "audit prove",
        "audit check",
    ] {
        let arguments: Vec<String> = command.split(' ').chain(["--help"]).map(ToOwned::to_owned).collect();
        let help = run(None, &arguments);
        assert_eq!(help.code, 0);
        assert!(help.stdout.contains(&format!("prospectus {command}")), "{}", help.stdout);
        assert!(help.stdout.contains("Example:"), "{}", help.stdout);
    }
}
