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
    assert!(pool.take().await.is_some_and(|link| link.reused), "it lay in the pool");
    pool.keep(pool.connect(second).await.unwrap());
    pool.moved(vec![new.local_addr().unwrap()]);
    assert!(pool.take().await.is_none(), "unused ones are closed");
    pool.keep(used);
    assert!(pool.take().await.is_none(), "and one in use when its time comes");
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
