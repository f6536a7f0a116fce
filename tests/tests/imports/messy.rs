//! A messy list comes to what its rows say, record for record: at once, again, in parts at the same time, and with the service killed.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bench::messy::{HEADER, MAPPING, Messy};
use bytes::Bytes;
use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::Value;
use service_kit::auth::ApiKey;
use tests::{Client, TestStack, eventually};
use uuid::Uuid;

use super::reference::{Expected, Records, SOURCE, Shown, expect};

/// How long an import may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Lines of the list that is imported twice; `$PROSPECTUS_TEST_MESSY_LINES` asks for another number. 200,000 took 224 seconds on two cores
/// that others were using too.
fn lines() -> u64 {
    let wanted = std::env::var("PROSPECTUS_TEST_MESSY_LINES").ok();
    wanted.map_or(100_000, |lines| lines.parse().expect("PROSPECTUS_TEST_MESSY_LINES is a number"))
}

/// A part of a list, with its header.
fn list(messy: Messy, numbers: impl Iterator<Item = u64>) -> String {
    let mut list = HEADER.to_owned();
    numbers.for_each(|number| list.push_str(&messy.line(number)));
    list
}

/// Sends a list; gives the import that runs now.
async fn send(client: &Client, list: &str) -> String {
    const BOUNDARY: &str = "a-boundary-that-no-line-holds";
    let part = |name: &str| format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
    let body = [&part("mapping"), MAPPING, "\r\n", &part("file"), list, &format!("\r\n--{BOUNDARY}--\r\n")].concat();
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let headers = [("content-type", content_type.as_str())];
    let path = format!("/v1/imports?source={SOURCE}");
    let answer = client.try_command(Method::POST, &path, &headers, Bytes::from(body)).await.expect("an answer");
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    answer.id()
}

/// What became of an import, once it is at its end.
async fn end_of(client: &Client, import_id: &str) -> Value {
    let started = Instant::now();
    loop {
        // The service may be dead for a moment.
        if let Ok(answer) =
            client.try_command(Method::GET, &format!("/v1/imports/{import_id}"), &[], Bytes::new()).await
            && answer.status == StatusCode::OK
            && !["receiving", "running"].contains(&answer.json["state"].as_str().expect("a state"))
        {
            assert_eq!(answer.json["state"], "done", "{answer:?}");
            return answer.json;
        }
        assert!(started.elapsed() < PATIENCE, "the import does not end");
        tokio::time::sleep(LOOK).await;
    }
}

/// The outcomes of an import's rows, a line of JSON each.
async fn rows_of(client: &Client, import_id: &str) -> Vec<Value> {
    let path = format!("/v1/imports/{import_id}/rows");
    let answer = client.try_command(Method::GET, &path, &[], Bytes::new()).await.expect("an answer");
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.status);
    let lines = answer.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect()
}

/// All records of a tenant as its read tables on the replica show them, once these are at a position.
async fn records_at(test: &TestStack, tenant: Uuid, position: i64) -> Records {
    const AT: &str = "
        SELECT EXISTS (SELECT FROM read.checkpoints WHERE position >= $1) AND NOT EXISTS (SELECT FROM read.fanout)";
    // Without what follows from other columns, and what is of one life of the records alone. Which of two companies of one name came later,
    // and so is in review, depends on the order of the rows: the rows' outcomes tell.
    const COMPANIES: &str = "
        SELECT (to_jsonb(c) - ARRAY['tenant_id', 'company_id', 'version', 'position', 'created_at', 'updated_at', 'name_sort',
                'name_key', 'looks_like_company_id', 'review_since'])::text
        FROM read.companies AS c WHERE tenant_id = $1";
    const PROSPECTS: &str = "
        SELECT ((to_jsonb(p) - ARRAY['tenant_id', 'row_id', 'position', 'assigned_company_id', 'company_id', 'company_name',
                'company_name_sort', 'industry', 'employee_count', 'min_employee_size', 'max_employee_size', 'revenue',
                'company_address', 'company_city', 'company_state', 'company_country', 'company_zip_code', 'company_phone',
                'company_mobile_phone', 'company_version', 'company_created_at', 'company_updated_at', 'prospect_id',
                'prospect_name_sort', 'email_key', 'prospect_version', 'prospect_position', 'prospect_created_at',
                'prospect_updated_at', 'created_at', 'updated_at', 'review', 'review_since', 'hint_name', 'hint_country', 'hint_host'])
            || jsonb_build_object('in_review', review IS NOT NULL))::text
        FROM read.company_prospect AS p WHERE tenant_id = $1 AND prospect_id IS NOT NULL";
    let replica = test.superuser(Part::Replica(1)).await;
    let started = Instant::now();
    while !replica.query_one(AT, &[&position]).await.expect("the replica answers").get::<_, bool>(0) {
        assert!(started.elapsed() < PATIENCE, "the replica does not come to {position}");
        tokio::time::sleep(LOOK).await;
    }
    let shown = async |sql: &str| {
        let rows = replica.query(sql, &[&tenant]).await.expect("the replica answers");
        rows.iter().map(|row| shown(row.get(0))).collect::<Vec<Shown>>()
    };
    Records { companies: shown(COMPANIES).await, prospects: shown(PROSPECTS).await }.sorted()
}

