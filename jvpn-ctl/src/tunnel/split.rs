//! One super-packet of the TUN becomes the packets it stands for.
//!
//! Owns TCP and UDP segmentation, as the kernel would do it. Must never allocate, and never make a packet
//! the kernel would not: a header that does not fit is refused whole.

use super::checksum::Sum;
use super::inner::{Inner, TCP, UDP};
use super::vnet::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, Vnet};

const FIN: u8 = 1;
const PSH: u8 = 8;
const CWR: u8 = 0x80;

/// Walks the packets a super-packet stands for.
#[derive(Debug)]
pub(super) struct Split<'a> {
    packet: &'a [u8],
    inner: Inner,
    /// Bytes of all headers.
    headers: usize,
    /// Payload of every packet but the last.
    size: usize,
    /// Payload already given out.
    done: usize,
    index: u16,
    count: u16,
    checksum: Checksum,
}

/// What happens to the transport checksum of what is given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checksum {
    /// It stands there whole already.
    Untouched,
    /// Left partial: the peer's kernel finishes it.
    Carried,
    /// Computed in full, from this place over what follows, stored at an offset in it.
    Computed { start: usize, offset: usize },
}

/// One packet that was written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its length.
    pub len: usize,
    /// Its transport checksum is partial.
    pub partial: bool,
}

impl<'a> Split<'a> {
    /// A walk over `packet`, read as `inner`; none if the virtio header does not fit it.
    pub(super) fn new(vnet: &Vnet, packet: &'a [u8], inner: Inner, carry: bool) -> Option<Self> {
        let packet = packet.get(..inner.len)?;
        let start = usize::from(vnet.csum_start);
        let offset = usize::from(vnet.csum_offset);
        let checksum = if vnet.flags & NEEDS_CSUM == 0 {
            Checksum::Untouched
        } else if start + offset + 2 > packet.len() {
            return None;
        } else if carry && start == inner.transport && inner.checksum_offset() == Some(offset) {
            Checksum::Carried
        } else {
            Checksum::Computed { start, offset }
        };
        let whole = Self { packet, inner, headers: packet.len(), size: 0, done: 0, index: 0, count: 1, checksum };
        match vnet.gso_type & !GSO_ECN {
            GSO_NONE => Some(whole),
            GSO_TCPV4 | GSO_TCPV6 | GSO_UDP_L4 => whole.segmented(vnet),
            _ => None,
        }
    }

    fn segmented(self, vnet: &Vnet) -> Option<Self> {
        let transport = self.inner.transport;
        let protocol = if vnet.gso_type & !GSO_ECN == GSO_UDP_L4 { UDP } else { TCP };
        let size = usize::from(vnet.gso_size);
        if self.inner.protocol != protocol || self.checksum == Checksum::Untouched || size == 0 {
            return None;
        }
        if usize::from(vnet.csum_start) != transport || self.inner.checksum_offset()? != usize::from(vnet.csum_offset) {
            return None;
        }
        let headers = match protocol {
            TCP => transport + usize::from(self.packet.get(transport + 12)? >> 4) * 4,
            _ => transport + 8,
        };
        if headers < transport + 8 || (protocol == TCP && headers < transport + 20) || headers > self.packet.len() {
            return None;
        }
        let payload = self.packet.len() - headers;
        let count = u16::try_from(payload.div_ceil(size).max(1)).ok()?;
        Some(Self { headers, size, count, ..self })
    }

    /// How many packets there are.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Length of the largest of them.
    pub(super) fn largest(&self) -> usize {
        self.packet.len().min(self.headers + self.size)
    }

    /// Length of the next one; none at the end.
    pub(super) fn next_len(&self) -> Option<usize> {
        (self.index < self.count).then(|| self.headers + self.size.min(self.packet.len() - self.headers - self.done))
    }

    /// Writes the next packet to the start of `out`, which holds at least its length.
    pub(super) fn next_into(&mut self, out: &mut [u8]) -> Option<Piece> {
        let len = self.next_len()?;
        let out = out.get_mut(..len)?;
        let (head, body) = out.split_at_mut_checked(self.headers)?;
        head.copy_from_slice(self.packet.get(..self.headers)?);
        let from = self.headers + self.done;
        body.copy_from_slice(self.packet.get(from..from + body.len())?);
        if self.size > 0 {
            self.rewrite(out, len)?;
        }
        match self.checksum {
            Checksum::Untouched | Checksum::Carried => {}
            Checksum::Computed { start, offset } => complete(out, start, offset)?,
        }
        self.done += len - self.headers;
        self.index += 1;
        Some(Piece { len, partial: self.checksum == Checksum::Carried })
    }

    /// Makes copied headers those of segment `index`: lengths, identification, sequence, flags, partial sum.
    fn rewrite(&self, out: &mut [u8], len: usize) -> Option<()> {
        let transport = self.inner.transport;
        if self.inner.is_v6() {
            out.get_mut(4..6)?.copy_from_slice(&((len - 40) as u16).to_be_bytes());
        } else {
            let head = out.get_mut(..transport)?;
            let id = u16::from_be_bytes(*head.get(4..6)?.first_chunk()?).wrapping_add(self.index);
            head.get_mut(2..4)?.copy_from_slice(&(len as u16).to_be_bytes());
            head.get_mut(4..6)?.copy_from_slice(&id.to_be_bytes());
            seal_v4_header(head)?;
        }
        let pseudo = self.inner.pseudo(self.packet, len - transport).partial();
        let head = out.get_mut(transport..)?;
        if self.inner.protocol == UDP {
            head.get_mut(4..6)?.copy_from_slice(&((len - transport) as u16).to_be_bytes());
            head.get_mut(6..8)?.copy_from_slice(&pseudo);
            return Some(());
        }
        let sequence = u32::from_be_bytes(*head.get(4..8)?.first_chunk()?).wrapping_add(self.done as u32);
        head.get_mut(4..8)?.copy_from_slice(&sequence.to_be_bytes());
        let flags = head.get_mut(13)?;
        if self.index + 1 < self.count {
            *flags &= !(FIN | PSH);
        }
        if self.index > 0 {
            *flags &= !CWR;
        }
        head.get_mut(16..18)?.copy_from_slice(&pseudo);
        Some(())
    }
}

/// Computes the header checksum of an IPv4 header.
pub(super) fn seal_v4_header(head: &mut [u8]) -> Option<()> {
    head.get_mut(10..12)?.fill(0);
    let sum = Sum::default().bytes(head).finish();
    head.get_mut(10..12)?.copy_from_slice(&sum);
    Some(())
}

/// Turns a partial checksum, which stands in its own field, into a whole one.
pub(super) fn complete(packet: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let part = packet.get_mut(start..)?;
    // The field holds the pseudo-header's sum, so summing it in place of a zero adds exactly that.
    let sum = match Sum::default().bytes(part).finish() {
        // A UDP checksum of zero means "none"; both are the same number in one's complement.
        [0, 0] => [0xff, 0xff],
        sum => sum,
    };
    part.get_mut(offset..offset + 2)?.copy_from_slice(&sum);
    Some(())
}
