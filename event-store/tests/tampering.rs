//! A thousand ways in which a superuser changes what was sealed: the verifier finds every one, and says where, as exactly as what is
//! stored permits.

use event_store::StoredEvent;
use event_store::proof::heads;
use event_store::proof::verify::{Anchors, Report, Verdict, What, verify};
use event_store::proof::{Frontier, Hash, SignedHead};

use crate::sealed::{Sealed, keys};

const EVENTS: u64 = 2_500;
const TAMPERINGS: u64 = 1_000;
/// Statements that leave dead rows behind are cleared away after as many.
const VACUUM_EVERY: u64 = 50;

/// Numbers that look random and are the same in every run.
struct Draw(u64);

impl Draw {
    /// One of 1, 2, …, `most`.
    fn up_to(&mut self, most: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % most + 1
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_one_of_a_thousand_tamperings_is_found() {
    let log = Sealed::new().await;
    log.append(i64::try_from(EVENTS).expect("small")).await;
    let mut draw = Draw(4711);
    let mut sizes: Vec<i64> = (0..40).map(|_| i64::try_from(draw.up_to(EVENTS)).expect("small")).collect();
    sizes.push(i64::try_from(EVENTS).expect("small"));
    sizes.sort_unstable();
    sizes.dedup();
    let kept = log.seal(&sizes).await;
    let intact = log.verify(&Anchors::default()).await;
    assert_eq!((intact.verdict(), intact.found), (Verdict::Intact, 0), "{intact:?}");

    for number in 0..TAMPERINGS {
        log.sql("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
        tamper(&log, number, &mut draw, &sizes, &kept).await;
        log.sql("ROLLBACK").await;
        if number % VACUUM_EVERY == 0 {
            for table in ["events", "tree_hashes", "tree_heads"] {
                log.sql(&format!("VACUUM log.{table}")).await;
            }
        }
    }
    let intact = log.verify(&Anchors::default()).await;
    assert_eq!((intact.verdict(), intact.found), (Verdict::Intact, 0), "{intact:?}");
}

async fn found(log: &Sealed, anchors: &Anchors, what: &str) -> Report {
    let report = verify(&log.client, anchors, |_, _| {}).await.expect("it can be read");
    assert_eq!(report.verdict(), Verdict::Tampered, "not found: {what}: {report:?}");
    report
}

/// That this is what was found, first or alone, since the first head over it.
fn says(report: &Report, what: What, first: u64, last: u64, sizes: &[i64]) {
    let bounds = (i64::try_from(first).expect("small"), i64::try_from(last).expect("small"));
    let finding = report
        .findings
        .iter()
        .find(|finding| (finding.what, finding.first, finding.last) == (what, bounds.0, bounds.1));
    let finding = finding.unwrap_or_else(|| panic!("{what:?} {bounds:?} is not in {report:?}"));
    let since = finding.since.as_ref().map(|since| i64::try_from(since.tree_size).expect("small"));
    assert_eq!(since, sizes.iter().copied().find(|size| *size >= bounds.0), "{report:?}");
}

#[expect(clippy::too_many_lines, reason = "a table of what can be done to a log")]
async fn tamper(log: &Sealed, number: u64, draw: &mut Draw, sizes: &[i64], kept: &SignedHead) {
    let position = draw.up_to(EVENTS);
    let none = Anchors::default();
    let edits = [
        "payload = json_build_object('forged', position)",
        "payload = (payload::text || ' ')::json",
        "recorded_at = recorded_at + interval '1 microsecond'",
        "metadata = json_build_object('actor', 'key:forged')",
        "event_id = gen_random_uuid()",
        "tenant_id = gen_random_uuid()",
        "aggregate_id = gen_random_uuid()",
        "aggregate_type = 'prospect'",
        "event_type = 'CompanyDeleted'",
        "event_version = event_version + 1",
        "sequence = sequence + 1000",
        "recorded_at = 'infinity'",
    ];
    match number % 10 {
        0..=2 => {
            let edit = edits[usize::try_from(number / 10 % 12).expect("small")];
            log.sql(&format!("UPDATE log.events SET {edit} WHERE position = {position}")).await;
            let report = found(log, &none, edit).await;
            says(&report, What::Changed, position, position, sizes);
            assert_eq!(report.found, 1, "{report:?}");
        }
        3 => {
            log.sql(&format!("DELETE FROM log.events WHERE position = {position}")).await;
            let report = found(log, &none, "deleted").await;
            let what = if position == EVENTS { What::Truncated } else { What::Removed };
            says(&report, what, position, position, sizes);
            assert_eq!(report.found, 1, "{report:?}");
        }
        4 => {
            log.sql(&format!("DELETE FROM log.events WHERE position = {position}")).await;
            shift(log, position, -1).await;
            let report = found(log, &none, "deleted, and the gap closed").await;
            let what = if position == EVENTS { What::Truncated } else { What::Removed };
            says(&report, what, position, position, sizes);
        }
        5 => {
            shift(log, position, 1).await;
            log.sql(&format!(
                "INSERT INTO log.events SELECT {position}, tenant_id, aggregate_type, aggregate_id, 1000, gen_random_uuid(), event_type,
                     event_version, payload, metadata, recorded_at FROM log.events WHERE position = {position} + 1"
            ))
            .await;
            let report = found(log, &none, "inserted").await;
            // At the very end, what was sealed there has moved out of what is sealed.
            let what = if position == EVENTS { What::Changed } else { What::Inserted };
            says(&report, what, position, position, sizes);
        }
        6 => {
            let other = position % EVENTS + 1;
            let other = if number % 20 == 6 { other } else { draw.up_to(EVENTS) };
            if other == position {
                log.sql(&format!("DELETE FROM log.events WHERE position = {position}")).await;
                found(log, &none, "deleted").await;
                return;
            }
            log.sql(&format!(
                "UPDATE log.events SET position = 1000000 WHERE position = {position};
                 UPDATE log.events SET position = {position} WHERE position = {other};
                 UPDATE log.events SET position = {other} WHERE position = 1000000"
            ))
            .await;
            let report = found(log, &none, "swapped").await;
            for (here, there) in [(position, other), (other, position)] {
                says(&report, What::Moved, here, here, sizes);
                let there = i64::try_from(there).expect("small");
                assert!(report.findings.iter().any(|finding| finding.from == Some(there)), "{report:?}");
            }
            assert_eq!(report.found, 2, "{report:?}");
        }
        7 => {
            log.sql(&format!("DELETE FROM log.events WHERE position >= {position}")).await;
            let report = found(log, &none, "cut off").await;
            says(&report, What::Truncated, position, EVENTS, sizes);
            assert_eq!(report.found, 1, "{report:?}");
        }
        8 => {
            log.sql(&format!("UPDATE log.events SET payload = '{{\"forged\": true}}' WHERE position = {position}"))
                .await;
            let roots = rewrite_hashes(log).await;
            match number / 10 % 3 {
                // The heads as they were: neither the events nor the hashes lead to them.
                0 => {
                    let report = found(log, &none, "rewritten with its hashes").await;
                    let before =
                        sizes.iter().copied().filter(|size| *size < i64::try_from(position).expect("small")).max();
                    let first = u64::try_from(before.unwrap_or(0) + 1).expect("positive");
                    let last = sizes.iter().copied().find(|size| *size >= i64::try_from(position).expect("small"));
                    let last = u64::try_from(last.expect("a head")).expect("positive");
                    let finding = report.findings.iter().find(|finding| finding.what == What::Rewritten);
                    let finding = finding.unwrap_or_else(|| panic!("{report:?}"));
                    assert_eq!((finding.first, finding.last), (first.cast_signed(), last.cast_signed()), "{report:?}");
                }
                // With the heads' roots too, which nobody can sign.
                1 => {
                    write_roots(log, &roots).await;
                    let report = found(log, &none, "rewritten with its hashes and the heads' roots").await;
                    assert!(report.findings.iter().any(|finding| finding.what == What::HeadInvalid), "{report:?}");
                }
                // Signed anew with another key that is put among the log's: only what is known outside shows it.
                _ => {
                    sign_anew(log).await;
                    let report = verify(&log.client, &none, |_, _| {}).await.expect("it can be read");
                    assert_eq!(report.verdict(), Verdict::Intact, "the database alone cannot show it: {report:?}");
                    let pinned = Anchors { keys: vec![log.keys.signer()], ..Anchors::default() };
                    found(log, &pinned, "signed anew, with the key pinned").await;
                    let anchored = Anchors { heads: vec![kept.clone()], ..Anchors::default() };
                    found(log, &anchored, "signed anew, with a head that was kept").await;
                }
            }
        }
        _ => {
            let count = i64::try_from(sizes.len()).expect("small");
            let head = i64::try_from(draw.up_to(u64::try_from(count).expect("small") - 1)).expect("small");
            let anchored = Anchors { heads: vec![kept.clone()], ..Anchors::default() };
            match number / 10 % 5 {
                0 => {
                    log.sql(&format!("DELETE FROM log.tree_heads WHERE number = {head}")).await;
                    let report = found(log, &none, "a head removed").await;
                    assert_eq!(report.findings[0].what, What::HeadsMissing);
                }
                1 => {
                    log.sql(&format!(
                        "UPDATE log.tree_heads SET signed_at = signed_at - interval '1 day' WHERE number = {head}"
                    ))
                    .await;
                    let report = found(log, &none, "a head's time").await;
                    assert_eq!(report.findings[0].what, What::HeadInvalid);
                }
                2 => {
                    log.sql("UPDATE log.tree_hashes SET hashes = sha256('x') || substr(hashes, 33) WHERE (level, first) IN (SELECT level, first FROM log.tree_hashes ORDER BY random() LIMIT 1)").await;
                    let report = found(log, &none, "a stored hash").await;
                    assert!(report.findings.iter().all(|finding| finding.what == What::StoredHash), "{report:?}");
                }
                // The newest events with the heads and hashes over them: only a head that was kept shows it.
                3 => {
                    let size = sizes[usize::try_from(head - 1).expect("small")];
                    log.sql(&format!(
                        "DELETE FROM log.tree_heads WHERE number > {head}; DELETE FROM log.tree_hashes WHERE level = 0 AND first >= {size};
                         DELETE FROM log.tree_hashes WHERE level > 0 AND (first + 1) * 256 > {size};
                         DELETE FROM log.events WHERE position > {size}"
                    ))
                    .await;
                    let report = found(log, &anchored, "cut off with its heads").await;
                    assert!(report.findings.iter().any(|finding| finding.what == What::Truncated), "{report:?}");
                }
                _ => {
                    log.sql("UPDATE log.seal_keys SET public_key = sha256('x')").await;
                    found(log, &none, "the public key").await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_over_what_cannot_be_are_found_and_keep_nobody_busy() {
    let log = Sealed::new().await;
    log.append(300).await;
    log.seal(&[100, 300]).await;
    log.append(20).await;
    let far = i64::MAX;
    // Whoever cannot sign: a head over more than there ever will be.
    log.sql("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    log.sql(&format!(
        "INSERT INTO log.tree_heads SELECT 3, log_id, epoch, {far}, root_hash, signed_at, key_id, signature FROM log.tree_heads WHERE number = 2"
    ))
    .await;
    let report = found(&log, &Anchors::default(), "a head that is not signed").await;
    assert_eq!((report.found, report.findings[0].what, report.unsealed), (1, What::HeadInvalid, 20), "{report:?}");
    log.sql("ROLLBACK").await;
    // And whoever brings a key along, with an event out there too.
    log.sql("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    heads::publish_keys(&log.client, &keys(66)).await.expect("a key");
    let mut head = heads::newest(&log.client).await.expect("heads").expect("a head").signed.head;
    head.tree_size = far.unsigned_abs();
    let signed = head.sign(&keys(66));
    let sql = "INSERT INTO log.tree_heads SELECT 3, log_id, epoch, $1, root_hash, signed_at, $2, $3 FROM log.tree_heads WHERE number = 2";
    log.client.execute(sql, &[&far, &signed.key_id, &signed.signature.to_vec()]).await.expect("a head");
    let report = found(&log, &Anchors::default(), "a head of another hand").await;
    let cut_off = report.findings.iter().any(|finding| (finding.what, finding.last) == (What::Truncated, far));
    assert!(cut_off, "{report:?}");
    log.sql(&format!("UPDATE log.events SET position = {far} - 5 WHERE position = 320")).await;
    let report = found(&log, &Anchors::default(), "a head and an event").await;
    assert_eq!(report.events, 319, "what lies behind such a hole is not looked at: {report:?}");
    log.sql("ROLLBACK").await;
    assert_eq!(log.verify(&Anchors::default()).await.verdict(), Verdict::Intact);
}

/// Renumbers every event from a position on.
async fn shift(log: &Sealed, from: u64, by: i64) {
    log.sql(&format!(
        "UPDATE log.events SET position = position + 1000000 WHERE position >= {from};
         UPDATE log.events SET position = position - 1000000 + {by} WHERE position >= 1000000"
    ))
    .await;
}

/// Makes the stored hashes anew from the events as they are; gives the roots of all sizes.
async fn rewrite_hashes(log: &Sealed) -> Vec<Hash> {
    let sql = "SELECT position, tenant_id, aggregate_type, aggregate_id, sequence, event_id, event_type, event_version,
                      payload, metadata, recorded_at FROM log.events ORDER BY position";
    let (mut tree, mut roots) = (Frontier::default(), vec![Hash::empty()]);
    let (mut levels, mut firsts, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
    for row in log.client.query(sql, &[]).await.expect("events") {
        let event = StoredEvent::from_row(&row).expect("an event");
        tree.append(Hash::leaf(&[&event_store::canonical::bytes(&event)]), |complete| {
            levels.push(i16::try_from(complete.level).expect("small"));
            firsts.push(i64::try_from(complete.index).expect("small"));
            hashes.push(complete.hash.as_bytes().to_vec());
        });
        roots.push(tree.root());
    }
    log.sql("DELETE FROM log.tree_hashes").await;
    let sql = "INSERT INTO log.tree_hashes (level, first, epoch, hashes)
               SELECT n.level, n.first, 1, n.hashes FROM unnest($1::smallint[], $2::bigint[], $3::bytea[]) AS n (level, first, hashes)";
    log.client.execute(sql, &[&levels, &firsts, &hashes]).await.expect("hashes");
    roots
}

async fn write_roots(log: &Sealed, roots: &[Hash]) {
    let roots: Vec<Vec<u8>> = roots.iter().skip(1).map(|root| root.as_bytes().to_vec()).collect();
    let sql =
        "UPDATE log.tree_heads AS h SET root_hash = r.root FROM unnest($1::bytea[]) WITH ORDINALITY AS r (root, size)
               WHERE r.size = h.tree_size";
    log.client.execute(sql, &[&roots]).await.expect("roots");
}

/// Signs every head anew, over the events as they are, with a key of another hand.
async fn sign_anew(log: &Sealed) {
    let forged = keys(66);
    heads::publish_keys(&log.client, &forged).await.expect("a key");
    let roots = rewrite_hashes(log).await;
    for stored in heads::after(&log.client, 0, 1_000).await.expect("heads") {
        let mut head = stored.signed.head;
        head.root_hash = roots[usize::try_from(head.tree_size).expect("small")];
        let signed = head.sign(&forged);
        let sql = "UPDATE log.tree_heads SET root_hash = $2, key_id = $3, signature = $4 WHERE number = $1";
        let (root, signature) = (signed.head.root_hash.as_bytes().to_vec(), signed.signature.to_vec());
        log.client.execute(sql, &[&stored.number, &root, &signed.key_id, &signature]).await.expect("a head");
    }
}
