//! The one header of every datagram of a session.
//!
//! ```text
//!  0      1       2        4              8                16               24
//! ┌──────┬───────┬────────┬──────────────┬────────────────┬────────────────┬───────────────
//! │ type │ epoch │ flags  │ steering tag │ locator        │ counter        │ ciphertext, tag
//! └──────┴───────┴────────┴──────────────┴────────────────┴────────────────┴───────────────
//! ```
//!
//! Owns the 24 bytes (little-endian) and the type byte. Must never decide whether a tag is right.

use crate::limits::HEADER_LEN;

/// First byte of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Handshake message 1, client to gateway.
    Initiation = 1,
    /// Handshake message 2, gateway to client.
    Response = 2,
    /// Cookie reply, gateway to client.
    CookieReply = 3,
    /// Sealed inner packet.
    Data = 4,
    /// Sealed control message.
    Control = 5,
    /// Probe, client to gateway.
    Probe = 6,
    /// Its echo.
    Echo = 7,
    /// "This source is not bound."
    Notice = 8,
}

impl Kind {
    /// The type of a datagram, if this version knows it.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Initiation,
            2 => Self::Response,
            3 => Self::CookieReply,
            4 => Self::Data,
            5 => Self::Control,
            6 => Self::Probe,
            7 => Self::Echo,
            8 => Self::Notice,
            _ => return None,
        })
    }
}

/// Flag: from the gateway to the client.
pub const FLAG_DOWN: u16 = 1;
/// Flag: the inner packet's transport checksum is partial; the receiver's kernel finishes it.
pub const FLAG_PARTIAL_CHECKSUM: u16 = 2;
/// Flags that must be zero in this version.
pub const FLAGS_RESERVED: u16 = !(FLAG_DOWN | FLAG_PARTIAL_CHECKSUM);

/// Where the locator begins; its low byte comes first and names the gateway's worker.
pub const LOCATOR_AT: usize = 8;

/// The header, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Type byte; one of data, control, probe, echo, notice.
    pub kind: u8,
    /// Epoch modulo 256.
    pub epoch: u8,
    /// `FLAG_…`.
    pub flags: u16,
    /// Steering tag.
    pub tag: u32,
    /// Locator.
    pub locator: u64,
    /// Counter of this transport.
    pub counter: u64,
}

impl Header {
    /// Reads the 24 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Self {
        let [kind, epoch, f0, f1, t0, t1, t2, t3, l0, l1, l2, l3, l4, l5, l6, l7, c0, c1, c2, c3, c4, c5, c6, c7] =
            *bytes;
        Self {
            kind,
            epoch,
            flags: u16::from_le_bytes([f0, f1]),
            tag: u32::from_le_bytes([t0, t1, t2, t3]),
            locator: u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]),
            counter: u64::from_le_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
        }
    }

    /// Writes the 24 bytes.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let [f0, f1] = self.flags.to_le_bytes();
        let [t0, t1, t2, t3] = self.tag.to_le_bytes();
        let [l0, l1, l2, l3, l4, l5, l6, l7] = self.locator.to_le_bytes();
        let [c0, c1, c2, c3, c4, c5, c6, c7] = self.counter.to_le_bytes();
        [self.kind, self.epoch, f0, f1, t0, t1, t2, t3, l0, l1, l2, l3, l4, l5, l6, l7, c0, c1, c2, c3, c4, c5, c6, c7]
    }

    /// The header a datagram begins with, if it is long enough.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = datagram.split_first_chunk::<HEADER_LEN>()?;
        Some((Self::from_bytes(head), rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_what_it_wrote() {
        let header = Header { kind: 4, epoch: 9, flags: 3, tag: 0x0102_0304, locator: !7, counter: 1 << 40 };
        assert_eq!(Header::from_bytes(&header.to_bytes()), header);
        assert!(Header::parse(&header.to_bytes()[..23]).is_none());
        let datagram = [header.to_bytes().as_slice(), &[9]].concat();
        assert_eq!(Header::parse(&datagram), Some((header, [9].as_slice())));
    }

    #[test]
    fn every_type_byte_but_eight_is_unknown() {
        let known = (0..=255).filter(|&byte| Kind::from_byte(byte).is_some_and(|kind| kind as u8 == byte));
        assert_eq!(known.count(), 8);
    }
}
