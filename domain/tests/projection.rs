//! What operators may decide about a projection.

use cqrs_es::test::TestFramework;
use domain::projection::{
    PositionSkipped, Projection, ProjectionCommand, ProjectionError, ProjectionEvent, SYSTEM_TENANT, record_id,
};
use domain::value::Line;

use crate::context;

fn skipped(position: i64) -> PositionSkipped {
    PositionSkipped {
        projection: Line::parse("company_prospect").unwrap(),
        position,
        reason: Line::parse("written by a release that was taken back").unwrap(),
    }
}

#[test]
fn a_position_is_skipped_once() {
    let event = ProjectionEvent::from(skipped(7));
    TestFramework::<Projection>::with(context())
        .given_no_previous_events()
        .when(ProjectionCommand::Skip(skipped(7)))
        .then_expect_events(vec![event.clone()]);
    TestFramework::<Projection>::with(context())
        .given(vec![event.clone()])
        .when(ProjectionCommand::Skip(skipped(7)))
        .then_expect_events(vec![]);
    TestFramework::<Projection>::with(context())
        .given(vec![event])
        .when(ProjectionCommand::Skip(skipped(8)))
        .then_expect_events(vec![skipped(8).into()]);
}

#[test]
fn positions_count_from_one() {
    TestFramework::<Projection>::with(context())
        .given_no_previous_events()
        .when(ProjectionCommand::Skip(skipped(0)))
        .then_expect_error(ProjectionError::NoPosition(0));
}

/// The id stands in logs for ever: it must never become another one.
#[test]
fn a_projection_has_one_record_for_ever() {
    assert_eq!(record_id("company_prospect").to_string(), "35bc868d-bb14-8762-9a13-68d27270c259");
    assert_ne!(record_id("company_prospect"), record_id("company_stats"));
    assert_ne!(record_id("company_prospect"), SYSTEM_TENANT);
}
