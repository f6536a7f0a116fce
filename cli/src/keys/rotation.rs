//! `prospectus keys rewrap` and `retire`: another key-encryption key takes the place of the one before.

use event_store::Keyring;
use event_store::rewrap::{self, Wrapped};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use service_kit::config::KeyringArgs;

use crate::output::{Output, table};
use crate::primary::{self, Primary};

/// Where the keys are.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    keyring: KeyringArgs,
}

/// Wraps all keys by the first key of the key file.
///
/// # Errors
/// If a key cannot be unwrapped, the keys are another log's, or the database fails.
pub(super) async fn rewrap(args: &Args, primary: &Primary) -> anyhow::Result<Output> {
    let client = primary.connect_migrated().await?;
    let keyring = Keyring::parse(args.keyring.text()?.expose())?;
    // A new key is made known here, so that services that do not have it cannot start any more.
    keyring.verify(&client, true).await?;
    let old = |all: &[Wrapped]| -> i64 {
        let others = all.iter().filter(|one| one.wrapping_key_id != keyring.current_id());
        others.map(|one| one.persons + one.imports).sum()
    };
    let before = old(&rewrap::wrapped(&client).await?);
    let bar = ProgressBar::new(u64::try_from(before).unwrap_or(0));
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} keys, {per_sec}, {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    // No other rights than this work takes.
    client.batch_execute("SET ROLE prospectus_rewrapper").await?;
    let done = rewrap::rewrap(&client, &keyring, |keys| bar.inc(keys)).await;
    client.batch_execute("RESET ROLE").await?;
    bar.finish_and_clear();
    let done = done?;
    let after = rewrap::wrapped(&client).await?;
    let left = old(&after);
    let rows: Vec<Vec<Value>> = after
        .iter()
        .map(|one| {
            let state = if one.wrapping_key_id == keyring.current_id() {
                "current"
            } else if one.retired {
                "retired"
            } else {
                ""
            };
            vec![one.wrapping_key_id.clone().into(), one.persons.into(), one.imports.into(), state.into()]
        })
        .collect();
    let columns = ["key", "persons", "imports", "state"];
    let mut text = format!("{done} keys are wrapped anew by {}\n", keyring.current_id());
    text.push_str(&table(&columns, &rows));
    if left > 0 {
        text.push_str(
            "some service still wraps with another key: restart it with the new key file, and run this again\n",
        );
    }
    let keys: Value =
        rows.iter().map(|row| json!({"key": row[0], "persons": row[1], "imports": row[2], "state": row[3]})).collect();
    Ok(Output { well: left == 0, ..Output::new(json!({"rewrapped": done, "left": left, "keys": keys}), text) })
}

/// Retires a key that wraps nothing any more.
///
/// # Errors
/// If it is the current one, still wraps keys, or is not known.
pub(super) async fn retire(id: &str, args: &Args, primary: &Primary) -> anyhow::Result<Output> {
    let mut client = primary.connect_migrated().await?;
    let keyring = primary::keyring(&args.keyring, &client).await?;
    rewrap::retire(&mut client, &keyring, id).await?;
    Ok(Output::new(
        json!({"key": id, "retired": true}),
        format!("{id} is retired: key files may do without it. Keep it for as long as there are backups from before\n"),
    ))
}
