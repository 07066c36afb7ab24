//! Frames through a relay, made up by a seed.
//!
//! Owns the dice: addresses, ports, stations and ways of the maps, and frames that are forwarded whatever they are. Must
//! never make a frame that is refused: what is refused has its own list.

use crate::host::INGRESS;
use crate::maps::{State, locator, slot};
use crate::packet::{self, PORT};
use crate::relay::{self, ELSEWHERE, hop};
use jvpn_common::abi::mapped;
use jvpn_common::verdict::Verdict;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// xorshift64*: the same frames for the same seed, everywhere.
#[derive(Clone, Copy, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2) | 1)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.bits() >> 16) % end
    }

    /// `from` to `to`, both included.
    pub fn between(&mut self, from: u16, to: u16) -> u16 {
        from + u16::try_from(self.below(u64::from(to - from) + 1)).expect("not above a u16")
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| (self.bits() >> 33) as u8)
    }

    fn address(&mut self, v6: bool) -> IpAddr {
        if v6 {
            let [a, b, c, d, e, f, g, ..] = self.bytes::<8>();
            let tail = u64::from_be_bytes([b, c, d, e, f, g, a, b]);
            return IpAddr::V6(Ipv6Addr::from((0x2001_0db8_u128 << 96) | u128::from(tail) << 24 | u128::from(a)));
        }
        let [a, b, c, d] = self.bytes();
        IpAddr::V4(Ipv4Addr::new(1 + a % 200, b, c, d))
    }
}

/// The addresses of a made-up world, in both IP versions.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    client: [SocketAddr; 2],
    owner: [SocketAddr; 2],
    gateway: [IpAddr; 2],
}

/// A relay's maps with everything in them that ends up in a frame made up.
pub fn world(dice: &mut Dice) -> (State, Ends) {
    let mut state = relay::world();
    let both = |dice: &mut Dice| [dice.address(false), dice.address(true)];
    let ported = |dice: &mut Dice| both(dice).map(|ip| SocketAddr::new(ip, dice.between(1, u16::MAX - 1)));
    let ends = Ends { client: ported(dice), owner: ported(dice), gateway: both(dice) };
    for hop in state.hops.values_mut() {
        (hop.destination_mac, hop.source_mac) = (dice.bytes(), dice.bytes());
        hop.ifindex = if dice.below(2) == 0 { INGRESS } else { ELSEWHERE };
        hop.mtu = 0;
    }
    for (v6, ways) in [(false, [hop::OWNER_V4, hop::CLIENT_V4]), (true, [hop::OWNER_V6, hop::CLIENT_V6])] {
        for way in ways {
            let source = mapped(dice.address(v6));
            state.hops.entry(way).and_modify(|hop| hop.source = source);
        }
        let at = usize::from(v6);
        let owner = state.owners.get_mut(&0).expect("the first owner");
        let end = if v6 { &mut owner.v6 } else { &mut owner.v4 };
        (end.address, end.port, end.mtu) = (mapped(ends.owner[at].ip()), ends.owner[at].port(), 0);
        let client = ends.client[at];
        let session = &mut state.sessions[if v6 { slot::V6 } else { slot::V4 } as usize];
        for (binding, more) in session.bindings.iter_mut().zip([1, 0, 0]) {
            (binding.address, binding.port) = (mapped(client.ip()), client.port() + more);
        }
    }
    (state, ends)
}

/// One's complement sum of a header.
fn header_checksum(header: &[u8]) -> u16 {
    let sum = header.chunks(2).fold(0_u32, |sum, pair| sum + u32::from(pair[0]) * 256 + u32::from(pair[1]));
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("folded")
}

/// A frame that is forwarded in `state`, how, and whether it is IPv6.
pub fn frame(dice: &mut Dice, state: &State, ends: &Ends) -> (Vec<u8>, Verdict, bool) {
    let (v6, down) = (dice.below(2) == 1, dice.below(2) == 1);
    let at = usize::from(v6);
    let known = if v6 { slot::V6 } else { slot::V4 };
    let drains = !down && dice.below(4) == 0;
    let k = if down { dice.between(0, 2) } else { u16::from(drains) };
    let len = if dice.below(2) == 0 { dice.between(16, 90) } else { dice.between(16, 1_400) };
    let rest: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| dice.bits().to_le_bytes()).take(usize::from(len)).collect();
    let (to, flags, counter) = (locator(known, k, dice.below(2) == 1), 2 * dice.between(0, 1), dice.bits());
    let (payload, from, way) = if down {
        let way = if v6 { hop::CLIENT_V6 } else { hop::CLIENT_V4 };
        (packet::down(4, flags, to, k, counter, &rest), ends.owner[at], way)
    } else {
        let client = ends.client[at];
        let way = if v6 { hop::OWNER_V6 } else { hop::OWNER_V4 };
        let client = SocketAddr::new(client.ip(), client.port() + u16::from(drains));
        (packet::datagram(4, flags, to, k, counter, &rest), client, way)
    };
    let vlan = state.hops[&way].ifindex == INGRESS && dice.below(2) == 0;
    let mut frame = packet::frame(from, SocketAddr::new(ends.gateway[at], PORT), vlan, &payload);
    let ip = if vlan { 18 } else { 14 };
    let left = u8::try_from(dice.between(2, 255)).expect("a byte");
    if v6 {
        let [class, label, more, even] = dice.bytes();
        frame[ip] = 0x60 | class >> 4;
        frame[ip + 1..ip + 4].copy_from_slice(&[class << 4 | label & 15, more, even]);
        frame[ip + 7] = left;
    } else {
        let [class, id, more, flags] = dice.bytes();
        frame[ip + 1] = class;
        frame[ip + 4..ip + 6].copy_from_slice(&[id, more]);
        frame[ip + 6] = flags & 0xc0;
        frame[ip + 8] = left;
        frame[ip + 10..ip + 12].copy_from_slice(&[0, 0]);
        let sum = header_checksum(&frame[ip..ip + 20]);
        frame[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
        if dice.below(16) == 0 {
            frame[ip + 26..ip + 28].copy_from_slice(&[0, 0]);
        }
    }
    // A switch fills short frames up, with whatever it has.
    let padding = usize::try_from(dice.below(4) * dice.below(12)).expect("few");
    frame.extend(std::iter::repeat_n(0xa5, padding));
    (frame, if down { Verdict::ForwardedDown } else { Verdict::ForwardedUp }, v6)
}
