//! `prospectus domains`.

use std::fmt::Write;

use domain::value::company_domain;

use crate::output::Output;

/// Domains of companies. Works without a server.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  prospectus domains explain ada@sales.acme.co.uk")]
pub enum Command {
    /// Shows step by step which company's domain an e-mail address, a URL or a host leads to. Exit code 1 if to none.
    #[command(
        after_help = "Example:\n  prospectus domains explain ada@sales.acme.co.uk\n  prospectus domains explain https://github.com/acme --json"
    )]
    Explain {
        /// An e-mail address, a URL or a host.
        input: String,
    },
}

/// Runs the command.
pub fn run(command: &Command) -> Output {
    match command {
        Command::Explain { input } => explain(input),
    }
}

fn explain(input: &str) -> Output {
    let explained = company_domain::explain(input);
    let width = explained.steps.iter().map(|(step, _)| step.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (step, result) in &explained.steps {
        let _ = writeln!(text, "{step:<width$}  {result}");
    }
    let _ = match &explained.outcome {
        Ok(domain) => writeln!(text, "\nleads to the company domain {domain}"),
        Err(invalid) => writeln!(text, "\nleads to no company's domain: {} ({})", invalid.detail, invalid.code),
    };
    Output { json: explained.to_json(input), text, well: explained.outcome.is_ok() }
}
