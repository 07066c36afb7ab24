//! One send under construction: sealed datagrams of one length for one destination.
//!
//! Owns the send buffer and the fallback when the kernel refuses a segmented send. Must never reorder what
//! was put into it, and never lose a whole batch to one refusal.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use jvpn_common::limits::{HEADER_LEN, TAG_LEN};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::counters::{Counter, Tally};
use super::ports::{Port, Ports};
use super::role::SocketId;
use super::udp::{SEGMENTS_MAX, SEND_MAX, UdpPort};

/// How long a send waits for room in the socket's buffer before its batch is dropped: the time a gigabit
/// link needs for a tenth of that buffer. Longer would stall the other direction of this worker.
const ROOM_WAIT: Duration = Duration::from_millis(5);

/// Where a batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub socket: SocketId,
    pub remote: SocketAddr,
    pub local: Option<IpAddr>,
}

/// The batch.
#[derive(Debug)]
pub(super) struct Batch {
    buffer: Vec<u8>,
    target: Option<Target>,
    /// Length of every datagram but the last.
    stride: usize,
    len: usize,
    count: usize,
    closed: bool,
    /// Datagrams that go together: one, where the kernel refuses to segment.
    limit: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self { buffer: vec![0; SEND_MAX], target: None, stride: 0, len: 0, count: 0, closed: true, limit: 1 }
    }
}

impl Batch {
    /// Room for one datagram with a plaintext of `plain` bytes; what is in the batch is sent first if it does
    /// not go together. Give it back with [`Batch::commit`].
    pub(super) fn room(
        &mut self,
        target: Target,
        plain: usize,
        ports: &mut Ports,
        tally: &mut Tally,
    ) -> Option<&mut [u8]> {
        let len = HEADER_LEN + plain + TAG_LEN;
        let together = !self.closed
            && self.target == Some(target)
            && len <= self.stride
            && self.count < self.limit
            && self.len + len <= SEND_MAX;
        if !together {
            self.send(ports, tally);
            self.target = Some(target);
            self.stride = len;
            self.closed = false;
            self.limit = if ports.segmenting(target.socket) { SEGMENTS_MAX } else { 1 };
        }
        self.buffer.get_mut(self.len..self.len + len)
    }

    /// The room last given was filled to `len` bytes.
    pub(super) fn commit(&mut self, len: usize) {
        self.len += len;
        self.count += 1;
        self.closed |= len < self.stride;
    }

    /// Sends what is there.
    pub(super) fn send(&mut self, ports: &mut Ports, tally: &mut Tally) {
        let (count, bytes) = (self.count, self.buffer.get(..self.len).unwrap_or(&[]));
        let target = self.target.take();
        (self.len, self.count, self.closed) = (0, 0, true);
        let Some(target) = target.filter(|_| count > 0) else { return };
        let Some(known) = ports.live(target.socket) else {
            tally.add(Counter::DropSend, count as u64);
            return;
        };
        tally.one(Counter::TxBatches);
        if count == 1 {
            send_each(known, &target, bytes, self.stride, tally);
            return;
        }
        let port = &known.port;
        match patiently(port, tally, || port.send_segments(target.remote, target.local, bytes, self.stride)) {
            Ok(()) => known.segments(false),
            Err(error) if about_segments(&error) => {
                tally.one(Counter::GsoSendFallback);
                // An address that is gone is refused with the same error, and says nothing about segments.
                if send_each(known, &target, bytes, self.stride, tally) > 0 {
                    known.segments(true);
                }
            }
            Err(error) => {
                known.judge(&error);
                tally.add(Counter::DropSend, count as u64);
            }
        }
    }
}

/// Whether the kernel may take datagram by datagram what it refused with this error.
fn about_segments(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::IO | Errno::INVAL | Errno::MSGSIZE | Errno::OPNOTSUPP | Errno::NOBUFS | Errno::NOMEM)
    )
}

/// Sends datagram by datagram; how many the kernel took.
fn send_each(known: &mut Port, target: &Target, bytes: &[u8], stride: usize, tally: &mut Tally) -> u64 {
    let mut sent = 0;
    for datagram in bytes.chunks(stride.max(1)) {
        let port = &known.port;
        match patiently(port, tally, || port.send(target.remote, target.local, datagram)) {
            Ok(()) => sent += 1,
            Err(error) => {
                known.judge(&error);
                tally.one(Counter::DropSend);
            }
        }
    }
    sent
}

/// Sends; again if the error was about an earlier datagram, or once there is room.
fn patiently(port: &UdpPort, tally: &mut Tally, send: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match send() {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tally.one(Counter::SocketErrors);
            send()
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            tally.one(Counter::SendWaits);
            let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(ROOM_WAIT.subsec_nanos()) };
            let fd = port.as_fd();
            poll(&mut [PollFd::new(&fd, PollFlags::OUT)], Some(&wait))?;
            send()
        }
        other => other,
    }
}
