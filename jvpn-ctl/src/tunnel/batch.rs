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

use super::counters::{Counter, Tally};
use super::ports::Ports;
use super::role::SocketId;
use super::udp::{SEGMENTS_MAX, SEND_MAX, UdpPort};

/// How long a send waits for room in the socket's buffer before its batch is dropped: the time a gigabit
/// link needs for a tenth of that buffer. Longer would stall the other direction of this worker.
const ROOM_WAIT: Duration = Duration::from_millis(5);
/// Refusals in a row after which a socket is no longer asked to segment.
const REFUSALS_MAX: u32 = 8;

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
    refusals: u32,
}

impl Default for Batch {
    fn default() -> Self {
        Self { buffer: vec![0; SEND_MAX], target: None, stride: 0, len: 0, count: 0, closed: true, refusals: 0 }
    }
}

impl Batch {
    /// Room for one datagram with a plaintext of `plain` bytes; what is in the batch is sent first if it does
    /// not go together. Give it back with [`Batch::commit`].
    pub(super) fn room(&mut self, target: Target, plain: usize, ports: &Ports, tally: &mut Tally) -> Option<&mut [u8]> {
        let len = HEADER_LEN + plain + TAG_LEN;
        let together = !self.closed
            && self.target == Some(target)
            && len <= self.stride
            && self.count < SEGMENTS_MAX
            && self.len + len <= SEND_MAX
            && self.refusals < REFUSALS_MAX;
        if !together {
            self.send(ports, tally);
            self.target = Some(target);
            self.stride = len;
            self.closed = false;
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
    pub(super) fn send(&mut self, ports: &Ports, tally: &mut Tally) {
        let (count, bytes) = (self.count, self.buffer.get(..self.len).unwrap_or(&[]));
        let target = self.target.take();
        (self.len, self.count, self.closed) = (0, 0, true);
        let Some(target) = target.filter(|_| count > 0) else { return };
        let Some(port) = ports.find(target.socket) else {
            tally.add(Counter::DropSend, count as u64);
            return;
        };
        tally.one(Counter::TxBatches);
        if count == 1 {
            send_each(port, &target, bytes, self.stride, tally);
            return;
        }
        match patiently(port, tally, || port.send_segments(target.remote, target.local, bytes, self.stride)) {
            Ok(()) => self.refusals = 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tally.add(Counter::DropSend, count as u64),
            Err(_) => {
                self.refusals += 1;
                tally.one(Counter::GsoSendFallback);
                send_each(port, &target, bytes, self.stride, tally);
            }
        }
    }
}

/// Sends datagram by datagram.
fn send_each(port: &UdpPort, target: &Target, bytes: &[u8], stride: usize, tally: &mut Tally) {
    for datagram in bytes.chunks(stride.max(1)) {
        if patiently(port, tally, || port.send(target.remote, target.local, datagram)).is_err() {
            tally.one(Counter::DropSend);
        }
    }
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
