//! Heads and proofs: their pages, who may read them, and whose events come with them.

use base64::Engine as _;
use event_store::feed::Feed;
use event_store::proof::path::{includes, is_consistent};
use event_store::proof::sealing::Sealing;
use event_store::proof::{Hash, PublicKey, SealKeys, SignedHead};
use serde_json::Value;
use time::OffsetDateTime;

use crate::support::{Answer, OTHER_TENANT, Stack, TENANT};

/// Events of both tenants in turn, the first of the first tenant's, with heads over 3, 300 and 600 of them.
async fn sealed() -> Stack {
    let stack = Stack::new().await;
    stack
        .sql(&format!(
            "INSERT INTO log.epochs (number, epoch_id, first_position, system_identifier, timeline)
             VALUES (1, '00000001-0000-7000-8000-000000000000', 1, 1, 1);
             INSERT INTO log.events
             SELECT n, CASE n % 2 WHEN 1 THEN '{TENANT}'::uuid ELSE '{OTHER_TENANT}'::uuid END, 'company', gen_random_uuid(), 1,
                    gen_random_uuid(), 'CompanyRegistered', 1, json_build_object('secret', 'of ' || n % 2), '{{}}', now()
             FROM generate_series(1, 601) AS n"
        ))
        .await;
    let seed = base64::engine::general_purpose::STANDARD.encode([9; 32]);
    let keys = SealKeys::parse(&format!("seal {seed}")).expect("a key");
    let feed = Feed::open(&stack.database("prospectus_sealer")).await.expect("a log");
    let (mut sealing, _) = Sealing::resume(&feed, &keys, None).await.expect("it begins");
    for position in [3, 300, 600] {
        sealing.seal(&feed, &keys, position, OffsetDateTime::now_utc()).await.expect("sealed").expect("a head");
    }
    stack
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
}

#[tokio::test]
async fn heads_come_newest_first_with_the_keys_that_signed_them() {
    let stack = sealed().await;
    let first = stack.get("/v1/log/heads?limit=2").await;
    assert_eq!((first.status, first.header("prospectus-position")), (200, "601"), "{}", first.body);
    let page = first.json();
    let key: PublicKey = read(&page["keys"][0]["public_key"]);
    assert_eq!(page["keys"][0]["key_id"], key.id());
    let next = page["next_cursor"].as_str().expect("there is more");
    let rest = stack.get(&format!("/v1/log/heads?limit=2&cursor={next}")).await.json();
    assert!(rest["next_cursor"].is_null());
    let items: Vec<&Value> =
        [&page, &rest].into_iter().flat_map(|page| page["items"].as_array().expect("items")).collect();
    let numbers: Vec<Option<i64>> = items.iter().map(|item| item["number"].as_i64()).collect();
    assert_eq!(numbers, [Some(3), Some(2), Some(1)]);
    for item in items {
        assert!(read::<SignedHead>(item).is_signed_by(&key), "{item}");
    }
    let etag = format!("If-None-Match: {}\r\n", stack.get("/v1/log/heads").await.header("etag"));
    assert_eq!(stack.get_with("/v1/log/heads", &etag).await.status, 304);
}

