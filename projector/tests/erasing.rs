//! Erasures in the read tables: rows are cleared, a rebuild gives the same ones, older generations are cleared too, and a comparison at
//! a checkpoint before the erasure does not ask for what nobody can know any more.

use std::time::Duration;

use domain::ProspectCommand;
use domain::prospect::EraseProspect;
use migrations::COMPANY_PROSPECT;
use projector::projection::StepError;
use projector::rows::PERSONAL;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Opened, TENANT, assign, go_on, step_to_the_end, update_prospect};

const MARK: &str = "xq7marker";

fn erase() -> ProspectCommand {
    ProspectCommand::Erase(EraseProspect::parse(json!({"reason": "asked to"})).expect("a reason"))
}

/// A value in every field of a person.
fn everything(company: Option<Uuid>) -> Value {
    json!({"salutation": MARK, "first_name": MARK, "last_name": MARK, "email": format!("{MARK}@acme.com"), "phone": format!("{MARK} 1"),
        "mobile_phone": format!("{MARK} 2"), "address": MARK, "city": MARK, "state": MARK, "zip_code": MARK, "country": "GB",
        "job_title": "CTO", "job_title_link": format!("https://x.example/{MARK}"), "company_id": company,
        "external_refs": [{"source": MARK, "id": MARK}], "attributes": {MARK: MARK}})
}

