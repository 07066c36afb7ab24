//! The inner packet: what of it must be sane before it is sealed or believed.
//!
//! Owns the one reading of inner headers. Must never keep references into a packet, nor trust a length
//! that a peer wrote without comparing it with what arrived.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::{self, Sum};

/// Protocol numbers.
pub(super) const TCP: u8 = 6;
/// See [`TCP`].
pub(super) const UDP: u8 = 17;

/// Largest inner packet, and so the largest super-packet of the TUN.
pub const INNER_MAX: usize = 65_535;

/// What was read of an inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol (IPv4) or next header (IPv6; extension headers are not walked).
    pub protocol: u8,
    /// Where the transport header begins.
    pub transport: usize,
    /// Length by its own header; what follows is not part of it.
    pub len: usize,
    /// A part of a datagram: ports stand in the first one only.
    pub fragment: bool,
}

impl Inner {
    /// Reads the headers of a packet; none if they are not sane.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet),
            6 => Self::parse_v6(packet),
            _ => None,
        }
    }

    fn parse_v4(packet: &[u8]) -> Option<Self> {
        let head = packet.first_chunk::<20>()?;
        let transport = usize::from(head[0] & 0xf) * 4;
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if transport < 20 || len < transport || len > packet.len() {
            return None;
        }
        let [_, _, _, _, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *head;
        Some(Self {
            source: Ipv4Addr::new(s0, s1, s2, s3).into(),
            destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
            protocol,
            transport,
            len,
            fragment: u16::from_be_bytes([f0, f1]) & 0x3fff != 0,
        })
    }

    fn parse_v6(packet: &[u8]) -> Option<Self> {
        let (head, _) = packet.split_first_chunk::<40>()?;
        let len = 40 + usize::from(u16::from_be_bytes([head[4], head[5]]));
        if len > packet.len() {
            return None;
        }
        let source: [u8; 16] = head[8..24].try_into().ok()?;
        let destination: [u8; 16] = head[24..40].try_into().ok()?;
        Some(Self {
            source: Ipv6Addr::from(source).into(),
            destination: Ipv6Addr::from(destination).into(),
            protocol: head[6],
            transport: 40,
            len,
            fragment: head[6] == 44,
        })
    }

    /// Whether the packet never leaves its link, so that no tunnel carries it: no source yet, link-local addresses,
    /// groups of one link, the limited broadcast.
    pub(super) fn is_of_the_link(&self) -> bool {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(to)) => {
                source.is_unspecified()
                    || source.is_link_local()
                    || to.is_link_local()
                    || to.is_broadcast()
                    || matches!(to.octets(), [224, 0, 0, _])
            }
            (IpAddr::V6(source), IpAddr::V6(to)) => {
                let [first, second, ..] = to.octets();
                source.is_unspecified()
                    || source.is_unicast_link_local()
                    || to.is_unicast_link_local()
                    || (first == 0xff && second & 0xf <= 2)
            }
            _ => false,
        }
    }

    /// Whether the packet is IPv6.
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.source.is_ipv6()
    }

    /// Where the checksum stands in the transport header, if it is a whole TCP segment or UDP datagram.
    pub(super) fn checksum_offset(&self) -> Option<usize> {
        match self.protocol {
            _ if self.fragment => None,
            TCP if self.len >= self.transport + 20 => Some(16),
            UDP if self.len >= self.transport + 8 => Some(6),
            _ => None,
        }
    }

    /// The bytes of both addresses.
    pub(super) fn addresses<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        let range = if self.is_v6() { 8..40 } else { 12..20 };
        packet.get(range).unwrap_or(&[])
    }

    /// Sum of the pseudo-header with a transport length of `len`.
    pub(super) fn pseudo(&self, packet: &[u8], len: usize) -> Sum {
        checksum::pseudo(self.addresses(packet), self.protocol).number(len as u16)
    }

    /// Whether the transport checksum is right (or absent, as UDP over IPv4 allows). None: it has none we know.
    pub(super) fn checksum_intact(&self, packet: &[u8]) -> Option<bool> {
        let offset = self.checksum_offset()?;
        let transport = packet.get(self.transport..self.len)?;
        if self.protocol == UDP && transport.get(offset..offset + 2)? == [0, 0] {
            return Some(!self.is_v6());
        }
        Some(self.pseudo(packet, transport.len()).bytes(transport).is_intact())
    }
}

/// Lowers the MSS a SYN offers to what `mtu` carries, checksum included unless it is `partial`. Whoever
/// offered more would be sent segments that fit no datagram of ours.
pub(super) fn clamp_mss(packet: &mut [u8], inner: &Inner, mtu: u16, partial: bool) {
    const SYN: u8 = 2;
    if inner.protocol != TCP || inner.checksum_offset().is_none() {
        return;
    }
    let Some(tcp) = packet.get_mut(inner.transport..inner.len) else { return };
    if tcp.get(13).is_none_or(|flags| flags & SYN == 0) {
        return;
    }
    let limit = mtu - if inner.is_v6() { 60 } else { 40 };
    let end = tcp.len().min(usize::from(tcp.get(12).copied().unwrap_or(0) >> 4) * 4);
    let Some(at) = mss_at(tcp.get(..end).unwrap_or(&[])) else { return };
    let Some(&[o0, o1]) = tcp.get(at..at + 2).and_then(|b| b.first_chunk::<2>()) else { return };
    if u16::from_be_bytes([o0, o1]) <= limit {
        return;
    }
    let new = limit.to_be_bytes();
    if let Some(field) = tcp.get_mut(at..at + 2) {
        field.copy_from_slice(&new);
    }
    if partial {
        return;
    }
    // The option may stand at an odd offset: then its bytes are the halves of two words, which RFC 1624
    // sums just as well once both values are swapped.
    let (old, new) = if at % 2 == 0 { ([o0, o1], new) } else { ([o1, o0], [new[1], new[0]]) };
    if let Some(field) = tcp.get_mut(16..18).and_then(|b| b.first_chunk_mut::<2>()) {
        *field = checksum::updated(*field, old, new);
    }
}

/// Where the value of the MSS option stands in a TCP header.
fn mss_at(header: &[u8]) -> Option<usize> {
    let mut at = 20;
    loop {
        match *header.get(at)? {
            0 => return None,
            1 => at += 1,
            2 if *header.get(at + 1)? == 4 => return (at + 4 <= header.len()).then_some(at + 2),
            _ => at += usize::from(*header.get(at + 1)?).max(2),
        }
    }
}
