//! Owns the probes that prove a path works or a fault is in force: datagrams beside the product, between the same
//! interfaces. Never measures outages.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use super::clock::now_ns;
use super::topology::{GATEWAY_V4, GATEWAY_V6, Path, Topology};

/// Port of the echo in the gateway's namespace; the product must leave it alone.
pub const PORT: u16 = 40_007;
/// A probe that took longer is lost: the paths of the lab answer in well under a millisecond.
pub const PATIENCE: Duration = Duration::from_millis(150);
/// IPv6 finds its neighbours only once the carrier of a new link has been noticed.
const SETTLING: Duration = Duration::from_secs(10);
/// Receive timeout of the echo: how late it notices that it should stop.
const STOP_NOTICE: Duration = Duration::from_millis(50);
/// Nonce and send time; also the smallest probe.
const HEADER: usize = 8;

/// What became of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The gateway's namespace received it.
    pub arrived: bool,
    pub round_trip: Option<Duration>,
    /// Source port as the gateway's side saw it, behind the NAT on path B.
    pub seen_port: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
struct Arrival {
    at_ns: u64,
    port: u16,
}

type Seen = Arc<Mutex<BTreeMap<u64, Arrival>>>;

/// Echo in the gateway's namespace and one socket per path and family in the client's.
#[derive(Debug)]
pub struct Canary {
    seen: Seen,
    sockets: Vec<(Path, bool, UdpSocket)>,
    nonce: AtomicU64,
    stop: Arc<AtomicBool>,
    echoes: Mutex<Vec<JoinHandle<()>>>,
}

impl Canary {
    pub fn start(topology: &Topology) -> Result<Canary> {
        let seen: Seen = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let mut echoes = Vec::new();
        for address in [GATEWAY_V4, GATEWAY_V6] {
            let ip: IpAddr = address.parse().context("canary address")?;
            let socket = topology
                .gateway()
                .enter(|| UdpSocket::bind((ip, PORT)).with_context(|| format!("canary on {address}")))?;
            socket.set_read_timeout(Some(STOP_NOTICE))?;
            roomy(&socket)?;
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            echoes.push(thread::Builder::new().name("canary".into()).spawn(move || echo(&socket, &seen, &stop))?);
        }
        let mut sockets = Vec::new();
        for path in Path::BOTH {
            for v6 in [false, true] {
                let socket = topology.client().enter(|| uplink_socket(path, v6))?;
                sockets.push((path, v6, socket));
            }
        }
        Ok(Canary { seen, sockets, nonce: AtomicU64::new(1), stop, echoes: Mutex::new(echoes) })
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut echoes = self.echoes.lock().unwrap_or_else(PoisonError::into_inner);
        for echo in echoes.drain(..) {
            // A canary that panicked has printed it; removal goes on.
            let _ = echo.join();
        }
    }

    pub fn prove_both_paths(&self) -> Result<()> {
        Path::BOTH.into_iter().try_for_each(|path| self.prove(path))
    }

    /// Answers come over `path` in both families.
    pub fn prove(&self, path: Path) -> Result<()> {
        for v6 in [false, true] {
            let probe = self.probe_until(path, v6, 64, |probe| probe.round_trip.is_some())?;
            ensure!(probe.round_trip.is_some(), "canary on {path:?} (IPv6: {v6}): {probe:?}");
        }
        Ok(())
    }

    /// Probes until one fits: a busy machine may take longer than `PATIENCE` once. The last one if none did.
    pub fn probe_until(&self, path: Path, v6: bool, size: usize, fits: impl Fn(&Probe) -> bool) -> Result<Probe> {
        let started = Instant::now();
        loop {
            let probe = self.probe(path, v6, size)?;
            if fits(&probe) || started.elapsed() > SETTLING {
                return Ok(probe);
            }
        }
    }

    /// The port of path B's or A's client as the gateway's side sees it.
    pub fn seen_port(&self, path: Path) -> Result<u16> {
        self.seen_port_of(path, false)
    }

    /// The same in one address family.
    pub fn seen_port_of(&self, path: Path, v6: bool) -> Result<u16> {
        let probe = self.probe_until(path, v6, 64, |probe| probe.seen_port.is_some())?;
        probe.seen_port.with_context(|| format!("{path:?} does not work"))
    }

    /// One probe whose IP packet is `size` bytes long.
    pub fn probe(&self, path: Path, v6: bool, size: usize) -> Result<Probe> {
        self.probe_within(path, v6, size, PATIENCE)
    }

