//! A slow client holds up nobody.

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
use tests::TestStack;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Slow ones of each sort: more than the service's pool has connections.
const SLOW: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn half_requests_and_unread_answers_hold_up_nobody() {
    let test = TestStack::start().await;
    let client = test.client();
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
