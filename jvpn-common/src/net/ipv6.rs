//! IPv6 and the extension headers one may meet in front of UDP.
//!
//! Owns the 40 bytes and the walk's vocabulary. Must never deliver what stands behind an extension header.

use super::checksum;

/// Bytes of the header.
pub const LEN: usize = 40;
/// Place of the payload length.
pub const LENGTH_AT: usize = 4;
/// Place of the hop limit.
pub const HOP_LIMIT_AT: usize = 7;
/// Place of the source; the destination follows.
pub const ADDRESSES_AT: usize = 8;
/// Hop limit of answers, as the kernel's default.
pub const HOP_LIMIT: u8 = 64;
/// Next header: fragment.
pub const FRAGMENT: u8 = 44;
/// Extension headers looked behind for our port. More are not ours to count: the worker refuses what comes.
pub const EXTENSIONS_MAX: usize = 4;

/// Whether this is a header of the common shape (next header, length in units of 8 bytes minus one).
#[must_use]
pub const fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | 60)
}

/// The header as it stands in the frame.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6(pub [u8; LEN]);

impl Ipv6 {
    /// IP version.
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    /// Bytes behind the header.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        u16::from_be_bytes([self.0[4], self.0[5]]) as usize
    }

    /// What follows.
    #[must_use]
    pub const fn next_header(&self) -> u8 {
        self.0[6]
    }

    /// Source.
    #[must_use]
    pub const fn source(&self) -> [u8; 16] {
        let h = &self.0;
        [h[8], h[9], h[10], h[11], h[12], h[13], h[14], h[15], h[16], h[17], h[18], h[19], h[20], h[21], h[22], h[23]]
    }

    /// The header of an answer: addresses exchanged, fresh hop limit, new length.
    #[must_use]
    pub const fn answer(&self, payload_len: u16) -> Self {
        let h = &self.0;
        let [l0, l1] = payload_len.to_be_bytes();
        Self([
            h[0], h[1], h[2], h[3], l0, l1, h[6], HOP_LIMIT, h[24], h[25], h[26], h[27], h[28], h[29], h[30], h[31],
            h[32], h[33], h[34], h[35], h[36], h[37], h[38], h[39], h[8], h[9], h[10], h[11], h[12], h[13], h[14],
            h[15], h[16], h[17], h[18], h[19], h[20], h[21], h[22], h[23],
        ])
    }

    /// Sum of the addresses for the checksum of what is inside.
    #[must_use]
    pub fn pseudo_sum(&self) -> u64 {
        let h = &self.0;
        checksum::add(
            0,
            &[
                h[8], h[9], h[10], h[11], h[12], h[13], h[14], h[15], h[16], h[17], h[18], h[19], h[20], h[21], h[22],
                h[23], h[24], h[25], h[26], h[27], h[28], h[29], h[30], h[31], h[32], h[33], h[34], h[35], h[36],
                h[37], h[38], h[39],
            ],
        )
    }
}
