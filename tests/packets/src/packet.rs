//! Frames and datagrams as a client would send them, built without the product's own parsers.
//!
//! Owns the addresses and keys of the packet suites. Steering tags come from the SipHash crate, outer
//! headers from etherparse: what is built here must never share code with what it tests.

use etherparse::PacketBuilder;
use jvpn_common::abi::SteeringKeys;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The gateway's port.
pub const PORT: u16 = 51_821;
/// The client's address in IPv4.
pub const CLIENT_V4: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 10), 40_000));
/// The gateway's address in IPv4.
pub const GATEWAY_V4: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), PORT));
/// The client's address in IPv6.
pub const CLIENT_V6: SocketAddr =
    SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, 6), 40_000, 0, 0));
/// The gateway's address in IPv6.
pub const GATEWAY_V6: SocketAddr =
    SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1), PORT, 0, 0));
/// Station addresses.
pub const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

/// Steering keys of every session here.
pub const KEYS: SteeringKeys = SteeringKeys {
    up: [0x0102_0304_0506_0708, 0x1112_1314_1516_1718],
    down: [0x2122_2324_2526_2728, 0x3132_3334_3536_3738],
};

/// `XDP_DROP`.
pub const XDP_DROP: u32 = 1;
/// `XDP_PASS`.
pub const XDP_PASS: u32 = 2;
/// `XDP_TX`.
pub const XDP_TX: u32 = 3;
/// `XDP_REDIRECT`.
pub const XDP_REDIRECT: u32 = 4;

/// The tag of a datagram whose first 24 bytes are its header, by the SipHash crate. `body` is covered for
/// probes, echoes and notices.
#[must_use]
pub fn tag(key: [u64; 2], datagram: &[u8], k: u16) -> u32 {
    let mut hasher = SipHasher13::new_with_keys(key[0], key[1]);
    if (6..=8).contains(&datagram[0]) {
        hasher.write(&datagram[24..72]);
    }
    hasher.write(&datagram[16..24]);
    hasher.write(&datagram[0..4]);
    hasher.write(&k.to_le_bytes());
    u32::try_from(hasher.finish() & 0xffff_ffff).expect("masked")
}

/// Any datagram of a session, correctly tagged; `rest` is what follows the header.
#[must_use]
pub fn datagram(kind: u8, flags: u16, locator: u64, k: u16, counter: u64, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 1];
    bytes.extend(flags.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(locator.to_le_bytes());
    bytes.extend(counter.to_le_bytes());
    bytes.extend(rest);
    if bytes.len() >= 72 || !(6..=8).contains(&kind) {
        let tag = tag(KEYS.up, &bytes, k);
        bytes[4..8].copy_from_slice(&tag.to_le_bytes());
    }
    bytes
}

/// A datagram of a session from its owner: the flag is set, the tag is of that direction.
#[must_use]
pub fn down(kind: u8, flags: u16, locator: u64, k: u16, counter: u64, rest: &[u8]) -> Vec<u8> {
    let mut bytes = datagram(kind, flags | 1, locator, k, counter, rest);
    let tag = tag(KEYS.down, &bytes, k);
    bytes[4..8].copy_from_slice(&tag.to_le_bytes());
    bytes
}

/// Data with `len` bytes behind the header.
#[must_use]
pub fn data(locator: u64, k: u16, counter: u64, len: usize) -> Vec<u8> {
    datagram(4, 0, locator, k, counter, &filler(len))
}

/// Control, padded to 200.
#[must_use]
pub fn control(locator: u64, k: u16, counter: u64) -> Vec<u8> {
    datagram(5, 0, locator, k, counter, &filler(176))
}

/// A probe with `padding` bytes behind its body.
#[must_use]
pub fn probe(locator: u64, k: u16, sequence: u64, padding: usize) -> Vec<u8> {
    let mut rest = vec![0; 48];
    rest[..8].copy_from_slice(&0x1234_5678_9abc_def0_u64.to_le_bytes());
    rest.extend(filler(padding));
    datagram(6, 0, locator, k, sequence, &rest)
}

/// Handshake message 1 as far as steering looks at it.
#[must_use]
pub fn initiation(len: usize) -> Vec<u8> {
    let mut bytes = filler(len);
    bytes[0] = 1;
    bytes
}

fn filler(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// A frame from `client` to `gateway`, optionally tagged for a VLAN.
#[must_use]
pub fn frame(client: SocketAddr, gateway: SocketAddr, vlan: bool, payload: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(MACS.0, MACS.1);
    let mut out = Vec::new();
    macro_rules! finish {
        ($link:expr) => {
            match (client, gateway) {
                (SocketAddr::V4(from), SocketAddr::V4(to)) => $link
                    .ipv4(from.ip().octets(), to.ip().octets(), 20)
                    .udp(from.port(), to.port())
                    .write(&mut out, payload),
                (SocketAddr::V6(from), SocketAddr::V6(to)) => $link
                    .ipv6(from.ip().octets(), to.ip().octets(), 20)
                    .udp(from.port(), to.port())
                    .write(&mut out, payload),
                _ => panic!("both ends speak one version"),
            }
        };
    }
    let written = if vlan {
        finish!(ethernet.single_vlan(etherparse::VlanId::try_new(7).expect("below 4,096")))
    } else {
        finish!(ethernet)
    };
    written.expect("a vector takes everything");
    out
}

/// From the client's IPv4 address to the gateway's.
#[must_use]
pub fn frame_v4(payload: &[u8]) -> Vec<u8> {
    frame(CLIENT_V4, GATEWAY_V4, false, payload)
}

/// From the client's IPv6 address to the gateway's.
#[must_use]
pub fn frame_v6(payload: &[u8]) -> Vec<u8> {
    frame(CLIENT_V6, GATEWAY_V6, false, payload)
}

/// The IPv6 frame with one more extension header (`header`, its first byte overwritten with what follows)
/// in front of what is there.
#[must_use]
pub fn extended(frame: &[u8], kind: u8, header: &[u8]) -> Vec<u8> {
    let (before, behind) = frame.split_at(54);
    let mut out = before.to_vec();
    let mut header = header.to_vec();
    header[0] = out[20];
    out[20] = kind;
    let len = u16::from_be_bytes([out[18], out[19]]) + u16::try_from(header.len()).expect("short");
    out[18..20].copy_from_slice(&len.to_be_bytes());
    out.extend(header);
    out.extend(behind);
    out
}

/// The IPv4 frame with `len` bytes of options (no-operation).
#[must_use]
pub fn with_options(frame: &[u8], len: u8) -> Vec<u8> {
    let (before, behind) = frame.split_at(34);
    let mut out = before.to_vec();
    out[14] = 0x40 | (5 + len / 4);
    let total = u16::from_be_bytes([out[16], out[17]]) + u16::from(len);
    out[16..18].copy_from_slice(&total.to_be_bytes());
    out.extend(std::iter::repeat_n(1, usize::from(len)));
    out.extend(behind);
    out
}
