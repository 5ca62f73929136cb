use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than anything a test waits for.
pub const LONG: Duration = Duration::from_secs(20);

/// One message as it came over the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The request line or status line.
    pub first: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Decoded.
    pub body: Vec<u8>,
    /// Whether it ended as its framing says.
    pub whole: bool,
    /// Everything, as it came.
    pub bytes: Vec<u8>,
}

impl Message {
    pub fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    pub fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or("")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or("").to_owned()
    }
}

/// A socket and what was read from it too far.
pub struct Wire {
    pub stream: TcpStream,
    ahead: Vec<u8>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    pub async fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::new(stream)
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(LONG, self.stream.write_all(bytes.as_ref())).await.unwrap().unwrap();
    }

    /// Reads more; false at the end, also if the peer reset.
    pub async fn more(&mut self, into: &mut Vec<u8>) -> bool {
        let mut buffer = vec![0; 65_536];
        let n = timeout(LONG, self.stream.read(&mut buffer)).await.expect("no bytes in time");
        let n = n.unwrap_or(0);
        into.extend_from_slice(&buffer[..n]);
        0 < n
    }

    /// Whether the peer has closed, and sends nothing before it.
    pub async fn closed(&mut self) -> bool {
        let mut rest = std::mem::take(&mut self.ahead);
        rest.is_empty() && !self.more(&mut rest).await
    }

    /// The head of the next message, if there is one.
    pub async fn head(&mut self) -> Option<Message> {
        let mut bytes = std::mem::take(&mut self.ahead);
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more(&mut bytes).await {
                return None;
            }
        };
        self.ahead = bytes.split_off(end);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines = text.trim_end().split("\r\n");
        let first = lines.next().unwrap().to_owned();
        let headers = lines
            .map(|line| line.split_once(':').expect("a header line"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Some(Message { first, headers, bytes, ..Message::default() })
    }

    async fn take(&mut self, n: usize, message: &mut Message) -> Option<Vec<u8>> {
        let mut ahead = std::mem::take(&mut self.ahead);
        while ahead.len() < n {
            if !self.more(&mut ahead).await {
                message.body.extend_from_slice(&ahead);
                return None;
            }
        }
        self.ahead = ahead.split_off(n);
        message.bytes.extend_from_slice(&ahead);
        Some(ahead)
    }

    async fn line(&mut self, message: &mut Message) -> Option<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(self.take(1, message).await?);
        }
        Some(String::from_utf8(line).unwrap().trim_end().to_owned())
    }

    /// The next bytes.
    pub async fn rest(&mut self, n: usize, into: &mut Vec<u8>) {
        into.extend(self.take(n, &mut Message::default()).await.expect("as many bytes"));
    }

    /// The next frame of HTTP/2, if there is one: its kind, flags and payload.
    pub async fn frame(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let mut message = Message::default();
        let head = self.take(9, &mut message).await?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = self.take(length, &mut message).await?;
        Some((head[3], head[4], payload))
    }

    /// Reads the body that belongs to a head.
    pub async fn body(&mut self, message: &mut Message, bodiless: bool) {
        message.whole = true;
        if bodiless {
            return;
        }
        if message.header("transfer-encoding") == Some("chunked") {
            message.whole = self.chunks(message).await.is_some();
        } else if let Some(length) = message.header("content-length") {
            let length = length.parse().unwrap();
            match self.take(length, message).await {
                Some(body) => message.body = body,
                None => message.whole = false,
            }
        } else if message.first.starts_with("HTTP/") {
            let mut body = std::mem::take(&mut self.ahead);
            while self.more(&mut body).await {}
            message.body = body;
        }
    }

    async fn chunks(&mut self, message: &mut Message) -> Option<()> {
        loop {
            let line = self.line(message).await?;
            let size = usize::from_str_radix(line.split(';').next().unwrap(), 16).unwrap();
            if size == 0 {
                while !self.line(message).await?.is_empty() {}
                return Some(());
            }
            let chunk = self.take(size, message).await?;
            message.body.extend(chunk);
            self.take(2, message).await?;
        }
    }

    /// The next answer, past any 1xx.
    pub async fn answer(&mut self) -> Message {
        self.answer_to("GET").await
    }

    pub async fn answer_to(&mut self, method: &str) -> Message {
        let mut message = self.head().await.expect("an answer");
        while (100..200).contains(&message.status()) {
            message = self.head().await.expect("an answer");
        }
        let bodiless = method == "HEAD" || matches!(message.status(), 204 | 304);
        self.body(&mut message, bodiless).await;
        message
    }

    /// The next request.
    pub async fn request(&mut self) -> Option<Message> {
        let mut message = self.head().await?;
        self.body(&mut message, false).await;
        Some(message)
    }
}

/// Sends bytes on a new connection and reads one answer.
pub async fn ask(to: SocketAddr, bytes: impl AsRef<[u8]>) -> Message {
    let mut wire = Wire::connect(to).await;
    wire.send(bytes.as_ref()).await;
    let text = String::from_utf8_lossy(bytes.as_ref());
    let mut answer = wire.head().await;
    while answer.as_ref().is_some_and(|a| (100..200).contains(&a.status())) {
        answer = wire.head().await;
    }
    let mut answer =
        answer.unwrap_or_else(|| panic!("no answer to {:?}", &text[..text.len().min(200)]));
    let bodiless = text.starts_with("HEAD ") || matches!(answer.status(), 204 | 304);
    wire.body(&mut answer, bodiless).await;
    answer
}

/// A GET on a new connection.
pub async fn get(to: SocketAddr, target: &str, headers: &str) -> Message {
    ask(to, format!("GET {target} HTTP/1.1\r\nHost: gw\r\n{headers}\r\n")).await
}
