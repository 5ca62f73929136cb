//! The admin listener, and the one for metrics and health alone.
//!
//! Not `axum::serve`: told to stop, it drops connections whose first request it has not read, it has no
//! deadlines, and it bounds nothing.

use std::convert::Infallible;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use http::HeaderValue;
use http::header::CONNECTION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use crate::config::Certificates;

/// Connections at once. Further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 1_024;
/// How long a client may take to agree on TLS.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long a connection may be without a whole head of a request.
const HEAD_MAX: Duration = Duration::from_secs(60);
/// How often files of certificates are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(1);
/// How long connections without a request are kept when the listener stops: who speaks meanwhile is
/// answered, and told to connect anew.
const PATIENCE: Duration = Duration::from_millis(200);
/// The pause after a failed accept: mostly there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener on a thread of its own: no bulk of admin work slows the data plane.
pub(super) struct HttpService {
    pub(super) name: &'static str,
    pub(super) router: Router,
    pub(super) listener: Option<TcpListener>,
    /// Its certificates; `None` is plain text.
    pub(super) certificates: Option<Arc<Certificates>>,
    /// Turns true when no more requests are to be taken.
    pub(super) leaving: watch::Receiver<bool>,
    /// Dropped when the last request is answered.
    pub(super) left: Option<watch::Receiver<()>>,
}

#[async_trait]
impl Service for HttpService {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        let left = self.left.take();
        let Some(listener) = self.listener.take() else { return };
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => self.serve(listener).await,
            Err(error) => tracing::error!(%error, name = self.name, "a listener cannot be used"),
        }
        drop(left);
    }

    fn name(&self) -> &str {
        self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

impl HttpService {
    /// Until it is told to leave, and until everybody who was let in is answered.
    async fn serve(&self, listener: tokio::net::TcpListener) {
        let (end, ending) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut look = interval(CERTIFICATES_EVERY);
        let mut leaving = self.leaving.clone();
        // Whoever could say so is gone: that means it too.
        let mut leave = pin!(async { drop(leaving.wait_for(|leaves| *leaves).await) });
        loop {
            let room = connections.len() < CONNECTIONS_MAX;
            tokio::select! {
                biased;
                () = &mut leave => break,
                accepted = listener.accept(), if room => match accepted {
                    Ok((stream, _)) => {
                        let guest = Guest {
                            router: self.router.clone(),
                            leaving: self.leaving.clone(),
                            ending: ending.clone(),
                        };
                        connections.spawn(guest.receive(stream, self.certificates.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, name = self.name, "no connection can be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_ended) = connections.join_next() => {}
                _ = look.tick() => {
                    self.certificates.as_ref().and_then(|certificates| certificates.refresh());
                }
            }
        }
        drop(listener);
        let all = async { while connections.join_next().await.is_some() {} };
        let mut all = pin!(all);
        if timeout(PATIENCE, &mut all).await.is_err() {
            end.send_replace(true);
            all.await;
        }
    }
}

/// Somebody who is let in.
struct Guest {
    router: Router,
    leaving: watch::Receiver<bool>,
    /// Turns true when a connection without a request is to end.
    ending: watch::Receiver<bool>,
}

impl Guest {
    async fn receive(self, stream: TcpStream, certificates: Option<Arc<Certificates>>) {
        // Answers are small, and whole.
        let _delayed = stream.set_nodelay(true);
        let Some(certificates) = certificates else { return self.serve(stream).await };
        match timeout(HANDSHAKE_MAX, certificates.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "no agreement on TLS"),
            Err(_late) => tracing::debug!("no agreement on TLS in time"),
        }
    }

    async fn serve(mut self, io: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(|request| {
            // A router is cloned for each request: that is what it is made for.
            let (mut router, leaving) = (self.router.clone(), self.leaving.clone());
            async move {
                let answered: Result<axum::response::Response, Infallible> =
                    tower_service::Service::call(&mut router, request).await;
                answered.map(|mut response| {
                    if *leaving.borrow() {
                        let close = HeaderValue::from_static("close");
                        response.headers_mut().insert(CONNECTION, close);
                    }
                    response
                })
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
        let mut connection = pin!(http.serve_connection(TokioIo::new(io), service));
        let end = async { drop(self.ending.wait_for(|ends| *ends).await) };
        let done = tokio::select! {
            done = &mut connection => done,
            () = end => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = done {
            tracing::debug!(%error, "a connection ended");
        }
    }
}
