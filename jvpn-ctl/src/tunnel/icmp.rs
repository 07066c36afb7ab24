//! "Too big": what a sender inside is told when the path carries less than it sent.
//!
//! Owns the two messages, and how many there may be. Must never answer an ICMP error, a fragment that is not the first, or a group
//! address, and must never make a message longer than the standards allow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jvpn_common::time::Instant;

use super::checksum::Sum;
use super::inner::Inner;
use super::split::seal_v4_header;

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
/// RFC 1812: an ICMP error is at most 576 bytes; RFC 4443: at most 1,280.
const MAX_V4: usize = 576;
const MAX_V6: usize = 1_280;

/// ICMP errors per second and at once; RFC 1812 and 4443 ask for a limit.
const ICMP_PER_SECOND: u64 = 100;
const ICMP_BURST: u64 = 20;

/// Longest message written.
pub(super) const TOO_BIG_MAX: usize = MAX_V6;

/// The tunnel's own addresses, from which such messages come. A client's worker is older than its session's addresses: it
/// has none, and the message comes from where the packet was going.
#[derive(Clone, Copy, Debug, Default)]
pub struct TunnelAddresses {
    /// IPv4, if any.
    pub v4: Option<Ipv4Addr>,
    /// IPv6, if any.
    pub v6: Option<Ipv6Addr>,
}

/// A token bucket of messages, in boot time.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Boot time from which on the bucket would be empty, in nanoseconds.
    at: u64,
}

impl Bucket {
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let cost = 1_000_000_000 / ICMP_PER_SECOND;
        let at = self.at.max(now.0.saturating_sub(cost * ICMP_BURST));
        if at + cost > now.0 {
            return false;
        }
        self.at = at + cost;
        true
    }
}

/// Writes Fragmentation Needed or Packet Too Big about `packet` to `out`; its length, or none if no such
/// message may be sent.
pub(super) fn too_big(
    packet: &[u8],
    inner: &Inner,
    mtu: u16,
    from: &TunnelAddresses,
    out: &mut [u8; TOO_BIG_MAX],
) -> Option<usize> {
    match (inner.source, inner.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let silent = source.is_unspecified() || source.is_multicast() || source.is_broadcast();
            if silent || destination.is_multicast() || is_v4_error(packet, inner) || is_later_fragment(packet) {
                return None;
            }
            v4(packet, source, from.v4.unwrap_or(destination), mtu, out)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            // Packet Too Big is the one error that may answer a group address (RFC 4443, 2.4 e.3).
            let error = inner.protocol == ICMP_V6 && packet.get(40).is_none_or(|kind| kind & 0x80 == 0);
            if source.is_unspecified() || source.is_multicast() || error {
                return None;
            }
            // A group is nobody's address to send from.
            let own = from.v6.or(Some(destination).filter(|to| !to.is_multicast()))?;
            v6(packet, source, own, mtu, out)
        }
        _ => None,
    }
}

fn is_v4_error(packet: &[u8], inner: &Inner) -> bool {
    inner.protocol == ICMP && packet.get(inner.transport).is_none_or(|kind| matches!(kind, 3 | 4 | 5 | 11 | 12))
}

fn is_later_fragment(packet: &[u8]) -> bool {
    packet.get(6..8).and_then(|b| b.first_chunk()).is_none_or(|b| u16::from_be_bytes(*b) & 0x1fff != 0)
}

fn v4(packet: &[u8], to: Ipv4Addr, from: Ipv4Addr, mtu: u16, out: &mut [u8; TOO_BIG_MAX]) -> Option<usize> {
    let quoted = packet.get(..packet.len().min(MAX_V4 - 28))?;
    let len = 28 + quoted.len();
    let out = out.get_mut(..len)?;
    let (head, icmp) = out.split_at_mut_checked(20)?;
    head.fill(0);
    *head.first_mut()? = 0x45;
    head.get_mut(2..4)?.copy_from_slice(&(len as u16).to_be_bytes());
    head.get_mut(8..10)?.copy_from_slice(&[64, ICMP]);
    head.get_mut(12..16)?.copy_from_slice(&from.octets());
    head.get_mut(16..20)?.copy_from_slice(&to.octets());
    seal_v4_header(head)?;
    icmp.get_mut(..6)?.copy_from_slice(&[3, 4, 0, 0, 0, 0]);
    icmp.get_mut(6..8)?.copy_from_slice(&mtu.to_be_bytes());
    icmp.get_mut(8..)?.copy_from_slice(quoted);
    let sum = Sum::default().bytes(icmp).finish();
    icmp.get_mut(2..4)?.copy_from_slice(&sum);
    Some(len)
}

