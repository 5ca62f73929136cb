use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::raw_http::LONG;

/// An HTTP/2 connection to a gateway.
pub struct Http2 {
    pub send: SendRequest<Bytes>,
    /// How the connection ended.
    pub ended: JoinHandle<Result<(), h2::Error>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn code(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        json["code"].as_str().unwrap_or("").to_owned()
    }
}

impl Http2 {
    /// By prior knowledge.
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream).await
    }

    pub async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self::with(io, &mut Builder::new()).await
    }

    pub async fn with(
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        builder: &mut Builder,
    ) -> Self {
        let (send, conn) = builder.handshake(io).await.unwrap();
        Self { send, ended: tokio::spawn(conn) }
    }

    pub async fn get(&mut self, uri: &str) -> Answer {
        self.ask(Request::get(uri).body(()).unwrap(), &[], None).await.unwrap()
    }

    /// Sends a request with a body in pieces, reads the whole answer.
    pub async fn ask(
        &mut self,
        request: Request<()>,
        body: &[&[u8]],
        trailers: Option<HeaderMap>,
    ) -> Result<Answer, h2::Error> {
        let bare = body.is_empty() && trailers.is_none();
        let mut send = timeout(LONG, self.send.clone().ready()).await.unwrap()?;
        let (answer, mut stream) = send.send_request(request, bare)?;
        for (n, piece) in body.iter().enumerate() {
            let last = n + 1 == body.len() && trailers.is_none();
            stream.send_data(Bytes::copy_from_slice(piece), last)?;
        }
        if let Some(trailers) = trailers {
            stream.send_trailers(trailers)?;
        }
        let (parts, stream) = timeout(LONG, answer).await.expect("an answer in time")?.into_parts();
        let (body, trailers) = read(stream).await?;
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
    }

    /// Why the gateway closed the connection; `None` if it did without saying.
    pub async fn goodbye(self) -> Option<Reason> {
        drop(self.send);
        let ended = timeout(LONG, self.ended).await.expect("it closes in time").unwrap();
        ended.err().and_then(|error| error.reason())
    }
}

/// What comes of an answer's body.
pub async fn read(mut stream: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut body = Vec::new();
    while let Some(piece) = timeout(LONG, stream.data()).await.expect("a piece in time") {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    let trailers = timeout(LONG, stream.trailers()).await.expect("an end in time")?;
    Ok((body, trailers))
}

/// A frame as it goes over the wire (RFC 9113, 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Header fields without compression (RFC 7541, 6.2.2): what no library would send.
pub fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        // RFC 7541, 5.1, with a prefix of 7 bits.
        match u8::try_from(text.len()) {
            Ok(short @ 0..=126) => bytes.push(short),
            _ => {
                bytes.push(127);
                let mut rest = text.len() - 127;
                while 128 <= rest {
                    bytes.push((rest % 128 + 128) as u8);
                    rest /= 128;
                }
                bytes.push(rest as u8);
            }
        }
        bytes.extend_from_slice(text.as_bytes());
    };
    for (name, value) in list {
        bytes.push(0);
        text(&mut bytes, name);
        text(&mut bytes, value);
    }
    bytes
}

/// The preface and empty settings.
pub fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes
}
