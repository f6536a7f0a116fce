//! The log's own pages, and the projections.

use event_store::Keyring;
use insta::assert_snapshot;
use uuid::Uuid;

use crate::support::{KEY_FILE, OTHER_TENANT, Stack, TENANT, id};

pub async fn event(stack: &Stack, position: i64, tenant: &str, person: &str, payload: &str) {
    stack
        .sql(&format!(
            "INSERT INTO log.events VALUES ({position}, '{tenant}', 'prospect', '{person}', {position}, '{}', 'ProspectRegistered', 1,
                 '{payload}', '{{\"actor\":\"key:pk_x\"}}', '2026-01-01T00:00:00Z')",
            id(100 + u32::try_from(position).expect("small"))
        ))
        .await;
}

#[tokio::test]
async fn events_come_in_order_with_what_is_personal_opened() {
    let stack = Stack::new().await;
    let keyring = Keyring::parse(KEY_FILE).expect("keys");
    let tenant = Uuid::parse_str(TENANT).expect("an id");
    let person = Uuid::parse_str(&id(20)).expect("an id");
    let (key, wrapped) = keyring.new_person_key(tenant, person).expect("a key");
    let event_id = Uuid::parse_str(&id(101)).expect("an id");
    let sealed = key.seal(tenant, person, event_id, br#"{"first_name":"Ada"}"#).expect("sealed").0;
    stack
        .client
        .execute(
            "INSERT INTO log.person_keys (tenant_id, person_id, wrapping_key_id, wrapped_key) VALUES ($1, $2, $3, $4)",
            &[&tenant, &person, &wrapped.wrapping_key_id, &wrapped.wrapped],
        )
        .await
        .expect("a key row");
    stack
        .sql(&format!(
            "INSERT INTO log.person_keys (tenant_id, person_id, erased_position) VALUES ('{TENANT}', '{}', 3)",
            id(21)
        ))
        .await;
    event(
        &stack,
        1,
        TENANT,
        &id(20),
        &format!(r#"{{"profile":{{"country":"GB"}},"personal":{{"sealed":"{sealed}"}}}}"#),
    )
    .await;
    event(&stack, 2, OTHER_TENANT, &id(30), r#"{"profile":{}}"#).await;
    event(&stack, 3, TENANT, &id(21), r#"{"personal":{"sealed":"AAAA"}}"#).await;

    let answer = stack.get("/v1/events").await;
    assert_eq!(answer.header("prospectus-position"), "3");
    assert_snapshot!(answer.shown(), @r##"
    200
    {
      "items": [
        {
          "aggregate_id": "00000000-0000-7000-8000-000000000020",
          "aggregate_type": "prospect",
          "event_id": "00000000-0000-7000-8000-000000000101",
          "metadata": {
            "actor": "key:pk_x"
          },
          "payload": {
            "personal": {
              "first_name": "Ada"
            },
            "profile": {
              "country": "GB"
            }
          },
          "position": 1,
          "recorded_at": "2026-01-01T00:00:00Z",
          "sequence": 1,
          "type": "ProspectRegistered",
          "version": 1
        },
        {
          "aggregate_id": "00000000-0000-7000-8000-000000000021",
          "aggregate_type": "prospect",
          "event_id": "00000000-0000-7000-8000-000000000103",
          "metadata": {
            "actor": "key:pk_x"
          },
          "payload": {
            "personal": "erased"
          },
          "position": 3,
          "recorded_at": "2026-01-01T00:00:00Z",
          "sequence": 3,
          "type": "ProspectRegistered",
          "version": 1
        }
      ]
    }
    "##);
    let first = stack.get("/v1/events?limit=1").await.json();
    assert_eq!(first["next_cursor"], "1");
    let second = stack.get("/v1/events?limit=1&cursor=1").await.json();
    assert_eq!((second["items"][0]["position"].as_i64(), second["next_cursor"].as_str()), (Some(3), Some("3")));
    assert_eq!(stack.get("/v1/events?after=3").await.body, "{\"items\":[]}");
    assert_eq!(stack.request("GET", "/v1/events", &stack.reader, "").await.status, 403);
    for query in ["after=-1", "after=x", "limit=0", "limit=1001", "after=1&cursor=1"] {
        assert_eq!(stack.get(&format!("/v1/events?{query}")).await.status, 400, "{query}");
    }
    // A key row that is missing is no erasure: nothing is blanked.
    event(&stack, 4, TENANT, &id(22), r#"{"personal":{"sealed":"AAAA"}}"#).await;
    assert_eq!(stack.get("/v1/events?after=3").await.status, 500);
}

#[tokio::test]
async fn a_page_of_large_events_is_short_and_the_next_goes_on() {
    let stack = Stack::new().await;
    let payload = format!(r#"{{"profile":{{"note":"{}"}}}}"#, "x".repeat(1 << 20));
    for position in 1..=6 {
        event(&stack, position, TENANT, &id(20), &payload).await;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/events?limit=6".to_owned();
    loop {
        let answer = stack.get(&path).await;
        assert!(answer.body.len() < 5 << 20, "{} bytes", answer.body.len());
        let page = answer.json();
        let items = page["items"].as_array().expect("items");
        assert!(items.len() < 6);
        seen.extend(items.iter().filter_map(|item| item["position"].as_i64()));
        match page["next_cursor"].as_str() {
            Some(next) => path = format!("/v1/events?limit=6&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn the_logs_pages_and_the_projections_have_etags() {
    let stack = Stack::new().await;
    event(&stack, 1, TENANT, &id(20), "{}").await;
    stack.checkpoint(1).await;
    for path in ["/v1/events", "/v1/projections"] {
        let first = stack.get(path).await;
        assert_eq!(first.status, 200, "{}", first.body);
        let again = stack.get_with(path, &format!("If-None-Match: {}\r\n", first.header("etag"))).await;
        assert_eq!((again.status, again.body.as_str(), again.header("prospectus-position")), (304, "", "1"), "{path}");
    }
}

#[tokio::test]
async fn a_projections_lag_counts_what_is_still_carried_to_prospects_of_any_tenant() {
    let stack = Stack::new().await;
    for position in 1..=4 {
        event(&stack, position, OTHER_TENANT, &id(20), "{}").await;
    }
    stack.checkpoint(4).await;
    let item = |page: serde_json::Value| {
        let item = &page["items"][0];
        ["position", "applied_position", "lag_events"].map(|member| item[member].as_i64().expect("a number"))
    };
    let now = stack.get("/v1/projections").await;
    assert_eq!((item(now.json()), now.json()["items"][0]["lag_seconds"].as_f64()), ([4, 4, 0], Some(0.0)));
    stack
        .sql(&format!("INSERT INTO read.fanout (projection, generation, tenant_id, company_id, position) VALUES ('company_prospect', 1, '{OTHER_TENANT}', '{}', 3)", id(10)))
        .await;
    let behind = stack.get("/v1/projections").await;
    assert_eq!((item(behind.json()), behind.header("prospectus-position")), ([2, 4, 2], "2"));
}

#[tokio::test]
async fn projections_say_how_far_they_are() {
    let stack = Stack::new().await;
    event(&stack, 1, TENANT, &id(20), "{}").await;
    event(&stack, 2, TENANT, &id(20), "{}").await;
    stack.checkpoint(1).await;
    let item = async || stack.get("/v1/projections").await.json()["items"][0].clone();
    let mut now = item().await;
    let (seconds, rate) = (now["lag_seconds"].take(), now["events_per_second"].take());
    // The event waits since the first of January 2026, whenever the step before it was taken.
    assert!(seconds.as_f64().is_some_and(|seconds| seconds >= 86_400.0), "{seconds}");
    assert!(rate.as_f64().is_some_and(|rate| rate >= 0.0), "{rate}");
    // A step was taken just now, so it goes on.
    assert_snapshot!(now.to_string(), @r##"{"applied_position":1,"events_per_second":null,"generation":1,"head":2,"lag_events":1,"lag_seconds":null,"last_error":null,"position":1,"projection":"company_prospect","queued_companies":0,"state":"catching_up"}"##);
    // None for a while is stuck.
    stack.sql("UPDATE read.checkpoint_steps SET updated_at = now() - interval '61 seconds'").await;
    assert_eq!(item().await["state"], "stuck");
    stack.checkpoint(2).await;
    assert_eq!(item().await["state"], "live");
    // A generation that is built beside it, and then the one before it.
    stack
        .sql("INSERT INTO read.generations (projection, generation, code_version) VALUES ('company_prospect', 2, 1)")
        .await;
    stack
        .sql(
            "INSERT INTO read.checkpoint_steps (projection, generation, step, position, epoch)
             VALUES ('company_prospect', 2, 0, 0, '')",
        )
        .await;
    let states = async || {
        let page = stack.get("/v1/projections").await.json();
        let states: Vec<String> =
            page["items"].as_array().expect("items").iter().map(|item| item["state"].to_string()).collect();
        states.join(" ")
    };
    assert_eq!(states().await, "\"live\" \"paused\"", "nobody builds it");
    stack
        .sql(
            "INSERT INTO read.rebuilds (projection, kind, memory_bytes, room_from, generation, beat_at)
             VALUES ('company_prospect', 'rebuild', 1, 'test', 2, clock_timestamp())",
        )
        .await;
    assert_eq!(states().await, "\"live\" \"rebuilding\"");
    stack.sql("UPDATE read.rebuilds SET beat_at = clock_timestamp() - interval '1 hour'").await;
    assert_eq!(states().await, "\"live\" \"stuck\"", "nobody goes on with it");
    stack.sql("UPDATE read.rebuilds SET outcome = 'failed', finished_at = clock_timestamp()").await;
    stack.sql("UPDATE read.live SET generation = 2").await;
    assert_eq!(states().await, "\"paused\" \"catching_up\"");
}

/// Which event, and a name for why; what the event holds is another tenant's, perhaps.
#[tokio::test]
async fn the_last_error_of_a_projection_names_the_event_and_not_what_it_holds() {
    let stack = Stack::new().await;
    event(&stack, 1, OTHER_TENANT, &id(20), "{}").await;
    event(&stack, 2, OTHER_TENANT, &id(20), "{}").await;
    stack.checkpoint(1).await;
    stack
        .sql(
            "INSERT INTO read.projection_errors (projection, generation, position, event_position, reason, error, happened_at)
             VALUES ('company_prospect', 1, 2, 2, 'event_unreadable', 'unknown variant `Secret`', '2026-01-02T03:04:05Z')",
        )
        .await;
    let item = async || stack.get("/v1/projections").await.json()["items"][0].clone();
    let stopped = item().await;
    assert_eq!(stopped["state"], "stuck", "{stopped}");
    assert_snapshot!(stopped["last_error"].to_string(), @r##"{"at":"2026-01-02T03:04:05Z","position":2,"reason":"event_unreadable","stands":true}"##);
    assert!(!stopped.to_string().contains("Secret"), "{stopped}");
    let role = stack.role("prospectus_query").await;
    assert!(role.query("SELECT error FROM read.projection_errors", &[]).await.is_err(), "the role cannot read more");
    stack.checkpoint(2).await;
    let past = item().await;
    assert_eq!((past["state"].as_str(), past["last_error"]["stands"].as_bool()), (Some("live"), Some(false)), "{past}");
}
