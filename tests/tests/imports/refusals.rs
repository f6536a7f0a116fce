//! What is refused as a whole: early, with a reason, and without taking memory; and what of a list stays where.

use std::io::Write as _;

use http::{Method, StatusCode};
use local_stack::Part;
use serde_json::json;
use tests::{TestStack, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{events_of_records, get, import, send};

/// The most memory that a process ever took, in KiB.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// Sends a body piece by piece until an answer comes, at most `pieces` of them; gives the answer.
async fn pour(test: &TestStack, key: &str, query: &str, length: u64, piece: &[u8], pieces: u64) -> String {
    let address = test.stack.url(Part::CommandService(1)).replace("http://", "");
    let stream = tokio::net::TcpStream::connect(&address).await.expect("it listens");
    let (mut from, mut to) = stream.into_split();
    let head = format!(
        "POST /v1/imports?{query} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    let piece = piece.to_vec();
    let sending = tokio::spawn(async move {
        to.write_all(head.as_bytes()).await?;
        for _ in 0..pieces {
            to.write_all(&piece).await?;
        }
        // Held open: only the answer ends it.
        std::io::Result::Ok(to)
    });
    let mut answer = Vec::new();
    // The server closes the connection after its answer, perhaps before it has read everything.
    let _ = from.read_to_end(&mut answer).await;
    sending.abort();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_list_is_refused_with_a_reason_and_leaves_nothing() {
    let test = TestStack::start().await;
    let client = test.client();
    let png = [b"\x89PNG\r\n\x1a\n".as_slice(), &[0; 64]].concat();
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("", Vec::new(), "empty_file"),
        ("", b"Email,Company\n".to_vec(), "no_rows"),
        ("", png, "not_a_list"),
        ("", b"Email\na@acme.example\nb\0@acme.example\n".to_vec(), "nul_byte"),
        ("", b"Colour,Shape\nred,round\n".to_vec(), "invalid_mapping"),
        ("&mapping=hubspot", b"Colour,Shape\nred,round\n".to_vec(), "invalid_mapping"),
        ("", b"Email,Email\na,b\n".to_vec(), "duplicate_column"),
        ("", format!("Email,Note\na@acme.example,\"{}", "x".repeat(300_000)).into(), "open_quote"),
        ("&compression=gzip", b"Email\na@acme.example\n".to_vec(), "damaged_stream"),
    ];
    for (query, bytes, reason) in cases {
        let answer = send(&client, &format!("source=crm{query}"), &[], bytes).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{reason}: {answer:?}");
        let told = answer.json["reason"].as_str().expect("a reason");
        assert!(told == reason || (reason == "open_quote" && told == "record_too_long"), "{reason}: {answer:?}");
        let id = answer.json["import_id"].as_str().expect("an id");
        let document = get(&client, &format!("/v1/imports/{id}")).await.json;
        assert_eq!(
            (&document["state"], document["error"]["code"].as_str()),
            (&json!("failed"), Some(told)),
            "{document}"
        );
    }
    for (query, pointer) in [
        ("", "source"),
        ("source=", "source"),
        ("source=crm&mapping=salesfroce", "mapping"),
        ("source=crm&conflicts=mine", "conflicts"),
        ("source=crm&conflicts=source_rank", "rank"),
        ("source=crm&charset=klingon", "charset"),
        ("source=crm&delimiter=ab", "delimiter"),
        ("source=crm&dry-run=true", "dry-run"),
    ] {
        let answer = send(&client, query, &[], "Email\na@acme.example\n").await;
        assert_eq!(
            (answer.status, answer.json["errors"][0]["pointer"].as_str()),
            (StatusCode::BAD_REQUEST, Some(pointer)),
            "{answer:?}"
        );
    }
    let reader = test.client_with(&test.tenant_key("demo", "reader").await);
    assert_eq!(send(&reader, "source=crm", &[], "Email\na@acme.example\n").await.status, StatusCode::FORBIDDEN);
    assert_eq!(events_of_records(&test).await, 0);
    let primary = test.superuser(Part::Primary).await;
    let kept: i64 = primary.query_one("SELECT count(*) FROM log.import_chunks", &[]).await.expect("a count").get(0);
    assert_eq!(kept, 0, "nothing of a refused list stays");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_refused_early_and_take_no_memory() {
    const PIECE: usize = 1 << 16;
    let test = TestStack::start().await;
    let client = test.client();
    import(&client, "source=crm", "Email\na@acme.example\n").await;
    let before = peak_kib(test.stack.pid(Part::CommandService(1)).expect("it runs"));
    let key = test.stack.api_key().to_owned();
    let zeros = vec![b' '; 200 << 20];
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(b"Email\n").and_then(|()| packed.write_all(&zeros)).expect("it packs");
    let gzip_bomb = packed.finish().expect("it packs");
    drop(zeros);
    let ten_gib = 10 << 30;
    for (name, piece, length, reason) in [
        ("a line of 10 GiB", vec![b'x'; PIECE], ten_gib, "record_too_long"),
        ("ten million columns", b"abcdefgh,".repeat(PIECE / 9), 90_000_000, "too_many_columns"),
        ("a gzip bomb", gzip_bomb.clone(), gzip_bomb.len() as u64, "compression_bomb"),
    ] {
        let pieces = length / piece.len() as u64;
        let answer = pour(&test, &key, "source=crm", length, &piece, pieces).await;
        assert!(answer.starts_with("HTTP/1.1 422"), "{name}: {answer}");
        let known = [reason, "record_too_long", "empty_file", "no_rows"];
        assert!(known.iter().any(|reason| answer.contains(reason)), "{name}: {answer}");
    }
    let after = peak_kib(test.stack.pid(Part::CommandService(1)).expect("it runs"));
    assert!(after < before + (64 << 10), "memory grew from {before} to {after} KiB");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_still_sends_hears_why_its_multipart_list_is_refused() {
    let test = TestStack::start().await;
    let client = test.client();
    let media = "multipart/form-data; boundary=aaa";
    let part = |name: &str, content: &[u8]| {
        [format!("--aaa\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n").as_bytes(), content, b"\r\n"]
            .concat()
    };
    let long = [b"\x89PNG\r\n\x1a\n".as_slice(), &vec![7; 8 << 20]].concat();
    for (mapping, reason) in [("", "not_a_list"), ("[columns]\nEmail = \"prospect.nothing\"", "invalid_mapping")] {
        let body = [part("mapping", mapping.as_bytes()), part("file", &long), b"--aaa--\r\n".to_vec()].concat();
        let answer = send(&client, "source=crm", &[("content-type", media)], body).await;
        assert_eq!(
            (answer.status, &answer.json["reason"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!(reason)),
            "{answer:?}"
        );
    }
    // Without a boundary nothing of it is taken for a list.
    for media in ["multipart/form-data", "Multipart/Mixed"] {
        let answer = send(&client, "source=crm", &[("content-type", media)], b"Email\na@acme.example\n".to_vec()).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{answer:?}");
    }
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_breaks_off_is_noted_and_leaves_nothing() {
    let test = TestStack::start().await;
    let client = test.client();
    let address = test.stack.url(Part::CommandService(1)).replace("http://", "");
    let mut stream = tokio::net::TcpStream::connect(&address).await.expect("it listens");
    let head = format!(
        "POST /v1/imports?source=crm HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\ncontent-length: 100000\r\n\r\nEmail\na@acme.example\n",
        test.stack.api_key()
    );
    stream.write_all(head.as_bytes()).await.expect("it takes bytes");
    let listed = async || get(&client, "/v1/imports").await.json["items"].clone();
    eventually("the import is there", async || {
        listed().await.as_array().is_some_and(|items| !items.is_empty()).then_some(())
    })
    .await;
    let id = listed().await[0]["id"].as_str().expect("an id").to_owned();
    drop(stream);
    let document = eventually("it is noted", async || {
        let document = get(&client, &format!("/v1/imports/{id}")).await.json;
        (document["state"] == "failed").then_some(document)
    })
    .await;
    assert_eq!(document["error"]["code"], "interrupted", "{document}");
    // The same, where the service is killed while the bytes come.
    let mut stream = tokio::net::TcpStream::connect(&address).await.expect("it listens");
    stream.write_all(head.as_bytes()).await.expect("it takes bytes");
    let id = eventually("the import is there", async || {
        let items = listed().await;
        let open = items.as_array()?.iter().find(|item| item["state"] == "receiving")?.clone();
        open["id"].as_str().map(str::to_owned)
    })
    .await;
    test.stack.kill(Part::CommandService(1));
    let path = format!("/v1/imports/{id}");
    eventually("it is noted by the next process", async || {
        let answer = client.try_command(Method::GET, &path, &[], "").await.ok()?;
        (answer.json["state"] == "failed" && answer.json["error"]["code"] == "interrupted").then_some(())
    })
    .await;
    assert_eq!(events_of_records(&test).await, 0);
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_stand_sealed_in_the_database_and_are_gone_when_they_expire() {
    let test = TestStack::start().await;
    let client = test.client();
    let list = "Email,Full Name,Company\nXq7Marker@acme.example,Xq7Marker King,Acme\nXq7Marker@gmail.com,,Xq7Marker Shop\nXq7Marker,,\n";
    let document = import(&client, "source=crm", list).await;
    let path = format!("/v1/imports/{}/rows", document["id"].as_str().expect("an id"));
    assert_eq!(get(&client, &path).await.status, StatusCode::OK);
    // A list without a header: its first row is somebody.
    for headless in ["Xq7Marker,xq7marker@acme.example\nBob,b@acme.example\n", "Xq7Marker,Xq7Marker\na,b\n"] {
        let refused = send(&client, "source=crm&mapping=hubspot", &[], headless).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let primary = test.superuser(Part::Primary).await;
    for table in
        ["log.events", "log.claims", "log.matches", "log.import_files", "log.import_outcomes", "log.import_chunks"]
    {
        let sql = format!("SELECT count(*) FROM {table} AS t WHERE t::text ILIKE '%Xq7Marker%'");
        let found: i64 = primary.query_one(&sql, &[]).await.expect("a count").get(0);
        assert_eq!(found, 0, "{table} holds a person's data");
    }
    let service = std::fs::read_to_string(test.stack.log(Part::CommandService(1))).expect("the service's output");
    assert!(!service.to_lowercase().contains("xq7marker"), "the service prints a person's data");
    primary
        .execute("UPDATE log.import_files SET created_at = now() - interval '8 days'", &[])
        .await
        .expect("it is older");
    test.stack.kill(Part::CommandService(1));
    eventually("expired rows are removed", async || {
        let answer = client.try_command(Method::GET, &path, &[], "").await.ok()?;
        (answer.status == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    let left: i64 = primary.query_one("SELECT count(*) FROM log.import_outcomes", &[]).await.expect("a count").get(0);
    assert_eq!(left, 0);
    let document = get(&client, path.trim_end_matches("/rows")).await;
    assert_eq!(document.json["rows"]["read"], 3, "what it did is known for ever: {document:?}");
    test.finish().await;
}
