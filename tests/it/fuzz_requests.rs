use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, set_hook, take_hook};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use crate::proxy_support::{Gateway, Setup, TOKEN};
use crate::raw_http::LONG;
use crate::strict_http::{Strict, next};

/// What the gateway adds to everything it sends upstream. A request without it was smuggled in.
const MARK: &str = "x-mark: 7d1f0c5a9be3426c";
/// Longer inputs say nothing more: heads end at 8 KiB here.
const INPUT_MAX: usize = 12_000;
/// Without a byte for so long, a gateway on the same thread has nothing more to say.
const QUIET: Duration = Duration::from_millis(2);

const APIS: &str = r#"
[[apis]]
id = "open"
listen_path = "/"
keyless = true
targets = ["$UP/open"]
body_bytes_max = 2000
request_headers = { set = { "X-Mark" = "7d1f0c5a9be3426c" } }
upgrades = ["websocket", "chat"]
[[apis]]
id = "kept"
hosts = ["kept.example"]
listen_path = "/k/"
strip_listen_path = false
keep_encoded_slash = true
preserve_host = true
keyless = true
targets = ["$UP/kept"]
request_headers = { set = { "X-Mark" = "7d1f0c5a9be3426c" }, remove = ["X-Gone"] }
cors = { preflight = "answer", origins = ["*"], methods = ["GET"] }
[[apis]]
id = "a"
listen_path = "/api/"
auth_header = "X-Token"
auth_query = "key"
auth_cookie = "key"
version_header = "X-Version"
versions = ["1", "2"]
default_version = "1"
identity_headers = true
targets = ["$UP/a"]
request_headers = { set = { "X-Mark" = "7d1f0c5a9be3426c" } }
"#;

/// Two gateways over one upstream that reads strictly, all on one thread.
struct Lab {
    runtime: Runtime,
    /// The second one takes the PROXY protocol and believes `X-Forwarded-For`.
    gateways: [Gateway; 2],
    /// What the upstream would not take.
    faults: Arc<Mutex<Vec<String>>>,
    panics: Arc<Mutex<Vec<String>>>,
}

impl Lab {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let faults = Arc::<Mutex<Vec<String>>>::default();
        let gateways = runtime.block_on(async {
            let up = upstream(Arc::clone(&faults)).await;
            let plain = "[proxy]\nlisten = [\"127.0.0.1:0\"]\nheader_bytes_max = 8192\n";
            let proxied = "[proxy]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[[proxy.listeners]]\n\
                           listen = \"127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.0/8\"]\n";
            [gateway(plain, up).await, gateway(proxied, up).await]
        });
        Self { runtime, gateways, faults, panics: Arc::default() }
    }

    /// Notes panics from here on, whoever catches them. Other tests run on other threads.
    fn watch_panics(&self) {
        let (panics, before) = (Arc::clone(&self.panics), take_hook());
        let own = std::thread::current().id();
        set_hook(Box::new(move |info| {
            let here = std::thread::current().id() == own;
            panics.lock().extend(here.then(|| info.to_string()));
            before(info);
        }));
    }

    /// One connection. The first byte of the input says how the others are sent.
    fn run(&self, input: &[u8]) {
        let Some((how, bytes)) = input.split_first() else { return };
        let bytes = &bytes[..bytes.len().min(INPUT_MAX)];
        let gw = &self.gateways[usize::from(how >> 3 & 1)];
        self.runtime.block_on(async {
            talk(gw.addr, *how, bytes).await;
            let ended = async {
                let metrics = &gw.state.metrics;
                while metrics.under_way().get() != 0 || metrics.connections().get() != 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            assert!(timeout(LONG, ended).await.is_ok(), "a connection or a request stays");
        });
        let panics = std::mem::take(&mut *self.panics.lock());
        assert!(panics.is_empty(), "{panics:?}");
        let faults = std::mem::take(&mut *self.faults.lock());
        assert!(faults.is_empty(), "the upstream got {faults:?}");
    }
}

async fn gateway(proxy: &str, up: SocketAddr) -> Gateway {
    let apis = APIS.replace("$UP", &format!("http://{up}"));
    let gw = Gateway::start(Setup::new(&format!("{proxy}{apis}"))).await;
    gw.credential(serde_json::json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true})).await;
    gw
}

async fn talk(to: SocketAddr, how: u8, bytes: &[u8]) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // No connection is left waiting for its port: there are many of them.
    stream.set_zero_linger().unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut from, mut to) = stream.split();
    let size = [bytes.len().max(1), 1, 7, 1_000][usize::from(how & 3)];
    let sending = async {
        for piece in bytes.chunks(size) {
            if to.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        if how & 4 != 0 {
            sleep(QUIET).await;
            let _gone_already = to.shutdown().await;
        }
    };
    let mut answer = Vec::new();
    let reading = async {
        let mut quiet = 0;
        // The sender may take a moment, too.
        while quiet < 2 {
            match timeout(QUIET, from.read_buf(&mut answer)).await {
                Ok(Ok(1..)) => quiet = 0,
                Ok(_ended) => return,
                Err(_elapsed) => quiet += 1,
            }
        }
    };
    tokio::join!(sending, reading);
    let http1 = answer.starts_with(b"HTTP/1.");
    let http2 = answer.get(3) == Some(&4) && answer.get(5..9) == Some(&[0; 4]);
    assert!(answer.is_empty() || http1 || http2, "{:?}", answer.escape_ascii().to_string());
}

