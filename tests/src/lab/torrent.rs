//! Owns a flow up of tens of thousands of packets a second, each with its number: what became of every one of them. Never
//! knows why one is missing.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::clock::{now_ns, sleep_until};
use super::netns::Netns;
use super::sys::{self, BATCH, FRAME};

/// Payload: a number and filling, 64 bytes of IP in all.
const LENGTH: usize = 36;
/// How late a receiver notices that it should stop.
const STOP_NOTICE_NS: i64 = 20_000_000;

/// A running flow. Dropping it stops it.
#[derive(Debug)]
pub struct Torrent {
    /// The next number to be sent.
    next: Arc<AtomicU64>,
    /// How often each number came.
    came: Arc<Mutex<Vec<u8>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What became of some of the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub sent: u64,
    pub lost: u64,
    pub duplicated: u64,
}

impl Torrent {
    /// Sends `rate` packets a second from an address in one namespace to one in another.
    pub fn start(from: (&Netns, IpAddr), to: (&Netns, IpAddr), rate: u64) -> Result<Torrent> {
        let (sender, receiver) = (socket(from)?, socket(to)?);
        sys::force_receive_buffer(&receiver, 64 << 20).context("a large receive buffer")?;
        let target = receiver.local_addr()?;
        sender.connect(&target)?;
        let mut torrent =
            Torrent { next: Arc::default(), came: Arc::default(), stop: Arc::default(), threads: Vec::new() };
        let (next, stop) = (Arc::clone(&torrent.next), Arc::clone(&torrent.stop));
        torrent
            .threads
            .push(thread::Builder::new().name("torrent-send".into()).spawn(move || send(&sender, &next, &stop, rate))?);
        let (came, stop) = (Arc::clone(&torrent.came), Arc::clone(&torrent.stop));
        torrent.threads.push(
            thread::Builder::new().name("torrent-receive".into()).spawn(move || receive(&receiver, &came, &stop))?,
        );
        Ok(torrent)
    }

    /// The number that is sent next.
    pub fn now(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// What became of the packets with these numbers.
    pub fn count(&self, numbers: std::ops::Range<u64>) -> Count {
        count(&self.came.lock().unwrap_or_else(PoisonError::into_inner), numbers)
    }
}

fn count(came: &[u8], numbers: std::ops::Range<u64>) -> Count {
    let mut count = Count::default();
    for number in numbers {
        let copies = usize::try_from(number).ok().and_then(|at| came.get(at)).copied().unwrap_or(0);
        count.sent += 1;
        count.lost += u64::from(copies == 0);
        count.duplicated += u64::from(copies.saturating_sub(1));
    }
    count
}

impl Drop for Torrent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has printed it already.
            let _ = thread.join();
        }
    }
}

fn socket((space, ip): (&Netns, IpAddr)) -> Result<Socket> {
    space.enter(|| {
        let socket = Socket::new(Domain::for_address(SocketAddr::new(ip, 0)), Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind(&SocketAddr::new(ip, 0).into()).with_context(|| format!("a socket on {ip}"))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })
}

fn send(socket: &Socket, next: &AtomicU64, stop: &AtomicBool, rate: u64) {
    let each = (rate / 1_000).max(1);
    let mut packets = vec![[0u8; LENGTH]; each as usize];
    let mut at = now_ns();
    while !stop.load(Ordering::Relaxed) {
        sleep_until(at);
        // What a pause of this thread left out is not sent in one burst: no queue would take it.
        at = (at + 1_000_000).max(now_ns().saturating_sub(1_000_000));
        let first = next.load(Ordering::Relaxed);
        for (number, packet) in (first..).zip(&mut packets) {
            packet[..8].copy_from_slice(&number.to_be_bytes());
        }
        let mut rest: Vec<&[u8]> = packets.iter().map(|packet| &packet[..]).collect();
        while !rest.is_empty() {
            let some = &rest[..rest.len().min(BATCH)];
            match sys::send_many(socket, some) {
                Ok(sent) => drop(rest.drain(..sent)),
                // A full queue of the tunnel device is the sender's to wait for, or it would count as a loss.
                Err(_) if !stop.load(Ordering::Relaxed) => thread::sleep(Duration::from_micros(50)),
                Err(_) => return,
            }
        }
        next.store(first + each, Ordering::Relaxed);
    }
}

fn receive(socket: &Socket, came: &Mutex<Vec<u8>>, stop: &AtomicBool) {
    let mut batch = Box::new([[0u8; FRAME]; BATCH]);
    let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: STOP_NOTICE_NS };
    while !stop.load(Ordering::Relaxed) {
        if !matches!(poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&wait)), Ok(1..)) {
            continue;
        }
        let mut lengths = [0; BATCH];
        while let Ok(count) = sys::receive_many(socket, &mut batch, &mut lengths) {
            let mut came = came.lock().unwrap_or_else(PoisonError::into_inner);
            for frame in batch.iter().zip(lengths).take(count).filter(|(_, length)| *length == LENGTH) {
                let Some(at) = frame.0.first_chunk().and_then(|&n| usize::try_from(u64::from_be_bytes(n)).ok()) else {
                    continue;
                };
                if came.len() <= at {
                    came.resize(at + 1, 0);
                }
                came[at] = came[at].saturating_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_came_is_lost_and_what_came_again_is_a_duplicate() {
        let came = [1, 0, 3, 1];
        assert_eq!(count(&came, 0..4), Count { sent: 4, lost: 1, duplicated: 2 });
        assert_eq!(count(&came, 2..6), Count { sent: 4, lost: 2, duplicated: 2 }, "nothing is known of the last two");
        assert_eq!(count(&came, 3..3), Count::default());
    }
}
