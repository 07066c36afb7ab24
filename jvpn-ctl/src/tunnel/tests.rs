//! Split and merge against an oracle that shares no code: checksums word by word, headers by hand.

mod dead;
mod ends;
mod fallback;
mod gather;
mod hold;
mod mixed;

use std::io::{self, IoSlice};

use proptest::prelude::*;

use super::coalesce::{Coalescer, Sink};
use super::icmp::{TOO_BIG_MAX, TunnelAddresses, too_big};
use super::inner::{Inner, TCP, UDP, clamp_mss};
use super::split::Split;
use super::vnet::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VNET_LEN, Vnet};

const FIN: u8 = 1;
const PSH: u8 = 8;
const ACK: u8 = 16;
const CWR: u8 = 0x80;

/// RFC 1071, word by word.
fn oracle(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    !(sum as u16)
}

/// What kind of packet a test is about.
#[derive(Clone, Copy, Debug)]
struct Shape {
    v6: bool,
    tcp: bool,
}

const SHAPES: [Shape; 4] = [
    Shape { v6: false, tcp: true },
    Shape { v6: true, tcp: true },
    Shape { v6: false, tcp: false },
    Shape { v6: true, tcp: false },
];

impl Shape {
    fn network(self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    /// Headers; TCP with twelve bytes of time stamps.
    fn headers(self) -> usize {
        self.network() + if self.tcp { 32 } else { 8 }
    }

    fn offset(self) -> usize {
        self.network() + if self.tcp { 16 } else { 6 }
    }

    fn gso_type(self) -> u8 {
        match self {
            Self { tcp: false, .. } => GSO_UDP_L4,
            Self { v6: false, .. } => GSO_TCPV4,
            Self { v6: true, .. } => GSO_TCPV6,
        }
    }

    /// Pseudo-header of `packet`.
    fn pseudo(self, packet: &[u8]) -> Vec<u8> {
        let mut bytes = packet[if self.v6 { 8..40 } else { 12..20 }].to_vec();
        let len = (packet.len() - self.network()) as u16;
        bytes.extend_from_slice(&[0, if self.tcp { TCP } else { UDP }]);
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes
    }

    /// A whole packet with right checksums.
    fn packet(self, id: u16, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = self.headers() + payload.len();
        let mut p = vec![0; self.headers()];
        if self.v6 {
            p[0] = 0x60;
            p[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            p[6..8].copy_from_slice(&[if self.tcp { TCP } else { UDP }, 64]);
            p[8..24].copy_from_slice(&[0xfd; 16]);
            p[24..40].copy_from_slice(&[0xfe; 16]);
        } else {
            p[0] = 0x45;
            p[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            p[4..6].copy_from_slice(&id.to_be_bytes());
            p[8..10].copy_from_slice(&[64, if self.tcp { TCP } else { UDP }]);
            p[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        }
        let t = self.network();
        p[t..t + 4].copy_from_slice(&[0x30, 0x39, 0x01, 0xbb]);
        if self.tcp {
            p[t + 4..t + 8].copy_from_slice(&sequence.to_be_bytes());
            p[t + 8..t + 16].copy_from_slice(&[0, 0, 0, 9, 0x80, flags, 1, 0]);
            p[t + 20..t + 32].copy_from_slice(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        } else {
            p[t + 4..t + 6].copy_from_slice(&((len - t) as u16).to_be_bytes());
        }
        p.extend_from_slice(payload);
        self.seal(&mut p);
        p
    }

    /// Computes every checksum anew.
    fn seal(self, p: &mut [u8]) {
        if !self.v6 {
            p[10..12].fill(0);
            let sum = oracle(&[&p[..20]]);
            p[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let at = self.offset();
        p[at..at + 2].fill(0);
        let sum = match oracle(&[&self.pseudo(p), &p[self.network()..]]) {
            0 => 0xffff,
            sum => sum,
        };
        p[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// What the kernel gives for a super-packet: partial checksum and the virtio header.
    fn super_packet(self, flags: u8, payload: &[u8], size: u16) -> (Vnet, Vec<u8>) {
        let mut p = self.packet(100, 1_000, flags, payload);
        let partial = !oracle(&[&self.pseudo(&p)]);
        let at = self.offset();
        p[at..at + 2].copy_from_slice(&partial.to_be_bytes());
        let ecn = if flags & CWR == 0 { 0 } else { GSO_ECN };
        let vnet = Vnet {
            flags: NEEDS_CSUM,
            gso_type: self.gso_type() | ecn,
            hdr_len: 0,
            gso_size: size,
            csum_start: self.network() as u16,
            csum_offset: (at - self.network()) as u16,
        };
        (vnet, p)
    }
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|n| ((n * 31) >> 2) as u8).collect()
}

/// The packets a super-packet stands for, by `Split`.
fn split(vnet: &Vnet, packet: &[u8], carry: bool) -> Option<Vec<(Vec<u8>, bool)>> {
    let inner = Inner::parse(packet)?;
    let mut split = Split::new(vnet, packet, inner, carry)?;
    let mut out = Vec::new();
    while let Some(len) = split.next_len() {
        let mut buffer = vec![0xaa; len];
        let piece = split.next_into(&mut buffer)?;
        assert_eq!(piece.len, len);
        assert!(len <= split.largest());
        out.push((buffer, piece.partial));
    }
    assert_eq!(out.len(), usize::from(split.count()));
    Some(out)
}

/// The same, made by hand from whole packets.
fn expected(shape: Shape, flags: u8, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let count = payload.len().div_ceil(size).max(1);
    (0..count)
        .map(|n| {
            let part = &payload[n * size..payload.len().min((n + 1) * size)];
            let mut flags = flags;
            if n + 1 < count {
                flags &= !(FIN | PSH);
            }
            if n > 0 {
                flags &= !CWR;
            }
            shape.packet(100 + n as u16, 1_000 + (n * size) as u32, flags, part)
        })
        .collect()
}

/// A sink that keeps what was written, and may refuse merged writes.
#[derive(Default)]
struct Kept {
    written: Vec<(Vnet, Vec<u8>)>,
    refuse_merged: bool,
    fallbacks: usize,
}

impl Sink for Kept {
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let head: [u8; VNET_LEN] = (*parts[0]).try_into().unwrap();
        let vnet = Vnet::from_bytes(&head);
        if self.refuse_merged && vnet.gso_type != GSO_NONE {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.written.push((vnet, parts[1..].iter().flat_map(|part| part.to_vec()).collect()));
        Ok(())
    }

    fn fell_back(&mut self) {
        self.fallbacks += 1;
    }

    fn dropped(&mut self) {
        panic!("a packet was dropped");
    }
}

/// Merges packets that lie `gap` bytes apart in one buffer.
fn merge(packets: &[(Vec<u8>, bool)], refuse_merged: bool) -> Kept {
    const GAP: usize = 40;
    let mut buffer = Vec::new();
    let mut places = Vec::new();
    for (packet, partial) in packets {
        buffer.resize(buffer.len() + GAP, 0xee);
        places.push((buffer.len(), *partial));
        buffer.extend_from_slice(packet);
    }
    let mut kept = Kept { refuse_merged, ..Kept::default() };
    let mut coalescer = Coalescer::default();
    for (at, partial) in places {
        let inner = Inner::parse(&buffer[at..]).unwrap();
        coalescer.push(&mut buffer, at, inner, partial, &mut kept);
    }
    coalescer.flush(&mut buffer, &mut kept);
    kept
}

fn whole(packets: Vec<Vec<u8>>) -> Vec<(Vec<u8>, bool)> {
    packets.into_iter().map(|packet| (packet, false)).collect()
}

#[test]
fn segments_are_the_packets_somebody_would_have_sent_one_by_one() {
    for shape in SHAPES {
        for (len, size) in [(10_000, 1_372), (2_744, 1_372), (1, 1_372), (1_373, 1_372), (61_000, 1_000), (64, 1)] {
            let flags = if shape.tcp { ACK | PSH | FIN | CWR } else { 0 };
            let data = payload(len);
            let (vnet, packet) = shape.super_packet(flags, &data, size as u16);
            let pieces = split(&vnet, &packet, false).unwrap();
            assert_eq!(pieces, whole(expected(shape, flags, &data, size)), "{shape:?} {len} {size}");
        }
    }
}

#[test]
fn a_carried_checksum_is_the_pseudo_header_of_each_segment_alone() {
    for shape in SHAPES {
        let data = payload(5_000);
        let (vnet, packet) = shape.super_packet(ACK, &data, 1_372);
        let carried = split(&vnet, &packet, true).unwrap();
        for ((mut piece, partial), full) in carried.into_iter().zip(expected(shape, ACK, &data, 1_372)) {
            assert!(partial);
            let at = shape.offset();
            assert_eq!(piece[at..at + 2], (!oracle(&[&shape.pseudo(&piece)])).to_be_bytes());
            shape.seal(&mut piece);
            assert_eq!(piece, full);
        }
    }
}

#[test]
fn a_single_packet_passes_as_it_is_or_with_its_checksum_finished() {
    for shape in SHAPES {
        let full = shape.packet(100, 1_000, ACK, &payload(33));
        assert_eq!(split(&Vnet::default(), &full, true), Some(vec![(full.clone(), false)]));
        let (vnet, partial) = shape.super_packet(ACK, &payload(33), 0);
        let vnet = Vnet { gso_type: GSO_NONE, ..vnet };
        assert_eq!(split(&vnet, &partial, false), Some(vec![(full, false)]));
        assert_eq!(split(&vnet, &partial, true), Some(vec![(partial, true)]));
    }
}

#[test]
fn a_virtio_header_that_does_not_fit_is_refused_whole() {
    for shape in SHAPES {
        let (vnet, packet) = shape.super_packet(ACK, &payload(3_000), 1_000);
        let wrong = [
            Vnet { gso_size: 0, ..vnet },
            Vnet { flags: 0, ..vnet },
            Vnet { gso_type: 3, ..vnet },
            Vnet { gso_type: if shape.tcp { GSO_UDP_L4 } else { GSO_TCPV4 }, ..vnet },
            Vnet { csum_start: u16::MAX, ..vnet },
            Vnet { csum_start: vnet.csum_start + 2, ..vnet },
            Vnet { csum_offset: 2, ..vnet },
        ];
        for vnet in wrong {
            assert_eq!(split(&vnet, &packet, false), None, "{shape:?} {vnet:?}");
        }
    }
}

#[test]
fn merged_segments_are_the_super_packet_they_came_from() {
    for shape in SHAPES {
        for carry in [false, true] {
            let flags = if shape.tcp { ACK | PSH | FIN | CWR } else { 0 };
            let (vnet, packet) = shape.super_packet(flags, &payload(10_000), 1_372);
            let pieces = split(&vnet, &packet, carry).unwrap();
            let kept = merge(&pieces, false);
            let headers = shape.headers() as u16;
            assert_eq!(kept.written, [(Vnet { hdr_len: headers, ..vnet }, packet)], "{shape:?} {carry}");
        }
    }
}

#[test]
fn a_refused_merged_write_is_repeated_packet_by_packet() {
    for shape in SHAPES {
        let (vnet, packet) = shape.super_packet(ACK, &payload(4_000), 1_372);
        let pieces = split(&vnet, &packet, false).unwrap();
        let kept = merge(&pieces, true);
        assert_eq!(kept.fallbacks, 1);
        let written: Vec<_> = kept.written.into_iter().map(|(_, packet)| (packet, false)).collect();
        assert_eq!(written, pieces);
    }
}

#[test]
fn what_does_not_belong_together_is_written_apart() {
    let tcp = SHAPES[0];
    let data = payload(100);
    let first = tcp.packet(1, 0, ACK, &data);
    let change = |at: usize, value: u8| {
        let mut other = tcp.packet(2, 100, ACK, &data);
        other[at] = value;
        tcp.seal(&mut other);
        other
    };
    let apart = [
        ("a gap", tcp.packet(2, 101, ACK, &data)),
        ("a repetition", tcp.packet(2, 0, ACK, &data)),
        ("another identification", tcp.packet(7, 100, ACK, &data)),
        ("a reset", tcp.packet(2, 100, ACK | 4, &data)),
        ("urgent data", tcp.packet(2, 100, ACK | 32, &data)),
        ("a congestion mark", tcp.packet(2, 100, ACK | CWR, &data)),
        ("a longer one", tcp.packet(2, 100, ACK, &payload(101))),
        ("an empty one", tcp.packet(2, 100, ACK, &[])),
        ("another class", change(1, 3)),
        ("another hop limit", change(8, 63)),
        ("another source", change(15, 9)),
        ("another port", change(21, 9)),
        ("another acknowledgement", change(31, 8)),
        ("another window", change(34, 2)),
        ("another time stamp", change(47, 2)),
        ("a fragment", change(6, 0x20)),
        ("a wrong checksum", {
            let mut bad = tcp.packet(2, 100, ACK, &data);
            bad[99] ^= 1;
            bad
        }),
    ];
    for (what, second) in apart {
        let kept = merge(&whole(vec![first.clone(), second.clone()]), false);
        let written: Vec<_> = kept.written.iter().map(|(_, packet)| packet.clone()).collect();
        assert_eq!(written, [first.clone(), second], "{what}");
        assert!(kept.written.iter().all(|(vnet, _)| vnet.gso_type == GSO_NONE), "{what}");
    }
    let kept = merge(&[(first.clone(), false), (tcp.packet(2, 100, ACK, &data), true)], false);
    assert_eq!(kept.written.len(), 2, "carried and whole checksums");
}

#[test]
fn nothing_follows_a_short_or_pushed_segment() {
    let tcp = SHAPES[0];
    for (flags, len) in [(ACK | PSH, 100), (ACK | FIN, 100), (ACK, 99)] {
        let packets = vec![
            tcp.packet(1, 0, ACK, &payload(100)),
            tcp.packet(2, 100, flags, &payload(len)),
            tcp.packet(3, 100 + len as u32, ACK, &payload(100)),
        ];
        let lengths: Vec<_> = merge(&whole(packets), false).written.iter().map(|(_, packet)| packet.len()).collect();
        assert_eq!(lengths, [52 + 100 + len, 152]);
    }
}

#[test]
fn an_unvouched_packet_is_left_to_the_kernel_to_verify() {
    let mut packet = SHAPES[2].packet(1, 0, 0, &payload(10));
    packet[30] ^= 1;
    let kept = merge(&whole(vec![packet.clone()]), false);
    assert_eq!(kept.written, [(Vnet::default(), packet)]);
}

#[test]
fn inner_headers_that_lie_are_refused() {
    for shape in SHAPES {
        let packet = shape.packet(1, 0, ACK, &payload(10));
        assert_eq!(Inner::parse(&packet).unwrap().len, packet.len());
        for len in 0..packet.len() {
            assert_eq!(Inner::parse(&packet[..len]), None);
        }
        let mut padded = packet.clone();
        padded.resize(packet.len() + 9, 0);
        assert_eq!(Inner::parse(&padded).unwrap().len, packet.len());
        for first in [0x00, 0x10, 0x55, 0x70, 0xff, 0x44] {
            let mut other = packet.clone();
            other[0] = first;
            assert!(Inner::parse(&other).is_none_or(|inner| first >> 4 == 4 && inner.transport >= 20 && !shape.v6));
        }
    }
}

#[test]
fn what_never_leaves_its_link_is_known_by_its_addresses() {
    let inner = |source: &str, destination: &str| {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Inner { source, destination, protocol: UDP, transport: 20, len: 28, fragment: false }
    };
    let of_the_link = [
        ("fe80::1", "ff02::2"),
        ("::", "ff02::16"),
        ("fd77::1", "ff02::1"),
        ("fd77::1", "ff01::1"),
        ("fe80::1", "fd77::2"),
        ("fd77::1", "fe80::2"),
        ("0.0.0.0", "10.0.0.1"),
        ("10.0.0.1", "224.0.0.22"),
        ("169.254.3.4", "10.0.0.1"),
        ("10.0.0.1", "169.254.3.4"),
        ("10.0.0.1", "255.255.255.255"),
    ];
    for (source, destination) in of_the_link {
        assert!(inner(source, destination).is_of_the_link(), "{source} → {destination}");
    }
    for (source, destination) in [
        ("fd77::1", "ff05::2"),
        ("fd77::1", "ff0e::1"),
        ("2001:db8::1", "fd77::2"),
        ("10.0.0.1", "224.0.1.1"),
        ("10.0.0.1", "10.0.0.255"),
        ("192.168.1.1", "8.8.8.8"),
    ] {
        assert!(!inner(source, destination).is_of_the_link(), "{source} → {destination}");
    }
}

#[test]
fn a_syn_that_offers_too_much_is_lowered_with_its_checksum() {
    for shape in [SHAPES[0], SHAPES[1]] {
        for pad in 0..3 {
            let mut packet = shape.packet(1, 0, 2, &[]);
            let at = shape.network() + 20;
            packet[at..at + 12].copy_from_slice(&[1; 12]);
            packet[at + pad..at + pad + 4].copy_from_slice(&[2, 4, 0x05, 0xb4]);
            shape.seal(&mut packet);
            let inner = Inner::parse(&packet).unwrap();
            clamp_mss(&mut packet, &inner, 1_412, false);
            let mss = 1_412 - shape.network() as u16 - 20;
            assert_eq!(packet[at + pad + 2..at + pad + 4], mss.to_be_bytes());
            let mut sealed = packet.clone();
            shape.seal(&mut sealed);
            assert_eq!(packet, sealed);
            clamp_mss(&mut packet, &inner, 1_500, false);
            assert_eq!(packet, sealed, "a small offer stays");
        }
    }
}

#[test]
fn too_big_names_the_mtu_and_quotes_the_packet() {
    let from = TunnelAddresses { v4: "10.0.0.254".parse().ok(), v6: "fd00::254".parse().ok() };
    for shape in SHAPES {
        let packet = shape.packet(1, 0, ACK, &payload(1_400));
        let inner = Inner::parse(&packet).unwrap();
        let mut out = [0; TOO_BIG_MAX];
        let len = too_big(&packet, &inner, 1_300, &from, &mut out).unwrap();
        let message = &out[..len];
        let (icmp, quoted) = if shape.v6 { (40, 48) } else { (20, 28) };
        assert_eq!(Inner::parse(message).unwrap().len, len);
        assert_eq!(message[quoted..], packet[..len - quoted]);
        if shape.v6 {
            assert_eq!((message[icmp], &message[icmp + 4..icmp + 8]), (2, &1_300u32.to_be_bytes()[..]));
            let pseudo = [&message[8..40], &[0, 58], &((len - 40) as u16).to_be_bytes()].concat();
            assert_eq!(oracle(&[&pseudo, &message[40..]]), 0);
        } else {
            assert_eq!(
                (&message[icmp..icmp + 2], &message[icmp + 6..icmp + 8]),
                (&[3, 4][..], &1_300u16.to_be_bytes()[..])
            );
            assert_eq!((oracle(&[&message[..20]]), oracle(&[&message[20..]])), (0, 0));
        }
        let about = message.to_vec();
        let inner = Inner::parse(&about).unwrap();
        assert_eq!(too_big(&about, &inner, 1_300, &from, &mut out), None, "no error about an error");
    }
}

proptest! {
    #[test]
    fn split_of_a_merge_is_what_was_merged(
        shape in prop::sample::select(&SHAPES[..]), len in 2usize..60_000, size in 1_000u16..1_380, carry: bool, push: bool,
    ) {
        let flags = if push { ACK | PSH } else { ACK };
        let (vnet, packet) = shape.super_packet(flags, &payload(len), size);
        let pieces = split(&vnet, &packet, carry).unwrap();
        let mut again = Vec::new();
        for (vnet, packet) in merge(&pieces, false).written {
            again.extend(split(&vnet, &packet, carry).unwrap());
        }
        prop_assert_eq!(again, pieces);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), head: [u8; VNET_LEN]) {
        let mut bytes = bytes;
        let _ = split(&Vnet::from_bytes(&head), &bytes, false);
        if let Some(inner) = Inner::parse(&bytes) {
            let _ = inner.checksum_intact(&bytes);
            clamp_mss(&mut bytes, &inner, 1_412, false);
            let mut kept = Kept::default();
            let mut coalescer = Coalescer::default();
            coalescer.push(&mut bytes, 0, inner, inner.checksum_offset().is_some(), &mut kept);
            coalescer.flush(&mut bytes, &mut kept);
            prop_assert_eq!(kept.written.len(), 1);
        }
    }
}
