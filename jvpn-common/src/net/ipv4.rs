//! IPv4 without options.
//!
//! Owns the 20 bytes. Must never skip options: whoever finds them drops the packet.

use super::checksum;

/// Bytes of the header.
pub const LEN: usize = 20;
/// Place of the total length.
pub const LENGTH_AT: usize = 2;
/// Place of the time to live; protocol and checksum follow.
pub const TTL_AT: usize = 8;
/// Place of the source; the destination follows.
pub const ADDRESSES_AT: usize = 12;
/// Hop limit of answers, as the kernel's default.
pub const TTL: u8 = 64;

/// The header as it stands in the frame.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4(pub [u8; LEN]);

impl Ipv4 {
    /// IP version.
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    /// Bytes of the header with its options.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.0[0] & 0xf) as usize * 4
    }

    /// Bytes of header and payload.
    #[must_use]
    pub const fn total_len(&self) -> usize {
        u16::from_be_bytes([self.0[2], self.0[3]]) as usize
    }

    /// "More fragments follow."
    #[must_use]
    pub const fn more_fragments(&self) -> bool {
        self.0[6] & 0x20 != 0
    }

    /// Offset of this fragment in units of 8 bytes.
    #[must_use]
    pub const fn fragment_offset(&self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]]) & 0x1fff
    }

    /// Protocol of the payload.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.0[9]
    }

    /// Source, IPv4-mapped.
    #[must_use]
    pub const fn source(&self) -> [u8; 16] {
        let h = &self.0;
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, h[12], h[13], h[14], h[15]]
    }

    /// The header of an answer: addresses exchanged, fresh hop limit, new length and checksum.
    #[must_use]
    pub fn answer(&self, total_len: u16) -> Self {
        let h = &self.0;
        let [l0, l1] = total_len.to_be_bytes();
        let mut answer = [
            h[0], h[1], l0, l1, h[4], h[5], h[6], h[7], TTL, h[9], 0, 0, h[16], h[17], h[18], h[19], h[12], h[13],
            h[14], h[15],
        ];
        let [c0, c1] = checksum::finish(checksum::add(0, &answer));
        answer[10] = c0;
        answer[11] = c1;
        Self(answer)
    }

    /// Sum of the addresses for the checksum of what is inside.
    #[must_use]
    pub fn pseudo_sum(&self) -> u64 {
        let h = &self.0;
        checksum::add(0, &[h[12], h[13], h[14], h[15], h[16], h[17], h[18], h[19]])
    }
}
