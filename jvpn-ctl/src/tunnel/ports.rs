//! The sockets of a worker: what each is waited for, how often it is looked at, and when it is given up.
//!
//! Owns which sockets there are, and the wait for all descriptors of a worker. Must never decide which one a packet
//! leaves by, nor wait for a socket that only ever reports its own death: a worker would spin on it.
//!
//! The wait is `poll`'s, for as long as the worker sleeps. A socket that stands in an epoll is called for each segment it
//! sent, when the kernel frees it, and for each datagram that comes, asleep or not: 6 % of a sending worker.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use jvpn_common::time::Duration;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use smallvec::SmallVec;

use super::role::SocketId;
use super::udp::{Received, UdpPort};

/// Looks in a row that found a socket empty, after which it counts as quiet.
const QUIET_AFTER: u32 = 16;
/// A quiet socket is looked at in every fourth turn while another has work: an empty `recvmmsg` per turn and
/// family costs as much as sealing a packet. Four turns of bulk are about a millisecond, the latency of bulk itself.
const LOOK_EVERY: u32 = 4;
/// Looks in a row at a socket said to be in error that brought nothing: then it is lost. Errors of earlier datagrams
/// are taken out by one look each; a socket that was shut down stays in error whatever is taken out.
const FAILURES_MAX: u32 = 64;
/// Refusals in a row after which a socket is no longer asked to segment.
const REFUSALS_MAX: u32 = 8;
/// Descriptors that are waited for without taking memory for the list: those of a client with seven uplinks.
const WAITED_FOR: usize = 16;

/// The sockets of a worker.
#[derive(Debug, Default)]
pub(super) struct Ports {
    known: Vec<Port>,
}

/// One socket, and how it has been.
#[derive(Debug)]
pub(super) struct Port {
    id: SocketId,
    pub port: Arc<UdpPort>,
    /// Looks in a row that found nothing.
    empty: u32,
    /// The kernel said that it is in error since it was last looked at.
    alarmed: bool,
    /// Looks in a row that found nothing although it was in error.
    failures: u32,
    /// Segmented sends in a row that the kernel refused and then took one by one.
    refusals: u32,
    lost: bool,
}

/// Whether to look in turn number `turn` at a socket that was found empty so often; `busy`: the turn before found
/// work somewhere.
fn due(empty: u32, turn: u32, busy: bool) -> bool {
    !busy || empty < QUIET_AFTER || turn.is_multiple_of(LOOK_EVERY)
}

impl Port {
    /// Takes note of an error; says whether it ends the socket.
    pub(super) fn judge(&mut self, error: &io::Error) -> bool {
        self.lost |= self.port.is_gone(error);
        self.lost
    }

    /// The kernel refused a segmented send and took the same datagrams one by one, or took a segmented one.
    pub(super) fn segments(&mut self, refused: bool) {
        self.refusals = if refused { self.refusals.saturating_add(1) } else { 0 };
    }
}

impl Ports {
    /// Adds a socket, or replaces the one of that name.
    pub(super) fn add(&mut self, id: SocketId, port: Arc<UdpPort>) {
        self.remove(id);
        self.known.push(Port { id, port, empty: 0, alarmed: false, failures: 0, refusals: 0, lost: false });
    }

