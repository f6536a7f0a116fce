//! Merged companies: their prospects show the primary's columns, whatever happens to it, and unmerging brings their rows back.

use domain::CompanyCommand;
use projector::projection::STEP_EVENTS_MAX;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Opened, TENANT, register_many, step_to_the_end};

/// What decision 12 says of a step, where it reads few events.
const STEP_ROWS_MAX: usize = 2_000;

/// Every row of the tenant: whose it is, the company and name that it shows.
async fn rows(opened: &Opened) -> Vec<(Uuid, Option<Uuid>, Option<String>)> {
    const SQL: &str = "SELECT row_id, company_id, company_name FROM read.company_prospect ORDER BY row_id";
    let rows = opened.client.query(SQL, &[]).await.expect("the rows");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// All rows, without what says when and how often something changed.
async fn contents(opened: &Opened) -> Vec<Value> {
    const SQL: &str = "
        SELECT to_jsonb(t) - '{version,position,updated_at}'::text[] AS row FROM read.companies AS t
        UNION ALL
        SELECT to_jsonb(t) - '{company_version,position,updated_at,company_updated_at}'::text[] FROM read.company_prospect AS t
        UNION ALL SELECT to_jsonb(t) FROM read_1.merged_companies AS t
        ORDER BY row";
    opened.client.query(SQL, &[]).await.expect("the rows").iter().map(|row| row.get(0)).collect()
}

/// Steps to the end, one event at a time, so that a step ends between the two events of a merge too; each is right.
async fn project(opened: &Opened) {
    let mut projection = opened.projection().await;
    while !projection.step(1).await.expect("a step").idle() {
        let report = opened.verify().await;
        assert_eq!(report.differences, 0, "{:#?}", report.first);
    }
    opened.assert_projected().await;
}

fn shows(row: Uuid, company: Uuid, name: &str) -> (Uuid, Option<Uuid>, Option<String>) {
    (row, Some(company), Some(name.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn prospects_follow_a_chain_of_merges_and_come_back() {
    let opened = Opened::new().await;
    let pages = |name: &str| json!([{"platform": "X", "url": format!("https://x.com/{name}")}]);
    let fields = |name: &str| json!({"name": name, "domain": format!("{name}.example"), "social_media": pages(name)});
    let first = opened.company(fields("first")).await;
    let middle = opened.company(fields("middle")).await;
    let last = opened.company(fields("last")).await;
    let of_first = opened.prospect(json!({"last_name": "Of First", "company_id": first})).await;
    let of_middle = opened.prospect(json!({"last_name": "Of Middle", "company_id": middle})).await;
    project(&opened).await;
    let apart = contents(&opened).await;
    // The last one has no prospect, and so a row of its own.
    assert!(rows(&opened).await.contains(&shows(last, last, "last")));

    opened.merge(TENANT, first, middle).await.expect("it is merged");
    project(&opened).await;
    let in_two = contents(&opened).await;
    opened.merge(TENANT, middle, last).await.expect("it is merged");
    project(&opened).await;
    assert_eq!(rows(&opened).await, [shows(of_first, last, "last"), shows(of_middle, last, "last")]);
    // A page that moved is the primary's since it moved.
    let moved = format!(
        "SELECT count(*) FROM read.companies AS c, jsonb_array_elements(c.social_media) AS page
         WHERE c.company_id = '{last}' AND (page ->> 'created_at')::timestamptz = CASE page ->> 'url'
             WHEN 'https://x.com/last' THEN c.created_at ELSE c.updated_at END"
    );
    assert_eq!(opened.number(&moved).await, 3);

    // What happens to the last one reaches all of them, and a prospect that comes to none of them is where it was given to.
    opened.rename(last, "renamed").await;
    project(&opened).await;
    assert_eq!(rows(&opened).await, [shows(of_first, last, "renamed"), shows(of_middle, last, "renamed")]);
    opened.command_company(TENANT, last, CompanyCommand::Delete).await.expect("it is live");
    project(&opened).await;
    assert_eq!(rows(&opened).await, [(of_first, None, None), (of_middle, None, None)]);
    opened.command_company(TENANT, last, CompanyCommand::Restore).await.expect("it is deleted");
    opened.rename(last, "last").await;
    project(&opened).await;
    assert_eq!(rows(&opened).await, [shows(of_first, last, "last"), shows(of_middle, last, "last")]);
    // The last one has a row of its own only while no prospect of theirs is there.
    for prospect in [of_first, of_middle] {
        opened.command_prospect(TENANT, prospect, domain::ProspectCommand::Delete).await.expect("it is live");
    }
    project(&opened).await;
    assert!(rows(&opened).await.contains(&shows(last, last, "last")));
    for prospect in [of_first, of_middle] {
        opened.command_prospect(TENANT, prospect, domain::ProspectCommand::Restore).await.expect("it is deleted");
    }

    opened.unmerge(TENANT, middle).await.expect("nothing is in the way");
    project(&opened).await;
    assert_eq!(without_versions(contents(&opened).await), without_versions(in_two));
    opened.unmerge(TENANT, first).await.expect("nothing is in the way");
    project(&opened).await;
    assert_eq!(without_versions(contents(&opened).await), without_versions(apart));
}

/// The prospects were deleted and restored meanwhile.
fn without_versions(rows: Vec<Value>) -> Vec<Value> {
    let without = |mut row: Value| {
        for column in ["prospect_version", "prospect_position", "prospect_updated_at"] {
            row.as_object_mut().expect("an object").remove(column);
        }
        row
    };
    rows.into_iter().map(without).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_reaches_many_prospects_in_bounded_steps() {
    const MANY: usize = 7_000;
    let opened = Opened::new().await;
    let primary = opened.company(json!({"name": "Primary"})).await;
    let big = opened.company(json!({"name": "Big"})).await;
    let bigger = opened.company(json!({"name": "Bigger"})).await;
    register_many(&opened, big, MANY).await;
    register_many(&opened, bigger, MANY).await;
    let mut projection = opened.projection().await;
    step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;

    let showing = |name: &str| format!("SELECT count(*) FROM read.company_prospect WHERE company_name = '{name}'");
    for (merged, changes) in [(true, 2), (false, 2)] {
        for company in [big, bigger] {
            let done = if merged {
                opened.merge(TENANT, company, primary).await
            } else {
                opened.unmerge(TENANT, company).await
            };
            done.expect("it is carried out");
            let first = projection.step(STEP_EVENTS_MAX).await.expect("a step");
            assert_eq!((first.events, first.fanout_rows > 0), (changes, true));
            assert!(first.fanout_rows <= STEP_ROWS_MAX && first.queued > 0, "{first:?}");
            let head = opened.head().await;
            assert!(opened.positions(TENANT).await.1 < head, "it is not complete");
            let steps = step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
            assert!(steps.iter().all(|step| step.fanout_rows <= STEP_ROWS_MAX), "{steps:?}");
            assert_eq!(opened.positions(TENANT).await, (head, head));
        }
        let many = i64::try_from(MANY).expect("a small number");
        if merged {
            assert_eq!(opened.number(&showing("Primary")).await, 2 * many);
            opened.rename(primary, "Renamed").await;
            let steps = step_to_the_end(&mut projection, STEP_EVENTS_MAX).await;
            assert!(steps.iter().all(|step| step.fanout_rows <= STEP_ROWS_MAX), "{steps:?}");
            assert_eq!(opened.number(&showing("Renamed")).await, 2 * many);
        } else {
            assert_eq!((opened.number(&showing("Big")).await, opened.number(&showing("Bigger")).await), (many, many));
        }
    }
    opened.assert_projected().await;
}
