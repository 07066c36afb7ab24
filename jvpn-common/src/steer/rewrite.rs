//! Outer headers rewritten towards the other side.
//!
//! Owns every byte a relay changes: stations, addresses, ports, TTL or hop limit, both checksums (RFC 1624). All
//! that can be refused is refused before the first of them, so that a frame leaves whole or as it came. Must
//! never touch the payload, DSCP, ECN or a VLAN tag.

use super::outer::Outer;
use super::{Address, Frame, Tables};
use crate::abi::{Hop, TrafficField};
use crate::net::{checksum, ethernet, ipv4, ipv6, udp};
use crate::verdict::Verdict;

/// Where data goes on, by words.
#[derive(Clone, Copy)]
pub(super) struct Onward {
    pub hop: u16,
    pub mtu: u16,
    pub port: u16,
    pub to: Address,
}

/// The last step out of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Interface to leave by.
    pub ifindex: u32,
    /// Largest IP packet it takes; 0 = not known.
    pub mtu: u16,
    /// The stations as they stand in the frame: the first 8 bytes, the last 4.
    pub stations: (u64, u32),
}

impl Exit {
    /// The exit of a resolved way.
    #[must_use]
    #[inline(always)]
    pub const fn of(hop: &Hop) -> Self {
        let ([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5]) = (hop.destination_mac, hop.source_mac);
        let stations = (u64::from_le_bytes([d0, d1, d2, d3, d4, d5, s0, s1]), u32::from_le_bytes([s2, s3, s4, s5]));
        Self { ifindex: hop.ifindex, mtu: hop.mtu, stations }
    }
}

/// What only the place where a packet runs knows of ways.
pub trait Route {
    /// The interface the frame came in by.
    fn ingress(&self) -> u32;
    /// The exit of a way that is not resolved, towards `to`, for an IP packet of `len` bytes. `None` when no
    /// neighbour is known, or none this program may send to.
    fn resolve(&self, hop: &Hop, to: Address, len: u16) -> Option<Exit>;
}

/// Whether an IP packet of `len` bytes does not fit.
#[inline(always)]
pub(super) const fn too_big(len: usize, to_owner: u16, exit: u16) -> bool {
    (to_owner != 0 && len > to_owner as usize) || (exit != 0 && len > exit as usize)
}

/// Rewrites the frame along its way. The interface it leaves by, or why nothing was changed.
#[inline(always)]
pub(super) fn forward<T: Tables>(
    frame: &mut impl Frame,
    outer: &Outer,
    onward: &Onward,
    slot: u32,
    tables: &T,
    route: &impl Route,
) -> Result<u32, Verdict> {
    let len = fit_to_travel(frame, outer)?;
    let hop = tables.hop(onward.hop).ok_or(Verdict::NoNeighbour)?;
    let exit = if hop.resolved() {
        Exit::of(&hop)
    } else {
        tables.add(slot, TrafficField::SlowPath, 1);
        route.resolve(&hop, onward.to, len as u16).ok_or(Verdict::NoNeighbour)?
    };
    let from = Address::of(&hop.source);
    if onward.to.is_v4() == outer.v6 || from.is_v4() == outer.v6 {
        return Err(Verdict::NoOtherSide);
    }
    // A tag means something on its own interface only.
    if outer.ip != ethernet::LEN && exit.ifindex != route.ingress() {
        return Err(Verdict::NoNeighbour);
    }
    if too_big(len, onward.mtu, exit.mtu) {
        return Err(Verdict::TooBig);
    }
    let port = tables.config().ok_or(Verdict::Unconfigured)?.port;
    let addresses =
        if outer.v6 { write_v6(frame, outer.ip, from, onward.to) } else { write_v4(frame, outer.ip, from, onward.to) };
    let ports = u32::from(port.to_be()) | u32::from(onward.port.to_be()) << 16;
    let written = addresses
        .and_then(|(old, new)| write_udp(frame, outer.payload - udp::LEN, ports, old, new))
        .and_then(|()| frame.write(0, &exit.stations.0.to_le_bytes()))
        .and_then(|()| frame.write(8, &exit.stations.1.to_le_bytes()));
    match written {
        Some(()) => Ok(exit.ifindex),
        None => Err(Verdict::WriteFailed),
    }
}