    /// Forgets a socket.
    pub(super) fn remove(&mut self, id: SocketId) {
        self.known.retain(|known| known.id != id);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// A socket that is not lost.
    pub(super) fn live(&mut self, id: SocketId) -> Option<&mut Port> {
        self.known.iter_mut().find(|known| known.id == id && !known.lost)
    }

    /// Whether a socket is still asked to segment.
    pub(super) fn segmenting(&self, id: SocketId) -> bool {
        self.known.iter().any(|known| known.id == id && known.refusals < REFUSALS_MAX)
    }

    /// Whether the socket at this place wants to be looked at.
    pub(super) fn is_due(&self, place: usize, turn: u32, busy: bool) -> bool {
        self.known.get(place).is_some_and(|known| !known.lost && due(known.empty, turn, busy))
    }

    /// Whether the socket at this place carries anything.
    pub(super) fn is_live(&self, place: usize) -> bool {
        self.known.get(place).is_some_and(|known| !known.lost)
    }

    /// Receives one batch from the socket at this place; `first`: of this turn.
    pub(super) fn receive(
        &mut self,
        place: usize,
        first: bool,
        buffer: &mut [u8],
    ) -> io::Result<Option<(SocketId, Received)>> {
        let Some(known) = self.known.get_mut(place) else { return Ok(None) };
        let alarmed = std::mem::take(&mut known.alarmed);
        let result = known.port.receive(buffer);
        match &result {
            Ok(Some(_)) => (known.empty, known.failures) = (0, 0),
            Ok(None) => {
                known.empty = known.empty.saturating_add(u32::from(first));
                known.failures = if alarmed { known.failures + 1 } else { 0 };
            }
            Err(error) => {
                known.failures += 1;
                known.lost |= known.port.is_gone(error);
            }
        }
        known.lost |= known.failures >= FAILURES_MAX;
        Ok(result?.map(|received| (known.id, received)))
    }

    /// Forgets those lost sockets that `tell` could pass on; how many. The others are not waited for.
    pub(super) fn reap(&mut self, mut tell: impl FnMut(SocketId, &Arc<UdpPort>) -> bool) -> u64 {
        if !self.known.iter().any(|known| known.lost) {
            return 0;
        }
        let before = self.known.len();
        self.known.retain(|known| !known.lost || !tell(known.id, &known.port));
        (before - self.known.len()) as u64
    }

    /// Sleeps until one of them, the TUN or the inbox is ready, at most this long; whether the inbox was.
    pub(super) fn wait(&mut self, tun: &impl AsFd, inbox: &impl AsFd, limit: Duration) -> io::Result<bool> {
        let timeout: Option<Timespec> = limit.try_into().ok();
        let live = self.known.iter().filter(|known| !known.lost).map(|known| known.port.as_fd());
        let mut waited: SmallVec<[PollFd<'_>; WAITED_FOR]> = [inbox.as_fd(), tun.as_fd()]
            .into_iter()
            .chain(live)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        match poll(&mut waited, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let seen: SmallVec<[PollFlags; WAITED_FOR]> = waited.iter().map(PollFd::revents).collect();
        drop(waited);
        let called = seen.first().is_some_and(|seen| !seen.is_empty());
        for (known, seen) in self.known.iter_mut().filter(|known| !known.lost).zip(seen.iter().skip(2)) {
            known.alarmed |= seen.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
        }
        Ok(called)
    }
}

#[cfg(test)]
mod tests {
    use super::super::udp::UdpOptions;
    use super::*;

    /// Whether a socket stands in one of this process's epolls: known by its inode, since numbers of descriptors are given
    /// to others again.
    fn stands_in_an_epoll(port: &UdpPort) -> bool {
        let inode = format!("ino:{:x}", rustix::fs::fstat(port).unwrap().st_ino);
        let entries = std::fs::read_dir("/proc/self/fdinfo").unwrap();
        // One of another test's may be gone by now.
        let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
        texts.into_iter().any(|text| {
            text.lines().any(|line| line.starts_with("tfd:") && line.split_whitespace().any(|word| word == inode))
        })
    }

    #[test]
    fn nobody_is_called_for_what_a_socket_does_while_the_worker_is_awake() {
        let port = Arc::new(UdpPort::open(&UdpOptions::new("127.0.0.1:0".parse().unwrap())).unwrap());
        let [tun, inbox] = [0, 0].map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut ports = Ports::default();
        ports.add(SocketId(1), Arc::clone(&port));
        assert!(!ports.wait(&tun, &inbox, Duration::ZERO).unwrap());
        assert!(!stands_in_an_epoll(&port));
        // What is said of them is heard all the same, and the look above would have found one.
        inbox.send_to(&[1], inbox.local_addr().unwrap()).unwrap();
        assert!(ports.wait(&tun, &inbox, Duration::from_secs(60)).unwrap());
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
        let data = rustix::event::epoll::EventData::new_u64(0);
        rustix::event::epoll::add(&epoll, port.as_fd(), data, rustix::event::epoll::EventFlags::IN).unwrap();
        assert!(stands_in_an_epoll(&port));
    }

    #[test]
    fn a_quiet_socket_waits_a_few_turns_of_work_and_none_before_sleep() {
        let looks = |empty, busy| (0..8).filter(|&turn| due(empty, turn, busy)).count();
        assert_eq!(looks(QUIET_AFTER, true), 2);
        assert_eq!(looks(QUIET_AFTER - 1, true), 8, "one that had something lately is looked at always");
        assert_eq!(looks(u32::MAX, false), 8, "nothing is left unseen when the worker may sleep");
    }
}
