//! Packets of one flow that follow each other become one write to the TUN.
//!
//! Owns the open group and the rules that close it: those of the kernel's own GRO, so that no receiver can
//! tell. Must never merge a packet whose checksum nobody vouched for, nor change the order of packets.

use std::io::{self, IoSlice};

use super::inner::{INNER_MAX, Inner, TCP, UDP};
use super::split::seal_v4_header;
use super::vnet::{DATA_VALID, GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VNET_LEN, Vnet};

/// Packets in one write; more segments than this the kernel refuses for UDP.
const PARTS_MAX: usize = 64;
/// Bytes of the longest headers that are merged: IPv6 and TCP with all options.
const HEADERS_MAX: usize = 40 + 60;

const FIN: u8 = 1;
const PSH: u8 = 8;
const ACK: u8 = 16;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

/// Where super-packets go: the TUN, or a test.
pub(super) trait Sink {
    /// Writes one virtio header and the packet behind it.
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()>;
    /// A merged write was refused and is repeated packet by packet.
    fn fell_back(&mut self);
    /// A packet was refused for good.
    fn dropped(&mut self);
}

/// One packet in the receive buffer.
#[derive(Clone, Copy, Debug)]
struct Part {
    at: usize,
    len: usize,
}

/// How the checksums of a group stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vouched {
    /// Partial, carried by the peer under its seal.
    Carried,
    /// Whole, and verified here.
    Verified,
    /// Nobody looked: the receiver's kernel will.
    No,
}

/// The open group.
#[derive(Debug)]
pub(super) struct Coalescer {
    parts: Vec<Part>,
    first: Option<Inner>,
    /// Headers of the first packet, up to the payload.
    headers: usize,
    /// Payload of the first packet, and of all but the last.
    size: usize,
    vouched: Vouched,
    total: usize,
    saved: [u8; HEADERS_MAX],
}

impl Default for Coalescer {
    fn default() -> Self {
        Self {
            parts: Vec::with_capacity(PARTS_MAX),
            first: None,
            headers: 0,
            size: 0,
            vouched: Vouched::No,
            total: 0,
            saved: [0; HEADERS_MAX],
        }
    }
}

impl Coalescer {
    /// Whether no packet waits in the buffer to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Adds the packet at `at`, or writes the group and starts one with it. A group that nothing can join is written at once.
    pub(super) fn push(&mut self, buffer: &mut [u8], at: usize, inner: Inner, partial: bool, sink: &mut impl Sink) {
        let Some(packet) = buffer.get(at..at + inner.len) else { return };
        let candidate = Candidate::of(packet, inner, partial);
        if let Some(candidate) = &candidate
            && self.follows(buffer, packet, &inner, candidate)
        {
            self.parts.push(Part { at, len: inner.len });
            self.total += candidate.payload;
            let closed = candidate.last || candidate.payload < self.size;
            return self.flush_full(closed, buffer, sink);
        }
        self.flush(buffer, sink);
        self.parts.push(Part { at, len: inner.len });
        self.first = Some(inner);
        self.total = inner.len;
        let closed = candidate.as_ref().is_none_or(|candidate| candidate.last);
        self.vouched = if partial { Vouched::Carried } else { Vouched::No };
        if let Some(candidate) = candidate {
            self.vouched = candidate.vouched;
            (self.headers, self.size) = (candidate.headers, candidate.payload);
        }
        self.flush_full(closed, buffer, sink);
    }

    /// Writes the group if nothing can join it; `closed`: nothing may follow its last packet.
    fn flush_full(&mut self, closed: bool, buffer: &mut [u8], sink: &mut impl Sink) {
        if closed || self.parts.len() >= PARTS_MAX || self.total + self.size > INNER_MAX {
            self.flush(buffer, sink);
        }
    }

