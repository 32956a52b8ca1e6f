//! Questions over real sockets.

use super::*;
use fulmar_host::real::RealNetwork;
use std::net::Ipv4Addr;

async fn started() -> HttpServer {
    let answers: Answers = Arc::new(|path| {
        Box::pin(async move {
            match path.as_str() {
                "/metrics" => Answer::metrics("fulmar_ready 1\n".repeat(100_000)),
                "/never" => std::future::pending().await,
                _ => Answer::line(200, path),
            }
        })
    });
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    HttpServer::start(&RealNetwork, any, answers).await.expect("it listens")
}

async fn connect(server: &HttpServer) -> Connection {
    RealNetwork.connect(server.address()).await.expect("it is let in")
}

async fn ask(server: &HttpServer, request: &[u8]) -> String {
    let mut connection = connect(server).await;
    // Whoever is refused early may find the connection closed.
    let _ = connection.writer.write_all(request).await;
    let mut answer = String::new();
    connection.reader.read_to_string(&mut answer).await.expect("text, to the end");
    answer
}

#[test]
fn a_question_is_answered_and_the_connection_ends() {
    task::block_on(async {
        let server = started().await;
        let answer = ask(&server, b"GET /ok HTTP/1.1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\r\nContent-Length: 4\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n/ok\n"), "{answer}");
        let head = ask(&server, b"HEAD /ok HTTP/1.1\r\n\r\n").await;
        assert!(head.contains("\r\nContent-Length: 4\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let metrics = ask(&server, b"GET /metrics HTTP/1.1\r\n\r\n").await;
        assert!(metrics.contains("version=0.0.4"), "the form is named");
        assert_eq!(metrics.matches("fulmar_ready 1\n").count(), 100_000);
    });
}

#[test]
fn what_is_no_question_is_refused_with_a_reason() {
    task::block_on(async {
        let server = started().await;
        let long = [b'x'; HEAD_BYTES_MAX];
        for (request, status) in [
            (&b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"[..], "405 Method"),
            (b"GET /metrics HTTP/3.0\r\n\r\n", "505 HTTP"),
            (b"\x16\x03\x01\n\n", "400 Bad"),
            (&long, "431 Request"),
        ] {
            let answer = ask(&server, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        }
        let answer = ask(&server, b"PUT / HTTP/1.1\r\n\r\n").await;
        assert!(answer.contains("\r\nAllow: GET, HEAD\r\n"), "{answer}");
    });
}

#[test]
fn a_body_that_nobody_wants_does_not_cost_the_answer() {
    task::block_on(async {
        let server = started().await;
        let mut request = b"POST / HTTP/1.1\r\nContent-Length: 60000\r\n\r\n".to_vec();
        request.resize(60_000, b'x');
        assert!(ask(&server, &request).await.starts_with("HTTP/1.1 405"));
    });
}

#[test]
fn whoever_says_nothing_keeps_nobody_out() {
    task::block_on(async {
        let server = started().await;
        let mut silent = Vec::new();
        for _ in 0..=CONNECTIONS_MAX {
            silent.push(connect(&server).await);
        }
        let answer = ask(&server, b"GET /ok HTTP/1.1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let mut told = String::new();
        let last = silent.last_mut().expect("some");
        last.reader.read_to_string(&mut told).await.expect("text");
        assert!(told.starts_with("HTTP/1.1 408"), "{told}");
        // Whether it hears of it or not.
        let _ = silent[0].reader.read_to_string(&mut told).await;
        assert_eq!(told.matches("HTTP/1.1").count(), 1, "the oldest had to go");
    });
}
