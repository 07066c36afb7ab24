//! Owns the forwarder of one slow path: both directions in one thread, frames in and out by the batch, each held for the
//! same time. Never reorders, and never loses a frame below its bound without counting it.
//!
//! The delay is the same for every frame of a path, so a queue in order of arrival is also in order of time.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use socket2::Socket;

use crate::lab::clock::now_ns;
use crate::lab::netns::Netns;
use crate::lab::sys::{self, BATCH, FRAME};

/// Frames held per direction: 90,000 a second for 600 ms. More are lost and counted.
const HELD_LIMIT: usize = 54_000;
/// Receive queue of the raw ends: a scheduling pause of 200 ms at 90,000 small frames a second.
pub(super) const RECEIVE_BUFFER: usize = 16 << 20;
/// Longest sleep, so that a stop is noticed.
const STOP_NOTICE: Duration = Duration::from_millis(20);
/// The same while nothing may leave, so that it ends in time.
const PAUSE_NOTICE: Duration = Duration::from_millis(1);
/// A full send queue is tried again after this.
const FULL: Duration = Duration::from_micros(200);
/// Batches received in a row, so that frames which fall due meanwhile leave in time.
const BATCHES: usize = 4;

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    lost: AtomicU64,
    /// Nothing leaves for now.
    paused: AtomicBool,
    /// Most frames that waited in a direction while nothing left.
    waited: AtomicU64,
}

/// What pauses a forwarder, as long as there is one.
#[derive(Clone, Debug)]
pub(in crate::lab) struct Pauser(Weak<Shared>);

impl Pauser {
    /// Whether there is a forwarder to pause.
    pub(in crate::lab) fn is_live(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Lets nothing leave any more, or all that waited at once; how many frames waited since the last word. None: the
    /// forwarder is gone.
    pub(in crate::lab) fn pause(&self, paused: bool) -> Option<u64> {
        let shared = self.0.upgrade()?;
        shared.paused.store(paused, Ordering::Relaxed);
        Some(shared.waited.swap(0, Ordering::Relaxed))
    }
}

/// A running forwarder; stops on drop.
#[derive(Debug)]
pub(super) struct Forwarder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Joins two interfaces of a namespace.
    pub(super) fn start(space: &Netns, left: &str, right: &str, delay: Duration) -> Result<Forwarder> {
        let ends = space.enter(|| Ok([raw(left)?, raw(right)?]))?;
        let shared = Arc::<Shared>::default();
        let seen = Arc::clone(&shared);
        let thread = thread::Builder::new().name("delay".into()).spawn(move || forward(&ends, delay, &seen))?;
        Ok(Forwarder { shared, thread: Some(thread) })
    }

    pub(super) fn pauser(&self) -> Pauser {
        Pauser(Arc::downgrade(&self.shared))
    }

    /// Frames lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if self.lost() > 0 {
            eprintln!("the delay lost {} frames: its queue was full, or the kernel refused them", self.lost());
        }
    }
}

/// A raw end of a link, with room for a pause.
pub(super) fn raw(interface: &str) -> Result<Socket> {
    let socket = sys::packet_socket(interface).with_context(|| format!("raw socket on {interface}"))?;
    sys::force_receive_buffer(&socket, RECEIVE_BUFFER).context("a large receive queue needs root")?;
    Ok(socket)
}

/// One frame under way.
#[derive(Clone, Copy, Debug)]
struct Held {
    due_ns: u64,
    slot: usize,
    length: usize,
}

/// Frames of one direction: their order, and the memory they stand in, which is used again.
#[derive(Debug, Default)]
struct Lane {
    order: VecDeque<Held>,
    slots: Vec<[u8; FRAME]>,
    free: Vec<usize>,
    /// The link's queue had no room: frames that are due wait for this instant.
    full_until_ns: u64,
}

