//! Threads that hand events to the journal and to syslog.
//!
//! Owns their sockets: one that went away is opened again when it is back. What the other side does not take waits in its
//! queue, which loses its oldest and counts them; here nothing is lost but what no datagram can carry. Must never block a
//! writer of the record, nor the end of the process: what cannot be handed on at once by then is left.

use super::fanout::{Closer, FanOut, Reader, Sink, Taken};
use super::said::Said;
use super::{journald, syslog};
use crate::config::{Syslog, TelemetryConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two attempts to reach a side that is gone. Events wait or are lost meanwhile; shorter, and a host without a
/// journal looks for one all the time.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a full socket is waited for before the thread looks whether it is to end.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The threads; dropped, they end.
#[derive(Debug, Default)]
pub struct Sinks(Vec<(Closer, Option<JoinHandle<()>>)>);

impl Sinks {
    /// Starts those that are wanted.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(wanted: &TelemetryConfig, fan: &Arc<FanOut>) -> io::Result<Self> {
        let journald = wanted.journald.clone().map(|path| (Sink::Journald, To::Unix(path), Form::Journald));
        let syslog = wanted.syslog.clone().map(|to| match to {
            Syslog::Unix(path) => To::Unix(path),
            Syslog::Udp(address) => To::Udp(address),
        });
        let syslog = syslog.map(|to| (Sink::Syslog, to, Form::Syslog(syslog::Header::own())));
        let mut sinks = Self::default();
        for (sink, to, form) in journald.into_iter().chain(syslog) {
            let reader = fan.subscribe(sink).map_err(io::Error::other)?;
            let closer = reader.closer();
            let thread = Thread { reader, to, form, socket: None, gone: false };
            let thread = std::thread::Builder::new().name(sink.name().into()).spawn(move || thread.run())?;
            sinks.0.push((closer, Some(thread)));
        }
        Ok(sinks)
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        self.0.iter().for_each(|(closer, _)| closer.close());
        for (_, thread) in &mut self.0 {
            // A panic there was printed by its thread; there is nothing to add.
            let _ = thread.take().map(JoinHandle::join);
        }
    }
}

#[derive(Clone, Debug)]
enum To {
    Unix(PathBuf),
    Udp(SocketAddr),
}

impl To {
    fn open(&self) -> io::Result<Socket> {
        match self {
            Self::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_nonblocking(true)?;
                Ok(Socket::Unix(socket))
            }
            Self::Udp(to) => {
                let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
                socket.connect(to)?;
                socket.set_nonblocking(true)?;
                Ok(Socket::Udp(socket))
            }
        }
    }
}

impl std::fmt::Display for To {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Udp(address) => write!(f, "udp:{address}"),
        }
    }
}

#[derive(Debug)]
enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

impl Socket {
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.send(bytes).map(drop),
            Self::Udp(socket) => socket.send(bytes).map(drop),
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(socket) => socket.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
        }
    }

    /// Waits a moment for room. Why it ended does not matter: sending says.
    fn wait(&self) {
        let _ = poll(&mut [PollFd::new(&self.as_fd(), PollFlags::OUT)], Some(&LOOK));
    }
}

#[derive(Debug)]
enum Form {
    Journald,
    Syslog(syslog::Header),
}

#[derive(Debug)]
struct Thread {
    reader: Reader,
    to: To,
    form: Form,
    socket: Option<Socket>,
    /// Whether it was told that the other side is gone.
    gone: bool,
}

impl Thread {
    fn run(mut self) {
        while let Some(taken) = self.reader.wait() {
            let said = Said::of(&taken, &crate::audit::wall_clock());
            let bytes = match &self.form {
                Form::Journald => journald::entry(&said),
                Form::Syslog(header) => header.message(&said),
            };
            if !self.deliver(&bytes, matches!(taken, Taken::Line(_))) {
                return;
            }
        }
    }

    /// Hands one datagram over, however long that takes; false when the queue was closed before it could.
    fn deliver(&mut self, bytes: &[u8], is_event: bool) -> bool {
        loop {
            let socket = match self.socket.take().map_or_else(|| self.to.open(), Ok) {
                Ok(socket) => socket,
                Err(error) => {
                    self.went(&error);
                    if self.reader.pause(AGAIN) {
                        return false;
                    }
                    continue;
                }
            };
            match socket.send(bytes) {
                Ok(()) => {
                    self.back();
                    if is_event {
                        self.reader.sent();
                    }
                    self.socket = Some(socket);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    socket.wait();
                    self.socket = Some(socket);
                    if self.reader.pause(Duration::ZERO) {
                        return false;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => self.socket = Some(socket),
                Err(error) if rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::MSGSIZE) => {
                    // Its number is told by what comes next.
                    self.reader.lost(is_event.into());
                    self.socket = Some(socket);
                    return true;
                }
                // A refusal over UDP is about the datagram before this one, which nobody has.
                Err(error) if matches!(socket, Socket::Udp(_)) && error.kind() == ErrorKind::ConnectionRefused => {
                    self.went(&error);
                    self.reader.lost(1);
                    self.socket = Some(socket);
                    if self.reader.pause(AGAIN) {
                        return false;
                    }
                }
                Err(error) => {
                    self.went(&error);
                    if self.reader.pause(AGAIN) {
                        return false;
                    }
                }
            }
        }
    }

    /// Tells once that the other side is gone.
    fn went(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.gone, true) {
            tracing::warn!(to = %self.to, %error, "events cannot be handed on; those that wait too long are counted and lost");
        }
    }

    fn back(&mut self) {
        if std::mem::take(&mut self.gone) {
            tracing::info!(to = %self.to, "events are handed on");
        }
    }
}

#[cfg(test)]
mod tests;
