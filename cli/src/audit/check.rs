//! `prospectus audit check`: a proof, without the database.

use std::path::PathBuf;

use anyhow::Context;
use event_store::proof::document::ProofError;
use event_store::proof::{Proof, PublicKey, SignedHead};
use serde_json::json;

use super::kept;
use crate::output::Output;

/// Checks a proof, without the database. Exit code 1 if it does not prove its event.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  prospectus audit check proof.json --head head.json\n  prospectus audit check proof.json --key 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
)]
pub struct Args {
    /// What `prospectus audit prove` printed.
    proof: PathBuf,
    /// A head that was kept, or a file of them: one is of the proof's size.
    #[arg(long, required_unless_present = "key")]
    head: Option<PathBuf>,
    /// A public key in base64 that must have signed the head.
    #[arg(long)]
    key: Option<PublicKey>,
}

/// Runs the command.
///
/// # Errors
/// If a file cannot be read.
pub fn run(args: &Args) -> anyhow::Result<Output> {
    let proof: Proof = serde_json::from_str(&kept::text(&args.proof)?)
        .with_context(|| format!("{} is no proof that `prospectus audit prove` printed", args.proof.display()))?;
    let said = &proof.head;
    // The very one, else one of its size, else the largest.
    let rank =
        |head: &SignedHead| Some((head == said, head.head.tree_size == said.head.tree_size, head.head.tree_size));
    let kept = args.head.as_deref().map(|file| kept::best(file, rank)).transpose()?.flatten();
    Ok(output(&proof, proof.check(kept.as_ref(), args.key.as_ref())))
}

fn output(proof: &Proof, checked: Result<(), ProofError>) -> Output {
    let (event, head) = (&proof.event, &proof.head.head);
    let mut json = json!({
        "proven": checked.is_ok(), "position": event.position, "event_id": event.event_id, "log_id": head.log_id,
        "tree_size": head.tree_size, "key_id": proof.head.key_id,
    });
    match checked {
        Ok(()) => Output::new(
            json,
            format!(
                "proven: {} {} at position {} is in log {}, among the {} events that key {} has signed\n",
                event.event_type, event.event_id, event.position, head.log_id, head.tree_size, proof.head.key_id
            ),
        ),
        Err(error) => {
            json["reason"] = error.to_string().into();
            Output { json, text: format!("NOT PROVEN: {error}\n"), well: false }
        }
    }
}
