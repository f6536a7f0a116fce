//! What a command answers, for people or for programs.

use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

/// A command's answer.
#[derive(Debug)]
pub struct Output {
    /// For programs.
    pub json: Value,
    /// For people, with its line breaks.
    pub text: String,
    /// Whether all is well: exit code 0 or 1.
    pub well: bool,
}

impl Output {
    /// An answer when all is well.
    pub fn new(json: Value, text: String) -> Self {
        Self { json, text, well: true }
    }

    /// All is well, and what there was to say is printed already.
    pub fn printed() -> Self {
        Self::new(Value::Null, String::new())
    }

    /// Rows as a list of objects, or as a table.
    pub fn rows(columns: &[&str], rows: &[Vec<Value>]) -> Self {
        let object = |row: &Vec<Value>| -> Value {
            columns
                .iter()
                .map(|column| (*column).to_owned())
                .zip(row.iter().cloned())
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        Self::new(rows.iter().map(object).collect(), table(columns, rows))
    }

    /// Prints it and says how the process ends.
    pub fn print(&self, as_json: bool) -> ExitCode {
        let text = if as_json && !self.json.is_null() { format!("{}\n", self.json) } else { self.text.clone() };
        // Whoever reads may have gone away (`| head`); there is nobody left to tell.
        let _ = std::io::stdout().write_all(text.as_bytes());
        if self.well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Prints why a command failed, with its causes, and says how the process ends.
pub fn print_error(error: &anyhow::Error, as_json: bool) -> ExitCode {
    let message = describe(error);
    if as_json {
        let _ = writeln!(std::io::stdout(), "{}", json!({ "error": message }));
    } else {
        let _ = writeln!(std::io::stderr(), "prospectus: {message}");
    }
    ExitCode::FAILURE
}

/// An error and its causes in one line; what the server said instead of "db error".
pub fn describe(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let said = match cause.downcast_ref::<tokio_postgres::Error>().and_then(|error| error.as_db_error()) {
            Some(said) => said.message().to_owned(),
            None => cause.to_string(),
        };
        // Some errors repeat their cause.
        if !parts.iter().any(|part| part.contains(&said)) {
            parts.push(said);
        }
    }
    parts.join(": ")
}

/// Rows under their columns' names, in columns as wide as needed.
pub fn table(columns: &[&str], rows: &[Vec<Value>]) -> String {
    let mut lines = vec![columns.iter().map(|column| (*column).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| row.iter().map(cell).collect()));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
