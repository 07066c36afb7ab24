//! Owns the attacker of the lab: it copies what passes on a path, and sends copies, mutilated copies and inventions at
//! the gateway, from the client's own address and from its own. Never judges what becomes of them.
//!
//! It sits on the link between path A's router and the core: on the path, so that it sees every datagram and can send
//! with any source, but without a key.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jvpn_common::crypto::Entropy as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::sys;
use super::topology::{GATEWAY_PORT, GATEWAY_V4, GATEWAY_V6, Topology};
use crate::packet;
use jvpn_common::scenario::rng::Rng;

/// Packets between two pauses of a millisecond: some thousand a second, which leaves the machine time for the product.
const BURST: usize = 4;
/// Largest payload that an unfragmented datagram of a 1,500-byte path carries.
const LONGEST: usize = 1_472;
/// How long copying waits at once, so that it notices its deadline.
const GLANCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// Ethernet, IPv4, UDP.
const HEADERS: usize = 14 + 20 + 8;

/// One copied datagram of the client.
#[derive(Clone, Debug)]
pub struct Copied {
    frame: Vec<u8>,
    client: SocketAddrV4,
    gateway: SocketAddrV4,
}

impl Copied {
    fn of(frame: &[u8]) -> Option<Copied> {
        let plain = frame.get(12..14)? == [8, 0] && *frame.get(14)? == 0x45 && *frame.get(23)? == 17;
        let port = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
        let address = |at: usize| Some(Ipv4Addr::from(*frame.get(at..)?.first_chunk::<4>()?));
        let client = SocketAddrV4::new(address(26)?, port(34)?);
        let gateway = SocketAddrV4::new(address(30)?, port(36)?);
        let ours = plain && gateway.port() == GATEWAY_PORT && frame.len() > HEADERS;
        ours.then(|| Copied { frame: frame.to_vec(), client, gateway })
    }

    fn payload(&self) -> &[u8] {
        &self.frame[HEADERS..]
    }

    /// Another payload from the same source, with right checksums.
    fn with(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = packet::frame(SocketAddr::V4(self.client), SocketAddr::V4(self.gateway), false, payload);
        frame[..12].copy_from_slice(&self.frame[..12]);
        frame
    }
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// With the client's address.
    pub spoofed: u64,
    /// From the attacker's own.
    pub foreign: u64,
}

/// Copies what the client sends over path A until there are `count`.
pub fn copy(topology: &Topology, count: usize, within: Duration) -> Result<Vec<Copied>> {
    topology.space("core").enter(|| {
        let mut socket = sys::packet_socket("ra").context("a packet socket on the path")?;
        let deadline = Instant::now() + within;
        let mut copies = Vec::new();
        let mut buffer = vec![0u8; 2_048];
        while copies.len() < count {
            ensure!(Instant::now() < deadline, "only {} datagrams of the client passed", copies.len());
            if poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&GLANCE))? == 0 {
                continue;
            }
            if let Ok(length) = socket.read(&mut buffer) {
                copies.extend(Copied::of(&buffer[..length]));
            }
        }
        Ok(copies)
    })
}

/// Sends copies as they are, from the client's own address, over and over at a steady pace; how many left.
pub fn replay(topology: &Topology, copies: &[Copied], per_second: u64, lasting: Duration) -> Result<u64> {
    ensure!(!copies.is_empty(), "there is nothing to send again");
    topology.space("ra").enter(|| {
        let mut socket = sys::packet_socket("core").context("a packet socket on the path")?;
        let every = Duration::from_secs(1) / u32::try_from(per_second.max(1))?;
        let (start, mut due, mut sent) = (Instant::now(), Duration::ZERO, 0);
        for copy in copies.iter().cycle() {
            // What a pause of this thread left out is not sent in one burst: it would be lost before anybody refused it.
            due = (due + every).max(start.elapsed().saturating_sub(every * 8));
            if due >= lasting {
                break;
            }
            thread::sleep(due.saturating_sub(start.elapsed()));
            sent += u64::from(socket.write(&copy.frame).is_ok());
        }
        Ok(sent)
    })
}

