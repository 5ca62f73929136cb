use std::cell::Cell;

use tokio::io::AsyncReadExt;

use super::*;

/// The last look is in the poll that writes: after it, not a byte may have gone out.
#[tokio::test]
async fn a_request_that_comes_too_late_is_not_written() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let pool = Pool::new(authority.as_str().into(), 8);
    let timeouts = Timeouts { connect_ms: 5_000, first_byte_ms: 5_000, idle_ms: 5_000 };
    let body = RequestBody::empty();
    let transfer = body.transfer();
    let mut request = Some(request(&Method::GET, HeaderMap::new(), body));
    *request.as_mut().unwrap().uri_mut() = "/x".parse().unwrap();
    let exchange = Exchange { pool: &pool, timeouts: &timeouts, transfer: &transfer };
    let asked = Cell::new(0);
    let late = || {
        asked.set(asked.get() + 1);
        true
    };
    let failed = exchange.run(&mut request, false, late).await.err().unwrap();
    assert!(matches!(failed.error, UpstreamError::Late), "{:?}", failed.error);
    assert!(request.is_some());
    assert_eq!(asked.get(), 1, "once, after the connection was there");
    // The connection is kept, and the first that comes over it is the next request.
    let (mut stream, _) = listener.accept().await.unwrap();
    let served = async {
        let mut head = [0; 6];
        stream.read_exact(&mut head).await.unwrap();
        drop(stream);
        head
    };
    let (head, sent) = tokio::join!(served, exchange.run(&mut request, false, || false));
    assert_eq!(&head, b"GET /x");
    assert!(sent.err().unwrap().reused);
}
