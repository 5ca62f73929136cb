//! Requests to an admin listener, each on a connection of its own.

use std::io::Read;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

use super::{ClientError, Target};

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long nothing may happen: longer than a listener waits for its store.
const STILL_MAX: Duration = Duration::from_secs(120);
/// Bytes read from a file at once.
const CHUNK: usize = 64 << 10;
/// The longest answer that is kept in memory.
const ANSWER_MAX: usize = 16 << 20;

/// A listener that can be asked.
pub(super) struct Listener {
    authority: String,
    secret: Zeroizing<String>,
    /// Whose certificate it has to show, where TLS is spoken.
    tls: Option<(ServerName<'static>, TlsConnector)>,
}

/// A connection, in plain text or in TLS.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// What is sent.
pub(super) enum Sent {
    Nothing,
    Text(String),
    File(Upload),
}

/// A file on its way, and how much of it has gone.
pub(super) struct Upload {
    pub(super) from: Box<dyn Read + Send>,
    pub(super) told: Box<dyn Fn(u64) + Send>,
    pub(super) sent: Arc<AtomicU64>,
}

impl Listener {
    pub(super) fn of(target: &Target) -> Result<Self, ClientError> {
        let uri: Uri = target.url.parse().map_err(|_unreadable| ClientError::Url)?;
        let (secure, port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(ClientError::Url),
        };
        let plain = matches!(uri.path(), "" | "/");
        let authority = uri.authority().filter(|_| plain).ok_or(ClientError::Url)?;
        let tls = if secure {
            let name = authority.host().trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(name).map_err(|_odd| ClientError::Url)?;
            Some((name, connector(target.ca.as_deref())?))
        } else {
            None
        };
        let port = authority.port_u16().unwrap_or(port);
        let authority = format!("{}:{port}", authority.host());
        Ok(Self { authority, secret: target.secret()?, tls })
    }

    async fn connect(&self) -> Result<Box<dyn Connection>, ClientError> {
        let away = |error| ClientError::away("reached", error);
        let connected = async {
            let stream = TcpStream::connect(&self.authority).await.map_err(away)?;
            let Some((name, connector)) = &self.tls else {
                return Ok::<Box<dyn Connection>, _>(Box::new(stream));
            };
            Ok(Box::new(connector.connect(name.clone(), stream).await.map_err(away)?))
        };
        timeout(CONNECT_MAX, connected).await.map_err(|_elapsed| ClientError::Stalled)?
    }

    /// Asks, and reads the whole answer. Any status but 2xx is a refusal.
    pub(super) async fn json(
        &self,
        method: Method,
        path: &str,
        sent: Sent,
    ) -> Result<Value, ClientError> {
        let (status, value) = self.answer(method, path, sent).await?;
        if status.is_success() { Ok(value) } else { Err(refused(status, &value)) }
    }

    /// Asks, and reads the whole answer.
    pub(super) async fn answer(
        &self,
        method: Method,
        path: &str,
        sent: Sent,
    ) -> Result<(StatusCode, Value), ClientError> {
        let response = self.send(method, path, sent).await?;
        let status = response.status();
        let limited = http_body_util::Limited::new(response.into_body(), ANSWER_MAX);
        let whole = timeout(STILL_MAX, limited.collect()).await;
        let whole = whole.map_err(|_elapsed| ClientError::Stalled)?;
        let bytes = whole.map_err(|error| ClientError::away("read", error))?.to_bytes();
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    /// Asks, and hands the answer on as it comes.
    pub(super) async fn copy(
        &self,
        path: &str,
        mut to: impl std::io::Write,
    ) -> Result<std::io::Result<()>, ClientError> {
        let response = self.send(Method::GET, path, Sent::Nothing).await?;
        let (status, mut body) = (response.status(), response.into_body());
        if !status.is_success() {
            return Err(refused(status, &Value::Null));
        }
        loop {
            let frame = timeout(STILL_MAX, body.frame()).await;
            let Some(frame) = frame.map_err(|_elapsed| ClientError::Stalled)? else {
                return Ok(to.flush());
            };
            let data = frame.map_err(|error| ClientError::away("read", error))?.into_data();
            if let Err(error) = to.write_all(&data.unwrap_or_default()) {
                return Ok(Err(error));
            }
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        sent: Sent,
    ) -> Result<Response<Incoming>, ClientError> {
        let away = |error| ClientError::away("reached", error);
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(away)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::AUTHORIZATION, self.secret.as_str());
        let progress = match &sent {
            Sent::File(upload) => Arc::clone(&upload.sent),
            Sent::Nothing | Sent::Text(_) => Arc::default(),
        };
        let wrong = |_| ClientError::Argument("the secret has strange characters".to_owned());
        let request = request.body(sent).map_err(wrong)?;
        let mut answer = std::pin::pin!(sender.send_request(request));
        let mut before = 0;
        loop {
            match timeout(STILL_MAX, &mut answer).await {
                Ok(answered) => return answered.map_err(away),
                // An upload may take as long as it likes while it goes on.
                Err(_elapsed) => {
                    let now = progress.load(Ordering::Relaxed);
                    if std::mem::replace(&mut before, now) == now {
                        return Err(ClientError::Stalled);
                    }
                }
            }
        }
    }
}

/// Trusts the authorities in a file, or the system's.
fn connector(ca: Option<&Path>) -> Result<TlsConnector, ClientError> {
    let odd = |error: &dyn std::fmt::Display| ClientError::Authorities(error.to_string());
    let mut roots = RootCertStore::empty();
    match ca {
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
        Some(path) => {
            let bytes = std::fs::read(path).map_err(|e| ClientError::file(path, "read", e))?;
            for certificate in CertificateDer::pem_slice_iter(&bytes) {
                let certificate = certificate.map_err(|error| odd(&error))?;
                roots.add(certificate).map_err(|error| odd(&error))?;
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(|error| odd(&error))?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn refused(status: StatusCode, value: &Value) -> ClientError {
    let errors = value.get("errors").and_then(Value::as_array);
    let texts: Vec<_> = errors.into_iter().flatten().filter_map(Value::as_str).collect();
    ClientError::Refused { status: status.as_u16(), text: texts.join("; ") }
}

/// A file is read on the thread that sends it: there is nothing else for it to do.
impl Body for Sent {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let upload = match &mut *self {
            Self::Nothing => return Poll::Ready(None),
            Self::Text(text) => {
                let text = std::mem::take(text);
                *self = Self::Nothing;
                return Poll::Ready(Some(Ok(Frame::data(text.into()))));
            }
            Self::File(upload) => upload,
        };
        let mut chunk = vec![0; CHUNK];
        let read = loop {
            match upload.from.read(&mut chunk) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(read) => break read,
            }
        };
        if read == 0 {
            *self = Self::Nothing;
            return Poll::Ready(None);
        }
        chunk.truncate(read);
        let sent = u64::try_from(read).unwrap_or(0);
        let sent = upload.sent.fetch_add(sent, Ordering::Relaxed).saturating_add(sent);
        (upload.told)(sent);
        Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Nothing => http_body::SizeHint::with_exact(0),
            Self::Text(text) => {
                http_body::SizeHint::with_exact(u64::try_from(text.len()).unwrap_or(u64::MAX))
            }
            Self::File(_) => http_body::SizeHint::default(),
        }
    }
}

/// A text as part of a query.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b',') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