/// A row without what is blank, and with the ids that the importer gives to persons without one made alike.
fn shown(row: &str) -> Shown {
    let mut row: Shown = serde_json::from_str(row).expect("JSON");
    row.retain(|_, value| match value {
        Value::Null => false,
        Value::Array(entries) => !entries.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => true,
    });
    for reference in row.get_mut("prospect_external_refs").and_then(Value::as_array_mut).into_iter().flatten() {
        if reference["id"].as_str().is_some_and(|id| id.starts_with("row:")) {
            reference["id"] = "its own".into();
        }
    }
    row
}

fn assert_equal(records: &Records, expected: &Records) {
    for (what, ours, theirs) in
        [("companies", &records.companies, &expected.companies), ("prospects", &records.prospects, &expected.prospects)]
    {
        let differ = ours.iter().zip(theirs).position(|(ours, theirs)| ours != theirs);
        if let Some(at) = differ {
            panic!("{what} {at}: {:#?}\nexpected: {:#?}", ours[at], theirs[at]);
        }
        assert_eq!(ours.len(), theirs.len(), "{what}");
    }
}

/// Row by row, with the text of the first that is not as expected.
fn assert_outcomes(rows: &[Value], expected: &[&str]) {
    for (row, expected) in rows.iter().zip(expected) {
        assert_eq!(row["outcome"], *expected, "{row:#}");
    }
    assert_eq!(rows.len(), expected.len());
}

/// The import's own counts, as its document should have them.
fn assert_counts(import: &Value, outcomes: &[&str], expected: &Expected, place: &str) {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for outcome in outcomes {
        *counts.entry(outcome).or_default() += 1;
    }
    for outcome in ["created", "updated", "unchanged", "in_review", "refused"] {
        assert_eq!(import["rows"][outcome], counts.get(outcome).copied().unwrap_or(0), "{outcome}: {import}");
    }
    assert_eq!(import["rows"]["read"], outcomes.len(), "{import}");
    for change in ["created", "updated", "unchanged"] {
        let count = |records: &Vec<Shown>| if change == place { records.len() } else { 0 };
        assert_eq!(import["companies"][change], count(&expected.records.companies), "{change}: {import}");
        assert_eq!(import["prospects"][change], count(&expected.records.prospects), "{change}: {import}");
    }
}

async fn demo(test: &TestStack) -> Uuid {
    let superuser = test.superuser(Part::Primary).await;
    superuser.query_one("SELECT tenant_id FROM access.tenants WHERE name = 'demo'", &[]).await.expect("a tenant").get(0)
}

/// How many events of companies and prospects the log has.
async fn events(test: &TestStack) -> i64 {
    const SQL: &str = "SELECT count(*) FROM log.events WHERE aggregate_type IN ('company', 'prospect')";
    test.superuser(Part::Primary).await.query_one(SQL, &[]).await.expect("counted").get(0)
}

