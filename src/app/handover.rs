//! `serve --upgrade`: a new process takes the listeners over from the one that runs, and the store
//! with them. A connection that comes meanwhile waits in the listener's queue; none is refused.
//!
//! They speak over a socket in a folder of their own, one line after the other:
//!
//! | new | running | |
//! |---|---|---|
//! | `take` | names, then the sockets | both can accept from here on; the running one does |
//! | `yield` | `yielded` | only where one process can open the store: the running one lets requests in hand end, returns its units, closes the store |
//! | `serving` | | the running one drains and ends |
//!
//! If the new one is gone before `serving`, the running one starts anew on its own sockets.
//! `rustix` sends and receives descriptors as owned ones, so that none of it needs `unsafe`.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

mod give;
mod take;

pub(super) use give::{GiveService, Given, copies};
pub use take::{HandoverError, Inherited};

/// Listeners that are handed over at most: what one message may carry is bounded (SCM_MAX_FD, 253).
const SOCKETS_MAX: usize = 128;
/// The longest line, in bytes: the names of so many listeners.
const LINE_MAX: usize = 16 * 1024;
/// How long either waits for the other's next word. A new process reads its store's journal
/// meanwhile, a running one lets requests end.
const WORD_TIMEOUT: Duration = Duration::from_secs(60);

/// A listener, by its part and the address that the configuration has for it.
pub(super) type Named = (String, TcpListener);

/// What a listener is called.
pub(super) fn name(part: &str, address: std::net::SocketAddr) -> String {
    format!("{part} {address}")
}

/// The socket: in a folder that only this user can enter.
fn socket(folder: &Path) -> PathBuf {
    folder.join("upgrade").join("socket")
}

/// One line, without its end. Read byte by byte: what follows may be a descriptor.
fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        match byte {
            [b'\n'] => break,
            [byte] if line.len() < LINE_MAX => line.push(byte),
            [_] => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    String::from_utf8(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn write_line(stream: &mut UnixStream, line: &str) -> io::Result<()> {
    stream.write_all(format!("{line}\n").as_bytes())
}

/// Sends the names, and the sockets with one byte.
fn send_sockets(stream: &mut UnixStream, sockets: &[Named]) -> io::Result<()> {
    let names: Vec<&str> = sockets.iter().map(|(name, _)| name.as_str()).collect();
    write_line(stream, &serde_json::to_string(&names)?)?;
    let fds: Vec<_> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(&*stream, &[IoSlice::new(b"\n")], &mut control, SendFlags::empty())?;
    Ok(())
}

fn receive_sockets(stream: &mut UnixStream) -> io::Result<Vec<Named>> {
    let odd = || io::Error::from(io::ErrorKind::InvalidData);
    let names: Vec<String> = serde_json::from_str(&read_line(stream)?)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut into = [IoSliceMut::new(&mut byte)];
    let got = recvmsg(&*stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got.bytes != 1 || fds.len() != names.len() {
        return Err(odd());
    }
    Ok(names.into_iter().zip(fds.into_iter().map(TcpListener::from)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_arrive_under_their_names_and_are_the_same() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let bind = |n: u16| {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            (format!("proxy 127.0.0.1:{n}"), socket)
        };
        let sent: Vec<Named> = (0..100).map(bind).collect();
        send_sockets(&mut here, &sent).unwrap();
        write_line(&mut here, "next").unwrap();
        let got = receive_sockets(&mut there).unwrap();
        assert_eq!(read_line(&mut there).unwrap(), "next");
        let told = |all: &[Named]| -> Vec<_> {
            all.iter().map(|(name, s)| (name.clone(), s.local_addr().unwrap())).collect()
        };
        assert_eq!(told(&got), told(&sent));
        drop(sent);
        let (_, socket) = got.into_iter().nth(7).unwrap();
        let caller = std::net::TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        assert_eq!(socket.accept().unwrap().1, caller.local_addr().unwrap());
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let writer = std::thread::spawn(move || here.write_all(&vec![b'x'; LINE_MAX + 1]));
        assert_eq!(read_line(&mut there).unwrap_err().kind(), io::ErrorKind::InvalidData);
        writer.join().unwrap().unwrap();
    }
}