async fn upstream(faults: Arc<Mutex<Vec<String>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let faults = Arc::clone(&faults);
            tokio::spawn(async move {
                stream.set_zero_linger().unwrap();
                if let Err(fault) = serve(stream).await {
                    faults.lock().push(fault);
                }
            });
        }
    });
    addr
}

/// Answers what is a proper request of the gateway's.
///
/// # Errors
/// What is not.
async fn serve(mut stream: TcpStream) -> Result<(), String> {
    let (mut bytes, mut n) = (Vec::new(), 0_u32);
    loop {
        while let Some((request, length)) = next(&bytes)? {
            check(&request).map_err(|what| format!("{what}: {}", bytes.escape_ascii()))?;
            bytes.drain(..length);
            n += 1;
            let upgrade = request.header("upgrade");
            let answer = match (upgrade, n % 3) {
                (Some(to), 1) => format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {to}\r\n\r\n"
                ),
                (_, 0) => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
                _ if request.method == "HEAD" => {
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".to_owned()
                }
                _ => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
                    .to_owned(),
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return Ok(());
            }
            if answer.contains(" 101 ") {
                // From here on, any bytes.
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                return Ok(());
            }
        }
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return Ok(());
        }
    }
}

/// Whether a request is as the gateway has to make it.
fn check(request: &Strict) -> Result<(), String> {
    let base = ["/open/", "/kept/k/", "/a/"].into_iter().find(|b| request.target.starts_with(b));
    let base = base.ok_or("a target that no API has")?;
    let path = request.target.split('?').next().unwrap_or_default();
    if path.split('/').any(|segment| matches!(segment, "." | "..")) || path.contains("//") {
        return Err("a path that is not normal".into());
    }
    let mark = request.headers.iter().filter(|(name, _)| name == "x-mark");
    let mark: Vec<String> = mark.map(|(name, value)| format!("{name}: {value}")).collect();
    if mark != [MARK] {
        return Err("a request that is not the gateway's".into());
    }
    let credentials = ["authorization", "x-api-key", "x-token"];
    if base == "/a/" && credentials.iter().any(|name| request.header(name).is_some()) {
        return Err("a credential".into());
    }
    for gone in ["proxy-connection", "keep-alive", "http2-settings", "proxy-authorization"] {
        if request.header(gone).is_some() {
            return Err(format!("{gone} belongs to the client's connection"));
        }
    }
    for once in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"] {
        if request.headers.iter().filter(|(name, _)| name == once).count() != 1 {
            return Err(format!("{once} is there not exactly once"));
        }
    }
    match (request.header("connection"), request.header("upgrade"), request.header("te")) {
        (None, None, None) | (Some("te"), None, Some("trailers")) => Ok(()),
        (Some("upgrade"), Some(to), None)
            if ["websocket", "chat"].iter().any(|known| to.eq_ignore_ascii_case(known)) =>
        {
            Ok(())
        }
        _ => Err("odd words on the connection".into()),
    }
}

/// Random bytes as requests: nothing panics, nothing is left under way, and the upstream gets proper
/// requests of the gateway's alone. `make fuzz` looks for new ones; what it kept is tried here.
#[test]
fn random_bytes_do_no_harm() {
    let lab = AssertUnwindSafe(Lab::new());
    let mut watched = false;
    bolero::check!().with_iterations(100).with_max_len(INPUT_MAX).for_each(|input: &[u8]| {
        // The engine has set its own hook by now.
        if !std::mem::replace(&mut watched, true) {
            lab.watch_panics();
        }
        lab.run(input);
    });
}

/// The lab finds what it looks for.
#[test]
fn a_smuggled_request_would_be_found() {
    let head = format!("GET /open/ HTTP/1.1\r\nhost: a\r\n{MARK}\r\nx-forwarded-for: 1\r\n");
    let head =
        format!("{head}x-forwarded-proto: http\r\nx-forwarded-host: a\r\nx-request-id: 1\r\n");
    for (bytes, fault) in [
        (format!("{head}\r\n"), None),
        (
            format!("{head}authorization: {TOKEN}\r\n\r\n").replace("/open/", "/a/"),
            Some("credential"),
        ),
        (format!("{head}\r\n").replace("/open/", "/x/"), Some("target")),
        (format!("{head}\r\n").replace("/open/", "/open/../"), Some("normal")),
        (format!("{head}connection: close\r\n\r\n"), Some("connection")),
        ("GET /open/ HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), Some("gateway's")),
        (format!("{head}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"), Some("framing")),
    ] {
        let found = next(bytes.as_bytes()).and_then(|found| check(&found.unwrap().0));
        let told = found.err();
        assert_eq!(told.is_some(), fault.is_some(), "{bytes}: {told:?}");
        assert!(fault.is_none_or(|fault| told.as_ref().unwrap().contains(fault)), "{told:?}");
    }
}
