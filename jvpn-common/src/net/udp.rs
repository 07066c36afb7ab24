//! The UDP header (RFC 768).
//!
//! Owns the 8 bytes. Must never turn a checksum into zero: IPv6 forbids it, and in IPv4 it switches GRO off.

/// Bytes of the header.
pub const LEN: usize = 8;
/// Place of the checksum.
pub const CHECKSUM_AT: usize = 6;
/// Protocol number.
pub const PROTOCOL: u8 = 17;

/// The header as it stands in the frame.
#[derive(Clone, Copy, Debug)]
pub struct Udp(pub [u8; LEN]);

impl Udp {
    /// Source port.
    #[must_use]
    pub const fn source(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// Destination port.
    #[must_use]
    pub const fn destination(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// Bytes of header and payload.
    #[must_use]
    pub const fn len(&self) -> usize {
        u16::from_be_bytes([self.0[4], self.0[5]]) as usize
    }

    /// Whether not even the header fits the length.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() <= LEN
    }

    /// The header of an answer with its checksum still zero.
    #[must_use]
    pub const fn answer(&self, len: u16) -> Self {
        let h = &self.0;
        let [l0, l1] = len.to_be_bytes();
        Self([h[2], h[3], h[0], h[1], l0, l1, 0, 0])
    }
}