/// Sends everything it can think of, then mutations of it, half of the time from the client's address.
pub fn send(topology: &Topology, copies: &[Copied], seed: u64, lasting: Duration) -> Result<Sent> {
    let spoofed = topology.space("ra").enter(|| {
        let mut socket = sys::packet_socket("core").context("a packet socket on the path")?;
        Ok(rain(lasting / 2, spoofs(copies, seed), |frame| socket.write(frame).is_ok()))
    })?;
    let foreign = topology.space("core").enter(|| {
        let (v4, v6) = (UdpSocket::bind("0.0.0.0:0")?, UdpSocket::bind("[::]:0")?);
        v4.connect((GATEWAY_V4, GATEWAY_PORT))?;
        v6.connect((GATEWAY_V6, GATEWAY_PORT))?;
        let mut turn = 0u32;
        Ok(rain(lasting / 2, inventions(copies, seed), |payload| {
            turn += 1;
            if turn.is_multiple_of(2) { &v4 } else { &v6 }.send(payload).is_ok()
        }))
    })?;
    Ok(Sent { spoofed, foreign })
}

/// Sends until the time is over, but the first thousands in any case; how many left.
fn rain(lasting: Duration, packets: impl Iterator<Item = Vec<u8>>, mut send: impl FnMut(&[u8]) -> bool) -> u64 {
    /// More than the part that is not random.
    const AT_LEAST: usize = 4_000;
    let deadline = Instant::now() + lasting;
    let mut sent = 0;
    for (number, packet) in packets.enumerate() {
        if number >= AT_LEAST && Instant::now() >= deadline {
            break;
        }
        sent += u64::from(send(&packet));
        if number % BURST == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    sent
}

/// Frames with the client's source: replayed, reordered, of every type, cut and stretched; then at random.
fn spoofs(copies: &[Copied], seed: u64) -> impl Iterator<Item = Vec<u8>> {
    let replayed = copies.iter().map(|copy| copy.frame.clone());
    let reordered = copies.iter().rev().map(|copy| copy.frame.clone());
    let longest = copies.iter().max_by_key(|copy| copy.frame.len());
    let typed = longest.into_iter().flat_map(|copy| {
        (0..=u8::MAX).map(|kind| {
            let mut payload = copy.payload().to_vec();
            payload[0] = kind;
            copy.with(&payload)
        })
    });
    let resized = longest.into_iter().flat_map(|copy| {
        (0..LONGEST).step_by(11).map(|len| {
            let mut payload = copy.payload().to_vec();
            payload.resize(len, 0xa5);
            copy.with(&payload)
        })
    });
    let mut rng = Rng::new(seed);
    let random = std::iter::from_fn(move || {
        let copy = &copies[at(&mut rng, copies.len())];
        Some(copy.with(&mutated(copy.payload(), &mut rng)))
    });
    replayed.chain(reordered).chain(typed).chain(resized).chain(random)
}

/// Payloads from the attacker's own address: copies, every type at every kind of length, oversized ones in fragments.
fn inventions(copies: &[Copied], seed: u64) -> impl Iterator<Item = Vec<u8>> {
    let copied = copies.iter().map(|copy| copy.payload().to_vec());
    let lengths = [0, 1, 23, 24, 71, 72, 200, 1_200, LONGEST, 3_000, 9_000];
    let mut filler = Rng::new(seed ^ 2);
    let typed = (0..=u8::MAX).flat_map(move |kind| lengths.map(|len| (kind, len))).map(move |(kind, len)| {
        let mut payload = junk(&mut filler, len);
        payload.first_mut().into_iter().for_each(|first| *first = kind);
        payload
    });
    let mut rng = Rng::new(seed ^ 1);
    let random = std::iter::from_fn(move || Some(mutated(copies[at(&mut rng, copies.len())].payload(), &mut rng)));
    copied.chain(typed).chain(random)
}

fn mutated(payload: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut payload = payload.to_vec();
    let length = payload.len();
    match rng.below(5) {
        0 => payload.truncate(at(rng, length)),
        1 => {
            let more = junk(rng, LONGEST.saturating_sub(length));
            payload.extend(more);
        }
        // The head decides where a datagram goes; that is where most mutations belong.
        2 => payload[at(rng, length.min(32))] ^= 1 << rng.below(8),
        3 => payload[at(rng, length)] ^= 1 << rng.below(8),
        _ => {
            let head = length.min(24);
            payload[1..head].copy_from_slice(&junk(rng, head)[1..]);
        }
    }
    payload
}

fn at(rng: &mut Rng, bound: usize) -> usize {
    (rng.number() % bound as u64) as usize
}

fn junk(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    bytes
}
