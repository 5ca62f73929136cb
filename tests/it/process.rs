//! The built binary, real sockets, and an upstream that counts: nothing is believed but what
//! arrived there.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use turnpike::clock::{Clock, SystemClock};

/// The secret of every gateway here.
pub const SECRET: &str = "an-admin-secret-of-tests";

/// Milliseconds until `condition` holds, looked at again and again; panics after 20 s.
#[track_caller]
pub fn ms_until(what: &str, condition: impl FnMut() -> bool) -> u64 {
    let start = SystemClock.boot();
    until(what, condition);
    SystemClock.boot().since_ms(start)
}

/// Looks again and again until `condition` holds; panics when it still does not after 20 s.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = SystemClock.boot();
    while !condition() {
        assert!(SystemClock.boot().since_ms(start) < 20_000, "still not so: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An answer, as a client reads it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {}", self.body))
    }
}

/// A keep-alive connection of a simple client.
pub struct Client {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
}

impl Client {
    pub fn new(to: SocketAddr) -> Self {
        Self::connect(to).expect("a connection")
    }

    pub fn connect(to: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream: BufReader::new(stream), host: to })
    }

    pub fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers, "").expect("an answer")
    }

    /// One request; an error when the connection ended in between.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Answer> {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        text += "\r\n";
        text += body;
        self.stream.get_mut().write_all(text.as_bytes())?;
        read_answer(&mut self.stream, method)
    }
}

/// The next answer of a connection.
pub fn read_answer(from: &mut impl BufRead, method: &str) -> std::io::Result<Answer> {
    let broken = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let mut line = String::new();
    from.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(broken)?;
    let headers = read_headers(from)?;
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|v| v == "chunked") {
        loop {
            let mut size = String::new();
            from.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(|_odd| broken())?;
            let mut chunk = vec![0; size + 2];
            from.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else if method != "HEAD" {
        let length = headers.get("content-length").map_or(0, |v| v.parse().unwrap());
        body.resize(length, 0);
        from.read_exact(&mut body)?;
    }
    Ok(Answer { status, headers, body: String::from_utf8(body).unwrap() })
}

fn read_headers(from: &mut impl BufRead) -> std::io::Result<BTreeMap<String, String>> {
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(headers) };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
}

/// An upstream that counts what arrives and remembers it.
pub struct Upstream {
    pub address: SocketAddr,
    count: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (count, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let upstream = Self { address, count: Arc::clone(&count), seen: Arc::clone(&seen) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (count, seen) = (Arc::clone(&count), Arc::clone(&seen));
                std::thread::spawn(move || {
                    // A connection ends when its peer does.
                    let _ended = serve(stream, &count, &seen);
                });
            }
        });
        upstream
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Heads of all requests so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().clone()
    }
}

fn serve(stream: TcpStream, count: &AtomicUsize, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        let mut length = 0;
        loop {
            let start = head.len();
            if stream.read_line(&mut head)? == 0 {
                return Ok(());
            }
            let line = head[start..].trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.is_empty() {
                break;
            }
        }
        stream.read_exact(&mut vec![0; length])?;
        count.fetch_add(1, Ordering::SeqCst);
        seen.lock().push(head);
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    }
}

