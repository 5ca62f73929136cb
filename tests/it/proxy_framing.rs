use crate::proxy_support::{Gateway, Reply, Upstream};
use crate::raw_http::Wire;

#[tokio::test]
async fn a_refused_body_is_not_read_as_a_request() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::with_token(upstream.addr, "").await;
    let inner = "GET /api/ HTTP/1.1\r\nHost: gw\r\n\r\n";
    // Small and there: read to its end, and the connection goes on.
    let mut wire = Wire::connect(gw.addr).await;
    let head =
        format!("POST /api/ HTTP/1.1\r\nHost: gw\r\nContent-Length: {}\r\n\r\n", inner.len());
    wire.send(format!("{head}{inner}GET /nowhere HTTP/1.1\r\nHost: gw\r\n\r\n")).await;
    assert_eq!(wire.answer().await.status(), 401);
    assert_eq!(wire.answer().await.status(), 404, "the next request, not the body");
    // Larger than what is read for nothing: the connection closes, and the answer arrives.
    let mut wire = Wire::connect(gw.addr).await;
    wire.send("POST /api/ HTTP/1.1\r\nHost: gw\r\nContent-Length: 900000\r\n\r\n").await;
    wire.send(inner.repeat(1_000)).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status(), answer.header("connection")), (401, Some("close")));
    assert!(wire.closed().await);
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn an_answer_without_a_length_ends_the_connection_of_http_1_0() {
    let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let upstream = Upstream::start(|_| Reply::Keep(chunks.to_vec())).await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    let mut wire = Wire::connect(gw.addr).await;
    wire.send("GET / HTTP/1.0\r\nHost: gw\r\nConnection: keep-alive\r\n\r\n").await;
    let mut answer = Vec::new();
    while wire.more(&mut answer).await {}
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nok"),
        "{answer}"
    );
    assert!(answer.contains("\r\nconnection: close\r\n"), "it is no promise to go on: {answer}");
    assert!(!answer.contains("transfer-encoding"), "{answer}");
    // What is refused with its body unread closes, too.
    let gw = Gateway::with_token(upstream.addr, "").await;
    let head = "POST /api/ HTTP/1.0\r\nHost: gw\r\nConnection: keep-alive\r\n";
    let mut wire = Wire::connect(gw.addr).await;
    wire.send(format!("{head}Content-Length: 900000\r\n\r\n")).await;
    let answer = wire.answer().await;
    assert_eq!(answer.all("connection").collect::<Vec<_>>(), ["close"]);
    assert!(wire.closed().await);
}
