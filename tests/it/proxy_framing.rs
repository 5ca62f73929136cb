use crate::proxy_support::{Gateway, Upstream};
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