    /// Whether `packet` continues the group.
    fn follows(&self, buffer: &[u8], packet: &[u8], inner: &Inner, next: &Candidate) -> bool {
        let (Some(first), Some(&part)) = (&self.first, self.parts.first()) else { return false };
        if self.total + next.payload > INNER_MAX
            || (self.headers, self.vouched) != (next.headers, next.vouched)
            || next.payload > self.size
            || first.protocol != inner.protocol
            || !next.may_follow
        {
            return false;
        }
        let Some(head) = buffer.get(part.at..part.at + self.headers) else { return false };
        let count = self.parts.len();
        same_network(head, packet, first, count) && same_transport(head, packet, first, self.total - first.len)
    }

    /// Writes the group.
    pub(super) fn flush(&mut self, buffer: &mut [u8], sink: &mut impl Sink) {
        if let Some(first) = self.first.take()
            && self.write(buffer, &first, sink).is_none()
        {
            sink.dropped();
        }
        self.parts.clear();
    }

    fn write(&mut self, buffer: &mut [u8], first: &Inner, sink: &mut impl Sink) -> Option<()> {
        let &[lead, .., last] = self.parts.as_slice() else {
            let part = self.parts.first()?;
            return one(buffer.get(part.at..part.at + part.len)?, first, self.vouched, sink);
        };
        self.saved.get_mut(..self.headers)?.copy_from_slice(buffer.get(lead.at..lead.at + self.headers)?);
        let tail_flags = buffer.get(last.at + first.transport + 13).copied().unwrap_or(0);
        let vnet = self.merge_headers(buffer.get_mut(lead.at..lead.at + self.headers)?, first, tail_flags)?.to_bytes();

        let mut slices = [IoSlice::new(&[]); PARTS_MAX + 1];
        *slices.first_mut()? = IoSlice::new(&vnet);
        for (index, (slice, part)) in slices.iter_mut().skip(1).zip(&self.parts).enumerate() {
            let skip = if index == 0 { 0 } else { self.headers };
            *slice = IoSlice::new(buffer.get(part.at + skip..part.at + part.len)?);
        }
        if sink.write(slices.get(..=self.parts.len())?).is_ok() {
            return Some(());
        }
        // The kernel refused the merged packet: it gets what arrived, packet by packet.
        sink.fell_back();
        buffer.get_mut(lead.at..lead.at + self.headers)?.copy_from_slice(self.saved.get(..self.headers)?);
        for part in &self.parts {
            let packet = buffer.get(part.at..part.at + part.len)?;
            if one(packet, &Inner { len: part.len, ..*first }, self.vouched, sink).is_none() {
                sink.dropped();
            }
        }
        Some(())
    }

    /// Makes the first packet's headers those of the whole.
    fn merge_headers(&self, head: &mut [u8], first: &Inner, tail_flags: u8) -> Option<Vnet> {
        let transport = first.transport;
        let length = self.total - transport;
        if first.is_v6() {
            head.get_mut(4..6)?.copy_from_slice(&((self.total - 40) as u16).to_be_bytes());
        } else {
            let network = head.get_mut(..transport)?;
            network.get_mut(2..4)?.copy_from_slice(&(self.total as u16).to_be_bytes());
            seal_v4_header(network)?;
        }
        let pseudo = first.pseudo(head, length).partial();
        let offset = first.checksum_offset()?;
        head.get_mut(transport + offset..transport + offset + 2)?.copy_from_slice(&pseudo);
        let gso_type = if first.protocol == UDP {
            head.get_mut(transport + 4..transport + 6)?.copy_from_slice(&(length as u16).to_be_bytes());
            GSO_UDP_L4
        } else {
            let flags = head.get_mut(transport + 13)?;
            *flags |= tail_flags & (FIN | PSH);
            let ecn = if *flags & CWR == 0 { 0 } else { GSO_ECN };
            ecn | if first.is_v6() { GSO_TCPV6 } else { GSO_TCPV4 }
        };
        Some(Vnet {
            flags: NEEDS_CSUM,
            gso_type,
            hdr_len: self.headers as u16,
            gso_size: self.size as u16,
            csum_start: transport as u16,
            csum_offset: offset as u16,
        })
    }
}

