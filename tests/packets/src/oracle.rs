//! What can be said about an answered or forwarded frame without asking the product.
//!
//! Owns the oracle: etherparse, every checksum computed in full, addresses taken from the maps as plain values. Panics at
//! the first difference. Must never share code with what it judges.

use etherparse::checksum::Sum16BitWords;
use etherparse::{LaxSlicedPacket, NetSlice, SlicedPacket, TransportSlice};
use jvpn_common::abi::{ActiveWord, Hop, ROLE_RELAY};
use jvpn_common::verdict::Verdict;

use crate::maps::{INCARNATION, NOW, State, TICK};
use crate::packet::{self, KEYS};

/// Whether etherparse finds a UDP datagram for our port, where it is sure.
#[must_use]
pub fn is_ours(frame: &[u8]) -> Option<bool> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let unicast = frame[0] & 1 == 0;
    let tags = packet.vlan_ids().len();
    let simple = tags == 0 || (tags == 1 && frame[12..14] == [0x81, 0]);
    if !simple || packet.is_ip_payload_fragmented() || !packet.link_exts.iter().all(is_vlan) {
        return None;
    }
    match (&packet.net, &packet.transport) {
        // Authentication headers are not walked: the kernel would not deliver what is behind one either.
        (Some(NetSlice::Ipv6(ip)), _) if ip.extensions().clone().into_iter().any(|e| is_authentication(&e)) => None,
        // Nor is a longer row of them than anybody sends.
        (Some(NetSlice::Ipv6(ip)), _) if ip.extensions().clone().into_iter().count() > 4 => None,
        (Some(NetSlice::Ipv4(ip)), _) if ip.extensions().auth.is_some() => None,
        (Some(_), Some(TransportSlice::Udp(udp))) => Some(unicast && udp.destination_port() == packet::PORT),
        (Some(_), Some(_)) => Some(false),
        _ => None,
    }
}

fn is_vlan(ext: &etherparse::LinkExtSlice<'_>) -> bool {
    matches!(ext, etherparse::LinkExtSlice::Vlan(_))
}

fn is_authentication(extension: &etherparse::Ipv6ExtensionSlice<'_>) -> bool {
    matches!(extension, etherparse::Ipv6ExtensionSlice::Authentication(_))
}

