//! What the log relies on: one stored sample of every form of every event that was ever released, which must be read for ever.

use domain::projection::ProjectionEvent;
use domain::{CompanyEvent, ImportEvent, ProspectEvent, RecordEvent, StoredEventError};
use serde_json::Value;

/// Events as version 1 of each wrote them. Lines are added here, never changed. Samples of a later form stand in a list of their own, and
/// those of the form before it move to one with what they are read as.
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
    (
        "CompanyImported",
        r#"{"said":{"source":"crm","import_id":"01900000-0000-7000-8000-000000000001","row":7,"at":1700000000000000},"changes":{"city":"Ulm"},"domain":"acme.de","additional_domains":["acme.com"],"external_refs":[{"source":"crm","id":"3"}],"social_media":[{"social_media_id":"01900000-0000-7000-8000-000000000001","platform":"X","url":"https://x.com/acme"}],"attributes":{"a":1},"declined":{"industry":"Steel"}}"#,
    ),
    ("CompanyImported", r#"{"said":{"source":"crm","import_id":"01900000-0000-7000-8000-000000000001","row":1}}"#),
    ("CompanyImportUndone", r#"{"import_id":"01900000-0000-7000-8000-000000000001"}"#),
    (
        "CompanyReviewRequested",
        r#"{"import_id":"01900000-0000-7000-8000-000000000001","reason":"looks_like","company_id":"01900000-0000-7000-8000-00000000000a"}"#,
    ),
    (
        "CompanyAbsorbed",
        r#"{"company_id":"01900000-0000-7000-8000-00000000000a","brought":["01900000-0000-7000-8000-00000000000b"],"changes":{"city":"Ulm"},"domain":"acme.de","additional_domains":["acme.com"],"external_refs":[{"source":"crm","id":"1"}],"social_media":[{"social_media_id":"01900000-0000-7000-8000-000000000001","platform":"X","url":"https://x.com/acme"}],"attributes":{"a":1}}"#,
    ),
    ("CompanyMerged", r#"{"into":"01900000-0000-7000-8000-00000000000a"}"#),
    ("CompanySeparated", r#"{"company_id":"01900000-0000-7000-8000-00000000000a"}"#),
    ("CompanyUnmerged", "{}"),
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
    (
        "ProspectImported",
        r#"{"said":{"source":"crm","import_id":"01900000-0000-7000-8000-000000000001","row":7},"changes":{"country":"GB"},"company_id":"01900000-0000-7000-8000-00000000000a","declined":{"department":"R&D"},"personal":{"sealed":"AAAA"}}"#,
    ),
    (
        "ProspectImported",
        r#"{"said":{"source":"crm","import_id":"01900000-0000-7000-8000-000000000001","row":7},"personal":{"open":{"fields":{"city":"Ulm"},"external_refs":[{"source":"a","id":"b"}],"attributes":{"a":1},"declined":{"city":"Bonn"}}}}"#,
    ),
    ("ProspectImportUndone", r#"{"import_id":"01900000-0000-7000-8000-000000000001"}"#),
    (
        "ProspectImportUndone",
        r#"{"import_id":"01900000-0000-7000-8000-000000000001","before":{"profile":{"country":"GB"},"company_id":null,"review":{"reason":"no_company"}},"personal":{"sealed":"AAAA"}}"#,
    ),
];

const IMPORT_SAMPLES: &[(&str, &str)] = &[
    (
        "ImportOpened",
        r#"{"source":"crm","mapping":"salesforce","dry_run":false,"rule":"newest","at":"2026-01-02T03:04:05Z"}"#,
    ),
    (
        "ImportOpened",
        r#"{"source":"crm","dry_run":true,"rule":{"source_rank":["api","crm"]},"at":"2026-01-02T03:04:05Z"}"#,
    ),
    ("ImportReceived", r#"{"rows":3,"chunks":1,"bytes":99}"#),
    (
        "ImportChunkFinished",
        r#"{"first":1,"last":2,"tally":{"read":3,"created":1,"updated":1,"unchanged":1,"in_review":0,"refused":0,"companies":[1,0,0],"prospects":[1,1,0]},"position":12}"#,
    ),
    ("ImportFinished", r#"{"at":"2026-01-02T03:04:05Z"}"#),
    ("ImportFailed", r#"{"code":"no_rows","detail":"send some","at":"2026-01-02T03:04:05Z"}"#),
    ("ImportUndoRequested", "{}"),
    ("ImportUndone", r#"{"companies":1,"prospects":2,"left":0,"position":14,"at":"2026-01-02T03:04:05Z"}"#),
];

const PROJECTION_SAMPLES: &[(&str, &str)] = &[(
    "ProjectionPositionSkipped",
    r#"{"projection":"company_prospect","position":12,"reason":"written by a faulty tool"}"#,
)];

fn check<E: RecordEvent>(samples: &[(&str, &str)], forms: &[(&str, i16)]) {
    // Whoever adds an event, or another form of one, adds a sample of it.
    let without: Vec<_> = forms.iter().filter(|form| !samples.iter().any(|(name, _)| (*name, 1) == **form)).collect();
    assert!(without.is_empty(), "no stored sample of {without:?}");
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
    check::<CompanyEvent>(COMPANY_SAMPLES, CompanyEvent::FORMS);
    check::<ProspectEvent>(PROSPECT_SAMPLES, ProspectEvent::FORMS);
    check::<ImportEvent>(IMPORT_SAMPLES, ImportEvent::FORMS);
    check::<ProjectionEvent>(PROJECTION_SAMPLES, ProjectionEvent::FORMS);
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
