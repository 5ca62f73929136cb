use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn a_name_that_moved_takes_its_unused_connections_along() {
    let listen = || async { tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap() };
    let (old, new) = (listen().await, listen().await);
    let pool = Pool::new("localhost:1".into(), 8);
    let second = Duration::from_secs(20);
    assert!(pool.is_named() && !Pool::new("127.0.0.1:1".into(), 8).is_named());
    pool.moved(vec![old.local_addr().unwrap()]);
    let (kept, used) = (pool.connect(second).await.unwrap(), pool.connect(second).await.unwrap());
    pool.keep(kept);
    assert!(pool.take().is_some_and(|link| link.reused), "it lay in the pool");
    pool.keep(pool.connect(second).await.unwrap());
    pool.moved(vec![new.local_addr().unwrap()]);
    assert!(pool.take().is_none(), "unused ones are closed");
    pool.keep(used);
    assert!(pool.take().is_none(), "and one in use when its time comes");
    assert_eq!(pool.connect(second).await.unwrap().address, new.local_addr().unwrap());
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_no_failure_while_another_does() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let pool = Pool::new("localhost:1".into(), 8);
    pool.moved(vec![dead, listener.local_addr().unwrap()]);
    for _ in 0..4 {
        assert!(pool.connect(Duration::from_secs(20)).await.is_ok());
    }
}

#[tokio::test]
async fn a_name_is_resolved_when_it_is_first_needed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let pool = Pool::new(format!("localhost:{port}").as_str().into(), 8);
    assert!(pool.connect(Duration::from_secs(20)).await.is_ok());
    assert!(pool.addresses.load().contains(&listener.local_addr().unwrap()));
}

#[tokio::test]
async fn a_request_comes_back_from_a_connection_that_was_closed_meanwhile() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pool = Pool::new(listener.local_addr().unwrap().to_string().as_str().into(), 8);
    let body = crate::proxy::body::RequestBody::empty();
    let transfer = body.transfer();
    let mut request = Some(http::Request::new(body));
    let patience = Duration::from_secs(20);
    let mut link = pool.connect(patience).await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    send(&mut link, &mut request, &transfer, patience).await.unwrap();
    assert!(request.is_none(), "it was sent");
    pool.keep(link);
    let mut link = pool.take().unwrap();
    // All of it: what is left unread would be told as an error.
    assert_ne!(upstream.read(&mut [0; 1_024]).await.unwrap(), 0);
    drop(upstream);
    let mut nobody = Context::from_waker(Waker::noop());
    while link.is_usable(&mut nobody) {
        tokio::task::yield_now().await;
    }
    let started = Instant::now();
    request = Some(http::Request::new(crate::proxy::body::RequestBody::empty()));
    assert!(send(&mut link, &mut request, &transfer, patience).await.is_err());
    assert!(request.is_some(), "as it was");
    assert!(started.elapsed() < patience / 2, "and at once");
}
