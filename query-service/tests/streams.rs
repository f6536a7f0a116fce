//! The feed as a stream.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::events::event;
use crate::support::{DEADLINE, OTHER_TENANT, Stack, TENANT, id};

/// An answer that goes on.
struct Open {
    stream: TcpStream,
    text: String,
    /// The server has ended it.
    ended: bool,
}

impl Open {
    async fn get(stack: &Stack, path: &str, key: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(stack.address).await.expect("a connection");
        let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {key}\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        Self { stream, text: String::new(), ended: false }
    }

    async fn live(stack: &Stack, headers: &str) -> Self {
        let headers = format!("Accept: text/event-stream\r\nConnection: close\r\n{headers}");
        let mut open = Self::get(stack, "/v1/events", &stack.key, &headers).await;
        open.until("retry: 1000").await;
        open
    }

    /// Reads until a text has come.
    async fn until(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            assert!(!self.ended, "it ended without {wanted:?}: {}", self.text);
            self.more().await;
        }
    }

    async fn into_end(mut self) -> String {
        while !self.ended {
            self.more().await;
        }
        self.text
    }

    async fn more(&mut self) {
        let mut buffer = [0; 4096];
        let read =
            tokio::time::timeout(DEADLINE, self.stream.read(&mut buffer)).await.expect("in time").expect("bytes");
        self.ended = read == 0;
        self.text.push_str(std::str::from_utf8(&buffer[..read]).expect("UTF-8"));
    }

    fn ids(&self) -> Vec<i64> {
        let ids = self.text.lines().filter_map(|line| line.strip_prefix("id: "));
        ids.filter_map(|id| id.rsplit_once('-').map_or(id, |(_, position)| position).parse().ok()).collect()
    }
}