fn position(import: &Value) -> i64 {
    import["position"].as_i64().expect("a position")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_messy_list_comes_to_what_its_rows_say_and_again_to_nothing() {
    let messy = Messy::new(1, lines());
    let list = list(messy, 1..=lines());
    let expected = expect(&list);
    assert!(expected.look_alikes > 10 && expected.records.prospects.len() > expected.records.companies.len());
    let test = TestStack::start().await;
    let client = test.client();
    let started = Instant::now();
    let first = send(&client, &list).await;
    let import = end_of(&client, &first).await;
    println!("{} lines in {:?}", lines(), started.elapsed());
    assert_equal(&records_at(&test, demo(&test).await, position(&import)).await, &expected.records);
    assert_outcomes(&rows_of(&client, &first).await, &expected.outcomes);
    assert_counts(&import, &expected.outcomes, &expected, "created");

    let before = events(&test).await;
    let started = Instant::now();
    let second = send(&client, &list).await;
    let import = end_of(&client, &second).await;
    println!("again in {:?}", started.elapsed());
    assert_eq!(events(&test).await, before, "the second time nothing happens to any record");
    assert_outcomes(&rows_of(&client, &second).await, &expected.again);
    assert_counts(&import, &expected.again, &expected, "unchanged");
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_parts_at_the_same_time_come_to_what_the_whole_does() {
    const LINES: u64 = 40_000;
    let messy = Messy::new(2, LINES);
    let expected = expect(&list(messy, 1..=LINES));
    let test = TestStack::start().await;
    let client = test.client();
    let parts = (0..4).map(|part| list(messy, part * LINES / 4 + 1..=(part + 1) * LINES / 4));
    let imports = parts.map(|part| {
        let client = client.clone();
        tokio::spawn(async move {
            let import = send(&client, &part).await;
            position(&end_of(&client, &import).await)
        })
    });
    let mut newest = 0;
    for import in imports.collect::<Vec<_>>() {
        newest = newest.max(import.await.expect("an import"));
    }
    assert_equal(&records_at(&test, demo(&test).await, newest).await, &expected.records);
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_change_nothing_of_an_import() {
    const LINES: u64 = 30_000;
    const KILLS: i64 = 10;
    let messy = Messy::new(3, LINES);
    let list = list(messy, 1..=LINES);
    let test = TestStack::start().await;
    let (undisturbed, demo) = (test.client(), demo(&test).await);
    let first = send(&undisturbed, &list).await;
    let quiet = end_of(&undisturbed, &first).await;

    // The same for another tenant, with the service killed again and again.
    let (tenant, key) = (Uuid::now_v7(), ApiKey::generate().expect("random numbers"));
    let superuser = test.superuser(Part::Primary).await;
    let sql = "INSERT INTO access.tenants (tenant_id, name) VALUES ($1, 'killed')";
    superuser.execute(sql, &[&tenant]).await.expect("a tenant");
    let sql = "INSERT INTO access.api_keys (prefix, tenant_id, secret_sha256, role) VALUES ($1, $2, $3, 'admin')";
    superuser.execute(sql, &[&key.prefix(), &tenant, &&key.secret_sha256()[..]]).await.expect("a key");
    let head =
        async || -> i64 { superuser.query_one("SELECT position FROM log.head", &[]).await.expect("a head").get(0) };
    let (total, start) = (head().await, head().await);
    let disturbed = test.client_with(key.expose());
    let second = send(&disturbed, &list).await;
    let mut moments: Vec<i64> = (0..KILLS).map(|_| random_below(total * 9 / 10)).collect();
    moments.sort_unstable();
    println!("killed after {moments:?} of {total} events");
    for moment in moments {
        let came = eventually("more events", async || Some(head().await).filter(|now| *now >= start + moment)).await;
        assert!(came < start + total, "it still runs");
        let pid = test.stack.pid(Part::CommandService(1));
        test.stack.kill(Part::CommandService(1));
        eventually("a new process", async || test.stack.pid(Part::CommandService(1)).filter(|now| Some(*now) != pid))
            .await;
    }
    let killed = end_of(&disturbed, &second).await;

    for counts in ["rows", "companies", "prospects"] {
        assert_eq!(killed[counts], quiet[counts], "{counts}");
    }
    let rows = [numbered(rows_of(&undisturbed, &first).await), numbered(rows_of(&disturbed, &second).await)];
    for (quiet, killed) in rows[0].iter().zip(&rows[1]) {
        assert_eq!(quiet, killed);
    }
    assert_eq!(rows[0].len(), rows[1].len());
    let position = position(&quiet).max(self::position(&killed));
    let left = records_at(&test, demo, position).await;
    assert_equal(&records_at(&test, tenant, position).await, &left);
    assert_equal(&left, &expect(&list).records);
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}

fn random_below(bound: i64) -> i64 {
    i64::try_from(Uuid::new_v4().as_u128() % u128::try_from(bound).expect("positive")).expect("less than an i64")
}

/// Outcomes with each id as the number of the first row that has it, so that those of two imports can be compared.
fn numbered(rows: Vec<Value>) -> Vec<String> {
    let mut known: HashMap<Uuid, usize> = HashMap::new();
    let rows = rows.into_iter().map(|row| {
        let mut text = row.to_string();
        let mut at: usize = 0;
        while at + 36 <= text.len() {
            if let Some(id) =
                text.get(at..at + 36).filter(|id| id.as_bytes()[8] == b'-').and_then(|id| Uuid::parse_str(id).ok())
            {
                let next = known.len();
                let number = format!("record {}", known.entry(id).or_insert(next));
                text.replace_range(at..at + 36, &number);
                at += number.len();
            } else {
                at += 1;
            }
        }
        text
    });
    rows.collect()
}