/// Bytes of the IP packet, if it may be sent on at all.
#[inline(always)]
fn fit_to_travel(frame: &impl Frame, outer: &Outer) -> Result<usize, Verdict> {
    let (length_at, left_at, header) =
        if outer.v6 { (ipv6::LENGTH_AT, ipv6::HOP_LIMIT_AT, ipv6::LEN) } else { (ipv4::LENGTH_AT, ipv4::TTL_AT, 0) };
    let len = frame.read::<2>(outer.ip + length_at).ok_or(Verdict::BadLength)?;
    let len = usize::from(u16::from_be_bytes(len)) + header;
    // Bytes in the packet that are not of the datagram would travel on unseen.
    if outer.ip + len != outer.payload + outer.len {
        return Err(Verdict::BadLength);
    }
    match frame.read::<1>(outer.ip + left_at) {
        Some([left]) if left > 1 => {}
        _ => return Err(Verdict::HopLimit),
    }
    match frame.read::<2>(outer.payload - udp::LEN + udp::CHECKSUM_AT) {
        Some([0, 0]) if outer.v6 => Err(Verdict::NoChecksum),
        _ => Ok(len),
    }
}

#[inline(always)]
fn word(frame: &impl Frame, at: usize) -> Option<u64> {
    frame.read(at).map(u64::from_le_bytes)
}

/// Other addresses and one hop less; the sums of the addresses before and after.
#[inline(always)]
fn write_v4(frame: &mut impl Frame, ip: usize, from: Address, to: Address) -> Option<(u64, u64)> {
    let [left, protocol, c0, c1] = frame.read(ip + ipv4::TTL_AT)?;
    let was = word(frame, ip + ipv4::ADDRESSES_AT)?;
    let is = u64::from(from.v4()) | u64::from(to.v4()) << 32;
    let (old, new) = (checksum::halves(was), checksum::halves(is));
    let (ttl, less) = (u16::from_le_bytes([left, protocol]), u16::from_le_bytes([left.wrapping_sub(1), protocol]));
    let sum = checksum::replaced([c0, c1], old + u64::from(ttl), new + u64::from(less));
    let [c0, c1] = checksum::finish(sum);
    frame.write(ip + ipv4::TTL_AT, &[left.wrapping_sub(1), protocol, c0, c1])?;
    frame.write(ip + ipv4::ADDRESSES_AT, &is.to_le_bytes())?;
    Some((old, new))
}

/// The same in IPv6, whose header has no checksum.
#[inline(always)]
fn write_v6(frame: &mut impl Frame, ip: usize, from: Address, to: Address) -> Option<(u64, u64)> {
    let [left] = frame.read(ip + ipv6::HOP_LIMIT_AT)?;
    let (mut old, mut new) = (0, 0);
    for (i, is) in [from.0, from.1, to.0, to.1].into_iter().enumerate() {
        let at = ip + ipv6::ADDRESSES_AT + i * 8;
        old += checksum::halves(word(frame, at)?);
        new += checksum::halves(is);
        frame.write(at, &is.to_le_bytes())?;
    }
    frame.write(ip + ipv6::HOP_LIMIT_AT, &[left.wrapping_sub(1)])?;
    Some((old, new))
}

/// Other ports, and a checksum that says so if there was one.
#[inline(always)]
fn write_udp(frame: &mut impl Frame, at: usize, ports: u32, old: u64, new: u64) -> Option<()> {
    let was = u32::from_le_bytes(frame.read(at)?);
    frame.write(at, &ports.to_le_bytes())?;
    let checksum = frame.read(at + udp::CHECKSUM_AT)?;
    if checksum == [0, 0] {
        return Some(());
    }
    let sum = checksum::replaced(checksum, old + u64::from(was), new + u64::from(ports));
    frame.write(at + udp::CHECKSUM_AT, &checksum::finish_udp(sum))
}
