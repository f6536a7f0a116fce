//! A slow client holds up nobody.

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
use tests::{Client, TestStack, eventually};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

/// Slow ones of each sort: more than the service's pool has connections.
const SLOW: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn half_requests_and_unread_answers_hold_up_nobody() {
    let test = TestStack::start().await;
    let client = test.client();
    a_batch_whose_answers_nobody_reads_ends_with_its_client(&test, &client).await;
    let key = test.stack.api_key().to_owned();
    let head = |length: usize| {
        format!(
            "POST /v1/companies HTTP/1.1\r\nHost: slow\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
        )
    };
    let batch = format!(
        "POST /v1/batch HTTP/1.1\r\nHost: slow\r\nAuthorization: Bearer {key}\r\nContent-Type: application/x-ndjson\r\n\
         Transfer-Encoding: chunked\r\n\r\n7\r\n{{\"meth\r\n"
    );
    let address = |part: Part| test.stack.url(part).trim_start_matches("http://").to_owned();
    let mut open = Vec::new();
    for _ in 0..SLOW {
        for sent in [
            // Half a header; half a body; half a line of a batch.
            head(100),
            format!("{}\r\n{{\"name\": ", head(100)),
            batch.clone(),
        ] {
            let mut stream = TcpStream::connect(address(Part::CommandService(1))).await.expect("it listens");
            stream.write_all(sent.as_bytes()).await.expect("it reads");
            open.push(stream);
        }
        // Asks for much and reads nothing.
        let stream = TcpStream::connect(address(Part::QueryService)).await.expect("it listens");
        let ask = format!("GET /openapi.json HTTP/1.1\r\nHost: slow\r\nAuthorization: Bearer {key}\r\n\r\n").repeat(50);
        // The service stops reading at some point, which is its right.
        let _ = stream.try_write(ask.as_bytes());
        open.push(stream);
    }
    let mut last = 0;
    for number in 0..100 {
        let answer = client.command(Method::POST, "/v1/companies", &json!({"name": format!("Quick {number}")})).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        last = answer.position();
    }
    let read = client.read("/v1/companies?limit=1000", Some(last)).await;
    assert_eq!(read.json["items"].as_array().map(Vec::len), Some(100), "none of the halves became a company");
    drop(open);
    test.finish().await;
}

/// Sends lines with long answers and reads none, until the service waits for its reader; then goes away.
async fn a_batch_whose_answers_nobody_reads_ends_with_its_client(test: &TestStack, client: &Client) {
    let service = test.stack.url(Part::CommandService(1));
    let figure = async |name: &str| {
        let scraped = client.get_from(&service, "/metrics").await;
        let text = String::from_utf8_lossy(&scraped.bytes).into_owned();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
        value.unwrap_or(0.0)
    };
    let unknown: serde_json::Map<String, serde_json::Value> =
        (0..100).map(|number| (format!("f{number}"), json!(0))).collect();
    let line = format!("{}\n", json!({"method": "POST", "path": "/v1/companies", "body": unknown}));
    let socket = TcpSocket::new_v4().expect("a socket");
    // So that not much of the answers is on its way.
    socket.set_recv_buffer_size(64 * 1024).expect("a small buffer");
    let address = service.trim_start_matches("http://").parse().expect("an address");
    let mut stream = socket.connect(address).await.expect("it listens");
    let head = format!(
        "POST /v1/batch HTTP/1.1\r\nHost: slow\r\nAuthorization: Bearer {}\r\nContent-Type: application/x-ndjson\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        test.stack.api_key()
    );
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    let sending = tokio::spawn(async move {
        stream.write_all(head.as_bytes()).await.expect("it reads");
        while stream.write_all(chunk.as_bytes()).await.is_ok() {}
    });
    eventually("the batch waits for its reader", async || {
        (figure("prospectus_batch_waits_total").await > 0.0).then_some(())
    })
    .await;
    assert!(figure("prospectus_batches_open").await > 0.0);
    sending.abort();
    eventually("the batch has ended", async || (figure("prospectus_batches_open").await == 0.0).then_some(())).await;
}
