//! An address as two words: what the kernel's registers hold.
//!
//! Owns the way between bytes and words. Sixteen bytes that come from one of two places would take sixteen words
//! of the kernel's small stack; two words take two. Must never look at a packet.

/// An address as the maps hold it, IPv4 as IPv4-mapped IPv6; each word little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub u64, pub u64);

/// Low half of the second word of an IPv4-mapped address.
const MAPPED: u32 = 0xffff_0000;

impl Address {
    /// The address of its bytes.
    #[must_use]
    #[inline(always)]
    pub const fn of(bytes: &[u8; 16]) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] = *bytes;
        Self(u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]), u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]))
    }

    /// Its bytes.
    #[must_use]
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 16] {
        let [a0, a1, a2, a3, a4, a5, a6, a7] = self.0.to_le_bytes();
        let [b0, b1, b2, b3, b4, b5, b6, b7] = self.1.to_le_bytes();
        [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7]
    }

    /// Whether it is of IPv4.
    #[must_use]
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.0 == 0 && self.1 as u32 == MAPPED
    }

    /// The four bytes of an IPv4 address as one word.
    #[must_use]
    #[inline(always)]
    pub const fn v4(self) -> u32 {
        (self.1 >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::mapped;

    #[test]
    fn an_address_reads_back_from_its_words_and_knows_its_version() {
        let v4 = mapped("192.0.2.33".parse().unwrap());
        let v6 = mapped("2001:db8::ffff:c000:221".parse().unwrap());
        for bytes in [v4, v6, [0; 16], *b"0123456789abcdef"] {
            assert_eq!(Address::of(&bytes).bytes(), bytes);
        }
        assert_eq!(Address::of(&v4).v4().to_le_bytes(), [192, 0, 2, 33]);
        assert!(Address::of(&v4).is_v4() && !Address::of(&v6).is_v4() && !Address::of(&[0; 16]).is_v4());
    }
}