impl Lane {
    /// Keeps a frame until it is due; false when there is no room.
    fn keep(&mut self, frame: &[u8], due_ns: u64) -> bool {
        if self.order.len() >= HELD_LIMIT || frame.len() > FRAME {
            return false;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push([0; FRAME]);
            self.slots.len() - 1
        });
        self.slots[slot][..frame.len()].copy_from_slice(frame);
        self.order.push_back(Held { due_ns, slot, length: frame.len() });
        true
    }

    /// Sends what is due; how many frames were lost.
    fn release(&mut self, output: &Socket, now: u64) -> u64 {
        if now < self.full_until_ns {
            return 0;
        }
        let mut lost = 0;
        loop {
            let due = self.order.iter().take(BATCH).take_while(|held| held.due_ns <= now).count();
            if due == 0 {
                return lost;
            }
            let frames: Vec<&[u8]> =
                self.order.iter().take(due).map(|held| &self.slots[held.slot][..held.length]).collect();
            let gone = match sys::send_many(output, &frames) {
                Ok(sent) => sent,
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS)) => {
                    self.full_until_ns = now + FULL.as_nanos() as u64;
                    return lost;
                }
                // The link is going with the delay or the lab, and what is on it goes as on a wire.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV | libc::ENETDOWN)) => due,
                Err(_) => {
                    lost += 1;
                    1
                }
            };
            self.free.extend(self.order.drain(..gone).map(|held| held.slot));
        }
    }

    /// When something is to be done.
    fn due_ns(&self) -> Option<u64> {
        self.order.front().map(|held| held.due_ns.max(self.full_until_ns))
    }
}

fn forward(ends: &[Socket; 2], delay: Duration, shared: &Shared) {
    let delay_ns = delay.as_nanos() as u64;
    let mut lanes = [Lane::default(), Lane::default()];
    let mut batch = Box::new([[0u8; FRAME]; BATCH]);
    while !shared.stop.load(Ordering::Relaxed) {
        let paused = shared.paused.load(Ordering::Relaxed);
        let wait = if paused {
            let waited = lanes.iter().map(|lane| lane.order.len()).max().unwrap_or(0);
            shared.waited.fetch_max(waited as u64, Ordering::Relaxed);
            PAUSE_NOTICE
        } else {
            for (lane, output) in lanes.iter_mut().zip(ends.iter().rev()) {
                shared.lost.fetch_add(lane.release(output, now_ns()), Ordering::Relaxed);
            }
            let due = lanes.iter().filter_map(Lane::due_ns).min();
            due.map_or(STOP_NOTICE, |due| Duration::from_nanos(due.saturating_sub(now_ns())).min(STOP_NOTICE))
        };
        let mut fds = [PollFd::new(&ends[0], PollFlags::IN), PollFd::new(&ends[1], PollFlags::IN)];
        let timeout = wait.try_into().ok();
        if poll(&mut fds, timeout.as_ref()).is_err() {
            continue;
        }
        for (lane, input) in lanes.iter_mut().zip(ends) {
            let lost = receive(lane, input, &mut batch, delay_ns);
            shared.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }
}

/// Takes in what has arrived; how many frames found no room.
fn receive(lane: &mut Lane, input: &Socket, batch: &mut [[u8; FRAME]; BATCH], delay_ns: u64) -> u64 {
    let mut lost = 0;
    for _ in 0..BATCHES {
        let mut lengths = [0; BATCH];
        let count = match sys::receive_many(input, batch, &mut lengths) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // A link that went down says so once.
            Err(_) => break,
        };
        let due_ns = now_ns() + delay_ns;
        for (frame, length) in batch.iter().zip(lengths).take(count) {
            lost += u64::from(!lane.keep(&frame[..length.min(FRAME)], due_ns));
        }
        if count < BATCH {
            break;
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_leave_in_order_and_their_memory_is_used_again() {
        let (near, far) = Socket::pair(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
        let mut lane = Lane::default();
        for round in 0..10_u64 {
            for n in 0..20_u8 {
                assert!(lane.keep(&[n; 60], round));
            }
            assert_eq!(lane.release(&near, round.wrapping_sub(1).min(round)), 0);
            assert_eq!(lane.release(&near, round), 0);
            let mut frame = [0; 100];
            for n in 0..20_u8 {
                let length = rustix::net::recv(&far, &mut frame, rustix::net::RecvFlags::empty()).unwrap().0;
                assert_eq!(frame[..length], [n; 60]);
            }
        }
        assert_eq!((lane.slots.len(), lane.order.len()), (20, 0));
    }

    #[test]
    fn a_frame_is_held_until_it_is_due_and_no_more_than_the_bound_is_held() {
        let (near, _far) = Socket::pair(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
        let mut lane = Lane::default();
        for _ in 0..HELD_LIMIT {
            assert!(lane.keep(&[1], 1_000));
        }
        assert!(!lane.keep(&[1], 1_000), "beyond the bound a frame is lost, and its caller counts it");
        lane.release(&near, 999);
        assert_eq!((lane.order.len(), lane.due_ns()), (HELD_LIMIT, Some(1_000)));
    }
}