fn v6(packet: &[u8], to: Ipv6Addr, from: Ipv6Addr, mtu: u16, out: &mut [u8; TOO_BIG_MAX]) -> Option<usize> {
    let quoted = packet.get(..packet.len().min(MAX_V6 - 48))?;
    let len = 48 + quoted.len();
    let out = out.get_mut(..len)?;
    let (head, icmp) = out.split_at_mut_checked(40)?;
    head.fill(0);
    *head.first_mut()? = 0x60;
    head.get_mut(4..6)?.copy_from_slice(&((len - 40) as u16).to_be_bytes());
    head.get_mut(6..8)?.copy_from_slice(&[ICMP_V6, 64]);
    head.get_mut(8..24)?.copy_from_slice(&from.octets());
    head.get_mut(24..40)?.copy_from_slice(&to.octets());
    icmp.get_mut(..6)?.copy_from_slice(&[2, 0, 0, 0, 0, 0]);
    icmp.get_mut(6..8)?.copy_from_slice(&mtu.to_be_bytes());
    icmp.get_mut(8..)?.copy_from_slice(quoted);
    let sum = super::checksum::pseudo(head.get(8..40)?, ICMP_V6).number(icmp.len() as u16).bytes(icmp).finish();
    icmp.get_mut(2..4)?.copy_from_slice(&sum);
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp_v4(to: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 77, 0, 17];
        packet.extend(to);
        packet.resize(40, 0);
        packet[24..26].copy_from_slice(&20u16.to_be_bytes());
        packet
    }

    fn udp_v6(last: u8, first: u8) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
        packet.extend([[0xfd, 0x77], [0; 2], [0; 2], [0; 2], [0; 2], [0; 2], [0; 2], [0, 17]].concat());
        packet.extend([[first, 0x77], [0; 2], [0; 2], [0; 2], [0; 2], [0; 2], [0; 2], [0, last]].concat());
        packet.extend([0, 1, 0, 2, 0, 8, 0, 0]);
        packet
    }

    fn told(packet: &[u8], from: TunnelAddresses) -> Option<Vec<u8>> {
        let mut out = [0; TOO_BIG_MAX];
        let inner = Inner::parse(packet).expect("a packet");
        too_big(packet, &inner, 1_200, &from, &mut out).map(|len| out[..len].to_vec())
    }

    #[test]
    fn a_sender_is_told_from_the_tunnels_address_or_from_where_the_packet_was_going() {
        let own = TunnelAddresses { v4: Some(Ipv4Addr::new(10, 77, 0, 1)), v6: None };
        for (from, address) in [(own, [10, 77, 0, 1]), (TunnelAddresses::default(), [192, 168, 77, 10])] {
            let message = told(&udp_v4([192, 168, 77, 10]), from).expect("a message");
            assert_eq!((&message[12..16], &message[16..20]), (&address[..], &[10, 77, 0, 17][..]));
            assert_eq!((message[20], message[21], &message[26..28]), (3, 4, &1_200u16.to_be_bytes()[..]));
        }
        let message = told(&udp_v6(10, 0xfd), TunnelAddresses::default()).expect("a message");
        assert_eq!((&message[8..24], &message[24..40]), (&udp_v6(10, 0xfd)[24..40], &udp_v6(10, 0xfd)[8..24]));
    }

    #[test]
    fn nobody_is_told_from_a_groups_address() {
        assert_eq!(told(&udp_v4([239, 0, 0, 1]), TunnelAddresses::default()), None);
        assert_eq!(told(&udp_v6(1, 0xff), TunnelAddresses::default()), None);
        let own = TunnelAddresses { v4: None, v6: Some("fd77::1".parse().expect("an address")) };
        assert!(told(&udp_v6(1, 0xff), own).is_some(), "the one error that may answer a group");
    }
}
