//! Wrong rewrites, made on purpose: would the frames and the oracle notice?
//!
//! Owns the table of bugs. Each is a frame that lies to the steering function, or spoils what it writes, just so that what
//! comes out is what code with that bug would have made: the function itself, which the kernel runs, has no switch for it.
//! Must never be seen by anything but the host's run in a test.

use crate::edges;
use crate::host::Routes;
use crate::maps::{HostMaps, State, locator, slot};
use crate::oracle::{check_answer, check_forwarded};
use crate::random::{self, Dice};
use crate::{packet, relay};
use jvpn_common::steer::{self, Bytes, Frame};
use jvpn_common::verdict::{Class, Verdict};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The UDP checksum is left as it came.
    UdpSumStays,
    /// A UDP checksum that becomes 0 is written as 0, which means "none".
    UdpSumNone,
    /// The UDP checksum is made right, whatever it was: damage on the way is hidden.
    UdpSumHealed,
    /// An IPv4 datagram without a checksum gets one.
    UdpSumInvented,
    /// IPv6 without a UDP checksum is let through.
    UdpSumMissed,
    /// The IPv4 header's checksum is left as it came.
    HeaderSumStays,
    /// The IPv4 header's checksum has UDP's rule for zero.
    HeaderSumNever0,
    /// TTL and hop limit stay, with a header checksum that says so.
    HopStays,
    /// The last hop is not looked at.
    LastHopMissed,
    /// The VLAN tag is lost.
    TagLost,
    /// DSCP and ECN are cleared, with a header checksum that says so.
    ClassCleared,
    /// The UDP length is believed beyond the packet.
    UdpLengthBelieved,
    /// Bytes behind the datagram, but in the packet, are carried along.
    TailCarried,
    /// IPv4 options are stepped over.
    OptionsStepped,
    /// A first fragment is taken for a whole datagram.
    FragmentTaken,
}

/// Which frames must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The table of [`edges`].
    Edges,
    /// Frames made up by a seed.
    MadeUp,
    /// Frames whose checksum becomes 0.
    Zeros,
}

/// Every bug, and who must notice it at least.
pub const ALL: [(Bug, By); 15] = [
    (Bug::UdpSumStays, By::Edges),
    (Bug::UdpSumNone, By::Zeros),
    (Bug::UdpSumHealed, By::Edges),
    (Bug::UdpSumInvented, By::Edges),
    (Bug::UdpSumMissed, By::Edges),
    (Bug::HeaderSumStays, By::Edges),
    (Bug::HeaderSumNever0, By::Zeros),
    (Bug::HopStays, By::Edges),
    (Bug::LastHopMissed, By::Edges),
    (Bug::TagLost, By::Edges),
    (Bug::ClassCleared, By::MadeUp),
    (Bug::UdpLengthBelieved, By::Edges),
    (Bug::TailCarried, By::Edges),
    (Bug::OptionsStepped, By::Edges),
    (Bug::FragmentTaken, By::Edges),
];

/// Where things stand in a frame.
#[derive(Clone, Copy)]
struct At {
    ip: usize,
    v6: bool,
    /// Bytes of IPv4 options.
    options: usize,
    udp: usize,
}

impl At {
    fn of(frame: &[u8]) -> Self {
        let byte = |at: usize| frame.get(at).copied().unwrap_or(0);
        let ip = if (byte(12), byte(13)) == (0x81, 0) { 18 } else { 14 };
        let v6 = byte(ip) >> 4 == 6;
        let options = if v6 { 0 } else { usize::from(byte(ip) & 15).saturating_sub(5) * 4 };
        Self { ip, v6, options, udp: ip + if v6 { 40 } else { 20 } }
    }

    fn hop_limit(self) -> usize {
        self.ip + if self.v6 { 7 } else { 8 }
    }
}

/// A frame under a bug.
struct Spoiled<'a> {
    frame: Bytes<'a>,
    bug: Option<Bug>,
    at: At,
    sums_read: Cell<u32>,
}

