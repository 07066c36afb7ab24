//! What a worker tells the controller, and the controller the worker: two bounded queues with a wake-up each.
//!
//! Owns the bounds. Must never block either side: full means refused and counted.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use jvpn_common::ids::{Epoch, SessionId};
use jvpn_common::time::Instant;
use rustix::event::{EventfdFlags, eventfd};

use super::role::{Origin, SocketId};
use super::udp::UdpPort;

/// Messages under way from one worker to the controller. A message 1 is 1,200 bytes: a full queue is 5 MB,
/// and more than the controller can answer within a client's patience.
const TO_CONTROLLER_MAX: usize = 4_096;
/// Commands under way to one worker; a client with eight transports that all change uses sixteen.
const TO_WORKER_MAX: usize = 256;

/// From a worker.
#[derive(Debug)]
pub enum FromWorker {
    /// A datagram that is not data.
    Datagram {
        /// Where it came from.
        origin: Origin,
        /// When the batch arrived.
        at: Instant,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A packet opened under `next`: it is current now, and the old one is to be wiped in ten seconds.
    EpochProven {
        /// The session.
        session: SessionId,
        /// The epoch that is current now.
        epoch: Epoch,
    },
    /// The first inner packet after at least a second of idleness was sent.
    Busy {
        /// The session.
        session: SessionId,
        /// When.
        at: Instant,
    },
    /// A ping was answered.
    Pong {
        /// The session.
        session: SessionId,
        /// The ping's number.
        id: u64,
        /// When.
        at: Instant,
    },
    /// A socket carries nothing any more (its interface was removed); the worker has forgotten it.
    SocketLost {
        /// Its name, which another may have by now.
        socket: SocketId,
        /// Which it was.
        port: Arc<UdpPort>,
    },
}

/// To a worker.
#[derive(Debug)]
pub(super) enum ToWorker {
    AddSocket(SocketId, Arc<UdpPort>),
    RemoveSocket(SocketId),
    Ping(SessionId, u64),
    Stop,
}

/// An eventfd that is written only when somebody may be asleep.
#[derive(Debug)]
struct Bell {
    fd: OwnedFd,
    rung: AtomicBool,
}

impl Bell {
    fn new() -> io::Result<Arc<Self>> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Arc::new(Self { fd, rung: AtomicBool::new(false) }))
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // Cannot fail but by overflow, and then it is ringing.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// Whether it rang and was not answered; no system call.
    fn is_rung(&self) -> bool {
        self.rung.load(Ordering::SeqCst)
    }

    fn answer(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.fd, &mut count);
        // Before whoever answered looks once more: who sent without ringing is seen then.
        self.rung.swap(false, Ordering::SeqCst);
    }
}

/// The sending end of a bounded queue.
#[derive(Debug)]
pub(super) struct Sender<T>(SyncSender<T>, Arc<Bell>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), Arc::clone(&self.1))
    }
}

impl<T> Sender<T> {
    /// Sends, or says that the queue is full or its reader gone.
    pub(super) fn send(&self, message: T) -> bool {
        let sent = self.0.try_send(message).is_ok();
        self.1.ring();
        sent
    }
}

/// The receiving end; its descriptor is readable when something may be in it.
#[derive(Debug)]
pub struct Inbox<T>(Receiver<T>, Arc<Bell>);

impl<T> Inbox<T> {
    /// Takes the next message. The descriptor becomes quiet only when there is none: whoever is awake and asks again is
    /// not woken for what came meanwhile.
    pub fn next(&self) -> Option<T> {
        let next = self.0.try_recv().ok();
        if next.is_some() || !self.rung() {
            return next;
        }
        self.1.answer();
        self.0.try_recv().ok()
    }

    /// Makes the descriptor quiet. Call before taking messages, so that none is overlooked. A ring is two steps, a word and a
    /// write: who answers between them finds the descriptor ready later, with nothing in the word.
    pub(super) fn answer(&self) {
        self.1.answer();
    }

    /// Whether something may be waiting; no system call.
    pub(super) fn rung(&self) -> bool {
        self.1.is_rung()
    }
}

impl<T> AsFd for Inbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.1.fd.as_fd()
    }
}

