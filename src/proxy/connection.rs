//! One client's connection: let in, found out what it speaks, served to its end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use std::{io, mem};

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::metrics::Cut;
use crate::proxy::call::Client;
use crate::proxy::downstream::door::{Door, Spoken};
use crate::proxy::downstream::streams::Streams;
use crate::proxy::downstream::{ClientIo, Gate, Spans};
use crate::proxy::engine::{AddressSeat, Engine, guarded};
use crate::proxy::patience::millis;

/// How much of an unread body is read before a connection is closed, and for how long.
const LINGER_BYTES: usize = 1024 * 1024;
const LINGER: Duration = Duration::from_secs(1);
/// How long the rest of a head may take when the gateway stops.
const HALF_HEAD: Duration = Duration::from_millis(250);
/// HTTP/2: what a client may send of a stream, and of a connection, before the upstream took it.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// HTTP/2: what waits to be sent of a stream.
const SEND_BYTES: usize = 64 * 1024;
/// HTTP/2: streams that the library resets for what the client did wrong in them, before it gives
/// the connection up.
const WRONG_STREAMS_MAX: usize = 100;

/// A connection that is let in.
struct Guest {
    io: ClientIo,
    gate: Arc<Gate>,
    client: Arc<Client>,
    http2: bool,
    _seat: Option<AddressSeat>,
}

