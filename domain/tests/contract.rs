//! What the log relies on: one stored sample of every event, which must be read for ever.

use domain::{CompanyEvent, ProspectEvent, RecordEvent, StoredEventError};
use serde_json::Value;

/// Events as version 1 of each wrote them. Lines are added here, never changed.
const COMPANY_SAMPLES: &[(&str, &str)] = &[
    (
        "CompanyRegistered",
        r#"{"profile":{"name":"Acme","founding_date":"1998-09","employee_count":5,"revenue":-7,"revenue_currency":"EUR","country":"DE","phone":"+4930123456","mobile_phone":{"as_given":"5 x 2"}},"domain":"acme.de","additional_domains":["acme.com"],"external_refs":[{"source":"crm","id":"1"}],"social_media":[{"social_media_id":"01900000-0000-7000-8000-000000000001","platform":"X","url":"https://x.com/acme"}],"attributes":{"a":1,"b":0.1,"c":true,"d":"e"}}"#,
    ),
    ("CompanyProfileUpdated", r#"{"changes":{"name":"Acme!","city":null,"phone":{"as_given":"5"}}}"#),
    ("CompanyDomainChanged", r#"{"domain":"acme.com"}"#),
    ("CompanyDomainChanged", r#"{"domain":null}"#),
    ("CompanyAdditionalDomainsChanged", r#"{"added":["acme.fr"],"removed":["acme.it"]}"#),
    ("CompanyExternalRefsChanged", r#"{"added":[{"source":"crm","id":"2"}]}"#),
    ("CompanyAttributesChanged", r#"{"set":{"a":2},"removed":["b"]}"#),
    (
        "CompanySocialMediaAdded",
        r#"{"social_media_id":"01900000-0000-7000-8000-000000000001","platform":"X","url":"https://x.com/acme"}"#,
    ),
    ("CompanySocialMediaRemoved", r#"{"social_media_id":"01900000-0000-7000-8000-000000000001"}"#),
    ("CompanyReviewResolved", r#"{"resolution":"left_alone"}"#),
    ("CompanyReviewResolved", r#"{"resolution":"merged","into":"01900000-0000-7000-8000-00000000000a"}"#),
    ("CompanyDeleted", "{}"),
    ("CompanyRestored", "{}"),
];

const PROSPECT_SAMPLES: &[(&str, &str)] = &[
    (
        "ProspectRegistered",
        r#"{"profile":{"country":"GB","job_title":"CTO","job_title_level":"c_suite","department":"R&D"},"company_id":"01900000-0000-7000-8000-00000000000a","personal":{"sealed":"AAAA"}}"#,
    ),
    ("ProspectRegistered", r#"{"profile":{},"personal":{"open":{"fields":{"first_name":"Ada"}}}}"#),
    ("ProspectRegistered", r#"{"profile":{},"personal":"erased"}"#),
    ("ProspectProfileUpdated", r#"{"changes":{"job_title":null}}"#),
    ("ProspectProfileUpdated", r#"{"personal":{"sealed":"AAAA"}}"#),
    (
        "ProspectProfileUpdated",
        r#"{"personal":{"open":{"fields":{"city":null},"external_refs":{"removed":[{"source":"a","id":"b"}]},"attributes":{"set":{"a":1}}}}}"#,
    ),
    ("ProspectAssigned", r#"{"company_id":"01900000-0000-7000-8000-00000000000a"}"#),
    ("ProspectAssigned", r#"{"company_id":null}"#),
    ("ProspectReviewResolved", r#"{"resolution":"assigned","company_id":"01900000-0000-7000-8000-00000000000a"}"#),
    ("ProspectReviewResolved", r#"{"resolution":"created","company_id":"01900000-0000-7000-8000-00000000000a"}"#),
    ("ProspectReviewResolved", r#"{"resolution":"left_alone"}"#),
    ("ProspectDeleted", "{}"),
    ("ProspectRestored", "{}"),
    ("ProspectErased", r#"{"reason":"request 4711"}"#),
];

fn check<E: RecordEvent>(samples: &[(&str, &str)]) {
    for (name, payload) in samples {
        let event = E::from_stored(name, 1, payload).unwrap();
        assert_eq!((event.name(), event.payload().as_str()), (*name, *payload));
        assert_eq!(event.event_type(), *name);
        // serde's own form is what cqrs-es users see: the name outside, the payload inside.
        let outside: Value = serde_json::to_value(&event).unwrap();
        assert_eq!(outside[*name].to_string(), serde_json::from_str::<Value>(payload).unwrap().to_string());
        assert_eq!(serde_json::from_value::<E>(outside).unwrap(), event);
    }
}

#[test]
fn every_event_ever_written_is_read() {
    check::<CompanyEvent>(COMPANY_SAMPLES);
    check::<ProspectEvent>(PROSPECT_SAMPLES);
}

#[test]
fn an_event_of_the_future_is_not_guessed_at() {
    for (name, form) in [("CompanyRegistered", 2), ("CompanyRegistered", 0), ("CompanyExploded", 1), ("", 1)] {
        let error = CompanyEvent::from_stored(name, form, "{}").unwrap_err();
        assert!(matches!(error, StoredEventError::Unknown { .. }), "{name} {form}");
    }
    for payload in ["", "[]", "{\"domain\":5}", "{\"domain\":\"a"] {
        let error = CompanyEvent::from_stored("CompanyDomainChanged", 1, payload).unwrap_err();
        assert!(matches!(error, StoredEventError::Payload { .. }), "{payload}");
    }
}

#[test]
fn what_an_older_rule_let_in_is_still_read() {
    let profile = r#"{"profile":{"name":"","country":"Utopia","revenue_currency":"ZZZ","founding_date":"long ago","employee_count":-1,"phone":"5","logo_url":"x","email_address":"y"},"domain":"com","attributes":{"list":[1,{}]}}"#;
    let event = CompanyEvent::from_stored("CompanyRegistered", 1, profile).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&event.payload()).unwrap(),
        serde_json::from_str::<Value>(profile).unwrap()
    );
}
