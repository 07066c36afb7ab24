//! Ethernet II, with at most one 802.1Q tag.
//!
//! Owns the 14 bytes and the type numbers. Must never look behind a second tag: such frames are foreign.

/// Bytes of the header without a tag.
pub const LEN: usize = 14;
/// Bytes of an 802.1Q tag.
pub const TAG_LEN: usize = 4;
/// Type of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// Type of IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;
/// Type of an 802.1Q tag.
pub const TYPE_VLAN: u16 = 0x8100;

/// The header as it stands in the frame.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet(pub [u8; LEN]);

impl Ethernet {
    /// What follows: an IP version, a tag, or something foreign.
    #[must_use]
    pub const fn ethertype(&self) -> u16 {
        u16::from_be_bytes([self.0[12], self.0[13]])
    }

    /// Whether the frame is for more than one station. An answer would carry a group address as its source.
    #[must_use]
    pub const fn is_group(&self) -> bool {
        self.0[0] & 1 == 1
    }

    /// The two addresses, exchanged.
    #[must_use]
    pub const fn swapped(&self) -> [u8; 12] {
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, _, _] = self.0;
        [s0, s1, s2, s3, s4, s5, d0, d1, d2, d3, d4, d5]
    }
}
