use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes};
use futures_util::{SinkExt, StreamExt, stream};
use http::uri::PathAndQuery;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{accept_async, client_async};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};

use crate::proxy_support::{Gateway, TOKEN};
use crate::raw_http::LONG;

/// Messages of any bytes.
#[derive(Clone, Copy, Debug)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A server of tonic's: `Say` echoes a message, `Chat` a stream of them, anything else is a status.
async fn grpc_echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let echo = tower::service_fn(async |request: http::Request<tonic::body::Body>| {
        let mut grpc = tonic::server::Grpc::new(Plain);
        Ok::<_, Infallible>(match request.uri().path() {
            "/t.Echo/Say" => {
                let say = async |request: Request<Bytes>| Ok(Response::new(request.into_inner()));
                grpc.unary(tower::service_fn(say), request).await
            }
            "/t.Echo/Chat" => {
                let chat = async |request: Request<Streaming<Bytes>>| {
                    Ok(Response::new(request.into_inner()))
                };
                grpc.streaming(tower::service_fn(chat), request).await
            }
            _ => Status::not_found("nothing of that name").into_http(),
        })
    });
    let incoming = stream::unfold(listener, async |listener| {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    tokio::spawn(Server::builder().serve_with_incoming(echo, Box::pin(incoming)));
    addr
}

async fn grpc_client(to: SocketAddr) -> Grpc<Channel> {
    let channel = Endpoint::try_from(format!("http://{to}")).unwrap().connect().await.unwrap();
    Grpc::new(channel)
}

/// One message there and back.
async fn say(
    client: &mut Grpc<Channel>,
    path: &str,
    token: &str,
    text: Bytes,
) -> Result<Bytes, Status> {
    let mut request = Request::new(text);
    if !token.is_empty() {
        request.metadata_mut().insert("x-api-key", token.parse().unwrap());
    }
    client.ready().await.unwrap();
    let path = PathAndQuery::try_from(path).unwrap();
    let said = timeout(LONG, client.unary(request, path, Plain)).await.unwrap();
    said.map(Response::into_inner)
}

#[tokio::test]
async fn a_grpc_library_on_both_sides() {
    let gw = Gateway::with_token(grpc_echo().await, "http2 = true").await;
    gw.credential(json!({"Quota": 4, "QuotaRenewalRate": 3600})).await;
    let mut client = grpc_client(gw.addr).await;
    let large = Bytes::from(vec![7; 1 << 20]);
    for text in [Bytes::from_static(b"hello"), Bytes::new(), large] {
        assert_eq!(say(&mut client, "/api/t.Echo/Say", TOKEN, text.clone()).await.unwrap(), text);
    }
    let mut codes = Vec::new();
    for (path, token) in [
        ("/api/t.Echo/Other", TOKEN),
        ("/api/t.Echo/Say", TOKEN),
        ("/api/t.Echo/Say", ""),
        ("/api/t.Echo/Say", "nobody"),
    ] {
        let status = say(&mut client, path, token, Bytes::new()).await.unwrap_err();
        assert!(!status.message().is_empty(), "{status:?}");
        codes.push(status.code());
    }
    let ours = [Code::ResourceExhausted, Code::Unauthenticated, Code::PermissionDenied];
    assert_eq!(codes, [&[Code::NotFound][..], &ours].concat(), "the upstream's, then ours");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gw = Gateway::keyless(nobody, "http2 = true").await;
    let mut client = grpc_client(gw.addr).await;
    let status = say(&mut client, "/t.Echo/Say", "", Bytes::new()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_grpc_conversation_goes_both_ways_at_once() {
    let gw = Gateway::keyless(grpc_echo().await, "http2 = true").await;
    let mut client = grpc_client(gw.addr).await;
    let (tell, told) = tokio::sync::mpsc::channel::<Bytes>(1);
    let told = stream::unfold(told, async |mut told| Some((told.recv().await?, told)));
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/t.Echo/Chat");
    let asked = client.streaming(Request::new(told), path, Plain);
    let mut heard = timeout(LONG, asked).await.unwrap().unwrap().into_inner();
    for n in 0..100_u32 {
        let text = Bytes::from(n.to_string());
        tell.send(text.clone()).await.unwrap();
        // Each is answered before the next is said.
        let answer = timeout(LONG, heard.message()).await.unwrap().unwrap();
        assert_eq!(answer, Some(text));
    }
    drop(tell);
    assert_eq!(timeout(LONG, heard.message()).await.unwrap().unwrap(), None);
    assert!(heard.trailers().await.unwrap().is_some(), "a status of OK");
}

/// A server of tungstenite's that echoes messages.
async fn websocket_echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() || message.is_binary() {
                        socket.send(message).await.unwrap();
                    }
                }
            });
        }
    });
    addr
}

#[tokio::test]
async fn a_websocket_library_on_both_sides() {
    let gw = Gateway::with_token(websocket_echo().await, "").await;
    gw.credential(json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true})).await;
    let ask = |token: &str| {
        let mut request = "ws://gw/api/chat".into_client_request().unwrap();
        request.headers_mut().insert("x-api-key", token.parse().unwrap());
        request
    };
    let stream = TcpStream::connect(gw.addr).await.unwrap();
    match client_async(ask("nobody"), stream).await {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 403),
        other => panic!("{other:?}"),
    }
    let stream = TcpStream::connect(gw.addr).await.unwrap();
    let (mut socket, answer) = client_async(ask(TOKEN), stream).await.unwrap();
    assert_eq!(answer.status(), 101);
    for message in [
        Message::text("hello"),
        Message::text(""),
        Message::binary(vec![7; 1 << 20]),
        Message::text("ä".repeat(10_000)),
    ] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(timeout(LONG, socket.next()).await.unwrap().unwrap().unwrap(), message);
    }
    socket.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
    let pong = timeout(LONG, socket.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(pong, Message::Pong(Bytes::from_static(b"there?")), "of the upstream");
    let bye = CloseFrame { code: 4001.into(), reason: "enough".into() };
    socket.close(Some(bye.clone())).await.unwrap();
    let last = timeout(LONG, socket.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(last, Message::Close(Some(bye)));
    assert!(timeout(LONG, socket.next()).await.unwrap().is_none(), "the connection ends");
    drop(socket);
    gw.until("turnpike_requests_under_way", 0).await;
}