    /// The same with another patience, for slow paths.
    pub fn probe_within(&self, path: Path, v6: bool, size: usize, patience: Duration) -> Result<Probe> {
        let socket = self.socket(path, v6)?;
        let headers = if v6 { 48 } else { 28 };
        let nonce = self.nonce.fetch_add(1, Ordering::Relaxed);
        let mut packet = vec![0u8; size.saturating_sub(headers).max(HEADER)];
        packet[..HEADER].copy_from_slice(&nonce.to_be_bytes());
        forget_unread(socket)?;
        let sent = Instant::now();
        // A refused send is an answer: the link is down, or the packet too long for it.
        let refused = socket.send(&packet).is_err();
        let mut round_trip = None;
        let mut buffer = [0u8; 64];
        while !refused && sent.elapsed() < patience {
            socket.set_read_timeout(Some(patience.saturating_sub(sent.elapsed()).max(Duration::from_millis(1))))?;
            match socket.recv(&mut buffer) {
                Ok(length) if length >= HEADER && buffer[..HEADER] == nonce.to_be_bytes() => {
                    round_trip = Some(sent.elapsed());
                    break;
                }
                _ => {}
            }
        }
        let arrival = self.arrival(nonce);
        Ok(Probe { arrived: arrival.is_some(), round_trip, seen_port: arrival.map(|a| a.port) })
    }

    /// Sends `count` packets at once and returns the arrival times, ns, of those that came up to `wait` later.
    pub fn burst(&self, path: Path, count: u64, size: usize, wait: Duration) -> Result<Vec<u64>> {
        let socket = self.socket(path, false)?;
        let first = self.nonce.fetch_add(count, Ordering::Relaxed);
        let mut packet = vec![0u8; size.saturating_sub(28).max(HEADER)];
        for nonce in first..first + count {
            packet[..HEADER].copy_from_slice(&nonce.to_be_bytes());
            let _ = socket.send(&packet);
            if nonce % 32 == 31 {
                thread::sleep(Duration::from_millis(1)); // a veth ring holds 256 frames
            }
        }
        let deadline = Instant::now() + wait;
        loop {
            let arrived: Vec<u64> = {
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.range(first..first + count).map(|(_, arrival)| arrival.at_ns).collect()
            };
            if arrived.len() as u64 == count || Instant::now() >= deadline {
                return Ok(arrived);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn socket(&self, path: Path, v6: bool) -> Result<&UdpSocket> {
        self.sockets
            .iter()
            .find(|(of, six, _)| (*of, *six) == (path, v6))
            .map(|(_, _, socket)| socket)
            .context("every path has a canary socket")
    }

    fn arrival(&self, nonce: u64) -> Option<Arrival> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&nonce).copied()
    }
}

/// Room for a whole burst, so that a thread that waits for a processor loses nothing of it.
pub(super) fn roomy(socket: &UdpSocket) -> Result<()> {
    const BYTES: usize = 16 << 20;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, BYTES).context("a large receive buffer")
}

fn uplink_socket(path: Path, v6: bool) -> Result<UdpSocket> {
    let (domain, address) = if v6 { (Domain::IPV6, GATEWAY_V6) } else { (Domain::IPV4, GATEWAY_V4) };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(path.uplink().as_bytes()))?;
    let ip: IpAddr = address.parse().context("canary address")?;
    socket.connect(&SocketAddr::new(ip, PORT).into()).context("canary socket")?;
    Ok(socket.into())
}

/// Answers to an earlier burst, and errors reported for it: they would fill the buffer this answer needs.
fn forget_unread(socket: &UdpSocket) -> Result<()> {
    socket.set_nonblocking(true)?;
    loop {
        match socket.recv(&mut [0u8; HEADER]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            _ => {}
        }
    }
    socket.set_nonblocking(false)?;
    Ok(())
}

fn echo(socket: &UdpSocket, seen: &Seen, stop: &AtomicBool) {
    let mut buffer = [0u8; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue; // the timeout, or an ICMP answer to an earlier echo
        };
        let Some(nonce) = buffer[..length].first_chunk::<HEADER>() else {
            continue;
        };
        let arrival = Arrival { at_ns: now_ns(), port: from.port() };
        seen.lock().unwrap_or_else(PoisonError::into_inner).insert(u64::from_be_bytes(*nonce), arrival);
        let _ = socket.send_to(nonce, from);
    }
}
