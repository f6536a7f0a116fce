//! Sealing a log: heads that go on over restarts, proofs from stored hashes, lost tails, and what a sealer refuses to sign.

use event_store::StoredEvent;
use event_store::proof::heads;
use event_store::proof::path::{consistency, includes, inclusion, is_consistent};
use event_store::proof::sealing::{Refusal, SealError};
use event_store::proof::stored::{EVERY_EPOCH, frontier, resolve};
use event_store::proof::verify::{Anchors, Verdict, What, verify};
use event_store::proof::{Hash, Proof};
use time::OffsetDateTime;
use tokio_postgres::error::SqlState;

use crate::sealed::{Sealed, begin_epoch, keys};

#[tokio::test(flavor = "multi_thread")]
async fn proofs_from_stored_hashes_lead_to_the_heads_over_a_log_of_three_levels() {
    let log = Sealed::new().await;
    log.append(70_000).await;
    // A head goes at most 65,536 events further; each call is a sealer that was started again.
    let sizes = [1, 2, 255, 256, 257, 1_000, 65_535, 65_536, 65_537, 66_000, 70_000];
    for size in sizes {
        assert_eq!(log.seal(&[size]).await.head.tree_size, u64::try_from(size).expect("positive"));
    }
    let heads = heads::after(&log.client, 0, 100).await.expect("heads");
    let root =
        |size: u64| heads.iter().find(|head| head.signed.head.tree_size == size).map(|head| head.signed.head.root_hash);
    let leaf = async |index: u64| {
        let sql =
            "SELECT position, tenant_id, aggregate_type, aggregate_id, sequence, event_id, event_type, event_version,
                          payload, metadata, recorded_at FROM log.events WHERE position = $1";
        let row = log.client.query_one(sql, &[&i64::try_from(index + 1).expect("small")]).await.expect("an event");
        StoredEvent::from_row(&row).expect("an event")
    };
    for size in sizes.map(|size| u64::try_from(size).expect("positive")) {
        for index in [0, 1, 254, 255, 256, 257, 999, 65_534, 65_535, 65_536, 65_999, 69_999] {
            let Some(nodes) = inclusion(index, size) else {
                assert!(index >= size);
                continue;
            };
            let path = resolve(&log.client, &nodes, EVERY_EPOCH).await.expect("hashes");
            let hash = Hash::leaf(&[&event_store::canonical::bytes(&leaf(index).await)]);
            assert!(includes(hash, index, size, &path, root(size).expect("a head")), "{index} of {size}");
        }
        for first in sizes.map(|size| u64::try_from(size).expect("positive")).into_iter().filter(|first| *first <= size)
        {
            let nodes = consistency(first, size).expect("it is smaller");
            let path = resolve(&log.client, &nodes, EVERY_EPOCH).await.expect("hashes");
            let (of_first, of_all) = (root(first).expect("a head"), root(size).expect("a head"));
            assert!(is_consistent(first, of_first, size, of_all, &path), "{first} of {size}");
        }
    }
    // A size that no head is of is as good.
    let tree = frontier(&log.client, 3_000, EVERY_EPOCH).await.expect("hashes");
    let path = resolve(&log.client, &inclusion(2_500, 3_000).expect("in it"), EVERY_EPOCH).await.expect("hashes");
    let hash = Hash::leaf(&[&event_store::canonical::bytes(&leaf(2_500).await)]);
    assert!(includes(hash, 2_500, 3_000, &path, tree.root()));

    // What a proof takes does not grow with the log: whole groups, as they are stored.
    let rows: i64 = log.client.query_one("SELECT count(*) FROM log.tree_hashes", &[]).await.expect("rows").get(0);
    assert!(rows < 600, "{rows} rows of hashes for 70,000 events");
    let report = log.verify(&Anchors::default()).await;
    assert_eq!(
        (report.verdict(), report.events, report.unsealed, report.heads),
        (Verdict::Intact, 70_000, 0, 11),
        "{report:?}"
    );
    let sealed = log.client.query("SELECT hashes FROM log.tree_hashes WHERE level = 2", &[]).await.expect("rows");
    assert_eq!(sealed.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_is_a_document_and_every_change_of_it_is_seen() {
    let log = Sealed::new().await;
    log.append(300).await;
    let head = log.seal(&[100, 300]).await;
    let sql = "SELECT position, tenant_id, aggregate_type, aggregate_id, sequence, event_id, event_type, event_version,
                      payload, metadata, recorded_at FROM log.events WHERE position = 77";
    let event = StoredEvent::from_row(&log.client.query_one(sql, &[]).await.expect("an event")).expect("an event");
    let key = log.keys.signer();
    let proof = Proof::make(&log.client, &event, head.clone(), key).await.expect("hashes").expect("covered");
    let proof: Proof = serde_json::from_str(&serde_json::to_string(&proof).expect("JSON")).expect("a proof");
    assert_eq!(proof.check(Some(&head), Some(&key)), Ok(()));
    let other = heads::of_size(&log.client, 100).await.expect("heads").expect("a head").signed;
    assert!(proof.check(Some(&other), None).is_err(), "another head");
    assert!(proof.check(None, Some(&keys(2).signer())).is_err(), "another key");
    let changes: [fn(&mut Proof); 13] = [
        |proof| proof.version = 2,
        |proof| proof.event.position += 1,
        |proof| proof.event.sequence += 1,
        |proof| proof.event.event_version += 1,
        |proof| proof.event.tenant_id = uuid::Uuid::nil(),
        |proof| proof.event.aggregate_type.push('x'),
        |proof| proof.event.event_type.push('x'),
        |proof| proof.event.payload.push(' '),
        |proof| proof.event.metadata.push(' '),
        |proof| proof.event.recorded_at = "2026-01-01T00:00:00Z".to_owned(),
        |proof| proof.path.truncate(1),
        |proof| proof.head.head.tree_size += 1,
        |proof| proof.head.head.epoch.push('x'),
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut changed = proof.clone();
        change(&mut changed);
        assert!(changed.check(None, None).is_err(), "change {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_tail_is_told_apart_from_tampering_and_sealing_goes_on() {
    let mut log = Sealed::new().await;
    log.append(700).await;
    let lost_head = log.seal(&[300, 590, 700]).await;
    log.sql("DELETE FROM log.events WHERE position > 600").await;
    let feed = log.feed().await;
    let refused = log.resume(&feed, None).await.expect_err("nothing explains it");
    assert!(matches!(refused, SealError::Refused(Refusal::Short { position: 600, size: 700 })), "{refused}");
    assert_eq!(log.verify(&Anchors::default()).await.verdict(), Verdict::Tampered);

    begin_epoch(&mut log.client).await;
    log.append(250).await;
    let report = log.verify(&Anchors::default()).await;
    assert_eq!((report.verdict(), report.found, report.unsealed), (Verdict::TailLost, 0, 260), "{report:?}");
    let (mut sealing, lost) = log.resume(&feed, None).await.expect("it goes on");
    let lost = lost.expect("a tail was lost");
    assert_eq!((lost.from, &lost.head, lost.epoch.as_str()), (601, &lost_head, epoch(&log).await.as_str()));
    assert_eq!(sealing.size(), 600);
    let head = sealing.seal(&feed, &log.keys, 850, OffsetDateTime::now_utc()).await.expect("it seals").expect("a head");
    assert_eq!((head.number, head.signed.head.tree_size, &head.signed.head.epoch), (4, 850, &lost.epoch));

    // Proofs are of the new life: across the place where it began, and in groups that were stored before.
    for index in [0, 511, 599, 600, 649, 699, 767, 849] {
        let path = resolve(&log.client, &inclusion(index, 850).expect("in it"), EVERY_EPOCH).await.expect("hashes");
        let row = feed.after(i64::try_from(index).expect("small"), 1).await.expect("an event");
        let hash = Hash::leaf(&[&event_store::canonical::bytes(&row[0])]);
        assert!(includes(hash, index, 850, &path, head.signed.head.root_hash), "{index}");
    }
    let report = log.verify(&Anchors::default()).await;
    assert_eq!((report.verdict(), report.found, report.unsealed), (Verdict::TailLost, 0, 0), "{report:?}");
    let tail = &report.lost_tails[0];
    assert_eq!((tail.first, tail.last, tail.heads, &tail.epoch), (601, 700, 1, &lost.epoch));
    let known = Anchors { known_losses: vec![lost.epoch.clone()], ..Anchors::default() };
    assert_eq!(log.verify(&known).await.verdict(), Verdict::Intact);

    // It goes on over a restart as well, and a sealed position of the new life that changes is tampering.
    log.append(50).await;
    log.seal(&[900]).await;
    assert_eq!(log.verify(&known).await.verdict(), Verdict::Intact);
    log.sql("UPDATE log.events SET payload = '{}' WHERE position = 650").await;
    let report = log.verify(&known).await;
    assert_eq!(
        (report.verdict(), report.findings[0].what, report.findings[0].first),
        (Verdict::Tampered, What::Changed, 650)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_from_before_two_epochs_goes_on_and_the_heads_that_were_kept_say_what_is_lost() {
    let mut log = Sealed::new().await;
    log.append(400).await;
    let of_first = log.seal(&[300, 400]).await;
    log.sql("CREATE TABLE backup AS TABLE log.epochs").await;
    for _ in 0..2 {
        begin_epoch(&mut log.client).await;
        log.append(100).await;
    }
    let of_third = log.seal(&[600]).await;
    // The backup knows nothing of what came after it.
    log.sql(
        "DELETE FROM log.events WHERE position > 350; DELETE FROM log.epochs; INSERT INTO log.epochs (number, epoch_id, first_position, system_identifier, timeline)
         SELECT number, epoch_id, first_position, system_identifier, timeline FROM backup;
         DELETE FROM log.tree_heads WHERE number > 1; DELETE FROM log.tree_hashes WHERE (level = 0 AND first >= 300) OR (level > 0 AND first >= 1)",
    )
    .await;
    begin_epoch(&mut log.client).await;
    log.append(500).await;
    let feed = log.feed().await;
    let (mut sealing, lost) = log.resume(&feed, Some(&of_third)).await.expect("it goes on");
    let lost = lost.expect("a tail was lost");
    assert_eq!((lost.from, &lost.head, &lost.epoch), (351, &of_third, &epoch(&log).await));
    let long_ago = of_third.head.time - time::Duration::days(1);
    let head = sealing.seal(&feed, &log.keys, 850, long_ago).await.expect("it seals").expect("a head").signed;
    assert!(head.head.time > of_third.head.time, "heads are in the order of their times, whatever the clock says");
    let kept = Anchors { heads: vec![of_first.clone(), of_third.clone(), head.clone()], ..Anchors::default() };
    let report = log.verify(&kept).await;
    assert_eq!((report.verdict(), report.found, report.lost_tails.len()), (Verdict::TailLost, 0, 1), "{report:?}");
    assert_eq!((report.lost_tails[0].first, report.lost_tails[0].last, report.lost_tails[0].heads), (351, 600, 2));
    let known = Anchors { known_losses: vec![lost.epoch], ..kept };
    assert_eq!(log.verify(&known).await.verdict(), Verdict::Intact);

    // Whoever cuts off an epoch and takes its row away has no restored backup to point to: heads of the epoch before it were kept.
    begin_epoch(&mut log.client).await;
    log.append(50).await;
    let of_next = log.seal(&[900]).await;
    log.sql(
        "DELETE FROM log.events WHERE position > 850; DELETE FROM log.epochs WHERE number = (SELECT max(number) FROM log.epochs);
         DELETE FROM log.tree_heads WHERE tree_size > 850; DELETE FROM log.tree_hashes WHERE level = 0 AND first >= 850",
    )
    .await;
    let anchors = Anchors { heads: [known.heads.clone(), vec![of_next]].concat(), ..known };
    assert_eq!(log.verify(&anchors).await.verdict(), Verdict::Tampered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_head_that_is_not_signed_is_refused_before_it_is_believed() {
    let log = Sealed::new().await;
    log.append(400).await;
    log.seal(&[300]).await;
    let mut kept = log.seal(&[400]).await;
    log.sql(
        "DELETE FROM log.tree_heads WHERE number = 2; DELETE FROM log.tree_hashes WHERE level = 0 AND first >= 300",
    )
    .await;
    kept.head.time += time::Duration::microseconds(1);
    let refused = log.resume(&log.feed().await, Some(&kept)).await.expect_err("a damaged line");
    assert!(matches!(refused, SealError::Refused(Refusal::KeptSignature(400))), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verifiers_role_is_enough_to_verify() {
    let log = Sealed::new().await;
    log.append(700).await;
    log.seal(&[300, 700]).await;
    let verifier = log.database.client_for("prospectus_verifier").await;
    verifier.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.expect("begun");
    let report = verify(&verifier, &Anchors::default(), |_, _| {}).await.expect("it can read all of it");
    assert_eq!((report.verdict(), report.events, report.heads), (Verdict::Intact, 700, 2), "{report:?}");
}

async fn epoch(log: &Sealed) -> String {
    log.client.query_one("SELECT epoch FROM log.head", &[]).await.expect("a head").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealer_refuses_to_build_on_what_was_changed() {
    let log = Sealed::new().await;
    log.append(600).await;
    log.seal(&[300, 600]).await;
    let feed = log.feed().await;
    let event = Refusal::Changed(500);
    let changes: [(&str, &str, Refusal); 4] = [
        (
            "UPDATE log.events SET recorded_at = recorded_at + interval '1 microsecond' WHERE position = 500",
            "UPDATE log.events SET recorded_at = recorded_at - interval '1 microsecond' WHERE position = 500",
            event,
        ),
        (
            "UPDATE log.tree_heads SET signed_at = signed_at + interval '1 microsecond' WHERE number = 2",
            "UPDATE log.tree_heads SET signed_at = signed_at - interval '1 microsecond' WHERE number = 2",
            Refusal::Signature(2),
        ),
        (
            "UPDATE log.tree_hashes SET level = 7 WHERE level = 1 AND first = 0;
             INSERT INTO log.tree_hashes SELECT 1, 0, 1, hashes FROM log.tree_hashes WHERE level = 1 AND first = 1",
            "DELETE FROM log.tree_hashes WHERE level = 1 AND first = 0; UPDATE log.tree_hashes SET level = 1 WHERE level = 7",
            Refusal::StoredRoot(600),
        ),
        (
            "CREATE TABLE kept AS SELECT * FROM log.events WHERE position = 600; DELETE FROM log.events WHERE position = 600",
            "INSERT INTO log.events SELECT * FROM kept",
            Refusal::Short { position: 599, size: 600 },
        ),
    ];
    for (change, undo, expected) in changes {
        log.sql(change).await;
        match log.resume(&feed, None).await {
            Err(SealError::Refused(refusal)) => assert_eq!(refusal, expected),
            other => panic!("{change}: {other:?}"),
        }
        assert_eq!(log.verify(&Anchors::default()).await.verdict(), Verdict::Tampered, "{change}");
        log.sql(undo).await;
        log.resume(&feed, None).await.unwrap_or_else(|error| panic!("{undo}: {error}"));
    }
    assert_eq!(log.verify(&Anchors::default()).await.verdict(), Verdict::Intact);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_only_others_have_is_put_back_or_contradicts_the_log() {
    let log = Sealed::new().await;
    log.append(400).await;
    log.seal(&[300]).await;
    let known = log.seal(&[400]).await;
    // As after a promotion: the events are there, the head over them is not yet.
    let lose =
        "DELETE FROM log.tree_heads WHERE number = 2; DELETE FROM log.tree_hashes WHERE level = 0 AND first >= 300";
    log.sql(lose).await;
    let anchors = Anchors { heads: vec![known.clone()], ..Anchors::default() };
    assert_eq!(log.verify(&anchors).await.verdict(), Verdict::Intact);
    let feed = log.feed().await;
    let (mut sealing, lost) = log.resume(&feed, Some(&known)).await.expect("it goes on");
    assert_eq!((sealing.size(), lost), (300, None));
    log.append(20).await;
    let put_back =
        sealing.seal(&feed, &log.keys, 420, OffsetDateTime::now_utc()).await.expect("it seals").expect("a head");
    assert_eq!(put_back.signed, known);
    let next = sealing.seal(&feed, &log.keys, 420, OffsetDateTime::now_utc()).await.expect("it seals").expect("a head");
    assert_eq!(next.signed.head.tree_size, 420);

    // Whoever changes an event and takes away the head over it has the known head against them.
    log.sql(
        "DELETE FROM log.tree_heads WHERE number > 1; DELETE FROM log.tree_hashes WHERE level = 0 AND first >= 300",
    )
    .await;
    log.sql("UPDATE log.events SET metadata = '{}' WHERE position = 350").await;
    assert_eq!(
        log.verify(&Anchors::default()).await.verdict(),
        Verdict::Intact,
        "nothing in the database says otherwise"
    );
    assert_eq!(log.verify(&anchors).await.verdict(), Verdict::Tampered);
    let (mut sealing, _) = log.resume(&feed, Some(&known)).await.expect("it goes on");
    let refused = sealing.seal(&feed, &log.keys, 420, OffsetDateTime::now_utc()).await.expect_err("another root");
    assert!(matches!(refused, SealError::Refused(Refusal::OtherRoot(400))), "{refused}");
    // And one that cut the log off too.
    log.sql("DELETE FROM log.events WHERE position > 340").await;
    let (mut sealing, _) = log.resume(&feed, Some(&known)).await.expect("it goes on");
    let refused = sealing.seal(&feed, &log.keys, 340, OffsetDateTime::now_utc()).await.expect_err("it is short");
    assert!(matches!(refused, SealError::Refused(Refusal::Short { position: 340, size: 400 })), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_and_old_heads_stay_verifiable() {
    let mut log = Sealed::new().await;
    log.append(30).await;
    log.seal(&[10]).await;
    let first = log.keys.signer();
    log.keys = keys(2);
    let head = log.seal(&[20]).await;
    assert!(head.is_signed_by(&log.keys.signer()));
    assert_eq!(log.verify(&Anchors::default()).await.verdict(), Verdict::Intact);
    let pinned = |keys| Anchors { keys, ..Anchors::default() };
    assert_eq!(log.verify(&pinned(vec![first, log.keys.signer()])).await.verdict(), Verdict::Intact);
    let report = log.verify(&pinned(vec![log.keys.signer()])).await;
    assert_eq!((report.found, report.findings[0].what), (1, What::HeadOfAnotherKey), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sealers_of_one_log_collide_and_nothing_is_sealed_twice() {
    let log = Sealed::new().await;
    log.append(30).await;
    let (one, other) = (log.feed().await, log.feed().await);
    let (mut first, _) = log.resume(&one, None).await.expect("it begins");
    let (mut second, _) = log.resume(&other, None).await.expect("it begins");
    first.seal(&one, &log.keys, 20, OffsetDateTime::now_utc()).await.expect("it seals").expect("a head");
    let refused =
        second.seal(&other, &log.keys, 30, OffsetDateTime::now_utc()).await.expect_err("another one was first");
    let SealError::Database(error) = refused else { panic!("{refused}") };
    assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));
    assert_eq!(log.verify(&Anchors::default()).await.verdict(), Verdict::Intact);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_heads_is_not_called_intact() {
    let log = Sealed::new().await;
    assert_eq!(log.verify(&Anchors::default()).await.verdict(), Verdict::Intact, "there is nothing to prove");
    log.append(3).await;
    let report = log.verify(&Anchors::default()).await;
    assert_eq!((report.verdict(), report.events, report.unsealed), (Verdict::Unsealed, 3, 3));
}
