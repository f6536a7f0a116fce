//! Connections, requests and bodies at and past their bounds.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use http::HeaderMap;
use service_kit::health::Health;
use service_kit::http::{Limits, RequestContext, read_body, read_json};
use service_kit::problem::Problem;
use service_kit::shutdown::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::client::{DEADLINE, parse, read_to_end, start};

const BODY_MAX: usize = 1024;

fn routes() -> Router {
    Router::new()
        .route("/here", get(async |context: RequestContext| context.request_id.to_string()).post(async || "posted"))
        .route(
            "/json",
            post(async |headers: HeaderMap, body: Body| {
                read_json(&headers, body, BODY_MAX).await.map(|body| body.object.len().to_string())
            }),
        )
        .route(
            "/slow-body",
            post(async |headers: HeaderMap, body: Body| {
                read_body(&headers, body, BODY_MAX, Duration::from_millis(100)).await.map(|_| "read")
            }),
        )
        .route("/panic", get(async || -> Result<(), Problem> { panic!("a fault") }))
        .route("/busy", get(async || Err::<(), _>(Problem::new(service_kit::problem::Code::Overloaded, "full"))))
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let server = start(routes(), Limits::default()).await;
    let missing = server.request("GET", "/nowhere", "", b"").await;
    assert_eq!((missing.status, missing.header("content-type")), (404, "application/problem+json"));
    let problem = missing.json();
    assert_eq!(problem["type"], "/problems/not_found");
    assert_eq!(problem["status"], 404);
    assert_eq!(problem["instance"], format!("urn:uuid:{}", missing.header("x-request-id")));
    assert_eq!(missing.header("x-content-type-options"), "nosniff");

    let wrong = server.request("DELETE", "/here", "", b"").await;
    assert_eq!((wrong.status, wrong.json()["code"].as_str()), (405, Some("method_not_allowed")));
    assert_eq!(wrong.header("allow"), "GET,HEAD,POST");
}

#[tokio::test]
async fn a_request_id_is_taken_only_if_it_is_a_uuid() {
    let server = start(routes(), Limits::default()).await;
    let id = "0190b5a4-7c3e-7000-8000-00000000abcd";
    let kept = server.request("GET", "/here", &format!("X-Request-Id: {id}\r\n"), b"").await;
    assert_eq!((kept.header("x-request-id"), kept.body.as_str()), (id, id));
    let replaced = server.request("GET", "/here", "X-Request-Id: <script>\r\n", b"").await;
    assert_ne!(replaced.header("x-request-id"), "<script>");
    assert_eq!(replaced.header("x-request-id"), replaced.body);
}

#[tokio::test]
async fn a_panic_and_an_overload_are_problems_too() {
    let server = start(routes(), Limits::default()).await;
    let panicked = server.request("GET", "/panic", "", b"").await;
    assert_eq!((panicked.status, panicked.json()["code"].as_str()), (500, Some("internal")));
    assert!(!panicked.body.contains("a fault"), "what is logged is not what is returned");
    let busy = server.request("GET", "/busy", "", b"").await;
    assert_eq!((busy.status, busy.header("retry-after")), (503, "1"));
}

#[tokio::test]
async fn bodies_are_bounded_and_must_be_json_objects() {
    let server = start(routes(), Limits::default()).await;
    let too_large = vec![b' '; 3 * 1024 * 1024];
    let cases: [(&str, &[u8], u16, &str); 9] = [
        ("Content-Type: application/json\r\n", b"{\"a\": 1}", 200, ""),
        ("", b"{}", 200, ""),
        ("Content-Type: application/merge-patch+json\r\n", b"{}", 200, ""),
        ("Content-Type: text/plain\r\n", b"{}", 415, "unsupported_media_type"),
        ("", b"", 400, "invalid_json"),
        ("", b"{", 400, "invalid_json"),
        ("", b"[1]", 400, "invalid_json"),
        ("", b"{\"a\": \"\xff\"}", 400, "invalid_utf8"),
        ("", &too_large, 413, "body_too_large"),
    ];
    for (headers, body, status, code) in cases {
        let answer = server.request("POST", "/json", headers, body).await;
        assert_eq!(answer.status, status, "{headers} {answer:?}");
        if status != 200 {
            assert_eq!(answer.json()["code"], code);
        }
        if status == 413 {
            assert_eq!(answer.json()["limit"], BODY_MAX);
        }
    }
}

