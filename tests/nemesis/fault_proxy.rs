//! A TCP proxy in front of the store that can delay, hold, lose and cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use turnpike::clock::{Clock, SystemClock};
use turnpike::domain::time::BootNs;

/// What happens to bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// They take so much longer, in each direction.
    Delay(Duration),
    /// They are held, and go on in order once the fault is over.
    Stall,
    /// What the gateway says arrives and is executed, and answers are lost.
    Swallow,
    /// Connections are closed, and new ones are not accepted.
    Cut,
}

/// One proxy. Everything ends when it is dropped.
pub struct FaultProxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    fault: Fault,
    over: bool,
    open: Vec<TcpStream>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToStore,
    ToGateway,
}

impl FaultProxy {
    /// In front of a server on this machine.
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { fault: Fault::None, over: false, open: Vec::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.state.lock().over {
                    return;
                }
                // A connection that cannot be made is closed, as a proxy would.
                let _refused = accepting.join(stream, port);
            }
        });
        Self { address, shared }
    }

    /// Changes what happens from now on. Connections stay open, except for a cut.
    pub fn set(&self, fault: Fault) {
        self.shared.state.lock().fault = fault;
        self.shared.changed.notify_all();
        if fault == Fault::Cut {
            self.close_all();
        }
    }

    /// Closes all connections; new ones can be made.
    pub fn close_all(&self) {
        for stream in self.shared.state.lock().open.drain(..) {
            let _already = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.state.lock().over = true;
        self.shared.changed.notify_all();
        self.close_all();
        // The accepting thread looks up once more, and ends.
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn join(self: &Arc<Self>, gateway: TcpStream, port: u16) -> std::io::Result<()> {
        if self.state.lock().fault == Fault::Cut {
            return Ok(());
        }
        let store = TcpStream::connect(("127.0.0.1", port))?;
        for stream in [&gateway, &store] {
            stream.set_nodelay(true)?;
        }
        let mut state = self.state.lock();
        state.open.push(gateway.try_clone()?);
        state.open.push(store.try_clone()?);
        drop(state);
        self.pump(gateway.try_clone()?, store.try_clone()?, Direction::ToStore);
        self.pump(store, gateway, Direction::ToGateway);
        Ok(())
    }

    /// Two threads per direction, so that a delay is one of time and not of throughput.
    fn pump(self: &Arc<Self>, mut from: TcpStream, to: TcpStream, direction: Direction) {
        let (sender, receiver): (Sender<(BootNs, Vec<u8>)>, _) = channel();
        let (shared, back) = (Arc::clone(self), to.try_clone());
        std::thread::spawn(move || {
            shared.deliver(&receiver, to, direction);
        });
        std::thread::spawn(move || {
            let mut chunk = vec![0; 64 * 1024];
            while let Ok(n @ 1..) = from.read(&mut chunk) {
                if sender.send((SystemClock.boot(), chunk[..n].to_vec())).is_err() {
                    break;
                }
            }
            drop(sender);
            // One side that is gone takes the other with it.
            let _already = from.shutdown(Shutdown::Both);
            let _already = back.map(|back| back.shutdown(Shutdown::Both));
        });
    }

    fn deliver(
        &self,
        chunks: &Receiver<(BootNs, Vec<u8>)>,
        mut to: TcpStream,
        direction: Direction,
    ) {
        for (read, bytes) in chunks {
            match self.fault_of(read) {
                None => break,
                Some(Fault::Swallow) if direction == Direction::ToGateway => {}
                Some(_) if to.write_all(&bytes).is_err() => break,
                Some(_) => {}
            }
        }
        let _already = to.shutdown(Shutdown::Both);
    }

    /// Waits until what was read at `read` may go on; the fault that holds then, or that it is over.
    fn fault_of(&self, read: BootNs) -> Option<Fault> {
        let mut state = self.state.lock();
        loop {
            if state.over {
                return None;
            }
            match state.fault {
                Fault::Stall => self.changed.wait(&mut state),
                Fault::Delay(span) => {
                    let waited = Duration::from_nanos(SystemClock.boot().since_ns(read));
                    let Some(rest) = span.checked_sub(waited) else { return Some(state.fault) };
                    self.changed.wait_for(&mut state, rest);
                }
                fault @ (Fault::None | Fault::Swallow | Fault::Cut) => return Some(fault),
            }
        }
    }
}
