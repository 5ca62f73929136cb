//! The new process's side.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::app::handover::{
    Named, WORD_TIMEOUT, name, read_line, receive_sockets, socket, write_line,
};

/// Why nothing could be taken over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The running process gave no proper answer.
    #[error("the running process did not hand over ({step})")]
    Conversation {
        /// How far it came.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a process starts with instead of binding: nothing, or what another one had.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Named>,
    running: Option<UnixStream>,
}

impl Inherited {
    /// Asks the process that runs on this folder for its listeners. Where there is none, there is
    /// nothing to inherit.
    ///
    /// # Errors
    /// When there is one, and it does not hand over.
    pub fn take(folder: &Path) -> Result<Self, HandoverError> {
        let at = |step| move |source| HandoverError::Conversation { step, source };
        let mut running = match UnixStream::connect(socket(folder)) {
            Ok(running) => running,
            Err(error) => {
                let kind = error.kind();
                if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
                    tracing::warn!(folder = %folder.display(), "nobody runs here to take over from");
                    return Ok(Self::default());
                }
                return Err(at("connect")(error));
            }
        };
        running.set_read_timeout(Some(WORD_TIMEOUT)).map_err(at("connect"))?;
        running.set_write_timeout(Some(WORD_TIMEOUT)).map_err(at("connect"))?;
        write_line(&mut running, "take").map_err(at("take"))?;
        let sockets = receive_sockets(&mut running).map_err(at("take"))?;
        tracing::info!(sockets = sockets.len(), "took over");
        Ok(Self { sockets, running: Some(running) })
    }

    /// One's own sockets, once more.
    pub(in crate::app) fn own(sockets: Vec<Named>) -> Self {
        Self { sockets, running: None }
    }

    /// The listener of this part and configured address, if there is one.
    pub(in crate::app) fn claim(&mut self, part: &str, address: SocketAddr) -> Option<TcpListener> {
        let name = name(part, address);
        let at = self.sockets.iter().position(|(named, _)| *named == name)?;
        Some(self.sockets.remove(at).1)
    }

    /// Waits until the running process has closed the store.
    ///
    /// # Errors
    /// When it does not.
    pub(in crate::app) fn claim_store(&mut self) -> Result<(), HandoverError> {
        let at = |source| HandoverError::Conversation { step: "yield", source };
        let Some(running) = &mut self.running else { return Ok(()) };
        write_line(running, "yield").map_err(at)?;
        match read_line(running).map_err(at)?.as_str() {
            "yielded" => Ok(()),
            _ => Err(at(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Tells the running process that it can end.
    pub(in crate::app) fn serving(self) {
        let Some(mut running) = self.running else { return };
        if let Err(error) = write_line(&mut running, "serving") {
            tracing::warn!(%error, "the process that ran before is not there any more");
        }
    }
}