/// A running gateway. It ends with this value.
pub struct Gateway {
    child: Child,
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    pub ops: Option<SocketAddr>,
    stderr: Arc<Mutex<String>>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Gateway {
    /// Two APIs, `/a/` and `/b/`, over `upstream`; the store is in `folder`.
    pub fn start(folder: &Path, upstream: &Upstream) -> Self {
        Self::start_with(folder, upstream, "")
    }

    /// The same with more in the configuration file.
    pub fn start_with(folder: &Path, upstream: &Upstream, more: &str) -> Self {
        Self::try_start_with(folder, upstream, more).unwrap_or_else(|log| panic!("{log}"))
    }

    /// The same; what it wrote to standard error, if it ended instead of listening.
    pub fn try_start_with(folder: &Path, upstream: &Upstream, more: &str) -> Result<Self, String> {
        let at = upstream.address;
        let text = format!(
            "[proxy]\nlisten = [\"127.0.0.1:0\"]\ndrain_s = 5\n\
             [admin]\nlisten = \"127.0.0.1:0\"\nsecret = \"{SECRET}\"\n{more}\n\
             [[apis]]\nid = \"a\"\nlisten_path = \"/a/\"\ntargets = [\"http://{at}\"]\n\
             [[apis]]\nid = \"b\"\nlisten_path = \"/b/\"\ntargets = [\"http://{at}\"]\n"
        );
        let file = folder.join("turnpike.toml");
        std::fs::write(&file, text).unwrap();
        Self::serve(&file, &[])
    }

    /// A gateway with this configuration file and environment; what it wrote to standard error, if
    /// it ended instead of listening.
    pub fn serve(file: &Path, environment: &[(String, String)]) -> Result<Self, String> {
        Self::spawn(Self::command(file, &[]).envs(environment.iter().cloned()))
    }

    /// A process that takes over from the one that runs in this folder.
    pub fn upgrade(&self, folder: &Path) -> Self {
        let mut command = Self::command(&folder.join("turnpike.toml"), &["--upgrade"]);
        Self::spawn(&mut command).unwrap_or_else(|log| panic!("{log}"))
    }

    /// The exit code of one that tries to.
    pub fn try_upgrade(folder: &Path) -> Option<i32> {
        let mut command = Self::command(&folder.join("turnpike.toml"), &["--upgrade"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().code()
    }

    fn command(file: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnpike"));
        command.args(["serve", "--config"]).arg(file).args(more);
        command
    }

    fn spawn(command: &mut Command) -> Result<Self, String> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = Arc::new(Mutex::new(String::new()));
        let (into, mut from) = (Arc::clone(&stderr), BufReader::new(child.stderr.take().unwrap()));
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            while from.read_line(&mut line).is_ok_and(|n| 0 < n) {
                into.lock().push_str(&std::mem::take(&mut line));
            }
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let status = child.wait().unwrap();
            reader.join().unwrap();
            return Err(format!("{status}: {}", stderr.lock()));
        }
        let bound: Value =
            serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e} in {line:?}"));
        let address = |value: &Value| value.as_str().unwrap().parse().unwrap();
        let (proxy, admin) = (address(&bound["proxy"][0]), address(&bound["admin"]));
        let ops = bound.get("ops").map(address);
        Ok(Self { child, proxy, admin, ops, stderr })
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        self.stderr.lock().clone()
    }

    /// SIGKILL.
    pub fn kill_now(&self) {
        self.signal("-KILL");
    }

    /// SIGTERM, and waits for the end; its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.terminate();
        self.child.wait().unwrap().code()
    }

    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Waits for the end; its exit code.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Sends a signal, `-STOP` for example.
    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    pub fn admin(&self, method: &str, path: &str, body: &Value) -> Answer {
        let headers = [("Authorization", SECRET), ("Content-Type", "application/json")];
        Client::new(self.admin).send(method, path, &headers, &body.to_string()).unwrap()
    }

    pub fn post(&self, path: &str, body: &Value) -> u64 {
        let answer = self.admin("POST", &format!("/portal-api{path}"), body);
        assert!(answer.status < 300, "{path}: {answer:?}");
        answer.json()["ID"].as_u64().unwrap()
    }

    /// A plan, a product of API `a`, and a token under both.
    pub fn import(&self, token: &str, mut plan: Value) -> u64 {
        plan["Name"] = json!(format!("plan of {token}"));
        plan["ProviderID"] = json!(1);
        let plan = self.post("/plans", &plan);
        let product = json!({"Name": format!("product of {token}"), "ProviderID": 1,
            "IsDocumentationOnly": false, "APIDetails": [{"APIID": "a"}]});
        let product = self.post("/products", &product);
        let app = self.post("/apps", &json!({"Name": token, "UserID": 1}));
        self.post(
            &format!("/apps/{app}/custom_credentials"),
            &json!({"Alias": "one", "Type": "CREDENTIAL_TYPE_TYK_MANAGED",
                "AuthenticationMethod": "authToken", "AuthTokenType": "AUTH_TOKEN_CUSTOM",
                "KeyID": token, "PlanID": plan, "ProductIDs": [product]}),
        )
    }

    pub fn get(&self, path: &str, token: &str) -> Answer {
        Client::new(self.proxy).get(path, &[("X-API-Key", token)])
    }
}
