//! One way out of a relay: the interface, both stations' addresses, the relay's own address.
//!
//! Owns the value of `HOPS`. The controller resolves it from what the kernel says of routes, links and
//! neighbours; the packet path believes it only while it is whole. Must never be kept by a packet.

use super::sequence::SEQUENCE;

/// Ways a relay knows.
pub const HOPS_MAX: u32 = 1_024;

/// Flag in [`Hop::flags`]: interface and stations are known. Without it only `source` is.
pub const HOP_RESOLVED: u16 = 1;

/// One way. Read between two equal sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C, align(8))]
pub struct Hop {
    /// Even and not 0 when the rest belongs together; odd while it is written, 0 = no way here.
    pub sequence: u64,
    /// The relay's own address on this way; IPv4 as IPv4-mapped IPv6.
    pub source: [u8; 16],
    /// Interface to leave by.
    pub ifindex: u32,
    /// Largest IP packet this way takes; 0 = not known.
    pub mtu: u16,
    /// [`HOP_RESOLVED`] or 0.
    pub flags: u16,
    /// Station the frame goes to.
    pub destination_mac: [u8; 6],
    /// Station it comes from: the interface's own.
    pub source_mac: [u8; 6],
    /// For later; zero.
    pub reserved: u32,
}

/// Words of a [`Hop`].
pub const HOP_WORDS: usize = size_of::<Hop>() / 8;

impl Hop {
    /// Whether interface and stations are known.
    #[must_use]
    pub const fn resolved(&self) -> bool {
        self.flags & HOP_RESOLVED != 0
    }

    /// The way as its words in memory.
    #[must_use]
    pub const fn to_words(&self) -> [u64; HOP_WORDS] {
        let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] = self.source;
        let ([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5]) = (self.destination_mac, self.source_mac);
        [
            self.sequence,
            u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
            self.ifindex as u64 | (self.mtu as u64) << 32 | (self.flags as u64) << 48,
            u64::from_le_bytes([d0, d1, d2, d3, d4, d5, s0, s1]),
            u64::from_le_bytes([s2, s3, s4, s5, 0, 0, 0, 0]),
        ]
    }

    /// The way of its words; what is reserved reads as zero.
    #[must_use]
    #[inline(always)]
    pub const fn from_words(words: &[u64; HOP_WORDS]) -> Self {
        let [sequence, a, b, fields, stations, rest] = *words;
        let [a0, a1, a2, a3, a4, a5, a6, a7] = a.to_le_bytes();
        let [b0, b1, b2, b3, b4, b5, b6, b7] = b.to_le_bytes();
        let [d0, d1, d2, d3, d4, d5, s0, s1] = stations.to_le_bytes();
        let [s2, s3, s4, s5, _, _, _, _] = rest.to_le_bytes();
        Self {
            sequence,
            source: [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7],
            ifindex: fields as u32,
            mtu: (fields >> 32) as u16,
            flags: (fields >> 48) as u16,
            destination_mac: [d0, d1, d2, d3, d4, d5],
            source_mac: [s0, s1, s2, s3, s4, s5],
            reserved: 0,
        }
    }
}

const _: () = assert!(core::mem::offset_of!(Hop, sequence) == SEQUENCE * 8 && size_of::<Hop>() == 48);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_reads_back_from_its_words() {
        let hop = Hop {
            sequence: 4,
            source: *b"0123456789abcdef",
            ifindex: 0x8000_0001,
            mtu: 2,
            flags: HOP_RESOLVED,
            destination_mac: [1, 2, 3, 4, 5, 6],
            source_mac: [7, 8, 9, 10, 11, 12],
            reserved: 0,
        };
        assert_eq!(Hop::from_words(&hop.to_words()), hop);
        assert!(hop.resolved() && !Hop::default().resolved());
    }
}
