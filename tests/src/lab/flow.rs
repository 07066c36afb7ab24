//! Owns the two 1 kHz flows and the accounting over them: outage, lost, duplicated, reordered. Never knows what was
//! done to the lab; it gets an instant and a window.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::clock::{now_ns, sleep_until};
use super::netns::Netns;

/// 1 kHz: an outage is known to a millisecond, and 1,000 small packets a second disturb nothing.
const PERIOD_NS: u64 = 1_000_000;
/// Time after a fault in which its outage counts.
pub const WINDOW_NS: u64 = 5_000_000_000;
/// Packets sent later than this before the end of the window may still be on their way.
const IN_FLIGHT_NS: u64 = 500_000_000;
/// Sequence and send time.
const PACKET: usize = 64;
const STOP_NOTICE: Duration = Duration::from_millis(50);

/// Direction of a flow, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Up,
    Down,
}

impl Direction {
    pub const BOTH: [Direction; 2] = [Direction::Up, Direction::Down];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub sequence: u64,
    pub at_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    pub sequence: u64,
    pub sent_ns: u64,
    pub at_ns: u64,
}

/// Everything one flow sent and received, in order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    pub sent: Vec<Sent>,
    pub arrived: Vec<Arrived>,
}

/// What a window of one flow says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    pub outage_ms: f64,
    pub sent: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    /// How long the sender itself stood still: what the machine, not the product, adds to an outage.
    pub stall_ms: f64,
}

impl Account {
    /// The worse of two directions for the gap, the sum for counts.
    pub fn join(self, other: Account) -> Account {
        Account {
            outage_ms: self.outage_ms.max(other.outage_ms),
            sent: self.sent + other.sent,
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
            stall_ms: self.stall_ms.max(other.stall_ms),
        }
    }
}

impl Trace {
    /// The part that belongs to a fault at `fault_ns`: one second before it until the end of its window.
    pub fn around(&self, fault_ns: u64) -> Trace {
        let span = fault_ns.saturating_sub(1_000_000_000)..fault_ns + WINDOW_NS;
        Trace {
            sent: self.sent.iter().filter(|s| span.contains(&s.at_ns)).copied().collect(),
            arrived: self
                .arrived
                .iter()
                .filter(|a| span.contains(&a.sent_ns) && span.contains(&a.at_ns))
                .copied()
                .collect(),
        }
    }

    /// Longest gap between arrivals that ends after the fault (a flow that never comes back has a gap until the
    /// window's end), and what became of the packets sent in the window.
    pub fn account(&self, fault_ns: u64) -> Account {
        self.account_within(fault_ns, WINDOW_NS)
    }

    /// The same with another window, for whoever knows when a fault is over.
    pub fn account_within(&self, fault_ns: u64, window_ns: u64) -> Account {
        let end_ns = fault_ns + window_ns;
        let before = self.arrived.iter().map(|a| a.at_ns).filter(|at| *at < fault_ns).max();
        let mut last = before.unwrap_or(fault_ns);
        let mut gap = 0;
        let mut times: Vec<u64> =
            self.arrived.iter().map(|a| a.at_ns).filter(|at| (fault_ns..end_ns).contains(at)).collect();
        times.sort_unstable();
        times.push(end_ns);
        for at in times {
            gap = gap.max(at - last);
            last = at;
        }
        let counted = |at: u64| (fault_ns..end_ns - IN_FLIGHT_NS).contains(&at);
        let mut account = Account {
            outage_ms: gap.saturating_sub(PERIOD_NS) as f64 / 1e6,
            stall_ms: self.stall_ns(fault_ns, end_ns).saturating_sub(PERIOD_NS) as f64 / 1e6,
            ..Account::default()
        };
        let mut copies: std::collections::BTreeMap<u64, u64> =
            self.sent.iter().filter(|sent| counted(sent.at_ns)).map(|sent| (sent.sequence, 0)).collect();
        let mut highest = None;
        for arrival in &self.arrived {
            if let Some(count) = copies.get_mut(&arrival.sequence) {
                *count += 1;
                let late = *count == 1 && highest.is_some_and(|h| arrival.sequence < h);
                account.reordered += u64::from(late);
                highest = highest.max(Some(arrival.sequence));
            }
        }
        account.sent = copies.len() as u64;
        account.lost = copies.values().filter(|count| **count == 0).count() as u64;
        account.duplicated = copies.values().map(|count| count.saturating_sub(1)).sum();
        account
    }
}

impl Trace {
    /// Longest pause between two sends around a fault.
    fn stall_ns(&self, fault_ns: u64, end_ns: u64) -> u64 {
        let near = fault_ns.saturating_sub(100 * PERIOD_NS)..end_ns;
        let mut sends: Vec<u64> = self.sent.iter().map(|sent| sent.at_ns).filter(|at| near.contains(at)).collect();
        sends.sort_unstable();
        sends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    }
}