#[tokio::test]
async fn slow_headers_close_the_connection_and_a_slow_body_is_answered() {
    let limits = Limits { header_timeout: Duration::from_millis(100), ..Limits::default() };
    let server = start(routes(), limits).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /here HTTP/1.1\r\nHost: te").await.expect("sent");
    assert!(read_to_end(&mut slow).await.is_empty(), "closed without an answer");
    let mut idle = server.connect().await;
    assert!(read_to_end(&mut idle).await.is_empty(), "an idle connection is closed");

    let mut body = server.connect().await;
    body.write_all(b"POST /slow-body HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf").await.expect("sent");
    let answer = parse(&read_to_end(&mut body).await);
    assert_eq!((answer.status, answer.json()["code"].as_str()), (408, Some("request_timeout")));
}

#[tokio::test]
async fn headers_are_bounded() {
    let server = start(routes(), Limits::default()).await;
    let answer = server.request("GET", "/here", &format!("X-Long: {}\r\n", "x".repeat(40_000)), b"").await;
    assert_eq!(answer.status, 431);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off_and_others_are_served() {
    let endless = Router::new().route(
        "/endless",
        get(async || Body::new(http_body_util::Full::new(bytes::Bytes::from(vec![b'x'; 64 * 1024 * 1024])))),
    );
    let limits = Limits { connections_max: 1, stall_timeout: Duration::from_millis(100), ..Limits::default() };
    let server = start(routes().merge(endless), limits).await;
    let mut greedy = server.connect().await;
    greedy.write_all(b"GET /endless HTTP/1.1\r\nHost: test\r\n\r\n").await.expect("sent");
    // The one connection that the server takes is the greedy one; this one gets its turn when that is cut off.
    assert_eq!(server.request("GET", "/here", "", b"").await.status, 200);
    drop(greedy);
}

#[tokio::test]
async fn an_ending_server_answers_what_it_has_and_takes_nothing_more() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (in_handler, to_handler) = (Arc::clone(&begun), Arc::clone(&go_on));
    let waits = Router::new().route(
        "/waits",
        get(async move || {
            in_handler.notify_one();
            to_handler.notified().await;
            "done"
        }),
    );
    let server = start(waits, Limits::default()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /waits HTTP/1.1\r\nHost: test\r\n\r\n").await.expect("sent");
    begun.notified().await;
    server.trigger.request();
    // Once the listener is gone, a new connection is refused.
    tokio::time::timeout(DEADLINE, async {
        while tokio::net::TcpStream::connect(server.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the listener closes");
    go_on.notify_one();
    let answer = parse(&read_to_end(&mut stream).await);
    assert_eq!((answer.status, answer.body.as_str()), (200, "done"));
    server.ended.await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn a_process_is_ready_while_its_checks_pass_and_it_is_not_ending() {
    let metrics = service_kit::telemetry::init_metrics().expect("the only test that renders figures");
    let (trigger, shutdown) = Shutdown::new();
    let healthy = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = Arc::clone(&healthy);
    let health = Health::new().check("always", async || Ok(())).check("sometimes", move || {
        let healthy = seen.load(std::sync::atomic::Ordering::Relaxed);
        async move { if healthy { Ok(()) } else { Err("not yet".to_owned()) } }
    });
    let server = start(routes().merge(health.router(metrics, shutdown)), Limits::default()).await;
    assert_eq!(server.request("GET", "/healthz", "", b"").await.status, 200);
    let not_ready = server.request("GET", "/readyz", "", b"").await;
    assert_eq!(not_ready.status, 503);
    assert_eq!(not_ready.json()["checks"]["sometimes"], "not yet");
    healthy.store(true, std::sync::atomic::Ordering::Relaxed);
    tokio::time::timeout(DEADLINE, async { while server.request("GET", "/readyz", "", b"").await.status != 200 {} })
        .await
        .expect("becomes ready");
    trigger.request();
    assert_eq!(server.request("GET", "/readyz", "", b"").await.status, 503);

    server.request("GET", "/here", "", b"").await;
    let figures = server.request("GET", "/metrics", "", b"").await.body;
    assert!(figures.contains("process_resident_memory_bytes"), "{figures}");
    assert!(figures.contains("route=\"/here\""), "{figures}");
    assert!(figures.contains("http_request_duration_seconds_bucket"), "{figures}");
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let server = start(routes(), Limits::default()).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(b"GET /here HTTP/1.1\r\nHost: test\r\n\r\n").await.expect("sent");
        let mut start = [0; 15];
        stream.read_exact(&mut start).await.expect("an answer");
        assert_eq!(&start, b"HTTP/1.1 200 OK");
        // The rest of the answer ends with the request id, a UUID.
        let mut rest = Vec::new();
        while !rest.windows(4).any(|four| four == b"\r\n\r\n") {
            rest.push(stream.read_u8().await.expect("headers"));
        }
        let mut body = [0; 36];
        stream.read_exact(&mut body).await.expect("the body");
    }
}
