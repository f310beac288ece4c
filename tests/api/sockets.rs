//! Sockets that do not behave, on raw connections: each is answered or ended, and holds nothing meanwhile.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::app::TestApp;
use crate::on_both_backends;

const GET: &str = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
const CHUNKED: &str = "POST /products HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                       Transfer-Encoding: chunked\r\n\r\n5\r\nab";

/// The status, headers and body of the last reply in `text`, which is a problem of HTTP's own.
#[track_caller]
fn is_problem(text: &str, status: &str, code: &str) {
    assert!(text.contains(&format!("HTTP/1.1 {status}")), "{text}");
    for part in [code, "content-type: application/problem+json", "x-request-id: ", "cache-control: no-store"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// Reads until so many replies have come.
async fn replies(connection: &mut TcpStream, count: usize) -> String {
    let mut text = String::new();
    let mut buffer = vec![0; 65_536];
    while text.matches("HTTP/1.1 ").count() < count || !text.ends_with('}') {
        let read = tokio::time::timeout(Duration::from_secs(10), connection.read(&mut buffer)).await;
        let length = read.unwrap_or_else(|_| panic!("{} replies", text.matches("HTTP/1.1 ").count())).unwrap();
        assert!(length > 0, "closed after {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    text
}

/// How long the server takes to close the connection, whatever it says.
async fn ends(connection: &mut TcpStream) -> (Duration, String) {
    let begun = Instant::now();
    let mut said = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(40), connection.read_to_end(&mut said)).await;
    // A reset is an end as well.
    let _ = closed.expect("the server closes the connection");
    (begun.elapsed(), String::from_utf8_lossy(&said).into_owned())
}

async fn send(app: &TestApp, text: &str) -> TcpStream {
    let mut connection = app.client.connect().await;
    connection.write_all(text.as_bytes()).await.unwrap();
    connection
}

on_both_backends! {
    async fn requests_sent_ahead_are_answered_in_their_order(app) {
        let id = app.client.new_product(5).await;
        let mut ahead = String::new();
        for _ in 0..200 {
            ahead.push_str(GET);
        }
        ahead.push_str("POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n\n\n{}");
        ahead.push_str(&format!("GET /products/{id} HTTP/1.1\r\nHost: x\r\n\r\n"));
        ahead.push_str("POST /login HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nContent-Type: application/json\n\n2\r\n{}\r\n0\r\n\r\n");
        ahead.push_str("GET /nowhere HTTP/1.1\nHost: x\n\n");
        let mut connection = send(app, &ahead).await;
        let text = replies(&mut connection, 204).await;
        let statuses: Vec<&str> = text.split("HTTP/1.1 ").skip(1).map(|reply| &reply[..3]).collect();
        assert!(statuses[..200].iter().all(|status| *status == "200"), "{statuses:?}");
        assert_eq!(statuses[200..], ["400", "200", "400", "404"]);
        // Nothing of it is left: the connection is as good as new.
        connection.write_all(GET.as_bytes()).await.unwrap();
        replies(&mut connection, 1).await;
    }

    async fn a_chunked_body_that_stops_ends_its_connection(app) {
        let mut unread = send(app, CHUNKED).await;
        let admin = app.client.admin();
        let awaited = CHUNKED.replace("Host: x", &format!("Host: x\r\nAuthorization: Bearer {admin}"));
        let mut awaited = send(app, &awaited).await;
        let (unread, awaited) = tokio::join!(ends(&mut unread), ends(&mut awaited));
        is_problem(&unread.1, "401", "unauthorized");
        assert!(unread.1.contains("connection: close") && unread.0 < Duration::from_secs(4), "{unread:?}");
        assert!(awaited.1.starts_with("HTTP/1.1 400") && awaited.0 < Duration::from_secs(15), "{awaited:?}");
    }

    async fn every_head_has_its_time_and_its_size(app) {
        // The second one on its connection, a byte a second.
        let mut slow = send(app, GET).await;
        replies(&mut slow, 1).await;
        let trickle = async {
            let begun = Instant::now();
            let mut said = vec![0; 4096];
            for byte in GET.bytes().cycle() {
                if slow.write_all(&[byte]).await.is_err() {
                    return (begun.elapsed(), String::new());
                }
                if let Ok(read) = tokio::time::timeout(Duration::from_secs(1), slow.read(&mut said)).await {
                    return (begun.elapsed(), String::from_utf8_lossy(&said[..read.unwrap_or(0)]).into_owned());
                }
            }
            unreachable!("the head never ends")
        };
        let half = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Half: {}", "x".repeat(15_000));
        let mut half = send(app, &half).await;
        let ((took, said), half) = tokio::join!(trickle, ends(&mut half));
        is_problem(&said, "408", "request_timeout");
        assert!(took < Duration::from_secs(8), "{took:?}");
        is_problem(&half.1, "408", "request_timeout");
        assert!(half.0 < Duration::from_secs(8), "{half:?}");

        for length in [17_000, 110_000] {
            let large = format!("GET /products HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"{}\"\r\n\r\n", "x".repeat(length));
            let (took, said) = ends(&mut send(app, &large).await).await;
            is_problem(&said, "431", "headers_too_large");
            assert!(took < Duration::from_secs(2), "{took:?}");
        }
        let fits = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nCookie: {}\r\n\r\n", "x".repeat(12_000));
        replies(&mut send(app, &fits).await, 1).await;
    }

    async fn what_is_no_request_is_a_problem_with_an_id(app) {
        for nonsense in ["\u{1}\u{2}\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET  / HTTP/9.9\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            is_problem(&ends(&mut send(app, nonsense).await).await.1, "400", "invalid_request");
        }
        let old = ends(&mut send(app, "GET /healthz HTTP/1.0\r\n\r\n").await).await;
        assert!(old.1.starts_with("HTTP/1.0 200"), "{old:?}");
    }

    /// Guards against: replies that pile up here because nobody takes them.
    async fn replies_that_are_not_taken_end_their_connection(app) {
        for _ in 0..100 {
            app.client.new_product(1).await;
        }
        let ahead = "GET /products?limit=100 HTTP/1.1\r\nHost: x\r\n\r\n".repeat(400);
        let mut greedy = send(app, &ahead).await;
        let begun = Instant::now();
        // Waits for the end without taking anything: what is sent to a closed socket is an error.
        while greedy.write_all(b"\r\n").await.is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(30), "still open");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(begun.elapsed() > Duration::from_secs(10), "no time to take them: {:?}", begun.elapsed());
    }
}

/// A newcomer takes the place of who does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_make_room() {
    let few = |config: &mut seckill::config::Config| config.limits.connections = 20;
    TestApp::run_with(seckill::config::Backend::Embedded, few, async |app| {
        let mut idle = Vec::new();
        for _ in 0..100 {
            idle.push(send(app, GET).await);
            replies(idle.last_mut().unwrap(), 1).await;
        }
        let mut closed = 0;
        for connection in &mut idle {
            let end = tokio::time::timeout(Duration::from_millis(20), connection.read(&mut [0; 16])).await;
            closed += usize::from(end.is_ok());
        }
        assert!((75..=90).contains(&closed), "{closed} of 100 were closed");
    })
    .await;
}
