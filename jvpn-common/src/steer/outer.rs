//! From a frame's first byte to the datagram for our port, and back for an answer.
//!
//! Owns the outer headers' way: Ethernet, at most one tag, IPv4 without options or IPv6 without extensions,
//! UDP. Must never drop what is not for our port, and never answer a group.

use super::{Frame, Source};
use crate::net::{checksum, ethernet, ethernet::Ethernet, ipv4, ipv4::Ipv4, ipv6, ipv6::Ipv6, udp, udp::Udp};
use crate::verdict::Verdict;

/// Where things stand in a frame that is for our port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer {
    /// Offset of the IP header.
    pub ip: usize,
    /// Whether that is IPv6.
    pub v6: bool,
    /// Offset of the datagram's payload.
    pub payload: usize,
    /// Bytes of the payload.
    pub len: usize,
    /// Where it came from.
    pub source: Source,
}

/// Finds the datagram for `port` in a frame, or says what else the frame is.
#[inline(always)]
pub(super) fn parse(frame: &impl Frame, port: u16) -> Result<Outer, Verdict> {
    let head = Ethernet(frame.read(0).ok_or(Verdict::Foreign)?);
    if head.is_group() {
        return Err(Verdict::Foreign);
    }
    let (ip, ethertype) = match head.ethertype() {
        ethernet::TYPE_VLAN => {
            let [a, b] = frame.read::<2>(ethernet::LEN + 2).ok_or(Verdict::Foreign)?;
            (ethernet::LEN + ethernet::TAG_LEN, u16::from_be_bytes([a, b]))
        }
        other => (ethernet::LEN, other),
    };
    match ethertype {
        ethernet::TYPE_IPV4 => parse_v4(frame, ip, port),
        ethernet::TYPE_IPV6 => parse_v6(frame, ip, port),
        _ => Err(Verdict::Foreign),
    }
}

/// `verdict` if the UDP header at `at` is for our port, else foreign.
#[inline(always)]
fn if_ours(frame: &impl Frame, at: usize, port: u16, verdict: Verdict) -> Verdict {
    match frame.read(at) {
        Some(bytes) if Udp(bytes).destination() == port => verdict,
        _ => Verdict::Foreign,
    }
}

#[inline(always)]
fn parse_v4(frame: &impl Frame, ip: usize, port: u16) -> Result<Outer, Verdict> {
    let head = Ipv4(frame.read(ip).ok_or(Verdict::Foreign)?);
    if head.version() != 4 || head.protocol() != udp::PROTOCOL || head.header_len() < ipv4::LEN {
        return Err(Verdict::Foreign);
    }
    // The ports are in the first fragment only; without it the others are never reassembled.
    if head.fragment_offset() != 0 {
        return Err(Verdict::Foreign);
    }
    if head.header_len() > ipv4::LEN {
        return Err(if_ours(frame, ip + head.header_len(), port, Verdict::IpOptions));
    }
    if head.more_fragments() {
        return Err(if_ours(frame, ip + ipv4::LEN, port, Verdict::Fragment));
    }
    let inside = head.total_len().checked_sub(ipv4::LEN);
    parse_udp(frame, &Place { ip, v6: false, udp: ip + ipv4::LEN, inside, address: head.source() }, port)
}

#[inline(always)]
fn parse_v6(frame: &impl Frame, ip: usize, port: u16) -> Result<Outer, Verdict> {
    let head = Ipv6(frame.read(ip).ok_or(Verdict::Foreign)?);
    if head.version() != 6 {
        return Err(Verdict::Foreign);
    }
    if head.next_header() != udp::PROTOCOL {
        return Err(behind_extensions(frame, ip + ipv6::LEN, head.next_header(), port));
    }
    let inside = Some(head.payload_len());
    parse_udp(frame, &Place { ip, v6: true, udp: ip + ipv6::LEN, inside, address: head.source() }, port)
}

/// Whether our port stands behind extension headers, and which kind.
#[inline(always)]
fn behind_extensions(frame: &impl Frame, mut at: usize, mut next: u8, port: u16) -> Verdict {
    let mut step = 0;
    while step < ipv6::EXTENSIONS_MAX {
        if next == ipv6::FRAGMENT {
            let Some([inner, _, high, low]) = frame.read::<4>(at) else {
                return Verdict::Foreign;
            };
            let first = u16::from_be_bytes([high, low]) >> 3 == 0;
            return if first && inner == udp::PROTOCOL {
                if_ours(frame, at + 8, port, Verdict::Fragment)
            } else {
                Verdict::Foreign
            };
        }
        if !ipv6::is_extension(next) {
            break;
        }
        let Some([inner, units]) = frame.read::<2>(at) else {
            return Verdict::Foreign;
        };
        at += (units as usize + 1) * 8;
        next = inner;
        step += 1;
    }
    if next == udp::PROTOCOL { if_ours(frame, at, port, Verdict::ExtensionHeader) } else { Verdict::Foreign }
}

struct Place {
    ip: usize,
    v6: bool,
    udp: usize,
    /// Bytes behind the IP header as it says itself.
    inside: Option<usize>,
    address: [u8; 16],
}

#[inline(always)]
fn parse_udp(frame: &impl Frame, place: &Place, port: u16) -> Result<Outer, Verdict> {
    let head = Udp(frame.read(place.udp).ok_or(Verdict::Foreign)?);
    if head.destination() != port {
        return Err(Verdict::Foreign);
    }
    let inside = place.inside.ok_or(Verdict::BadLength)?;
    let len = head.len().checked_sub(udp::LEN).ok_or(Verdict::BadLength)?;
    if head.len() > inside || place.udp + inside > frame.len() {
        return Err(Verdict::BadLength);
    }
    let source = Source { address: place.address, port: head.source() };
    Ok(Outer { ip: place.ip, v6: place.v6, payload: place.udp + udp::LEN, len, source })
}

/// Turns the frame round: its payload, `len` bytes long by now, goes back to where it came from.
#[inline(always)]
pub(super) fn turn(frame: &mut impl Frame, outer: &Outer, len: usize) -> Option<()> {
    // A frame that carries more than its datagram (Ethernet padding) need not keep it.
    frame.shorten(outer.payload + len)?;
    let sum = checksum::add_frame(0, frame, outer.payload, len)?;
    let ethernet = Ethernet(frame.read(0)?).swapped();
    frame.write(0, &ethernet)?;
    let udp_at = outer.payload - udp::LEN;
    let udp_len = (len + udp::LEN) as u16;
    let pseudo = if outer.v6 {
        let answer = Ipv6(frame.read(outer.ip)?).answer(udp_len);
        frame.write(outer.ip, &answer.0)?;
        answer.pseudo_sum()
    } else {
        let answer = Ipv4(frame.read(outer.ip)?).answer(udp_len + ipv4::LEN as u16);
        frame.write(outer.ip, &answer.0)?;
        answer.pseudo_sum()
    };
    let mut head = Udp(frame.read(udp_at)?).answer(udp_len);
    let length_and_protocol = u64::from((udp_len).to_be()) + u64::from(u16::from(udp::PROTOCOL).to_be());
    let [c0, c1] = checksum::finish_udp(checksum::add(sum + pseudo + length_and_protocol, &head.0));
    head.0[6] = c0;
    head.0[7] = c1;
    frame.write(udp_at, &head.0)
}
