//! Owns the measurement of the forwarder itself: frames at a steady rate through one that stands alone, each with its
//! time of departure. Never judges the figures.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, poll};
use socket2::Socket;

use super::forward::{Forwarder, raw};
use crate::lab::clock::{now_ns, sleep_until};
use crate::lab::ground::Ground;
use crate::lab::sys::{self, BATCH, FRAME};

/// Length of a frame: header, number, time, filling.
const LENGTH: usize = 200;
/// Where the number and then the time stand.
const NUMBER: usize = 14;
/// A protocol nobody in a namespace answers (local experimental, IEEE 802).
const PROTOCOL: [u8; 2] = [0x88, 0xb5];
/// The number of frames that are not counted.
const WARM_UP: u64 = u64::MAX;
/// How long stragglers are waited for.
const STRAGGLERS: Duration = Duration::from_secs(10);

/// What became of the frames.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    pub sent: u64,
    /// Arrived once each, in order.
    pub arrived: u64,
    /// Not in the order in which they were sent, or twice.
    pub disordered: u64,
    /// Earlier than the delay, ever.
    pub early: u64,
    /// How much later than the delay, µs.
    pub late_p50_us: u64,
    pub late_p99_us: u64,
    /// Counted by the forwarder.
    pub lost: u64,
}

/// Sends `rate` frames a second for `time` through a forwarder that holds each for `delay`.
pub fn run(rate: u64, time: Duration, delay: Duration) -> Result<Trial> {
    ensure!(rate >= 1_000, "at least one frame a millisecond");
    let ground = Ground::take(&["core"])?;
    let space = ground.topology.space("core");
    space.ip("link add from type veth peer name left\nlink add right type veth peer name to\n")?;
    for interface in ["from", "left", "right", "to"] {
        space.sysctl(&format!("ipv6/conf/{interface}/disable_ipv6"), "1")?;
        space.ip(&format!("link set {interface} arp off\nlink set {interface} up\n"))?;
    }
    let (from, to) = space.enter(|| Ok((raw("from")?, raw("to")?)))?;
    let forwarder = Forwarder::start(&space, "left", "right", delay)?;
    warm_up(&from, &to, delay)?;
    let (ticks, each) = (time.as_millis() as u64, rate / 1_000);
    let sent = ticks * each;
    let receiver = thread::spawn(move || receive(&to, sent, delay, time + delay + STRAGGLERS));
    send(&from, ticks, each)?;
    let mut trial = receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    trial.lost = forwarder.lost();
    Ok(trial)
}

/// Sends frames until one arrives: a link that has just come up drops what is sent without a word.
fn warm_up(from: &Socket, to: &Socket, delay: Duration) -> Result<()> {
    let deadline = Instant::now() + delay + STRAGGLERS;
    let mut batch = Box::new([[0u8; FRAME]; BATCH]);
    let is_ours = |frame: &[u8; FRAME], length| length == LENGTH && frame[12..14] == PROTOCOL;
    loop {
        sys::send_many(from, &[&frame(WARM_UP)])?;
        let mut lengths = [0; BATCH];
        let wait = Duration::from_millis(5).try_into().ok();
        poll(&mut [PollFd::new(to, PollFlags::IN)], wait.as_ref())?;
        let count = sys::receive_many(to, &mut batch, &mut lengths).unwrap_or(0);
        if batch.iter().zip(lengths).take(count).any(|(frame, length)| is_ours(frame, length)) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no frame passes the forwarder");
    }
}

/// A frame with its number.
fn frame(number: u64) -> [u8; LENGTH] {
    let mut frame = [0u8; LENGTH];
    frame[..12].fill(0x02);
    frame[12..14].copy_from_slice(&PROTOCOL);
    frame[NUMBER..NUMBER + 8].copy_from_slice(&number.to_be_bytes());
    frame
}

/// Sends `each` frames a millisecond.
fn send(socket: &Socket, ticks: u64, each: u64) -> Result<()> {
    let mut frames = vec![frame(0); each as usize];
    let start = now_ns();
    for tick in 0..ticks {
        sleep_until(start + tick * 1_000_000);
        for (n, frame) in frames.iter_mut().enumerate() {
            frame[NUMBER..NUMBER + 8].copy_from_slice(&(tick * each + n as u64).to_be_bytes());
        }
        for some in frames.chunks_mut(BATCH) {
            // The time is that of the call, or a pause of this thread would count as the forwarder's.
            let now = now_ns().to_be_bytes();
            some.iter_mut().for_each(|frame| frame[NUMBER + 8..NUMBER + 16].copy_from_slice(&now));
            let mut rest: Vec<&[u8]> = some.iter().map(|frame| &frame[..]).collect();
            while !rest.is_empty() {
                match sys::send_many(socket, &rest) {
                    Ok(sent) => drop(rest.drain(..sent)),
                    Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS)) => {
                        thread::yield_now();
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(())
}

fn receive(socket: &Socket, sent: u64, delay: Duration, patience: Duration) -> Result<Trial> {
    let mut late = Histogram::<u64>::new(3)?;
    let mut trial = Trial { sent, arrived: 0, disordered: 0, early: 0, late_p50_us: 0, late_p99_us: 0, lost: 0 };
    let (deadline, delay_ns) = (Instant::now() + patience, delay.as_nanos() as u64);
    let mut batch = Box::new([[0u8; FRAME]; BATCH]);
    let mut next = 0;
    while next < sent && Instant::now() < deadline {
        let wait = Duration::from_millis(20).try_into().ok();
        if poll(&mut [PollFd::new(socket, PollFlags::IN)], wait.as_ref()).is_err() {
            continue;
        }
        let mut lengths = [0; BATCH];
        while let Ok(count) = sys::receive_many(socket, &mut batch, &mut lengths) {
            let now = now_ns();
            for frame in batch.iter().zip(lengths).take(count).filter(|(_, length)| *length == LENGTH) {
                let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|n| frame.0[at + n]));
                let (number, left) = (number(NUMBER), number(NUMBER + 8));
                if frame.0[12..14] != PROTOCOL || number == WARM_UP {
                    continue;
                }
                trial.arrived += u64::from(number >= next);
                trial.disordered += u64::from(number < next);
                next = next.max(number + 1);
                let took = now.saturating_sub(left);
                trial.early += u64::from(took < delay_ns);
                late.saturating_record(took.saturating_sub(delay_ns) / 1_000);
            }
        }
    }
    (trial.late_p50_us, trial.late_p99_us) = (late.value_at_quantile(0.5), late.value_at_quantile(0.99));
    Ok(trial)
}