#[tokio::test]
async fn proofs_lead_to_the_heads_and_another_tenants_event_stays_its_own() {
    let stack = sealed().await;
    for (position, size) in [(1, 3), (2, 3), (299, 300), (300, 600), (257, 600), (600, 600), (7, 411)] {
        for key in [&stack.key, &stack.other_key] {
            let path = format!("/v1/log/proofs/inclusion?position={position}&tree_size={size}");
            let answer = stack.request("GET", &path, key, "").await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            let proof = answer.json();
            let own = (position % 2 == 1) == (*key == stack.key);
            assert_eq!(proof["event"].is_object(), own, "{proof}");
            assert_eq!(answer.body.contains("secret"), own, "{proof}");
            if size == 411 {
                assert!(proof["head"].is_null(), "no head is of that size");
                continue;
            }
            let head: SignedHead = read(&proof["head"]);
            assert!(head.is_signed_by(&read(&proof["public_key"])), "{proof}");
            let hashes: Vec<Hash> = read(&proof["path"]);
            let leaf: Hash = read(&proof["leaf_hash"]);
            let index = u64::try_from(position - 1).expect("positive");
            assert!(includes(leaf, index, head.head.tree_size, &hashes, head.head.root_hash), "{proof}");
            if own {
                let event: event_store::proof::document::ProvenEvent = read(&proof["event"]);
                assert_eq!(event.leaf().expect("an event"), leaf);
            }
        }
    }
    let newest = stack.get("/v1/log/proofs/inclusion?position=5").await.json();
    assert_eq!(newest["tree_size"], 600);
    for (from, to) in [(3, "&to=300"), (300, "&to=600"), (3, ""), (600, "")] {
        let proof = stack.get(&format!("/v1/log/proofs/consistency?from={from}{to}")).await.json();
        let (first, second): (SignedHead, SignedHead) = (read(&proof["head_from"]), read(&proof["head_to"]));
        let hashes: Vec<Hash> = read(&proof["path"]);
        let (first, second) = (first.head, second.head);
        assert!(
            is_consistent(first.tree_size, first.root_hash, second.tree_size, second.root_hash, &hashes),
            "{proof}"
        );
    }
}

#[tokio::test]
async fn an_event_that_is_shown_with_its_proof_is_noted_as_read() {
    let stack = sealed().await;
    stack.sql("UPDATE access.tenants SET audit_reads = true").await;
    let own = stack.get("/v1/log/proofs/inclusion?position=5").await.json();
    for path in ["/v1/log/proofs/inclusion?position=4", "/v1/log/heads", "/v1/log/proofs/consistency?from=3"] {
        assert_eq!(stack.get(path).await.status, 200, "{path}");
    }
    let noted = stack.get("/v1/reads").await.json();
    assert_eq!(noted["items"].as_array().map(Vec::len), Some(1), "another's event is not shown: {noted}");
    assert_eq!(noted["items"][0]["record_ids"][0], own["event"]["aggregate_id"]);
}

#[tokio::test]
async fn what_cannot_be_proven_is_told_and_only_auditors_and_admins_may_ask() {
    let stack = sealed().await;
    let status = async |path: &str| -> Answer { stack.get(path).await };
    for (path, expected) in [
        ("/v1/log/proofs/inclusion", 400),
        ("/v1/log/proofs/inclusion?position=0", 400),
        ("/v1/log/proofs/inclusion?position=x", 400),
        ("/v1/log/proofs/inclusion?position=1&tree_size=0", 400),
        ("/v1/log/proofs/inclusion?position=4&tree_size=3", 404),
        ("/v1/log/proofs/inclusion?position=601", 404),
        ("/v1/log/proofs/inclusion?position=601&tree_size=601", 404),
        ("/v1/log/proofs/consistency", 400),
        ("/v1/log/proofs/consistency?from=0", 400),
        ("/v1/log/proofs/consistency?from=300&to=3", 404),
        ("/v1/log/proofs/consistency?from=3&to=601", 404),
        ("/v1/log/heads?cursor=x", 400),
        ("/v1/log/heads?limit=0", 400),
        ("/v1/log/heads?colour=red", 400),
    ] {
        let answer = status(path).await;
        assert_eq!(answer.status, expected, "{path}: {}", answer.body);
    }
    for path in ["/v1/log/heads", "/v1/log/proofs/inclusion?position=1", "/v1/log/proofs/consistency?from=3"] {
        assert_eq!(stack.request("GET", path, &stack.reader, "").await.status, 403, "{path}");
    }
    let empty = Stack::new().await;
    assert_eq!(empty.get("/v1/log/heads").await.body, "{\"items\":[],\"keys\":[]}");
    assert_eq!(empty.get("/v1/log/proofs/inclusion?position=1").await.status, 404);
}
