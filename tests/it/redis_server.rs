//! A real redis-server on a free port, with a temporary folder, for one test.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use turnpike::clock::SystemClock;
use turnpike::store::StoreError;
use turnpike::store::redis::{RedisOptions, RedisStore};

/// Killed when it is dropped.
pub(crate) struct RedisServer {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl RedisServer {
    /// Without a file: what it has is gone when it is killed.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With an append-only file that is synced with every write.
    pub(crate) fn durable() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// With further arguments; for `PORT` its port is put in.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        // Between asking for a free port and using it, somebody else may take it.
        for _ in 0..20 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            if let Some(child) = spawn(port, folder.path(), &arguments) {
                return Self { child, port, folder, arguments };
            }
        }
        panic!("redis-server does not start: is it installed? `make setup` installs it");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps its files.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// The section of a gateway's configuration that makes it a gateway on this server. It may take
    /// its time: a machine that runs all tests at once is slow.
    pub(crate) fn section(&self) -> String {
        let url = self.url();
        format!("[store]\nkind = \"redis\"\nurls = [\"{url}\"]\ntimeout_ms = 2000\n")
    }

    /// A store for one more gateway.
    pub(crate) async fn connect(&self) -> RedisStore {
        self.try_connect(RedisOptions::default()).await.unwrap()
    }

    /// The same, with options; the address is filled in if there is none.
    pub(crate) async fn try_connect(
        &self,
        options: RedisOptions,
    ) -> Result<RedisStore, StoreError> {
        let urls = if options.urls.is_empty() { vec![self.url()] } else { options.urls };
        // A machine that runs all tests at once may take its time.
        let timeout_ms = if options.timeout_ms == 100 { 5_000 } else { options.timeout_ms };
        let options = RedisOptions { urls, timeout_ms, ..options };
        RedisStore::connect(options, Arc::new(SystemClock)).await
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }

    /// Starts it again on the same port, with what it had on disk.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let child = spawn(self.port, self.folder.path(), &self.arguments);
        self.child = child.expect("the port was ours a moment ago");
    }

    /// Sends a command, as an administrator would.
    pub(crate) fn command(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string(), "--no-auth-warning"])
            .args(words)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Stops it from answering, or lets it go on, without closing a connection.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

/// Starts it and waits until it says that it is ready.
fn spawn(port: u16, folder: &std::path::Path, arguments: &[String]) -> Option<Child> {
    let port = port.to_string();
    let arguments = arguments.iter().map(|a| if a == "PORT" { &port } else { a });
    let mut child = Command::new("redis-server")
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", ""])
        .args(["--logfile", "", "--daemonize", "no", "--dir"])
        .arg(folder)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut lines = BufReader::new(child.stdout.take()?).lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("Ready to accept"));
    if !ready {
        child.wait().ok()?;
        return None;
    }
    // Whatever else it says must not fill the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Some(child)
}
