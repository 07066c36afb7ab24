//! The virtio header before every packet of the TUN: offloads, spelled out.
//!
//! Owns the ten bytes (native order, as the TUN has it by default). Must never act on them.

/// Bytes of the header.
pub(super) const VNET_LEN: usize = 10;

/// `flags`: the checksum is partial; the fields say where it stands.
pub(super) const NEEDS_CSUM: u8 = 1;
/// `flags`: the checksum was verified.
pub(super) const DATA_VALID: u8 = 2;

/// `gso_type`: one packet.
pub(super) const GSO_NONE: u8 = 0;
/// `gso_type`: TCP over IPv4.
pub(super) const GSO_TCPV4: u8 = 1;
/// `gso_type`: TCP over IPv6.
pub(super) const GSO_TCPV6: u8 = 4;
/// `gso_type`: UDP datagrams of one length.
pub(super) const GSO_UDP_L4: u8 = 5;
/// Bit of `gso_type`: the first segment carries CWR.
pub(super) const GSO_ECN: u8 = 0x80;

/// The header, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Vnet {
    /// `NEEDS_CSUM`, `DATA_VALID`.
    pub flags: u8,
    /// `GSO_…`.
    pub gso_type: u8,
    /// Length of all headers; a hint only.
    pub hdr_len: u16,
    /// Payload of every segment but the last.
    pub gso_size: u16,
    /// Where the checksummed part begins.
    pub csum_start: u16,
    /// Where the checksum stands in it.
    pub csum_offset: u16,
}

impl Vnet {
    /// Reads the header.
    pub(super) fn from_bytes(bytes: &[u8; VNET_LEN]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = *bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        }
    }

    /// Writes the header.
    pub(super) fn to_bytes(self) -> [u8; VNET_LEN] {
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}
