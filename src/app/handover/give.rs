//! The running process's side.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::app::handover::{
    Named, SOCKETS_MAX, WORD_TIMEOUT, read_line, send_sockets, socket, write_line,
};

/// What the process is told by the one that takes over.
#[derive(Debug)]
pub(in crate::app) enum Given {
    /// Close the store, and say when that is done.
    Yield(oneshot::Sender<()>),
    /// The new process serves; its id where the system tells.
    Serving(Option<i32>),
    /// It is gone before it served.
    Lost,
}

/// Waits for a process that wants to take over.
pub(in crate::app) struct GiveService {
    /// Where the gateway keeps what is its own.
    pub(in crate::app) folder: PathBuf,
    /// Copies of all listeners, until the gateway stops.
    pub(in crate::app) sockets: Arc<Mutex<Vec<Named>>>,
    pub(in crate::app) told: mpsc::Sender<Given>,
}

#[async_trait]
impl Service for GiveService {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        if SOCKETS_MAX < self.sockets.lock().len() {
            tracing::warn!(max = SOCKETS_MAX, "too many listeners for an upgrade while running");
            return;
        }
        let listener = match listen(&self.folder) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(%error, "an upgrade while running is not possible");
                return;
            }
        };
        loop {
            match self.next(&listener).await {
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "a hand-over was broken off"),
            }
        }
    }

    fn name(&self) -> &'static str {
        "handover"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

impl GiveService {
    async fn next(&self, listener: &UnixListener) -> io::Result<()> {
        let (stream, _) = listener.accept().await?;
        let peer = stream.peer_cred()?;
        // The folder is ours, so its owner is who we are.
        let owner = std::fs::metadata(socket(&self.folder))?.uid();
        if peer.uid() != owner && peer.uid() != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(WORD_TIMEOUT))?;
        stream.set_write_timeout(Some(WORD_TIMEOUT))?;
        let (sockets, told) = (Arc::clone(&self.sockets), self.told.clone());
        let talk = move || converse(stream, &sockets, &told, peer.pid());
        tokio::task::spawn_blocking(talk).await.map_err(io::Error::other)?
    }
}

fn converse(
    mut stream: UnixStream,
    sockets: &Mutex<Vec<Named>>,
    told: &mpsc::Sender<Given>,
    pid: Option<i32>,
) -> io::Result<()> {
    let odd = || io::Error::from(io::ErrorKind::InvalidData);
    let tell = |given| told.blocking_send(given).map_err(io::Error::other);
    if read_line(&mut stream)? != "take" {
        return Err(odd());
    }
    send_sockets(&mut stream, &copies(&sockets.lock())?)?;
    let mut word = read_line(&mut stream)?;
    if word == "yield" {
        let (done, closed) = oneshot::channel();
        tell(Given::Yield(done))?;
        let next = closed.blocking_recv().map_err(io::Error::other).and_then(|()| {
            write_line(&mut stream, "yielded")?;
            read_line(&mut stream)
        });
        word = match next {
            Ok(next) if next == "serving" => next,
            failed => {
                tell(Given::Lost)?;
                return failed.and(Err(odd()));
            }
        };
    }
    if word == "serving" { tell(Given::Serving(pid)) } else { Err(odd()) }
}

/// Listeners once more: to hand over, or to start anew with.
pub(in crate::app) fn copies(sockets: &[Named]) -> io::Result<Vec<Named>> {
    sockets.iter().map(|(name, socket)| Ok((name.clone(), socket.try_clone()?))).collect()
}

/// The socket, in a folder that nobody else can enter. One that is left over from an earlier
/// process goes.
fn listen(folder: &Path) -> io::Result<UnixListener> {
    let path = socket(folder);
    let parent = path.parent().unwrap_or(folder);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o700))?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(&path)
}
