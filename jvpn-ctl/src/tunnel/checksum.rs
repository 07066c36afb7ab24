//! Internet checksums of inner packets (RFC 1071, RFC 1624).
//!
//! Owns the sums. They are kept in the machine's byte order: one's complement addition does not care, as
//! long as the result is stored the way it was read. Must never be asked for a piece of odd length that
//! another piece follows.

/// A running one's complement sum.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds bytes, the last one padded with a zero if their number is odd.
    #[must_use]
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        // Four lanes of 32-bit words in 64-bit sums: they cannot overflow below 4 GiB, and vectorise.
        let mut lanes = [0u64; 4];
        let (blocks, rest) = bytes.as_chunks::<16>();
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let mut sum = fold64(self.0) + lanes.into_iter().map(fold64).sum::<u64>();
        let (pairs, odd) = rest.as_chunks::<2>();
        for pair in pairs {
            sum += u64::from(u16::from_ne_bytes(*pair));
        }
        if let Some(&last) = odd.first() {
            sum += u64::from(u16::from_ne_bytes([last, 0]));
        }
        Self(sum)
    }

    /// Adds a number that stands in network order in the packet.
    #[must_use]
    pub(super) fn number(self, number: u16) -> Self {
        Self(self.0 + u64::from(number.to_be()))
    }

    /// The sum folded to 16 bits, not complemented: what a partial checksum field holds.
    #[must_use]
    pub(super) fn partial(self) -> [u8; 2] {
        fold16(self.0).to_ne_bytes()
    }

    /// The checksum.
    #[must_use]
    pub(super) fn finish(self) -> [u8; 2] {
        (!fold16(self.0)).to_ne_bytes()
    }

    /// Whether the bytes summed, checksum included, are intact.
    #[must_use]
    pub(super) fn is_intact(self) -> bool {
        fold16(self.0) == 0xffff
    }
}

const fn fold64(sum: u64) -> u64 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    (sum & 0xffff) + (sum >> 16)
}

const fn fold16(sum: u64) -> u16 {
    let mut sum = fold64(sum);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Pseudo-header of a packet whose addresses are `addresses` (8 or 32 bytes), without the length.
#[must_use]
pub(super) fn pseudo(addresses: &[u8], protocol: u8) -> Sum {
    Sum::default().bytes(addresses).number(u16::from(protocol))
}

/// The checksum after one 16-bit field changed (RFC 1624, equation 3).
#[must_use]
pub(super) fn updated(checksum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let sum = u64::from(!u16::from_ne_bytes(checksum))
        + u64::from(!u16::from_ne_bytes(old))
        + u64::from(u16::from_ne_bytes(new));
    (!fold16(sum)).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 word by word.
    fn oracle(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn a_sum_of_every_length_agrees_with_the_definition() {
        let bytes: Vec<u8> = (0..3_000u32).map(|n| ((n * 167) >> 3) as u8 | 0xc0).collect();
        for len in (0..200).chain([1_371, 1_372, 2_999, 3_000]) {
            let ours = u16::from_be_bytes(Sum::default().bytes(&bytes[..len]).finish());
            assert_eq!(ours, oracle(&bytes[..len]), "{len}");
        }
    }

    #[test]
    fn an_update_equals_a_new_sum() {
        let mut bytes = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc];
        let before = Sum::default().bytes(&bytes).finish();
        bytes[2..4].copy_from_slice(&[0xff, 0x01]);
        assert_eq!(updated(before, [0x56, 0x78], [0xff, 0x01]), Sum::default().bytes(&bytes).finish());
    }
}
