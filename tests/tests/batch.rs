//! `POST /v1/batch`: lines take effect in order, a full queue slows a batch down, and one that ends early says so.

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::{Value, json};
use tests::{Client, TestStack, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The answers to these lines, in order.
async fn send(client: &Client, lines: &[Value]) -> Vec<Value> {
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    let sent = client.try_command(Method::POST, "/v1/batch", &[], text.join("\n")).await;
    let answer = sent.expect("the command service answers");
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let answers: Vec<Value> = lines_of(&answer.bytes);
    assert_eq!(answers.len(), lines.len(), "{answers:?}");
    answers
}

fn lines_of(bytes: &[u8]) -> Vec<Value> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect()
}

fn register(body: &Value) -> Value {
    json!({"method": "POST", "path": "/v1/companies", "body": body})
}

/// Lines in the life of a company that is there already, and what is answered: a status, and a code where it is refused.
fn life(id: &str, number: usize) -> Vec<(Value, u16, Option<&'static str>)> {
    let path = format!("/v1/companies/{id}");
    let (domain, other) = (format!("d{number}.example"), format!("other{number}.example"));
    let (reference, key) = (json!([{"source": "crm", "id": number.to_string()}]), format!("k{number}"));
    let patch = |body: Value| json!({"method": "PATCH", "path": path, "body": body});
    let at = |version: i64, body: Value| json!({"method": "PATCH", "path": path, "body": body, "if_match": version});
    let keyed =
        |name: &str| json!({"method": "POST", "path": "/v1/companies", "body": {"name": name}, "idempotency_key": key});
    vec![
        // The first company has the domain until it gives it up.
        (register(&json!({"domain": domain})), 409, Some("claim_taken")),
        (at(1, json!({"name": "Changed"})), 200, None),
        (at(2, json!({"name": "Changed again"})), 200, None),
        (at(2, json!({"name": "Too late"})), 412, Some("precondition_failed")),
        (at(3, json!({"domain": other, "external_refs": reference})), 200, None),
        (register(&json!({"name": "Second", "domain": domain})), 201, None),
        (register(&json!({"name": "Has its reference", "external_refs": reference})), 409, Some("claim_taken")),
        (patch(json!({"external_refs": []})), 200, None),
        (register(&json!({"name": "Third", "external_refs": reference})), 201, None),
        // Deleted it gives up the rest, and cannot have it back.
        (register(&json!({"domain": other})), 409, Some("claim_taken")),
        (json!({"method": "DELETE", "path": path}), 200, None),
        (patch(json!({"name": "Too late"})), 409, Some("deleted")),
        (json!({"method": "POST", "path": format!("{path}/restore")}), 200, None),
        (patch(json!({"name": "Back"})), 200, None),
        (json!({"method": "DELETE", "path": path}), 200, None),
        (register(&json!({"name": "Fourth", "domain": other})), 201, None),
        (json!({"method": "POST", "path": format!("{path}/restore")}), 409, Some("claim_taken")),
        // One idempotency key is one command, and another body is another command.
        (keyed("Once"), 201, None),
        (keyed("Once"), 201, None),
        (keyed("Other"), 422, Some("idempotency_key_reused")),
        // A line that names one thing twice does not wait for itself.
        (
            register(&json!({"name": "Twice", "domain": format!("twice{number}.example"),
            "additional_domains": [format!("twice{number}.example")]})),
            201,
            None,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_depend_on_each_other_take_effect_in_order() {
    let test = TestStack::start().await;
    let client = test.client();
    let first: Vec<Value> =
        (0..60).map(|number| register(&json!({"name": "First", "domain": format!("d{number}.example")}))).collect();
    let first: Vec<String> = send(&client, &first)
        .await
        .iter()
        .map(|answer| answer["body"]["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned())
        .collect();
    let lives: Vec<_> = first.iter().enumerate().map(|(number, id)| life(id, number)).collect();
    // One after the other; and all in step with each other, so that many are under way at the same time.
    let (apart, in_step) = lives.split_at(30);
    let in_step: Vec<_> =
        (0..in_step[0].len()).flat_map(|at| in_step.iter().map(move |life| life[at].clone())).collect();
    for script in [apart.concat(), in_step] {
        let lines: Vec<Value> = script.iter().map(|(line, ..)| line.clone()).collect();
        let answers = send(&client, &lines).await;
        for ((line, status, code), answer) in script.iter().zip(&answers) {
            assert_eq!(answer["status"], *status, "{line}: {answer}");
            assert_eq!(answer["body"]["code"].as_str(), *code, "{line}: {answer}");
        }
        let once = |line: &Value| line["body"]["name"] == "Once";
        let mut ids: Vec<(&str, &str)> = script
            .iter()
            .zip(&answers)
            .filter(|((line, ..), _)| once(line))
            .filter_map(|((line, ..), answer)| {
                Some((line["idempotency_key"].as_str()?, answer["body"]["id"].as_str()?))
            })
            .collect();
        assert_eq!(ids.len(), 60, "two lines for each of thirty keys");
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 30, "each key is one company");
    }
    tests::read_tables_equal_the_log(&test).await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_slows_batches_down_and_fails_no_line() {
    // Together they have more lines under way than the queue, and what is taken out of it while the log stands still, can hold.
    const BATCHES: usize = 48;
    const LINES: usize = 260;
    let test = TestStack::start_with(|options| {
        options.environment.push(("PROSPECTUS_COMMAND_DEADLINE_SECONDS".to_owned(), "120".to_owned()));
    })
    .await;
    let client = test.client();
    let mut superuser = test.superuser(Part::Primary).await;
    let held = superuser.transaction().await.expect("begun");
    held.batch_execute("SELECT log.take_lock()").await.expect("the log's lock");
    let mut batches = tokio::task::JoinSet::new();
    for batch in 0..BATCHES {
        let client = client.clone();
        batches.spawn(async move {
            let lines: Vec<Value> =
                (0..LINES).map(|line| register(&json!({"name": format!("Company {batch}-{line}")}))).collect();
            send(&client, &lines).await
        });
    }
    // Commands of their own do not wait: the first one that is refused says that the queue is full.
    let mut single = tokio::task::JoinSet::new();
    eventually("the queue is full", async || {
        let client = client.clone();
        single.spawn(async move { client.command(Method::POST, "/v1/companies", &json!({"name": "Alone"})).await });
        let answer = single.try_join_next()?.expect("no panic");
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "the log stands still: {answer:?}");
        assert_eq!(answer.json["code"], "overloaded", "{answer:?}");
        Some(())
    })
    .await;
    held.commit().await.expect("the lock is let go");
    let mut done = 0;
    while let Some(answers) = batches.join_next().await {
        for answer in answers.expect("no panic") {
            assert_eq!(answer["status"], 201, "{answer}");
            done += 1;
        }
    }
    assert_eq!(done, BATCHES * LINES);
    while let Some(answer) = single.join_next().await {
        let answer = answer.expect("no panic");
        assert!([StatusCode::CREATED, StatusCode::SERVICE_UNAVAILABLE].contains(&answer.status), "{answer:?}");
    }
    test.finish().await;
}

/// A batch that is sent and read piece by piece.
struct Open {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Open {
    async fn begin(test: &TestStack) -> Self {
        let address = test.stack.url(Part::CommandService(1)).trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let head = format!(
            "POST /v1/batch HTTP/1.1\r\nHost: batch\r\nAuthorization: Bearer {}\r\nContent-Type: application/x-ndjson\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
            test.stack.api_key()
        );
        stream.write_all(head.as_bytes()).await.expect("it reads");
        Self { stream, received: Vec::new() }
    }

    async fn send(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.stream.write_all(chunk.as_bytes()).await.expect("it reads");
    }

    /// Reads on until there are so many answers, or to the end.
    async fn answers(&mut self, count: usize) -> Vec<Value> {
        loop {
            let text = String::from_utf8_lossy(&self.received);
            let lines = text.lines().filter(|line| line.starts_with("{\"status\""));
            let answers: Vec<Value> = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
            if answers.len() >= count {
                return answers;
            }
            let read = tokio::time::timeout(tests::PATIENCE, self.stream.read_buf(&mut self.received)).await;
            if read.expect("an answer or an end").expect("no reset") == 0 {
                return answers;
            }
        }
    }

    /// Whether the answer, read to its end, has an end.
    fn is_complete(&self) -> bool {
        self.received.ends_with(b"\r\n0\r\n\r\n")
    }
}

fn statuses(answers: &[Value]) -> Vec<u64> {
    answers.iter().filter_map(|answer| answer["status"].as_u64()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_ends_early_has_a_last_line_that_says_so() {
    let test = TestStack::start().await;
    let lines = |count: usize| format!("{}\n", register(&json!({"name": "Company"}))).repeat(count);
    // The client leaves in the midst of a line, and still reads.
    let mut broken = Open::begin(&test).await;
    broken.send(&format!("{}{{\"method\": \"POST\"", lines(3))).await;
    broken.stream.shutdown().await.expect("half closed");
    let answers = broken.answers(usize::MAX).await;
    assert_eq!(statuses(&answers), [201, 201, 201, 400], "{answers:?}");
    assert_eq!(answers[3]["body"]["code"], "invalid_parameter");

    // The service ends while the client still sends.
    let mut open = Open::begin(&test).await;
    open.send(&lines(3)).await;
    assert_eq!(statuses(&open.answers(3).await), [201; 3]);
    let (stopped, answers) = tokio::join!(test.stack.stop(Part::CommandService(1)), async {
        let answers = open.answers(4).await;
        // What is sent now is nobody's any more, and the answer is still read to its end.
        open.send(&lines(1)).await;
        open.stream.write_all(b"0\r\n\r\n").await.expect("it reads");
        assert_eq!(open.answers(usize::MAX).await.len(), 4);
        answers
    });
    stopped.expect("it ends");
    assert_eq!(statuses(&answers), [201, 201, 201, 503], "{answers:?}");
    assert_eq!(answers[3]["body"]["code"], "shutting_down");
    assert!(open.is_complete(), "{}", String::from_utf8_lossy(&open.received));
    let log = test.superuser(Part::Primary).await;
    let events: i64 = log.query_one("SELECT count(*) FROM log.events", &[]).await.expect("counted").get(0);
    assert_eq!(events, 6);
    test.finish().await;
}
