//! The addresses that are listened on.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::app::handover::{Inherited, Named, name};
use crate::app::{AppError, Bound};
use crate::config::Config;

/// Connections that may wait to be accepted; the kernel's own bound is 4,096 mostly.
const BACKLOG: i32 = 4_096;

/// All listeners of a gateway.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) proxy: Vec<TcpListener>,
    pub(super) admin: TcpListener,
    pub(super) ops: Option<TcpListener>,
    /// Copies of all of them, for a process that takes over.
    pub(super) named: Vec<Named>,
}

impl Listeners {
    /// Those that were inherited, and new ones where there are none.
    pub(super) fn open(config: &Config, inherited: &mut Inherited) -> Result<Self, AppError> {
        let mut named = Vec::new();
        let mut listen = |part: &str, address: SocketAddr| -> Result<TcpListener, AppError> {
            let bound = inherited.claim(part, address).map_or_else(|| bind(address), Ok);
            let copied = bound.and_then(|listener| Ok((listener.try_clone()?, listener)));
            let (copy, listener) = copied.map_err(|source| AppError::Bind { address, source })?;
            named.push((name(part, address), copy));
            Ok(listener)
        };
        let proxy = config.proxy.listeners.iter().map(|at| listen("proxy", at.address));
        let proxy = proxy.collect::<Result<_, _>>()?;
        let admin = listen("admin", config.admin.listen)?;
        let ops = config.ops.listen.map(|address| listen("ops", address)).transpose()?;
        Ok(Self { proxy, admin, ops, named })
    }

    /// The addresses that came of it.
    pub(super) fn bound(&self) -> io::Result<Bound> {
        Ok(Bound {
            proxy: self.proxy.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?,
            admin: self.admin.local_addr()?,
            ops: self.ops.as_ref().map(TcpListener::local_addr).transpose()?,
        })
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // std asks for 128. What comes during an upgrade waits there.
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}