fn queue<T>(bound: usize) -> io::Result<(Sender<T>, Inbox<T>)> {
    let (sender, receiver) = sync_channel(bound);
    let bell = Bell::new()?;
    Ok((Sender(sender, Arc::clone(&bell)), Inbox(receiver, bell)))
}

/// The queue to a controller; workers share its sending end.
pub fn to_controller() -> io::Result<(ToController, Inbox<FromWorker>)> {
    let (sender, inbox) = queue(TO_CONTROLLER_MAX)?;
    Ok((ToController(sender), inbox))
}

/// Sending end of the queue to a controller.
#[derive(Clone, Debug)]
pub struct ToController(pub(super) Sender<FromWorker>);

impl ToController {
    /// Whether it has not come to the end of what it was sent; no system call.
    pub(super) fn is_behind(&self) -> bool {
        self.0.1.is_rung()
    }
}

pub(super) fn to_worker() -> io::Result<(Sender<ToWorker>, Inbox<ToWorker>)> {
    queue(TO_WORKER_MAX)
}

/// Controls a running worker.
#[derive(Clone, Debug)]
pub struct WorkerHandle(pub(super) Sender<ToWorker>);

impl WorkerHandle {
    /// A handle of a worker that never runs, and what keeps its queue open.
    #[cfg(test)]
    pub(crate) fn deaf() -> (Self, impl Sized) {
        let (sender, inbox) = to_worker().unwrap();
        (Self(sender), inbox)
    }

    /// A ring of which only the second step is seen.
    #[cfg(test)]
    pub(super) fn ring_late(&self) {
        rustix::io::write(&self.0.1.fd, &1u64.to_ne_bytes()).unwrap();
    }

    /// Whether the worker's descriptor would wake it.
    #[cfg(test)]
    pub(super) fn rings(&self) -> bool {
        let fd = &self.0.1.fd;
        let mut waits = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut waits, Some(&now)).unwrap() > 0
    }

    /// Adds a socket, or replaces the one of that name. False: the queue is full.
    #[must_use]
    pub fn add_socket(&self, id: SocketId, port: Arc<UdpPort>) -> bool {
        self.0.send(ToWorker::AddSocket(id, port))
    }

    /// Removes a socket. False: the queue is full.
    #[must_use]
    pub fn remove_socket(&self, id: SocketId) -> bool {
        self.0.send(ToWorker::RemoveSocket(id))
    }

    /// Sends a ping under the data keys. False: the queue is full.
    #[must_use]
    pub fn ping(&self, session: SessionId, id: u64) -> bool {
        self.0.send(ToWorker::Ping(session, id))
    }

    /// Wakes the worker, for a new snapshot or the end of a hold.
    pub fn wake(&self) {
        self.0.1.ring();
    }

    /// Ends the worker's loop, unless it has ended by itself. False: the queue is full; try again.
    #[must_use]
    pub fn stop(&self) -> bool {
        let sent = self.0.0.try_send(ToWorker::Stop);
        self.wake();
        !matches!(sent, Err(TrySendError::Full(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often it rang since this was asked last.
    fn rings(inbox: &Inbox<u8>) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(inbox, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }

    #[test]
    fn who_is_awake_is_not_woken_and_who_found_nothing_is() {
        let (sender, inbox) = queue(8).unwrap();
        assert!(sender.send(1));
        assert_eq!((rings(&inbox), inbox.next()), (1, Some(1)));
        assert!(sender.send(2) && sender.send(3));
        assert_eq!((rings(&inbox), inbox.next(), inbox.next(), inbox.next()), (0, Some(2), Some(3), None));
        assert!(sender.send(4));
        assert_eq!((rings(&inbox), inbox.next(), inbox.next()), (1, Some(4), None));
        sender.1.ring();
        assert_eq!(inbox.next(), None, "a ring without a message is answered, too");
        assert_eq!(rings(&inbox), 0);
    }

    #[test]
    fn a_controller_is_behind_until_it_found_nothing() {
        let (sender, inbox) = to_controller().unwrap();
        let busy = |at| FromWorker::Busy { session: SessionId([1; 16]), at: Instant(at) };
        assert!(!sender.is_behind());
        assert!(sender.0.send(busy(1)) && sender.0.send(busy(2)));
        let behind = std::array::from_fn(|_| (inbox.next().is_some(), sender.is_behind()));
        assert_eq!(behind, [(true, true), (true, true), (false, false)]);
    }
}