/// Writes one packet as it is.
fn one(packet: &[u8], inner: &Inner, vouched: Vouched, sink: &mut impl Sink) -> Option<()> {
    let vnet = match (vouched, inner.checksum_offset()) {
        (Vouched::Carried, Some(offset)) => Vnet {
            flags: NEEDS_CSUM,
            csum_start: inner.transport as u16,
            csum_offset: offset as u16,
            ..Vnet::default()
        },
        (Vouched::Verified, _) => Vnet { flags: DATA_VALID, ..Vnet::default() },
        _ => Vnet::default(),
    };
    let head: [u8; VNET_LEN] = vnet.to_bytes();
    sink.write(&[IoSlice::new(&head), IoSlice::new(packet)]).ok()
}

/// A packet that could be part of a group.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    headers: usize,
    payload: usize,
    vouched: Vouched,
    /// Nothing may follow it.
    last: bool,
    /// It may be other than the first.
    may_follow: bool,
}

impl Candidate {
    fn of(packet: &[u8], inner: Inner, partial: bool) -> Option<Self> {
        inner.checksum_offset()?;
        if !inner.is_v6() && inner.transport != 20 {
            return None;
        }
        let transport = packet.get(inner.transport..)?;
        let (headers, last, may_follow) = if inner.protocol == TCP {
            let flags = *transport.get(13)?;
            if flags & ACK == 0 || flags & !(FIN | PSH | ACK | ECE | CWR) != 0 {
                return None;
            }
            let header = usize::from(*transport.get(12)? >> 4) * 4;
            if header < 20 {
                return None;
            }
            (inner.transport + header, flags & (FIN | PSH) != 0, flags & CWR == 0)
        } else {
            // A datagram whose own length is another one, or without checksum, is passed on as it is.
            let length = usize::from(u16::from_be_bytes(*transport.get(4..6)?.first_chunk()?));
            if length != transport.len() || transport.get(6..8)? == [0, 0] {
                return None;
            }
            (inner.transport + 8, false, true)
        };
        let payload = inner.len.checked_sub(headers).filter(|&payload| payload > 0)?;
        let vouched = if partial {
            Vouched::Carried
        } else if inner.checksum_intact(packet) == Some(true) {
            Vouched::Verified
        } else {
            return None;
        };
        Some(Self { headers, payload, vouched, last, may_follow })
    }
}

/// Whether network headers are those of one flow, `count` packets apart.
fn same_network(head: &[u8], packet: &[u8], first: &Inner, count: usize) -> bool {
    let same = |range: std::ops::Range<usize>| head.get(range.clone()) == packet.get(range);
    if first.is_v6() {
        return same(0..4) && same(6..40);
    }
    let id = |bytes: &[u8]| bytes.get(4..6).and_then(|id| id.first_chunk()).map(|id| u16::from_be_bytes(*id));
    let (Some(a), Some(b)) = (id(head), id(packet)) else { return false };
    // Systems that set DF on every packet may leave the identification alone (RFC 6864).
    let fixed = head.get(6).is_some_and(|flags| flags & 0x40 != 0) && a == b;
    same(0..2) && same(6..10) && same(12..20) && (fixed || b == a.wrapping_add(count as u16))
}

/// Whether transport headers are those of one flow, `sent` payload bytes beyond the first packet apart.
fn same_transport(head: &[u8], packet: &[u8], first: &Inner, sent: usize) -> bool {
    let (Some(a), Some(b)) = (head.get(first.transport..), packet.get(first.transport..)) else { return false };
    let same = |range: std::ops::Range<usize>| a.get(range.clone()) == b.get(range);
    if !same(0..4) {
        return false;
    }
    if first.protocol == UDP {
        return true;
    }
    let sequence = |tcp: &[u8]| tcp.get(4..8).and_then(|n| n.first_chunk()).map(|n| u32::from_be_bytes(*n));
    let (Some(x), Some(y)) = (sequence(a), sequence(b)) else { return false };
    let flags = |tcp: &[u8]| tcp.get(13).map(|flags| flags & !(FIN | PSH | CWR));
    let first_payload = first.len - head.len();
    y == x.wrapping_add((sent + first_payload) as u32)
        && same(8..13)
        && flags(a) == flags(b)
        && same(14..16)
        && same(18..head.len() - first.transport)
}