impl Engine {
    /// Serves one connection to its end. When `end` turns true it ends after the requests
    /// under way; the client is told with `Connection: close` or GOAWAY.
    pub(super) async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        door: Arc<Door>,
        mut end: watch::Receiver<bool>,
    ) {
        let stop = async {
            // Whoever could say so is gone: that means it too.
            drop(end.wait_for(|end| *end).await);
        };
        let mut stop = pin!(stop);
        let guest = tokio::select! {
            guest = self.receive(stream, peer, &door) => guest,
            () = &mut stop => None,
        };
        let Some(guest) = guest else { return };
        let gate = Arc::clone(&guest.gate);
        if guest.http2 {
            self.serve_http2(guest, stop).await;
        } else {
            self.serve_http1(guest, stop).await;
        }
        if let Some(why) = gate.was_cut() {
            self.state.metrics.cut(why);
        }
    }

    /// Everything before the first request.
    async fn receive(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        door: &Door,
    ) -> Option<Guest> {
        let (config, metrics) = (&self.state.config, &self.state.metrics);
        let spans = Spans {
            first: millis(config.first_byte_timeout_ms),
            head: millis(config.head_timeout_ms),
            idle: millis(config.keep_alive_ms),
        };
        let arrival = match tokio::time::timeout(spans.first, door.enter(stream, peer)).await {
            Ok(Ok(arrival)) => arrival,
            Ok(Err(error)) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    metrics.cut(Cut::Handshake);
                }
                tracing::debug!(%error, "a connection did not get as far as HTTP");
                return None;
            }
            Err(_elapsed) => {
                metrics.cut(Cut::FirstByte);
                return None;
            }
        };
        let Ok(seat) = self.seat_of(arrival.client) else {
            metrics.connections_refused().inc();
            return None;
        };
        let gate = Gate::new();
        let mut io = ClientIo::new(arrival.stream, Arc::clone(&gate), spans);
        let http2 = match arrival.spoken {
            Spoken::Http1 => Ok(false),
            Spoken::Unknown => io.speaks_http2().await,
            Spoken::Http2 => match io.speaks_http2().await {
                Ok(false) => Err(io::ErrorKind::InvalidData.into()),
                other => other,
            },
        };
        let http2 = match http2 {
            Ok(http2) => http2,
            Err(error) => {
                let odd = (error.kind() == io::ErrorKind::InvalidData).then_some(Cut::Handshake);
                if let Some(why) = gate.was_cut().or(odd) {
                    metrics.cut(why);
                }
                return None;
            }
        };
        if http2 {
            io.count_frames(config.http2_resets_max);
        }
        let trusted = config.trusted_proxies.contains(arrival.client);
        let client = Client::new(arrival.client, Arc::clone(&gate), door.is_tls(), trusted);
        Some(Guest { io, gate, client: Arc::new(client), http2, _seat: seat })
    }

    async fn serve_http1(
        self: &Arc<Self>,
        guest: Guest,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) {
        let Guest { io, gate, client, .. } = guest;
        let engine = Arc::clone(self);
        let service = service_fn(move |request: Request<Incoming>| {
            let (engine, client) = (Arc::clone(&engine), Arc::clone(&client));
            let (mut head, body) = request.into_parts();
            async move {
                let answer = guarded(&engine, &client, &mut head, body, None).await;
                Ok::<_, Infallible>(answer)
            }
        });
        let mut conn = self.http.serve_connection(TokioIo::new(io), service);
        let done = tokio::select! {
            done = &mut conn => done,
            () = &mut stop => {
                Pin::new(&mut conn).graceful_shutdown();
                match tokio::time::timeout(HALF_HEAD, &mut conn).await {
                    Ok(done) => done,
                    // Half a head, and the rest does not come.
                    Err(_elapsed) if gate.is_idle() => return,
                    Err(_elapsed) => (&mut conn).await,
                }
            }
        };
        // hyper refused what it read, and there may be more of it.
        let refused = done.as_ref().is_err_and(hyper::Error::is_parse);
        let tunnel = gate.take_tunnel().filter(|_| done.is_ok());
        if let Err(error) = done {
            tracing::debug!(%error, "a connection ended");
        }
        if let Some(tunnel) = tunnel {
            let parts = conn.into_parts();
            let mut client = parts.io.into_inner();
            client.unread(&parts.read_buf);
            tunnel.run(client).await;
        } else if refused || gate.left_unread() {
            conn.into_parts().io.into_inner().linger(LINGER_BYTES, LINGER).await;
        }
    }

    async fn serve_http2(
        self: &Arc<Self>,
        guest: Guest,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) {
        let Guest { io, gate, client, .. } = guest;
        let config = &self.state.config;
        let streams = Streams::new(&gate, &self.state.metrics);
        let mut http = http2::Builder::new(streams.clone());
        http.max_concurrent_streams(config.http2_streams_max)
            .max_header_list_size(u32::try_from(config.header_bytes_max).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BYTES)
            .max_local_error_reset_streams(WRONG_STREAMS_MAX);
        let engine = Arc::clone(self);
        let service = service_fn(move |request: Request<Incoming>| {
            let (engine, client) = (Arc::clone(&engine), Arc::clone(&client));
            let flow = Some(streams.flow());
            let (mut head, body) = request.into_parts();
            async move {
                let answer = guarded(&engine, &client, &mut head, body, flow).await;
                Ok::<_, Infallible>(answer)
            }
        });
        let mut conn = pin!(http.serve_connection(TokioIo::new(io), service));
        let mut told = false;
        let served = poll_fn(|cx| {
            loop {
                if let Poll::Ready(done) = conn.as_mut().poll(cx) {
                    return Poll::Ready(done);
                }
                // The socket found it idle for too long, or the gateway stops.
                if !gate.is_closing() || mem::replace(&mut told, true) {
                    return Poll::Pending;
                }
                conn.as_mut().graceful_shutdown();
            }
        });
        let mut served = pin!(served);
        let done = tokio::select! {
            done = &mut served => done,
            () = &mut stop => {
                gate.close();
                served.await
            }
        };
        if let Err(error) = done {
            tracing::debug!(%error, "a connection ended");
        }
    }
}

/// An address as `X-Forwarded-For` spells it.
pub(super) fn told(ip: IpAddr) -> http::HeaderValue {
    let text = http::HeaderValue::from_maybe_shared(bytes::Bytes::from(ip.to_string()));
    text.unwrap_or_else(|_never| http::HeaderValue::from_static("unknown"))
}