/// Two running flows. Dropping it stops them.
#[derive(Debug)]
pub struct Flows {
    up: Arc<Mutex<Trace>>,
    down: Arc<Mutex<Trace>>,
    /// Nothing is sent up for now.
    quiet: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Flows {
    /// Starts both flows between an address in `client` and one in `host`.
    pub fn start(client: (&Netns, IpAddr), host: (&Netns, IpAddr)) -> Result<Flows> {
        Self::sized(client, host, PACKET)
    }

    /// The same with packets of another length, 16 bytes of payload at least.
    pub fn sized(client: (&Netns, IpAddr), host: (&Netns, IpAddr), bytes: usize) -> Result<Flows> {
        let mut flows = Flows {
            up: Arc::default(),
            down: Arc::default(),
            quiet: Arc::default(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let (up, down, quiet) = (Arc::clone(&flows.up), Arc::clone(&flows.down), Arc::clone(&flows.quiet));
        flows.one_way(client, host, &up, Pace { bytes, quiet })?;
        flows.one_way(host, client, &down, Pace { bytes, quiet: Arc::default() })?;
        Ok(flows)
    }

    fn one_way(
        &mut self,
        from: (&Netns, IpAddr),
        to: (&Netns, IpAddr),
        trace: &Arc<Mutex<Trace>>,
        pace: Pace,
    ) -> Result<()> {
        let bind = |(space, ip): (&Netns, IpAddr)| {
            space.enter(|| UdpSocket::bind((ip, 0)).with_context(|| format!("flow socket on {ip}")))
        };
        let (sender, receiver) = (bind(from)?, bind(to)?);
        receiver.set_read_timeout(Some(STOP_NOTICE))?;
        super::canary::roomy(&receiver)?;
        let target = receiver.local_addr()?;
        let (trace_out, stop) = (Arc::clone(trace), Arc::clone(&self.stop));
        self.threads.push(
            thread::Builder::new()
                .name("flow-send".into())
                .spawn(move || send(&sender, target, &trace_out, &stop, &pace))?,
        );
        let (trace_in, stop) = (Arc::clone(trace), Arc::clone(&self.stop));
        self.threads.push(
            thread::Builder::new().name("flow-receive".into()).spawn(move || receive(&receiver, &trace_in, &stop))?,
        );
        Ok(())
    }

    /// What one flow did so far.
    pub fn trace(&self, direction: Direction) -> Trace {
        self.locked(direction).clone()
    }

    /// Time of the latest arrival, the older of the two directions; zero before the first.
    pub fn last_arrival_ns(&self) -> u64 {
        Direction::BOTH.map(|way| self.last_arrival_of(way)).into_iter().min().unwrap_or(0)
    }

    /// Time of the latest arrival of one direction; zero before the first.
    pub fn last_arrival_of(&self, direction: Direction) -> u64 {
        self.locked(direction).arrived.last().map_or(0, |arrival| arrival.at_ns)
    }

    /// Stops the flow up, as of a client that only receives, or lets it go on.
    pub fn quiet_up(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::Relaxed);
    }

    /// Forgets what was sent before an instant: whoever runs for an hour looks at seconds.
    pub fn forget_before(&self, at_ns: u64) {
        for way in Direction::BOTH {
            let mut trace = self.locked(way);
            trace.sent.retain(|sent| sent.at_ns >= at_ns);
            trace.arrived.retain(|arrived| arrived.sent_ns >= at_ns);
        }
    }

    fn locked(&self, direction: Direction) -> MutexGuard<'_, Trace> {
        let trace = match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        };
        trace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has printed it already.
            let _ = thread.join();
        }
    }
}

/// What a flow is made of.
struct Pace {
    bytes: usize,
    quiet: Arc<AtomicBool>,
}

fn send(socket: &UdpSocket, target: SocketAddr, trace: &Mutex<Trace>, stop: &AtomicBool, pace: &Pace) {
    let mut next = now_ns();
    let mut packet = vec![0u8; pace.bytes.max(16)];
    for sequence in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        sleep_until(next);
        next += PERIOD_NS;
        if pace.quiet.load(Ordering::Relaxed) {
            continue;
        }
        let at_ns = now_ns();
        packet[..8].copy_from_slice(&sequence.to_be_bytes());
        packet[8..16].copy_from_slice(&at_ns.to_be_bytes());
        // Noted before it is sent: an arrival is then never ahead of its send. A refused send counts as lost.
        trace.lock().unwrap_or_else(PoisonError::into_inner).sent.push(Sent { sequence, at_ns });
        let _ = socket.send_to(&packet, target);
    }
}

fn receive(socket: &UdpSocket, trace: &Mutex<Trace>, stop: &AtomicBool) {
    let mut buffer = [0u8; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok(length) = socket.recv(&mut buffer) else {
            continue; // the timeout
        };
        let at_ns = now_ns();
        if let Some(arrived) = parse(&buffer[..length], at_ns) {
            trace.lock().unwrap_or_else(PoisonError::into_inner).arrived.push(arrived);
        }
    }
}

fn parse(packet: &[u8], at_ns: u64) -> Option<Arrived> {
    let sequence = u64::from_be_bytes(*packet.first_chunk()?);
    let sent_ns = u64::from_be_bytes(*packet.get(8..)?.first_chunk()?);
    Some(Arrived { sequence, sent_ns, at_ns })
}

#[cfg(test)]
#[path = "flow/tests.rs"]
mod tests;