/// The sum of RFC 1071, folded; 0xffff over what carries a right checksum. (Over the bytes, since etherparse forgets the
/// reserved flag when it sums up a header.)
fn ones_complement(bytes: &[u8]) -> u32 {
    u32::from(!Sum16BitWords::new().add_slice(bytes).ones_complement().to_be())
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// An echo or notice as the protocol says it, with every checksum computed in full.
pub fn check_answer(question: &[u8], answer: &[u8], verdict: Verdict, before: &State) {
    let asked = LaxSlicedPacket::from_ethernet(question).expect("an answered question");
    let told = SlicedPacket::from_ethernet(answer).expect("an answer that parses strictly");
    assert!(answer.len() <= question.len(), "an answer is never larger than its question");
    assert_eq!((&answer[..6], &answer[6..12]), (&question[6..12], &question[..6]), "stations");
    assert_eq!(told.vlan_ids(), asked.vlan_ids(), "VLAN");
    let (Some(TransportSlice::Udp(from)), Some(TransportSlice::Udp(to))) = (&asked.transport, &told.transport) else {
        panic!("UDP both ways");
    };
    assert_eq!((to.source_port(), to.destination_port()), (from.destination_port(), from.source_port()));
    let sum = match (&asked.net, &told.net) {
        (Some(etherparse::LaxNetSlice::Ipv4(from)), Some(NetSlice::Ipv4(ip))) => {
            let (from, header) = (from.header(), ip.header());
            assert_eq!((header.source(), header.destination()), (from.destination(), from.source()));
            assert_eq!((header.ttl(), header.dcp(), header.ecn()), (64, from.dcp(), from.ecn()));
            assert_eq!(ones_complement(header.slice()), 0xffff, "IPv4 header checksum");
            to.to_header().calc_checksum_ipv4(&header.to_header(), to.payload()).expect("short")
        }
        (Some(etherparse::LaxNetSlice::Ipv6(from)), Some(NetSlice::Ipv6(ip))) => {
            let (from, header) = (from.header(), ip.header());
            assert_eq!((header.source(), header.destination()), (from.destination(), from.source()));
            assert_eq!(header.hop_limit(), 64);
            to.to_header().calc_checksum_ipv6(&header.to_header(), to.payload()).expect("short")
        }
        _ => panic!("the same IP version both ways"),
    };
    assert_eq!(to.checksum(), sum, "UDP checksum over everything");
    assert_ne!(to.checksum(), 0);
    check_body(from.payload(), to.payload(), verdict, before);
}

/// What stands in an echo or notice.
fn check_body(q: &[u8], a: &[u8], verdict: Verdict, before: &State) {
    assert_eq!((a[1], &a[2..4], &a[8..24]), (q[1], &[1_u8, 0][..], &q[8..24]), "epoch, direction, locator, counter");
    let (slot, k) = ((word(q, 8) >> 61) as u32, (word(q, 8) >> 8) as u16);
    assert_eq!(a[4..8], packet::tag(KEYS.down, a, k).to_le_bytes(), "tag");
    assert_eq!((word(a, 32), word(a, 40), word(a, 64)), (NOW, INCARNATION, 0), "time, incarnation, reserved");
    let alive = match before.config.role {
        ROLE_RELAY => before.owners[&(before.sessions[slot as usize].owner - 1)].alive_until >= TICK,
        _ => word(q, 8) & 1 == 0,
    };
    let path = before.paths[slot as usize * 4 + usize::from(k)];
    match verdict {
        Verdict::Echoed => {
            assert_eq!((a[0], a.len(), word(a, 24)), (7, q.len(), word(q, 24)));
            assert_eq!(a[72..], q[72..], "padding");
            let counts = u64::from(path.probes + 1) | path.data << 32;
            assert_eq!(word(a, 48), counts, "probes and data that arrived");
            assert_eq!(word(a, 56) & 4 != 0, alive, "liveness");
        }
        _ => assert_eq!((a[0], a.len(), word(a, 24), word(a, 48), word(a, 56)), (8, 72, 0, 0, 4)),
    }
}

/// Where the maps say that data of a session goes on: way, address, port.
#[must_use]
pub fn way_of(payload: &[u8], v6: bool, verdict: Verdict, state: &State) -> (Hop, [u8; 16], u16) {
    let session = &state.sessions[(word(payload, 8) >> 61) as usize];
    if verdict == Verdict::ForwardedUp {
        let owner = state.owners[&(session.owner - 1)];
        let end = if v6 { owner.v6 } else { owner.v4 };
        return (state.hops[&end.hop], end.address, end.port);
    }
    let active = ActiveWord(session.active).active();
    let binding = session.bindings[usize::from(active) - 1];
    (state.hops[&binding.gateway], binding.address, binding.port)
}

/// The sum of a UDP datagram with its pseudo-header, its checksum included: 0xffff when that is right.
fn udp_sum(addresses: &[u8], datagram: &[u8]) -> u32 {
    let mut bytes = addresses.to_vec();
    bytes.extend([0, 17]);
    bytes.extend(&datagram[4..6]);
    bytes.extend(datagram);
    ones_complement(&bytes)
}

/// The frame that must come out, by plain words of the RFCs: other stations, addresses, ports, one hop less, and
/// checksums that are as right as they were. The answer is needed for those that were wrong: theirs must be wrong by
/// as much. The interface it leaves by.
///
/// # Panics
/// At the first difference.
pub fn check_forwarded(question: &[u8], answer: &[u8], verdict: Verdict, state: &State) -> u32 {
    assert_eq!(question.len(), answer.len(), "length");
    let ip = if question[12..14] == [0x81, 0] { 18 } else { 14 };
    let v6 = question[ip] >> 4 == 6;
    let (header, addresses, at) = if v6 { (40, 8, 32) } else { (20, 12, 8) };
    let udp = ip + header;
    let end = udp + usize::from(u16::from_be_bytes([question[udp + 4], question[udp + 5]]));
    let (hop, to, port) = way_of(&question[udp + 8..], v6, verdict, state);
    let mut expected = question.to_vec();
    expected[..6].copy_from_slice(&hop.destination_mac);
    expected[6..12].copy_from_slice(&hop.source_mac);
    let skip = 16 - at / 2;
    expected[ip + addresses..ip + addresses + at / 2].copy_from_slice(&hop.source[skip..]);
    expected[ip + addresses + at / 2..ip + addresses + at].copy_from_slice(&to[skip..]);
    expected[if v6 { ip + 7 } else { ip + 8 }] -= 1;
    expected[udp..udp + 2].copy_from_slice(&packet::PORT.to_be_bytes());
    expected[udp + 2..udp + 4].copy_from_slice(&port.to_be_bytes());
    if !v6 {
        renew(question, answer, &mut expected, (ip + 10, 0), |frame| ones_complement(&frame[ip..ip + 20]));
    }
    if question[udp + 6..udp + 8] != [0, 0] {
        let of = |frame: &[u8]| udp_sum(&frame[ip + addresses..ip + addresses + at], &frame[udp..end]);
        renew(question, answer, &mut expected, (udp + 6, 0xffff), of);
        assert_ne!(answer[udp + 6..udp + 8], [0, 0], "a checksum that says it is none");
    }
    assert!(answer == expected, "{verdict}\n{}\nand not\n{}", hex::encode(answer), hex::encode(&expected));
    check_strictly(answer);
    hop.ifindex
}

/// Puts a right checksum at `at` if the question's was right, `zero` for 0; else takes the answer's, which must be wrong
/// by as much.
fn renew(question: &[u8], answer: &[u8], expected: &mut [u8], (at, zero): (usize, u16), sum: impl Fn(&[u8]) -> u32) {
    if sum(question) == 0xffff {
        expected[at..at + 2].copy_from_slice(&[0, 0]);
        let right = !u16::try_from(sum(expected)).expect("folded");
        let right = if right == 0 { zero } else { right };
        expected[at..at + 2].copy_from_slice(&right.to_be_bytes());
    } else {
        assert_eq!(sum(answer) % 0xffff, sum(question) % 0xffff, "a wrong checksum is wrong by as much");
        expected[at..at + 2].copy_from_slice(&answer[at..at + 2]);
    }
}

/// etherparse finds the datagram, and where its checksum is right says so too.
fn check_strictly(answer: &[u8]) {
    let told = SlicedPacket::from_ethernet(answer).expect("a frame that parses strictly");
    let Some(TransportSlice::Udp(udp)) = &told.transport else { panic!("UDP") };
    let sum = match &told.net {
        Some(NetSlice::Ipv4(ip)) => udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), udp.payload()),
        Some(NetSlice::Ipv6(ip)) => udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), udp.payload()),
        _ => panic!("an IP version"),
    };
    let (addresses, header) = match &told.net {
        Some(NetSlice::Ipv4(ip)) => (ip.header().slice()[12..20].to_vec(), udp.slice()),
        Some(NetSlice::Ipv6(ip)) => (ip.header().slice()[8..40].to_vec(), udp.slice()),
        _ => panic!("an IP version"),
    };
    if udp_sum(&addresses, header) == 0xffff && udp.checksum() != 0 {
        assert_eq!(udp.checksum(), sum.expect("short"), "UDP checksum over everything");
    }
}