impl Spoiled<'_> {
    /// Where the function's `at` is in the frame.
    fn place(&self, at: usize) -> usize {
        let stepped = self.bug == Some(Bug::OptionsStepped) && at >= self.at.udp;
        at + if stepped { self.at.options } else { 0 }
    }

    /// What it is told instead of what stands there.
    fn told(&self, at: usize, bytes: &mut [u8]) {
        let At { ip, v6, options, udp } = self.at;
        match (self.bug, bytes) {
            (Some(Bug::OptionsStepped), [version, _, high, low, ..]) if at == ip && !v6 && options > 0 => {
                *version = 0x45;
                let len = u16::from_be_bytes([*high, *low]) - options as u16;
                [*high, *low] = len.to_be_bytes();
            }
            (Some(Bug::OptionsStepped), [high, low]) if at == ip + 2 && !v6 => {
                let len = u16::from_be_bytes([*high, *low]) - options as u16;
                [*high, *low] = len.to_be_bytes();
            }
            (Some(Bug::FragmentTaken), bytes) if at == ip && !v6 && bytes.len() == 20 => bytes[6..8].fill(0),
            (Some(Bug::LastHopMissed), [left]) if at == self.at.hop_limit() => *left = (*left).max(2),
            (Some(Bug::UdpLengthBelieved), [_, _, _, _, high, low, ..]) if at == udp => {
                let inside = self.frame.len().saturating_sub(udp) as u16;
                let len = u16::from_be_bytes([*high, *low]);
                [*high, *low] = len.min(inside).to_be_bytes();
            }
            (Some(Bug::TailCarried), [high, low]) if at == ip + if v6 { 4 } else { 2 } => {
                let Some([a, b]) = self.frame.read::<2>(udp + 4) else { return };
                let len = u16::from_be_bytes([a, b]) + if v6 { 0 } else { 20 };
                [*high, *low] = len.to_be_bytes();
            }
            (Some(Bug::UdpSumMissed), [high, low]) if at == udp + 6 && v6 => {
                let first = self.sums_read.replace(self.sums_read.get() + 1) == 0;
                if first && (*high, *low) == (0, 0) {
                    *low = 1;
                }
            }
            (Some(Bug::UdpSumInvented), [high, low]) if at == udp + 6 && !v6 && (*high, *low) == (0, 0) => {
                [*high, *low] = [0xff; 2];
            }
            _ => {}
        }
    }

    /// What is written instead of what it writes.
    fn spoiled(&self, at: usize, bytes: &mut [u8]) {
        let At { ip, v6, udp, .. } = self.at;
        match (self.bug, bytes) {
            (Some(Bug::UdpSumStays), bytes) if at == udp + 6 => {
                bytes.copy_from_slice(&self.frame.packet()[at..at + bytes.len()]);
            }
            (Some(Bug::UdpSumNone), bytes) if at == udp + 6 && *bytes == [0xff; 2] => bytes.fill(0),
            (Some(Bug::HeaderSumStays), [_, _, sum @ ..]) if at == ip + 8 && !v6 => {
                sum.copy_from_slice(&self.frame.packet()[ip + 10..ip + 12]);
            }
            (Some(Bug::HeaderSumNever0), [_, _, sum @ ..]) if at == ip + 8 && !v6 && *sum == [0; 2] => sum.fill(0xff),
            _ => {}
        }
    }
}

impl Frame for Spoiled<'_> {
    fn len(&self) -> usize {
        self.frame.len()
    }

    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut bytes = self.frame.read::<N>(self.place(at))?;
        self.told(at, &mut bytes);
        Some(bytes)
    }

    fn write<const N: usize>(&mut self, at: usize, bytes: &[u8; N]) -> Option<()> {
        let mut bytes = *bytes;
        self.spoiled(at, &mut bytes);
        let place = self.place(at);
        self.frame.write(place, &bytes)
    }

    fn shorten(&mut self, len: usize) -> Option<()> {
        self.frame.shorten(len)
    }
}

/// The one's complement sum of `bytes`, as a checksum over them.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let low = |pair: &[u8]| pair.get(1).map_or(0, |&low| u32::from(low));
    let sum = bytes.chunks(2).fold(0, |sum, pair| sum + u32::from(pair[0]) * 256 + low(pair));
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(((sum & 0xffff) + (sum >> 16)) as u16)).to_be_bytes()
}

/// What a bug does that no single read or write shows.
fn afterwards(bug: Option<Bug>, question: &[u8], mut answer: Vec<u8>) -> Vec<u8> {
    let At { ip, v6, udp, .. } = At::of(question);
    let renewed = |answer: &mut Vec<u8>| {
        if !v6 {
            answer[ip + 10..ip + 12].fill(0);
            let sum = checksum(&answer[ip..ip + 20]);
            answer[ip + 10..ip + 12].copy_from_slice(&sum);
        }
    };
    match bug {
        Some(Bug::HopStays) => {
            answer[At::of(question).hop_limit()] += 1;
            renewed(&mut answer);
        }
        Some(Bug::ClassCleared) if v6 => (answer[ip], answer[ip + 1]) = (0x60, answer[ip + 1] & 15),
        Some(Bug::ClassCleared) => {
            answer[ip + 1] = 0;
            renewed(&mut answer);
        }
        Some(Bug::TagLost) if ip == 18 => drop(answer.drain(12..16)),
        Some(Bug::UdpSumHealed) => {
            let end = udp + usize::from(u16::from_be_bytes([answer[udp + 4], answer[udp + 5]]));
            answer[udp + 6..udp + 8].fill(0);
            let mut summed = answer[if v6 { ip + 8 } else { ip + 12 }..udp].to_vec();
            summed.extend([0, 17, answer[udp + 4], answer[udp + 5]]);
            summed.extend(&answer[udp..end]);
            let sum = checksum(&summed);
            answer[udp + 6..udp + 8].copy_from_slice(if sum == [0; 2] { &[0xff; 2] } else { &sum });
        }
        _ => {}
    }
    answer
}