#[tokio::test]
async fn a_live_feed_goes_on_and_is_resumed_where_it_was() {
    let stack = Stack::new().await;
    event(&stack, 1, TENANT, &id(20), r#"{"profile":{"country":"GB"}}"#).await;
    event(&stack, 2, OTHER_TENANT, &id(30), r#"{"secret":1}"#).await;
    let mut open = Open::live(&stack, "").await;
    open.until("id: 1\n").await;
    // Whoever is there already gets what comes, and nothing of others.
    event(&stack, 3, OTHER_TENANT, &id(30), r#"{"secret":1}"#).await;
    event(&stack, 4, TENANT, &id(20), "{}").await;
    open.until("id: 4\n").await;
    assert_eq!(open.ids(), [1, 4]);
    assert!(!open.text.contains("secret"), "{}", open.text);
    assert!(open.text.contains("data: {\"position\":1,") && open.text.contains("text/event-stream"), "{}", open.text);

    let mut resumed = Open::live(&stack, "Last-Event-ID: 1\r\n").await;
    resumed.until("id: 4\n").await;
    event(&stack, 5, TENANT, &id(20), "{}").await;
    resumed.until("id: 5\n").await;
    assert_eq!(resumed.ids(), [4, 5]);

    // The end of the process is the stream's, in order.
    stack.trigger.request();
    let end = open.into_end().await;
    assert!(end.ends_with("0\r\n\r\n") && end.contains("come back with Last-Event-ID"), "{end}");
    assert!(resumed.into_end().await.ends_with("0\r\n\r\n"));
}

/// Begins another life of the log at a position: what stood there and after it is lost. Gives the life's name.
async fn begin_epoch(stack: &Stack, number: i64, first: i64) -> String {
    stack
        .sql(&format!(
            "DELETE FROM log.events WHERE position >= {first};
             INSERT INTO log.epochs (number, epoch_id, first_position, system_identifier, timeline)
             VALUES ({number}, gen_random_uuid(), {first}, 1, {number})"
        ))
        .await;
    let sql = "SELECT name FROM log.epochs ORDER BY number DESC LIMIT 1";
    stack.client.query_one(sql, &[]).await.expect("a name").get(0)
}

#[tokio::test]
async fn a_feed_says_when_what_it_sent_was_lost_and_goes_on_where_nothing_was() {
    let stack = Stack::new().await;
    let first = begin_epoch(&stack, 1, 1).await;
    for position in 1..=3 {
        event(&stack, position, TENANT, &id(20), "{}").await;
    }
    let mut all = Open::live(&stack, "").await;
    all.until(&format!("id: {first}-3\n")).await;
    let mut some = Open::live(&stack, "").await;
    some.until(&format!("id: {first}-3\n")).await;
    // Two events are lost, and others stand in their place.
    let second = begin_epoch(&stack, 2, 2).await;
    for position in 2..=4 {
        event(&stack, position, TENANT, &id(20), "{}").await;
    }
    let end = all.into_end().await;
    assert!(end.contains("event: problem\ndata: {") && end.contains("\"code\":\"epoch_mismatch\""), "{end}");
    assert!(!end.contains(&format!("id: {second}-4")), "{end}");
    // Who comes back by itself, as browsers do, is told the same, and may go on from what was not lost.
    let headers = |last: &str| format!("Accept: text/event-stream\r\nLast-Event-ID: {last}\r\n");
    let lost = stack.get_with("/v1/events", &headers(&format!("{first}-3"))).await;
    assert_eq!((lost.status, lost.code().as_str()), (409, "epoch_mismatch"));
    let mut back = Open::live(&stack, &format!("Last-Event-ID: {first}-1\r\n")).await;
    back.until(&format!("id: {second}-4\n")).await;
    assert_eq!(back.ids(), [2, 3, 4]);
    // A position alone that the log has not come to (any more) is waited for, and said.
    let beyond = headers("9") + "Prefer: wait=0\r\n";
    let behind = stack.get_with("/v1/events", &beyond).await;
    assert_eq!((behind.status, behind.code().as_str()), (503, "not_fresh"), "{}", behind.body);
}

#[tokio::test]
async fn a_live_feed_ends_when_its_key_is_revoked() {
    let stack = Stack::new().await;
    event(&stack, 1, TENANT, &id(20), "{}").await;
    let mut open = Open::live(&stack, "").await;
    open.until("id: 1\n").await;
    stack.sql(&format!("UPDATE access.api_keys SET revoked_at = now() WHERE tenant_id = '{TENANT}'")).await;
    let end = open.into_end().await;
    assert!(end.contains("event: problem\ndata: {") && end.contains("\"code\":\"unauthenticated\""), "{end}");
}

#[tokio::test]
async fn lines_come_up_to_the_head_or_the_limit() {
    let stack = Stack::new().await;
    stack
        .sql(&format!(
            "INSERT INTO log.events SELECT n, '{TENANT}', 'company', '{}', n, gen_random_uuid(), 'CompanyRegistered', 1, '{{}}',
                 '{{}}', now() FROM generate_series(1, 1050) AS n",
            id(20)
        ))
        .await;
    let headers = "Accept: application/x-ndjson\r\n";
    let positions = |body: &str| -> Vec<i64> {
        // Chunks of the answer have their lengths between them.
        let lines = body.lines().filter(|line| line.starts_with('{'));
        lines
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).expect("JSON")["position"].as_i64().expect("one")
            })
            .collect()
    };
    let all = stack.get_with("/v1/events", headers).await;
    assert_eq!((all.status, all.header("content-type")), (200, "application/x-ndjson"));
    assert_eq!(positions(&all.body), (1..=1050).collect::<Vec<i64>>());
    let some = stack.get_with("/v1/events?after=1&limit=1001", headers).await;
    assert_eq!(positions(&some.body), (2..=1002).collect::<Vec<i64>>());
    assert_eq!(positions(&stack.get_with("/v1/events?after=1050", headers).await.body), Vec::<i64>::new());
    assert_eq!(stack.request("GET", "/v1/events", &stack.reader, headers).await.status, 403);
    let wrong = stack.get_with("/v1/events", "Accept: text/event-stream\r\nLast-Event-ID: x\r\n").await;
    assert_eq!(wrong.code(), "invalid_parameter");
    let lost = stack.get_with("/v1/events", "Accept: text/event-stream\r\nLast-Event-ID: 9.00000009-5\r\n").await;
    assert_eq!(lost.code(), "epoch_mismatch", "a position of a life of the log that is not its past");
}

#[tokio::test]
async fn a_tenant_has_a_bounded_number_of_streams() {
    let stack = Stack::new().await;
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(Open::live(&stack, "").await);
    }
    let refused = stack.get_with("/v1/events", "Accept: text/event-stream\r\n").await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    assert_eq!(stack.get("/v1/events").await.status, 200, "pages are always there");
    let other = "Accept: application/x-ndjson\r\n";
    assert_eq!(stack.request("GET", "/v1/events", &stack.other_key, other).await.status, 200);
}