async fn marked_rows(opened: &Opened, schema: &str) -> i64 {
    opened.number(&format!("SELECT count(*) FROM {schema}.company_prospect AS t WHERE t::text ILIKE '%{MARK}%'")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_after_erasures_gives_the_same_rows_and_other_generations_are_cleared() {
    let mut opened = Opened::new().await;
    let company = opened.company(json!({"name": "Acme", "domain": "acme.com"})).await;
    let mut ids = Vec::new();
    for number in 0..4 {
        let mut fields = everything((number % 2 == 0).then_some(company));
        fields["external_refs"][0]["id"] = json!(format!("{MARK}{number}"));
        ids.push(opened.prospect(fields).await);
    }
    let stays = opened.prospect(json!({"last_name": "Stays", "company_id": company})).await;
    opened
        .command_prospect(TENANT, ids[1], update_prospect(json!({"city": format!("{MARK}!")})))
        .await
        .expect("changed");
    opened.command_prospect(TENANT, ids[2], ProspectCommand::Delete).await.expect("deleted");
    let mut projection = opened.projection().await;
    step_to_the_end(&mut projection, 1_000).await;
    // A generation that is kept for a roll-back: the rows as they are now.
    let transaction = opened.client.transaction().await.expect("a transaction");
    migrations::create_generation(&transaction, COMPANY_PROSPECT, 2, 1).await.expect("another generation");
    migrations::create_indexes(&transaction, COMPANY_PROSPECT, 2).await.expect("its indexes");
    transaction.commit().await.expect("made");
    opened.sql("INSERT INTO read_2.company_prospect SELECT * FROM read_1.company_prospect").await;
    assert_eq!(
        (marked_rows(&opened, "read_1").await, marked_rows(&opened, "read_2").await),
        (4, 4),
        "the search can find"
    );

    opened.command_prospect(TENANT, ids[3], assign(Some(company))).await.expect("assigned");
    for id in &ids {
        opened.command_prospect(TENANT, *id, erase()).await.expect("erased");
    }
    opened.command_prospect(TENANT, stays, update_prospect(json!({"city": "Ulm"}))).await.expect("changed");
    step_to_the_end(&mut projection, 3).await;
    opened.assert_projected().await;
    assert_eq!(opened.verify_claims().await.differences, 0);
    assert_eq!((marked_rows(&opened, "read_1").await, marked_rows(&opened, "read_2").await), (0, 0));
    for schema in ["read_1", "read_2"] {
        let erased = format!("SELECT count(*) FROM {schema}.company_prospect WHERE prospect_erased_at IS NOT NULL");
        assert_eq!(opened.number(&erased).await, 4, "{schema}");
    }
    let deleted =
        "SELECT count(*) FROM read_1.company_prospect WHERE prospect_deleted_at IS NOT NULL AND job_title = 'CTO'";
    assert_eq!(opened.number(deleted).await, 4, "an erased person counts as deleted; what identifies nobody stays");

    let live = opened.written().await;
    opened
        .sql(
            "TRUNCATE read_1.companies, read_1.company_prospect, read_1.merged_companies;
             DELETE FROM read.checkpoint_steps WHERE generation = 1;
             INSERT INTO read.checkpoint_steps (projection, generation, step, position, epoch) VALUES ('company_prospect', 1, 0, 0, '')",
        )
        .await;
    go_on(&opened).await;
    assert_eq!(opened.written().await, live, "byte for byte");
    opened.assert_projected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_before_the_erasure_skips_what_was_erased_since_and_nothing_else() {
    let opened = Opened::new().await;
    let erased = opened.prospect(everything(None)).await;
    let other = opened.prospect(json!({"last_name": "Other", "city": "Ulm"})).await;
    go_on(&opened).await;
    opened.command_prospect(TENANT, erased, erase()).await.expect("erased");
    // The projection has not come to the event: the rows still show the person, and the log cannot say any more what they should show.
    assert_eq!(marked_rows(&opened, "read_1").await, 1);
    assert_eq!(opened.verify().await.differences, 0);
    let report = async |sql: String| {
        opened.sql(&sql).await;
        opened.verify().await.differences
    };
    for (column, _) in PERSONAL {
        let empty = format!("UPDATE read_1.company_prospect SET {column} = DEFAULT WHERE row_id = '{erased}'");
        assert_eq!(report(empty).await, 0, "{column}");
    }
    let changed = format!("UPDATE read_1.company_prospect SET job_title = 'CEO' WHERE row_id = '{erased}'");
    assert_eq!(report(changed).await, 1, "what is not personal is compared");
    let changed = format!("UPDATE read_1.company_prospect SET prospect_city = 'Bonn' WHERE row_id = '{other}'");
    assert_eq!(report(changed).await, 2, "others are compared in everything");
    go_on(&opened).await;
    assert_eq!(opened.verify().await.differences, 1, "the erasure has put the one row right");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_personal_column_without_statistics_is_one_that_erasing_clears() {
    let opened = Opened::new().await;
    const SQL: &str = "SELECT attname::text FROM pg_attribute
        WHERE attrelid = 'read_1.company_prospect'::regclass AND attnum > 0 AND NOT attisdropped AND attstattarget = 0";
    let rows = opened.client.query(SQL, &[]).await.expect("the columns");
    let mut kept: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut cleared: Vec<String> = PERSONAL.iter().map(|(name, _)| (*name).to_owned()).collect();
    // Which numbers could not be read is no person's; it goes with the numbers all the same.
    cleared.retain(|name| name != "prospect_flags");
    kept.sort_unstable();
    cleared.sort_unstable();
    assert_eq!(kept, cleared);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projector_that_was_overtaken_remembers_nobody() {
    let opened = Opened::new().await;
    let erased = opened.prospect(everything(None)).await;
    let (mut first, mut second) = (opened.projection().await, opened.projection().await);
    step_to_the_end(&mut first, 100).await;
    assert!(matches!(second.step(100).await, Err(StepError::Fenced)));
    opened.command_prospect(TENANT, erased, erase()).await.expect("erased");
    step_to_the_end(&mut second, 100).await;
    assert!(matches!(first.step(100).await, Err(StepError::Fenced)));
    assert_eq!(marked_rows(&opened, "read_1").await, 0);
    // Nothing is left to do for it, and nothing of what it knew.
    assert!(first.step(100).await.expect("a step").idle());
    assert_eq!(first.remembered(), 0);
    tokio::time::timeout(Duration::from_secs(30), opened.assert_projected()).await.expect("in time");
}