/// A frame with what must become of it.
struct Expected {
    frame: Vec<u8>,
    verdict: Verdict,
}

/// What comes out of a relay under a bug.
fn relayed(bug: Option<Bug>, host: &HostMaps, frame: &[u8]) -> (Verdict, u32, Vec<u8>) {
    host.reset();
    let mut bytes = frame.to_vec();
    let at = At::of(frame);
    let mut spoiled = Spoiled { frame: Bytes::new(&mut bytes), bug, at, sums_read: Cell::new(0) };
    let relayed = steer::relay(&mut spoiled, host, &Routes(None));
    let (verdict, answer) = (relayed.judgement.verdict, spoiled.frame.packet().to_vec());
    let forwarded = verdict.class() == Class::Forward;
    (verdict, relayed.ifindex, if forwarded { afterwards(bug, frame, answer) } else { answer })
}

/// Whether the frame shows the bug: another verdict, or something the oracle does not take.
fn shows(bug: Option<Bug>, host: &HostMaps, state: &State, expected: &Expected) -> bool {
    let Expected { frame, verdict } = expected;
    let looked = catch_unwind(AssertUnwindSafe(|| {
        let (is, ifindex, answer) = relayed(bug, host, frame);
        assert_eq!(is, *verdict);
        match verdict.class() {
            Class::Answer => check_answer(frame, &answer, is, state),
            Class::Forward => assert_eq!(check_forwarded(frame, &answer, is, state), ifindex),
            Class::Pass | Class::User | Class::Drop => assert_eq!(*frame, answer),
        }
    }));
    looked.is_err()
}

/// Good data whose UDP checksum, and such whose header checksum, is 0 after the rewriting of this world: the right one
/// among all values of two bytes that are covered and mean nothing.
fn zeros(host: &HostMaps) -> Vec<Expected> {
    let mut found = Vec::new();
    for v6 in [false, true] {
        let known = locator(if v6 { slot::V6 } else { slot::V4 }, 0, false);
        let (client, gateway) =
            if v6 { (packet::CLIENT_V6, packet::GATEWAY_V6) } else { (packet::CLIENT_V4, packet::GATEWAY_V4) };
        let made = (0..=u16::MAX).map(|number| {
            let mut payload = packet::data(known, 0, 1, 60);
            let end = payload.len();
            payload[end - 2..].copy_from_slice(&number.to_be_bytes());
            packet::frame(client, gateway, false, &payload)
        });
        let becomes = |frame: &Vec<u8>, at: usize, sum: [u8; 2]| {
            let (verdict, _, answer) = relayed(None, host, frame);
            verdict == Verdict::ForwardedUp && answer[at..at + 2] == sum
        };
        let udp = if v6 { 54 } else { 34 };
        let frame = made.clone().find(|frame| becomes(frame, udp + 6, [0xff; 2])).expect("one of all values");
        found.push(Expected { frame, verdict: Verdict::ForwardedUp });
        if v6 {
            continue;
        }
        let base = packet::frame(client, gateway, false, &packet::data(known, 0, 1, 60));
        let identified = (0..=u16::MAX).map(|number: u16| {
            let mut frame = base.clone();
            frame[18..20].copy_from_slice(&number.to_be_bytes());
            frame[24..26].fill(0);
            let sum = checksum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum);
            frame
        });
        let frame = { identified }.find(|frame| becomes(frame, 24, [0; 2])).expect("one of all values");
        found.push(Expected { frame, verdict: Verdict::ForwardedUp });
    }
    found
}

/// How many frames of each kind show a bug: edges, made up, zeros. Without a bug none must.
#[must_use]
pub fn shown(bug: Option<Bug>) -> [(By, usize); 3] {
    let state = relay::world();
    let host = HostMaps::new(&state);
    let count = |frames: &[Expected]| frames.iter().filter(|expected| shows(bug, &host, &state, expected)).count();
    let edges = edges::all().into_iter();
    let edges: Vec<_> = edges.map(|edge| Expected { frame: edge.frame, verdict: edge.relay }).collect();
    let mut dice = Dice::new(0x7361_626f);
    let made_up = (0..20).map(|_| {
        let (state, ends) = random::world(&mut dice);
        let host = HostMaps::new(&state);
        let frames = (0..50).map(|_| random::frame(&mut dice, &state, &ends));
        let frames: Vec<_> = frames.map(|(frame, verdict, _)| Expected { frame, verdict }).collect();
        frames.iter().filter(|expected| shows(bug, &host, &state, expected)).count()
    });
    [(By::Edges, count(&edges)), (By::MadeUp, made_up.sum()), (By::Zeros, count(&zeros(&host)))]
}
