//! Owns a sender of small datagrams at a given rate and a counter of what arrives, in two namespaces. Never knows what is
//! between them, and never counts a datagram twice.
//!
//! A datagram is the number it was sent under, so that the receiver sees what was lost, and what came after a later one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::SockRef;

use crate::lab::netns::Netns;
use crate::lab::sys::{self, BATCH, FRAME};

/// UDP payload: 64 bytes with the headers of IPv4 and UDP.
const PAYLOAD: usize = 64 - 28;
/// How long a rate is kept.
const LENGTH: Duration = Duration::from_millis(400);
/// After the last one was sent: whatever is on its way arrives, or is lost.
const DRAIN: Duration = Duration::from_millis(50);
/// Room of the receiver, so that what is measured is the way and not how often it is scheduled.
const BUFFER: usize = 16 << 20;
/// Behind by more than this, a burst is not made up for.
const LATE_MAX: Duration = Duration::from_millis(5);

/// How datagrams are given to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One by one, many in a call.
    Single,
    /// As one buffer that the kernel cuts up (UDP_SEGMENT), and received as it merges them (UDP_GRO): what does one does both.
    Segmented,
}

/// What became of a rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    pub sent: u64,
    pub arrived: u64,
    /// Arrived after one that was sent later.
    pub reordered: u64,
    /// From the first to the last that was sent.
    pub took: Duration,
}

impl Trial {
    /// What arrived, in thousands a second of sending.
    #[must_use]
    pub fn kpps(&self) -> f64 {
        self.arrived as f64 / self.took.as_secs_f64() / 1e3
    }

    /// What was sent, the same.
    #[must_use]
    pub fn sent_kpps(&self) -> f64 {
        self.sent as f64 / self.took.as_secs_f64() / 1e3
    }

    /// Lost share.
    #[must_use]
    pub fn loss(&self) -> f64 {
        1.0 - self.arrived as f64 / self.sent.max(1) as f64
    }
}

/// Sends from one namespace to an address in another at `rate` datagrams a second, for a while.
pub fn trial(from: &Netns, at: &Netns, server: IpAddr, way: Way, rate: f64) -> Result<Trial> {
    let receiver = at.enter(|| {
        let socket = UdpSocket::bind((server, 0)).context("receiver of a bench")?;
        sys::force_receive_buffer(&SockRef::from(&socket), BUFFER).context("a long queue needs root")?;
        if way == Way::Segmented {
            sys::merge(&SockRef::from(&socket)).context("UDP_GRO")?;
        }
        // Short enough to see the end of the trial.
        socket.set_read_timeout(Some(Duration::from_millis(10)))?;
        Ok(socket)
    })?;
    let to = receiver.local_addr()?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let counting = scope.spawn(|| match way {
            Way::Single => count(&over, single(&receiver)),
            Way::Segmented => count(&over, merged(&receiver)),
        });
        let sent = from.enter(|| send(to, way, rate));
        std::thread::sleep(DRAIN);
        over.store(true, Relaxed);
        let arrived = counting.join().map_err(|_| anyhow::anyhow!("the receiver of a bench panicked"))?;
        let ((sent, took), (arrived, reordered)) = (sent?, arrived?);
        ensure!(arrived <= sent, "{arrived} of {sent} datagrams arrived: something repeats them");
        Ok(Trial { sent, arrived, reordered, took })
    })
}

/// What arrived, in the order of arrival.
#[derive(Debug, Default)]
struct Arrivals {
    arrived: u64,
    reordered: u64,
    last: u64,
}

impl Arrivals {
    fn take(&mut self, datagram: &[u8]) {
        let Some(number) = datagram.first_chunk().filter(|_| datagram.len() == PAYLOAD) else { return };
        let number = u64::from_be_bytes(*number);
        self.arrived += 1;
        self.reordered += u64::from(number < self.last);
        self.last = self.last.max(number);
    }
}

/// Counts what `receive` brings until it is over: arrived, and out of order.
fn count(over: &AtomicBool, mut receive: impl FnMut(&mut Arrivals) -> io::Result<()>) -> Result<(u64, u64)> {
    let mut arrivals = Arrivals::default();
    loop {
        match receive(&mut arrivals) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                if over.load(Relaxed) {
                    return Ok((arrivals.arrived, arrivals.reordered));
                }
            }
            Err(error) => return Err(error).context("receive"),
        }
    }
}

/// Receives many datagrams in a call.
fn single(socket: &UdpSocket) -> impl FnMut(&mut Arrivals) -> io::Result<()> {
    let (mut frames, mut lengths) = (Box::new([[0; FRAME]; BATCH]), [0; BATCH]);
    move |arrivals| {
        let count = sys::await_many(&SockRef::from(socket), &mut frames, &mut lengths)?;
        for (frame, length) in frames.iter().zip(&lengths).take(count) {
            arrivals.take(frame.get(..*length).unwrap_or_default());
        }
        Ok(())
    }
}

/// Receives one run of merged datagrams in a call.
fn merged(socket: &UdpSocket) -> impl FnMut(&mut Arrivals) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    move |arrivals| {
        let length = socket.recv(&mut buffer)?;
        buffer.get(..length).unwrap_or_default().chunks(PAYLOAD).for_each(|datagram| arrivals.take(datagram));
        Ok(())
    }
}

/// Sends bursts at their times; how many, and how long it took.
fn send(to: SocketAddr, way: Way, rate: f64) -> Result<(u64, Duration)> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("sender of a bench")?;
    // The kernel's 50 µs of leave to be late are as long as the time between two bursts.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).context("timer slack")?;
    socket.connect(to)?;
    let reference = SockRef::from(&socket);
    sys::force_send_buffer(&reference, BUFFER).context("a long queue needs root")?;
    if way == Way::Segmented {
        sys::segment(&reference, PAYLOAD).context("UDP_SEGMENT")?;
    }
    let every = Duration::from_secs_f64(BATCH as f64 / rate);
    let begin = Instant::now();
    let (mut sent, mut due) = (0_u64, begin);
    let mut burst = vec![0; BATCH * PAYLOAD];
    while begin.elapsed() < LENGTH {
        wait_until(due);
        due = (due + every).max(Instant::now().checked_sub(LATE_MAX).unwrap_or(begin));
        for (number, datagram) in (sent + 1..).zip(burst.chunks_mut(PAYLOAD)) {
            datagram[..8].copy_from_slice(&number.to_be_bytes());
        }
        sent += give(&socket, way, &burst)?;
    }
    Ok((sent, begin.elapsed()))
}

/// One burst; how many the kernel took. What it refuses for want of room was never sent.
fn give(socket: &UdpSocket, way: Way, burst: &[u8]) -> Result<u64> {
    let given = match way {
        Way::Segmented => socket.send(burst).map(|_| BATCH),
        Way::Single => {
            let datagrams: Vec<&[u8]> = burst.chunks(PAYLOAD).collect();
            sys::send_many(&SockRef::from(socket), &datagrams)
        }
    };
    match given {
        Ok(given) => Ok(given as u64),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        // No buffers: a queue on the way is full.
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(0),
        Err(error) => Err(error).context("send"),
    }
}

/// Sleeps until then. Looking at the clock instead would take a processor from what is measured; a burst that is late by what
/// a wake-up takes is made up for by the next one.
fn wait_until(due: Instant) {
    while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::sleep(left);
    }
}
